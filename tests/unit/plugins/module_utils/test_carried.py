# SPDX-License-Identifier: GPL-3.0-or-later
"""What a step of a worker's turn takes from the steps before it."""

from __future__ import annotations

import json

import pytest
from ansible_collections.solver.fleet.plugins.module_utils._carried import carried, trimmed
from hypothesis import given
from hypothesis import strategies as st

CLOCK = {"host_boot_id": "h", "uptime_s": 12.5}
LATER = {"host_boot_id": "h", "uptime_s": 30.0}
TURN = {
    "drain": {"done": True, "forced": False, "host_clock": CLOCK, "worker": {"state": "drained"}},
    "switch": {"restarted": True, "switched": True, "boot_id_before": "b1", "boot_id": "b2",
               "totals_before": {"accepted": 3}},
    "verify": {"done": True, "worker": {"instance": {"boot_id": "b2", "version": "1.3.0"}}},
    "resume": {"done": True, "host_clock": LATER},
    "revert_drain": {"done": True, "forced": False},
    "revert": {"release": {"id": "old", "version": "1.2.0", "schema": "x"}},
}


@pytest.mark.parametrize(("name", "expected"), [
    ("drain", {}),
    ("switch", {}),
    ("verify", {"since": CLOCK, "totals_before": {"accepted": 3}, "expect_boot_id_not": "b1",
                "expect_boot_id": "b2"}),
    ("resume", {}),
    ("soak", {"expect_boot_id": "b2", "soak_since": LATER}),
    ("record", {}),
    ("revert_drain", {}),
    ("revert", {}),
    ("revert_verify", {"expect_version": "1.2.0", "expect_release": "old", "totals_before": {"accepted": 3}}),
    ("revert_resume", {}),
])
def test_a_turn(name, expected):
    assert carried(name, TURN) == expected
    assert carried(name, json.loads(json.dumps(trimmed(TURN)))) == expected


@pytest.mark.parametrize(("name", "changes", "expected"), [
    ("switch", {"drain": {"forced": True}}, {"force_restart": True}),
    ("revert", {"revert_drain": {"forced": True}}, {"force_restart": True}),
    ("revert", {"revert_drain": {"failed": True, "failure": {"code": "hung"}}}, {"force_restart": True}),
    # an old process that did not answer had no id, and one that was not restarted is the same
    ("verify", {"drain": {}, "switch": {"restarted": True, "boot_id_before": None, "boot_id": "b2"}},
     {"expect_boot_id": "b2"}),
    ("verify", {"switch": {"restarted": False, "boot_id_before": "b1", "boot_id": "b1"}}, {"since": CLOCK}),
    ("verify", {"switch": {"totals_before": None}}, {"since": CLOCK}),
    ("soak", {"verify": {"worker": None}, "resume": {}}, {}),
])
def test_what_happened_decides(name, changes, expected):
    results = {**TURN, **changes}
    assert carried(name, results) == expected
    assert carried(name, trimmed(results)) == expected


def test_little_is_carried():
    assert "state" not in json.dumps(trimmed(TURN))
    assert trimmed({"record": {"changed": True}, "drain": {}}) == {}


JUNK = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(
                        st.sampled_from(["worker", "instance", "boot_id", "release", "id", "host_clock", "forced"]),
                        inner, max_size=3), max_leaves=8)


@given(st.dictionaries(st.sampled_from(sorted(TURN)), JUNK))
def test_whatever_a_result_holds_it_never_crashes_and_trimming_loses_nothing(results):
    for name in (*TURN, "soak", "revert_verify"):
        assert carried(name, trimmed(results)) == carried(name, results)
