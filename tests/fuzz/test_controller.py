# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever one worker's host answers, the controller goes on, and nothing of it reaches the other workers.

The answers of w2 are good ones, changed anywhere; they come in through _entry, and then all that the controller does
with them is done. SF_EXAMPLES sets how many are tried.
"""

from __future__ import annotations

import copy
import functools
import json
import os
from typing import Any

import entry_kit as kit
import pytest
from ansible_collections.solver.fleet.plugins.filter import rollout
from ansible_collections.solver.fleet.plugins.plugin_utils import (
    _canary,
    _converge,
    _entry,
    _fault,
    _gate,
    _lines,
    _locks,
    _plan,
    _plan_lines,
    _plan_locks,
    _step,
    _verdict,
)
from ansible_collections.solver.fleet.plugins.plugin_utils._controller import _process
from entry_kit import GONE, NOW
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rollout_kit import RUN, SETTINGS

EXAMPLES = int(os.environ.get("SF_EXAMPLES", "1500"))
WORKERS = ("w1", "w2", "w3")
MOST_BYTES = 64 * 1024
# Of a controller on this machine that has ended; the locks of a recovery name it.
OWN = {"host": "deck", "machine_id": "m", "boot_id": "b", "pid": 10, "pid_started": 100, "pid_ns": 4}
DEAD = functools.partial(_process.provably_dead, alive=lambda _pid, _began: False)

Answers = dict[str, Any]


def answers(kind: str) -> Answers:
    """All that a worker may be asked in one rollout."""
    lock = dict(kit.LOCK) if kind == "recover" else None
    drain = dict(kit.DRAIN) if kind == "recover" else None
    asked = kit.census(lock, drain=drain)
    if kind == "rollback":
        asked["worker"] = kit.status("1.3.0", "1.3.0-new")
        asked["releases"]["current"] = kit.release("1.3.0", "1.3.0-new")
    return {"census": asked, "staged": kit.staged(), "live": kit.lock_answer(),
            "steps": kit.steps(), "final": kit.census(), "router": kit.router()}


LET_IN: dict[str, Any] = {
    "census": _entry.census, "staged": _entry.staged, "live": _entry.lock_answer, "steps": _entry.step_results,
    "final": _entry.census, "router": _entry.router}
KINDS = ("update", "rollback", "recover")
GOOD = {kind: json.loads(json.dumps(answers(kind))) for kind in KINDS}
WAYS = sorted({way for kind in KINDS for way in kit.places(GOOD[kind])}, key=str)


def at(document: Any, way: tuple[Any, ...]) -> Any:
    return functools.reduce(lambda value, key: value[key], way, document)


def deep(levels: int) -> Any:
    value: Any = "x"
    for _level in range(levels):
        value = {"worker": [value]}
    return value


def holds(document: Any, way: tuple[Any, ...]) -> bool:
    try:
        at(document, way)
    except (KeyError, IndexError, TypeError):
        return False
    return isinstance(at(document, way[:-1]), (dict, list))


# What good documents say elsewhere is what gets through most often, and it is where it does not belong.
ELSEWHERE = st.sampled_from(WAYS).map(lambda way: next(at(GOOD[own], way) for own in KINDS if holds(GOOD[own], way)))
WORDS = ("", "failed", "drained", "running", "hung", "stopped", "answering", "rollback", "recover", "completed",
         "returned", "quarantined", "updated", "unreachable", "probe_failed", "lock_lost", "held", "expired", "verify",
         "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "w1\nw3 updated", "\x1b[2J\x1b[1;1Hcompleted", "\u202e", "%s",
         "{{ 7 }}", "\ud800", "漢" * 3000, "x" * 100_000, ":")
JUNK = st.one_of(
    st.just(GONE), st.none(), st.booleans(), st.sampled_from(WORDS), ELSEWHERE, st.integers(),
    st.sampled_from([0, -1, 1e15, 1e16, 10**400, float("nan"), float("inf"), -0.0, 1e-300]),
    st.floats(), st.text(st.characters(codec=None), max_size=30),
    st.sampled_from([[], {}, [[]], [{}], [None] * 3, {"": None}, ["x"] * 20_000, deep(5), deep(100)]))
CHANGES = st.lists(st.tuples(st.sampled_from(WAYS), JUNK), min_size=1, max_size=6)


def with_changes(kind: str, changes: list[tuple[tuple[Any, ...], Any]], fitting: bool) -> Answers:
    """Return good answers with these changes; FITTING, only with those that get past the entry."""
    out = copy.deepcopy(GOOD[kind])
    for way, value in changes:
        if not holds(out, way):
            continue
        around, key = at(out, way[:-1]), way[-1]
        before = around[key]
        put(around, key, value)
        if fitting and is_wrong(way[0], out.get(way[0])):
            put(around, key, before)
    return out


def put(around: Any, key: Any, value: Any) -> None:
    """Change one value; in a list a value that goes leaves null, so that the ways to the others stay."""
    if value is not GONE:
        around[key] = copy.deepcopy(value)
    elif isinstance(around, dict):
        del around[key]
    else:
        around[key] = None


def is_wrong(part: str, answer: Any) -> bool:
    found: Any = LET_IN[part](answer, NOW)
    return any("wrong" in one for one in (found, found.get("census") or {}, *found.get("done_steps", {}).values()))


# --- what the controller does with it ---


def chosen(kind: str) -> dict[str, Any]:
    """The settings. Which rollout goes on is decided from all records, so its id is given here."""
    return {**SETTINGS, "solver_version": "" if kind == "rollback" else "1.3.0", "solver_rollout_id": "rollout-1",
            "soaking": 1}


def compared(kind: str, facts: dict[str, Any], run: dict[str, Any], live: dict[str, Any]) -> list[str]:
    """Plan by canaries, and judge them by what their records and their books say."""
    plan = _plan.make_plan(facts, {**chosen(kind), "solver_strategy": "canary"}, run)
    arms: dict[str, list[_canary.Arm]] = {"canary": [], "control": []}
    for name, own in facts.items():
        found = _canary.books_of((live[name].get("census") or {}).get("worker"))
        baseline = _converge.rollout_of(own["census"]).get("baseline")
        arm = _canary.since(baseline, *found) if found and baseline else None
        if arm:
            arms[baseline["arm"]].append(arm)
    old, new = _canary.together(arms["control"]), _canary.together(arms["canary"])
    said = _canary.judge(old, new, _canary.Rules(30, 0.0, 1.0), 2.0, _canary.Look())
    return [*_plan_lines.plan_lines(plan), *plan["refused"], said.reason, _canary.in_words(old, new)]


def planned(kind: str, fleet: dict[str, Answers]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Let the answers in, and plan."""
    facts = {name: {"census": _entry.census(own.get("census"), NOW), "staged": _entry.staged(own.get("staged"), NOW)}
             for name, own in fleet.items()}
    holders = {name: holder for name, own in facts.items() if (holder := _plan_locks.holder_of(own["census"]))}
    run = {**RUN, "now": NOW, "kind": kind, "dead_runs": _locks.proven_dead(holders, OWN, DEAD),
           "machines": dict.fromkeys(fleet, "m1"), "routers": {"r1": {"machine": "m1"}}}
    return facts, _plan.make_plan(facts, chosen(kind), run), run


def rolled_out(kind: str, fleet: dict[str, Answers]) -> tuple[dict[str, Any], list[str]]:
    """Go through a whole rollout; return its verdict, and all that is shown to people."""
    facts, plan, run = planned(kind, fleet)
    shown = [*_plan_lines.plan_lines(plan), *plan["refused"]]
    for own in facts.values():
        for each in KINDS:
            shown.append(str(_converge.return_target(own["census"], each).get("version")))
            shown.append(_converge.settings_behind(own["staged"]))
    live = {name: _entry.lock_answer(own.get("live"), NOW) for name, own in fleet.items()}
    shown += _plan_locks.lock_refusals(plan, live)
    _plan_locks.quicker(live)
    shown += compared(kind, facts, run, live)
    steps, outcomes = {}, {}
    for name, own in fleet.items():
        steps[name] = _entry.step_results(own.get("steps"), NOW)["done_steps"]
        for revertible in (True, False):
            _step.next_action(steps[name], revertible, plan["workers"][name])
            _fault.needs_reference({**steps[name], "in_flight": [one.get("verify") for one in steps.values()]})
            outcomes[name] = _step.outcome(plan["workers"][name], steps[name], revertible)
        shown.append(_lines.progress_line(name, outcomes[name], 1, 2))
    closed, back = gated(plan, outcomes, live, fleet)
    shown += [decision.reason for decision in closed]
    backs = {name: outcomes[name] for name in back["order"]}
    final = {name: _entry.census(own.get("final"), NOW) for name, own in fleet.items()}
    document = _verdict.verdict(plan, outcomes, final, backs=backs, gate=closed[0]._asdict())
    shown += [*_verdict.verdict_lines(document), *_verdict.not_done(document, plan).values()]
    return document, shown + by_filters({name: own.get("census") for name, own in fleet.items()})


def by_filters(answers: dict[str, Any]) -> list[str]:
    """What status, provision and remove make of the same answers; Ansible registers nothing but objects."""
    own = {name: answer for name, answer in answers.items() if isinstance(answer, dict)}
    for answer in own.values():
        rollout.lock_free(answer)
        rollout.address_kept(answer, {"data_address": "10.0.0.1:1", "machine": "m1"}, {"r1": {"machine": "front"}})
    return rollout.fleet_lines(own)


def gated(plan: Any, outcomes: Any, live: Any, fleet: Any) -> tuple[list[_gate.Decision], dict[str, Any]]:
    views = {name: _entry.router(own.get("router"), NOW) for name, own in fleet.items()}
    seen = _gate.with_routers(live, {name: {"name": name} for name in fleet}, views)
    stall = _gate.Stall(0.0, 60.0)
    lost = _gate.lost_later(plan, outcomes, live)
    known = _gate.with_losses(outcomes, lost)
    closed = [gate(plan, known, looked, _gate.Asking("w3", ["w1"]), stall)
              for gate in (_gate.gate, _gate.gate_back) for looked in (seen, live)]
    return closed, _gate.back_plan(plan, outcomes, "budget", "rollback")


@functools.cache
def undisturbed(kind: str) -> dict[str, Any]:
    return planned(kind, dict.fromkeys(WORKERS, GOOD[kind]))[1]


@pytest.mark.parametrize("kind", KINDS)
def test_good_answers_come_to_a_verdict(kind: str) -> None:
    """Else nothing of what follows would be tried."""
    plan = undisturbed(kind)
    assert (plan["refused"], plan["order"]) == ([], list(WORKERS))
    document, shown = rolled_out(kind, dict.fromkeys(WORKERS, GOOD[kind]))
    assert "answers wrongly" not in "".join(shown)
    assert document["workers"][0]["log"] == ["one", "two"]


@settings(max_examples=EXAMPLES, derandomize=True, database=None, deadline=None,
          suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@example("update", [(("census", "worker", "journal"), "x")], False)
@example("update", [(("final", "worker", "journal"), "x")], False)
@example("update", [(("census", "history"), [{}])], False)
@example("update", [(("steps", "done_steps", "verify", "probe", "elapsed_s"), "fast")], False)
@example("recover", [(("census", "rollout", "lock", "controller", "pid"), 11)], False)
@given(st.sampled_from(KINDS), CHANGES, st.booleans())
def test_any_answer_of_one_worker(kind: str, changes: list[tuple[tuple[Any, ...], Any]], fitting: bool) -> None:
    fleet = {**dict.fromkeys(WORKERS, GOOD[kind]), "w2": with_changes(kind, changes, fitting)}
    document, shown = rolled_out(kind, fleet)
    assert [line for line in shown if not line.isprintable()] == []
    for worker in document["workers"]:
        assert len(json.dumps(worker, allow_nan=False, ensure_ascii=False).encode("utf-8")) <= MOST_BYTES
    assert len(json.dumps(document, allow_nan=False, ensure_ascii=False).encode("utf-8")) <= 3 * MOST_BYTES

    plan, good = planned(kind, fleet)[1], undisturbed(kind)
    for other in ("w1", "w3"):
        assert plan["workers"][other] == good["workers"][other]
    assert [text for text in refusals(plan) if "w2" not in text] == refusals(good)


def refusals(plan: dict[str, Any]) -> list[str]:
    # test_locks has the test that ghosts in one roster stop nothing; this goes when the plan asks _locks.members.
    return [text for text in plan["refused"] if not text.startswith("the inventory lacks")]
