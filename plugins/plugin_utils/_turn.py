# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""One worker's turn: run its program, find out whose fault a failure is, and bring it to an end.

The gate (action rollout_gate) has let it in. The program's steps go to the worker's host in one call of worker_steps:
drain, switch, verify, resume. Then the worker serves, leaves the window, and a second call soaks it and writes its
outcome into its record. A call comes back after 10 s of waiting or when a step has failed; what is left is sent again.
A failed step leads to one of four: nothing (lost, fenced, another's, given back by the drain itself, or to stay
held), resume (it is drained, and nothing was switched), drop (its standby goes, the worker was never touched), or
revert, which is a program of its own. A failed probe has a reference solve first, which says whose fault it is.

With a standby the worker is let in twice: to raise and verify the standby while it serves, and to have it take over.
Where all go together (C(recreate)), _turn_together adds the places at which turns wait for each other.

It runs on the controller and reaches the worker through C(World), so that its tests need neither. It never raises for
what happens on a worker: what became of it is what it returns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ansible_collections.solver.fleet.plugins.module_utils._errors import one_line
from ansible_collections.solver.fleet.plugins.module_utils._carried import trimmed
from ansible_collections.solver.fleet.plugins.plugin_utils import _fault, _program, _step
from ansible_collections.solver.fleet.plugins.plugin_utils._program import Step, Worker
from ansible_collections.solver.fleet.plugins.plugin_utils._types import Outcome

Result = dict[str, Any]
# Before a step that failed is tried again.
PAUSE_S = 2.0


class GoneError(Exception):
    """The controller's process is gone: nobody takes a result, and the lease brings the worker back."""


class World(Protocol):
    """What a turn needs of the controller."""

    def call(self, module: str, args: Mapping[str, Any], limit: float, host: str = "") -> Result:
        """Run a module on the worker's host, or on HOST; a host that does not answer by LIMIT is unreachable."""

    def alive(self) -> bool:
        """Whether the run still goes on; nobody takes the result of one whose controller is gone."""

    def sleep(self, seconds: float) -> None:
        """Wait."""

    def emit(self, event: str, **facts: Any) -> None:
        """Tell people."""

    def verify_ended(self, result: Result) -> None:
        """Remember how the worker's verification went, well or not, for those in flight beside it."""

    def verifications(self) -> list[Result]:
        """Return those of all workers that ended since this turn began, its own among them, in the order of time."""

    def reference_workers(self) -> list[dict[str, str]]:
        """Return which workers can be asked for a reference solve."""

    def serves_again(self, answer: Mapping[str, Any]) -> None:
        """Leave the window: the worker serves, and is watched."""

    def await_place_to_leave(self, answer: Mapping[str, Any]) -> None:
        """Wait until the worker may leave service once more: its soak failed. This may take as long as a turn."""


class Turn:
    """The turn of one worker; C(steps) holds the results by name, as the deciding functions read them."""

    def __init__(self, worker: Worker, world: World) -> None:
        self.worker, self.world = worker, world
        self.planned = worker.planned
        self.revertible = self.planned["back_to"] is not None
        self.steps: dict[str, Any] = {name: {} for name in (
            *_step.STEPS, *_step.REVERT_STEPS, "raise", "serve", "settle", "drop", "give_back", "revert_drain",
            "reference_worker", "reference_provider")}

    def stand_by(self) -> Outcome | None:
        """Raise and verify the standby; return what became of the worker, or nothing if all is well so far."""
        self._take(_program.raised(self.worker))
        well = _step.step_ok(self.steps["raise"]) and _step.step_ok(self.steps["verify"])
        return None if well else self._end(False)

    def drop(self) -> None:
        """End the standby: it shall not take over."""
        self._take(_program.dropped(self.worker))

    def run(self) -> Outcome:
        """Take the worker through its turn and return what became of it."""
        if self.planned["switch"] == "tidy":
            return self._tidy()
        return self._end(self._forward())

    def _tidy(self) -> Outcome:
        """It serves, whatever becomes of what was left beside it."""
        self._take(_program.tidied(self.worker))
        step = next((name for name in ("drop", "settle") if _went_wrong(self.steps[name])), None)
        ends: Outcome = {"from": self.planned["from"], "to": self.planned["to"]}
        if step is None:
            self._take([_program.record_outcome(self.worker, {"outcome": "updated", "cause": None, "reason": ""})])
            return {**ends, "outcome": "updated", "cause": None, "reason": "", "step": None}
        said = self.steps[step]
        return {**ends, "outcome": "unreachable" if said.get("unreachable") else "failed", "cause": "host",
                "step": step, "reason": f"{step}: {one_line(said.get('msg'))}"}

    def _end(self, gave_up_place: bool) -> Outcome:
        if _step.failed_step(self.steps) is not None:
            if _fault.needs_reference(self._known()):
                self._ask_elsewhere()
            self._follow_up(gave_up_place)
        outcome = _step.outcome(self.planned, self._known(), self.revertible)
        if outcome["outcome"] != "updated" and not self.worker.plan["way_back"]:
            self._record(outcome)
        return outcome

    def last_answer(self) -> dict[str, Any]:
        """Return, in the shape of a look, the last that the worker said of itself or that it could not be reached."""
        own = ("soak", "serve") if self.steps["raise"] else tuple(reversed(_step.STEPS))
        for name in (*reversed(_step.REVERT_STEPS), "give_back", "revert_drain", *own):
            result = self.steps[name]
            if result:
                said = {"census": {"worker": result["worker"]}} if result.get("worker") else {}
                return {"unreachable": True} if result.get("unreachable") else said
        return {}

    def _known(self) -> dict[str, Any]:
        return {**self.steps, "in_flight": self.world.verifications()}

    # -- forward -----------------------------------------------------------------------------------

    def _forward(self) -> bool:
        """Return whether the place in the window was given up: then a revert waits for one."""
        forward, rest = _program.forward(self.worker), _program.soak_and_record(self.worker)
        if self.worker.soak_s <= 0 and not self.worker.by_standby:
            # Nothing to wait for in between, so all of it can be one call.
            self._take(forward + rest)
            return False
        self._take(forward)
        if not _step.step_ok(self.steps["serve" if self.worker.by_standby else "resume"]):
            return False
        self.world.serves_again(self.last_answer())
        self._take(rest)
        return True

    def _take(self, program: Sequence[Step]) -> None:
        """Run a program as far as it goes; each call takes the rest of it to the worker's host."""
        rest, tried = list(program), 0
        self.world.emit("program_begun", steps=[step.name for step in rest if not step.quiet])
        while rest and not self._broken_off():
            said = self._call(rest)
            behind = self._keep(rest, said)
            if behind:
                rest, tried = rest[behind:], 0
            if rest and rest[0].name in said:
                tried += 1
                if self._is_over(rest[0], tried):
                    return

    def _broken_off(self) -> bool:
        """Whether something else than the worker ends the program."""
        return False

    def _call(self, rest: Sequence[Step]) -> dict[str, Result]:
        self._go_on()
        control_timeout = float(self.worker.settings["solver_control_timeout"])
        said = self.world.call("worker_steps", {
            "steps": [{"name": step.name, "module": step.module, "args": step.args, "goes_on": step.goes_on}
                      for step in rest],
            "before": trimmed(self.steps), "slice": _program.CALL_SLICE_S}, _program.limit_of(rest, control_timeout))
        results: dict[str, Result] = said.get("done_steps") or {}
        # An answer that says nothing of the step it was asked for would be asked for again for ever.
        silent = not results.get(rest[0].name)
        return {rest[0].name: said if said.get("unreachable") else {**said, "failed": True}} if silent else results

    def _go_on(self) -> None:
        if not self.world.alive():
            raise GoneError

    def _keep(self, rest: Sequence[Step], said: Mapping[str, Result]) -> int:
        """Keep the results; return how many steps of the program are behind us."""
        behind = 0
        # One after the other on the host, and told together: each ended before those behind it began.
        ago = sum(_took(said[step.name]) for step in rest if step.name in said)
        for step in rest:
            if step.name not in said:
                break
            result = self.steps[step.name] = dict(said[step.name])
            ago -= _took(result)
            if not step.quiet:
                self._tell(step, result, ago)
            done = _step.step_ok(result) or (step.goes_on and not result.get("unreachable"))
            if not done:
                break
            behind += 1
        return behind

    def _tell(self, step: Step, result: Result, ago: float) -> None:
        over = _over(result)
        self.world.emit("step_ended" if over else "progress", step=step.name, ok=_step.step_ok(result), **{
            name: result[name] for name in ("elapsed_s", "took_s", "remaining", "open_at_drain")
            if result.get(name) is not None}, **({"ago_s": round(ago, 3)} if ago > 0 else {}),
            **({"reason": one_line(result.get("msg"))} if not _step.step_ok(result) else {}))
        if step.name == "verify" and over:
            self.world.verify_ended(result)

    def _is_over(self, step: Step, tried: int) -> bool:
        """Whether a step that is not done will not be: it failed, its host is lost, or it has had its time."""
        result = self.steps[step.name]
        if result.get("unreachable") or tried >= step.tries:
            return True
        if not result.get("failed"):
            return False
        if step.patient:
            self.world.sleep(PAUSE_S)
        return not step.patient

    # -- after a failure ---------------------------------------------------------------------------

    def _ask_elsewhere(self) -> None:
        """Before a release is blamed for a failed probe: does the same solve pass where nothing has changed?

        The worker waits meanwhile, held, under the lease that its switch renewed.
        """
        settings = self.worker.settings
        limit = (_program.CONNECT_S + 2 * float(settings["solver_probe_timeout"])
                 + 4 * float(settings["solver_control_timeout"]))
        others = self.world.reference_workers()[:2]
        if self.worker.by_standby and len(others) < 2 and not self.steps["switch"]:
            # What serves beside the standby is the old release, on the same host.
            others.append({"host": "", "control_socket": self.worker.own["control_socket"]})
        for other in others:
            self._go_on()
            said = self.world.call("solve_check", _program.reference(self.worker, other["control_socket"]), limit,
                                   other["host"])
            self.steps["reference_worker"] = said
            self.world.emit("reference_solve", at=other["host"], ok=_fault.passed(said))
            if _fault.tried(said):
                break
        solve = self.steps["reference_worker"]
        version = ((solve.get("worker") or {}).get("instance") or {}).get("version")
        in_doubt = not _fault.tried(solve) or version == self.planned["to"]
        self._go_on()
        if self.worker.own["provider"].get("api_key_file") and not solve.get("done") and in_doubt:
            self.steps["reference_provider"] = self.world.call(
                "solve_check", _program.without_worker(self.worker), limit)
            self.world.emit("reference_solve", at="provider", ok=_fault.passed(self.steps["reference_provider"]))

    def _follow_up(self, gave_up_place: bool) -> None:
        action = _step.next_action(self.steps, self.revertible, self.planned)
        self.world.emit("follow_up", action=action)
        if action == "nothing":
            return
        if gave_up_place:
            self.world.await_place_to_leave(self.last_answer())
        if action == "drop":
            self.drop()
            return
        if action == "resume":
            self._take(_program.resume_again(self.worker))
            return
        self._take(_program.revert(self.worker))
        if _step.code_of(self.steps["revert"]) == "lease_lost":
            # A process that keeps dying may be gone when it is drained, and be back, without a drain, when it is
            # switched.
            self.steps.update({name: {} for name in ("revert_drain", *_step.REVERT_STEPS)})
            self._take(_program.revert(self.worker))

    def _record(self, outcome: Outcome) -> None:
        """Write down what became of the worker, where its host can be reached and this run has any business there."""
        failed = self.steps.get(str(outcome.get("step"))) or {}
        lost = failed.get("unreachable") or _step.lost_in_follow_up(self.steps)
        if not lost and _step.code_of(failed) != _step.FENCED:
            self._take([_program.record_outcome(self.worker, outcome)])


def _over(result: Mapping[str, Any]) -> bool:
    """Whether a call said how its step ended, and not only how far it is."""
    return bool(result.get("failed") or result.get("unreachable") or result.get("done", True))


def _went_wrong(result: Mapping[str, Any]) -> bool:
    return bool(result.get("failed") or result.get("unreachable"))


def _took(result: Mapping[str, Any]) -> float:
    """Return how long a step took in its last call; 0 where it does not say."""
    return float(result.get("took_s") or 0.0)
