# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger of a run: whole under many processes and under kills, private, bounded, swept when its run is dead."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils._controller import _ledger
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._ledger import NAME, Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger.under(str(tmp_path / "ansible-local-1"))
    (tmp_path / "ansible-local-1").mkdir()
    made.begin(os.getpid(), {"kind": "update"}, {})
    return made


def child(work: Callable[[], object]) -> int:
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            work()
        os._exit(0)
    return pid


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_document_is_what_was_kept(ledger: Ledger) -> None:
    assert ledger.exists()
    assert ledger.read("rollout") == {"kind": "update"}
    assert ledger.read("nothing") == {}
    ledger.keep("view", {"w1": {"at": 1.5}, "ä": None})
    assert ledger.read("view") == {"w1": {"at": 1.5}, "ä": None}
    assert not Ledger(str(ledger.folder / "other")).exists()


def test_one_run_has_one_ledger(ledger: Ledger) -> None:
    with pytest.raises(FileExistsError):
        ledger.begin(os.getpid(), {}, {})
    assert ledger.read("rollout") == {"kind": "update"}


def test_nobody_else_may_read_it(ledger: Ledger, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        ledger.emit("begun")
        ledger.keep("view", {})
        other = Ledger(str(tmp_path / NAME))
        other.begin(os.getpid(), {}, {})
    finally:
        os.umask(before)
    assert mode(ledger.folder) == mode(other.folder) == 0o700
    assert mode(Path(ledger.events)) == 0o600
    assert mode(ledger.folder / "view.json") == 0o600


def test_an_edit_is_seen_and_an_error_on_the_way_changes_nothing(ledger: Ledger) -> None:
    before = ledger.version("roll")
    with ledger.edit("roll") as state:
        state["phase"] = {"w1": "turn"}
    changed = ledger.version("roll")
    assert changed != before
    with contextlib.suppress(KeyError), ledger.edit("roll") as state:
        state["phase"]["w2"] = "turn"
        raise KeyError
    with ledger.edit("roll"):
        pass
    assert ledger.read("roll") == {"phase": {"w1": "turn"}}
    assert ledger.version("roll") == changed, "who looks at the version alone has nothing to read again"


def test_every_change_shows_in_the_version(ledger: Ledger) -> None:
    """Also where the file system gives the same inode again, and several changes fall into one tick of its clock."""
    seen = set()
    for number in range(200):
        ledger.keep("roll", {"number": number})
        seen.add(ledger.version("roll"))
    assert len(seen) == 200


def test_processes_that_edit_at_once_lose_nothing(ledger: Ledger) -> None:
    def work() -> None:
        for _round in range(50):
            with ledger.edit("roll") as state:
                state["count"] = state.get("count", 0) + 1

    pids = [child(work) for _process in range(8)]
    for pid in pids:
        os.waitpid(pid, 0)
    assert ledger.read("roll") == {"count": 400}
    assert not list(ledger.folder.glob(".new-*"))


def test_one_that_is_killed_in_the_middle_holds_nobody_up(ledger: Ledger) -> None:
    with ledger.edit("roll") as state:
        state["whole"] = True

    def work() -> None:
        with ledger.edit("roll") as state:
            state["whole"] = False
            (ledger.folder / "in").touch()
            time.sleep(300)

    pid = child(work)
    deadline = time.monotonic() + 20
    while not (ledger.folder / "in").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with ledger.edit("roll") as state:
        assert state == {"whole": True}
        state["more"] = 1
    assert ledger.read("roll") == {"whole": True, "more": 1}


def test_a_document_is_never_half_written(ledger: Ledger) -> None:
    """Readers take no lock."""
    text = "x" * 200_000

    def work() -> None:
        for number in range(10_000):
            ledger.keep("plan", {"number": number, "text": text, "again": number})

    ledger.keep("plan", {"number": -1, "text": text, "again": -1})
    pid = child(work)
    seen = set()
    deadline = time.monotonic() + 20
    while len(seen) < 20 and time.monotonic() < deadline:
        found = ledger.read("plan")
        assert found["number"] == found["again"]
        seen.add(found["number"])
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert len(seen) >= 2
    assert ledger.read("plan")["text"] == text


def owned(tmp_path: Path, name: str, pid: int) -> Ledger:
    (tmp_path / name).mkdir()
    made = Ledger.under(str(tmp_path / name))
    made.begin(pid, {}, {})
    return made


def test_only_what_dead_runs_left_is_swept(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    dead = owned(tmp_path, "ansible-local-1", process.pid)
    process.communicate(b"\n")
    lives = owned(tmp_path, "ansible-local-2", os.getpid())
    broken = [owned(tmp_path, f"ansible-local-3{number}", os.getpid()) for number in range(3)]
    for one, text in zip(broken, ("{", "[]", '{"pid": "x"}'), strict=True):
        (one.folder / "owner.json").write_text(text)
    (tmp_path / "ansible-local-4").mkdir()
    (tmp_path / "ansible-local-4" / "other").touch()
    mine = Ledger.under(str(tmp_path / "ansible-local-5"))
    mine.sweep()
    assert not dead.folder.exists()
    assert lives.exists()
    assert all(one.exists() for one in broken), "of which nothing is known"
    assert (tmp_path / "ansible-local-4" / "other").exists()


@pytest.mark.parametrize("other", [{"pid_ns": 1}, {"boot_id": "another", "machine_id": "another"}])
def test_a_run_of_another_machine_or_container_that_shares_the_home_is_left_alone(tmp_path: Path, other: dict) -> None:
    """Its process ids mean nothing here."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    there = owned(tmp_path, "ansible-local-1", process.pid)
    process.communicate(b"\n")
    owner = there.read("owner")
    there.keep("owner", {**owner, **other})
    Ledger.under(str(tmp_path / "ansible-local-2")).sweep()
    assert there.exists()


def lines(ledger: Ledger) -> list[dict]:
    return [json.loads(line) for line in Path(ledger.events).read_text().splitlines()]


def test_an_event_is_a_line_with_its_time(ledger: Ledger) -> None:
    before = time.monotonic()
    ledger.emit("admitted", worker="w1", flight=["w1"])
    ledger.emit("outcome", reason="it\nbroke")
    first, second = lines(ledger)
    assert (first["event"], first["worker"], first["flight"]) == ("admitted", "w1", ["w1"])
    assert before - 0.01 <= first["clock"] <= second["clock"] <= time.monotonic() + 0.01
    assert first["at"].endswith("Z")
    assert second["reason"] == "it\nbroke"


def test_the_events_of_many_processes_stay_whole_lines(ledger: Ledger) -> None:
    pids = [child(lambda number=number: [ledger.emit("e", number=number, text="x" * 2000) for _n in range(100)])
            for number in range(8)]
    for pid in pids:
        os.waitpid(pid, 0)
    assert len(lines(ledger)) == 800


def test_events_are_bounded_and_never_a_reason_to_stop(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ledger, "MAX_EVENTS", 500)
    for number in range(100):
        ledger.emit("e", number=number)
    assert 500 <= Path(ledger.events).stat().st_size < 700
    Ledger(str(ledger.folder / "not there")).emit("e")


def test_events_that_are_kept_outlive_the_run(ledger: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "run.jsonl"
    ledger.keep_events(str(path))
    ledger.emit("begun")
    assert [json.loads(line)["event"] for line in path.read_text().splitlines()] == ["begun"]
    assert mode(path) == 0o600
    with pytest.raises(FileExistsError):
        Ledger(str(tmp_path)).keep_events(str(path))
