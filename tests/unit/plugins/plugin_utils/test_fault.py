# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose fault a failed probe is: what counts as a control, and what four errors in a row prove."""

from __future__ import annotations

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils import _fault, _step
from hypothesis import given
from hypothesis import strategies as st
from rollout_kit import GOOD, REVERTED

PASSED = {"done": True}


def on(version):
    return {"worker": {"instance": {"version": version}}}


def failing(*errors, code="probe_failed", **details):
    """A verify whose tries failed one after the other, each with (code, class)."""
    made = [{"code": error, "class": whose} for error, whose in errors]
    fault = made[-1]["class"] if made else "worker"
    return {"failed": True, "msg": "no", "failure": {
        "code": code, "details": {"fault": fault, "attempts": len(made), "errors": made, **details}}}


def late(*errors):
    return failing(*errors, code="deadline", checking="probe")


NO_SLOT, WRONG, SLOW = ("ERROR_NO_SLOT_AVAILABLE", "provider"), ("WRONG_ANSWER", "provider"), ("TIMEOUT", "provider")
NO_MONEY, NO_WAY, NO_TASK = ("ERROR_ZERO_BALANCE", "account"), ("UNREACHABLE", "network"), ("ERROR_PAGEURL", "task")
OWN = ("JOURNAL", "worker")


def says(verify, **steps):
    made = _fault.verdict_of_probe({"verify": verify, **steps})
    return made["fault"], made["inconclusive"]


@pytest.mark.parametrize("error", [WRONG, SLOW, NO_MONEY, NO_WAY, NO_TASK, OWN])
def test_what_a_broken_release_may_say_itself_always_needs_a_control(error):
    """Two workers at once, three tries each: six errors, and still the release may be what makes them."""
    in_flight = [failing(error, error, error)] * 2
    assert _fault.needs_reference({"verify": in_flight[0], "in_flight": in_flight})
    assert says(in_flight[0], in_flight=in_flight, reference_worker=PASSED) == ("release", False)


@pytest.mark.parametrize(("in_flight", "count"), [
    ([failing(NO_SLOT, NO_SLOT), failing(NO_SLOT, NO_SLOT)], 4),
    ([failing(NO_SLOT, WRONG), failing(NO_SLOT, NO_SLOT, NO_SLOT)], 3),  # the row is broken by what is not its word
    ([failing(NO_SLOT, NO_SLOT), PASSED, failing(NO_SLOT)], 1),
    ([failing(NO_SLOT, NO_SLOT), PASSED], 0),
    ([failing(NO_SLOT), {}, failing(NO_SLOT, code="wrong_version"), failing(NO_SLOT)], 2),  # these made no probe
    ([failing(NO_SLOT), {"unreachable": True}], 1),
    ([late(NO_SLOT, NO_SLOT)], 2),
    ([late()], 0),
    ([], 0),
])
def test_errors_are_counted_one_by_one(in_flight, count):
    assert _fault.provider_errors_in_a_row(in_flight) == count


def test_a_sibling_that_passed_at_the_same_time_shows_that_the_provider_solves():
    down = failing(NO_SLOT, NO_SLOT, NO_SLOT, NO_SLOT)
    assert not _fault.needs_reference({"verify": down, "in_flight": [down]})
    assert _fault.needs_reference({"verify": down, "in_flight": [PASSED, down]})
    assert says(down, in_flight=[PASSED, down], reference_worker=PASSED) == ("release", False)


@pytest.mark.parametrize("verify", [late(), late(SLOW, SLOW), failing(NO_TASK, code="probe_refused")])
def test_a_probe_that_is_late_or_refused_has_a_control_too(verify):
    assert _fault.needs_reference({"verify": verify, "in_flight": [verify]})
    assert says(verify, reference_worker=PASSED) == ("release", False)
    assert says(verify, reference_worker=failing(SLOW)) == ("provider", True)


def test_a_deadline_of_the_process_itself_has_none():
    assert not _fault.needs_reference({"verify": failing(code="deadline")})


def test_without_a_control_a_late_probe_is_judged_by_its_last_error():
    assert says(late(SLOW)) == ("provider", True)
    assert says(late()) == ("release", False)


def test_a_task_that_is_wrong_everywhere_is_not_the_releases_fault():
    assert says(failing(NO_TASK), reference_worker=failing(NO_TASK)) == ("task", True)
    assert says(failing(NO_TASK), reference_provider=failing(NO_TASK)) == ("task", True)


@pytest.mark.parametrize("control", [
    {}, {"skipped": True}, {"unreachable": True, "failed": False}, {"skipped_checks": ["provider"], "done": True},
    {"failed": False, "msg": "MODULE FAILURE", "rc": 1},  # died without a word, under failed_when: false
    {"failed": False, "failure": {"code": "bad_api_key_file", "details": {}}},
    {"failed": False, "failure": {"code": "missing_library", "details": {}}},
    {"failed": False, "failure": {"code": "worker_failed", "details": {"fault": "worker"}}},
    late(),  # it waited for another probe
])
def test_a_control_that_was_not_made_says_nothing(control):
    assert not _fault.tried(control)
    assert says(failing(NO_WAY), reference_worker=control) == ("network", True)
    assert says(failing(OWN), reference_worker=control) == ("release", False)
    assert says(failing(NO_WAY), reference_worker=control, reference_provider=PASSED) == ("release", False)


def test_the_version_in_doubt_cannot_speak_for_itself():
    """It fails on a worker that was updated before, too; the old one is not there any more to be asked."""
    verify, same = {**failing(WRONG), **on("2")}, {**failing(WRONG), **on("2")}
    old = {"drain": on("1")}
    assert says(verify, reference_worker=same, reference_provider=PASSED, **old) == ("release", False)
    assert says(verify, reference_worker=same, reference_provider=failing(NO_MONEY), **old) == ("account", True)
    assert says(verify, reference_worker=same, **old) == ("provider", True)  # nobody but itself: by its own word
    assert says({**verify, **failing(OWN)}, reference_worker=same, **old) == ("release", False)
    # that it passes there shows that the provider solves
    assert says(verify, reference_worker={**PASSED, **on("2")}, **old) == ("release", False)
    # where only the configuration changes, the version is not what is in doubt
    assert says(verify, reference_worker=same, reference_provider=PASSED, drain=on("2")) == ("provider", True)


ERRORS = st.lists(st.sampled_from([NO_SLOT, WRONG, SLOW, NO_MONEY, NO_WAY, NO_TASK, OWN]), min_size=1, max_size=5)
FAILING = ERRORS.map(lambda errors: failing(*errors))
VERIFY = FAILING | ERRORS.map(lambda errors: late(*errors))
DEAD = {"failed": False, "msg": "dead"}
CONTROL = FAILING | st.sampled_from([{}, PASSED, {"unreachable": True}, DEAD, {"skipped": True}])
VERSION = st.sampled_from([{}, on("1"), on("2")])


@given(VERIFY, VERSION, CONTROL, VERSION, CONTROL, st.lists(VERIFY | st.just(PASSED) | st.just({}), max_size=4))
def test_blame_and_pardon_need_a_reason(verify, ran, worker, there, provider, siblings):
    steps = {**GOOD, **REVERTED, "verify": {**verify, **ran}, "drain": {**GOOD["drain"], **on("1")},
             "reference_worker": {**worker, **there}, "reference_provider": provider, "in_flight": [verify, *siblings]}
    made = _fault.verdict_of_probe(steps)
    assert made["reason"]
    assert made["inconclusive"] == (made["fault"] != "release")
    if _fault.needs_reference(steps) and worker == PASSED:
        assert made["fault"] == "release"
    if made["inconclusive"] and not _fault.provider_is_down(steps):
        # somebody but the new release said so, or nobody could be asked
        controls = [one for one in (worker, provider) if _fault.tried(one)]
        assert not controls or any(one != PASSED for one in controls)
    # whatever the verdict, the worker has left the new release, and spends budget only for the release's own fault
    out = _step.outcome({}, steps)
    assert out["outcome"] == ("returned" if made["inconclusive"] else "reverted")
    assert (out["cause"] == "release") == (not made["inconclusive"])


@given(st.lists(VERIFY | st.just(PASSED) | st.just({}), max_size=5))
def test_the_row_is_no_longer_than_the_errors_and_ends_at_a_pass(results):
    count = _fault.provider_errors_in_a_row(results)
    assert 0 <= count <= sum(len((one.get("failure") or {}).get("details", {}).get("errors", [])) for one in results)
    assert _fault.provider_errors_in_a_row([*results, PASSED]) == 0
    assert _fault.provider_errors_in_a_row([*results, failing(NO_SLOT)]) == count + 1
