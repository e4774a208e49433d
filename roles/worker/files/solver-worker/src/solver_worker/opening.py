# SPDX-License-Identifier: GPL-3.0-or-later
"""What a process holds and opens: locks before all else, the control socket, and listeners."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

from aiohttp import web

from . import intake, listener, locks, logs
from .config import Config
from .errors import ConfigError
from .lifecycle import Worker
from .listener import Limits, Listener
from .standby import Order

SHUTDOWN_S = 2.0
_BIND_CODES = {errno.EADDRINUSE: "port_taken", errno.EADDRNOTAVAIL: "address_missing"}
_REMEDY = {
    "port_taken": "free it or change data.port",
    "address_missing": "give this host the address or change data.host",
}
_OTHER = "change data.host or data.port"


def take_locks(config: Config, order: Order | None = None) -> list[int]:
    """Before the state directory or the socket is touched: those of the worker, or those of its one standby."""
    socket_path = Path(config.control.socket)
    # Whatever the service manager says: what this process makes, its parents too, nobody else can write.
    os.umask(os.umask(0o077) | 0o022)
    try:
        config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        socket_path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        if order is not None:
            return _take(
                (config.state_dir / "standby.lock", "place of the standby: a worker has one at a time"),
                (Path(str(order.socket) + ".lock"), "standby's control socket"),
            )
        return _take(
            (config.state_dir / "lock", "state directory (worker.state_dir)"),
            (Path(str(socket_path) + ".lock"), "control socket (control.socket)"),
        )
    except OSError as exc:
        raise ConfigError(f"preparing worker.state_dir and control.socket: {exc.strerror}: {exc.filename}") from exc


def _take(*paths: tuple[Path, str]) -> list[int]:
    held: list[int] = []
    try:
        for path, what in paths:
            held.append(locks.take(path, what))
    except BaseException:
        locks.release(held)
        raise
    return held


def refuse_others(path: Path) -> None:
    """We hold its lock, so a socket at this path is a dead process's, or one's that made room for us."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"control.socket {path} exists and is not a socket; remove it or choose another path")


class Opened:
    """What has been opened, to be closed in reverse."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._runners: list[web.AppRunner] = []
        self.data: Listener | None = None

    async def prepare(self, name: str, app: web.Application, limits: Limits, headers: dict[str, str]) -> Listener:
        """All but the listening."""
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
        await runner.setup()
        self._runners.append(runner)
        opened = Listener(name, runner, limits, headers)
        self._listeners.append(opened)
        return opened

    async def close(self) -> None:
        for opened in self._listeners:
            opened.close()
        for runner in reversed(self._runners):
            await runner.cleanup()


def control_socket(path: Path) -> socket.socket:
    refuse_others(path)
    path.unlink(missing_ok=True)
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


async def prepare_data(worker: Worker, token: str | None, opened: Opened) -> Listener:
    section, name = worker.config.data, worker.config.worker.name
    limits = Limits(connections=listener.affordable(section.max_connections))
    if limits.connections < section.max_connections:
        logs.info("fewer connections than data.max_connections: descriptors are short", most=limits.connections)
    app = intake.application(worker, token)
    return await opened.prepare("data", app, limits, {intake.NAME_HEADER: name})


def not_listening(host: str, port: int, exc: OSError) -> tuple[str, str]:
    """Code and message."""
    code = _BIND_CODES.get(exc.errno or 0, "address_unusable")
    cause = exc.strerror or type(exc).__name__
    return code, f"listening on {host}:{port}: {cause}; {_REMEDY.get(code, _OTHER)}"
