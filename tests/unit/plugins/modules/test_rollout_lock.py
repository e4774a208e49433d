# SPDX-License-Identifier: GPL-3.0-or-later
"""rollout_lock as real processes on a real file system."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
from release_kit import ROOT, end_module, run_module, start_module, tree

pytestmark = pytest.mark.programs


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
    assert done["invocation"]["module_args"]["outcome"] == "updated"
    assert "verdict" not in done["invocation"]["module_args"], "of a large fleet it is megabytes"
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
    for number in range(20):
        folder = tmp_path / str(number)
        racers = [start_module("rollout_lock", hold(folder, run)) for run in ("a", "b")]
        results = [end_module(racer) for racer in racers]
        assert sorted(bool(result.get("failed")) for result in results) == [False, True]
        record = json.loads((folder / "rollout/record.json").read_text(encoding="utf-8"))
        winner = next(result for result in results if not result.get("failed"))
        assert record["lock"]["run_id"] == winner["holder"]["run_id"]


@pytest.mark.parametrize("arguments", [{"ttl": 0}, {"ttl": -1}, {"ttl": float("nan")}, {"control_timeout": 0}])
def test_times_that_never_end_or_never_begin_are_refused(tmp_path, arguments):
    refused = run_module("rollout_lock", hold(tmp_path, **arguments))
    assert refused["failure"]["code"] == "bad_option"
    assert next(iter(arguments)) in refused["msg"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [
    {"state": "renewed", "run_id": "x"}, {"state": "released", "run_id": "x"},
    {"state": "requested", "request": "pause"}, {"state": "requested", "request": "none"}])
def test_only_taking_the_lock_makes_the_folder(tmp_path, arguments):
    result = run_module("rollout_lock", {"worker_dir": str(tmp_path / "w1"), **arguments})
    assert not result["changed"]
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_it_makes_is_open_to_the_service(tmp_path):
    run_module("rollout_lock", hold(tmp_path / "workers/w1"))
    assert (tmp_path / "workers/w1").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "workers/w1/rollout").stat().st_mode & 0o777 == 0o750


def test_a_damaged_record_stops_every_module_and_stays(tmp_path):
    (tmp_path / "rollout").mkdir()
    path = tmp_path / "rollout/record.json"
    path.write_text('{"schema": "solver.rollout/1", "seq": 4, "lock": {"run_id": 7}}', encoding="utf-8")
    (tmp_path / "rollout/lock").touch()
    before = tree(tmp_path)
    release = {"end": {"state": "released", "run_id": "run1"}, "go_on": {"state": "renewed", "run_id": "run1"}}
    for arguments in (hold(tmp_path), {"worker_dir": str(tmp_path), **release["end"]},
                      {"worker_dir": str(tmp_path), **release["go_on"]}):
        refused = run_module("rollout_lock", arguments)
        assert refused["failure"]["code"] == "bad_record"
        assert str(path) in refused["msg"]
    info = run_module("worker_info", {"worker_dir": str(tmp_path), "control_socket": str(tmp_path / "no.sock")})
    assert not info.get("failed")
    assert info["lock_state"] == "unknown"
    assert str(path) in info["record_problem"]
    assert tree(tmp_path) == before


def test_worker_info_tells_of_the_lock(tmp_path):
    ask = {"worker_dir": str(tmp_path), "control_socket": str(tmp_path / "no.sock")}
    none = run_module("worker_info", ask)
    assert (none["rollout"], none["lock_state"]) == (None, "free")
    run_module("rollout_lock", hold(tmp_path))
    held = run_module("worker_info", ask)
    assert (held["rollout"]["lock"]["run_id"], held["lock_state"]) == ("run1", "held")
    run_module("rollout_lock", {"worker_dir": str(tmp_path), "state": "renewed", "run_id": "run1", "ttl": 0.01})
    deadline = time.monotonic() + 10
    while run_module("worker_info", ask)["lock_state"] != "expired":
        assert time.monotonic() < deadline


def fenced_calls(folder):
    """Every module that changes a worker, with the token of a run that does not hold the lock."""
    drain = {"worker_dir": str(folder), "control_socket": str(folder / "no.sock"), "owner": "r1", "absent_ok": True}
    switch = {"worker_name": "w1", "worker_dir": str(folder), "base_dir": str(folder), "owner": "r1",
              "control_socket": str(folder / "no.sock"), "state": "active", "release": "any"}
    return [("worker_drain", drain), ("worker_drain", {**drain, "state": "active"}), ("worker_release", switch)]


def test_a_run_without_the_lock_is_fenced_before_it_touches_anything(tmp_path):
    for setup in (None, "run1"):
        if setup:
            run_module("rollout_lock", hold(tmp_path, setup))
        before = tree(tmp_path)
        for name, arguments in fenced_calls(tmp_path):
            refused = run_module(name, {**arguments, "run_id": "run2"})
            assert refused["failure"]["code"] == "fenced", (name, refused)
            assert not refused["changed"]
        assert tree(tmp_path) == before
    drained = run_module("worker_drain", {**fenced_calls(tmp_path)[0][1], "run_id": "run1"})
    assert drained["done"], drained


WORKING = """
import sys
from ansible_collections.solver.fleet.plugins.module_utils._record_file import RecordFile
with RecordFile(sys.argv[1]).fence("run1"):
    print("at work", flush=True)
    sys.stdin.read()
"""


def test_who_takes_the_lock_waits_for_the_module_that_is_at_work(tmp_path):
    """And a killed one holds nobody up."""
    run_module("rollout_lock", hold(tmp_path))
    for end in (signal.SIGTERM, signal.SIGKILL):
        run_module("rollout_lock", hold(tmp_path, steal=True, reason="again"))
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKING, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT / ".collections")})
        try:
            assert worker.stdout
            assert worker.stdout.readline() == b"at work\n"
            taking = start_module("rollout_lock", hold(tmp_path, "run2", steal=True, reason="known to be dead"))
            with pytest.raises(subprocess.TimeoutExpired):
                taking.wait(1.0)
        finally:
            worker.send_signal(end)
            worker.communicate()
        assert end_module(taking)["holder"]["run_id"] == "run2"


def test_killed_in_the_middle_the_lock_is_the_old_or_the_new_one(tmp_path):
    """The module itself, ended by force at any moment between its start and its answer."""
    began = time.monotonic()
    run_module("rollout_lock", hold(tmp_path))
    took = time.monotonic() - began
    for number in range(12):
        taking = start_module("rollout_lock", hold(tmp_path, f"next{number}", steal=True, reason="x"))
        old = json.loads((tmp_path / "rollout/record.json").read_text(encoding="utf-8"))
        with contextlib.suppress(subprocess.TimeoutExpired):
            taking.wait(took * (0.5 + number / 16))
        taking.kill()
        taking.communicate()
        new = json.loads((tmp_path / "rollout/record.json").read_text(encoding="utf-8"))
        assert new["lock"]["run_id"] in (old["lock"]["run_id"], f"next{number}")
        assert new["seq"] == old["seq"] + (new["lock"]["run_id"] != old["lock"]["run_id"])
    assert run_module("rollout_lock", hold(tmp_path, "last", steal=True, reason="x"))["ours"]


LIMITED = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
sys.argv[:] = [sys.argv[1]]
runpy.run_module("ansible_collections.solver.fleet.plugins.modules.rollout_lock", run_name="__main__")
"""


def run_limited(arguments, size):
    """The module on a disk that takes no file larger than SIZE."""
    answer = subprocess.run(
        [sys.executable, "-c", LIMITED, str(size), "rollout_lock"],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}), capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / ".collections")})
    assert "Traceback" not in answer.stderr, answer.stderr
    return json.loads(answer.stdout)


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="this system limits no file sizes")
def test_a_disk_that_is_full_is_said_and_the_record_stays(tmp_path):
    run_module("rollout_lock", hold(tmp_path))
    before = tree(tmp_path)
    for arguments in (hold(tmp_path, "run2", steal=True, reason="x"),
                      {"worker_dir": str(tmp_path), "state": "renewed", "run_id": "run1"}):
        refused = run_limited(arguments, 100)
        assert refused["failure"]["code"] == "no_space", refused
        assert "make room" in refused["msg"]
        assert refused["holder"]["run_id"] == "run1"
        assert tree(tmp_path) == before


def test_a_history_that_cannot_be_written_does_not_keep_the_lock(tmp_path):
    run_module("rollout_lock", hold(tmp_path))
    verdict = {"verdict": "completed", "rollout_id": "r1", "log": "x" * 20_000}
    refused = run_limited(
        {"worker_dir": str(tmp_path), "state": "released", "run_id": "run1", "verdict": verdict}, 10_000)
    assert refused["failure"]["code"] == "no_space"
    assert refused["holder"] is None
    assert refused["record"]["rollout"]["verdict"] == "completed"
    assert list((tmp_path / "rollout/history").iterdir()) == []
