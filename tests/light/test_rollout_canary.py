# SPDX-License-Identifier: GPL-3.0-or-later
"""A few workers first, judged by their tasks: what the judge leads to. How often it is wrong is in the unit tests."""

from __future__ import annotations

from typing import Any

import pytest
from faultlib import Events, kill_all, record_of, until
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


def test_a_worse_release_goes_back_and_is_not_tried_again(light_fleet: LightFleet) -> None:
    """Twenty points worse. The whole fleet remembers it, until somebody insists."""
    fleet = busy(light_fleet, new=0.25)
    done = canary(fleet)
    assert (done.returncode, fleet.verdict()["verdict"]) == (2, "rolled_back"), done.stdout
    assert fleet.verdict()["judgement"]["word"] == "fail"
    assert fleet.outcomes() == {"w1": "rolled_back", **dict.fromkeys(("w2", "w3", "w4"), "not_attempted")}
    assert set(fleet.versions().values()) == {OLD}
    assert judgements(fleet) == {"fail"}
    fleet.assert_all_serve()
    for strategy in ("canary", "rolling"):
        again = canary(fleet, solver_strategy=strategy)
        assert fleet.verdict()["verdict"] == "refused", again.stdout
        assert "solver_force: true" in fleet.verdict()["reasons"][0]
    fleet.set_fault(version=NEW, error_share=0.05)
    done = canary(fleet, solver_force=True)
    assert (done.returncode, fleet.verdict()["verdict"]) == (0, "completed"), done.stdout


def test_a_manual_promotion_ends_well_and_goes_on_when_it_is_given(light_fleet: LightFleet) -> None:
    fleet = busy(light_fleet, size=3)
    done = canary(fleet, solver_promote="manual")
    assert (done.returncode, fleet.verdict()["verdict"]) == (0, "awaiting_promotion"), done.stdout
    assert "solver_promote=now" in fleet.verdict()["reasons"][0]
    assert fleet.versions() == {"w1": NEW, "w2": OLD, "w3": OLD}
    other = canary(fleet, solver_strategy="rolling")
    assert fleet.verdict()["verdict"] == "refused", other.stdout
    assert "began with solver_strategy canary" in fleet.verdict()["reasons"][0]
    events = Events(fleet)
    done = canary(fleet, solver_promote="now", **events.settings)
    assert (done.returncode, fleet.verdict()["verdict"]) == (0, "completed"), done.stdout
    assert [event["word"] for event in events.find("judged")] == ["promote"]
    assert events.find("bake") == [], "what was judged is not judged again"
    assert set(fleet.versions().values()) == {NEW}


@pytest.mark.parametrize(("what", "left"), [("keep", NEW), ("return", OLD)])
def test_what_nobody_can_judge_is_inconclusive(light_fleet: LightFleet, what: str, left: str) -> None:
    """Half of the canary's tasks fail, and not those of the others, but at the provider: who knows by whose fault."""
    fleet = busy(light_fleet, new=0.5, provider_share=1.0)
    done = canary(fleet, solver_on_inconclusive=what)
    assert (done.returncode, fleet.verdict()["verdict"]) == (2, "inconclusive"), done.stdout
    assert "failed at the provider" in fleet.verdict()["reasons"][0]
    assert fleet.versions() == {"w1": left, "w2": OLD, "w3": OLD, "w4": OLD}
    fleet.assert_all_serve()
    # It is compared anew: by now the provider solves.
    fleet.set_fault(version=NEW, error_share=0.05)
    done = canary(fleet)
    assert (done.returncode, fleet.verdict()["verdict"]) == (0, "completed"), done.stdout


def test_a_comparison_that_is_killed_goes_on_where_it_was(light_fleet: LightFleet) -> None:
    fleet = busy(light_fleet, size=3)
    events = Events(fleet)
    process = fleet.start_playbook("canary_update", solver_version=NEW, **{
        **SOON, "solver_canary_bake": 600, "solver_canary_bake_max": 600}, **events.settings)
    until("a line of the comparison", lambda: events.find("bake"), process, 200)
    kill_all(process)
    before = {name: record_of(fleet, name)["rollout"]["baseline"] for name in fleet.hosts()}
    again = Events(fleet, "again")
    # So long ago it began by now: nothing more is to be waited for.
    done = canary(fleet, solver_canary_bake=1, **again.settings)
    assert (done.returncode, fleet.verdict()["verdict"]) == (0, "completed"), done.stdout
    after = {name: record_of(fleet, name)["rollout"]["baseline"] for name in fleet.hosts()}
    assert {name: (own["at"], own["books"]) for name, own in after.items()} == {
        name: (own["at"], own["books"]) for name, own in before.items()}
    assert [event["worker"] for event in again.find("admitted")] == ["w2", "w3"]


@pytest.mark.parametrize("word", ["fail", "promote"])
def test_killed_after_its_judgement_it_does_what_was_judged(light_fleet: LightFleet, word: str) -> None:
    """What would be judged now is no matter: the judgement is in the records."""
    fleet = busy(light_fleet, size=3, new=0.25 if word == "fail" else 0.05)
    events = Events(fleet)
    process = fleet.start_playbook("canary_update", solver_version=NEW, **SOON, **events.settings)
    until("the judgement", lambda: events.find("judged"), process, 200)
    kill_all(process)
    assert judgements(fleet) == {word}
    fleet.set_fault(version=NEW, error_share=0.05 if word == "fail" else 0.25)
    done = canary(fleet)
    expected = {"fail": (2, "rolled_back"), "promote": (0, "completed")}[word]
    assert (done.returncode, fleet.verdict()["verdict"]) == expected, done.stdout
    assert set(fleet.versions().values()) == {OLD if word == "fail" else NEW}


def test_a_request_ends_a_comparison(light_fleet: LightFleet) -> None:
    fleet = busy(light_fleet, size=3)
    events = Events(fleet)
    process = fleet.start_playbook("canary_update", solver_version=NEW, **{
        **SOON, "solver_canary_bake": 600, "solver_canary_bake_max": 600}, **events.settings)
    until("a line of the comparison", lambda: events.find("bake"), process, 200)
    asked = fleet.playbook("pause", solver_reason="lunch")
    assert asked.returncode == 0, asked.stdout
    out, _none = process.communicate(timeout=200)
    assert (process.returncode, fleet.verdict()["verdict"]) == (2, "paused"), out
    assert fleet.versions() == {"w1": NEW, "w2": OLD, "w3": OLD}


def test_a_canary_that_dies_while_it_is_compared_ends_the_rollout(light_fleet: LightFleet) -> None:
    """Its process is gone, and nobody starts it again."""
    fleet = busy(light_fleet, size=3)
    events = Events(fleet)
    process = fleet.start_playbook("canary_update", solver_version=NEW, **{
        **SOON, "solver_canary_bake": 600, "solver_canary_bake_max": 600}, **events.settings)
    until("a line of the comparison", lambda: events.find("bake"), process, 200)
    fleet.kill("w1")
    out, _none = process.communicate(timeout=300)
    assert (process.returncode, fleet.verdict()["judgement"]["word"]) == (2, "fail"), out
    assert "has not served" in fleet.verdict()["reasons"][0]
    assert fleet.verdict()["verdict"] == "rolled_back"
    fleet.assert_all_serve()


def test_one_canary_of_each_stratum(light_fleet: LightFleet) -> None:
    """By name, wherever they stand in the inventory; and what cannot be compared is refused."""
    fleet = busy(light_fleet, size=4)
    zones = {name: {"zone": "b" if name in ("w1", "w3") else "a"} for name in fleet.hosts()}
    inventory = fleet.write_inventory("zones.yml", **zones)
    done = canary(fleet, solver_strata="zone", inventory=inventory)
    assert done.returncode == 0, done.stdout
    assert fleet.verdict()["waves"] == [["w1", "w2"], ["w3", "w4"]]
