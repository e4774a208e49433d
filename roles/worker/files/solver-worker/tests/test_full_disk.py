# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal's disk is full: nothing is accepted that could be lost, and nothing accepted before is."""

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Worker, World, balanced, eventually, task

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="a small file system of its own needs root")


@pytest.fixture
def small(world: World) -> Iterator[Path]:
    """A file system of 16 MB where the worker's state lies: more than a write-ahead log between two checkpoints."""
    folder = world.home / "w1" / "state"
    folder.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=0700", "tmpfs", str(folder)],
                             check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        world.end()
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


REFUSALS = ("disk_full", "journal_unwritable")


async def fill(folder: Path) -> Path:
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(b"x" * 4096)
    return filler


async def health(worker: Worker) -> int:
    async with worker.world.http.get(worker.url + "/healthz") as reply:
        return reply.status


async def taken(worker: Worker, number: int) -> str | None:
    code, document = await worker.post(f"b{number}", task(number))
    return str(document["id"]) if code in (200, 202) else None


async def refusals(worker: Worker) -> dict[int, str]:
    """Every refusal is a certain one: 503 says that another worker may be asked, 500 that nobody knows."""
    accepted: dict[int, str] = {}
    refused = set()
    for number in range(100, 130):
        code, document = await worker.post(f"b{number}", task(number))
        if code in (200, 202):
            accepted[number] = document["id"]
        else:
            refused.add((code, document["code"]))
        await asyncio.sleep(0.02)
    assert refused, "the disk was not full"
    assert refused <= {(503, code) for code in REFUSALS}
    return accepted


async def test_a_full_disk_refuses_and_recovers(world: World, small: Path) -> None:
    world.sandbox("--solve", "default=1:2")
    worker = await world.worker().start()
    before = {}
    for number in range(10):
        code, document = await worker.post(f"a{number}", task(number))
        assert code == 202
        before[number] = document["id"]
    filler = await fill(small)
    accepted = await refusals(worker)

    async def refusing() -> bool:
        document = await worker.status()
        assert document["state"] == "running"
        return not document["accepting"] and document["refusal"]["code"] in REFUSALS

    await eventually(refusing)
    assert await health(worker) == 404
    assert (await worker.get(before[0]))[0] == 200
    filler.unlink()

    async def accepting() -> bool:
        return bool((await worker.status())["accepting"])

    await eventually(accepting)
    assert await health(worker) == 200
    for number in range(100, 130):  # the same keys again: nothing is taken twice

        found = await eventually(lambda number=number: taken(worker, number))
        assert accepted.setdefault(number, found) == found
    for task_id in (*before.values(), *accepted.values()):
        assert (await worker.final(task_id))["state"] == "succeeded"
    status = await worker.status()
    assert status["state"] == "running"
    assert status["journal"]["writable"]
    assert balanced(status["totals"], 0)
    assert set((await world.submits()).values()) == {1}


async def test_a_disk_that_is_full_at_the_start_is_waited_for(world: World, small: Path) -> None:
    world.sandbox("--solve", "default=0.2:0.2")
    filler = await fill(small)
    worker = await world.worker().start(until="failed")
    assert (await worker.status())["failure"]["code"] == "journal_unwritable"
    filler.unlink()
    await worker.reach("running")
    assert (await worker.post("k", task(1), wait=10))[1]["state"] == "succeeded"


async def test_a_disk_that_is_full_when_a_killed_worker_comes_back_is_no_damage(world: World, small: Path) -> None:
    world.sandbox("--solve", "default=0.5:0.5")
    worker = await world.worker().start()
    ids = [(await worker.post(f"a{number}", task(number)))[1]["id"] for number in range(5)]
    await worker.kill()
    (small / "journal.sqlite3-shm").unlink()  # as after a reboot
    filler = await fill(small)
    await worker.start(until="failed")
    assert (await worker.status())["failure"]["code"] == "journal_unwritable"
    filler.unlink()
    await worker.reach("running")
    for task_id in ids:
        assert (await worker.final(task_id))["state"] in ("succeeded", "uncertain")


async def test_little_room_is_kept_for_what_was_taken(world: World, small: Path) -> None:
    """Before a write fails, nothing new is taken, so that the answers to what was taken can still be written."""
    world.sandbox("--solve", "default=1:2")
    worker = await world.worker().start()
    ids = [(await worker.post(f"a{number}", task(number)))[1]["id"] for number in range(20)]
    filler = await fill(small)
    with filler.open("r+b") as stream:
        stream.truncate(filler.stat().st_size - 2 * 1024 * 1024)

    async def refusing() -> bool:
        return ((await worker.status())["refusal"] or {}).get("code") == "disk_full"

    await eventually(refusing)
    assert (await worker.post("b", task(99)))[1]["code"] == "disk_full"
    for task_id in ids:
        assert (await worker.final(task_id))["state"] == "succeeded"
    assert (await worker.status())["journal"]["writable"]


async def test_a_drain_that_cannot_be_written_is_refused_and_can_be_asked_again(world: World, small: Path) -> None:
    worker = await world.worker().start()
    filler = await fill(small)
    status, problem = await worker.drain(reason="r" * 400)
    while status in (200, 202):  # a little room was left in the log
        status, problem = await worker.drain(reason="r" * 400)
    assert (status, problem["code"]) == (503, "journal_unwritable")
    filler.unlink()

    async def drained() -> bool:
        return (await worker.drain())[0] in (200, 202)

    await eventually(drained)
