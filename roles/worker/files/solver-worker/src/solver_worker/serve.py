# SPDX-License-Identifier: GPL-3.0-or-later
"""One process: locks first, then the control socket, the journal, the data port, and the tasks."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sqlite3
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from . import control, examine, listener, locks, logs, succession
from .errors import JournalRefusedError, LockHeldError
from .lifecycle import SERVING, Worker
from .listener import Limits
from .opening import Opened, control_socket, not_listening, prepare_data, refuse_others, take_locks
from .schema import WAY_BACK
from .standby import Order

RETRY_S = 1.0
CONTROL_LIMITS = Limits(connections=64)
# What keeps a process from working and may be over in a moment: it tries again.
PASSING = ("journal_unwritable",)


async def _come_up(worker: Worker, token: str | None, opened: Opened, sockets: Sequence[socket.socket] = ()) -> None:
    """SOCKETS: what another process left us, or what we had before; without them the port is bound."""
    try:
        if not await _open_journal(worker):
            return
        listening = list(sockets) or await _bind_data(worker)
        if opened.data is None:
            opened.data = await prepare_data(worker, token, opened)
        opened.data.listen(listening)
        worker.recovering()
        await worker.recover()
    except (sqlite3.Error, ValueError, TypeError, KeyError) as exc:
        worker.fail("journal_damaged", f"recovering from the journal: {logs.cause_of(exc)}; {WAY_BACK}")
    except Exception as exc:  # noqa: BLE001 (a process that cannot work says so, and does not come and go)
        worker.fail("crashed", f"coming up: {logs.cause_of(exc)}; report it, and run another release meanwhile")


async def _open_journal(worker: Worker) -> bool:
    while True:
        try:
            await asyncio.to_thread(examine.examine, worker.config.journal_path)
            worker.open()
        except JournalRefusedError as exc:
            worker.fail(exc.code, str(exc))
            if exc.code not in PASSING:
                return False
            await asyncio.sleep(RETRY_S)
        else:
            return True


async def _bind_data(worker: Worker) -> list[socket.socket]:
    """An address may come a moment after us, and a port may be freed."""
    section = worker.config.data
    while True:
        try:
            return await listener.bind(section.host, section.port)
        except OSError as exc:
            worker.fail(*not_listening(section.host, section.port, exc))
            await asyncio.sleep(RETRY_S)


class Process:
    """What one process holds and has opened, be it the worker or a standby of it."""

    def __init__(self, worker: Worker, token: str | None, held: list[int], order: Order | None) -> None:
        self.worker = worker
        self.token = token
        self.held = held  # the locks of the worker, or of the standby
        self.order = order  # while we are a standby
        self.opened = Opened()
        self.stopping = asyncio.Event()
        self.code = 0
        self._control: tuple[Path, int]  # our control socket, as long as it is ours
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(logs.loop_failed)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        self.worker.end = self.stopping.set
        await self._open_control(Path(self.worker.config.control.socket) if self.order is None else self.order.socket)
        timekeeper = asyncio.create_task(self.worker.keep_time())
        if self.order is None:
            self.spawn(self.be_worker())
        else:
            self.worker.keep = self.order.save
            self.worker.keep(self.order.standby)
            await self.worker.stand_by(self.order.standby)
        await self.stopping.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.worker.stop()
        timekeeper.cancel()
        await self.opened.close()
        self._remove_own()
        self.worker.close()
        logs.info("stopped")
        return self.code

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def be_worker(self, sockets: Sequence[socket.socket] = ()) -> None:
        await self.come_up(sockets)
        if self.worker.phase == SERVING:
            await succession.make_room(self)

    async def come_up(self, sockets: Sequence[socket.socket] = ()) -> None:
        await _come_up(self.worker, self.token, self.opened, sockets)

    # -- the control socket

    async def _open_control(self, path: Path) -> None:
        sock = control_socket(path)
        self._control = (path, path.stat().st_ino)
        take_over = succession.Successor(self).take_over
        app = control.application(self.worker, take_over)
        (await self.opened.prepare("control", app, CONTROL_LIMITS, {})).listen([sock])

    def _owns_control(self) -> bool:
        path, inode = self._control
        try:
            return path.stat().st_ino == inode
        except OSError:
            return False

    async def regain_control(self) -> None:
        """After a successor that died with its socket in the place of ours."""
        if not self._owns_control():
            await self._open_control(self._control[0])

    def replace_worker(self, held: list[int]) -> None:
        """From here on this process is the worker, for clients and for whoever starts it again."""
        assert self.order is not None
        path = Path(self.worker.config.control.socket)
        refuse_others(path)
        self._control[0].replace(path)
        self._control = (path, self._control[1])
        self.order.fulfil()
        locks.release(self.held)
        self.held += held
        self.order = None

    def _remove_own(self) -> None:
        if self._owns_control():
            self._control[0].unlink(missing_ok=True)
        if self.order is not None:
            self.order.fulfil()


def serve(worker: Worker, token: str | None, order: Order | None = None) -> int:
    try:
        held = take_locks(worker.config, order)
    except LockHeldError as exc:
        logs.error("refused to start", cause=str(exc))
        return os.EX_TEMPFAIL
    try:
        return asyncio.run(Process(worker, token, held, order).run())
    except OSError as exc:
        logs.error("refused to start", cause=f"opening control.socket: {exc}")
        return 1
    finally:
        locks.release(held)
