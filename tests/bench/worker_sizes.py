# SPDX-License-Identifier: GPL-3.0-or-later
"""The four sizes that the reference worker keeps, measured on real processes.

    python tests/bench/worker_sizes.py [--json]

Prints one line per size with its bound and the conditions; exits 1 if a bound is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import platform
import shutil
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DIST = ROOT / "roles" / "worker" / "files" / "solver-worker"
sys.path[:0] = [str(DIST / "src"), str(DIST / "tests")]

import aiohttp  # noqa: E402
from harness import Process, Worker, World, eventually, task  # noqa: E402
from solver_worker.journal import Journal  # noqa: E402

DEFAULT_PACE = {"first_poll_image_s": 5.0, "first_poll_s": 20.0, "poll_interval_s": 5.0}


def journal_open_tasks(worker: Worker, count: int) -> None:
    """As a worker leaves them behind: submitted a moment ago and not solved yet."""
    state = worker.home / "state"
    state.mkdir(mode=0o700)
    journal = Journal(state / "journal.sqlite3")
    now = time.time()
    for number in range(count):
        task_id = f"{worker.name}-{number:020x}"
        journal.accept(
            task_id=task_id,
            key=f"old-{number}",
            digest="0" * 64,
            method="userrecaptcha",
            payload=json.dumps(task(number)),
            at=now - 30,
        )
        journal.submitting(task_id)
        journal.polling(task_id, str(number + 1), now - 25)
    journal.close()


def resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    peak = next(line for line in lines if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024


async def to_running(world: World) -> tuple[Worker, dict[str, Any]]:
    worker = world.worker("recover", provider=DEFAULT_PACE)
    journal_open_tasks(worker, 1000)
    began = time.monotonic()
    await worker.start()
    took = time.monotonic() - began
    document = await worker.status()
    assert document["tasks"]["open"] == 1000
    return worker, size("1,000 journaled open tasks to running", took, 3.0, "s", "from fork to state running")


async def status_latency(worker: Worker) -> dict[str, Any]:
    """While the 1,000 tasks of the worker are being polled."""
    times = []
    ends = time.monotonic() + 8
    connector = aiohttp.UnixConnector(str(worker.socket))
    async with aiohttp.ClientSession(connector=connector) as session:
        while time.monotonic() < ends:
            began = time.monotonic()
            async with session.get("http://localhost/v1/status") as reply:
                document = await reply.json()
            times.append((time.monotonic() - began) * 1000)
            assert document["tasks"]["open"] == 1000
    times.sort()
    p99 = times[math.ceil(len(times) * 0.99) - 1]
    return size("status with 1,000 open, p99", p99, 50.0, "ms", f"{len(times)} calls one after another")


async def memory(world: World) -> dict[str, Any]:
    worker = world.worker("memory", provider=DEFAULT_PACE)
    journal_open_tasks(worker, 1000)
    await worker.start()
    body = "A" * 20_000
    for first in range(0, 1000, 50):
        answers = await asyncio.gather(*(worker.post(f"k{n}", task(n, body=body)) for n in range(first, first + 50)))
        assert {status for status, _unused in answers} == {202}

    async def all_polled() -> bool:
        document = await worker.status()
        assert document["tasks"]["open"] == 2000
        return bool(document["tasks"]["polling"] >= 1200)

    await eventually(all_polled, within=60)
    assert worker.process is not None
    value = resident_mb(worker.process.pid)
    await worker.term()
    return size("2,000 open tasks, peak RSS", value, 200.0, "MB", "1,000 resumed, 1,000 posted with 20 kB each")


async def hand_over(world: World) -> dict[str, Any]:
    worker = await world.worker("handover", provider=DEFAULT_PACE).start()
    await asyncio.gather(*(worker.post(f"k{n}", task(n)) for n in range(80)))

    async def submitted() -> bool:
        return bool((await worker.status())["tasks"]["polling"] == 80)

    await eventually(submitted, within=30)

    await asyncio.gather(*(worker.post(f"l{n}", task(n)) for n in range(20)))
    began = time.monotonic()
    _unused, document = await worker.drain(mode="handover")
    wire = document["tasks"]["submitting"]
    assert document["tasks"]["open"] == 100
    document = await worker.reach("drained")
    took = time.monotonic() - began
    assert document["safe_to_stop"]
    await worker.term()
    return size("hand-over with 100 open to safe_to_stop", took, 0.5, "s", f"{wire} in.php calls of 150 ms on the wire")


def size(name: str, value: float, bound: float, unit: str, condition: str) -> dict[str, Any]:
    return {
        "name": name,
        "value": round(value, 3),
        "bound": bound,
        "unit": unit,
        "kept": value < bound,
        "condition": condition,
    }


async def measure() -> list[dict[str, Any]]:
    home = Path(tempfile.mkdtemp(prefix="sf-", dir="/tmp"))
    world = World(home)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http:
        world.http = http
        try:
            script = str(Path(__file__).parent / "provider_never_ready.py")
            world.url = world.keep(Process([sys.executable, script], home / "log")).ready_line()["url"]
            worker, recovered = await to_running(world)
            latency = await status_latency(worker)
            await worker.term()
            return [await memory(world), latency, await hand_over(world), recovered]
        finally:
            world.end()
            shutil.rmtree(home)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    args = parser.parse_args()
    sizes = asyncio.run(measure())
    conditions = {
        "python": platform.python_version(),
        "aiohttp": aiohttp.__version__,
        "sqlite": sqlite3.sqlite_version,
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "polling": "as by default: every 5 s",
    }
    if args.json:
        print(json.dumps({"sizes": sizes, "conditions": conditions}))
    else:
        for item in sizes:
            verdict = "kept" if item["kept"] else "BROKEN"
            measured = f"{item['value']:g} {item['unit']}"
            print(f"{item['name']:<42} {measured:>12}  below {item['bound']:g}: {verdict}  ({item['condition']})")
        print("conditions: " + ", ".join(f"{name} {value}" for name, value in conditions.items()))
    return 0 if all(item["kept"] for item in sizes) else 1


if __name__ == "__main__":
    sys.exit(main())
