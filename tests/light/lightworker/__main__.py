# SPDX-License-Identifier: GPL-3.0-or-later
"""The one process. Its first line of input says which workers; it ends when its input does, with its parent.

Tests and the service commands of the workers talk to its admin socket: one JSON list in, "ok" or an error back.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import resource
import shutil
import sys
from pathlib import Path
from typing import Any

from solver_worker.clock import Clock

from .behaviour import Behaviour, Rule, behaviour, rule
from .standby import LINKS, Slot
from .worker import Worker

# Above the largest that Linux gives to a process: nobody can end a real one by it.
FIRST_PID = 1 << 23


class Process:
    def __init__(self, wanted: dict[str, Any]) -> None:
        self.clock = Clock()
        self._rules: list[Rule] = []
        self._pids = itertools.count(FIRST_PID)
        self._log = Path(wanted["log"]).open("w", buffering=1, encoding="utf-8")  # noqa: SIM115 (as long as we live)
        self.workers = {spec["name"]: Worker(self, **spec) for spec in wanted["workers"]}
        self.slots = {(name, place): Slot(worker, place) for name, worker in self.workers.items() for place in LINKS}

    # -- what a worker needs of it

    def behaviour(self, worker: str, version: str) -> Behaviour:
        return behaviour(self._rules, worker, version)

    def next_pid(self) -> int:
        return next(self._pids)

    def log(self, worker: str, **fields: Any) -> None:
        self._log.write(json.dumps({"at": round(self.clock.now(), 4), "worker": worker, **fields}) + "\n")

    # -- what is asked of it

    async def do(self, verb: str, *words: Any) -> None:
        if verb in ("start", "stop"):
            await getattr(self.slots[words[0], "main"], verb)()
        elif verb in ("start-standby", "stop-standby"):
            await getattr(self.slots[words[0], "standby"], verb.partition("-")[0])()
        elif verb == "kill":
            self.workers[words[0]].die()
        elif verb == "fault":
            self._rules.append(rule(*words))
            self._adopt()
        elif verb == "heal":
            self._rules.clear()
            self._adopt()
        else:
            raise ValueError(f"{verb} is unknown")

    def _adopt(self) -> None:
        standbys = [slot.standby for slot in self.slots.values() if slot.standby is not None]
        for worker in (*self.workers.values(), *standbys):
            worker.adopt(self.behaviour(worker.name, worker.version))

    async def admin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self.do(*json.loads(await reader.readline()))
            answer = "ok"
        except Exception as exc:  # noqa: BLE001 (whoever asked is told)
            answer = f"{type(exc).__name__}: {exc}"
        with contextlib.suppress(OSError):
            writer.write(answer.encode() + b"\n")
            await writer.drain()
        writer.close()


async def main(wanted: dict[str, Any]) -> None:
    process = Process(wanted)
    for worker in process.workers.values():
        await worker.start()
    admin = await asyncio.start_unix_server(process.admin, wanted["admin"])
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, over.set)
    # What is there now stays; the collector need not look at it again and again.
    gc.freeze()
    print("ready", flush=True)
    await over.wait()
    admin.close()
    for worker in process.workers.values():
        worker.die()
    await _no_task_left()


async def _no_task_left() -> None:
    """A client that was accepted a moment ago becomes a task that can be cancelled only a few rounds later."""
    for _round in range(10):
        await asyncio.sleep(0)
    if others := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in others:
            task.cancel()
        await asyncio.wait(others)


def more_files() -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    more_files()
    wishes = json.loads(sys.stdin.readline())
    try:
        asyncio.run(main(wishes))
    finally:
        shutil.rmtree(wishes["run_dir"], ignore_errors=True)
