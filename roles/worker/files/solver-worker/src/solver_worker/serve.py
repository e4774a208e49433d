# SPDX-License-Identifier: GPL-3.0-or-later
"""One process: locks first, then the control socket, the journal, the data port, and the tasks."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
from pathlib import Path

from aiohttp import web

from . import control, intake, locks, logs
from .config import Config
from .errors import ConfigError, JournalRefusedError, LockHeldError
from .lifecycle import Worker

SHUTDOWN_S = 2.0


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


async def _open_control(worker: Worker) -> web.AppRunner:
    path = Path(worker.config.control.socket)
    clear_leftover(path)
    runner = web.AppRunner(control.application(worker), access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    # Bound with no rights for anybody else, so that nobody connects before the mode is final.
    before = os.umask(0o117)
    try:
        await web.UnixSite(runner, str(path)).start()
    finally:
        os.umask(before)
    path.chmod(0o660)
    return runner


async def _open_data(worker: Worker, token: str | None) -> web.AppRunner:
    section = worker.config.data
    app = intake.application(worker, token)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S, auto_decompress=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, section.host, section.port, backlog=1024).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner


async def _come_up(worker: Worker, token: str | None, runners: list[web.AppRunner]) -> None:
    try:
        worker.open()
    except JournalRefusedError as exc:
        worker.fail(exc.code, str(exc))
        return
    section = worker.config.data
    try:
        runners.append(await _open_data(worker, token))
    except OSError as exc:
        message = f"listening on {section.host}:{section.port}: {exc.strerror}; free it or change data.port"
        worker.fail("port_taken", message)
        return
    try:
        await worker.recover()
    except sqlite3.Error as exc:
        worker.fail("journal_unusable", f"recovering from the journal: {exc}")


async def run(worker: Worker, token: str | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runners = [await _open_control(worker)]
    timekeeper = asyncio.create_task(worker.keep_time())
    await _come_up(worker, token, runners)
    await stop.wait()
    await worker.stop()
    timekeeper.cancel()
    for runner in reversed(runners):
        await runner.cleanup()
    Path(worker.config.control.socket).unlink(missing_ok=True)
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
