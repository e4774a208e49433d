# SPDX-License-Identifier: GPL-3.0-or-later
"""What follows a failed step, and what became of the worker."""

from __future__ import annotations

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils import _step
from hypothesis import given
from hypothesis import strategies as st
from rollout_kit import FAILED, GONE, GOOD, HELD, PLANNED, REVERTED, WORDLESS

UNTOUCHED = WORDLESS | {"switched": False}


def because(code):
    return {"failure": {"code": code}}


def outcome(**steps):
    made = _step.outcome(PLANNED, {**GOOD, **steps})
    return made["outcome"], made["cause"]


def test_good_steps_are_an_update():
    assert outcome() == ("updated", None)
    assert outcome(soak={}) == ("updated", None), "a soak of 0 is no step"
    assert _step.outcome(PLANNED, GOOD)["open_at_drain"] == 12


@pytest.mark.parametrize(("steps", "action", "expected"), [
    ({"drain": FAILED | {"gave_back": True}, "switch": {}}, "nothing", ("failed", "drain")),
    ({"drain": FAILED | {"failure": {"code": "foreign_drain"}}, "switch": {}}, "nothing", ("failed", "drain")),
    ({"drain": FAILED, "switch": {}, "give_back": {"changed": True}}, "resume", ("failed", "drain")),
    ({"drain": FAILED, "switch": {}, "give_back": FAILED}, "resume", ("quarantined", "drain")),
    # a host that is lost while its worker is given back: the lease gives it back
    ({"drain": FAILED, "switch": {}, "give_back": GONE}, "resume", ("unreachable", "host")),
    ({"switch": UNTOUCHED, "give_back": GONE}, "resume", ("unreachable", "host")),
    ({"drain": GONE, "switch": {}}, "nothing", ("unreachable", "host")),
    ({"switch": FAILED | {"switched": False, "failure": {"code": "lease_lost"}}, "give_back": {"changed": True}},
     "resume",
     ("failed", "drain")),
    # whatever kept the switch from beginning, the release is not to blame
    ({"switch": UNTOUCHED, "give_back": {"changed": True}}, "resume", ("failed", "unknown")),
    ({"switch": UNTOUCHED, "give_back": FAILED}, "resume", ("quarantined", "unknown")),
    ({"switch": UNTOUCHED | because("unwritable"), "give_back": {"changed": True}}, "resume", ("failed", "host")),
    ({"switch": UNTOUCHED | because("starting"), "give_back": {"changed": True}}, "resume", ("failed", "drain")),
    # nor for a process of the one before it that does not end, nor for a service manager that does not answer
    ({"switch": FAILED | {"switched": True} | because("stop_timeout"), **REVERTED}, "revert", ("reverted", "drain")),
    ({"switch": FAILED | {"switched": True} | because("no_systemd"), **REVERTED}, "revert", ("reverted", "host")),
    # nor for somebody else who drains the worker when it is back in service; it is left to him
    ({"resume": FAILED | because("foreign_drain")}, "nothing", ("failed", "drain")),
    ({"soak": FAILED | because("unexpected_state") | {"worker": {"drain": {"owner": "somebody"}}}}, "nothing",
     ("failed", "drain")),
    ({"soak": FAILED | because("unexpected_state") | {"worker": {"drain": {"owner": "solver-worker"}}}, **REVERTED},
     "revert", ("reverted", "release")),
    # a module that died without a word, or one that only restarted, may have changed what runs; without a word of
    # why, or with one that nobody declared, the release is not blamed
    ({"switch": WORDLESS, **REVERTED}, "revert", ("reverted", "unknown")),
    ({"verify": FAILED | because("never_heard_of"), **REVERTED}, "revert", ("reverted", "unknown")),
    ({"verify": FAILED | because("crashed"), **REVERTED}, "revert", ("reverted", "unknown")),
    ({"drain": FAILED | because("crashed"), "switch": {}, "give_back": {"changed": True}}, "resume",
     ("failed", "unknown")),
    # whoever raised it knows better than the table, and a host may say what it likes
    ({"verify": FAILED | {"failure": {"code": "worker_exited", "cause": "host"}}, **REVERTED}, "revert",
     ("reverted", "host")),
    ({"verify": FAILED | {"failure": {"code": "worker_exited", "cause": ["release"]}}, **REVERTED}, "revert",
     ("reverted", "unknown")),
    # a service manager that refuses the start, and a process that it did start and that ended
    ({"switch": FAILED | {"switched": True} | because("start_failed"), **REVERTED}, "revert", ("reverted", "host")),
    ({"switch": FAILED | {"switched": True} | because("service_failed"), **REVERTED}, "revert",
     ("reverted", "release")),
    ({"switch": FAILED, **REVERTED}, "revert", ("reverted", "release")),
    ({"switch": FAILED | {"switched": False, "restarted": True}, **REVERTED}, "revert", ("reverted", "release")),
    # nothing was switched: what is held there is not reverted for it
    ({"switch": {"switched": False, "restarted": False}, "verify": FAILED}, "nothing", ("failed", "release")),
    # the drained process is of another version than the drain's: it must not just resume
    ({"drain": FAILED | {"worker": HELD}, "switch": {}}, "nothing", ("failed", "drain")),
    ({"drain": {"done": True, "worker": HELD}, "switch": UNTOUCHED}, "nothing", ("failed", "unknown")),
    ({"verify": FAILED | {"failure": {"code": "probe_failed", "details": {"fault": "account"}}}, **REVERTED},
     "revert", ("returned", "unknown")),
    ({"verify": FAILED | {"failure": {"code": "bad_option"}}, **REVERTED}, "revert", ("reverted", "unknown")),
    ({"switch": FAILED | {"switched": True}, **REVERTED}, "revert", ("reverted", "release")),
    ({"switch": GONE, "verify": {}}, "nothing", ("unreachable", "host")),
    ({"verify": FAILED, **REVERTED}, "revert", ("reverted", "release")),
    ({"verify": {"done": False}, **REVERTED}, "revert", ("reverted", "release")),
    ({"verify": FAILED, "revert": FAILED}, "revert", ("quarantined", "release")),
    ({"verify": FAILED, "revert": {"changed": True}, "revert_verify": FAILED}, "revert", ("quarantined", "release")),
    ({"verify": GONE, "resume": {}}, "nothing", ("unreachable", "host")),
    ({"resume": FAILED, **REVERTED}, "revert", ("reverted", "release")),
    ({"soak": FAILED, **REVERTED}, "revert", ("reverted", "release")),
    ({"drain": {}, "switch": {}}, "nothing", ("failed", "unknown")),
    # lost while it goes back: what came before may have been its host's end, and it is not quarantined
    ({"verify": FAILED, "revert_drain": GONE}, "revert", ("unreachable", "host")),
    ({"verify": FAILED, "revert_drain": {"done": True}, "revert": GONE}, "revert", ("unreachable", "host")),
])
def test_failures(steps, action, expected):
    assert _step.next_action({**GOOD, **steps}) == action
    assert outcome(**steps) == expected


SWITCHED_BEFORE = {**PLANNED, "from_release": "1.3.0-new", "release": "1.3.0-new", "back_to": "1.2.0-old"}


@pytest.mark.parametrize(("steps", "action"), [
    ({"switch": {"switched": False, "restarted": False}, "verify": FAILED}, "revert"),
    ({"switch": UNTOUCHED}, "nothing"),
    ({"drain": FAILED, "switch": {}}, "nothing"),
    ({"verify": GONE}, "nothing"),
])
def test_what_an_interrupted_run_switched_is_reverted_and_never_just_resumed(steps, action):
    """Its versions may be equal: then only the releases tell that this process was never verified."""
    assert _step.next_action({**GOOD, **steps}, planned=SWITCHED_BEFORE) == action
    same = {**SWITCHED_BEFORE, "back_to": "1.3.0-new"}
    assert _step.next_action({**GOOD, **steps}, planned=same) != "revert"


STEP = st.sampled_from([{}, {"done": True}, {"done": False}, FAILED, GONE, {"skipped": True}, {"switched": True}])


@given(st.dictionaries(st.sampled_from(["drain", "switch", "verify", "resume", "soak", *_step.REVERT_STEPS]), STEP))
def test_updated_needs_a_successful_verify_whatever_happened(steps):
    if _step.outcome(PLANNED, steps)["outcome"] == "updated":
        assert all(_step.step_ok(steps.get(name)) for name in ("drain", "switch", "verify", "resume"))


def test_a_control_overrules_what_the_probe_thinks_of_its_fault():
    probe = {"failed": True, "msg": "Probing: TIMEOUT; the fault is the provider's, not the worker's", "failure": {
        "code": "probe_failed", "details": {"fault": "provider", "errors": [{"class": "provider", "code": "TIMEOUT"}]}}}
    steps = {"drain": {"done": True}, "switch": {"switched": True}, "verify": probe}
    alone = _step.outcome({}, steps)["reason"]
    assert "the fault is the provider's" in alone
    decided = _step.outcome({}, {**steps, "reference_worker": {"done": True}})["reason"]
    assert decided.startswith("verify: Probing: TIMEOUT; the same solve passed at another worker")


def test_a_fenced_run_touches_nothing_more():
    fenced = FAILED | {"failure": {"code": "fenced"}}
    for name in ("drain", "switch", "resume"):
        assert _step.next_action({**GOOD, name: fenced}) == "nothing"
        assert outcome(**{name: fenced}) == ("failed", "unknown")


def test_a_rollback_never_leads_to_another():
    assert _step.next_action({**GOOD, "verify": FAILED}, revertible=False) == "nothing"
    made = _step.outcome(PLANNED, {**GOOD, "verify": FAILED}, revertible=False)
    assert made["outcome"] == "quarantined"
    assert "nothing to go back to" in made["reason"]
    given_back = {**GOOD, "drain": FAILED, "give_back": {"changed": True}}
    assert _step.next_action(given_back, revertible=False) == "resume"
    assert _step.outcome(PLANNED, given_back, revertible=False)["outcome"] == "failed"
