# SPDX-License-Identifier: GPL-3.0-or-later
"""What is seen of a rollout: its report, its status while it runs and afterwards, its history."""

from __future__ import annotations

import itertools

import pytest
from fleetlib import VERDICT
from lightfleet import LightFleet


@pytest.mark.quick
def test_a_rollout_leaves_a_report_of_what_happened_when(light_fleet: LightFleet) -> None:
    fleet = light_fleet.up(3, drain_s=(0.3, 0.6))
    fleet.set_fault("w2", version="1.3.0", probe="release")
    path = fleet.dir / "report.html"
    done = fleet.roll("1.3.0", solver_report_file=str(path), solver_max_fail_percentage=50)
    assert done.returncode == 2, done.stdout
    document = fleet.verdict()
    assert list(VERDICT.iter_errors(document)) == []
    assert fleet.outcomes() == {"w1": "updated", "w2": "reverted", "w3": "updated"}, done.stdout
    for worker in document["workers"]:
        steps = worker["steps"]
        assert [own["step"] for own in steps][:3] == ["drain", "switch", "verify"], worker
        assert all(own["from_s"] <= own["to_s"] for own in steps)
        assert all(one["to_s"] <= after["from_s"] + 0.02 for one, after in itertools.pairwise(steps)), steps
        assert steps[0]["to_s"] - steps[0]["from_s"] >= 0.25, "a drain takes as long as its tasks"
    assert [own["step"] for own in document["workers"][1]["steps"] if not own["ok"]] == ["verify"]
    assert {min(own["serving"] for own in document["samples"]), document["samples"][-1]["serving"]} == {2, 3}
    assert document["samples"][-1]["versions"] == {"1.2.0": 1, "1.3.0": 2}
    assert document["spent"] == ["w2"]
    text = path.read_text(encoding="utf-8")
    assert "w2: reverted, cause: release" in text
    assert "WRONG_ANSWER" in text
