# SPDX-License-Identifier: GPL-3.0-or-later
"""What two processes of one worker say to each other when one takes over, and how listening sockets go along.

JSON messages over a Unix socket that keeps their bounds. It has mode 0600 in the state directory, and who connects is
asked for the user: whoever gets the listening socket gets the clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import logs
from .config import SOCKET_PATH_BYTES

NAME = "handover.sock"
MAX_BYTES = 65_536
MAX_SOCKETS = 16


class Line:
    """One end of the conversation."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._received: list[socket.socket] = []

    def say(self, message: dict[str, Any], sockets: Sequence[socket.socket] = ()) -> bool:
        """False when it did not get there; messages are short, so that it never waits."""
        try:
            socket.send_fds(self._sock, [json.dumps(message).encode()], [sock.fileno() for sock in sockets])
        except OSError:
            return False
        return True

    async def hear(self, within: float) -> dict[str, Any] | None:
        """None when the other side is gone, or no such other side; TimeoutError when it says nothing."""
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        loop.add_reader(self._sock, _wake, ready)
        try:
            async with asyncio.timeout(max(within, 0)):
                await ready
        finally:
            loop.remove_reader(self._sock)
        return self._read()

    def _read(self) -> dict[str, Any] | None:
        try:
            data, descriptors, _flags, _address = socket.recv_fds(self._sock, MAX_BYTES, MAX_SOCKETS)
            self._received += [socket.socket(fileno=one) for one in descriptors]
            document = json.loads(data)
        except (OSError, ValueError, RecursionError):
            return None
        return document if isinstance(document, dict) else None

    def sockets(self) -> list[socket.socket]:
        """What came along so far; from now on the caller's to close."""
        received, self._received = self._received, []
        for sock in received:
            sock.set_inheritable(False)
        return received

    @property
    def gone(self) -> bool:
        try:
            return self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        for sock in self.sockets():
            sock.close()
        self._sock.close()


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _address(state_dir: Path) -> str:
    address = str(state_dir / NAME)
    if len(os.fsencode(address)) > SOCKET_PATH_BYTES:
        raise OSError(f"worker.state_dir is too long for a socket in it: {address}")
    return address


@contextlib.contextmanager
def door(state_dir: Path) -> Iterator[socket.socket | None]:
    """Where a successor asks; with the lock of the state directory held, what lies there is a dead process's."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    path = state_dir / NAME
    with contextlib.closing(sock):
        before = os.umask(0o177)
        try:
            path.unlink(missing_ok=True)
            sock.bind(_address(state_dir))
            sock.listen(1)
            sock.setblocking(False)
        except OSError as exc:
            logs.warning("no standby can take over without a stop", cause=str(exc))
            yield None
            return
        finally:
            os.umask(before)
        own = path.stat().st_ino
        try:
            yield sock
        finally:
            with contextlib.suppress(OSError):
                if path.stat().st_ino == own:
                    path.unlink()


async def visitor(listening: socket.socket) -> Line:
    """The next who asks and may."""
    loop = asyncio.get_running_loop()
    while True:
        sock, _address = await loop.sock_accept(listening)
        if _may(sock):
            return Line(sock)
        logs.warning("refused a stranger who asked for the listening socket")
        sock.close()


def _may(sock: socket.socket) -> bool:
    _pid, uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return uid in (os.geteuid(), 0)


def call(state_dir: Path) -> Line | None:
    """None when nobody is there who could hand over."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.connect(_address(state_dir))
    except OSError:
        sock.close()
        return None
    return Line(sock)
