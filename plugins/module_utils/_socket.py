# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""HTTP over a Unix socket, bounded in time and size, with every way to fail told apart."""

from __future__ import annotations

import contextlib
import errno
import http.client
import io
import os
import socket
import stat
import time
from typing import Any, NamedTuple

from ansible_collections.solver.fleet.plugins.module_utils._errors import WorkerError

# sun_path holds 108 bytes on Linux, and the last one is the terminating zero.
MAX_SOCKET_PATH_BYTES = 107
MAX_ANSWER_BYTES = 1024 * 1024
_BACKLOG_RETRY_S = 0.05


class _Named(WorkerError):  # noqa: N818  named after what it does
    """An error whose class is its code."""

    named = "foreign"

    def __init__(self, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(self.named, message, details)


class BadSocketPath(_Named):
    """The path itself can never be a control socket: a mistake in the settings."""

    named = "bad_control_socket"


class Finding(_Named):
    """What a client finds where no worker answers properly; the message also says what to do."""


class NoSocket(Finding):
    named = "stopped"


class DeadSocket(Finding):
    named = "dead"


class AccessDenied(Finding):
    named = "denied"


class Hung(Finding):
    named = "hung"


class Foreign(Finding):
    named = "foreign"


class BrokenOff(Foreign):
    """The connection ended without an answer: the process is going, or never speaks HTTP."""


class Answer(NamedTuple):
    status: int
    content_type: str
    body: bytes


def check_socket_path(path: str) -> None:
    """Refuse a path that no socket can have, before anything else is tried."""
    if not path or not os.path.isabs(path):
        raise BadSocketPath(
            f"control_socket must be an absolute path, got '{path}'", details={"control_socket": path}
        )
    size = len(os.fsencode(path))
    if size > MAX_SOCKET_PATH_BYTES:
        raise BadSocketPath(
            f"control_socket is {size} bytes long, but a Unix socket path ends at {MAX_SOCKET_PATH_BYTES}"
            f" bytes: set a shorter control_socket ('{path}')",
            details={"control_socket": path, "bytes": size, "limit": MAX_SOCKET_PATH_BYTES},
        )


class _Deadline:
    """One deadline for the whole exchange: a timeout per read would let a dribbling peer hold us for ever."""

    def __init__(self, timeout: float) -> None:
        self._end = time.monotonic() + timeout

    def remaining(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise socket.timeout("timed out")
        return left


class _BoundedReader(io.RawIOBase):
    """The receiving side of a socket, cut off at the deadline and at the size limit."""

    def __init__(self, sock: socket.socket, deadline: _Deadline, limit: int) -> None:
        super().__init__()
        self._sock = sock
        self._deadline = deadline
        self._left = limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._deadline.remaining())
        size = self._sock.recv_into(buffer)
        self._left -= size
        if self._left < 0:
            raise Foreign(f"its answer is larger than {MAX_ANSWER_BYTES} bytes")
        return size


class _BoundedSocket:
    """The little of a socket that http.client uses."""

    def __init__(self, sock: socket.socket, deadline: _Deadline, limit: int) -> None:
        self._sock = sock
        self._deadline = deadline
        self._limit = limit

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._deadline.remaining())
        # A worker that refuses may answer and close before it has read everything: its answer can still be read, and
        # where there is none, reading says so.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._sock.sendall(data)

    def makefile(self, *_args: Any, **_kwargs: Any) -> io.BufferedReader:
        return io.BufferedReader(_BoundedReader(self._sock, self._deadline, self._limit))

    def close(self) -> None:
        self._sock.close()


class _UnixConnection(http.client.HTTPConnection):
    """http.client over AF_UNIX: no name lookup, no proxy, no redirect."""

    def __init__(self, path: str, deadline: _Deadline, limit: int) -> None:
        super().__init__("localhost")
        self._path = path
        self._deadline = deadline
        self._limit = limit

    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _connect(sock, self._path, self._deadline)
        except BaseException:
            sock.close()
            raise
        self.sock: Any = _BoundedSocket(sock, self._deadline, self._limit)


def _connect(sock: socket.socket, path: str, deadline: _Deadline) -> None:
    while True:
        # Before connect: a full backlog would block without it.
        sock.settimeout(deadline.remaining())
        try:
            sock.connect(path)
            return
        except BlockingIOError:
            # The backlog is full: nobody accepts. The kernel says so at once, so we wait ourselves.
            time.sleep(min(_BACKLOG_RETRY_S, deadline.remaining()))


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return True


def finding_of_os_error(path: str, error: OSError) -> Finding:
    """Tell the ways apart in which a socket cannot be used."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NoSocket(f"there is no socket at '{path}': the worker is stopped, or control_socket is wrong")
    if error.errno in (errno.EACCES, errno.EPERM):
        return AccessDenied(
            f"access to '{path}' is denied: set solver_become: true, or log in as the worker's user or a member of "
            "the socket's group"
        )
    if error.errno == errno.ECONNREFUSED and _is_socket(path):
        return DeadSocket(f"'{path}' is a leftover socket: the process that made it is gone")
    if error.errno == errno.ECONNREFUSED:
        return Foreign(
            f"'{path}' is not a socket: set control_socket (solver_control_socket) to the worker's control socket")
    if isinstance(error, (ConnectionError, http.client.RemoteDisconnected)):
        return BrokenOff(f"'{path}' ended the connection without an answer")
    return Foreign(f"'{path}' cannot be used as a control socket: {error.strerror or error}")


def exchange(path: str, method: str, target: str, body: bytes | None = None, *, timeout: float = 5.0) -> Answer:
    """One request and its answer; raises a Finding when there is no proper HTTP answer in time."""
    check_socket_path(path)
    # The limit is on all that is received, so endless headers end there as well.
    connection = _UnixConnection(path, _Deadline(timeout), MAX_ANSWER_BYTES)
    headers = {"Accept": "application/json", "Connection": "close"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    try:
        connection.request(method, target, body=body, headers=headers)
        response = connection.getresponse()
        return Answer(response.status, response.headers.get_content_type(), _body(response))
    except socket.timeout as error:
        raise Hung(f"'{path}' gave no complete answer within {timeout:g} s") from error
    except OSError as error:
        raise finding_of_os_error(path, error) from error
    except http.client.IncompleteRead as error:
        raise BrokenOff(f"'{path}' ended the connection in the middle of its answer") from error
    except Foreign as error:
        raise Foreign(f"'{path}' is no worker: {error.message}") from error
    except Exception as error:  # what a stranger's bytes can break is more than any list
        raise Foreign(f"'{path}' does not speak HTTP ({type(error).__name__})") from error
    finally:
        connection.close()


def _body(response: http.client.HTTPResponse) -> bytes:
    """What was received, or nothing: a length that is only promised must not be made room for."""
    body = response.read(MAX_ANSWER_BYTES + 1)
    if response.length:
        raise http.client.IncompleteRead(body, response.length)
    return body
