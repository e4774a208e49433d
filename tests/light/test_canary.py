# SPDX-License-Identifier: GPL-3.0-or-later
"""A few workers first, judged by their tasks: what the judge leads to. How often it is wrong is in the unit tests."""

from __future__ import annotations

from typing import Any

import pytest
from faultlib import Events, record_of
from lightfleet import LightFleet

# As much in seconds as a fleet shows in minutes.
SOON = {"solver_strategy": "canary", "solver_canary_bake": 2, "solver_canary_min_tasks": 100,
        "solver_canary_bake_max": 120}
OLD, NEW = "1.2.0", "1.3.0"


def busy(fleet: LightFleet, size: int = 4, new: float = 0.05, old: float = 0.05, **faults: Any) -> LightFleet:
    """Workers that each end 60 tasks a second, of which these shares fail."""
    fleet.up(size)
    fleet.set_fault(per_s=60.0, error_share=old)
    fleet.set_fault(version=NEW, error_share=new, **faults)
    return fleet


def canary(fleet: LightFleet, **settings: Any) -> Any:
    return fleet.roll(NEW, **{**SOON, **settings})


def judgements(fleet: LightFleet) -> set[str | None]:
    return {(record_of(fleet, name)["rollout"]["judgement"] or {}).get("word") for name in fleet.hosts()}


@pytest.mark.quick
def test_a_good_release_is_promoted_after_its_canary(light_fleet: LightFleet) -> None:
    fleet = busy(light_fleet)
    events = Events(fleet)
    done = canary(fleet, **events.settings)
    assert done.returncode == 0, done.stdout
    assert fleet.verdict()["verdict"] == "completed"
    assert fleet.verdict()["strategy"] == "canary"
    assert fleet.verdict()["judgement"]["word"] == "promote"
    assert fleet.verdict()["waves"] == [["w1"], ["w2", "w3", "w4"]]
    order = [event["event"] for event in events.all() if event["event"] in ("admitted", "judged")]
    assert order == ["admitted", "judged", "admitted", "admitted", "admitted"]
    assert set(fleet.versions().values()) == {NEW}
    assert judgements(fleet) == {"promote"}
    assert fleet.most_out_at_once() == 1
