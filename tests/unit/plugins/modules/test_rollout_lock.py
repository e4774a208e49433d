# SPDX-License-Identifier: GPL-3.0-or-later
"""rollout_lock as real processes on a real file system."""

from __future__ import annotations

import json

import pytest
from release_kit import end_module, run_module, start_module


def hold(folder, run="run1", rollout="r1", **more):
    return {"worker_dir": str(folder), "state": "held", "rollout_id": rollout, "run_id": run, "user": "ada",
            "from_release": "old", "from_version": "1.2.0", "to_release": "new", "to_version": "1.3.0",
            "target": "1.3.0", "controller": {"host": "deck"}, **more}


def test_take_renew_give_back(tmp_path):
    taken = run_module("rollout_lock", hold(tmp_path))
    assert taken["changed"]
    assert taken["ours"]
    assert taken["record"]["rollout"]["from"] == {"release": "old", "version": "1.2.0"}
    refused = run_module("rollout_lock", hold(tmp_path, "run2"))
    assert refused["failed"]
    assert refused["failure"]["code"] == "held"
    assert refused["holder"]["run_id"] == "run1"
    assert not refused["ours"]
    renewed = run_module("rollout_lock", {"worker_dir": str(tmp_path), "state": "renewed", "run_id": "run1"})
    assert renewed["record"]["seq"] == taken["record"]["seq"] + 1
    lost = run_module("rollout_lock", {"worker_dir": str(tmp_path), "state": "renewed", "run_id": "run2"})
    assert lost["failure"]["code"] == "lock_lost"
    stranger = run_module("rollout_lock", {"worker_dir": str(tmp_path), "state": "released", "run_id": "run2"})
    assert not stranger["changed"]
    end = {"worker_dir": str(tmp_path), "state": "released", "run_id": "run1", "roster": ["w2", "w1"],
           "outcome": "updated", "verdict": {"verdict": "completed", "rollout_id": "r1"}}
    done = run_module("rollout_lock", end)
    assert done["changed"]
    assert done["holder"] is None
    assert done["record"]["roster"] == ["w1", "w2"]
    assert done["record"]["rollout"]["verdict"] == "completed"
    assert not run_module("rollout_lock", end)["changed"]
    assert len(list((tmp_path / "rollout/history").glob("*.json"))) == 1
    run_module("rollout_lock", hold(tmp_path))
    assert run_module("rollout_lock", {**end, "history": False})["record"]["rollout"]["verdict"] == "completed"
    assert len(list((tmp_path / "rollout/history").glob("*.json"))) == 1
    assert (tmp_path / "rollout/record.json").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "rollout").stat().st_mode & 0o777 == 0o750


def test_requests_need_a_rollout(tmp_path):
    ask = {"worker_dir": str(tmp_path), "state": "requested", "request": "pause", "by": "eve"}
    assert run_module("rollout_lock", ask)["failure"]["code"] == "no_rollout"
    run_module("rollout_lock", hold(tmp_path))
    assert run_module("rollout_lock", ask)["record"]["request"]["what"] == "pause"
    assert not run_module("rollout_lock", ask)["changed"]
    assert run_module("rollout_lock", {**ask, "request": "none"})["record"]["request"] is None


def test_check_mode_says_what_it_would_do_and_writes_nothing(tmp_path):
    result = run_module("rollout_lock", hold(tmp_path), check_mode=True)
    assert result["changed"]
    assert list(tmp_path.iterdir()) == []


def test_a_silent_worker_keeps_nobody_from_the_lock(tmp_path):
    result = run_module("rollout_lock", hold(tmp_path, control_socket=str(tmp_path / "no.sock")))
    assert result["ours"]
    assert result["census"]["finding"] == "stopped"


@pytest.mark.parametrize("arguments", [{"state": "held", "run_id": "x"}, {"state": "renewed"}, {"state": "released"}])
def test_what_is_needed_is_said(tmp_path, arguments):
    assert "missing" in run_module("rollout_lock", {"worker_dir": str(tmp_path), **arguments})["msg"]


def test_two_at_once_exactly_one_wins(tmp_path):
    for number in range(6):
        folder = tmp_path / str(number)
        racers = [start_module("rollout_lock", hold(folder, run)) for run in ("a", "b", "c")]
        results = [end_module(racer) for racer in racers]
        assert sorted(bool(result.get("failed")) for result in results) == [False, True, True]
        record = json.loads((folder / "rollout/record.json").read_text(encoding="utf-8"))
        winner = next(result for result in results if not result.get("failed"))
        assert record["lock"]["run_id"] == winner["holder"]["run_id"]
