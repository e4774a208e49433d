# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""What worker_steps does behind its options: the steps of a worker's turn, in one process, as far as it gets."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, NamedTuple

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.solver.fleet.plugins.module_utils import (
    _job_check,
    _job_drain,
    _job_lock,
    _job_release,
)
from ansible_collections.solver.fleet.plugins.module_utils._errors import Json, WorkerError
from ansible_collections.solver.fleet.plugins.module_utils._job import Job, attempt
from ansible_collections.solver.fleet.plugins.module_utils._carried import carried
from ansible_collections.solver.fleet.plugins.module_utils._wait import SLICE_S, Clock, Span

# What of worker_release a turn needs.
STATES = ("active", "standby", "settled", "dropped")
# However little is left of a call, a step must be able to see that it is done.
SHORTEST_SLICE_S = 1.0


class Kind(NamedTuple):
    """A module that can be a step. C(waits): it says that it is not done when its wait_slice ends."""

    argument_spec: Callable[[], Json]
    rules: Json
    job: Callable[[Json, bool, Callable[[str], Any]], Job]
    waits: Callable[[Json], bool] = lambda _given: False


KINDS = {
    # To put a worker back into service fails where it takes too long: a slice that is used up must not make it so.
    "worker_drain": Kind(_job_drain.argument_spec, _job_drain.RULES, _job_drain.DrainJob,
                         lambda given: bool(given["state"] == "drained")),
    "worker_release": Kind(_job_release.argument_spec, _job_release.RULES, _job_release.ReleaseJob),
    "solve_check": Kind(_job_check.argument_spec, _job_check.RULES, _job_check.CheckJob, lambda _given: True),
    "rollout_lock": Kind(_job_lock.argument_spec, _job_lock.RULES, _job_lock.LockJob),
}


def argument_spec() -> dict[str, Any]:
    return {
        "steps": {
            "type": "list",
            "elements": "dict",
            "required": True,
            "options": {
                "name": {"type": "str", "required": True},
                "module": {"type": "str", "required": True, "choices": sorted(KINDS)},
                "args": {"type": "dict", "default": {}},
                "goes_on": {"type": "bool", "default": False},
            },
        },
        "before": {"type": "dict", "default": {}},
        "slice": {"type": "float", "default": SLICE_S},
    }


class Step(NamedTuple):
    name: str
    kind: Kind
    given: Json
    goes_on: bool


def validated(step: Json, more: Json) -> tuple[Step, set[str]]:
    """A step with its options as its module would have them, and the secrets in them; what is wrong is raised."""
    kind = KINDS[step["module"]]
    found = ArgumentSpecValidator(kind.argument_spec(), **kind.rules).validate({**step["args"], **more})
    problem = "; ".join(found.error_messages)
    if not problem and step["module"] == "worker_release" and found.validated_parameters["state"] not in STATES:
        problem = f"its state must be one of {', '.join(STATES)}"
    if problem:
        raise WorkerError("bad_option", f"reading the step {step['name']}: {problem}; correct its args")
    return Step(step["name"], kind, found.validated_parameters, step["goes_on"]), found._no_log_values


class StepsJob(Job):
    """One call of worker_steps. C(results) holds what each step would have said as a module of its own."""

    def __init__(
        self, params: Json, check_mode: bool, hide: Callable[[str], Any], clock: Clock | None = None
    ) -> None:
        super().__init__(params, check_mode, hide)
        self.clock = clock or Clock()
        self.results: Json = {}

    def work(self) -> None:
        span = Span(self.clock, self._slice())
        for step in self.params["steps"]:
            self._read(step, {})
        for step in self.params["steps"]:
            began = self.clock.now()
            result = self.results[step["name"]] = attempt(partial(self._step, step, span))
            # In this call alone; elapsed_s may go on from the call before.
            result["took_s"] = round(max(0.0, self.clock.now() - began), 3)
            if not step["goes_on"] and (result.get("failed") or result.get("done", True) is not True):
                return

    def _slice(self) -> float:
        if not 0 <= self.params["slice"] <= SLICE_S:
            raise WorkerError("bad_option", f"slice must be from 0 to {SLICE_S:g} seconds")
        names = [step["name"] for step in self.params["steps"]]
        if len(set(names)) < len(names):
            raise WorkerError("bad_option", "steps: two of them have the same name")
        return float(self.params["slice"])

    def _read(self, step: Json, more: Json) -> Step:
        read, secrets = validated(step, more)
        for secret in secrets:
            self.hide(secret)
        return read

    def _step(self, step: Json, span: Span) -> Json:
        read = self._read(step, carried(step["name"], {**self.params["before"], **self.results}))
        # What goes on is not asked again, so it gets the time that it would have by itself.
        if read.kind.waits(read.given) and not read.goes_on:
            left = max(SHORTEST_SLICE_S, span.slice_left())
            read.given["wait_slice"] = min(read.given["wait_slice"], left)
        return read.kind.job(read.given, self.check_mode, self.hide).run()

    def finish(self) -> Json:
        changed = any(result.get("changed") for result in self.results.values())
        # Not results: that name is for loops.
        return {"changed": changed, "done_steps": self.results}
