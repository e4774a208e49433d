# SPDX-License-Identifier: GPL-3.0-or-later
"""Listening within bounds: so many connections, so long for a head, for an answer and for silence.

One descriptor that is missing is enough to make a process deaf, so strangers get only what the worker can spare. When
all connections are taken, the one that has been silent for longest makes room; one with a request in hand is never cut.
"""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from . import logs
from .problem import ProblemError, from_http

# For the journal, the provider (2 x 100 connections), the control socket and what a library opens.
KEPT_DESCRIPTORS = 384
FEWEST = 16
ACCEPT_AT_ONCE = 64
SWEEP_S = 1.0
PAUSE_S = 1.0
# For a client that is refused to read why, while it still sends.
LINGER_S = 2.0
BACKLOG = 1024


@dataclass(frozen=True)
class Limits:
    connections: int
    head_s: float = 10.0  # from its first byte, or from the connection, to the end of a request's head
    idle_s: float = 75.0  # between two requests
    answer_s: float = 30.0  # until a client has taken its answer


def affordable(wanted: int) -> int:
    """As many connections as the limit of descriptors leaves."""
    soft, _unused = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(FEWEST, min(wanted, soft - KEPT_DESCRIPTORS))


class Connection(RequestHandler):
    """One connection of a client; it ends by itself when nothing comes, or nothing is taken."""

    def __init__(self, listener: Listener, server: web.Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._listener = listener
        self._head_began: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._head_began = self._listener.now()
        self._listener.joined(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._listener.left(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self._head_began = None
            self._listener.busy(self)
        elif self.silent and self._head_began is None:
            self._head_began = self._listener.now()

    @property
    def silent(self) -> bool:
        """Waits for a request; none is in hand."""
        return self._waiter is not None and not self._waiter.done()

    def late(self, now: float) -> bool:
        return self._head_began is not None and now - self._head_began >= self._listener.limits.head_s and self.silent

    def cut(self) -> None:
        """At once: a close would wait until the other side has read everything."""
        if self.transport is not None:
            self.transport.abort()
        self.force_close()

    async def finish_response(self, request: Any, resp: Any, start_time: Any) -> Any:
        if isinstance(resp, web.HTTPException):
            resp = from_http(resp)
        try:
            async with asyncio.timeout(self._listener.limits.answer_s):
                answer = await super().finish_response(request, resp, start_time)
        except TimeoutError:
            self.cut()
            return resp, True
        if not self._messages:
            self._listener.waits(self)
        return answer

    def handle_error(
        self,
        request: Any,  # noqa: ARG002
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> web.Response:
        """The library would log and send back what it could not read, a token or a password as it may be."""
        if isinstance(exc, UnicodeError):
            status = 400  # bytes in the head that are no text
        if status < 500:
            logs.warning("refused what is no request", status=status)
            problem = ProblemError(status, "bad_request", "this is no request in HTTP/1.1 that is understood here")
        else:
            logs.error("request failed", status=status, cause=logs.cause_of(exc) if exc is not None else None)
            problem = ProblemError(status, "internal", "the outcome is not known; repeat the request with the same key")
        response = problem.response()
        response.headers.update(self._listener.headers)
        response.force_close()
        return response

    def log_exception(self, *_args: Any, **more: Any) -> None:
        exc = more.get("exc_info")
        if isinstance(exc, (HttpProcessingError, web.RequestPayloadError, web.PayloadAccessError)):
            logs.warning("refused what is no request", cause=type(exc).__name__)
            return
        logs.error("a connection broke", cause=logs.cause_of(exc) if isinstance(exc, BaseException) else None)


class Listener:
    def __init__(self, name: str, runner: web.AppRunner, limits: Limits, headers: dict[str, str]) -> None:
        assert runner.server is not None
        self._name = name
        self._server: web.Server = runner.server
        self.limits = limits
        self.headers = headers
        self._loop = asyncio.get_running_loop()
        self._sockets: list[socket.socket] = []
        self._all: set[Connection] = set()
        self._silent: dict[Connection, None] = {}  # in the order in which they fell silent
        self._opening: set[asyncio.Task[None]] = set()
        self._expected = 0  # accepted, and not a connection yet
        self._paused = False
        self._held = False
        self._sweeper: asyncio.TimerHandle | None = None
        self.now: Callable[[], float] = self._loop.time

    def listen(self, sockets: list[socket.socket]) -> None:
        self._sockets = sockets
        for sock in sockets:
            sock.setblocking(False)
        self.go_on()
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    def close(self) -> None:
        """Takes no new connection; those that stand are the runner's to end."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        self.let_go()

    def hold(self) -> None:
        """Leaves new connections in the kernel's hands: for another process, or for go_on()."""
        self._held = True
        for sock in self._sockets:
            self._loop.remove_reader(sock)

    def go_on(self) -> None:
        self._held = self._paused = False
        for sock in self._sockets:
            self._loop.add_reader(sock, self._accept, sock)

    def let_go(self) -> None:
        """Has no socket any more; another process may, or may bind it again."""
        self.hold()
        for sock in self._sockets:
            sock.close()
        self._sockets = []

    @property
    def sockets(self) -> list[socket.socket]:
        return self._sockets

    @property
    def connections(self) -> int:
        return len(self._all) + self._expected

    # -- what connections tell

    def joined(self, connection: Connection) -> None:
        self._expected -= 1
        self._all.add(connection)
        self._silent[connection] = None
        self._resume()

    def left(self, connection: Connection) -> None:
        self._all.discard(connection)
        self._silent.pop(connection, None)
        self._resume()

    def busy(self, connection: Connection) -> None:
        self._silent.pop(connection, None)

    def waits(self, connection: Connection) -> None:
        if connection in self._all:
            self._silent.pop(connection, None)
            self._silent[connection] = None

    # -- accepting

    def _accept(self, sock: socket.socket) -> None:
        for _unused in range(ACCEPT_AT_ONCE):
            if self._full() and not self._silent:
                self._pause("all connections are taken")
                return
            try:
                accepted, _address = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as exc:
                # Out of descriptors or memory, whoever took them: the kernel holds the clients meanwhile.
                self._pause(errno.errorcode.get(exc.errno or 0, "unknown"))
                self._loop.call_later(PAUSE_S, self._resume)
                return
            accepted.setblocking(False)
            if self._full():
                self._make_room()
            self._expected += 1
            task = self._loop.create_task(self._serve(accepted))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _serve(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._connection, accepted)
        except OSError:
            self._expected -= 1
            accepted.close()

    def _connection(self) -> Connection:
        return Connection(
            self,
            self._server,
            loop=self._loop,
            keepalive_timeout=self.limits.idle_s,
            access_log=None,
            lingering_time=LINGER_S,
            auto_decompress=False,
        )

    def _full(self) -> bool:
        return len(self._all) + self._expected >= self.limits.connections

    def _make_room(self) -> None:
        logs.warning("cut a silent connection to make room", listener=self._name)
        oldest = next(iter(self._silent))
        self.left(oldest)
        oldest.cut()

    def _pause(self, cause: str) -> None:
        logs.warning("takes no more connections for the moment", listener=self._name, cause=cause)
        self._paused = True
        for sock in self._sockets:
            self._loop.remove_reader(sock)

    def _resume(self) -> None:
        if self._paused and not self._held:
            self.go_on()

    def _sweep(self) -> None:
        now = self.now()
        for connection in [one for one in self._silent if one.late(now)]:
            connection.cut()
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)


async def addresses(host: str, port: int) -> list[Any]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys(found))


async def bind(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of HOST; OSError says which cannot be had."""
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _name, address in await addresses(host, port):
            try:
                sock = socket.socket(family, kind, protocol)
            except OSError:
                continue  # a family that this kernel does not have
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
            sock.listen(BACKLOG)
        if not sockets:
            raise OSError(errno.EADDRNOTAVAIL, "no address of that name can be used here")
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets
