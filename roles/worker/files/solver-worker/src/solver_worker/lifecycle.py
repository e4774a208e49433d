# SPDX-License-Identifier: GPL-3.0-or-later
"""The worker as a whole: its states, its drain, and the order in which it comes up and goes down."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from . import ability, logs, pace, probe, schema
from . import drain as drains
from . import standby as standbys
from .ability import Refusal
from .clock import Clock, kernel_boot_id
from .config import Config
from .drain import Decision, Drain, Moment
from .engine import Engine
from .journal import RES_CALLS, Books, Journal
from .notify import Notifier
from .probe import Prober
from .provider import Provider
from .pulse import Pulse
from .standby import Standby

STARTING, RECOVERING, SERVING, STOPPING, FAILED = "starting", "recovering", "serving", "stopping", "failed"
STANDBY = "standby"
VERIFY_AGAIN_S = 300.0
TICK_S = 1.0
TIDY_EVERY_S = 30.0
SAVE_DRAIN_EVERY_S = 30.0


@dataclass(frozen=True)
class Failure:
    code: str
    message: str


def state_of(phase: str, drain: Drain | None, boot: float, wire: int, open_tasks: int) -> str:
    """What is reached, from what was asked and what is left."""
    if phase != SERVING:
        return phase
    if drain is None:
        return "running"
    if drain.held:
        return "drained"
    left = wire if drain.mode == "handover" else open_tasks
    return "draining" if left or drain.accepting(boot) else "drained"


class Worker:
    def __init__(self, config: Config, version: str, release: str, key: str) -> None:
        self.config = config
        self.version = version
        self.release = release
        self.clock = Clock()
        self.boot_id = uuid.uuid4().hex
        self.started_at = self.clock.now()
        self.restarts = 0
        self.phase = STARTING
        self.state = STARTING
        self.since = self.started_at
        self.seq = 1
        self.drain: Drain | None = None
        self.failure: Failure | None = None
        self.refusal: Refusal | None = None
        self.journal: Journal | None = None
        self.engine: Engine | None = None
        self.prober: Prober | None = None
        self.provider = Provider(config.provider, key, self.clock)
        self.changes = Pulse()
        self.notifier = Notifier()
        self.standby: Standby | None = None
        self.end: Callable[[], None] = lambda: None  # what ends this process
        self.keep: Callable[[Standby], None] = lambda _standby: None  # what writes the lease down
        self.handing_over = False  # a successor asked; no call of in.php is begun
        # While the journal is a successor's: where it serves in the end, or None if it never did.
        self.handed_on: asyncio.Future[tuple[str, int] | None] | None = None
        self.left_books: Books | None = None  # as they were when the journal was left to a successor
        self._last_served: str | None = None
        self._proved = False  # as a standby, by a probe: this counts for this process alone
        self._book = probe.MemoryBook()
        self._verify_after = 0.0
        self._background: set[asyncio.Task[None]] = set()
        self._balance_after = 0.0
        self._tidy_after = 0.0
        self._save_after = 0.0
        self._watchdog_after = 0.0

    # -- standing by

    async def stand_by(self, standby: Standby) -> None:
        await self.provider.open()
        self.provider.on_call = self._book.count_call
        self.prober = Prober(self.config, self.clock, self._book, self.provider)
        self.standby, self.failure, self._proved = standby, None, False
        self._enter(STANDBY)
        self.notifier.ready(f"standby of {standby.owner}")
        logs.info("stands by", owner=standby.owner, version=self.version)

    def set_standby(self, standby: Standby) -> None:
        self.standby = standby
        self.refresh(changed=True)

    def become_worker(self) -> None:
        assert self.standby is not None
        self._proved = self.standby.verified
        self.standby = None

    def renew_standby(self, wish: Mapping[str, Any]) -> bool:
        """False: it is another owner's."""
        assert self.standby is not None
        renewed = standbys.renew(self.standby, wish, self.clock.boot())
        if renewed is not None:
            self.keep(renewed)
            self.set_standby(renewed)
        return renewed is not None

    async def probe(self, request: probe.Request) -> dict[str, Any]:
        assert self.prober is not None
        answer = await self.prober.run(request, self.identity)
        if self.phase == STANDBY and self.standby is not None:
            self.set_standby(replace(self.standby, verified=answer["outcome"] == "succeeded"))
        return answer

    # -- coming up

    def open(self) -> None:
        """Opens the journal; raises JournalRefusedError with the file untouched."""
        path = self.config.journal_path
        try:
            journal = Journal(path)
        except (sqlite3.Error, OSError) as exc:
            raise schema.refused(path, exc) from exc
        try:
            self._remember(journal)
        except (sqlite3.Error, OSError, ValueError, TypeError, KeyError) as exc:
            journal.close()
            raise schema.refused(path, exc) from exc
        self.journal = journal
        self.provider.on_call = lambda: journal.count_later(RES_CALLS)
        self.engine = Engine(
            self.config,
            clock=self.clock,
            journal=journal,
            provider=self.provider,
            may_submit=self.may_submit,
            changed=self.refresh,
        )
        self.prober = Prober(self.config, self.clock, journal, self.provider)

    def _remember(self, journal: Journal) -> None:
        self.restarts = journal.count_start(kernel_boot_id(), self.clock.offset)
        self._last_served = journal.meta("last_served")
        self._count(journal)
        now = self.clock.now()
        self.provider.remember_submits([now - at for at in journal.submits_since(now - pace.WINDOW_S)])

    def _count(self, journal: Journal) -> None:
        self.provider.captchas = journal.total("provider_submits")
        self.provider.calls = journal.total(RES_CALLS)

    def recovering(self) -> None:
        """The journal and the data port are open; what kept them from it is over."""
        self.failure = None
        self._enter(RECOVERING)

    async def recover(self) -> None:
        """Takes over the open tasks and the drain, then serves or stays held."""
        journal, engine = self._parts()
        await self.provider.open()
        self._look()
        if self.failure is not None:
            return
        engine.load()
        saved = journal.load_drain()
        boot = self.clock.boot()
        restored = drains.restore(saved, boot, kernel_boot_id()) if saved else None
        if self.drain is None:
            last = self.version if self._proved else self._last_served
            self.drain = drains.at_startup(restored, self._moment(), self.version, last)
        self._adopt_probes(journal)
        if saved and self.drain is None:
            journal.save_drain(None)
        self._persist(self.drain)
        engine.run()
        self._enter(SERVING)
        logs.info("serving" if self.drain is None else "held", state=self.state, version=self.version)

    def _adopt_probes(self, journal: Journal) -> None:
        if self._book.probes:
            journal.adopt_probes(self._book.probes, self._book.submits, self._book.calls)
            self._book = probe.MemoryBook()
            self._count(journal)

    def fail(self, code: str, message: str) -> None:
        """The process lives and says why; a restart loop would hide it."""
        if self.failure == Failure(code, message):
            return
        self.failure = Failure(code, message)
        logs.error("failed", code=code, cause=message)
        self._enter(FAILED)
        self.notifier.ready(f"failed: {message}")

    async def stop(self) -> None:
        self._enter(STOPPING)
        self.notifier.stopping()
        await self._halt()
        await self.provider.close()

    async def leave(self) -> None:
        """Puts the journal away for another process; this one lives on, and may come back by open() and recover()."""
        self._enter(STOPPING)
        await self._halt()
        if self.journal is not None:
            with contextlib.suppress(sqlite3.Error):
                self.left_books = self.journal.books()
        self.close()
        self.journal = self.engine = self.prober = self.drain = self.refusal = None

    async def _halt(self) -> None:
        if self.engine is not None:
            self.engine.release_waiters()
            await self.engine.stop(self.config.lifecycle.stop_s)
        for task in self._background:
            task.cancel()
        if self.prober is not None:
            await self.prober.stop()

    def close(self) -> None:
        if self.journal is None:
            return
        try:
            self.journal.flush()
            if self.drain is not None:
                self._persist(self.drain)
        except sqlite3.Error as exc:
            logs.error("writing the journal failed", cause=str(exc))
        self.journal.close()

    # -- state

    @property
    def in_service(self) -> bool:
        """As far as state and drain decide it."""
        if self.phase != SERVING:
            return False
        return self.drain is None or self.drain.accepting(self.clock.boot())

    @property
    def accepting(self) -> bool:
        return self.in_service and self.refusal is None

    @property
    def probing(self) -> bool:
        return self.prober is not None and self.prober.running

    @property
    def open_tasks(self) -> int:
        return len(self.engine.tasks) if self.engine else 0

    @property
    def on_the_wire(self) -> int:
        return len(self.engine.wire) if self.engine else 0

    @property
    def safe_to_stop(self) -> bool:
        # A full disk makes no worker safe to stop: it may take tasks again in a second.
        return not self.in_service and self.quiet

    @property
    def quiet(self) -> bool:
        """Nothing is under way that another process could not go on with."""
        if self.on_the_wire or self.probing:
            return False
        complete = self.drain is not None and self.drain.mode == "complete"
        return not (complete and self.open_tasks)

    @property
    def unverified(self) -> bool:
        return self._last_served is not None and self._last_served != self.version and not self._proved

    def may_submit(self) -> bool:
        if self.phase != SERVING or self.handing_over:
            return False
        if self.drain is None:
            return True
        over = not self.drain.accepting(self.clock.boot())
        return not self.drain.held and not (self.drain.mode == "handover" and over)

    def refresh(self, changed: bool = False) -> None:
        """Recomputes the state; a change of it, or of the drain, is a new ``seq``."""
        state = state_of(self.phase, self.drain, self.clock.boot(), self.on_the_wire, self.open_tasks)
        if state == self.state and not changed:
            return
        if state != self.state:
            logs.info("state", state=state, was=self.state)
            self.state, self.since = state, self.clock.now()
            self._tell_service_manager()
        self.seq += 1
        self.changes.fire()

    def _tell_service_manager(self) -> None:
        if self.phase != SERVING:
            return
        text = self.state
        if self.drain is not None:
            text = f"{self.state}: {self.open_tasks} open, owner {self.drain.owner}"
        if self.refusal is not None:
            text = f"{text}; takes no new task: {self.refusal.message}"
        self.notifier.status(text)

    def _enter(self, phase: str) -> None:
        first = phase == SERVING
        self.phase = phase
        self.refresh()
        if first:
            self.notifier.ready(self.state)
        if self.engine is not None:
            self.engine.wake()

    def _moment(self) -> Moment:
        return Moment(self.clock.boot(), self.clock.now())

    def _parts(self) -> tuple[Journal, Engine]:
        assert self.journal is not None
        assert self.engine is not None
        return self.journal, self.engine

    # -- drain

    def put_drain(self, request: Mapping[str, Any]) -> Decision:
        decision = drains.decide(self.drain, request, self._moment(), self.version, self.unverified)
        if decision.status != 409:
            if decision.taken_from is not None:
                logs.warning("drain taken over", owner=decision.drain.owner, was=decision.taken_from)
            drain = decision.drain
            if decision.status == 202:
                drain = replace(drain, open_at_start=self.open_tasks)
                decision = replace(decision, drain=drain)
            self._set_drain(drain)
        return decision

    def delete_drain(self, owner: str, steal: bool) -> Literal["none", "foreign", "resumed"]:
        if self.drain is None:
            return "none"
        if self.drain.owner != owner and not steal:
            return "foreign"
        self._set_drain(None)
        return "resumed"

    def _set_drain(self, drain: Drain | None) -> None:
        """On disk first: what a client has been told must survive us."""
        self._persist(drain)
        self.drain = drain
        self.refresh(changed=True)
        if self.engine is not None:
            self.engine.wake()

    def _persist(self, drain: Drain | None) -> None:
        journal, _unused = self._parts()
        document = None if drain is None else drains.save(drain, self.clock.boot(), kernel_boot_id())
        serving = None
        if drain is None and self._last_served != self.version:
            serving = self.version
        if document is not None or serving is not None or self.drain is not None:
            journal.save_drain(document, serving)
        if serving is not None:
            self._last_served = serving

    # -- time

    async def keep_time(self) -> None:
        while True:
            try:
                self.tick()
            except sqlite3.Error as exc:
                logs.error("writing the journal failed", cause=str(exc))
            except Exception as exc:  # noqa: BLE001 (leases and the watchdog hang on this loop)
                logs.error("keeping time failed", cause=logs.cause_of(exc))
            boot = self.clock.boot()
            ahead = drains.next_instant(self.drain, boot) if self.drain else None
            await self.changes.wait(min(TICK_S, ahead if ahead is not None else TICK_S))

    def tick(self) -> None:
        self._watchdog()
        self._standby_in_time()
        if self.phase != SERVING:
            return
        self.look()
        self._drain_in_time()
        self.refresh()
        self._housekeeping()

    def _standby_in_time(self) -> None:
        if self.phase == STANDBY and self.standby is not None and self.standby.expired(self.clock.boot()):
            logs.warning("lease of the standby ran out", owner=self.standby.owner)
            self.end()

    def look(self) -> None:
        """Whether new tasks can be kept now; also at once when one could not."""
        before = self.refusal
        self._look()
        if self.refusal == before:
            return
        if self.refusal is not None:
            logs.warning("takes no new task", code=self.refusal.code, cause=self.refusal.message)
        else:
            logs.info("takes new tasks again")
        self._tell_service_manager()
        self.refresh(changed=True)

    def _look(self) -> None:
        journal, _unused = self._parts()
        self.refusal = ability.judge(ability.look(journal, self.config.data.max_body_bytes), self.refusal)
        if journal.damage is not None:
            message = f"reading the journal {journal.path}: {journal.damage}; {schema.WAY_BACK}"
            self.fail("journal_damaged", message)

    def _watchdog(self) -> None:
        every, boot = self.notifier.watchdog_s, self.clock.boot()
        if every is not None and boot >= self._watchdog_after:
            self._watchdog_after = boot + min(every, TICK_S)
            self.notifier.watchdog()

    def _drain_in_time(self) -> None:
        drain, boot = self.drain, self.clock.boot()
        if drain is None:
            return
        action = drains.due_action(drain, boot)
        if action == "handover":
            logs.warning("drain passed its deadline", owner=drain.owner, mode="handover")
            self._set_drain(replace(drain, mode="handover"))
        elif action == "expire":
            self._expire(drain)
        elif drain.expired and drain.on_expire == "verify" and boot >= self._verify_after and not self.probing:
            self._verify_after = boot + VERIFY_AGAIN_S
            self._spawn(self._verify())

    def _expire(self, drain: Drain) -> None:
        logs.warning("lease of the drain ran out", owner=drain.owner, on_expire=drain.on_expire)
        if drain.on_expire == "resume":
            self._set_drain(None)
            return
        self._verify_after = 0.0
        self._set_drain(replace(drain, expired=True))

    async def _verify(self) -> None:
        """Nobody came back for us: prove that this version solves, and only then serve."""
        request = probe.Request("self-" + uuid.uuid4().hex, probe.default_task(), probe.IMAGE_TEXT)
        try:
            answer = await self.probe(request)
        except (probe.ProbeRunningError, sqlite3.Error):
            self._verify_after = 0.0
            return
        waiting = self.drain is not None and self.drain.expired and self.drain.on_expire == "verify"
        if answer["outcome"] == "succeeded" and waiting and self.phase == SERVING:
            logs.info("verified itself", version=self.version)
            self._set_drain(None)
        else:
            logs.warning("stays held", error=answer["error"])

    @property
    def identity(self) -> dict[str, str]:
        return {"version": self.version, "boot_id": self.boot_id}

    def _housekeeping(self) -> None:
        journal, engine = self._parts()
        boot, section = self.clock.boot(), self.config.tasks
        engine.sweep()
        journal.flush()
        if boot >= self._tidy_after:
            self._tidy_after = boot + TIDY_EVERY_S
            journal.tidy(self.clock.now(), section.result_ttl_s, section.key_ttl_s)
            journal.scrub()
        if self.drain is not None and boot >= self._save_after:
            self._save_after = boot + SAVE_DRAIN_EVERY_S
            self._persist(self.drain)
        if boot >= self._balance_after and self.provider.balance_is_worth_a_call():
            self._balance_after = boot + self.config.provider.balance_interval_s
            self._spawn(self.provider.refresh_balance())

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
