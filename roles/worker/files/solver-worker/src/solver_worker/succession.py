# SPDX-License-Identifier: GPL-3.0-or-later
"""One process of a worker takes over from another, so that clients notice nothing and nobody serves twice.

The lock of the state directory decides who is the worker. Up to the last word of the successor the old process can come
back, and once it has let the lock go the successor can go on, whatever happens to the other.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from . import handover, listener, locks, logs
from . import standby as standbys
from .drain import Drain
from .errors import ConfigError, JournalRefusedError, LockHeldError, NotTakenOverError
from .handover import Line
from .lifecycle import FAILED, SERVING, Worker
from .opening import not_listening, prepare_data, take_locks

if TYPE_CHECKING:
    from .serve import Process

ASK_S = 5.0
LOOK_S = 0.01
# So much earlier than the successor the old process gives up, so that it is the one to say why.
MARGIN_S = 0.5
COME_BACK_S = 10.0
# For kept connections, each of which is closed with its next answer; then for those that have none.
LINGER_S = 5.0


@dataclass(frozen=True)
class Ask:
    """What a successor says of itself."""

    owner: str
    version: str
    verified: bool
    within_s: float
    addresses: list[list[Any]]  # where it will listen

    @classmethod
    def read(cls, message: Mapping[str, Any] | None) -> Ask | None:
        try:
            found = cls(**{name: (message or {})[name] for name in cls.__dataclass_fields__})
        except KeyError:
            return None
        kinds: dict[str, Any] = {
            "owner": str,
            "version": str,
            "verified": bool,
            "within_s": (int, float),
            "addresses": list,
        }
        good = all(isinstance(getattr(found, name), kind) for name, kind in kinds.items())
        return found if good and 0 < found.within_s <= standbys.WITHIN_MOST_S else None


def why_not(phase: str, version: str, drain: Drain | None, ask: Ask) -> NotTakenOverError | None:
    """What keeps this successor from taking over."""
    if phase != SERVING:
        return NotTakenOverError("not_now", f"the process that has the journal is {phase}; ask again")
    if drain is not None and not drain.expired and drain.owner != ask.owner:
        return NotTakenOverError("drained_by_another", f"{drain.owner} drains this worker")
    if not ask.verified and ask.version != version:
        return NotTakenOverError("unverified", f"version {ask.version} has not solved a probe here; probe it first")
    return None


async def _addresses(worker: Worker) -> list[list[Any]]:
    section = worker.config.data
    try:
        found = await listener.addresses(section.host, section.port)
    except OSError:
        return []
    return sorted([int(family), address[0], address[1]] for family, _kind, _protocol, _name, address in found)


def _own(sockets: list[socket.socket]) -> list[list[Any]]:
    return sorted([int(sock.family), *sock.getsockname()[:2]] for sock in sockets)


# -- the one that serves


async def make_room(process: Process) -> None:
    """Waits for successors; ends this process when one has taken over."""
    while True:
        with handover.door(process.worker.config.state_dir) as listening:
            if listening is None:
                return
            line = await handover.visitor(listening)
        try:
            done = await _hand_over(process, line)
        except Exception as exc:  # noqa: BLE001 (a successor must not cost us the worker)
            logs.error("handing over failed", cause=logs.cause_of(exc))
            # Who can neither go on nor come back makes room for a restart.
            done = process.worker.handed_on is not None
            process.code = int(done)
        finally:
            line.close()
        if done:
            process.stopping.set()
            return


async def _hand_over(process: Process, line: Line) -> bool:
    worker = process.worker
    try:
        ask = Ask.read(await line.hear(ASK_S))
    except TimeoutError:
        ask = None
    if ask is None:
        return False
    refusal = why_not(worker.phase, worker.version, worker.drain, ask)
    if refusal is None:
        refusal = await _prepare(process, line, ask)
    if refusal is not None:
        logs.warning("refused to hand over", code=refusal.code, owner=ask.owner)
        line.say({"refused": str(refusal), "code": refusal.code})
        return False
    return worker.handed_on is not None


async def _prepare(process: Process, line: Line, ask: Ask) -> NotTakenOverError | None:
    worker, data = process.worker, process.opened.data
    assert data is not None
    ends = worker.clock.boot() + ask.within_s
    logs.info("hands over", owner=ask.owner, to=ask.version)
    worker.handing_over = True
    try:
        passed = ask.addresses == _own(data.sockets) and line.say({"ready": True}, data.sockets)
        while not worker.quiet:
            if line.gone or worker.clock.boot() >= ends - MARGIN_S:
                return NotTakenOverError("busy", "calls of in.php, a probe or, in mode complete, tasks did not end")
            await asyncio.sleep(LOOK_S)
        refusal = why_not(worker.phase, worker.version, worker.drain, ask)  # somebody may have drained meanwhile
        if refusal is None and line.gone:
            refusal = NotTakenOverError("gone", "the successor went away")
        if refusal is None:
            await _give(process, line, passed, ends)
    finally:
        worker.handing_over = False
        if worker.engine is not None:
            worker.engine.wake()
    return refusal


async def _give(process: Process, line: Line, passed: bool, ends: float) -> None:
    worker, data = process.worker, process.opened.data
    assert data is not None
    worker.handed_on = asyncio.get_running_loop().create_future()
    data.hold()
    try:
        await worker.leave()
        if not passed:
            data.let_go()
        locks.release(process.held)
        line.say({"go": True})
        address = await _outcome(process, line, ends)
    except Exception as exc:  # noqa: BLE001 (whatever it is, there must be a worker)
        logs.error("handing over failed", cause=logs.cause_of(exc))
        address = None
    if address is None:
        await _come_back(process)
    else:
        await _linger(process, address)


async def _outcome(process: Process, line: Line, ends: float) -> tuple[str, int] | None:
    """Where the successor serves; None when it does not, and will not."""
    while True:
        try:
            message = await line.hear(1.0)
        except TimeoutError:
            if process.worker.clock.boot() >= ends and _take_locks(process):
                return None  # it lives and has not even begun
            continue
        if message is None or "serving" not in message:
            return None
        host, port = message["serving"]
        return str(host), int(port)


def _take_locks(process: Process) -> bool:
    try:
        process.held += take_locks(process.worker.config)
    except LockHeldError:
        return False
    return True


async def _come_back(process: Process) -> None:
    worker, data = process.worker, process.opened.data
    assert data is not None
    assert worker.handed_on is not None
    logs.warning("the successor is gone; this process goes on")
    ends = worker.clock.boot() + COME_BACK_S
    while not process.held and not _take_locks(process):
        if worker.clock.boot() >= ends:
            logs.error("another process has the journal; this one ends")
            process.code = os.EX_TEMPFAIL
            process.stopping.set()
            return
        await asyncio.sleep(LOOK_S)
    await process.regain_control()
    await process.come_up(data.sockets)
    worker.handed_on.set_result(None)
    worker.handed_on = None


async def _linger(process: Process, address: tuple[str, int]) -> None:
    """For those who are still connected to us."""
    worker, data = process.worker, process.opened.data
    assert data is not None
    assert worker.handed_on is not None
    data.let_go()
    worker.handed_on.set_result(address)
    ends = worker.clock.boot() + LINGER_S
    while data.connections and worker.clock.boot() < ends:
        await asyncio.sleep(5 * LOOK_S)
    logs.info("handed over", left=data.connections)


# -- the one that takes over


class Successor:
    def __init__(self, process: Process) -> None:
        self._process = process
        self._worker = process.worker
        self._running: asyncio.Task[None] | None = None

    async def take_over(self, within: float) -> None:
        """Who asks again joins; who goes away does not end it."""
        if self._running is None:
            self._running = self._process.spawn(self._whole(within))
            self._running.add_done_callback(self._ended)
        await asyncio.shield(self._running)

    def _ended(self, _task: asyncio.Task[None]) -> None:
        self._running = None

    async def _whole(self, within: float) -> None:
        standby = self._worker.standby
        assert standby is not None
        self._worker.set_standby(replace(standby, taking_over=True))
        line = handover.call(self._worker.config.state_dir)
        try:
            await self._try(line, self._worker.clock.boot() + within)
        except Exception as exc:  # whatever it is, the old process must hear of it
            error = _named(exc)
            logs.warning("did not take over", code=error.code, cause=str(error))
            if line is not None:
                line.say({"failed": error.code})
            await self._worker.stand_by(replace(standby, last_error=error))
            raise error from exc
        finally:
            if line is not None:
                line.close()

    async def _try(self, line: Line | None, ends: float) -> None:
        if self._worker.probing:
            raise NotTakenOverError("busy", "the standby's own probe is running; wait for it")
        handed = line is not None and await self._ask(line, ends)
        held = await self._locks(ends)
        try:
            if line is not None and handed:
                await self._become(line, held, ends)
            else:
                await self._inherit(line, held)
        except BaseException:
            if self._process.order is not None:
                if self._worker.journal is not None:
                    await self._worker.leave()
                locks.release(held)
            raise

    async def _ask(self, line: Line, ends: float) -> bool:
        """True when the journal was left to us; False when the other is gone without a word."""
        worker = self._worker
        assert worker.standby is not None
        ask = Ask(
            worker.standby.owner,
            worker.version,
            worker.standby.verified,
            ends - worker.clock.boot(),
            await _addresses(worker),
        )
        line.say(vars(ask))
        try:
            while (message := await line.hear(ends - worker.clock.boot())) is not None:
                if "refused" in message:
                    raise NotTakenOverError(str(message.get("code")), str(message["refused"]))
                if "go" in message:
                    return True
        except TimeoutError as exc:
            raise NotTakenOverError("busy", "the process that serves did not hand over in time (within_s)") from exc
        return False

    async def _locks(self, ends: float) -> list[int]:
        while True:
            try:
                return take_locks(self._worker.config)
            except LockHeldError as exc:
                if self._worker.clock.boot() >= ends:
                    remedy = "nobody there hands over: drain and stop that process, meanwhile or before"
                    raise NotTakenOverError("lock_held", f"{exc}; {remedy}") from exc
            await asyncio.sleep(LOOK_S)

    async def _become(self, line: Line, held: list[int], ends: float) -> None:
        """The old process waits for our last word; until then all can be taken back."""
        worker, process = self._worker, self._process
        data = await prepare_data(worker, process.token, process.opened)
        worker.open()
        sockets = line.sockets() or await self._bind(ends)
        worker.become_worker()
        worker.recovering()
        await worker.recover()
        if worker.failure is not None:
            raise NotTakenOverError(worker.failure.code, worker.failure.message)
        process.replace_worker(held)
        process.opened.data = data
        data.listen(sockets)
        line.say({"serving": _reachable(sockets[0])})
        process.spawn(make_room(process))

    async def _bind(self, ends: float) -> list[socket.socket]:
        section = self._worker.config.data
        while True:
            try:
                return await listener.bind(section.host, section.port)
            except OSError as exc:
                if self._worker.clock.boot() >= ends:
                    raise NotTakenOverError(*not_listening(section.host, section.port, exc)) from exc
            await asyncio.sleep(5 * LOOK_S)

    async def _inherit(self, line: Line | None, held: list[int]) -> None:
        """Nobody is left to go back to: come up as after any restart, and say what is wrong in the state `failed`."""
        worker, process = self._worker, self._process
        worker.become_worker()
        process.replace_worker(held)
        process.spawn(process.be_worker(line.sockets() if line is not None else ()))
        while worker.phase not in (SERVING, FAILED):
            await worker.changes.wait(1.0)


def _named(exc: Exception) -> NotTakenOverError:
    if isinstance(exc, NotTakenOverError):
        return exc
    if isinstance(exc, JournalRefusedError):
        return NotTakenOverError(exc.code, str(exc))
    if isinstance(exc, ConfigError):
        return NotTakenOverError("bad_configuration", str(exc))
    return NotTakenOverError("crashed", f"taking over: {logs.cause_of(exc)}; report it")


def _reachable(sock: socket.socket) -> list[Any]:
    host, port = sock.getsockname()[:2]
    return [{"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port]  # noqa: S104
