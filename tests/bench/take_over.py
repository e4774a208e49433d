# SPDX-License-Identifier: GPL-3.0-or-later
"""One worker without a router, clients at a steady rate, and standbys that take over one after another.

    python tests/bench/take_over.py [TAKE-OVERS [REQUESTS A SECOND]]

Half of the clients keep their connections. Prints what was refused or broken, and what a request took: at any time, and
while a take-over was asked for; exits 1 if anything was refused, broken, lost or submitted twice.
"""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

DIST = Path(__file__).resolve().parents[2] / "roles" / "worker" / "files" / "solver-worker"
sys.path[:0] = [str(DIST / "src"), str(DIST / "tests")]

import aiohttp  # noqa: E402
from harness import World, eventually  # noqa: E402
from test_standby import Traffic, traffic, verified  # noqa: E402


def line(what: str, seconds: list[float]) -> str:
    ordered = sorted(seconds) or [math.nan]
    p50, p99 = (ordered[math.ceil(len(ordered) * share) - 1] for share in (0.5, 0.99))
    return f"{what}: {len(seconds)}, p50 {p50:.3f} s, p99 {p99:.3f} s, maximum {ordered[-1]:.3f} s"


async def measure(world: World, count: int, rate: float) -> int:
    world.sandbox("--solve", "default=1:3")
    pace = {"first_poll_s": 1.0, "poll_interval_s": 1.0}
    worker = await world.worker(provider=pace, data={"max_open_tasks": 100_000}).start()
    assert worker.process is not None
    serving, spans = worker.process, []
    async with traffic(worker, rate) as seen:
        for number in range(count):
            standby = await verified(worker, f"9.0.{number}")
            began = time.monotonic()
            status, document = await standby.take_over()
            spans.append((began, time.monotonic()))
            assert (status, document["state"]) == (200, "running"), document
            await serving.wait(60)
            serving = standby.process
    report(seen, spans, count, rate)

    async def ended() -> bool:
        return bool((await worker.status())["tasks"]["open"] == 0)

    await eventually(ended, 600)
    submits, totals = await world.submits(), (await worker.status())["totals"]
    twice = sum(submits.get(f"nonce-{number:08x}") != 1 for number in seen.ids)
    print(f"succeeded {totals['succeeded']} of {len(seen.ids)}, submitted twice {twice}, "
          f"refused by the worker's books {totals['refused']}")
    return int(bool(seen.wrong) or twice > 0 or totals["succeeded"] != len(seen.ids) or totals["refused"] > 0)


def report(seen: Traffic, spans: list[tuple[float, float]], count: int, rate: float) -> None:
    load = os.getloadavg()[0]
    print(f"{count} take-overs at {rate:g} requests a second; {os.cpu_count()} processors, load {load:.1f}")
    during = [took for at, took in seen.took if any(begun - took <= at <= ended for begun, ended in spans)]
    print(line("requests", [took for _at, took in seen.took]))
    print(line("of these, met a take-over", during))
    print(line("take-overs, from the order to the answer", [ended - begun for begun, ended in spans]))
    print(f"refused or broken: {len(seen.wrong)} {seen.wrong[:3] or ''}")


async def main(count: int, rate: float) -> int:
    home = Path(tempfile.mkdtemp(prefix="sf-", dir="/tmp"))
    world = World(home)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http:
        world.http = http
        try:
            return await measure(world, count, rate)
        finally:
            world.end()
            shutil.rmtree(home)


if __name__ == "__main__":
    numbers = [float(text) for text in sys.argv[1:]]
    sys.exit(asyncio.run(main(int(numbers[0]) if numbers else 20, numbers[1] if len(numbers) > 1 else 50.0)))
