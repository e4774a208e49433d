# SPDX-License-Identifier: GPL-3.0-or-later
"""A damaged journal is refused as it is, with its cause, and lies there untouched for whoever can mend it."""

import contextlib
import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import World, task
from solver_worker import examine, schema
from solver_worker.errors import JournalRefusedError
from solver_worker.journal import Final, Journal, digest_of

TASKS = 60


def fill(path: Path) -> None:
    """As a worker leaves it: some tasks open, some ended, some forgotten."""
    journal = Journal(path)
    journal._db.execute("PRAGMA synchronous=OFF")
    journal.count_start("kernel", 1.0)
    journal.save_drain(None, "1.2.0")
    for number in range(TASKS):
        document = {"method": "x", "number": str(number), "pageurl": "https://shop.test/" + "p" * 200}
        name = f"w1-{number}"
        journal.accept(
            task_id=name, key=f"k{number}", digest=digest_of(document), method="x", payload=json.dumps(document), at=1.0
        )
        if number % 3:
            journal.submitting(name)
            journal.polling(name, str(number), 2.0)
        if number % 3 == 2:
            journal.finish(name, Final("succeeded", 3.0, "s" * 500), 2.0)
    journal.close()


def killed(path: Path) -> None:
    """The process is gone, and its log lies beside the file."""
    child = os.fork()
    if not child:
        # Nothing of it is in the file itself: a full log.
        connect = sqlite3.connect
        sqlite3.connect = lambda *args, **more: _without_checkpoints(connect(*args, **more))  # type: ignore[assignment]
        Journal.close = lambda _self: os._exit(0)  # type: ignore[method-assign]
        fill(path)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def _without_checkpoints(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.execute("PRAGMA wal_autocheckpoint=0")
    return connection


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    fill(folder / "journal.sqlite3")
    return folder


@pytest.fixture(scope="module")
def unclean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unclean")
    killed(folder / "journal.sqlite3")
    assert (folder / "journal.sqlite3-wal").stat().st_size > 200_000
    return folder


def copy_of(folder: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder, to)
    return to / "journal.sqlite3"


def contents(path: Path) -> dict[str, bytes]:
    return {item.name: item.read_bytes() for item in path.parent.iterdir() if not item.name.endswith("-shm")}


def refusal(path: Path) -> str:
    before = contents(path)
    with pytest.raises(JournalRefusedError) as caught:
        examine.examine(path)
    assert contents(path) == before, "what is refused is left as it is"
    assert "docs/" not in str(caught.value)
    return f"{caught.value.code}: {caught.value}"


def test_a_whole_journal_is_opened(whole: Path, unclean: Path, tmp_path: Path) -> None:
    examine.examine(tmp_path / "not-there.sqlite3")
    for folder in (whole, unclean):
        path = copy_of(folder, tmp_path / "j")
        before = contents(path)
        examine.examine(path)
        assert contents(path) == before
        journal = Journal(path)
        assert len(journal.open_tasks()) == TASKS * 2 // 3
        journal.close()


@pytest.mark.parametrize("what", ["missing", "empty"])
def test_a_log_without_its_journal_is_not_thrown_away(unclean: Path, tmp_path: Path, what: str) -> None:
    path = copy_of(unclean, tmp_path / "j")
    path.unlink()
    if what == "empty":
        path.touch()
    said = refusal(path)
    assert said.startswith("journal_damaged: ")
    assert f"it is {what}, but its log journal.sqlite3-wal holds" in said
    shutil.copy(unclean / path.name, path)  # the way back: the file is put back
    examine.examine(path)


def sql(*statements: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with contextlib.closing(sqlite3.connect(path)) as db:
            for statement in statements:
                db.execute(statement)
            db.commit()

    return change


def cut(share: float) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, int(path.stat().st_size * share))


DRAIN = '{"owner": "r", "saved": 1.0}'


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (sql("DROP TABLE totals"), "the table totals is missing"),
        (sql("DROP TABLE solve_times"), "the table solve_times is missing"),
        (sql("DROP TABLE tasks"), "is missing"),
        (sql("DROP TABLE meta"), "no such table: meta"),
        (sql("DROP INDEX tasks_kept"), "the index tasks_kept is missing"),
        (sql("ALTER TABLE tasks DROP COLUMN error_class"), "the column of tasks error_class is missing"),
        (sql("DELETE FROM meta"), "it does not say its schema"),
        (sql("DELETE FROM meta WHERE key = 'id'"), "it has no id"),
        (sql("UPDATE meta SET value = 'x' WHERE key = 'starts'"), "what it says of itself cannot be read"),
        (sql("UPDATE meta SET value = '{' WHERE key = 'clock'"), "what it says of itself cannot be read"),
        (sql("UPDATE meta SET value = '[]' WHERE key = 'clock'"), "what it says of itself cannot be read"),
        (sql("INSERT INTO meta VALUES ('drain', '{')"), "what it says of itself cannot be read"),
        (sql(f"INSERT INTO meta VALUES ('drain', '{DRAIN}')"), "what it says of itself cannot be read"),
        (sql("UPDATE meta SET value = 'one' WHERE key = 'schema'"), "it does not say its schema"),
        (sql("UPDATE totals SET value = -1"), "a total in it is no count"),
        (sql("UPDATE tasks SET state = 'pollinf' WHERE id = 'w1-1'"), "a state that there is not"),
        (sql("UPDATE tasks SET final_at = NULL WHERE id = 'w1-2'"), "an end that does not fit its state"),
        (sql("UPDATE tasks SET accepted_at = 'x' WHERE id = 'w1-2'"), "no id or date"),
        (sql("UPDATE tasks SET digest = 'x' WHERE id = 'w1-2'"), "no digest"),
        (sql("UPDATE tasks SET provider_id = '1;2' WHERE id = 'w1-1'"), "no id of the provider"),
        (sql("UPDATE tasks SET payload = NULL WHERE id = 'w1-0'"), "no payload"),
        (cut(0.7), ""),
        (cut(0.2), ""),
        (lambda path: os.truncate(path, 50), "journal_unusable"),
        (lambda path: path.write_bytes(b"\0" * path.stat().st_size), "journal_unusable"),
        (lambda path: path.write_text("not a database " * 1000), "journal_unusable"),
    ],
)
def test_what_is_damaged_is_refused(whole: Path, tmp_path: Path, change: Callable[[Path], Any], says: str) -> None:
    path = copy_of(whole, tmp_path / "j")
    change(path)
    said = refusal(path)
    assert says in said
    assert schema.WAY_BACK in said


def flipped(path: Path, chosen: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[chosen.randrange(len(content))] ^= 1 << chosen.randrange(8)
    path.write_bytes(content)


def readable(path: Path) -> bool:
    """Whether a worker could serve from it as from the whole one: each task there, or refused."""
    try:
        examine.examine(path)
    except JournalRefusedError:
        return False
    journal = Journal(path)
    try:
        assert len(journal.open_tasks()) == TASKS * 2 // 3
        assert all(journal.by_key(row.key) == row for row in journal.open_tasks() if row.key.startswith("k"))
    finally:
        journal.close()
    return True


@pytest.mark.parametrize("seed", range(4))
def test_a_flipped_bit_loses_no_task(whole: Path, tmp_path: Path, seed: int) -> None:
    chosen = random.Random(seed)
    found = 0
    for _unused in range(40):
        path = copy_of(whole, tmp_path / "j")
        flipped(path, chosen)
        found += not readable(path)
    assert found, "not one of them was seen"


@pytest.mark.parametrize("seed", range(4))
def test_a_flipped_bit_in_the_log_drops_no_commits_without_a_word(unclean: Path, tmp_path: Path, seed: int) -> None:
    """SQLite takes a flipped bit for the end of the log. Only in the last commit can it not be told from a crash."""
    chosen = random.Random(seed)
    for _unused in range(25):
        path = copy_of(unclean, tmp_path / "j")
        log = path.with_name(path.name + "-wal")
        content = bytearray(log.read_bytes())
        content[chosen.randrange(len(content) - 60_000)] ^= 1 << chosen.randrange(8)
        log.write_bytes(content)
        refusal(path)


def test_a_commit_that_was_not_finished_is_no_damage(unclean: Path, tmp_path: Path) -> None:
    log = unclean / "journal.sqlite3-wal"
    for lost in (1, 5000, 9000):
        path = copy_of(unclean, tmp_path / "j")
        os.truncate(path.with_name(log.name), log.stat().st_size - lost)
        examine.examine(path)


# -- processes


@pytest.mark.parametrize("change", [sql("DROP TABLE totals"), sql("UPDATE meta SET value = '{' WHERE key = 'clock'")])
async def test_a_damaged_journal_fails_the_worker_that_still_answers(
    world: World, change: Callable[[Path], None]
) -> None:
    worker = await world.worker().start()
    await worker.term()
    change(worker.home / "state" / "journal.sqlite3")
    document = await (await worker.start(until="failed")).status()
    assert document["failure"]["code"] == "journal_damaged"
    assert "restore a backup" in document["failure"]["message"]
    assert (document["totals"], document["accepting"]) == (None, False)
    await worker.term()


async def test_open_tasks_beside_a_lost_file_are_not_thrown_away(world: World) -> None:
    world.sandbox("--solve", "default=0.5:0.5")
    worker = await world.worker(provider={"first_poll_s": 30.0}).start()
    ids = [(await worker.post(f"k{number}", task(number)))[1]["id"] for number in range(20)]
    await worker.kill()
    journal = worker.home / "state" / "journal.sqlite3"
    journal.rename(journal.with_name("lost"))
    document = await (await worker.start(until="failed")).status()
    assert document["failure"]["code"] == "journal_damaged"
    await worker.term()
    journal.with_name("lost").rename(journal)
    worker.configure()
    await worker.start()
    assert {(await worker.get(task_id))[0] for task_id in ids} == {200}


async def test_damage_that_shows_while_it_serves_fails_the_worker(world: World) -> None:
    world.sandbox("--solve", "default=0.2:0.2")
    worker = await world.worker().start()
    ids = [(await worker.post(f"k{number}", task(number)))[1]["id"] for number in range(5)]
    for task_id in ids:
        await worker.final(task_id)
    # A text that is no UTF-8 any more: SQLite itself does not mind.
    sql("UPDATE tasks SET solution = CAST(x'ff41' AS TEXT)")(worker.home / "state" / "journal.sqlite3")
    assert (await worker.get(ids[0]))[0] == 500
    document = await worker.reach("failed")
    assert document["failure"]["code"] == "journal_damaged"
    async with world.http.get(worker.url + "/healthz") as reply:
        assert reply.status == 503


async def test_a_damaged_payload_is_not_sent_to_the_provider(world: World) -> None:
    world.sandbox("--solve", "default=0.2:0.2")
    worker = await world.worker().start()
    await worker.drain(mode="handover")
    await worker.term()
    ids = []
    path = worker.home / "state" / "journal.sqlite3"
    journal = Journal(path)
    for number, change in enumerate((lambda text: text, lambda text: text.replace("shop", "shoq"), lambda _t: "{")):
        document = task(number)
        ids.append(f"w1-a{number}")
        journal.accept(
            task_id=ids[-1],
            key=f"k{number}",
            digest=digest_of(document),
            method=document["method"],
            payload=change(json.dumps(document)),
            at=2e9,
        )
    journal.close()
    await worker.start(until="drained")
    await worker.resume()
    ended = [await worker.final(task_id) for task_id in ids]
    assert [one["state"] for one in ended] == ["succeeded", "failed", "failed"]
    assert ended[1]["error"] == {"code": "PAYLOAD_DAMAGED", "class": "worker"}
    assert await world.submits() == {"nonce-00000000": 1}
