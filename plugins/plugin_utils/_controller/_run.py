# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""What the actions of one rollout share: the ledger of the run, and calls of modules on all workers at once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from ansible import constants
from ansible.plugins.action import ActionBase

from ansible_collections.solver.fleet.plugins.plugin_utils._controller._action import plain
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._fanout import (
    Calls,
    call_on,
    python_in,
    run_everywhere,
)
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._ledger import Ledger, document_of
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._process import here, provably_dead
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._report_file import write_metrics
from ansible_collections.solver.fleet.plugins.plugin_utils._locks import proven_dead
from ansible_collections.solver.fleet.plugins.plugin_utils._metrics import under_way
from ansible_collections.solver.fleet.plugins.plugin_utils._names import listed
from ansible_collections.solver.fleet.plugins.plugin_utils._plan_locks import holders_of
from ansible_collections.solver.fleet.plugins.plugin_utils._program import CONNECT_S
from ansible_collections.solver.fleet.plugins.plugin_utils._types import HookFailure, Outcome

Json = dict[str, Any]
# Takes a module's result in, and the time of day by which its dates are judged.
Read = Callable[[Any, float], Any]
# The two parts of a rollout, and the document of the ledger that holds each one's plan.
PLAN_OF = {"roll": "plan", "back": "plan-back"}
# Looks at once for people. Most of a look is waiting, so the forks of the operator do not bound it from above.
AT_ONCE = 20
# Silence longer than this looks like a hang.
SAY_EVERY_S = 15.0
PARTS: Json = {"type": "str", "choices": list(PLAN_OF), "default": "roll"}


class FleetAction(ActionBase):  # type: ignore[misc]
    """An action of the controller for a whole fleet, as rollout_settings describes it in O(rollout)."""

    TRANSFERS_FILES = False
    _requires_connection = False
    # Of each worker's past so much is asked where people look at it.
    HISTORY = 20
    # Where a program reads what is shown.
    to_stderr = False

    def begin(self, tmp: str | None, task_vars: Json | None, **options: Json) -> Json:
        """Read the options, the fleet among them; return the result to fill."""
        result = self.options(tmp, task_vars, rollout={"type": "dict", "required": True}, **options)
        self._know(self.args["rollout"], self.args["rollout"]["workers"])
        return result

    def options(self, tmp: str | None, task_vars: Json | None, **options: Json) -> Json:
        """Read the options; return the result to fill."""
        result: Json = super().run(tmp, task_vars)
        self.task_vars = task_vars or {}
        _unused, args = self.validate_argument_spec(options)
        self.args: Json = plain(args)
        self.main = os.getppid()
        return result | {"changed": False}

    def _know(self, rollout: Json, workers: Mapping[str, Json]) -> None:
        self.rollout = rollout
        self.settings: Json = rollout["settings"]
        self.lanes: dict[str, str] = rollout["lanes"]
        self.workers = workers

    @property
    def forks(self) -> int:
        return max(1, int(self.task_vars.get("ansible_forks") or 5))

    @property
    def look_s(self) -> float:
        """When one look at a worker has taken too long: the connection, the module, the worker's own answer."""
        return CONNECT_S + 4 * float(self.settings["solver_control_timeout"])

    def begin_document(self) -> None:
        """From here on a program reads what is shown: nothing of ours may stand beside the document."""
        self.to_stderr = True
        Ledger.under(constants.DEFAULT_LOCAL_TMP).show_document()

    def each(self, module: str, args: Mapping[str, Mapping[str, Any]], read: Read) -> dict[str, Json]:
        """Run a module on many workers at once, each for at most C(look_s), and say how long ago each answered.

        Whoever waits for people asks once: a host that drops off the network must not keep them from the others.
        """
        answers: dict[str, Json] = {}
        at: dict[str, float] = {}
        said_at = time.monotonic()
        with Calls(timeout=self.look_s, parallel=max(self.forks, AT_ONCE), lanes=self.lanes, main=self.main) as looks:
            for name, own in args.items():
                looks.add(name, call_on(self, self.task_vars, name, f"solver.fleet.{module}", own))
            while looks.busy:
                for name, said in looks.collect(SAY_EVERY_S).items():
                    answers[name] = self._addressed(name, dict(read(said, time.time())))
                    at[name] = time.monotonic()
                if time.monotonic() - said_at >= SAY_EVERY_S and looks.busy:
                    said_at = time.monotonic()
                    self._display.display(waiting_line(looks.asked(), len(args), self.look_s), stderr=self.to_stderr)
        now = time.monotonic()
        return {name: {**answers[name], "age_s": round(now - at[name], 1)} for name in args}

    def _addressed(self, name: str, said: Json) -> Json:
        """Say of a host that cannot be asked where it was looked for."""
        if said and not said.get("unreachable"):
            return said
        machine, why = self.workers[name]["machine"], said.get("msg") or "it said nothing"
        return {**said, "unreachable": True, "msg": why if machine == "local" else f"{machine}: {why}"}

    def alive(self) -> bool:
        """Whether the controller's process is there: nobody else takes a result."""
        return os.getppid() == self.main

    def dead_runs(self, census: Mapping[str, Any]) -> list[str]:
        """Return the runs that hold workers of the fleet and are proven dead, by all that this machine can know."""
        holders = holders_of({name: {"census": own} for name, own in census.items()})
        return proven_dead(holders, here(self.main), provably_dead)

    def info_args(self, **more: Any) -> dict[str, Json]:
        """Return the options of worker_info for each worker."""
        return {name: {"control_socket": own["control_socket"], "worker_dir": own["worker_dir"],
                       "control_timeout": self.settings["solver_control_timeout"], "service": own["service"],
                       "standby_socket": (own["service"].get("standby") or {}).get("socket"), **more}
                for name, own in self.workers.items() if name in self.rollout["hosts"]}


class Workers(Mapping[str, Json]):
    """The settings of each worker, read when somebody asks: in a fleet of hundreds most turns need those of one."""

    def __init__(self, ledger: Ledger, names: Collection[str]) -> None:
        self._ledger, self._names, self._known = ledger, dict.fromkeys(names), dict[str, Json]()

    def __getitem__(self, name: str) -> Json:
        if name not in self._known:
            found = self._ledger.read(document_of("worker", name)) if name in self._names else {}
            if not found:
                raise KeyError(name)
            self._known[name] = found
        return self._known[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class RunAction(FleetAction):
    """An action that works on the ledger which O(ledger) names."""

    def begin(self, tmp: str | None, task_vars: Json | None, **options: Json) -> Json:
        """Read the options and the ledger; return the result to fill."""
        result = self.options(tmp, task_vars, ledger={"type": "path", "required": True}, **options)
        self.ledger = Ledger(self.args["ledger"])
        rollout = self.ledger.read("rollout")
        self._know(rollout, Workers(self.ledger, rollout["hosts"]))
        self.pythons: dict[str, str] = self.ledger.read("pythons")
        return result

    def everywhere(self, module: str, args: Mapping[str, Mapping[str, Any]], read: Read, done: str = "asked",
                   to_the_end: bool = False) -> dict[str, Json]:
        """Run a module on many workers at once. One that is silent is asked once more before it is called lost.

        DONE says what they are then. TO_THE_END is for what is better done, also when the controller is gone.
        """
        def ask(some: Mapping[str, Mapping[str, Any]]) -> dict[str, Json]:
            return run_everywhere(self, self.task_vars, f"solver.fleet.{module}", some, timeout=self.look_s,
                                  parallel=self.forks, lanes=self.lanes, main=0 if to_the_end else self.main,
                                  told=self.progress(done, len(some)))

        found = ask(args)
        silent = {name: args[name] for name, own in found.items() if own.get("unreachable")}
        known = dict(self.pythons)
        for name in silent:
            self.pythons.pop(name, None)  # perhaps it is there no more
        found |= ask(silent) if silent else {}
        self.pythons |= {name: python for name, own in found.items() if (python := python_in(own))}
        if self.pythons != known:
            self.ledger.keep("pythons", self.pythons)
        now = time.time()
        return {name: dict(read(own, now)) for name, own in found.items()}

    @property
    def wait_s(self) -> float:
        """Seconds for which the operator still wants to wait for another rollout."""
        return max(0.0, float(self.rollout["wait_until"]) - time.monotonic())

    def progress(self, done: str, of: int) -> Callable[[int], None]:
        """Return whom to tell how many of OF workers are DONE; what is over in a second is not worth a word."""
        emitted = told = began = time.monotonic()

        def say(number: int) -> None:
            nonlocal emitted, told
            now = time.monotonic()
            if now - emitted >= 1 or (number == of and emitted > began):
                emitted = now
                self.ledger.emit("asking", done=done, number=number, of=of)
            if now - told >= SAY_EVERY_S and number < of:
                told = now
                self.tell(f"{number} of {of} workers {done}")

        return say

    def tell(self, line: str) -> None:
        """Tell people, where no callback of ours does it from the events."""
        if not self.ledger.has_screen():
            self._display.display(line)

    def measure(self) -> None:
        """Write the metrics of the run as it is now, but not again after that failed: the verdict says so once."""
        path, plan = self.settings["solver_metrics_file"], self.ledger.read("plan")
        if not path or not plan:
            return
        with self.ledger.edit("metrics") as kept:
            if not kept.get("failed"):
                briefs = [self.ledger.read(part).get("brief", {}) for part in PLAN_OF]
                kept["failed"] = write_metrics(path, lambda: under_way(plan, *briefs), running=True)

    def hook_failures(self) -> list[HookFailure]:
        return [failure for part in PLAN_OF for failure in self.ledger.read(part).get("hooks", [])]

    def outcomes(self, part: str) -> dict[str, Outcome]:
        """Return what became of each worker so far, in full; one that is still at it was interrupted."""
        state = self.ledger.read(part)
        began: dict[str, Outcome] = {
            name: {"outcome": "unknown", "cause": "unknown", "reason": "the update was interrupted"}
            for name, phase in state.get("phase", {}).items() if phase != "left"}
        # What could not be written down in full is known in brief.
        briefs: dict[str, Outcome] = state.get("brief", {})
        return began | {name: self.ledger.read(document_of(part, name)) or brief for name, brief in briefs.items()}


def waiting_line(silent: Collection[str], fleet: int, bound_s: float) -> str:
    """Say who keeps everybody waiting."""
    return f"waiting for {len(silent)} of {fleet} workers, each for at most {bound_s:.0f} s: {listed(silent)}"
