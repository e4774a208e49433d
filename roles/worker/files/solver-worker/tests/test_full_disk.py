# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal's disk is full: nothing is accepted that could be lost, and nothing accepted before is."""

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiohttp
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


async def fill(folder: Path) -> Path:
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(b"x" * 4096)
    return filler


async def taken(worker: Worker, number: int) -> str | None:
    code, document = await worker.post(f"b{number}", task(number))
    return str(document["id"]) if code in (200, 202) else None


async def test_a_full_disk_refuses_and_recovers(world: World, small: Path) -> None:
    world.sandbox("--solve", "default=1:2")
    worker = await world.worker().start()
    before = {}
    for number in range(10):
        code, document = await worker.post(f"a{number}", task(number))
        assert code == 202
        before[number] = document["id"]
    filler = await fill(small)
    accepted: dict[int, str] = {}
    refusals = 0
    for number in range(100, 130):
        with contextlib.suppress(aiohttp.ClientError):
            code, document = await worker.post(f"b{number}", task(number))
            if code in (200, 202):
                accepted[number] = document["id"]
            else:
                refusals += 1
                assert code in (500, 503, 507), (code, document)
        await asyncio.sleep(0.02)
    assert refusals > 0, "the disk was not full"

    async def unwritable() -> bool:
        return not (await worker.status())["journal"]["writable"]

    await eventually(unwritable)
    filler.unlink()
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
