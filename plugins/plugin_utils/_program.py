# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""Programs: what a worker is taken through, as lists of steps. Pure functions of plain data.

A step names a module and its options. What it takes from the steps before it (whether the drain was forced, which
process the switch started) is added where it runs, by module_utils/_carried.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.solver.fleet.plugins.module_utils._drain import HANDOVER_EXTRA_S
from ansible_collections.solver.fleet.plugins.module_utils._service import slot_settings
from ansible_collections.solver.fleet.plugins.module_utils._service_base import STOP_TIMEOUT_S
from ansible_collections.solver.fleet.plugins.plugin_utils._types import Outcome, Plan, PlannedWorker

Json = Mapping[str, Any]

# So long one call may wait at most before it tells how far it is.
CALL_SLICE_S = 10.0
# A line that dies in the middle of a call holds ssh for many minutes, so each call has an end: its own waiting, and
# this for the connection and the module's start.
CONNECT_S = 60.0
# So many of a drain's calls may come back early.
EARLY_CALLS = 3
# A switch also waits for another module to let go of the worker and for the service to start. How long the service
# may take to stop, its own timeout says.
SWITCH_S = 120.0


@dataclass(frozen=True)
class Step:
    """One step: what to call, how often while it is not done, and whether the program goes on without it."""

    name: str
    module: str
    args: dict[str, Any]
    tries: int = 1
    goes_on: bool = False
    extra_s: float = 0.0
    patient: bool = False  # a failure is no end while tries are left
    quiet: bool = False  # nobody is told of it


@dataclass(frozen=True)
class Worker:
    """What the programs are made of: the plan's entry of a worker, its own settings, and those of the rollout."""

    planned: PlannedWorker
    own: Json
    settings: Json
    plan: Plan
    common: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "common", {
            "control_socket": self.own["control_socket"], "control_timeout": self.settings["solver_control_timeout"]})

    @property
    def held(self) -> dict[str, Any]:
        """Options of a module that works only while this run holds the worker's lock."""
        return {**self.common, "worker_dir": self.own["worker_dir"], "run_id": self.plan["run_id"],
                "owner": self.planned["owner"]}

    @property
    def by_standby(self) -> bool:
        return self.planned["switch"] == "standby"

    @property
    def soak_s(self) -> float:
        """A worker that goes back has served with that release before."""
        soaks = self.plan["kind"] == "update" and not self.plan["way_back"]
        return float(self.settings["solver_min_healthy_time"]) if soaks else 0.0


def given(**options: Any) -> dict[str, Any]:
    """Return the options that are set; what is not is the module's default."""
    return {name: value for name, value in options.items() if value is not None}


def tries_for(seconds: float) -> int:
    """Return how many calls a wait of so long may take."""
    return math.ceil(seconds / CALL_SLICE_S) + 1


def limit_of(steps: Sequence[Step], control_timeout: float) -> float:
    """Return when one call that may go through all these steps has taken too long."""
    return CONNECT_S + 4 * control_timeout + CALL_SLICE_S + sum(step.extra_s for step in steps)


def forward(worker: Worker) -> list[Step]:
    """Return the program of an update, and of any other turn that leads to a release: up to serving again."""
    if worker.by_standby:
        return taken_over(worker)
    return [_drain(worker), _switch(worker), _verify(worker), _resume(worker, "resume")]


def raised(worker: Worker) -> list[Step]:
    """Return the program that raises the new release beside the worker, and has it solve a probe there.

    Both may be repeated: what stands is renewed, and an answer that was given is read again.
    """
    verify, service = _verify(worker), worker.own["service"]
    own = {**verify.args, "control_socket": service["standby"]["socket"], "expect_state": ["standby"],
           "service": slot_settings(service)}
    up = {"release": worker.planned["release"], "reason": reason_of(worker)}
    return [_beside("raise", worker, "standby", **up), replace(verify, args=own)]


def taken_over(worker: Worker) -> list[Step]:
    """Return the program of a switch by standby: the worker serves before it, and after it."""
    serve = {**worker.common, **given(
        checks=["worker"], expect_version=worker.planned["to"], expect_release=worker.planned["release"],
        expect_state=["running"], deadline=worker.settings["solver_healthy_deadline"], service=worker.own["service"])}
    switch = _switch(worker)
    return [*raised(worker), replace(switch, args={**switch.args, "switch": "standby"}),
            Step("serve", "solve_check", serve, tries=tries_for(worker.settings["solver_healthy_deadline"]))]


def dropped(worker: Worker) -> list[Step]:
    """Return the program that ends a standby which shall not take over."""
    return [Step("drop", "worker_release", {**_release(worker), "state": "dropped"}, goes_on=True,
                 extra_s=_stop_s(worker))]


def tidied(worker: Worker) -> list[Step]:
    """Return the program for a worker that serves, and beside which a dead run left something."""
    return [*dropped(worker), _beside("settle", worker, "settled")]


def _beside(name: str, worker: Worker, state: str, **options: Any) -> Step:
    """A step that starts a second process and waits until that answers, which may take as long as any start."""
    within = worker.settings["solver_healthy_deadline"]
    args = {**_release(worker), "state": state, "restart_timeout": within, **options}
    return Step(name, "worker_release", args, extra_s=SWITCH_S + _stop_s(worker) + within)


def _stop_s(worker: Worker) -> float:
    service: Json = worker.own["service"] or {}  # none where nothing of it is managed
    return float(service.get("timeout") or STOP_TIMEOUT_S)


def soak_and_record(worker: Worker) -> list[Step]:
    """Return what follows while the worker serves: its soak, and the record of how it went."""
    record = record_outcome(worker, {"outcome": "updated", "cause": None, "reason": ""})
    soak = [_soak(worker)] if worker.soak_s > 0 else []
    if worker.by_standby:
        # Whatever becomes of it, the worker serves, and is found in either place.
        soak.insert(0, replace(_beside("settle", worker, "settled"), goes_on=True))
    return [*soak, *([] if worker.plan["way_back"] else [record]), *_keep(worker)]


def _keep(worker: Worker) -> list[Step]:
    """What the worker came from stands by for a while; one that cannot has cost nothing."""
    keep, came_from = worker.plan["blue_keep"], worker.planned["back_to"]
    if not keep or not came_from or not worker.by_standby or worker.plan["way_back"]:
        return []
    kept = _beside("keep", worker, "standby", release=came_from, lease=keep,
                   reason=f"what {worker.planned['to']} took over from")
    return [replace(kept, goes_on=True)]


def revert(worker: Worker) -> list[Step]:
    """Return the program that reverts a worker on which the new release failed.

    The probe is not repeated: it may be the very thing that is broken, and the old release has served before.
    """
    settings = worker.settings
    drain = {**worker.held, **given(
        state="drained", reason=reason_of(worker), mode="handover", timeout=20.0, on_timeout="force", accept_loss=True,
        grace=0.0, lease=settings["solver_drain_lease"], absent_ok=True, on_expire=_hold(worker))}
    verify = {**worker.common, **given(
        checks=["worker"], deadline=settings["solver_healthy_deadline"], service=worker.own["service"])}
    return [
        # SIGTERM is a bounded hand-over of its own; a hung or dying process is restarted all the same.
        Step("revert_drain", "worker_drain", drain, goes_on=True, extra_s=30.0),
        Step("revert", "worker_release", {**_release(worker), **_way_back(worker)},
             extra_s=SWITCH_S + _stop_s(worker)),
        # A process that was killed just now, and that its service starts again, is waited for.
        Step("revert_verify", "solve_check", verify, tries=tries_for(settings["solver_healthy_deadline"]),
             patient=True),
        _resume(worker, "revert_resume"),
    ]


def resume_again(worker: Worker) -> list[Step]:
    """Return the program for a worker that is drained and was not switched: back into service as it is."""
    return [_resume(worker, "give_back")]


def hold(worker: Worker, switched: bool) -> Step:
    """Return the step that keeps a worker drained while it waits for others, and says that it still is.

    One that was SWITCHED is not given back, whatever is on its wire: then it would serve beside another version.
    """
    again = _drain(worker)
    held = {"on_expire": _hold(worker), "on_timeout": "force", "accept_loss": True} if switched else {}
    return replace(again, name="hold", tries=1, quiet=True, args={**again.args, **given(**held)})


def renew(worker: Worker) -> Step:
    """Return the step that keeps the run's lock of a worker, of which a turn that waits for others may take longer."""
    return Step("renew", "rollout_lock", {
        "worker_dir": worker.own["worker_dir"], "state": "renewed", "rollout_id": worker.plan["rollout_id"],
        "run_id": worker.plan["run_id"], "ttl": worker.settings["solver_lock_ttl"]}, quiet=True)


def record_outcome(worker: Worker, outcome: Outcome) -> Step:
    """Return the step that writes into the worker's record what became of it, for whoever goes on if this run dies."""
    again = renew(worker)
    said = given(outcome=outcome["outcome"], cause=outcome["cause"], outcome_reason=outcome["reason"])
    return replace(again, name="record", quiet=False, args={**again.args, **said})


def reference(worker: Worker, control_socket: str) -> dict[str, Any]:
    """Return the options of the same solve on a worker where nothing has changed.

    Each has a request of its own. Its deadline lets it wait for one other: those in flight may ask the same worker at
    once, which solves one at a time.
    """
    settings = worker.settings
    return {**worker.common, **_probe(worker), "control_socket": control_socket, "checks": ["probe"], "retries": 1,
            "deadline": 2 * float(settings["solver_probe_timeout"]) + 10}


def without_worker(worker: Worker) -> dict[str, Any]:
    """Return the options of the same solve at the provider, asked from the worker's host with its key."""
    provider = worker.own["provider"]
    return {**_probe(worker), "checks": ["balance", "provider"], "provider_url": provider["url"],
            "api_key_file": provider["api_key_file"], "require_requests": False}


def reason_of(worker: Worker) -> str:
    """Return why a worker is drained, as it shows it."""
    return str(worker.settings["solver_reason"] or f"{worker.plan['kind']} to {worker.plan['target']}")


def _drain(worker: Worker) -> Step:
    planned, settings = worker.planned, worker.settings
    args = {**worker.held, **given(
        state="drained", steal=planned["steal"], reason=reason_of(worker), mode=settings["solver_drain_mode"],
        # Of a worker that an interrupted run had switched: it must not serve by the end of a lease alone.
        on_expire=planned["on_expire"], timeout=settings["solver_drain_timeout"],
        grace=settings["solver_drain_grace"], lease=settings["solver_drain_lease"],
        on_timeout=planned["on_drain_timeout"], accept_loss=settings["solver_accept_loss"],
        absent_ok=not planned["serving"])}
    if planned["forced"]:
        args.update(hung_ok=True, accept_loss=True)
    # After the time-out a drain may fall back to a hand-over; and a call may come back before its slice is over.
    waits = float(settings["solver_drain_timeout"]) + HANDOVER_EXTRA_S
    return Step("drain", "worker_drain", args, tries=tries_for(waits) + EARLY_CALLS)


def _hold(worker: Worker) -> str | None:
    """What a lost lease leads to where others wait: whoever could verify itself would serve beside another version."""
    return "hold" if worker.planned["together"] else None


def _release(worker: Worker) -> dict[str, Any]:
    return {**worker.held, "state": "active", "worker_name": worker.own["name"], "base_dir": worker.own["base_dir"],
            "rollout_id": worker.planned["owner"], "lease": worker.settings["solver_drain_lease"], "restart": True,
            "service": worker.own["service"], "keep": worker.settings["solver_keep_releases"],
            **given(on_expire=_hold(worker))}


def _switch(worker: Worker) -> Step:
    return Step("switch", "worker_release", {**_release(worker), "release": worker.planned["release"]},
                extra_s=SWITCH_S + _stop_s(worker))


def _way_back(worker: Worker) -> dict[str, Any]:
    """Where it came from, also if that is the release that it was to be taken to.

    The link to the previous one may lead to what failed here, or was never verified, and no probe is made on the way.
    """
    came_from = worker.planned["back_to"]
    return {"release": came_from} if came_from else {"previous": True}


def _probe(worker: Worker) -> dict[str, Any]:
    settings = worker.settings
    return given(probe_task=settings["solver_probe_task"] or None, probe_expect=settings["solver_probe_expect"] or None,
                 probe_timeout=settings["solver_probe_timeout"])


def _verify(worker: Worker) -> Step:
    planned, settings = worker.planned, worker.settings
    args = {**worker.common, **_probe(worker), **given(
        checks=["worker", "probe"] if planned["probe"] else ["worker"], expect_version=planned["to"],
        expect_release=planned["release"], retries=settings["solver_probe_retries"],
        # The run belongs to the request: a later run of the same rollout must solve anew.
        request_id=f"{planned['owner']}-{worker.plan['run_id']}-{worker.own['name']}",
        interval=settings["solver_probe_interval"], deadline=settings["solver_healthy_deadline"],
        service=worker.own["service"])}
    return Step("verify", "solve_check", args, tries=tries_for(settings["solver_healthy_deadline"]))


def _resume(worker: Worker, name: str) -> Step:
    return Step(name, "worker_drain", {**worker.held, "state": "active"})


def _soak(worker: Worker) -> Step:
    args = {**worker.common, **given(
        checks=["worker"], expect_version=worker.planned["to"], expect_release=worker.planned["release"],
        expect_state=["running"], soak=worker.soak_s, service=worker.own["service"])}
    return Step("soak", "solve_check", args, tries=tries_for(worker.soak_s))
