# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet as the census shows it, and the results of the steps: what the tests of the decisions share."""

from __future__ import annotations

from typing import Any

from ansible_collections.solver.fleet.plugins.plugin_utils import _plan, _settings

SETTINGS = {
    **{name: setting.default for name, setting in _settings.SETTINGS.items()},
    "solver_version": "1.3.0", "window": 1, "surge": 1, "flip": 4, "soaking": 1}
RUN = {"kind": "update", "run_id": "run1", "new_id": "r1", "forks": 50, "dead_runs": [],
       "now": 1_795_672_800.0}  # 2026-11-26T06:00:00Z


def census(version="1.2.0", state="running", release=None, drain=None, record=None, **more) -> dict[str, Any]:
    running = release or f"{version}-old"
    return {"finding": "answering", "releases": {"current": {"id": running, "version": version}},
            "worker": {"api": {"features": ["drain.lease", "drain.persist", "probe", "handover"]},
                       "state": state, "drain": drain, "tasks": {"open": 7},
                       "instance": {"version": version, "release": running},
                       "totals": {"accepted": 10, "uncertain": 0, "expired": 0}, "journal": {"id": "j"}},
            "rollout": record, "lock_state": "free", **more}


def staged(version="1.3.0", at_target=False) -> dict[str, Any]:
    return {"release": {"id": f"{version}-new", "version": version}, "at_target": at_target}


def updated() -> dict[str, Any]:
    return {"census": census("1.3.0", release="1.3.0-new"), "staged": staged(at_target=True)}


def fleet(size=4, **special) -> dict[str, Any]:
    out = {f"w{n}": {"census": census(), "staged": staged()} for n in range(1, size + 1)}
    out.update(special)
    return out


def plan(workers=None, forks=50, kind="update", new_id="r1", dead=(), routers=None, **settings) -> dict[str, Any]:
    workers = workers or fleet()
    run = {**RUN, "forks": forks, "kind": kind, "new_id": new_id, "dead_runs": list(dead),
           "machines": dict.fromkeys(workers, "m1"), "routers": routers or {}}
    return _plan.make_plan(workers, {**SETTINGS, **settings}, run)


def record(rollout_id="r0", target="1.3.0", kind="update", verdict=None, **more) -> dict[str, Any]:
    """A worker's record of a rollout from 1.2.0-old to 1.3.0-new."""
    return {"schema": "solver.rollout/1", "seq": 3, "roster": [], "lock": None, "request": None, "superseded": [],
            "rollout": {"id": rollout_id, "kind": kind, "target": target, "started_at": "2026-11-24T01:00:00Z",
                        "from": {"version": "1.2.0", "release": "1.2.0-old"},
                        "to": {"version": "1.3.0", "release": "1.3.0-new"},
                        "ended_at": None, "verdict": verdict, "outcome": None, "cause": None, **more}}


def lock(run_id="run0", **more) -> dict[str, Any]:
    return {"run_id": run_id, "rollout_id": "r0", "job": None, "user": "ada", "reason": "night shift",
            "controller": {"host": "deck"}, "acquired_at": "then", "renewed_at": "later", **more}


GOOD = {"drain": {"done": True, "open_at_drain": 12, "elapsed_s": 1.5}, "switch": {"switched": True, "restarted": True},
        "verify": {"done": True}, "resume": {"changed": True}, "soak": {}}
FAILED = {"failed": True, "msg": "it broke", "failure": {"code": "worker_exited"}}
WORDLESS = {"failed": True, "msg": "it broke"}
GONE = {"unreachable": True, "msg": "no route to host"}
REVERTED = {"revert": {"changed": True}, "revert_verify": {"done": True}, "revert_resume": {"changed": True}}
HELD = {"instance": {"version": "1.3.0"}, "drain": {"version": "1.2.0"}}
PLANNED = {"from": "1.2.0", "to": "1.3.0"}
