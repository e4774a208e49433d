# SPDX-License-Identifier: GPL-3.0-or-later
"""The light fleet carries a rollout: the real playbook, the real staging, and workers that only pretend to solve."""

from __future__ import annotations

import pytest
from lightfleet import LightFleet

pytestmark = pytest.mark.quick


def test_a_rollout_updates_every_worker_one_at_a_time(light_fleet: LightFleet) -> None:
    """With the screen of the collection: a line or two for each worker, and the verdict last."""
    light_fleet.up(4, drain_s=(0.2, 0.6))
    done = light_fleet.roll("1.3.0", env={"ANSIBLE_STDOUT_CALLBACK": "solver.fleet.rollout"})
    assert done.returncode == 0, done.stdout
    assert light_fleet.verdict()["verdict"] == "completed"
    assert set(light_fleet.versions().values()) == {"1.3.0"}
    light_fleet.assert_all_serve()
    assert light_fleet.most_out_at_once() == 1
    assert light_fleet.served_by_unverified() == []
    lines = done.stdout.splitlines()
    assert len(lines) <= 40, done.stdout
    assert [line for line in lines if line.startswith("w3 ")][:1] == ["w3 begins (3 of 4)"], done.stdout
    assert sum("w3 updated 1.2.0 -> 1.3.0" in line for line in lines) == 1, "said twice"
    assert not [line for line in lines if line.startswith(("TASK", "PLAY"))], done.stdout
    assert lines[-6].startswith("completed: 4 of 4 workers run 1.3.0"), done.stdout
    status = light_fleet.playbook("status", env={"ANSIBLE_STDOUT_CALLBACK": "solver.fleet.rollout"}).stdout
    (row,) = (line for line in status.splitlines() if line.startswith("w2 "))
    assert row.split()[:4] == ["w2", "1.3.0", "-", "running"], status
    assert "TASK" not in status, status
    assert "RECAP" not in status, status
    restarted = [event["worker"] for event in light_fleet.events() if event.get("state") == "stopped"]
    assert restarted == ["w1", "w2", "w3", "w4"]


def test_a_release_that_fails_its_probe_is_reverted_and_blamed(light_fleet: LightFleet) -> None:
    light_fleet.up(4)
    light_fleet.set_fault(version="1.3.0", probe="release")
    beside = {"ANSIBLE_CALLBACKS_ENABLED": "solver.fleet.progress"}  # as AWX has it, with a stdout callback of its own
    done = light_fleet.roll("1.3.0", env=beside, solver_max_unavailable=1, solver_max_fail_percentage=0)
    assert done.returncode == 2, done.stdout
    lines = [line.strip() for line in done.stdout.splitlines()]
    for said in ("w1 begins (1 of 4)", "w1: the same solve at ", "w1 is reverted to where it came from", "w1 REVERTED"):
        assert sum(line.startswith(said) for line in lines) == 1, f"{said}: never, or twice\n{done.stdout}"
    tasks = [line for line in lines if line.startswith("TASK [Look once more, give the verdict")]
    assert tasks, "the tasks are shown as ever"
    assert lines[-2].startswith("why: ") or lines[-1].startswith("why: "), done.stdout
    assert light_fleet.verdict()["verdict"] == "aborted", done.stdout
    assert light_fleet.outcomes() == {"w1": "reverted", **dict.fromkeys(("w2", "w3", "w4"), "not_attempted")}
    recap = next(line for line in lines if line.startswith("w4 ") and "skipped=" in line)
    # Each task that is skipped is a process, and in a large fleet most workers may not begin when a rollout ends early.
    assert int(recap.partition("skipped=")[2].split()[0]) <= 4, recap
    worker = light_fleet.verdict()["workers"][0]
    assert worker["cause"] == "release"
    assert "WRONG_ANSWER" in worker["reason"], worker
    assert set(light_fleet.versions().values()) == {"1.2.0"}
    light_fleet.assert_all_serve()
    assert light_fleet.most_out_at_once() == 1
    assert light_fleet.served_by_unverified() == []
