# SPDX-License-Identifier: GPL-3.0-or-later
"""The service backends: supervisord for real, the others over their commands."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import xmlrpc.client
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.module_utils import _service_supervisor
from ansible_collections.solver.fleet.plugins.module_utils._errors import StepError
from ansible_collections.solver.fleet.plugins.module_utils._service import (
    ServiceError,
    ServiceState,
    open_service,
)
from ansible_collections.solver.fleet.plugins.module_utils._service_supervisor import (
    SupervisorService,
    read_server_settings,
)
from ansible_collections.solver.fleet.plugins.module_utils._service_systemd import read_show

CONFIG = """\
[unix_http_server]
file=%(here)s/s.sock   ; a comment
username=fleet
password=only-for-this-test

[supervisord]
nodaemon=true
logfile=%(here)s/supervisord.log
pidfile=%(here)s/supervisord.pid

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[program:good]
command=sleep 300
startsecs=0
autostart=true

[program:stubborn]
command=/bin/sh -c "trap '' TERM; while :; do sleep 0.1; done"
startsecs=0
autostart=true
stopwaitsecs=2
stopasgroup=true
killasgroup=true

[program:crash]
command=/bin/sh -c "echo it broke; exit 3"
startsecs=1
startretries=50
autostart=true
redirect_stderr=true
stdout_logfile=%(here)s/crash.log

[program:ends]
command=/bin/sh -c "exit 4"
startsecs=0
autorestart=false
autostart=true

[program:hopeless]
command=/bin/sh -c "exit 5"
startsecs=1
startretries=0
autostart=true

[program:changes]
command=sleep 301
startsecs=0
autostart=true

[program:missing]
command=%(here)s/link/program
startsecs=0
autostart=false
"""


def await_that(condition: Callable[[], bool], timeout: float = 15.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def supervisor() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="sf-", dir="/tmp"))
    (folder / "s.conf").write_text(CONFIG)
    program = Path(sys.executable).parent / "supervisord"
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(
            [program, "-n", "-c", folder / "s.conf"], stdout=out, stderr=out, start_new_session=True
        )
    try:
        await_that((folder / "s.sock").exists)
        yield folder
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder)


def settings(folder: Path, name: str, **more: Any) -> dict[str, Any]:
    return {"backend": "supervisor", "name": name, "config": str(folder / "s.conf"), **more}


def test_restart_of_a_running_program_gives_another_process(supervisor: Path) -> None:
    service = open_service(settings(supervisor, "good"))
    await_that(lambda: service.state().state == "running")
    before = service.state()
    service.restart()
    await_that(lambda: service.state().state == "running")
    after = service.state()
    assert before.pid
    assert after.pid not in (None, before.pid)
    with pytest.raises(ProcessLookupError):
        os.kill(before.pid, 0)


def test_what_rests_is_started_as_it_is_defined_now(supervisor: Path) -> None:
    """provision.yml changes the definition of a program that serves, and never restarts it for that."""
    service = open_service(settings(supervisor, "changes"))
    others = open_service(settings(supervisor, "good"))
    await_that(lambda: service.state().state == others.state().state == "running")
    beside = others.state().pid
    (supervisor / "s.conf").write_text(CONFIG.replace("sleep 301", "sleep 302"))
    service.restart()
    # Its process is supervisord's own until it runs the program.
    await_that(lambda: service.state().state == "running"
               and Path(f"/proc/{service.state().pid}/cmdline").read_bytes() == b"sleep\x00302\x00")
    assert others.state().pid == beside
    service.restart()
    await_that(lambda: service.state().state == "running")


def test_stop_and_start_may_be_repeated(supervisor: Path) -> None:
    service = open_service(settings(supervisor, "good"))
    service.stop()
    service.stop()
    assert service.state()[:2] == ("stopped", None)
    service.start()
    service.start()
    await_that(lambda: open_service(settings(supervisor, "good")).state().state == "running")


@pytest.mark.parametrize(
    ("name", "state"),
    [("crash", "restarting"), ("ends", "failed"), ("hopeless", "failed"), ("missing", "stopped")],
)
def test_a_program_that_ended_by_itself_is_told_apart(supervisor: Path, name: str, state: str) -> None:
    service = open_service(settings(supervisor, name))
    await_that(lambda: service.state().state == state)
    assert service.state().pid is None


def test_the_exit_status_is_told(supervisor: Path) -> None:
    service = open_service(settings(supervisor, "ends"))
    await_that(lambda: service.state().state == "failed")
    assert service.state().detail.startswith("exit status 4")


@pytest.mark.parametrize("name", ["crash", "ends", "hopeless"])
def test_restart_works_in_every_state_of_failure(supervisor: Path, name: str) -> None:
    service = open_service(settings(supervisor, name))
    await_that(lambda: service.state().state in ("restarting", "failed"))
    service.restart()
    assert service.state().state in ("starting", "running", "restarting", "failed")
    service.stop()
    assert service.state().state in ("stopped", "failed")


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: 90000\r\n\r\n"])
def test_a_dripping_answer_does_not_outlast_the_time_of_a_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: bytes,
) -> None:
    """Each byte comes in time; the whole never does."""
    monkeypatch.setattr(_service_supervisor, "_CALL_TIMEOUT_S", 0.5)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "s.sock"))
    server.listen()
    ended = threading.Event()

    def drip() -> None:
        with server.accept()[0] as line, contextlib.suppress(OSError):
            line.recv(65536)
            line.sendall(head)
            while not ended.wait(0.05):
                line.sendall(b" " if head else b"H")

    threading.Thread(target=drip, daemon=True).start()
    service = SupervisorService({"backend": "supervisor", "name": "w1", "socket": str(tmp_path / "s.sock")})
    began = time.monotonic()
    with pytest.raises(ServiceError, match="no complete answer within") as caught:
        service.state()
    took = time.monotonic() - began
    ended.set()
    server.close()
    assert caught.value.code == "no_supervisor"
    assert took < 5, "one call, however often a byte comes"


def test_a_program_that_dies_within_the_call_counts_as_started(
    supervisor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = SupervisorService(settings(supervisor, "crash"))

    def died_at_once(*_arguments: object) -> None:
        raise xmlrpc.client.Fault(50, "SPAWN_ERROR: crash")

    monkeypatch.setattr(service, "_call", died_at_once)
    service.start()


def test_the_log_end_is_read(supervisor: Path) -> None:
    service = open_service(settings(supervisor, "crash", log_file=str(supervisor / "crash.log")))
    await_that(lambda: "it broke" in service.log_tail())
    assert set(service.log_tail(2)) == {"it broke"}


def test_a_missing_log_is_no_error(supervisor: Path) -> None:
    assert open_service(settings(supervisor, "crash", log_file="/nonexistent/log")).log_tail() == []


def test_a_pipe_in_the_place_of_the_log_is_left_alone(tmp_path: Path) -> None:
    """As a link of somebody else is: test_files_of_others.py."""
    os.mkfifo(tmp_path / "pipe")
    assert open_service(command(log_file=str(tmp_path / "pipe"))).log_tail() == [
        f"{tmp_path}/pipe is not shown: it is no regular file"]


def test_stop_is_bounded_and_says_what_to_raise(supervisor: Path) -> None:
    service = open_service(settings(supervisor, "stubborn", timeout=0.3))
    await_that(lambda: service.state().state == "running")
    began = time.monotonic()
    with pytest.raises(ServiceError) as error:
        service.stop()
    assert time.monotonic() - began < 2
    assert error.value.code == "stop_timeout"
    assert error.value.message == (
        "stopping 'stubborn': still STOPPING after 0.3 s; raise service.timeout (solver_service), "
        "or lower stopwaitsecs of the program"
    )


def test_a_release_without_its_program_says_so(supervisor: Path) -> None:
    with pytest.raises(ServiceError, match="starting 'missing' under supervisord: NO_FILE") as error:
        open_service(settings(supervisor, "missing")).start()
    assert error.value.code == "start_failed"


def test_an_unknown_program_names_the_setting(supervisor: Path) -> None:
    with pytest.raises(ServiceError, match=r"no program of this name; correct service\.name") as error:
        open_service(settings(supervisor, "nobody")).state()
    assert error.value.code == "no_service"


def test_the_socket_alone_needs_the_login_of_the_config(supervisor: Path) -> None:
    bare = {"backend": "supervisor", "name": "good", "socket": str(supervisor / "s.sock")}
    with pytest.raises(ServiceError) as error:
        open_service(bare).state()
    assert error.value.code == "no_supervisor"
    assert "only-for-this-test" not in str((error.value.message, error.value.details))


def test_no_supervisord_is_said(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="No such file or directory; start it") as error:
        open_service({"backend": "supervisor", "name": "w1", "socket": str(tmp_path / "none")}).state()
    assert error.value.code == "no_supervisor"


@pytest.mark.parametrize("text", ["", "[unix_http_server]\n", "no section", "\0"])
def test_a_config_without_a_socket_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.conf").write_text(text)
    with pytest.raises(ServiceError, match=r"set service\.config"):
        read_server_settings(str(tmp_path / "s.conf"))


def test_unknown_backend_and_missing_settings_are_named() -> None:
    with pytest.raises(
        ServiceError, match=r"'runit' is no backend; set service.backend .* to one of command, sup"
    ):
        open_service({"backend": "runit", "name": "w1"})
    with pytest.raises(ServiceError, match=r"needs service\.name"):
        open_service({"backend": "supervisor"})
    with pytest.raises(ServiceError, match=r"needs service\.socket"):
        open_service({"backend": "supervisor", "name": "w1"})
    with pytest.raises(ServiceError, match=r"needs service\.stop, a list"):
        open_service({"backend": "command", "name": "w1", "start": ["true"], "stop": "rm -rf"})


def command(**more: Any) -> dict[str, Any]:
    return {
        "backend": "command",
        "name": "w1",
        "start": ["true"],
        "stop": ["true"],
        "status": ["true"],
        **more,
    }


@pytest.mark.parametrize(("status", "state"), [(0, "running"), (1, "failed"), (3, "stopped"), (9, "unknown")])
def test_command_status_follows_the_exit_status(status: int, state: str) -> None:
    found = open_service(command(status=["sh", "-c", f"echo 'w1 (pid 4711)'; exit {status}"])).state()
    assert found == ServiceState(state, 4711, "w1 (pid 4711)")


def test_a_failing_command_shows_its_output() -> None:
    with pytest.raises(StepError) as error:
        open_service(command(stop=["sh", "-c", "echo no such thing >&2; exit 7"])).restart()
    assert error.value.message.startswith("running service.stop of 'w1': exit status 7")
    assert error.value.details == {"status": 7, "output": ["no such thing"]}


def test_a_command_that_hangs_is_ended_with_its_children() -> None:
    began = time.monotonic()
    with pytest.raises(ServiceError, match=r"it did not end in 0\.2 s"):
        open_service(command(start=["sh", "-c", "sleep 60 & wait"], timeout=0.2)).start()
    assert time.monotonic() - began < 5


def test_a_missing_command_is_named() -> None:
    with pytest.raises(ServiceError, match=r"correct service\.start"):
        open_service(command(start=["/nonexistent"])).start()


@pytest.mark.parametrize(
    ("show", "state", "pid"),
    [
        ("ActiveState=active\nSubState=running\nMainPID=12\nResult=success", "running", 12),
        ("ActiveState=activating\nSubState=auto-restart\nMainPID=0", "restarting", None),
        ("ActiveState=activating\nSubState=auto-restart\nMainPID=0\nJob=0", "restarting", None),
        # it is to be started now, by whoever has just asked for it
        ("ActiveState=activating\nSubState=auto-restart\nMainPID=0\nJob=4711", "starting", None),
        ("ActiveState=activating\nSubState=start\nMainPID=13", "starting", 13),
        ("ActiveState=failed\nSubState=failed\nMainPID=0", "failed", None),
        ("ActiveState=inactive\nSubState=dead\nMainPID=0", "stopped", None),
        ("garbage", "unknown", None),
    ],
)
def test_systemd_states(show: str, state: str, pid: int | None) -> None:
    assert read_show(show)[:2] == (state, pid)


@pytest.mark.parametrize(("show", "restarts"), [("NRestarts=0", 0), ("NRestarts=2", 2), ("ActiveState=active", None)])
def test_systemd_counts_what_it_restarted_by_itself(show: str, restarts: int | None) -> None:
    assert read_show(show).restarts == restarts
