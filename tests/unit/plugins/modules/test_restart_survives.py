# SPDX-License-Identifier: GPL-3.0-or-later
"""What was stopped is started, whoever dies in between: services of the operator's own commands, in a light script."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.module_utils._detached import detached
from ansible_collections.solver.fleet.plugins.module_utils._errors import StepError
from ansible_collections.solver.fleet.plugins.module_utils._record_file import RecordFile
from ansible_collections.solver.fleet.plugins.module_utils._service import open_service
from process_kit import await_that, kill_tree
from release_kit import ROOT, end_module, run_module, start_module

pytestmark = pytest.mark.programs

# A stop tells that it began, and takes until the test lets it go on.
SCRIPT = """\
cd {folder}
running() {{ [ -s pid ] && [ -e /proc/$(cat pid)/exe ]; }}
case $1 in
start) running || {{
    setsid sh -c 'echo $$ > pid; {trap} echo up >> log; while :; do sleep 0.1; done' >/dev/null 2>&1 & }}
    while ! running; do sleep 0.02; done ;;
stop) running && kill $(cat pid); echo stopping >> log; {wait} ;;
status) running && echo "w1 (pid $(cat pid))" || exit 3 ;;
esac
"""


class Site:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.worker_dir = folder / "workers" / "w1"
        self.worker_dir.mkdir(parents=True)
        for name in ("old", "new"):
            (folder / "releases" / name / "env" / "bin").mkdir(parents=True)
            (folder / "releases" / name / "env" / "bin" / "python").symlink_to(sys.executable)
            document = {"schema": "solver.release/1", "id": name, "version": "1"}
            (folder / "releases" / name / "release.json").write_text(json.dumps(document))
        (self.worker_dir / "current").symlink_to(folder / "releases" / "old")

    def service(self, wait: str = "while [ ! -e go ]; do sleep 0.02; done", trap: str = "",
                **more: Any) -> dict[str, Any]:
        script = self.folder / "service"
        script.write_text(SCRIPT.format(folder=shlex.quote(str(self.folder)), wait=wait, trap=trap))
        verbs = {verb: ["sh", str(script), verb] for verb in ("start", "stop", "status")}
        return {"backend": "command", "name": "w1", **verbs, **more}

    def log(self) -> list[str]:
        path = self.folder / "log"
        return path.read_text().split() if path.exists() else []

    def pid(self) -> int:
        return int((self.folder / "pid").read_text())

    def arguments(self, service: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"state": "active", "worker_name": "w1", "worker_dir": str(self.worker_dir),
                "base_dir": str(self.folder), "control_socket": str(self.folder / "w1.sock"), "owner": "r1",
                "release": "new", "service": service, **more}

    def lock(self, **more: Any) -> dict[str, Any]:
        return run_module("rollout_lock", {"worker_dir": str(self.worker_dir), "rollout_id": "r1", "run_id": "run1",
                                           **more})


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    # A restart that failed goes on to look whether it has something to start.
    (tmp_path / "service").unlink(missing_ok=True)
    (tmp_path / "go").touch()
    if (tmp_path / "pid").exists() and Path(f"/proc/{site.pid()}/exe").exists():
        os.killpg(site.pid(), signal.SIGKILL)


def test_all_processes_of_the_controller_killed_in_the_middle_of_a_restart(site: Site) -> None:
    service = site.service()
    open_service(service).start()
    await_that(lambda: site.log() == ["up"])
    before = site.pid()
    assert site.lock()["ours"] is True
    module = start_module("worker_release", site.arguments(service, run_id="run1"))
    await_that(lambda: "stopping" in site.log())
    kill_tree(module.pid)
    module.wait(30)
    # A later run must not be there too, as long as the restart goes on: neither another one, nor this one again.
    file = RecordFile(str(site.worker_dir))
    with pytest.raises(StepError, match="another module is at work"), file.guarded(exclusive=True, wait=0.0):
        pass
    with pytest.raises(StepError, match="another module is at work"), file.alone(0.0):
        pass
    assert site.log() == ["up", "stopping"]
    (site.folder / "go").touch()
    await_that(lambda: site.log() == ["up", "stopping", "up"])
    assert site.pid() != before
    assert (site.worker_dir / "current").readlink().name == "new"
    with file.guarded(exclusive=True, wait=60.0), file.alone(60.0):
        pass


def test_a_restart_that_nobody_disturbs_leaves_nothing_behind(site: Site) -> None:
    (site.folder / "go").touch()
    service = site.service()
    open_service(service).start()
    await_that(lambda: site.log() == ["up"])
    done = end_module(start_module("worker_release", site.arguments(service)))
    assert (done.get("failed"), done["restarted"]) == (None, True), done
    assert site.log() == ["up", "stopping", "up"]
    with RecordFile(str(site.worker_dir)).alone(0.0):
        pass


def test_nobody_waits_for_the_detached_process(site: Site) -> None:
    """A connection ends when all writers of its output are gone; the restart must be none of them."""
    service = site.service()
    open_service(service).start()
    code = ("import sys, json\n"
            "from ansible_collections.solver.fleet.plugins.module_utils._service import open_service\n"
            "open_service(json.loads(sys.argv[1])).restart()")
    process = subprocess.Popen([sys.executable, "-c", code, json.dumps(service)], stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": str(ROOT / ".collections")})
    await_that(lambda: "stopping" in site.log())
    kill_tree(process.pid)
    out, _none = process.communicate(timeout=30)
    assert out == b""
    (site.folder / "go").touch()
    await_that(lambda: site.log().count("up") == 2)


def test_what_stops_too_late_is_started_all_the_same(site: Site) -> None:
    """The stop was asked for and came after its time: the failure is said at once, and the service starts."""
    service = site.service(wait="(sleep 2; kill -9 $(cat pid)) >/dev/null 2>&1 & exit 7",
                           trap='trap "" TERM;', timeout=30.0)
    open_service(service).start()
    await_that(lambda: site.log() == ["up"])
    with pytest.raises(StepError, match="exit status 7"):
        open_service(service).restart()
    assert site.log() == ["up", "stopping"]
    await_that(lambda: site.log() == ["up", "stopping", "up"])


@pytest.mark.parametrize("wait", [":", "while :; do sleep 0.1; done", "exit 7"])
def test_by_force_also_a_process_ends_that_only_sigkill_ends(site: Site, wait: str) -> None:
    """Whether the stop command comes back at once, hangs as well, or says that it failed."""
    service = site.service(wait=wait, trap='trap "" TERM;', timeout=1.0)
    open_service(service).start()
    await_that(lambda: site.log() == ["up"])
    before = site.pid()
    open_service(service).restart(force=True)
    await_that(lambda: site.log() == ["up", "stopping", "up"])
    assert site.pid() != before


def test_without_force_nothing_is_killed(site: Site) -> None:
    service = site.service(wait="exit 7", trap='trap "" TERM;', timeout=0.2)
    open_service(service).start()
    await_that(lambda: site.log() == ["up"])
    before = site.pid()
    with pytest.raises(StepError, match="exit status 7"):
        open_service(service).restart()
    assert open_service(service).state()[:2] == ("running", before)


def test_a_service_that_tells_no_pid_is_named(site: Site) -> None:
    service = site.service(wait=":", trap='trap "" TERM;', timeout=0.2)
    open_service(service).start()
    await_that(lambda: site.log() == ["up"])
    service["status"] = ["true"]
    with pytest.raises(StepError, match=r"service\.status tells no pid that could be killed"):
        open_service(service).restart(force=True)


def test_a_crash_in_the_detached_process_is_a_failure_with_its_own_code() -> None:
    def crash() -> None:
        raise ZeroDivisionError("oops")

    mended = []
    with pytest.raises(StepError, match="ZeroDivisionError: oops") as error:
        detached(crash, lambda: mended.append(1), 30)
    assert error.value.code == "crashed"


def test_a_detached_process_that_is_killed_is_told_apart() -> None:
    with pytest.raises(StepError) as error:
        detached(lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: None, 30)
    assert error.value.code == "restart_lost"


def test_a_detached_process_has_an_end_of_its_own() -> None:
    with pytest.raises(StepError) as error:
        detached(signal.pause, lambda: None, 0.3)
    assert error.value.code == "restart_lost"
