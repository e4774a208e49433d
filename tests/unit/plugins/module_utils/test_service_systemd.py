# SPDX-License-Identifier: GPL-3.0-or-later
"""The backend of systemd against a systemctl that is scripted: what is asked, in which order, and what is refused."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.module_utils._errors import StepError
from ansible_collections.solver.fleet.plugins.module_utils._service_systemd import (
    SystemdService,
    blanked_by,
    read_show,
)

# Answers from the files of its folder; `restart` gives the unit the process id that stands in `next`.
SYSTEMCTL = """#!/bin/sh
cd {folder}
while [ "${{1#--}}" != "$1" ]; do shift; done
echo "$1" >> asked
[ "$1" != restart ] || [ ! -e next ] || mv next pid
[ "$1" = show ] && {{ cat show; echo "MainPID=$(cat pid)"; exit 0; }}
[ ! -e "$1.out" ] || cat "$1.out"
[ ! -e "$1.fails" ] || {{ cat "$1.fails" >&2; exit 1; }}
"""


JOURNALCTL = """#!/bin/sh
echo "$@" > {folder}/journal-asked
cat {folder}/journal
"""


class Manager:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.put(show="LoadState=loaded\nActiveState=active\nSubState=running\n", pid="7")
        for name, text in (("systemctl", SYSTEMCTL), ("journalctl", JOURNALCTL)):
            program = folder / name
            program.write_text(text.format(folder=folder))
            program.chmod(0o755)

    def put(self, **files: str) -> None:
        for name, text in files.items():
            (self.folder / name.replace("__", ".").replace("_", "-")).write_text(text)

    def asked(self) -> list[str]:
        return (self.folder / "asked").read_text().split()

    def service(self, **more: Any) -> SystemdService:
        return SystemdService({"backend": "systemd", "name": "solver-worker@w1", **more})


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manager:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Manager(tmp_path)


def test_a_restart_is_one_job_of_the_manager_after_it_has_read_the_unit(manager: Manager) -> None:
    manager.put(next="8")
    manager.service().restart()
    assert [verb for verb in manager.asked() if verb != "show"] == ["daemon-reload", "reset-failed", "restart"]


def test_a_refused_reload_is_a_failure_before_anything_is_stopped(manager: Manager) -> None:
    manager.put(daemon_reload__fails="Refusing to reload, not enough space available on /run/systemd.")
    with pytest.raises(StepError, match=r"not enough space available on /run/systemd\.; nothing was stopped") as error:
        manager.service().restart()
    assert (error.value.code, error.value.cause) == ("reload_failed", "host")
    assert manager.asked() == ["daemon-reload"]


def test_a_restart_waits_until_the_old_process_is_gone(manager: Manager) -> None:
    with pytest.raises(StepError, match=r"its process 7 is still there after 0\.3 s") as error:
        manager.service(timeout=0.3).restart()
    assert error.value.code == "stop_timeout"


@pytest.mark.parametrize(("said", "read"), [
    (["bye", "Stopped it.", "Starting it...", "it broke", "Starting it...", "it broke again"],
     ["Starting it...", "it broke", "Starting it...", "it broke again"]),
    (["bye", "it does not end"], ["bye", "it does not end"]),
])
def test_of_the_log_only_what_the_new_process_says_is_read(manager: Manager, said: list[str], read: list[str]) -> None:
    """Not the farewell of the one before; where nothing was started since, all since the restart was asked for."""
    manager.put(journal="\n".join(said) + "\n")
    service = manager.service()
    service.since = 1000.5
    assert service.log_tail() == read
    assert service.log_tail(1) == read[-1:]
    words = (manager.folder / "journal-asked").read_text().split()
    assert words[:3] == ["-u", "solver-worker@w1.service", "--since=@1000.500000"]
    service.since = None
    assert service.log_tail() == said


def test_after_a_restart_the_log_begins_with_it(manager: Manager) -> None:
    manager.put(next="8")
    service = manager.service()
    before = time.time()
    service.restart()
    assert service.since is not None
    assert service.since >= before


def test_a_refused_restart_is_the_host_s(manager: Manager) -> None:
    manager.put(restart__fails="Unit solver-worker@w1.service is masked.")
    with pytest.raises(StepError, match=r"solver-worker@w1\.service is masked") as error:
        manager.service().restart()
    assert error.value.cause == "host"


@pytest.mark.parametrize("said", ["enabled", "disabled", "linked", "static", "indirect", "transient"])
def test_a_unit_that_is_on_the_disk_can_be_started(manager: Manager, said: str) -> None:
    manager.put(is_enabled__out=f"{said}\n", is_enabled__fails="")
    assert manager.service().cannot_start() is None


@pytest.mark.parametrize(("out", "err", "why"), [
    ("masked\n", "", "masked"), ("masked-runtime\n", "", "masked-runtime"), ("not-found\n", "", "not-found"),
    ("bad\n", "", "bad"), ("", "", "no output"),
    ("", "Failed to get unit file state for solver-worker@w1.service: No such file or directory", "No such file"),
])
def test_a_unit_that_runs_but_is_gone_cannot_be_started(manager: Manager, out: str, err: str, why: str) -> None:
    manager.put(is_enabled__out=out, is_enabled__fails=err)
    found = manager.service().cannot_start()
    assert found
    assert why in found
    assert "run provision.yml" in found


def test_a_drop_in_that_takes_the_credentials_away_is_named(manager: Manager) -> None:
    drop_in = manager.folder / "zzz-lxc.conf"
    drop_in.write_text("[Service]\nProtectSystem=no\nLoadCredential=\n")
    manager.put(is_enabled__out="enabled\n", show=f"{manager.folder}/missing.conf {drop_in}\n")
    found = manager.service().cannot_start()
    assert found
    assert found.startswith(f"'{drop_in}' takes the credentials of 'solver-worker@w1.service' away")


@pytest.mark.parametrize(("drop_ins", "by"), [
    ([], None), ([("a", "[Service]\nMemoryMax=1G\n")], None),
    ([("a", "LoadCredential=\n")], "a"), ([("a", "  LoadCredential = \n"), ("b", "User=x\n")], "a"),
    ([("a", "LoadCredential=\n"), ("b", "LoadCredential=api_key:/x\n")], None),
    ([("a", "LoadCredential=\nLoadCredential=api_key:/x\n")], None),
    ([("a", "LoadCredential=api_key:/x\n"), ("b", "LoadCredential=\n")], "b"),
    ([("a", "LoadCredentialEncrypted=\n#LoadCredential=\n")], None)])
def test_the_last_word_on_credentials_counts(drop_ins: list[tuple[str, str]], by: str | None) -> None:
    assert blanked_by(drop_ins) == by


def test_between_the_two_halves_of_a_restart_nothing_has_failed() -> None:
    failed = "ActiveState=failed\nSubState=failed\nMainPID=0\n"
    assert read_show(failed + "Job=4711").state == "starting"
    assert read_show(failed + "Job=0").state == "failed"
    assert read_show(failed).state == "failed"
