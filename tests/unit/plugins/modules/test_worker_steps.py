# SPDX-License-Identifier: GPL-3.0-or-later
"""worker_steps as a real process."""

from __future__ import annotations

from release_kit import run_module


def record(folder, state="renewed", **more):
    return {"name": more.pop("name", "record"), "module": "rollout_lock",
            "args": {"worker_dir": str(folder), "state": state, "run_id": "run1", **more}}


def test_the_results_are_those_of_the_modules(tmp_path):
    hold = {"worker_dir": str(tmp_path), "rollout_id": "r1", "run_id": "run1", "to_release": "new", "to_version": "2"}
    run_module("rollout_lock", hold)
    steps = [record(tmp_path, outcome="updated"), record(tmp_path, name="again", run_id="run2"),
             record(tmp_path, name="never")]
    result = run_module("worker_steps", {"steps": steps})
    assert not result.get("failed")
    assert list(result["done_steps"]) == ["record", "again"]
    assert result["done_steps"]["record"]["record"]["rollout"]["outcome"] == "updated"
    alone = run_module("rollout_lock", steps[1]["args"])
    again = result["done_steps"]["again"]
    assert (again["failed"], again["failure"]["code"]) == (True, "lock_lost")
    assert set(alone) - set(again) == {"invocation"}
    assert set(again) - set(alone) == {"took_s"}
    assert 0 <= again["took_s"] < 60


def test_a_ttl_beyond_all_bounds_in_a_record_crashes_nothing(tmp_path):
    hold = {"worker_dir": str(tmp_path), "rollout_id": "r1", "run_id": "run1"}
    run_module("rollout_lock", hold)
    path = tmp_path / "rollout/record.json"
    for ttl in ("1e400", "1" + "0" * 400, "-1", "NaN"):
        text = path.read_text()
        path.write_text(text.replace('"ttl_s": 1800.0', f'"ttl_s": {ttl}'))
        result = run_module("worker_steps", {"steps": [record(tmp_path)]})["done_steps"]["record"]
        path.write_text(text)
        assert (result["failure"]["code"], result["failure"]["cause"]) == ("bad_record", "host"), ttl


def test_wrong_options_are_said(tmp_path):
    result = run_module("worker_steps", {"steps": [record(tmp_path, colour="red")]})
    assert result["failed"]
    assert "reading the step record: colour" in result["msg"]
    assert result["failure"]["code"] == "bad_option"
