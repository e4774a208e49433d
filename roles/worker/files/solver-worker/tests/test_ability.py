# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker is healthy only while it can accept; what kept it from it may pass, and then it serves by itself."""

import contextlib
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Worker, World, eventually, task
from solver_worker import ability
from solver_worker.ability import AMPLE_BYTES, NEEDED_BYTES, Refusal, Seen
from solver_worker.errors import NotWrittenError
from solver_worker.journal import Journal


def refused(**seen: object) -> str | None:
    before = seen.pop("before", None)
    found = ability.judge(Seen(**{"error": None, "in_place": True, "free": None, **seen}), before)  # type: ignore[arg-type]
    return found and found.code


def test_what_keeps_a_task_from_being_kept() -> None:
    assert refused() is None
    assert refused(free=NEEDED_BYTES) is None
    assert refused(free=NEEDED_BYTES - 1) == "disk_full"
    assert refused(error="database or disk is full", free=AMPLE_BYTES) == "journal_unwritable"
    assert refused(in_place=False, error="x", free=0) == "journal_moved"


def test_room_must_be_clearly_there_again() -> None:
    full = Refusal("disk_full", "")
    assert refused(free=AMPLE_BYTES - 1, before=full) == "disk_full"
    assert refused(free=AMPLE_BYTES, before=full) is None
    assert refused(free=NEEDED_BYTES, before=Refusal("journal_unwritable", "")) is None


def accept(journal: Journal, number: int, size: int = 10) -> None:
    journal.accept(task_id=f"w1-{number}", key=f"k{number}", digest="0" * 64, method="x", payload="p" * size, at=1.0)


def test_a_write_without_room_is_certainly_none_and_latches_until_a_trial(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    (pages,) = journal._db.execute("PRAGMA page_count").fetchone()
    journal._db.execute(f"PRAGMA max_page_count={pages + 4}")
    with pytest.raises(NotWrittenError, match="full"):
        accept(journal, 1, size=100_000)
    assert not journal.writable
    assert journal.by_id("w1-1") is None
    accept(journal, 2)  # a short one finds room, and proves nothing for the next long one
    assert ability.look(journal, 100_000).error is not None
    assert not journal.writable
    journal._db.execute("PRAGMA max_page_count=100000")
    assert ability.look(journal, 100_000).error is None
    assert journal.writable
    assert journal.meta("trial") is None


def test_an_error_of_the_commit_itself_is_not_called_certain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "j")

    def broken(_self: Journal) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(Journal, "_commit", broken)
    with pytest.raises(sqlite3.OperationalError) as caught:
        accept(journal, 1)
    assert not isinstance(caught.value, NotWrittenError)
    assert not journal.writable


def test_a_statement_that_the_journal_refuses_says_nothing_of_the_disk(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    accept(journal, 1)
    with pytest.raises(sqlite3.IntegrityError):
        accept(journal, 1)
    assert journal.writable


# -- processes


async def health(worker: Worker) -> int:
    async with worker.world.http.get(worker.url + "/healthz") as reply:
        return reply.status


async def test_a_journal_that_was_moved_away_takes_no_task(world: World) -> None:
    world.sandbox("--solve", "default=0.2:0.2")
    worker = await world.worker().start()
    before = (await worker.post("a", task(1)))[1]["id"]
    journal = worker.home / "state" / "journal.sqlite3"
    journal.rename(journal.with_name("elsewhere"))

    async def code() -> int:
        return await health(worker)

    await eventually(lambda: _is(code, 404))
    status, problem = await worker.post("b", task(2))
    assert (status, problem["code"]) == (503, "journal_moved")
    document = await worker.status()
    assert (document["state"], document["accepting"], document["safe_to_stop"]) == ("running", False, False)
    assert document["refusal"]["code"] == "journal_moved"
    assert (await worker.final(before))["state"] == "succeeded", "what was taken goes on"
    journal.with_name("elsewhere").rename(journal)
    await eventually(lambda: _is(code, 200))
    assert (await worker.post("b", task(2)))[0] == 202
    assert (await worker.status())["refusal"] is None


async def _is(code: object, wanted: int) -> bool:
    return bool(await code() == wanted)  # type: ignore[operator]


async def test_a_port_that_is_freed_is_taken(world: World) -> None:
    with contextlib.closing(socket.socket()) as other:
        worker = world.worker()
        other.bind(("127.0.0.1", worker.port))
        other.listen()
        await worker.start(until="failed")
        document = await worker.status()
        assert document["failure"]["code"] == "port_taken"
        assert "change data.port" in document["failure"]["message"]
    document = await worker.reach("running")
    assert (document["failure"], document["accepting"]) == (None, True)
    assert (await worker.post("k", task(1)))[0] == 202
    await worker.term()


@pytest.fixture
def late_address() -> Iterator[str]:
    """An address that no interface has, until the test gives it to one."""
    address = "192.0.2.77"
    if shutil.which("ip") is None:
        pytest.skip("no ip here")
    probe = subprocess.run(["ip", "addr", "add", f"{address}/32", "dev", "lo"], check=False, capture_output=True)
    if probe.returncode:
        pytest.skip("may not change addresses here")
    subprocess.run(["ip", "addr", "del", f"{address}/32", "dev", "lo"], check=True)
    yield address
    subprocess.run(["ip", "addr", "del", f"{address}/32", "dev", "lo"], check=False, capture_output=True)


async def test_an_address_that_comes_late_is_listened_on(world: World, late_address: str) -> None:
    token = world.home / "token"
    token.write_text("t0ken")
    worker = await world.worker(data={"host": late_address, "token_file": str(token)}).start(until="failed")
    assert (await worker.status())["failure"]["code"] == "address_missing"
    subprocess.run(["ip", "addr", "add", f"{late_address}/32", "dev", "lo"], check=True)
    await worker.reach("running")


async def test_a_name_that_nothing_resolves_is_asked_for_again(world: World) -> None:
    token = world.home / "token"
    token.write_text("t0ken")
    worker = await world.worker(data={"host": "worker.invalid", "token_file": str(token)}).start(until="failed")
    assert (await worker.status())["failure"]["code"] == "address_unusable"
    await worker.term()
