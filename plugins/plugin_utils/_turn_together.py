# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""One worker's turn where all go together: it waits for the others, and goes back with them.

All are drained before anybody switches; the pilot is verified before the others switch; all are verified before anybody
serves. From its switch on a worker is held: a lease that ends lets nobody serve the new release. One that fails turns
everybody back: nobody serves the old release again before nobody serves the new one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ansible_collections.solver.fleet.plugins.module_utils._errors import one_line
from ansible_collections.solver.fleet.plugins.plugin_utils import _fault, _program, _step, _together
from ansible_collections.solver.fleet.plugins.plugin_utils._names import in_order
from ansible_collections.solver.fleet.plugins.plugin_utils._program import Step, Worker
from ansible_collections.solver.fleet.plugins.plugin_utils._together import (
    DRAINED,
    GATHERED,
    OUT,
    PILOT,
    SOAKED,
    VERIFIED,
)
from ansible_collections.solver.fleet.plugins.plugin_utils._turn import Turn, World
from ansible_collections.solver.fleet.plugins.plugin_utils._types import Fell, Outcome

LOOK_S = 0.1


class Others(Protocol):
    """The turns beside this one, and what they have come to."""

    @property
    def is_pilot(self) -> bool:
        """Whether this turn is the one that is tried first."""

    def hear(self, record: Mapping[str, Any]) -> None:
        """Take in what the worker's record says."""

    def arrive(self, place: str) -> None:
        """Say that this turn has come to a place."""

    def way(self, place: str) -> str:
        """Say whether it goes on from there, goes back, or waits."""

    def waited_for(self, place: str) -> Sequence[str]:
        """Return who is not there yet."""

    def all_verified(self) -> bool:
        """Whether somebody has gone on from there, and may serve the new release."""

    def fall(self, reason: str) -> None:
        """Turn everybody back, and tell people, unless all go back already."""

    def fell(self) -> Fell | None:
        """Return because of whom everybody goes back."""

    def serve_new(self) -> Sequence[str]:
        """Return who may serve the new release yet, while everybody goes back."""


class TogetherTurn(Turn):
    """The turn of one worker among all."""

    def __init__(self, worker: Worker, world: World, others: Others, clock: Callable[[], float]) -> None:
        super().__init__(worker, world)
        self.others, self.clock = others, clock
        forward = (*_program.forward(worker), *_program.soak_and_record(worker))
        self.forward = {step.name: step for step in forward}
        # Whether it is this worker that has failed, and whether it goes back by now.
        self.failed = self.returns = False
        settings = worker.settings
        self.patience_s = float(settings["solver_progress_deadline"])
        self.renew_s = min(float(settings["solver_drain_lease"]), float(settings["solver_lock_ttl"])) / 3

    def run(self) -> Outcome:
        """Take the worker through its turn with the others; an empty outcome says that nothing was touched."""
        self._look()
        if not self._wait(GATHERED):
            return {}
        if self._all_the_way():
            outcome = _step.outcome(self.planned, self._known(), self.revertible)
            self._take([self.forward["record"]])
            return outcome
        outcome = self._back()
        self._record(outcome)
        return outcome

    def _look(self) -> None:
        """Its hook may have taken long: is it still there, and has nobody asked for a pause meanwhile?"""
        self._take([_program.renew(self.worker)])
        said = self.steps.get("renew") or {}
        if _step.step_ok(said):
            self.others.hear(said.get("record") or {})
        elif said:
            self.others.fall(one_line(said.get("msg")))

    # -- forward -----------------------------------------------------------------------------------

    def _all_the_way(self) -> bool:
        if not (self._goes("drain") and self._wait(DRAINED)):
            return False
        if not (self.others.is_pilot or self._wait(PILOT)):
            return False
        if not (self._switches() and self._wait(VERIFIED)):
            return False
        return self._goes("resume") and self._watched() and self._wait(SOAKED)

    def _switches(self) -> bool:
        """The wait may have been long: that it is still held is asked once more, and its time begins here."""
        self._take([*self._held(False), self.forward["switch"], self.forward["verify"]])
        return self._is_held("drain") and self._went("switch", "verify")

    def _goes(self, name: str) -> bool:
        self._take([self.forward[name]])
        return self._went(name)

    def _went(self, *names: str) -> bool:
        results = [self.steps[name] for name in names]
        if all(map(_step.step_ok, results)):
            return True
        # What was broken off, because another one fell, has not failed.
        said = any(result.get("failed") or result.get("unreachable") for result in results)
        self.failed = said or self.others.fell() is None
        return False

    def _watched(self) -> bool:
        self.world.serves_again(self.last_answer())
        return "soak" not in self.forward or self._goes("soak")

    def _broken_off(self) -> bool:
        return not self.returns and self.others.fell() is not None

    # -- waiting for the others --------------------------------------------------------------------

    def _wait(self, place: str) -> bool:
        """Return whether all have come to PLACE; meanwhile what holds the worker is renewed."""
        if place != PILOT:
            self.others.arrive(place)
        self.world.emit("program_begun", steps=["hold"])
        began = renewed = self.clock()
        while (way := self.others.way(place)) == _together.WAIT:
            self._go_on()
            now = self.clock()
            if now - began > self.patience_s:
                self._impatient(place, now - began)
            if now - renewed >= self.renew_s:
                renewed = now
                if not self._renewed(place):
                    return False
            self.world.sleep(LOOK_S)
        return way == _together.ON

    def _impatient(self, place: str, seconds: float) -> None:
        names = in_order(self.others.waited_for(place))
        self.others.fall(f"nothing came of {', '.join(names)} for {seconds:.0f} s, longer than "
                         "solver_progress_deadline")

    def _renewed(self, place: str) -> bool:
        """Renew the lock, and where it is drained, the drain; where that fails, what was waited for has failed."""
        if place not in (DRAINED, PILOT, VERIFIED):
            self._take([_program.renew(self.worker)])
            return True
        switched = place == VERIFIED
        self._take(self._held(switched))
        return self._is_held("resume" if switched else "drain")

    def _held(self, switched: bool) -> list[Step]:
        return [_program.renew(self.worker), _program.hold(self.worker, switched)]

    def _is_held(self, step: str) -> bool:
        for name in ("renew", "hold"):
            result = self.steps.get(name) or {}
            result.pop("elapsed_s", None)  # it is a part of the drain's
            if result and not _step.step_ok(result):
                self.failed, self.steps[step] = True, result
                return False
        return True

    # -- back --------------------------------------------------------------------------------------

    def _back(self) -> Outcome:
        """Go back with the others, and say what became of it; who failed has an outcome of its own."""
        action = self._fall() if self.failed else self._own_way()
        self.returns = True
        self.world.emit("follow_up", action=action)
        if action != "nothing":
            if self.steps["resume"]:
                self._take(_program.revert(self.worker)[:1])
            self.others.arrive(OUT)
            self._wait_until_nobody_serves_new()
            self._take(_program.revert(self.worker) if action == "revert" else _program.resume_again(self.worker))
        self.others.arrive(OUT)
        if self.failed:
            return _step.outcome(self.planned, self._known(), self.revertible)
        why = self.others.fell()
        return _step.went_back(self.planned, self._known(), why["reason"] if why else "")

    def _fall(self) -> str:
        """Turn everybody back, unless this worker is only lost, and the others may serve the new release."""
        action = _step.next_action(self.steps, self.revertible, self.planned)
        if action == "nothing" and self.others.all_verified():
            return action
        step = str(_step.failed_step(self.steps))
        said = one_line((self.steps.get(step) or {}).get("msg")) or "not finished in time"
        self.others.fall(f"{step}: {said}")
        if _fault.needs_reference(self._known()):
            self._ask_elsewhere()
        return action

    def _own_way(self) -> str:
        """What is to be undone of a worker that did not fail."""
        switch, came_from = self.steps["switch"], self.planned["back_to"]
        changed = bool(switch) and not _step.untouched(switch)
        # What a run before this one left has another release than the one that it came from.
        return "revert" if changed or came_from not in (None, self.planned["from_release"]) else "resume"

    def _wait_until_nobody_serves_new(self) -> None:
        """Whoever never comes out cannot keep all others from serving for ever."""
        began = renewed = self.clock()
        while self.others.serve_new() and self.clock() - began <= self.patience_s:
            self._go_on()
            if self.clock() - renewed >= self.renew_s:
                renewed = self.clock()
                self._take(self._held(bool(self.steps["switch"])))
            self.world.sleep(LOOK_S)
