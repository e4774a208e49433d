# SPDX-License-Identifier: GPL-3.0-or-later
"""What people and programs are told of a fleet: how it is, and a rollout that is under way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import entry_kit as kit
import jsonschema
import pytest
from ansible_collections.solver.fleet.plugins.filter import rollout
from ansible_collections.solver.fleet.plugins.filter.rollout import last_of_machines
from ansible_collections.solver.fleet.plugins.plugin_utils import _runs, _status
from rollout_kit import census, lock, record

NOW = 1_795_485_600.0  # 2026-11-24T02:00:00Z
SCHEMA = jsonschema.Draft202012Validator(json.loads(
    (Path(__file__).parents[4] / "docs/schemas/status-1.json").read_text(encoding="utf-8")))


def told(fleet: dict[str, Any], dead: tuple[str, ...] = ()) -> dict[str, Any]:
    document = _status.status(fleet, NOW, dead)
    assert list(SCHEMA.iter_errors(json.loads(json.dumps(document)))) == []
    return document


def lines(fleet: dict[str, Any], dead: tuple[str, ...] = ()) -> list[str]:
    """The table, and each sentence in one line."""
    document = told(fleet, dead)
    return [*_status.table(document), *_status.sentences(document)]


def note(fleet: dict[str, Any], name: str = "w1") -> str:
    """What is said of a worker below the table."""
    return next((line for line in lines(fleet) if line.startswith(f"{name}: ")), "")


def row(fleet: dict[str, Any], name: str = "w1") -> list[str]:
    return next(line for line in lines(fleet) if line.startswith(f"{name} ")).split()


def test_a_failed_worker_says_why_also_while_something_waits_for_it():
    one = {
        "worker": {"state": "failed", "instance": {"version": "1.2.0", "release": "one"}, "tasks": {"open": 0},
                   "failure": {"message": "the port 8081 is taken"}},
        "releases": {"current": {"id": "one"}, "staged": {"id": "two", "version": "1.3.0"}}}
    assert note({"w1": one}) == "w1: the port 8081 is taken; pending: two waits for rolling_update.yml"
    assert row({"w1": one})[:5] == ["w1", "1.2.0", "1.3.0", "failed", "0"]


def test_a_drained_worker_says_by_whom_until_when_whatever_waits():
    drain = {"owner": "r1", "lease_expires_at": "2026-11-24T03:15:00.5Z"}
    one = {"worker": {"state": "drained", "instance": {"release": "one"}, "drain": drain},
           "releases": {"staged": {"id": "two"}}}
    assert note({"w1": one}) == "w1: drained by r1: no reason given"
    assert row({"w1": one})[3:8] == ["drained", "-", "-", "r1", "03:15Z"]


@pytest.mark.parametrize(("way", "value", "field"), [
    (("history",), [{}], None), (("worker", "instance", "version"), "1\n\x1b[2Jw2 1.3.0 running", None),
    (("worker", "journal"), "x", "journal"), (("worker", "tasks"), {"open": "many"}, "tasks.open"),
    (("rollout", "lock"), "x", "rollout.lock"), (("releases", "current"), 5, "releases.current")])
def test_the_playbooks_that_show_and_provision_let_answers_in_as_all_others_do(way, value, field):
    answer = kit.changed(kit.census(kit.LOCK), way, value)
    lines = rollout.fleet_lines({"w1": answer, "w2": kit.census()})
    assert [line for line in lines if not line.isprintable()] == []
    assert next(line for line in lines if line.startswith("w2")).split()[:3] == ["w2", "1.2.0", "1.3.0"]
    own = next((line for line in lines if line.startswith("w1: ")), "")
    assert (f"answers wrongly: {field} " in own) is bool(field)
    assert rollout.lock_free(answer) is False, "a lock that cannot be read is not free"


def test_a_record_that_cannot_be_read_is_not_free():
    assert rollout.lock_free(kit.census()) is True
    assert rollout.lock_free({**kit.census(), "record_problem": "it is no JSON"}) is False


def test_what_is_too_deep_to_read_is_wrong():
    answer = value = {}
    for _level in range(5000):
        value["worker"] = value = {}
    assert "answers wrongly: the answer is text" in rollout.fleet_lines({"w1": answer})[4]
    assert rollout.lock_free(answer) is True


def test_a_worker_whose_disk_is_full_says_so():
    one = {"worker": {"state": "running", "instance": {"release": "one"}, "accepting": False, "failure": None,
                      "refusal": {"code": "disk_full", "message": "less than 4 MiB are free"}}, "releases": {}}
    assert note({"w1": one}) == "w1: less than 4 MiB are free"
    assert _status._worker("w1", one)["serves"] is False, "no region goes on behind it"


def test_status_says_which_workers_would_not_survive_a_restart():
    serving = {"worker": {"state": "running", "instance": {"version": "1.2.0", "release": "one"}}}
    held = {"worker": {"state": "drained", "instance": {"release": "one"}, "drain": {"owner": "r1"}}}
    fleet = {"w1": {**serving, "service_problem": "its unit is masked"},
             "w2": {**held, "release_problem": "its interpreter is 3.13 now"}, "w3": serving}
    assert note(fleet, "w1") == "w1: would not survive a restart: its unit is masked"
    assert note(fleet, "w2") == ("w2: drained by r1: no reason given; would not survive a restart: its interpreter is "
                                 "3.13 now")
    assert note(fleet, "w3") == ""


def test_status_shows_mixed_versions_and_who_does_not_answer():
    said = lines({"w1": census(), "w2": census("1.3.0"), "w3": {"finding": "dead", "message": "gone"}})
    assert "Serving: 2 of 3." in said
    assert ("Mixed versions: 1 on 1.2.0 (w1); 1 on 1.3.0 (w2). Run rolling_update.yml again to converge.") in said
    assert "No answer from: w3." in said
    assert "w3: gone" in said
    assert said[-1] == "No rollout holds the lock."
    assert "All answering workers run 1.2.0." in lines({"w1": census(), "w2": census()})


def test_status_says_what_the_next_start_would_run():
    one = census()
    one["releases"]["current"] = {"id": "1.3.0-new"}
    assert note({"w1": one}) == "w1: its next start runs 1.3.0-new"


def test_a_row_that_is_old_says_so():
    fleet = {"w1": {**census(), "age_s": 80.2}, "w2": {**census(), "age_s": 0.1},
             "w3": {"unreachable": True, "msg": "no answer within 80 s", "age_s": 0.0}}
    assert note(fleet, "w1") == "w1: answered 80 s ago"
    assert note(fleet, "w2") == ""
    assert note(fleet, "w3") == "w3: no answer within 80 s"


def test_the_table_fits_a_terminal_and_names_stay_apart():
    drain = {"owner": "rollout-20261124T010000Z-3a1b46", "lease_expires_at": "2026-11-24T03:15:00Z"}
    long = census("1.3.0rc1.dev20261124", "drained", drain=drain, record=record(outcome="not_attempted"))
    long["worker"]["tasks"] = {"open": 12_345, "oldest_age_s": 100_000.0}
    long["releases"]["staged"] = {"id": "x", "version": "1.4.0rc1.dev20261124"}
    fleet = {f"solver-worker-eu-west-1-{number}": long for number in (1, 2, 10)}
    table = _status.table(told(fleet))
    assert max(len(line) for line in table) == 80
    assert [line.split()[0][-3:] for line in table[1:]] == ["1-1", "1-2", "-10"], "w2 comes before w10"
    short = _status.table(told({"w1": census()}))
    assert short[0] == "worker version pending state   open oldest held by until last"


# -- a rollout under way -------------------------------------------------------------------------


def under_way(**more: Any) -> dict[str, Any]:
    """Of four workers one is updated, one failed, one is in its turn, and one has not begun."""
    def one(version: str, outcome: str | None, drain: Any = None, state: str = "running") -> dict[str, Any]:
        own = record("r0", outcome=outcome, **more)
        own["lock"] = lock(acquired_at="2026-11-24T01:50:00Z", renewed_at="2026-11-24T01:59:58Z")
        return census(version, state, drain=drain, record=own, lock_state="held")

    held = {"owner": "r0", "reason": "update to 1.3.0", "lease_expires_at": "2026-11-24T02:10:00Z"}
    fleet = {"w1": one("1.3.0", "updated"), "w2": one("1.2.0", "reverted"),
             "w3": one("1.2.0", None, held, "draining"), "w10": one("1.2.0", None)}
    fleet["w10"]["releases"]["staged"] = {"id": "1.3.0-new", "version": "1.3.0"}
    return fleet


def test_a_rollout_under_way_is_told_from_the_records_without_advice_for_an_idle_fleet():
    said = lines(under_way())
    assert "Rollout r0 of ada on deck (night shift) holds w1, w2, w3, w10 since 2026-11-24T01:50:00Z, " \
        "last seen 2026-11-24T01:59:58Z." in said
    assert "Under way: update to 1.3.0, 2 of 4 workers had their turn, 1 failed (w2), about 10 min left" \
        "; in its turn: w3." in said
    assert "Mixed versions: 3 on 1.2.0 (w2, w3, w10); 1 on 1.3.0 (w1)." in said
    assert not [line for line in said if "rolling_update.yml" in line or line.startswith("w3: ")]
    assert row(under_way(), "w3")[6:] == ["rollout", "02:10Z", "-"]
    assert row(under_way(), "w10")[2] == "1.3.0"


def test_the_stage_is_told_where_there_is_more_than_one():
    def staged(*stages):
        fleet = under_way()
        for name, number in zip(sorted(fleet), stages, strict=True):
            fleet[name]["rollout"]["rollout"].update(stage=number, stages=max(stages))
        return fleet

    assert any("update to 1.3.0, stage 2 of 2 (1 of 3), 2 of 4 workers had their turn" in line
               for line in lines(staged(1, 2, 2, 2)))
    assert told(staged(1, 2, 2, 2))["rollout"]["stage"] == {"number": 2, "stages": 2, "workers": 3, "done": 1}
    assert told(staged(2, 1, 2, 2))["rollout"]["stage"] == {"number": 1, "stages": 2, "workers": 1, "done": 0}
    assert not any("stage" in line for line in lines(staged(1, 1, 1, 1)))
    assert told(under_way())["rollout"]["stage"] is None, "an older run does not say it"


def test_a_rollout_whose_controller_is_dead_says_so_and_what_to_do():
    fleet = under_way()
    document = told(fleet, ("run0",))
    assert (document["locks"][0]["state"], document["rollout"]["state"]) == ("dead", "dead")
    said = _status.sentences(document)
    assert "Its controller is dead: 2 of 4 workers had their turn, 1 failed (w2), in its turn were w3. Run the same " \
        "command again to go on, or recover.yml to bring back what was left." in said
    assert note(fleet | {}, "w3") == ""
    assert any(line.startswith("w3: drained by r0") for line in said), "now it is worth saying"
    for own in fleet.values():
        own["lock_state"] = "expired"
    late = lines(fleet)
    assert any(line.endswith("; its time is over, so it holds nobody off.") for line in late)
    assert any(line.startswith("Its controller has fallen silent: 2 of 4") for line in late)
    fleet["w1"]["lock_state"] = "held"
    assert told(fleet)["rollout"]["state"] == "running", "one fresh lock says that it lives"


def test_no_line_is_wider_than_a_terminal():
    fleet = under_way()
    fleet["w2"]["service_problem"] = "x" * 300
    fleet["w2"]["history"] = [head(reason="y " * 90, reasons=["z " * 90])]
    for dead in ((), ("run0",)):
        shown = _status.lines(told(fleet, dead))
        assert max(map(len, shown)) <= 80
        assert "Rollout r0 of ada on deck (night shift) holds w1, w2, w3, w10 since" in shown


def test_a_request_is_told():
    fleet = under_way()
    fleet["w1"]["rollout"]["request"] = {"what": "pause", "by": "eve", "reason": "", "at": None}
    assert any("; eve asked it to pause." in line for line in lines(fleet))


def head(run: str = "run0", word: str = "completed", **more: Any) -> dict[str, Any]:
    return {**kit.head(), "run_id": run, "verdict": word, "started_at": "2026-11-24T01:00:00Z",
            "ended_at": "2026-11-24T01:01:32Z", "reasons": [], "from": ["1.2.0"], "reason": "night shift",
            "who": {"user": "ada", "job": None, "host": "deck"}, **more}


@pytest.mark.parametrize(("last", "said"), [
    (head(), ""), (head(word="rolled_back"), "r0 ended: rolled back"), (head("other"), "no worker has its verdict")])
def test_the_end_of_a_watched_rollout_is_that_of_its_verdict(last, said):
    watched = told(under_way())["rollout"]
    after = told({"w1": census(history=[last])})
    assert said in _status.problem(after, watched)
    assert bool(_status.problem(after, watched)) is bool(said)
    assert _status.problem(after) == "", "who only looks is not told of old failures by the exit code"


def test_a_dead_controller_and_an_unreachable_fleet_are_no_success():
    watched = told(under_way())["rollout"]
    assert "r0 did not end" in _status.problem(told(under_way(), ("run0",)), watched)
    gone = told({"w1": {"unreachable": True, "msg": "no route"}})
    assert "no worker's host could be reached" in _status.problem(gone)
    assert _status.problem(told({"w1": {"unreachable": True}, "w2": {"finding": "dead", "message": "x"}})) == ""


# -- the history ---------------------------------------------------------------------------------


def test_the_history_tells_each_run_once_and_what_has_not_ended():
    kept = [head("b", rollout_id="r1", started_at="2026-11-24T02:00:00Z", ended_at="2026-11-24T02:00:00Z"),
            head("a", "aborted", rollout_id="r1", reasons=["2 of 4 workers failed"])]
    fleet = {
        "w1": census(record=record("r1", verdict="completed"), history=kept),
        "w2": census(record=record("r1", verdict="completed"), history=kept[:1]),
        "w3": census(record=record("r9", target="1.4.0", started_at="2026-11-25T01:00:00Z", reason="why not"))}
    assert _runs.history_lines(_runs.runs(fleet)) == [
        "2026-11-25 01:00  update 1.2.0 -> 1.4.0: not ended", "  r9 (why not)",
        "2026-11-24 02:00  update 1.2.0 -> 1.3.0: completed in 0.0 s", "  r1 of ada on deck (night shift)",
        "2026-11-24 01:00  update 1.2.0 -> 1.3.0: aborted in 92 s",
        "  r1 of ada on deck (night shift): 2 of 4 workers failed"]
    assert [run["kept_by"] for run in _runs.runs(fleet)] == [[], ["w1", "w2"], ["w1"]]
    assert _runs.history_lines([]) == ["No worker remembers a rollout."]


def test_the_last_five_are_in_the_status_and_a_lock_says_who_runs_the_one_that_has_not_ended():
    fleet = {"w1": census(history=[head(f"run{number}", rollout_id=f"r{number}") for number in range(8)])}
    assert len(told(fleet)["history"]) == 5
    assert told(under_way())["history"][0]["who"] == {"user": "ada", "job": None, "host": "deck"}


def test_one_worker_that_tells_another_end_does_not_make_it():
    fleet = {name: census(history=[head(word=word)]) for name, word in (
        ("w1", "completed"), ("w2", "aborted"), ("w3", "aborted"))}
    (run,) = _runs.runs(fleet)
    assert (run["verdict"], run["kept_by"]) == ("aborted", ["w2", "w3"])


def test_a_run_is_chosen_by_either_id_and_without_one_the_newest_that_ended():
    found = _runs.runs({"w1": census(history=[head("b", rollout_id="r2", started_at="2026-11-24T02:00:00Z"),
                                              head("a", rollout_id="r1")]),
                        "w2": census(record=record("r9", started_at="2026-11-25T01:00:00Z"))})
    assert [(_runs.chosen(found, wanted) or {}).get("rollout_id") for wanted in ("r1", "a", "", "r9", "r7")] == [
        "r1", "r1", "r2", "r9", None]


def test_what_a_kept_verdict_lacks_does_not_hurt_its_lines():
    old = head(verdict="completed", **{"from": []})
    del old["who"], old["reason"]
    first, *_rest = _runs.run_lines(_runs.runs({"w1": census(history=[old])})[0])
    assert first.endswith("update to 1.3.0: completed in 92 s")


def test_a_machine_is_cleared_once_and_only_after_its_last_worker():
    own = {"w1": {"machine": "a", "base_dir": "/opt"}, "w2": {"machine": "a", "base_dir": "/opt"},
           "w3": {"machine": "b", "base_dir": "/opt"}, "w10": {"machine": "b", "base_dir": "/srv"}}
    assert last_of_machines(["w1"], own) == []
    assert last_of_machines(["w2", "w1"], own) == ["w1"]
    assert last_of_machines(["w3"], own) == [], "its other worker may need what is there"
    assert last_of_machines(["w10", "w3", "w9"], own) == ["w3", "w10"]


def test_a_worker_that_invents_an_end_or_a_lock_breaks_nothing_for_the_others():
    head = {"run_id": "a", "rollout_id": "r1", "kind": "update", "target": "1.3.0", "started_at": None,
            "ended_at": None, "reasons": []}
    strange = census(history=[head], lock_state="held", record={"seq": 1, "lock": {
        "run_id": "x", "renewed_at": "2026-11-24T01:59:00Z", "ttl_s": 900.0}})
    assert told({"w1": strange, "w2": census()})["fleet"]["reached"]


def test_a_rollout_that_waits_to_be_promoted_ended_well():
    watched = told(under_way())["rollout"]
    last = {"run_id": "run0", "rollout_id": "r0", "kind": "update", "target": "1.3.0", "verdict": "awaiting_promotion",
            "started_at": "2026-11-24T01:00:00Z", "ended_at": "2026-11-24T01:30:00Z", "reasons": []}
    assert _status.problem(told({"w1": census(history=[last])}), watched) == ""
