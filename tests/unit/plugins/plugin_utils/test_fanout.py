# SPDX-License-Identifier: GPL-3.0-or-later
"""The processes of the fan-out: what comes back, how many at a time, and that nothing is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible.executor.process import worker
from ansible.utils.display import Display
from ansible_collections.solver.fleet.plugins.plugin_utils._controller import _fanout

LONG_S = 300


@pytest.fixture(autouse=True)
def _leaves_nothing() -> Iterator[None]:
    """No open descriptor, no child, not even a dead one."""
    before = sorted(Path("/proc/self/fd").iterdir())
    yield
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert sorted(Path("/proc/self/fd").iterdir()) == before


def until(condition: Any, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


def alive(pid: int) -> bool:
    """Whether it still runs; one that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def take(looks: dict[str, Any], timeout: float = 30.0, parallel: int = 4) -> dict[str, Any]:
    return _fanout.call_all(looks, timeout=timeout, parallel=parallel)


def fail(error: BaseException) -> Any:
    raise error


def sleep_well() -> Any:
    """Wait as a plugin would that takes every exception for its own."""
    while True:
        with contextlib.suppress(Exception):
            time.sleep(LONG_S)


def test_each_host_has_its_own_result_in_the_order_asked() -> None:
    big = "x" * 300_000  # more than a pipe holds
    made = take({"b": lambda: {"n": 1}, "a": lambda: {"text": big, "pid": os.getpid()}})
    assert list(made) == ["b", "a"]
    assert made["b"] == {"n": 1}
    assert made["a"]["text"] == big
    assert made["a"]["pid"] != os.getpid()


def test_nobody_to_ask_is_no_answer() -> None:
    assert take({}) == {}


@pytest.mark.parametrize(("error", "text"), [
    (AnsibleConnectionFailure("no route to w1"), "no route to w1"),
    (KeyError("odd"), "KeyError: 'odd'"),
    (SystemExit(3), "the call to this host ended without an answer"),
])
def test_what_goes_wrong_concerns_its_host_alone(error: BaseException, text: str) -> None:
    made = take({"w1": lambda: fail(error), "w2": lambda: {"fine": True}})
    assert made["w1"]["unreachable"] is True
    assert text in made["w1"]["msg"]
    assert made["w2"] == {"fine": True}


def test_a_process_that_is_killed_is_unreachable() -> None:
    made = take({"w1": lambda: os.kill(os.getpid(), signal.SIGKILL)})
    assert made == {"w1": {"unreachable": True, "msg": "the call to this host ended without an answer"}}


def test_a_controller_without_processes_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fork", lambda: fail(OSError(11, "Resource temporarily unavailable")))
    made = take({"w1": dict, "w2": dict}, parallel=1)
    assert [own["unreachable"] for own in made.values()] == [True, True]
    assert "Resource temporarily unavailable" in made["w1"]["msg"]


def test_a_late_one_is_let_go_and_the_others_are_not_held_up() -> None:
    made = take({"late": sleep_well, "w2": lambda: {"fine": True}, "w3": lambda: {"fine": True}}, timeout=1, parallel=2)
    assert made["late"] == {"unreachable": True, "msg": "no answer within 1 s"}
    assert made["w2"] == made["w3"] == {"fine": True}


def test_a_late_one_lets_go_of_what_it_shares_before_it_ends(tmp_path: Path) -> None:
    """A lock that core shares among its processes, kept by a dead one, would stop the whole run."""
    def hold() -> Any:
        try:
            sleep_well()
        finally:
            (tmp_path / "let go").touch()

    take({"w1": hold}, timeout=1)
    assert (tmp_path / "let go").exists()


def test_one_that_cannot_let_go_is_killed() -> None:
    def deaf() -> Any:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM, signal.SIGTERM, signal.SIGINT})
        sleep_well()

    assert take({"w1": deaf}, timeout=0.5)["w1"]["msg"] == "no answer within 0.5 s"


@pytest.mark.parametrize("deaf", [False, True])
def test_what_it_started_ends_with_it_in_whatever_session(tmp_path: Path, deaf: bool) -> None:
    def start() -> Any:
        if deaf:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        pids = [subprocess.Popen(["sleep", str(LONG_S)], start_new_session=own).pid for own in (False, True)]
        (tmp_path / "part").write_text(" ".join(map(str, pids)))
        (tmp_path / "part").rename(tmp_path / "pids")
        sleep_well()

    take({"w1": start}, timeout=2)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert until(lambda: not any(map(alive, pids)), 5), pids


def test_they_are_asked_at_the_same_time(tmp_path: Path) -> None:
    def meet(name: str) -> Any:
        (tmp_path / name).touch()
        return {"met": until(lambda: len(list(tmp_path.iterdir())) == 3)}

    made = take({name: lambda name=name: meet(name) for name in "abc"}, parallel=3)
    assert made == {name: {"met": True} for name in "abc"}


def test_never_more_at_a_time_than_allowed(tmp_path: Path) -> None:
    def crowd(name: str) -> Any:
        (tmp_path / name).touch()
        too_many = until(lambda: len(list(tmp_path.iterdir())) > 2, 0.2)
        (tmp_path / name).unlink()
        return {"too_many": too_many}

    made = take({name: lambda name=name: crowd(name) for name in "abcdef"}, parallel=2)
    assert made == {name: {"too_many": False} for name in "abcdef"}


def test_nobody_else_is_asked_when_the_controller_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    me, parent_of = os.getpid(), os.getppid

    def getppid() -> int:
        return 1 if os.getpid() == me and (tmp_path / "a").exists() else parent_of()

    monkeypatch.setattr(_fanout.os, "getppid", getppid)
    looks = {name: lambda name=name: {"made": (tmp_path / name).touch()} for name in ("a", "b")}
    with pytest.raises(Exception, match="the controller's process is gone"):
        _fanout.call_all(looks, timeout=30.0, parallel=1, main=parent_of())
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    take(looks, parallel=1)
    assert (tmp_path / "b").exists(), "what is better done is done, whoever is gone"


def test_somebody_hears_how_many_have_answered() -> None:
    heard: list[int] = []
    _fanout.call_all(dict.fromkeys("abc", dict), timeout=30.0, parallel=1, told=heard.append)
    assert heard == sorted(heard)
    assert {1, 2, 3} <= set(heard)


def test_an_orphan_ends_by_itself(tmp_path: Path) -> None:
    """The controller may be killed with its workers in mid-look."""
    def wait() -> Any:
        (tmp_path / "part").write_text(str(os.getpid()))
        (tmp_path / "part").rename(tmp_path / "pid")
        sleep_well()

    controller = os.fork()
    if not controller:
        try:
            take({"w1": wait}, timeout=LONG_S)
        finally:
            os._exit(0)
    assert until((tmp_path / "pid").exists)
    os.kill(controller, signal.SIGKILL)
    os.waitpid(controller, 0)
    pid = int((tmp_path / "pid").read_text())
    assert until(lambda: not alive(pid), 10)


def test_what_an_orphan_began_can_go_on_to_its_end(tmp_path: Path) -> None:
    """A turn is a switch as well: one that is cut off between stop and start leaves the worker down."""
    done, begun = tmp_path / "done", tmp_path / "begun"
    script = f"touch {begun}; while [ ! -e {tmp_path}/go ]; do sleep 0.1; done; touch {done}"

    def switch() -> dict[str, Any]:
        subprocess.run(["/bin/sh", "-c", script], check=True)
        return {}

    pid = os.fork()
    if pid == 0:
        try:
            _fanout.call_all({"w1": switch}, timeout=60, parallel=1, orphans_go_on=True)
        finally:
            os._exit(0)
    assert until(begun.exists)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    time.sleep(2 * _fanout.TICK_S)  # the time in which an orphan notices is the subject
    (tmp_path / "go").touch()
    assert until(done.exists)


def test_a_look_says_nothing_and_asks_nothing(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The queue to the controller's process has a lock of all tasks, and nobody sits at the keyboard."""
    def talk() -> Any:
        Display().warning("a warning")
        os.write(1, b"a line")
        os.write(2, b"a cry")
        Display().prompt_until("yes or no?")

    monkeypatch.setattr(worker, "current_worker", SimpleNamespace(worker_id=1))
    made = take({"w1": talk})
    assert "nobody to answer" in made["w1"]["msg"]
    assert capfd.readouterr() == ("", "")
