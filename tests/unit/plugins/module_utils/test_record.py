# SPDX-License-Identifier: GPL-3.0-or-later
"""The rollout's record: decisions over plain records, against the invariants, and the file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from ansible_collections.solver.fleet.plugins.module_utils import _record as record
from ansible_collections.solver.fleet.plugins.module_utils import _record_file as files
from ansible_collections.solver.fleet.plugins.module_utils._files import StepError
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[4]
OLD, NEW = {"version": "1.2.0", "release": "old"}, {"version": "1.3.0", "release": "new"}


def at(seconds=0.0, boot="b1"):
    wall = 1_700_000_000 + seconds
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


def test_a_run_that_does_not_get_the_whole_fleet_leaves_the_record_as_it_was():
    """Else an interrupted rollout would be forgotten, and with it where the worker came from."""
    interrupted = take(record.empty(), claim())
    for rollout in ("r1", "r2"):
        refused = take(interrupted, claim("run2", rollout, steal=True)._replace(release_from=NEW))
        again = take(refused, claim("run2", rollout)._replace(release_from=NEW))  # its connection broke in between
        given_back = record.released(again, None, {}, at())
        assert (given_back["rollout"], given_back["superseded"]) == (interrupted["rollout"], [])
        assert given_back["lock"] is None


def test_what_became_of_a_worker_is_kept_while_the_rollout_goes_on():
    held = take(record.empty(), claim())
    became = {"outcome": "reverted", "cause": "release", "outcome_reason": "verify: no"}
    known = record.renewed(held, 1800.0, at(5), became)
    assert (known["rollout"]["outcome"], known["rollout"]["ended_at"]) == ("reverted", None)
    # not of a rollout before it, which the worker still remembers because this one leaves it alone
    left_alone = take(known, claim("run2", "r2", steal=True)._replace(release_to=None))
    assert record.renewed(left_alone, 1800.0, at(9), {**became, "outcome": "updated"})["rollout"] == known["rollout"]


def test_rollouts_are_ordered_by_the_clock_of_the_controller():
    held = take(record.empty(), claim(started_at="2026-11-24T01:00:00Z"))
    assert held["rollout"]["started_at"] == "2026-11-24T01:00:00Z"


def test_the_same_rollout_keeps_where_the_worker_came_from():
    first = take(record.empty(), claim())
    again = take(record.released(first, None, {"verdict": "paused"}, at()), claim("run2")._replace(release_from=NEW))
    assert again["rollout"]["from"] == OLD
    other = take(record.released(again, None, {}, at()), claim("run3")._replace(
        release_from=NEW, release_to={"version": "1.3.0", "release": "newer"}))
    assert other["rollout"]["from"] == NEW
    unnamed = take(again, claim("run2")._replace(release_from=NEW, release_to={"version": None, "release": "new"}))
    assert unnamed["rollout"]["from"] == OLD, "the release decides, not how its version is called"


def test_another_rollout_closes_an_open_one_as_superseded():
    interrupted = take(record.empty(), claim())
    assert take(interrupted, claim("run2", "r2", dead_runs=("run1",)))["superseded"][0]["id"] == "r1"
    end = {"verdict": "completed", "outcome": "updated"}
    ended = record.released(take(record.empty(), claim()), None, end, at())
    assert take(ended, claim("run2", "r2"))["superseded"] == []


@pytest.mark.parametrize("verdict", ["aborted", "incomplete", "rollback_failed", "inconclusive", "paused"])
def test_the_drains_of_a_rollout_that_failed_are_still_known_after_another_one_began(verdict):
    ended = record.released(take(record.empty(), claim()), None, {"verdict": verdict}, at())
    assert [old["id"] for old in take(ended, claim("run2", "r2"))["superseded"]] == ["r1"]


def test_the_drain_of_a_worker_that_stayed_quarantined_is_known_though_the_others_went_back():
    end = {"verdict": "rolled_back", "outcome": "quarantined"}
    ended = record.released(take(record.empty(), claim()), None, end, at())
    assert [old["id"] for old in take(ended, claim("run2", "r2"))["superseded"]] == ["r1"]


def test_a_claim_that_is_sent_twice_is_taken_once_and_keeps_a_request():
    known = record.requested(take(record.empty(), claim(expected_seq=0)), "pause", "ada", "", at())
    again = take(known, claim(expected_seq=0), at(5))
    assert again["request"]["what"] == "pause"
    assert again["lock"]["acquired_at"] == known["lock"]["acquired_at"]
    with pytest.raises(StepError) as caught:
        take(known, claim("run2", expected_seq=0))
    assert caught.value.code == "changed"
    assert take(known, claim("run2", steal=True))["request"] is None, "it was meant for the run before"


def test_a_lock_without_a_release_leaves_the_last_rollout_alone():
    interrupted = take(record.empty(), claim())
    recovering = take(interrupted, claim("run2", "recover-1", dead_runs=("run1",))._replace(release_to=None))
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
    st.sampled_from(["hold", "hold", "renew", "release", "request"]), st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["r1", "r2"]), st.sampled_from(["new", "newer"]), st.sampled_from(["", "", "dead", "steal"]),
    st.sampled_from(["", "completed", "aborted"]), st.floats(0, 200)), max_size=30)


class Model:
    """What must be true of any record, kept beside it by simpler means."""

    def __init__(self):
        self.known, self.holder, self.number = record.empty(), None, 0

    def step(self, what, run, rollout, release, how, verdict, now):
        """Do one thing; returns the record before."""
        before = self.known
        if what == "hold":
            self._hold(run, rollout, release, how, now)
        elif what == "request":
            self.known = record.requested(before, "pause", "ada", "", at(now))
        elif record.is_ours(before, run):
            assert self.holder == run
            end = {"verdict": verdict} if verdict else {}
            self.known = record.renewed(before, 100.0, at(now)) if what == "renew" else record.released(
                before, ["w1"], end, at(now))
            self.holder = run if what == "renew" else None
        else:
            assert self.holder != run
        return before

    def _hold(self, run, rollout, release, how, now):
        before, state = self.known, record.lock_state(self.known, at(now))
        self.number += 1
        wanted = claim(run, rollout, ttl=100.0, steal=how == "steal", dead_runs=(str(self.holder),) * (how == "dead"))
        wanted = wanted._replace(release_from={"version": "?", "release": f"from-{self.number}"},
                                 release_to={"version": "1.3.0", "release": release})
        refused = record.refusal(before, wanted, at(now))
        assert (refused is None) == (state != "held" or self.holder == run or bool(how))
        if refused is None:
            self.known, self.holder = record.held(before, wanted, at(now)), run
            self._from(before["rollout"], self.known["rollout"])

    def _from(self, old, new):
        same = old is not None and (old["id"], old["to"]["release"]) == (new["id"], new["to"]["release"])
        assert new["from"] == (old["from"] if same else {"version": "?", "release": f"from-{self.number}"})


@given(STEPS)
def test_any_history_keeps_the_invariants(steps):
    """Never two holders; who is not the holder changes nothing; seq only rises; an expired lock can be taken; what a
    worker came from stays known to the same rollout; and every state can be written and read again."""
    now, model = 0.0, Model()
    for *what, pause in steps:
        now += pause
        before = model.step(*what, now)
        known = model.known
        assert known is before or known["seq"] == before["seq"] + 1
        assert (known["lock"] or {}).get("run_id") == model.holder
        assert len(known["superseded"]) <= record.KEEP_SUPERSEDED
        assert record.defect(json.loads(json.dumps(known))) is None


def base(**change):
    return {"schema": "solver.rollout/1", "seq": 3, **change}


LOCK = {"run_id": "a", "ttl_s": 5, "renewed_at": "2026-01-01T00:00:00Z"}
DAMAGED = [
    "{", "[]", "", '{"schema": "other"}', '{"schema": "solver.rollout/1"}',
    base(seq=True), base(seq=-1), base(lock="x"), base(roster={}), base(superseded={}), base(request=[1]),
    base(rollout={"kind": "update"}), base(lock={"run_id": ""}), base(lock={**LOCK, "ttl_s": "5"}),
    base(lock={**LOCK, "ttl_s": float("nan")}), base(lock={**LOCK, "renewed_at": "yesterday"}),
    base(lock={**LOCK, "controller": "deck"}), base(lock={**LOCK, "renewed_clock": "noon"}),
    base(lock={**LOCK, "renewed_clock": {"host_boot_id": "b1"}}),
    # what no clock and no name can be
    base(lock={**LOCK, "ttl_s": 10**400}), base(lock={**LOCK, "ttl_s": -1}), base(lock={**LOCK, "ttl_s": 1e9}),
    json.dumps(base(lock={**LOCK, "ttl_s": 5.5})).replace("5.5", "1e400"),
    base(lock={**LOCK, "renewed_clock": {"host_boot_id": "b1", "uptime_s": 10**400}}),
    base(lock={**LOCK, "run_id": "a\x1b[2J"}), base(seq=10**400), base(rollout={"id": {"a": 1}}),
    base(roster=["w1", 2]), base(roster=["w" * 501]), base(superseded=["x"]), base(superseded=[{"id": None}]),
]


def test_a_damaged_record_is_an_error_that_names_the_file(tmp_path):
    (tmp_path / "rollout").mkdir()
    path = tmp_path / "rollout/record.json"
    for damaged in DAMAGED:
        text = damaged if isinstance(damaged, str) else json.dumps(damaged)
        path.write_text(text, encoding="utf-8")
        with pytest.raises(StepError) as caught:
            files.RecordFile(str(tmp_path)).read()
        assert caught.value.code == "bad_record", damaged
        assert str(path) in caught.value.message
        assert path.read_text(encoding="utf-8") == text
        assert files.look(str(tmp_path))["lock_state"] == "unknown"


def test_the_holder_is_said_in_one_way():
    lock = {"rollout_id": "r1", "user": "ada", "controller": {"host": "deck"}, "reason": "night\nshift\x1b[2J",
            "acquired_at": "then", "renewed_at": "2026-01-01T00:00:00Z"}
    at = record.Now("2026-01-01T00:00:07Z", {})
    assert record.in_words(lock, at) == (
        "rollout r1 of ada on deck (night shift [2J) holds it since then, renewed 7 s ago")
    assert record.in_words({**lock, "job": 8}, what="w1, w2") == (
        "rollout r1 of AWX job 8 (night shift [2J) holds w1, w2 since then, last seen 2026-01-01T00:00:00Z")
    assert record.in_words({**lock, "job": 8, "controller": {"host": "deck", "url": "https://awx/#/jobs/playbook/8"}}
                           ).startswith("rollout r1 of AWX job 8 at https://awx/#/jobs/playbook/8 (night shift")


def test_a_record_with_less_in_it_is_one(tmp_path):
    (tmp_path / "rollout").mkdir()
    (tmp_path / "rollout/record.json").write_text(json.dumps(base(lock=LOCK, roster=None)), encoding="utf-8")
    found = files.RecordFile(str(tmp_path)).read()
    assert found["lock"] == LOCK
    assert found["roster"] == []
    assert files.look(str(tmp_path))["lock_state"] == "expired"


def test_the_history_keeps_the_one_just_written_also_when_the_clock_was_set_back(tmp_path):
    file = files.RecordFile(str(tmp_path))
    with file.guarded(exclusive=True):
        for number in (*range(20), -9000):
            file.append_history({"rollout_id": "r1", "n": number}, at(number))
    kept = sorted(json.loads(path.read_text("utf-8"))["n"] for path in Path(file.history).iterdir())
    assert kept == [-9000, *range(1, 20)]
    assert {path.stat().st_mode & 0o777 for path in Path(file.history).iterdir()} == {0o640}


def test_the_history_keeps_the_newest_twenty(tmp_path):
    file = files.RecordFile(str(tmp_path))
    with file.guarded(exclusive=True):
        for number in range(25):
            file.append_history({"rollout_id": f"r/{number}", "n": number}, at(number))
    kept = sorted(Path(file.history).iterdir())
    assert [json.loads(path.read_text("utf-8"))["n"] for path in kept] == list(range(5, 25))


def test_the_history_tells_the_newest_first_and_skips_what_cannot_be_read(tmp_path):
    file = files.RecordFile(str(tmp_path))
    assert file.heads(20) == []
    with file.guarded(exclusive=True):
        for number in range(3):
            file.append_history({"rollout_id": f"r{number}", "verdict": "completed", "workers": ["long"]}, at(number))
    Path(file.history, "2099-01-01-broken.json").write_text("{", encoding="utf-8")
    found = file.heads(3)
    assert [head["rollout_id"] for head in found] == ["r2", "r1"]
    assert "workers" not in found[0]


def test_the_head_says_who_and_why_and_the_whole_is_found_by_its_run(tmp_path):
    file = files.RecordFile(str(tmp_path))
    assert file.kept("a") is None
    whole = {"rollout_id": "r1", "run_id": "a", "who": {"user": "ada"}, "settings": {"solver_reason": "weekly"},
             "workers": [{"from": "1.2.0"}, {"from": "1.1.0"}, {"from": "1.2.0"}, {"from": None}, "torn"]}
    with file.guarded(exclusive=True):
        file.append_history(whole, at(0))
        file.append_history({"rollout_id": "r1", "run_id": "b", "settings": [], "workers": {}}, at(1))
    first, second = file.heads(5)
    assert (second["who"], second["reason"], second["from"]) == ({"user": "ada"}, "weekly", ["1.1.0", "1.2.0"])
    assert (first["reason"], first["from"]) == (None, [])
    assert file.kept("a") == whole
    assert file.kept("c") is None


def test_the_fence_lets_only_the_holder_work(tmp_path):
    file = files.RecordFile(str(tmp_path))
    with file.guarded(exclusive=True):
        file.write(take(record.empty(), claim("run1")))
    with file.fence("run1"):
        pass
    with file.fence(None):
        pass
    with pytest.raises(StepError) as caught, file.fence("run2"):
        raise AssertionError("got through")
    assert caught.value.code == "fenced"


def test_the_fence_of_a_worker_without_a_record_refuses_and_makes_nothing(tmp_path):
    with pytest.raises(StepError) as caught, files.RecordFile(str(tmp_path / "w1")).fence("run1"):
        raise AssertionError("got through")
    assert caught.value.code == "fenced"
    assert list(tmp_path.iterdir()) == []


def test_while_a_module_works_nobody_takes_the_lock(tmp_path):
    file = files.RecordFile(str(tmp_path))
    with file.guarded(exclusive=True):
        file.write(take(record.empty(), claim("run1")))
    moments = iter(range(100))
    taking = file.guarded(True, wait=3, clock=lambda: float(next(moments)), sleep=lambda _s: None)
    with file.fence("run1"), pytest.raises(StepError, match="another module is at work"):
        taking.__enter__()


WRITER = """
import sys
from ansible_collections.solver.fleet.plugins.module_utils import _record as record
from ansible_collections.solver.fleet.plugins.module_utils import _record_file as files
file = files.RecordFile(sys.argv[1])
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
        found = files.RecordFile(str(tmp_path)).read()
        assert found is not None
        assert found["seq"] >= said
        (tmp_path / "rollout/.tmp-left").write_text("half", encoding="utf-8")  # what a kill may leave at any moment
        with files.RecordFile(str(tmp_path)).guarded(exclusive=True, wait=1):
            files.RecordFile(str(tmp_path)).write(found)
        assert sorted(path.name for path in (tmp_path / "rollout").iterdir()) == ["lock", "record.json"]


def test_a_full_disk_is_said_and_leaves_the_old_record(tmp_path, monkeypatch):
    file = files.RecordFile(str(tmp_path))
    with file.guarded(exclusive=True):
        file.write(dict(record.empty(), seq=1))

        def full(*_args, **_kwargs):
            raise OSError(28, "No space left on device", str(tmp_path))

        monkeypatch.setattr(files, "write_file", full)
        with pytest.raises(StepError) as caught:
            file.write(dict(record.empty(), seq=2))
    assert caught.value.code == "no_space"
    assert "make room" in caught.value.message
    assert file.read()["seq"] == 1
