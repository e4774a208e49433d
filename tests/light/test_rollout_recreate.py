# SPDX-License-Identifier: GPL-3.0-or-later
"""All workers at once: two versions never serve at once, whatever fails, and whenever the controller is killed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from faultlib import Events, Held, ask, kill_all, record_of, until
from fleetlib import wait_for
from lightfleet import LightFleet, served_by_unverified

OLD, NEW = "1.2.0", "1.3.0"
WANTED = {"solver_strategy": "recreate", "solver_accept_downtime": True}


def recreate(fleet: LightFleet, *args: str, **settings: Any) -> Any:
    return fleet.roll(NEW, "--forks", str(max(5, len(fleet.hosts()))), *args, **{**WANTED, **settings})


def versions_at_once(events: Iterable[dict[str, Any]]) -> set[frozenset[str]]:
    """Which versions took tasks at the same time, at any instant."""
    serving: dict[str, str] = {}
    found = set()
    for event in events:
        if "state" not in event:
            continue
        serving.pop(event["worker"], None)
        if event["accepting"]:
            serving[event["worker"]] = event["version"]
        found.add(frozenset(serving.values()))
    return found


def assert_one_version(fleet: LightFleet, version: str) -> None:
    """All serve it, nobody is drained or locked, and no two versions ever served at once."""
    assert set(fleet.versions().values()) == {version}
    fleet.assert_all_serve()
    events = fleet.events()
    assert served_by_unverified(events) == []
    mixed = [names for names in versions_at_once(events) if len(names) > 1]
    assert mixed == []
    assert [name for name in fleet.hosts() if record_of(fleet, name)["lock"]] == []


def outs(fleet: LightFleet) -> list[bool]:
    return [not look(fleet, name).get("accepting") for name in fleet.hosts()]


def look(fleet: LightFleet, name: str) -> dict[str, Any]:
    return ask(fleet.socket(name)) or {}


@pytest.mark.parametrize("size", [3, 10, 60])
def test_a_good_release(light_fleet: LightFleet, size: int) -> None:
    """Drains of 30 s are handed over. The pilot alone is switched before all others are."""
    fleet = light_fleet.up(size, drain_s=30)
    events = Events(fleet)
    done = recreate(fleet, solver_min_healthy_time=1, solver_progress_deadline=900, timeout=900,
                    **events.settings)
    assert done.returncode == 0, done.stdout
    assert (fleet.verdict()["verdict"], fleet.verdict()["strategy"]) == ("completed", "recreate")
    assert_one_version(fleet, NEW)
    assert fleet.most_out_at_once() == size
    assert "nobody serves for about" in done.stdout
    ended = [(own["step"], own["worker"]) for own in events.find("step_ended", part="roll")]
    last_drain = max(place for place, (step, _worker) in enumerate(ended) if step == "drain")
    switched = [(place, worker) for place, (step, worker) in enumerate(ended) if step == "switch"]
    assert last_drain < switched[0][0]
    assert switched[0][1] == "w1"
    assert ended.index(("verify", "w1")) < switched[1][0]
    first_resume = min(place for place, (step, _worker) in enumerate(ended) if step == "resume")
    assert max(place for place, (step, _worker) in enumerate(ended) if step == "verify") < first_resume


BAD: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "crashes": ((), {"crash": True}),
    "solves nothing": ((), {"probe": "release"}),
    "solves nothing on the last": (("w3",), {"probe": "release"}),
    "dies in its soak": (("w2",), {"dies_after_s": 1.0}),
}


@pytest.mark.parametrize("what", [
    "crashes", "solves nothing", "solves nothing on the last",
    pytest.param("dies in its soak", marks=pytest.mark.quick)])
def test_a_bad_release_goes_back_as_one(light_fleet: LightFleet, what: str) -> None:
    fleet = light_fleet.up(3)
    workers, fault = BAD[what]
    fleet.set_fault(*workers, version=NEW, **fault)
    done = recreate(fleet, solver_min_healthy_time=30)
    bad = workers[0] if workers else "w1"
    assert (done.returncode, fleet.verdict()["verdict"]) == (2, "rolled_back"), done.stdout
    assert fleet.outcomes() == {**dict.fromkeys(fleet.hosts(), "rolled_back"), bad: "reverted"}
    assert fleet.verdict()["spent"] == [bad]
    assert_one_version(fleet, OLD)
    if what == "solves nothing":
        assert {own["worker"] for own in fleet.events() if own.get("version") == NEW} == {"w1"}, "only the pilot"
    if what == "crashes":
        # It is remembered: nobody is taken out for it again.
        again = recreate(fleet)
        assert fleet.verdict()["verdict"] == "refused", again.stdout
        assert "solver_force: true" in fleet.verdict()["reasons"][0]


def ends(events: Events, step: str) -> int:
    return len(events.find("step_ended", step=step, ok=True))


STAGES: dict[str, Callable[[LightFleet, Events], Any]] = {
    "draining": lambda fleet, _events: any(outs(fleet)),
    "all drained": lambda fleet, events: ends(events, "drain") == 3 and all(outs(fleet)),
    "pilot switched": lambda fleet, _events: look(fleet, "w1").get("instance", {}).get("version") == NEW,
    "others switched": lambda fleet, _events: look(fleet, "w2").get("instance", {}).get("version") == NEW,
    "all verified": lambda _fleet, events: ends(events, "verify") == 3,
    "one serves": lambda fleet, _events: not all(outs(fleet)) and ran(fleet, NEW),
    "all serve": lambda fleet, events: ends(events, "resume") == 3,
}


def ran(fleet: LightFleet, version: str) -> bool:
    """Whether anybody has taken tasks with it."""
    return any(own.get("accepting") and own["version"] == version for own in fleet.events())


def let_leases_end(fleet: LightFleet) -> None:
    """Nobody renews them, and no recovery comes."""
    fleet.set_fault(lease_speed=1e6)

    def over(name: str) -> bool:
        drain = look(fleet, name).get("drain")
        return drain is None or drain["expired"]

    wait_for(lambda: all(map(over, fleet.hosts())), "the end of all leases", 30)
    fleet.heal()


def kill_in(fleet: LightFleet, stage: str, **settings: Any) -> None:
    events = Events(fleet)
    process = fleet.start_playbook("recreate_update", "--forks", "5", solver_version=NEW, solver_accept_downtime=True,
                                   solver_min_healthy_time=20, **settings, **events.settings)
    until(stage, lambda: STAGES[stage](fleet, events), process)
    kill_all(process)


@pytest.mark.parametrize("stage", STAGES)
def test_killed_and_recovered(light_fleet: LightFleet, stage: str) -> None:
    """Back, unless somebody serves the new release already. No lease brings a second version into service before."""
    fleet = light_fleet.up(3)
    kill_in(fleet, stage)
    let_leases_end(fleet)
    done = fleet.playbook("recover")
    assert done.returncode == 0, done.stdout
    version = NEW if ran(fleet, NEW) else OLD
    assert_one_version(fleet, version)
    # After the last verification a module that was just started may outlive its controller, and resume its worker.
    expected = {"all verified": version, "one serves": NEW, "all serve": NEW}.get(stage, OLD)
    assert version == expected


@pytest.mark.parametrize("stage", ["pilot switched", "one serves"])
def test_killed_and_begun_again(light_fleet: LightFleet, stage: str) -> None:
    """With the same strategy; another one is refused. Who serves already is taken out once more, with the others."""
    fleet = light_fleet.up(3)
    kill_in(fleet, stage)
    other = fleet.roll(NEW)
    assert "began with solver_strategy recreate" in " ".join(other.stdout.split())
    done = recreate(fleet)
    assert (done.returncode, fleet.verdict()["verdict"]) == (0, "completed"), done.stdout
    assert_one_version(fleet, NEW)


def test_a_rollback_goes_as_one_where_it_is_asked_to(light_fleet: LightFleet) -> None:
    fleet = light_fleet.up(3)
    assert recreate(fleet).returncode == 0
    done = fleet.playbook("rollback", **WANTED)
    assert (done.returncode, fleet.verdict()["verdict"], fleet.verdict()["strategy"]) == (
        0, "completed", "recreate"), done.stdout
    assert_one_version(fleet, OLD)


def test_a_pause_before_the_stop_touches_nobody(light_fleet: LightFleet) -> None:
    """Until all have been let in, their hooks included, nothing has begun."""
    fleet = light_fleet.up(3)
    held, events = Held(fleet), Events(fleet)
    process = fleet.start_playbook("recreate_update", solver_version=NEW, solver_accept_downtime=True,
                                   **held.settings, **events.settings)
    held.let_go("w1")
    until("a turn that waits", lambda: events.find("program_begun", worker="w1", steps=["hold"]), process)
    asked = fleet.playbook("pause", solver_reason="lunch")
    assert asked.returncode == 0, asked.stdout
    held.let_go("w2", "w3")
    out, _none = process.communicate(timeout=200)
    assert (process.returncode, fleet.verdict()["verdict"]) == (2, "paused"), out
    assert set(fleet.outcomes().values()) == {"not_attempted"}
    assert fleet.most_out_at_once() == 0
    assert_one_version(fleet, OLD)
