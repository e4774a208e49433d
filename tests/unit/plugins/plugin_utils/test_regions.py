# SPDX-License-Identifier: GPL-3.0-or-later
"""Which region is next and when to stop; and 10,000 workers in 40 regions, through the workflow that is made of it."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils import _awx, _regions
from ansible_collections.solver.fleet.plugins.plugin_utils._regions import Regions, Step, at_gate, next_step, waves
from awxlib import Workflow
from hypothesis import given
from hypothesis import strategies as st

FIVE = Regions(("c", "r1", "r2", "r3", "r4"), at_once=2, budget=1)


@pytest.mark.parametrize(("words", "running", "next_"), [
    ({}, (), ("c",)),
    ({}, ("c",), ()),
    ({"c": "completed"}, (), ("r1", "r2")),
    ({"c": "completed"}, ("r1",), ("r2",)),
    ({"c": "completed"}, ("r1", "r2"), ()),
    ({"c": "completed", "r2": "completed"}, ("r1",), ("r3",)),
    ({"c": "completed", "r1": "aborted", "r2": "completed"}, (), ("r3", "r4")),
    (dict.fromkeys(FIVE.names, "completed"), (), ())])
def test_which_region_is_next(words, running, next_):
    assert next_step(FIVE, words, running) == Step(start=next_)


@pytest.mark.parametrize(("words", "said"), [
    ({"c": "rolled_back"}, "c, the canary region, ended as rolled_back; no other region is touched"),
    ({"c": "completed", "r1": "aborted", "r3": "refused"}, "r1 (aborted), r3 (refused) failed, and 1 may (")])
def test_when_it_stops(words, said):
    step = next_step(FIVE, words)
    assert said in step.stop
    assert step.start == ()


def test_the_waves_are_what_follows_where_all_succeed():
    assert waves(FIVE) == [("c",), ("r1", "r2"), ("r3", "r4")]
    assert waves(Regions(("c", "r1"), at_once=100)) == [("c",), ("r1",)]


NAMES = [f"r{number}" for number in range(8)]
WORDS = st.sampled_from(["completed", "completed", "completed", "aborted", "refused", "paused"])


@given(st.integers(1, 4), st.integers(0, 4), st.dictionaries(st.sampled_from(NAMES), WORDS),
       st.sets(st.sampled_from(NAMES)))
def test_what_is_always_so(at_once, budget, words, running):
    running = {name for name in running if name not in words}
    step = next_step(Regions(tuple(NAMES), at_once, budget), words, running)
    failed = [name for name, word in words.items() if word != "completed"]
    assert not step.start or not step.stop
    assert not set(step.start) & (set(words) | running), "begun twice"
    assert len(running) + len(step.start) <= max(at_once, len(running))
    assert not step.start or len(failed) <= budget
    assert step.start in ((), ("r0",)) or words.get("r0") == "completed"


def test_a_gate_takes_a_job_that_handed_nothing_on_for_one_that_failed():
    handed = {"solver_last_region_c": "completed", "solver_last_region_r1": "completed"}
    assert at_gate(FIVE, 1, handed).start == ("r1", "r2")
    assert at_gate(FIVE, 3, handed).start == ("r3", "r4"), "one may fail"
    stop = at_gate(Regions(FIVE.names, 2, 0), 3, handed).stop
    assert stop.startswith("r2 (no verdict, it was refused, cancelled or killed) failed, and none may")


def test_the_last_gate_is_open_only_where_all_are_done():
    handed = {f"solver_last_region_{name}": "completed" for name in FIVE.names}
    assert at_gate(FIVE, 5, handed) == Step()
    assert "r4 (incomplete) did not end as completed" in at_gate(
        FIVE, 5, {**handed, "solver_last_region_r4": "incomplete"}).stop


@pytest.mark.parametrize(("kind", "hosts", "said"), [
    ("update", "solver_eu", {"solver_last_region_solver_eu": "completed"}),
    ("rollback", "solver_eu", {"solver_last_region_solver_eu": "completed"}),
    ("recover", "solver_eu", {}), ("update", "solver_workers", {}), ("update", "solver_eu:!w1", {})])
def test_only_a_rollout_of_a_region_speaks_of_it(kind, hosts, said):
    assert _regions.region_word(kind, hosts, "completed") == said


@pytest.mark.parametrize(("given_", "said"), [
    ({"solver_awx_regions": ["a", "b"]}, "launch that one"),
    ({"solver_awx_regions": ["a", "b"], "solver_awx_gate": 3}, "launch that one"),
    ({"solver_awx_regions": ["a", "b"], "solver_awx_gate": "x"}, "invalid literal"),
    ({"solver_awx_regions": ["a", "b"], "solver_awx_gate": 1, "solver_awx_regions_at_once": 0}, "at least 1"),
    ({"solver_awx_gate": 1}, "launch that one")])
def test_a_gate_that_does_not_know_enough_stays_shut(given_, said):
    gate = _awx.gate(given_)
    assert gate["open"] is False
    assert said in gate["say"]


def test_only_the_first_gate_bakes():
    handed = {"solver_awx_regions": "a, b, c", "solver_awx_bake_minutes": "7", "solver_last_region_a": "completed"}
    assert _awx.gate({**handed, "solver_awx_gate": "1"}) == {
        "open": True, "say": "1 of 3 regions had their turn; next: b", "bake_minutes": 7}
    assert _awx.gate({**handed, "solver_awx_gate": 2, "solver_last_region_b": "completed"})["bake_minutes"] == 0


def test_who_does_not_serve_after_the_bake_is_named():
    workers = [{"name": "w1", "serves": True}, {"name": "w2", "serves": False}]
    assert "1 of 2 workers of the canary region do not serve after its bake: w2" in _regions.not_serving(
        {"fleet": {"workers": 2}, "workers": workers})
    assert _regions.not_serving({"fleet": {"workers": 1}, "workers": workers[:1]}) == ""


# -- 10,000 workers in 40 regions ------------------------------------------------------------------

REGIONS, SIZE, WINDOW, TOLERATED = 40, 250, 25, 62
NAMES_40 = tuple(f"region_{number:02}" for number in range(REGIONS))
BAKE_MINUTES = 60
AWX = {"regions": list(NAMES_40), "recover_minutes": 15, "bake_minutes": BAKE_MINUTES, "instance_groups": {},
       "organization": "Default", "names": dict(_awx.NAMES)}
Breaks = Callable[[str, int], bool]


@dataclass
class World:
    """All workers: what each runs, and when it was out of service; in seconds of the simulation."""

    breaks: Breaks
    killed: frozenset[str] = frozenset()
    runs: dict[tuple[str, int], str] = field(default_factory=dict)
    out: list[tuple[float, float, str]] = field(default_factory=list)
    jobs: list[tuple[float, float, str]] = field(default_factory=list)

    def roll(self, region: str, now: float) -> tuple[float, str]:
        """Take the region's workers through a window that slides; return when it ended, and how."""
        places = [now] * WINDOW
        failed = 0
        for number in range(SIZE):
            if self.runs.get((region, number)) == "new":
                continue
            begin = heapq.heappop(places)
            end = begin + 30 + random.Random(f"{region} {number}").uniform(0, 270)
            heapq.heappush(places, end)
            self.out.append((begin, end, region))
            broken = self.breaks(region, number)
            failed += broken
            self.runs[region, number] = "old" if broken else "new"
            if failed > TOLERATED:
                break
        end = max(places)
        self.jobs.append((now, end, region))
        if region in self.killed:
            return end, ""
        done = sum(self.runs.get((region, number)) == "new" for number in range(SIZE))
        return end, "completed" if done == SIZE else "aborted" if failed > TOLERATED else "incomplete"

    def most_out(self) -> int:
        return most(self.out)

    def touched(self) -> set[str]:
        return {region for _begin, _end, region in self.out}


def most(spans: Iterable[tuple[float, float, str]]) -> int:
    edges = sorted([(begin, 1) for begin, _end, _name in spans] + [(end, -1) for _begin, end, _name in spans])
    here = best = 0
    for _at, change in edges:
        here += change
        best = max(best, here)
    return best


def run_workflow(world: World, at_once: int, budget: int, seed: int = 1) -> tuple[Workflow, dict[str, float]]:
    """Let AWX's rules and our gate lead; return how it went, and when each node began."""
    awx = {**AWX, "regions_at_once": at_once, "regions_budget": budget}
    parents = random.Random(seed)
    flow = Workflow(_awx.region_objects(awx)["nodes"], order=lambda names: parents.sample(names, len(names)))
    waiting: list[tuple[float, str, bool, dict[str, str]]] = []
    began: dict[str, float] = {}
    now = 0.0
    while True:
        for name in flow.ready():
            handed = flow.begin(name)
            began[name] = now
            node = flow.nodes[name]
            if name.startswith("gate "):
                given_ = {f"solver_awx_{key}": awx[key] for key in (
                    "regions", "regions_at_once", "regions_budget", "bake_minutes")}
                gate = _awx.gate({**given_, **handed, **node["extra_data"]})
                heapq.heappush(waiting, (now + gate["bake_minutes"] * 60, name, gate["open"], {}))
            elif name.startswith("recover "):
                heapq.heappush(waiting, (now + 60, name, True, {}))
            else:
                end, word = world.roll(name, now)
                said = _regions.region_word("update", node["extra_data"]["solver_hosts"], word) if word else {}
                heapq.heappush(waiting, (end, name, word == "completed", said))
        if not waiting:
            return flow, began
        now, name, successful, said = heapq.heappop(waiting)
        flow.end(name, successful, said)


def never(_region: str, _number: int) -> bool:
    return False


@pytest.mark.parametrize("at_once", [1, 3, 7])
def test_a_good_release_reaches_everybody_a_few_regions_at_a_time(at_once):
    world = World(never)
    flow, began = run_workflow(world, at_once, budget=0)
    assert not flow.failed()
    assert set(world.runs.values()) == {"new"}
    assert len(world.runs) == len(world.out) == 10_000, "each once"
    assert most(world.jobs) == at_once
    assert world.most_out() <= at_once * WINDOW
    canary_end = world.jobs[0][1]
    assert world.jobs[0][2] == NAMES_40[0]
    assert min(begin for begin, _end, _name in world.jobs[1:]) >= canary_end + BAKE_MINUTES * 60
    assert len([name for name in began if name.startswith("gate ")]) == 1 + -(-39 // at_once)


def test_a_bad_release_is_seen_by_one_region_alone():
    world = World(lambda _region, _number: True)
    flow, _began = run_workflow(world, 3, budget=2)
    assert flow.failed()
    assert world.touched() == {NAMES_40[0]}, "the budget is not for the canary"
    assert len(world.out) == TOLERATED + 1


@pytest.mark.parametrize("seed", range(8))
def test_the_budget_over_regions_stops_it(seed):
    """No region begins once more have failed than may; those of one wave end what they began."""
    chance = random.Random(seed)
    at_once, budget = chance.choice([1, 2, 3, 5]), chance.choice([0, 1, 2, 4])
    broken = {name for name in NAMES_40[1:] if chance.random() < 0.15}
    killed = frozenset(name for name in NAMES_40[1:] if chance.random() < 0.05)
    world = World(lambda region, _number: region in broken, killed)
    flow, began = run_workflow(world, at_once, budget, seed)
    failed: set[str] = set()
    expected = [NAMES_40[0]]
    for first in range(1, REGIONS, at_once):
        if len(failed) > budget:
            break
        wave = NAMES_40[first:first + at_once]
        expected += wave
        failed |= (broken | killed) & set(wave)
    assert [name for name in began if name in NAMES_40] == expected
    assert {name for name in began if name.startswith("recover ")} == {f"recover {name}" for name in failed}
    assert len(failed) <= budget + at_once
    assert flow.failed() == bool(failed)
    assert most(world.jobs) <= at_once
    # Launched again once it is mended, it goes on with those that are left, and touches nobody else.
    again = World(never, runs=dict(world.runs))
    flow, _began = run_workflow(again, at_once, budget, seed)
    assert not flow.failed()
    assert len(again.out) == sum(world.runs.get((name, number)) != "new" for name in NAMES_40 for number in range(SIZE))
    assert set(again.runs.values()) == {"new"}
