# SPDX-License-Identifier: GPL-3.0-or-later
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solver_worker import drain as drains
from solver_worker.drain import BadFieldError, Drain, Moment
from solver_worker.lifecycle import state_of

AT = Moment(boot=100.0, now=1_700_000_000.0)


def begun(**wish: Any) -> Drain:
    return drains.decide(None, {"owner": "a", **wish}, AT, "1.3.0", False).drain


def later(seconds: float) -> Moment:
    return Moment(AT.boot + seconds, AT.now + seconds)


def test_defaults_of_a_new_drain() -> None:
    drain = begun()
    assert (drain.mode, drain.on_deadline, drain.on_expire) == ("complete", "wait", "resume")
    assert (drain.grace_s, drain.deadline_s, drain.lease_s) == (0.0, None, 900.0)


def test_a_renewal_restarts_the_lease_and_changes_only_what_it_names() -> None:
    first = begun(reason="update", grace_s=5.0, deadline_s=60.0, lease_s=30.0)
    decision = drains.decide(first, {"owner": "a", "lease_s": 90.0}, later(20), "1.3.0", False)
    assert decision.status == 200
    assert decision.drain == replace(first, lease_s=90.0, renewed=120.0)
    assert (decision.drain.grace_ends, decision.drain.deadline) == (105.0, 160.0)


def test_an_expired_drain_of_another_may_be_taken_and_stays_held() -> None:
    dead = replace(begun(), expired=True, held=True)
    decision = drains.decide(dead, {"owner": "b"}, later(1), "1.3.0", False)
    assert (decision.status, decision.taken_from, decision.drain.held) == (202, "a", True)


def test_an_unverified_version_never_resumes_by_expiry() -> None:
    decision = drains.decide(None, {"owner": "a", "on_expire": "resume"}, AT, "1.3.0", True)
    assert decision.drain.on_expire == "verify"
    hold = drains.decide(None, {"owner": "a", "on_expire": "hold"}, AT, "1.3.0", True)
    assert hold.drain.on_expire == "hold"


@pytest.mark.parametrize(
    ("saved", "last", "expected"),
    [
        (None, None, None),
        (None, "1.3.0", None),
        (None, "1.2.0", (drains.SELF, "verify")),
        ("own", "1.3.0", None),
        ("other", "1.3.0", ("a", "resume")),
        ("other", "1.2.0", ("a", "verify")),
    ],
)
def test_what_a_process_comes_up_with(saved: str | None, last: str | None, expected: tuple[str, str] | None) -> None:
    found = {
        None: None,
        "own": drains.at_startup(None, AT, "1.3.0", "1.2.0"),
        "other": begun(),
    }[saved]
    drain = drains.at_startup(found, AT, "1.3.0", last)
    assert (None if drain is None else (drain.owner, drain.on_expire)) == expected
    assert drain is None or drain.held


def test_over_a_restart_the_lease_ran_on_and_over_a_reboot_its_remainder_goes_on() -> None:
    drain = begun(lease_s=100.0)
    document = drains.save(drain, 130.0, "boot-1")
    assert drains.restore(document, 180.0, "boot-1").lease_ends - 180.0 == 20.0
    assert drains.restore(document, 7.0, "boot-2").lease_ends - 7.0 == 70.0
    assert drains.restore({**document, "future": 1}, 180.0, "boot-1") == drain


def test_time_demands_an_expiry_once_and_a_handover_only_if_asked() -> None:
    drain = begun(lease_s=30.0, deadline_s=10.0)
    assert drains.due_action(drain, 129.0) is None
    assert drains.due_action(drain, 130.0) == "expire"
    assert drains.due_action(replace(drain, expired=True), 130.0) is None
    asking = replace(drain, on_deadline="handover")
    assert drains.due_action(asking, 110.0) == "handover"
    assert drains.due_action(replace(asking, mode="handover"), 110.0) is None
    assert drains.next_instant(drain, 100.0) == 10.0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "body"),
        ({}, "owner"),
        ({"owner": ""}, "owner"),
        ({"owner": "a\nb"}, "owner"),
        ({"owner": "a", "mode": "quick"}, "mode"),
        ({"owner": "a", "lease_s": 4}, "lease_s"),
        ({"owner": "a", "lease_s": True}, "lease_s"),
        ({"owner": "a", "grace_s": -1}, "grace_s"),
        ({"owner": "a", "steal": "yes"}, "steal"),
        ({"owner": "a", "colour": 1}, "colour"),
    ],
)
def test_a_bad_field_is_named(body: Any, field: str) -> None:
    with pytest.raises(BadFieldError) as caught:
        drains.parse_request(body)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("drain", "wire", "opened", "state"),
    [
        (None, 3, 3, "running"),
        (begun(grace_s=5.0), 0, 0, "draining"),
        (begun(), 0, 1, "draining"),
        (begun(), 0, 0, "drained"),
        (begun(mode="handover"), 1, 1, "draining"),
        (begun(mode="handover"), 0, 9, "drained"),
        (replace(begun(grace_s=5.0), held=True), 0, 9, "drained"),
    ],
)
def test_asked_and_reached(drain: Drain | None, wire: int, opened: int, state: str) -> None:
    assert state_of("serving", drain, 100.0, wire, opened) == state
    assert state_of("stopping", drain, 100.0, wire, opened) == "stopping"


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.booleans(), st.sampled_from(drains.ON_EXPIRE), st.booleans()),
        max_size=12,
    )
)
def test_nobody_loses_a_live_drain_to_another_without_stealing(
    requests: list[tuple[str, bool, str, bool]],
) -> None:
    current: Drain | None = None
    for owner, steal, on_expire, unverified in requests:
        wish = {"owner": owner, "steal": steal, "on_expire": on_expire}
        decision = drains.decide(current, wish, AT, "1", unverified)
        if current is not None and current.owner != owner and not steal:
            assert decision.status == 409
            assert decision.drain == current
        else:
            assert decision.drain.owner == owner
            assert not (unverified and decision.drain.on_expire == "resume")
        current = decision.drain
