# SPDX-License-Identifier: GPL-3.0-or-later
"""One process: locks first, then the control socket, the journal, the data port, and the tasks."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sqlite3
import stat
from pathlib import Path

from aiohttp import web

from . import control, examine, intake, listener, locks, logs
from .config import Config
from .errors import ConfigError, JournalRefusedError, LockHeldError
from .lifecycle import Worker
from .listener import Limits, Listener
from .schema import WAY_BACK

SHUTDOWN_S = 2.0
RETRY_S = 1.0
CONTROL_LIMITS = Limits(connections=64)
# What keeps a process from working and may be over in a moment: it tries again.
PASSING = ("journal_unwritable",)
_BIND_CODES = {errno.EADDRINUSE: "port_taken", errno.EADDRNOTAVAIL: "address_missing"}
_REMEDY = {
    "port_taken": "free it or change data.port",
    "address_missing": "give this host the address or change data.host",
}
_OTHER = "change data.host or data.port"


def take_locks(config: Config) -> list[int]:
    """Before the state directory or the socket is touched."""
    socket_path = Path(config.control.socket)
    # Whatever the service manager says: what this process makes, its parents too, nobody else can write.
    os.umask(os.umask(0o077) | 0o022)
    try:
        config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        socket_path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        return [
            locks.take(config.state_dir / "lock", "state directory (worker.state_dir)"),
            locks.take(Path(str(socket_path) + ".lock"), "control socket (control.socket)"),
        ]
    except OSError as exc:
        raise ConfigError(f"preparing worker.state_dir and control.socket: {exc.strerror}: {exc.filename}") from exc


def clear_leftover(path: Path) -> None:
    """We hold its lock, so a socket at this path is a dead process's."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"control.socket {path} exists and is not a socket; remove it or choose another path")
    path.unlink()


class Opened:
    """What has been opened, to be closed in reverse."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._runners: list[web.AppRunner] = []

    async def open(
        self, name: str, app: web.Application, sockets: list[socket.socket], limits: Limits, headers: dict[str, str]
    ) -> None:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
        await runner.setup()
        self._runners.append(runner)
        opened = Listener(name, runner, limits, headers)
        self._listeners.append(opened)
        opened.listen(sockets)

    async def close(self) -> None:
        for opened in self._listeners:
            opened.close()
        for runner in reversed(self._runners):
            await runner.cleanup()


def _control_socket(path: Path) -> socket.socket:
    clear_leftover(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Bound with no rights for anybody else, so that nobody connects before the mode is final.
    before = os.umask(0o117)
    try:
        sock.bind(str(path))
        sock.listen(listener.BACKLOG)
    finally:
        os.umask(before)
    path.chmod(0o660)
    return sock


async def _come_up(worker: Worker, token: str | None, opened: Opened) -> None:
    try:
        if not await _open_journal(worker):
            return
        sockets = await _bind_data(worker)
        section, name = worker.config.data, worker.config.worker.name
        limits = Limits(connections=listener.affordable(section.max_connections))
        if limits.connections < section.max_connections:
            logs.info("fewer connections than data.max_connections: descriptors are short", most=limits.connections)
        app = intake.application(worker, token)
        await opened.open("data", app, sockets, limits, {intake.NAME_HEADER: name})
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
            code = _BIND_CODES.get(exc.errno or 0, "address_unusable")
            cause = exc.strerror or type(exc).__name__
            worker.fail(code, f"listening on {section.host}:{section.port}: {cause}; {_REMEDY.get(code, _OTHER)}")
            await asyncio.sleep(RETRY_S)


async def run(worker: Worker, token: str | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(logs.loop_failed)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    opened = Opened()
    path = Path(worker.config.control.socket)
    await opened.open("control", control.application(worker), [_control_socket(path)], CONTROL_LIMITS, {})
    timekeeper = asyncio.create_task(worker.keep_time())
    coming = asyncio.create_task(_come_up(worker, token, opened))
    await stop.wait()
    coming.cancel()
    await asyncio.gather(coming, return_exceptions=True)
    await worker.stop()
    timekeeper.cancel()
    await opened.close()
    path.unlink(missing_ok=True)
    worker.close()
    logs.info("stopped")


def serve(worker: Worker, token: str | None) -> int:
    try:
        held = take_locks(worker.config)
    except LockHeldError as exc:
        logs.error("refused to start", cause=str(exc))
        return os.EX_TEMPFAIL
    try:
        asyncio.run(run(worker, token))
    except OSError as exc:
        logs.error("refused to start", cause=f"opening control.socket: {exc}")
        return 1
    finally:
        for fd in held:
            os.close(fd)
    return 0
