# SPDX-License-Identifier: GPL-3.0-or-later
"""One worker: its journal, which outlives its processes, and its process, while it has one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import sys
import uuid
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from solver_worker import drain as drains
from solver_worker.clock import Clock
from solver_worker.drain import Decision, Drain, Moment
from solver_worker.pulse import Pulse

from . import control, http
from .behaviour import PROBE_ERRORS, Behaviour
from .books import Books

if TYPE_CHECKING:
    from .standby import Standby

STARTING, SERVING, STOPPING, FAILED = "starting", "serving", "stopping", "failed"
RUNS, ENDED, STOPPED = 0, 1, 3  # exit statuses of a status command, as the Linux Standard Base has them
VERIFY_AGAIN_S = 300.0
ANSWER_S = 0.5
LONG_S = 3600.0
IMAGE_TEXT = "W7Q4K"
# From 3.13 on a server that closes removes its socket, but a process that was killed leaves one.
_KEEP: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}


class Host(Protocol):
    clock: Clock

    def behaviour(self, worker: str, version: str) -> Behaviour: ...
    def next_pid(self) -> int: ...
    def log(self, worker: str, **fields: Any) -> None: ...


class Worker:
    def __init__(self, host: Host, name: str, path: str, worker_dir: str, drain_s: float, load: int,
                 seed: int = 1) -> None:
        self.host = host
        self.name = name
        self.path = Path(path)
        self.worker_dir = Path(worker_dir)
        self.own_drain_s = drain_s
        self.solve_s = round(drain_s * 0.6, 3) or 1.0
        # the journal
        self.journal_id = uuid.uuid4().hex
        self.books = Books(load, self.solve_s, f"{seed} {name}")
        self.drain: Drain | None = None
        self.restarts = -1
        self._last_served: str | None = None
        self._proved = False  # as a standby, by a probe
        self._answers: dict[str, dict[str, Any]] = {}
        # the process, and the service that runs it
        self.slot = "main"
        self.service = self.path.with_suffix(".service")
        self.phase: str | None = None
        self.behaviour = Behaviour()
        self.changes = Pulse()
        self._connections: set[asyncio.Task[None]] = set()
        self._background: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._logged: Any = None
        self._begin("", "")

    def _begin(self, version: str, release: str) -> None:
        self.version, self.release = version, release
        self.boot_id = uuid.uuid4().hex
        self.pid = self.host.next_pid()
        self.started_at = self.since = self.host.clock.now()
        self.state, self.seq = STARTING, 1
        self._serving_since: float | None = None
        self._verify_after = 0.0
        self._probe: tuple[str, asyncio.Task[dict[str, Any]]] | None = None

    # -- the service

    async def start(self, slot: str = "main", link: str = "current") -> None:
        if self.phase is not None:
            return
        linked = _linked_release(self.worker_dir / link)
        self._begin(linked.get("version", ""), linked.get("id", ""))
        self._take_slot(slot)
        self.restarts += 1
        self.behaviour = self.host.behaviour(self.name, self.version)
        if not linked or self.behaviour.crash:
            self._gone("dead", ENDED)
            return
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._connected, self.path, **_KEEP)
        self.path.chmod(0o660)
        self.phase = STARTING
        self._tell_service(RUNS)
        self.refresh()
        if self.behaviour.start_s:
            self._spawn(self._come_up_late(self.boot_id))
        else:
            self._come_up()

    def _take_slot(self, slot: str) -> None:
        self.slot, self._proved = slot, False
        self.service = service_file(self.path, slot)

    async def follow(self, standby: Standby) -> None:
        """The process of this worker from now on: what was a standby. Its journal is still the same, and no client of
        a real one finds nobody."""
        new = self.path.with_suffix(".new")
        new.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._connected, new, **_KEEP)
        new.chmod(0o660)
        new.replace(self.path)
        self._advance()
        if self.phase is not None:
            self._end_process()
            self._leave_place()
        self._server = server
        self._begin(standby.version, standby.release)
        self.boot_id, self.pid, self.started_at = standby.boot_id, standby.pid, standby.started_at
        self.restarts += 1
        self.behaviour = standby.behaviour
        self._take_slot(standby.place)
        self._proved = standby.wanted.verified
        self._answers.update(standby._answers)
        for name in ("probes", "provider_submits"):
            self.books.totals[name] += standby.books.totals[name]
        self.phase = SERVING
        last = self.version if self._proved else self._last_served
        self.drain = drains.at_startup(self.drain, self._moment(), self.version, last)
        self._served()
        self._tell_service(RUNS)
        self.refresh()

    def _leave_place(self) -> None:
        """Its service says so when the process has gone, which it may take its time for."""
        place, said = self.service, f"{STOPPED} {self.pid}\n"
        asyncio.get_running_loop().call_later(self.behaviour.linger_s, place.write_text, said, "ascii")

    async def _come_up_late(self, boot_id: str) -> None:
        await asyncio.sleep(self.behaviour.start_s)
        if self.phase == STARTING and self.boot_id == boot_id:
            self._come_up()

    def _come_up(self) -> None:
        if self.behaviour.failed:
            self.phase = FAILED
        else:
            self.phase = SERVING
            self.drain = drains.at_startup(self.drain, self._moment(), self.version, self._last_served)
            self._served()
        self.refresh()

    async def stop(self) -> None:
        began, boot_id = self.host.clock.boot(), self.boot_id
        if self.phase is not None:
            self.phase = STOPPING
            self.refresh()
        while self.phase is not None and (left := began + self.behaviour.stop_s - self.host.clock.boot()) > 0:
            await self.changes.wait(min(left, LONG_S))
        if self.phase is not None:
            self._server.close()
            # Whoever waits for a change is answered; a client of a worker that hangs never will be.
            if self._connections and not self.behaviour.hang:
                await asyncio.wait(self._connections, timeout=ANSWER_S)
        if self.boot_id == boot_id:
            self._end_process()
            self.path.unlink(missing_ok=True)
            self._gone("stopped", STOPPED)

    def die(self) -> None:
        """As by kill -9: nobody is answered, and the socket stays behind."""
        if self.phase is not None:
            self._end_process()
            self._gone("dead", ENDED)

    def _end_process(self) -> None:
        if self.phase is not None:
            self._server.close()
        for task in (*self._connections, *self._background, *([self._probe[1]] if self._probe else [])):
            if task is not asyncio.current_task():
                task.cancel()
        self._stop_timer()

    def _gone(self, state: str, service: int) -> None:
        self.phase = None
        self.state = state
        self._tell_service(service)
        self._advance()
        self._log_state()

    def _tell_service(self, code: int) -> None:
        """For the status command, which is one line of shell that reads this."""
        self.service.write_text(f"{code} {self.pid}\n", encoding="ascii")

    # -- state

    @property
    def accepting(self) -> bool:
        if self.phase != SERVING:
            return False
        return self.drain is None or self.drain.accepting(self.host.clock.boot())

    @property
    def probing(self) -> bool:
        return self._probe is not None

    @property
    def safe_to_stop(self) -> bool:
        if self.accepting or self.probing:
            return False
        return not (self.drain is not None and self.drain.mode == "complete" and self.books.open)

    @property
    def drain_s(self) -> float:
        return self.own_drain_s if self.behaviour.drain_s is None else self.behaviour.drain_s

    def adopt(self, behaviour: Behaviour) -> None:
        """A fault was switched on or off."""
        self._advance()
        self.behaviour = behaviour
        self.changes.fire()
        self.tick()

    def refresh(self, changed: bool = False) -> None:
        """Recompute the state; a change of it, or of the drain, is a new ``seq``."""
        if self.phase is None:
            return
        was = self.state
        self._advance()
        self.state = self._state()
        if self.state != was:
            self.since = self.host.clock.now()
        if changed or self.state != was:
            self.seq += 1
            self.changes.fire()
        if self.state == "running" and self._serving_since is None:
            self._serving_since = self.host.clock.boot()
        self._log_state()
        self._arm()

    def _advance(self) -> None:
        self.books.advance(self.host.clock.boot(), self.accepting, self.drain_s, self.behaviour.traffic)

    def _state(self) -> str:
        if self.phase != SERVING:
            return str(self.phase)
        if self.drain is None:
            return "running"
        if self.drain.held:
            return "drained"
        left = self.books.open if self.drain.mode == "complete" else 0
        return "draining" if left or self.accepting else "drained"

    def _log_state(self) -> None:
        now = (self.state, self.accepting, self.boot_id)
        if now != self._logged:
            self._logged = now
            self.host.log(self.name, state=self.state, accepting=self.accepting, version=self.version,
                          boot_id=self.boot_id)

    # -- drain

    def put_drain(self, wish: dict[str, Any]) -> Decision:
        unverified = self._last_served not in (None, self.version) and not self._proved
        decision = drains.decide(self.drain, wish, self._moment(), self.version, unverified)
        if decision.status == 202:
            self._advance()
            self._set_drain(replace(decision.drain, open_at_start=self.books.open))
        elif decision.status == 200:
            self._set_drain(decision.drain)
        return decision

    def delete_drain(self, owner: str, steal: bool) -> str:
        if self.drain is None:
            return "none"
        if self.drain.owner != owner and not steal:
            return "foreign"
        self._set_drain(None)
        return "resumed"

    @property
    def timed_drain(self) -> Drain | None:
        """The drain with its lease as fast as a test wants it."""
        if self.drain is None:
            return None
        return replace(self.drain, lease_s=self.drain.lease_s / self.behaviour.lease_speed)

    def _set_drain(self, drain: Drain | None) -> None:
        self.drain = drain
        self._served()
        self.refresh(changed=True)

    def _served(self) -> None:
        if self.drain is None:
            self._last_served = self.version

    def _moment(self) -> Moment:
        return Moment(self.host.clock.boot(), self.host.clock.now())

    # -- probe

    async def probe(self, request_id: str, expect: str = IMAGE_TEXT, timeout_s: float = 90.0) -> dict[str, Any]:
        """The same request joins the running probe, or reads its answer again."""
        known = self._answers.get(request_id)
        if known is not None:
            return known
        if self._probe is None:
            self.books.totals["probes"] += 1
            self.books.totals["provider_submits"] += 1
            self._probe = (request_id, asyncio.create_task(self._solve(request_id, expect, timeout_s)))
        elif self._probe[0] != request_id:
            raise http.ProblemError(409, "probe_running", "another probe runs", request_id=self._probe[0])
        return await asyncio.shield(self._probe[1])

    async def _solve(self, request_id: str, expect: str, timeout_s: float) -> dict[str, Any]:
        began, boot_id = self.host.clock.boot(), self.boot_id
        late = self.behaviour.probe_s > timeout_s
        await asyncio.sleep(min(self.behaviour.probe_s, timeout_s))
        error = PROBE_ERRORS.get(self.behaviour.probe)
        if late:
            error = {"code": "TIMEOUT", "class": "provider", "message": f"not solved within {timeout_s:g} s"}
        elif error is None and expect.casefold() != IMAGE_TEXT.casefold():
            error = {"code": "WRONG_ANSWER", "class": "provider", "message": "the solution is not the expected one"}
        answer = {
            "request_id": request_id,
            "outcome": "failed" if error else "succeeded",
            "elapsed_s": round(self.host.clock.boot() - began, 3),
            "error": error,
            "version": self.behaviour.version or self.version,
            "boot_id": boot_id,
        }
        self._answers[request_id] = answer
        self._probe = None
        self.host.log(self.name, probe=answer["outcome"], version=self.version, boot_id=boot_id)
        return answer

    async def _verify(self) -> None:
        """Nobody came back for us: serve only after a probe of our own."""
        answer = await self.probe("self-" + uuid.uuid4().hex)
        drain = self.drain
        if answer["outcome"] == "succeeded" and self.phase == SERVING and drain and _must_verify(drain):
            self._set_drain(None)
        else:
            self.refresh()

    # -- time

    def tick(self) -> None:
        drain, boot = self.timed_drain, self.host.clock.boot()
        if self._dies_at() <= boot:
            self.die()
            return
        if self.phase == SERVING and drain is not None:
            self._drain_in_time(drain, boot)
        self.refresh()

    def _drain_in_time(self, drain: Drain, boot: float) -> None:
        assert self.drain is not None
        action = drains.due_action(drain, boot)
        if action == "handover":
            self._set_drain(replace(self.drain, mode="handover"))
        elif action == "expire" and drain.on_expire == "resume":
            self._set_drain(None)
        elif action == "expire":
            self._verify_after = 0.0
            self._set_drain(replace(self.drain, expired=True))
        elif _must_verify(drain) and boot >= self._verify_after and not self.probing:
            self._verify_after = boot + VERIFY_AGAIN_S / self.behaviour.lease_speed
            self._spawn(self._verify())

    def _dies_at(self) -> float:
        if self.phase is None or self._serving_since is None or self.behaviour.dies_after_s is None:
            return float("inf")
        return self._serving_since + self.behaviour.dies_after_s

    def _arm(self) -> None:
        """One timer, for the next instant at which anything changes by itself."""
        self._stop_timer()
        boot = self.host.clock.boot()
        delay = min(self._dies_at(), *self._drain_instants(boot)) - boot
        if delay < float("inf"):
            self._timer = asyncio.get_running_loop().call_later(max(delay, 0.001), self.tick)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _drain_instants(self, boot: float) -> list[float]:
        drain = self.timed_drain
        if drain is None or self.phase != SERVING:
            return [float("inf")]
        if drains.due_action(drain, boot):
            return [boot]
        ahead = drains.next_instant(drain, boot)
        instants = [float("inf") if ahead is None else boot + ahead]
        if self.books.open:
            instants.append(self.books.empty_at(self.drain_s))
        if _must_verify(drain) and not self.probing:
            instants.append(self._verify_after)
        return instants

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # -- the control socket

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            # Cancelled is who waits while the process ends; asyncio would make an error of it in the log.
            with contextlib.suppress(OSError, asyncio.CancelledError):
                writer.write(await self._exchange(reader, _peer(writer)))
                await writer.drain()
        finally:
            self._connections.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, peer: int) -> bytes:
        try:
            request = await http.read(reader)
            if request is None:
                return b""
            while self.behaviour.hang:
                await self.changes.wait(LONG_S)
            if self.behaviour.garbage:
                return b"\x00\x01 this is no HTTP \xff\r\n\r\n"
            return http.answer(*await control.answer(self, request, peer))
        except http.ProblemError as exc:
            return http.answer(exc.document["status"], exc.document)


def service_file(path: Path, place: str) -> Path:
    """Return what the status command of a place reads."""
    return path.with_suffix(".service" if place == "main" else ".standby.service")


def _must_verify(drain: Drain) -> bool:
    return drain.expired and drain.on_expire == "verify"


def _linked_release(link: Path) -> dict[str, str]:
    """Version and release id of what a link names; empty where that is nothing that could run."""
    try:
        document = json.loads((link / "release.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return {"version": str(document["version"]), "id": str(document["id"])}


def _peer(writer: asyncio.StreamWriter) -> int:
    """Return the process at the other end, for the log."""
    credentials = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("3i", credentials)[0])
