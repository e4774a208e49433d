# SPDX-License-Identifier: GPL-3.0-or-later
"""The rollout's record: decisions over plain records, against the invariants, and the file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC
from pathlib import Path

import pytest
from ansible_collections.solver.fleet.plugins.module_utils import _record as record
from ansible_collections.solver.fleet.plugins.module_utils._files import StepError
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[4]
OLD, NEW = {"version": "1.2.0", "release": "old"}, {"version": "1.3.0", "release": "new"}


def at(seconds=0.0, boot="b1"):
    wall = 1_700_000_000 + seconds
    from datetime import datetime

    text = datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return record.Now(text, {"host_boot_id": boot, "uptime_s": 1000.0 + seconds})


def claim(run="run1", rollout="r1", **more):
    return record.Claim(rollout_id=rollout, run_id=run, release_from=OLD, release_to=NEW, target="1.3.0", **more)


def take(known, wanted, now=None):
    refused = record.refusal(known, wanted, now or at())
    if refused:
        raise refused
    return record.held(known, wanted, now or at())


def test_a_held_lock_is_refused_with_its_holder_and_the_remedies():
    held = take(record.empty(), claim(user="ada", reason="night", controller={"host": "deck"}))
    with pytest.raises(StepError) as caught:
        take(held, claim("run2"), at(60))
    assert caught.value.code == "held"
    assert "ada on deck (night)" in caught.value.message
    assert "renewed 60 s ago" in caught.value.message
    assert "solver_lock_steal" in caught.value.message


@pytest.mark.parametrize("more", [{"dead_runs": ("run1",)}, {"steal": True}])
def test_a_dead_or_stolen_lock_is_taken(more):
    held = take(record.empty(), claim())
    assert take(held, claim("run2", **more))["lock"]["run_id"] == "run2"


def test_the_same_rollout_keeps_where_the_worker_came_from():
    first = take(record.empty(), claim())
    again = take(record.released(first, None, {}, at()), claim("run2")._replace(release_from=NEW))
    assert again["rollout"]["from"] == OLD
    other = take(record.released(again, None, {}, at()), claim("run3")._replace(
        release_from=NEW, release_to={"version": "1.3.0", "release": "newer"}))
    assert other["rollout"]["from"] == NEW


def test_another_rollout_closes_an_open_one_as_superseded():
    first = record.released(take(record.empty(), claim()), None, {}, at())
    assert take(first, claim("run2", "r2"))["superseded"][0]["id"] == "r1"
    ended = record.released(take(record.empty(), claim()), None, {"verdict": "completed"}, at())
    assert take(ended, claim("run2", "r2"))["superseded"] == []


def test_a_lock_without_a_release_leaves_the_last_rollout_alone():
    first = record.released(take(record.empty(), claim()), None, {}, at())
    recovering = take(first, claim("run2", "recover-1")._replace(release_to=None))
    assert recovering["rollout"]["id"] == "r1"
    assert record.released(recovering, None, {"verdict": "completed"}, at())["rollout"]["verdict"] is None


def test_expiry_goes_by_the_steady_clock_within_a_boot_and_by_the_wall_after_one():
    held = take(record.empty(), claim(ttl=100.0))
    stepped = record.Now(at(100_000).wall, at(50).clock)  # the wall clock was set, 50 s went by
    assert record.lock_state(held, stepped) == "held"
    assert record.lock_state(held, at(101)) == "expired"
    assert record.lock_state(held, record.Now(at(101).wall, {"host_boot_id": "b2", "uptime_s": 1.0})) == "expired"
    assert record.lock_state(held, record.Now(at(99).wall, {"host_boot_id": "b2", "uptime_s": 9e9})) == "held"


def test_somebody_else_did_something_since_the_census():
    with pytest.raises(StepError) as caught:
        take(dict(record.empty(), seq=4), claim(expected_seq=3))
    assert caught.value.code == "changed"


STEPS = st.lists(st.tuples(
    st.sampled_from(["hold", "renew", "release", "request"]), st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["r1", "r2"]), st.floats(0, 200)), max_size=30)


@given(STEPS)
def test_any_history_keeps_the_invariants(steps):
    """Never two holders; who is not the holder changes nothing; seq only rises; an expired lock can be taken."""
    now, known, holder = 0.0, record.empty(), None
    for what, run, rollout, pause in steps:
        now += pause
        before = known
        state = record.lock_state(known, at(now))
        if what == "hold":
            wanted = claim(run, rollout, ttl=100.0)
            if record.refusal(known, wanted, at(now)) is None:
                assert state != "held" or holder == run
                known, holder = record.held(known, wanted, at(now)), run
            else:
                assert state == "held"
                assert holder != run
        elif what == "request":
            known = record.requested(known, "pause", "ada", "", at(now))
        elif record.is_ours(known, run):
            assert holder == run
            known = record.renewed(known, 100.0, at(now)) if what == "renew" else record.released(
                known, ["w1"], {"verdict": "completed"}, at(now))
            holder = run if what == "renew" else None
        assert known is before or known["seq"] == before["seq"] + 1
        assert (known["lock"] or {}).get("run_id") == holder
        assert len(known["superseded"]) <= record.KEEP_SUPERSEDED


def test_a_damaged_record_is_an_error_that_names_the_file(tmp_path):
    (tmp_path / "rollout").mkdir()
    path = tmp_path / "rollout/record.json"
    for text in ('{"schema": "other"}', "{", '{"schema": "solver.rollout/1"}'):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(StepError) as caught:
            record.RecordFile(str(tmp_path)).read()
        assert caught.value.code == "bad_record"
        assert str(path) in caught.value.message
        assert path.read_text(encoding="utf-8") == text
    assert record.look(str(tmp_path))["lock_state"] == "unknown"


def test_the_history_keeps_the_newest_twenty(tmp_path):
    file = record.RecordFile(str(tmp_path))
    with file.guarded(exclusive=True):
        for number in range(25):
            file.append_history({"rollout_id": f"r/{number}", "n": number}, at(number))
    kept = sorted(Path(file.history).iterdir())
    assert [json.loads(path.read_text("utf-8"))["n"] for path in kept] == list(range(5, 25))


def test_the_fence_lets_only_the_holder_work(tmp_path):
    file = record.RecordFile(str(tmp_path))
    with file.guarded(exclusive=True):
        file.write(take(record.empty(), claim("run1")))
    with file.fence("run1"):
        pass
    with file.fence(None):
        pass
    with pytest.raises(StepError) as caught, file.fence("run2"):
        raise AssertionError("got through")
    assert caught.value.code == "fenced"


def test_while_a_module_works_nobody_takes_the_lock(tmp_path):
    file = record.RecordFile(str(tmp_path))
    with file.guarded(exclusive=True):
        file.write(take(record.empty(), claim("run1")))
    moments = iter(range(100))
    taking = file.guarded(True, wait=3, clock=lambda: float(next(moments)), sleep=lambda _s: None)
    with file.fence("run1"), pytest.raises(StepError, match="another module is at work"):
        taking.__enter__()


WRITER = """
import sys
from ansible_collections.solver.fleet.plugins.module_utils import _record as record
file = record.RecordFile(sys.argv[1])
n = 0
with file.guarded(exclusive=True):
    while True:
        n += 1
        file.write(dict(record.empty(), seq=n, roster=["w" * 50] * 200))
        print(n, flush=True)
"""


def test_killed_while_it_writes_the_record_is_whole(tmp_path):
    for _round in range(5):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True,
                                   env={**os.environ, "PYTHONPATH": str(ROOT / ".collections")})
        said = 0
        for line in process.stdout or ():
            said = int(line)
            if said >= 20:
                break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        found = record.RecordFile(str(tmp_path)).read()
        assert found is not None
        assert found["seq"] >= said
        with record.RecordFile(str(tmp_path)).guarded(exclusive=True, wait=1):
            pass


def test_a_full_disk_is_said_and_leaves_the_old_record(tmp_path, monkeypatch):
    file = record.RecordFile(str(tmp_path))
    with file.guarded(exclusive=True):
        file.write(dict(record.empty(), seq=1))

        def full(*_args, **_kwargs):
            raise OSError(28, "No space left on device", str(tmp_path))

        monkeypatch.setattr(record, "write_file", full)
        with pytest.raises(StepError) as caught:
            file.write(dict(record.empty(), seq=2))
    assert caught.value.code == "no_space"
    assert "make room" in caught.value.message
    assert file.read()["seq"] == 1
