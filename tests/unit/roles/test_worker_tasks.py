# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks of the worker's role that only look, run by the real ansible-playbook on this machine; nothing is changed."""

from __future__ import annotations

import grp
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.module_utils._service import open_service

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests/unit/plugins/modules"))
from process_kit import await_that  # noqa: E402
from release_kit import make_wheel  # noqa: E402

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
# An account of every Debian that no role of ours has made, with a group of the same name.
FOREIGN = "daemon"


def run(folder: Path, tasks: str, **options: Any) -> subprocess.CompletedProcess[str]:
    (folder / "play.yml").write_text(json.dumps([{
        "hosts": "localhost", "gather_facts": False, "connection": "local", "tasks": [{
            "name": "Run these tasks of the role",
            "ansible.builtin.include_role": {"name": "solver.fleet.worker", "tasks_from": tasks,
                                             "rolespec_validate": False},
            "vars": {"worker_name": "w1", "worker_dir": str(folder / "w1"), **options}}]}]))
    return subprocess.run(
        [str(BIN / "ansible-playbook"), "-i", "localhost,", str(folder / "play.yml"),
         "-e", f"ansible_python_interpreter={sys.executable}"],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def flat(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join(done.stdout.split())


def test_an_account_of_somebody_else_is_refused_unless_it_is_meant(tmp_path: Path) -> None:
    refused = run(tmp_path, "check_user.yml", worker_user=FOREIGN)
    assert refused.returncode != 0
    assert f"the user {FOREIGN} exists on this host and was not made by provisioning" in flat(refused)
    assert "solver_user_exists: true" in flat(refused)
    assert run(tmp_path, "check_user.yml", worker_user=FOREIGN, worker_user_exists=True).returncode == 0


def test_an_account_that_is_not_there_is_made_unless_it_should_be(tmp_path: Path) -> None:
    assert run(tmp_path, "check_user.yml", worker_user="no-such-user").returncode == 0
    refused = run(tmp_path, "check_user.yml", worker_user="no-such-user", worker_user_exists=True)
    assert refused.returncode != 0
    assert "this host has no user no-such-user" in flat(refused)


def test_a_worker_is_not_given_to_another_user(tmp_path: Path) -> None:
    (tmp_path / "w1").mkdir()
    if os.geteuid() == 0:
        os.chown(tmp_path / "w1", -1, grp.getgrnam(FOREIGN).gr_gid)
    own = grp.getgrgid((tmp_path / "w1").stat().st_gid).gr_name
    refused = run(tmp_path, "check_user.yml", worker_user="no-such-user")
    assert refused.returncode != 0
    assert f"its files belong to {own}, not to no-such-user (solver_user)" in flat(refused)


CONFIG = """\
[unix_http_server]
file={folder}/s.sock
username=fleet
password=only-for-this-test
[supervisorctl]
serverurl=unix://{folder}/s.sock
username=fleet
password=only-for-this-test
[supervisord]
nodaemon=true
logfile={folder}/supervisord.log
pidfile={folder}/supervisord.pid
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[include]
files={folder}/programs/*.conf
"""


@pytest.fixture
def supervisor() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="sf-", dir="/tmp"))
    (folder / "programs").mkdir()
    (folder / "s.conf").write_text(CONFIG.format(folder=folder))
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen([BIN / "supervisord", "-n", "-c", folder / "s.conf"], stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 30
        while not (folder / "s.sock").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield folder
    finally:
        process.terminate()
        process.wait(30)
        subprocess.run(["rm", "-r", folder], check=True)


def test_a_supervisord_with_a_password_is_told_by_its_configuration_as_the_modules_are(supervisor: Path) -> None:
    options = {
        "worker_service": {"name": "w1", "backend": "supervisor", "config": str(supervisor / "s.conf"),
                           "log_file": str(supervisor / "w1.log")},
        "worker_supervisor": {"program_dir": str(supervisor / "programs"), "supervisorctl": str(BIN / "supervisorctl")}}
    (supervisor / "w1").mkdir()
    done = run(supervisor, "service_supervisor.yml", **options)
    assert done.returncode == 0, done.stdout
    assert (supervisor / "programs" / "w1.conf").exists()
    assert "only-for-this-test" not in done.stdout
    again = run(supervisor, "service_supervisor.yml", **options)
    assert "changed=0" in again.stdout, again.stdout
    # A removal that was cut off has left the program running without its file: the next one stops it all the same.
    control = [str(BIN / "supervisorctl"), "-c", str(supervisor / "s.conf")]
    running = supervisor / "programs" / "w1.conf"
    running.write_text("[program:w1]\ncommand=sleep 600\n")
    subprocess.run([*control, "update", "w1"], check=True)
    await_that(lambda: subprocess.run([*control, "status", "w1"], check=False, capture_output=True).returncode == 0)
    running.unlink()
    gone = run(supervisor, "remove_supervisor.yml", **options)
    assert gone.returncode == 0, gone.stdout
    known = subprocess.run([*control, "status", "w1"], check=False, capture_output=True, text=True)
    assert "no such process" in known.stdout
    assert "changed=0" in run(supervisor, "remove_supervisor.yml", **options).stdout


def test_a_slot_that_is_not_wanted_any_more_is_taken_away_once_nothing_runs_there(supervisor: Path) -> None:
    program = supervisor / "programs" / "w1-standby.conf"
    program.write_text("[program:w1-standby]\ncommand=sleep 600\n")
    control = [str(BIN / "supervisorctl"), "-c", str(supervisor / "s.conf")]
    subprocess.run([*control, "update", "w1-standby"], check=True)
    options = {
        "worker_service": {"name": "w1", "backend": "supervisor", "config": str(supervisor / "s.conf"),
                           "log_file": str(supervisor / "w1.log")},
        "worker_supervisor": {"program_dir": str(supervisor / "programs"), "supervisorctl": str(BIN / "supervisorctl")}}
    (supervisor / "w1").mkdir()
    refused = run(supervisor, "service_supervisor.yml", **options)
    assert refused.returncode != 0, refused.stdout
    assert "w1: solver_standby is false, but a process runs in the slot of its standby" in flat(refused)
    assert [path.name for path in (supervisor / "programs").iterdir()] == ["w1-standby.conf"], "nothing is written"
    subprocess.run([*control, "stop", "w1-standby"], check=True)
    # Where supervisord does not answer, anything may run.
    text = (supervisor / "s.conf").read_text()
    (supervisor / "away.conf").write_text(text.replace("s.sock", "away.sock"))
    away = {"worker_service": {**options["worker_service"], "config": str(supervisor / "away.conf")}}
    assert run(supervisor, "no_slot_supervisor.yml", **{**options, **away}).returncode != 0
    assert program.exists()
    done = run(supervisor, "no_slot_supervisor.yml", **options)
    assert done.returncode == 0, done.stdout
    assert not program.exists()
    assert "no such process" in subprocess.run(
        [*control, "status", "w1-standby"], capture_output=True, text=True, check=False).stdout
    assert "changed=0" in run(supervisor, "no_slot_supervisor.yml", **options).stdout
    program.write_text("[program:w1-standby]\ncommand=sleep 600\n")  # and supervisor was never told
    assert run(supervisor, "no_slot_supervisor.yml", **options).returncode == 0
    assert not program.exists()


@pytest.mark.slow
def test_a_first_release_that_never_came_up_is_replaced_by_the_next_one(supervisor: Path) -> None:
    """It has served nobody and has no journal: there is nothing to drain, and nothing that could be rolled back to."""
    worker_dir = supervisor / "base" / "workers" / "w1"
    for version in ("1.2.0", "1.2.1"):
        make_wheel(supervisor / "wheels", version)  # without the module that the service runs
    options = {
        "worker_dir": str(worker_dir), "worker_base_dir": str(supervisor / "base"),
        "worker_control_socket": str(supervisor / "c" / "w1.sock"), "worker_wheelhouse": str(supervisor / "wheels"),
        "worker_python": sys.executable, "worker_start_timeout": 20,
        "worker_config": {"worker": {"name": "w1", "state_dir": str(worker_dir / "state")}},
        "worker_service": {"name": "w1", "backend": "supervisor", "config": str(supervisor / "s.conf"),
                           "log_file": str(supervisor / "w1.log")},
        "worker_supervisor": {"program_dir": str(supervisor / "programs"), "supervisorctl": str(BIN / "supervisorctl")}}
    starts = [0]
    for version in ("1.2.0", "1.2.1"):
        done = run(supervisor, "main.yml", worker_version=version, **options)
        assert done.returncode != 0, done.stdout
        assert "its process ended" in flat(done), done.stdout
        assert (worker_dir / "current").readlink().name.startswith(f"{version}-"), done.stdout
        await_that(lambda: open_service(options["worker_service"]).state().state == "failed")
        starts.append((supervisor / "w1.log").read_text().count("No module named"))
    assert starts[0] < starts[1] < starts[2], "what was given up is started again"


def test_a_directory_that_was_there_before_keeps_its_mode(tmp_path: Path) -> None:
    """/run for the socket is anybody's."""
    shared = tmp_path / "run"
    shared.mkdir()
    shared.chmod(0o1777)
    for backend in ("supervisor", "command"):
        done = run(tmp_path, f"host_{backend}.yml", worker_base_dir=str(tmp_path / "base"),
                   worker_control_socket=str(shared / "w1.sock"))
        assert done.returncode == 0, done.stdout
        assert shared.stat().st_mode & 0o7777 == 0o1777
    made = run(tmp_path, "host_command.yml", worker_base_dir=str(tmp_path / "own"),
               worker_control_socket=str(tmp_path / "sockets" / "w1.sock"))
    assert made.returncode == 0, made.stdout
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in ("own", "sockets", "w1")} == {0o750}
