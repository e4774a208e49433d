# SPDX-License-Identifier: GPL-3.0-or-later
"""What looks at a fleet and its past for people: status, also again and again, history, and the report of a verdict."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from action_kit import made, rollout_of
from ansible.errors import AnsibleActionFail
from ansible_collections.solver.fleet.plugins.action import fleet_history, fleet_status, rollout_report
from ansible_collections.solver.fleet.plugins.plugin_utils import _entry, _runs
from entry_kit import LOCK, census, head
from entry_kit import status as kit_status
from report_kit import verdict

NAMES = ["w1", "w2"]
GONE = {"unreachable": True, "msg": "no route"}


class Display:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def display(self, line: str) -> None:
        self.lines.append(line)


def ask(kind: Any, looks: list[Any], settings: dict[str, Any] | None = None, **args: Any) -> tuple[Any, list[str]]:
    """Run an action; each look at the hosts gets the next answer, for all of them or by name."""
    rollout = rollout_of(NAMES, **(settings or {}))
    action = made(kind.ActionModule, {"rollout": rollout, **args})
    action._display, action.asked = Display(), []

    def each(_module: str, asked: dict[str, Any], read: Any) -> dict[str, Any]:
        action.asked.append(asked)
        answer = looks.pop(0) if len(looks) > 1 else looks[0]
        return {name: dict(read(answer.get(name, answer), 1_795_485_600.0)) for name in asked}

    action.each = each
    return action.run(task_vars={}), action._display.lines


def test_one_look_is_a_table_and_where_it_is_asked_for_one_document() -> None:
    result, shown = ask(fleet_status, [{**census(), "lock_state": "free"}])
    assert (shown, result["problem"], result["document_shown"]) == ([], "", False)
    assert result["msg"][0].split()[0] == "worker"
    result, shown = ask(fleet_status, [census()], {"solver_status_format": "json"})
    assert json.loads("".join(shown))["schema"] == "solver.status/1"
    assert result["msg"] == []


def test_a_rollout_is_watched_until_its_lock_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(fleet_status.ActionModule, "_wait", lambda _self, seconds: not slept.append(seconds))
    held, free = census(dict(LOCK)), {**census(), "history": [{**head(), "verdict": "rolled_back"}]}
    result, shown = ask(fleet_status, [held, held, GONE, held, free], {"solver_status_watch": 5.0})
    assert slept == [5.0] * 4, "a fleet that nobody can reach may come back"
    assert sum("Under way" in frame for frame in shown) == 3
    assert result["problem"] == "r0 ended: rolled back"
    result, shown = ask(fleet_status, [held, free], {"solver_status_watch": 5.0, "solver_status_format": "json"})
    assert [json.loads(line)["rollout"] is None for line in shown] == [False, True]
    assert ask(fleet_status, [free], {"solver_status_watch": 5.0})[0]["problem"] == "", "nothing to watch is one look"


def test_a_fleet_that_stays_away_is_not_watched_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(fleet_status.ActionModule, "_wait", lambda _self, seconds: not slept.append(seconds))
    held = census(dict(LOCK))
    result, _shown = ask(fleet_status, [held, GONE], {"solver_status_watch": 5.0, "solver_lock_ttl": 0.05})
    assert slept
    assert "no worker's host could be reached" in result["problem"]


def test_nobody_goes_on_watching_for_a_controller_that_is_gone() -> None:
    action = made(fleet_status.ActionModule, {})
    action.main = os.getpid()  # not our parent
    assert action._wait(600.0) is False


def test_the_history_is_listed_and_one_is_brought_from_a_worker_that_has_it_whole() -> None:
    listed = {**census(), "history": [{**head(), "verdict": "completed", "reasons": []}]}
    result, _shown = ask(fleet_history, [listed])
    assert result["msg"][0].endswith("update to 1.3.0: completed in 0.0 s")
    whole = json.loads(json.dumps({**verdict(2), "rollout_id": "r0", "run_id": "run0"}))
    looks = [listed, {**census(), "verdict": {"schema": "solver.verdict/9"}}, {**census(), "verdict": whole}]
    result, _shown = ask(fleet_history, looks, rollout_id="r0")
    assert result["document"] == whole
    assert result["msg"][0] == "completed: 2 of 2 workers run 1.3.0 (rollout r0)"
    assert "by: ada on deck" in result["msg"]


def test_a_rollout_without_a_verdict_is_told_from_the_records(tmp_path: Path) -> None:
    """Its controller was killed: whose turn was over, who was in it, and who cannot be asked."""
    drained = kit_status(drain={"owner": "r7"})
    fleet = {
        "w1": in_record("w1", outcome="updated", stage=1), "w2": {**in_record("w2", stage=2), "worker": drained},
        "w3": in_record("w3", stage=2), "w4": {**census(), "rollout": None, "history": []}, "w5": GONE}
    found = {"rollout_id": "r7", "run_id": None, "kind": "update", "target": "1.3.0", "who": {"user": "ada"},
             "started_at": "2026-11-24T02:00:00Z", "ended_at": None, "from": ["1.2.0"], "verdict": None}
    document = _runs.unended(found, fleet)
    assert (document["verdict"], document["run_id"]) == ("interrupted", "run7")
    assert document["waves"] == [["w1"], ["w2", "w3"]]
    assert {own["name"]: own["outcome"] for own in document["workers"]} == {
        "w1": "updated", "w2": "unknown", "w3": "not_attempted", "w4": "not_attempted", "w5": "unreachable"}
    assert document["workers"][1]["reason"] == "it was in its turn, and is still drained"
    assert document["reasons"] == [_runs.NO_VERDICT]
    assert {own["to"] for own in document["workers"]} == {"1.3.0"}
    assert report(document=document, report_file=str(tmp_path / "r.html"))["changed"]
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "interrupted" in text
    assert "its controller died" in text
    assert "All as they are by default" not in text
    assert "it was in its turn, and is still drained" in text


def in_record(name: str, **own: Any) -> Any:
    rollout = {"id": "r7", "kind": "update", "target": "1.3.0", "from": {"version": "1.2.0", "release": "old"},
               "to": {"version": "1.3.0", "release": "new"}, "started_at": "2026-11-24T02:00:00Z", "stages": 2, **own}
    return {**census(), "rollout": {"rollout": rollout, "lock": {"rollout_id": "r7", "run_id": "run7"}}, "history": []}


def test_the_report_of_a_killed_rollout_is_made_by_its_id_and_is_no_failure() -> None:
    own = census(dict(LOCK))
    own["rollout"]["rollout"] = {**own["rollout"]["rollout"], "id": "r7", "verdict": None, "ended_at": None}
    result, _shown = ask(fleet_history, [{**own, "history": []}], rollout_id="r7", whole=True)
    assert result["document"]["verdict"] == "interrupted"
    listed, _shown = ask(fleet_history, [{**own, "history": []}], rollout_id="r7")
    assert listed["document"]["schema"] == "solver.history/1"


@pytest.mark.parametrize(("looks", "args", "said"), [
    ([GONE], {}, "no worker's host could be reached; see the inventory (no route)"),
    ([census()], {"rollout_id": "r7"}, "no worker has a verdict of r7; history.yml lists those"),
    ([{**census(), "history": [], "rollout": None}], {"whole": True}, "no worker has a verdict of any rollout"),
    ([census(), {**census(), "verdict": None}], {"rollout_id": "r0"}, "w1: it is no verdict that this release reads"),
    ([census(), {**census(), "verdict": {"schema": "solver.verdict/1", "verdict": "\x1b[2J"}}], {"whole": True},
     "w1: it is a damaged verdict: verdict is no word"), ([census(), GONE], {"whole": True}, "w2: no route"),
    ([census(), {**census(), "verdict": {"schema": "solver.verdict/1", "verdict": "completed", "run_id": "run0"}}],
     {"whole": True}, "w1: it is another verdict")])
def test_a_history_that_is_gone_or_damaged_is_one_clear_line(looks: list[Any], args: dict[str, Any], said: str) -> None:
    result, _shown = ask(fleet_history, looks, **args)
    assert result["failed"] is True
    assert said in result["msg"]
    assert result["msg"].isprintable()


def test_the_head_of_a_history_is_let_in_with_who_and_why() -> None:
    more = {"who": {"user": "ada", "job": None, "host": "deck"}, "from": ["1.2.0"], "reason": "weekly\x1b[2J"}
    (kept,) = _entry.census({**census(), "history": [{**head(), **more}]}, 1_795_485_600.0)["history"]
    assert (kept["who"], kept["from"], kept["reason"]) == (more["who"], ["1.2.0"], "weekly\ufffd")
    assert _entry.census({**census(), "history": [{**head(), "who": "ada"}]}, 1_795_485_600.0)["history"] == []


def report(**args: Any) -> Any:
    action = made(rollout_report.ActionModule, args, args.pop("check_mode", False))
    return action.run(task_vars={})


def test_a_report_is_made_beside_the_verdict_or_where_it_is_asked_for(tmp_path: Path) -> None:
    document = json.loads(json.dumps(verdict(2)))
    source = tmp_path / "verdict.json"
    source.write_text(json.dumps(document), encoding="utf-8")
    assert report(verdict_file=str(source))["msg"] == f"The report is {tmp_path}/verdict.html."
    report(document=document, verdict_file=str(source), report_file=str(tmp_path / "other.html"))
    assert (tmp_path / "other.html").read_bytes() == (tmp_path / "verdict.html").read_bytes()
    report(document=document, report_file=str(tmp_path / "no.html"), check_mode=True)
    assert not (tmp_path / "no.html").exists()
    with pytest.raises(AnsibleActionFail, match="where to\\? name a file with -e solver_report_file"):
        report(document=document)


@pytest.mark.parametrize(("text", "said"), [
    (None, "No such file or directory"), ("{", "it is no JSON document"), ("[" * 100_000, "it is no JSON document"),
    ("\udcff".encode("utf-8", "surrogateescape"), "it is no JSON document"), ("[]", "its schema is none"),
    ('{"schema": "solver.verdict/2"}', "its schema is solver.verdict/2, not solver.verdict/1")])
def test_what_is_no_verdict_is_one_clear_line(tmp_path: Path, text: Any, said: str) -> None:
    source = tmp_path / "verdict.json"
    if text is not None:
        source.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(AnsibleActionFail) as error:
        report(verdict_file=str(source))
    assert f"making the report: reading {source} (solver_verdict_file): " in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
