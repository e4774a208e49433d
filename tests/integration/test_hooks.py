# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks of the user around a rollout: when each runs, with what it is told, and what its failure stops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fleetlib import Fleet

POINTS = ("before_rollout", "before_wave", "before_worker", "after_worker", "after_wave", "after_rollout", "on_failure")
NOTE = """\
- name: Note that it ran
  ansible.builtin.shell: "printf '%s\\\\n' {{{{ solver_hook | to_json | quote }}}} >> {book}"
  changed_when: false
"""
FAIL = """\
- name: Fail {point} on purpose
  ansible.builtin.fail:
    msg: this hook has had enough
  when: "{when}"
"""


class Hooks:
    """Task files that write down what they are told, and fail where a test says so."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.book = folder, folder / "book.jsonl"
        self.paths: dict[str, str] = {}
        for point in POINTS:
            self.write(point)

    def write(self, point: str, fail_when: str = "") -> None:
        path = self.folder / f"{point}.yml"
        text = NOTE.format(book=self.book) + (FAIL.format(point=point, when=fail_when) if fail_when else "")
        path.write_text(text, encoding="utf-8")
        self.paths[point] = str(path)

    def ran(self) -> list[dict[str, Any]]:
        if not self.book.exists():
            return []
        lines = [json.loads(line) for line in self.book.read_text(encoding="utf-8").splitlines()]
        self.book.unlink()
        return lines


@pytest.fixture
def hooks(tmp_path: Path) -> Hooks:
    return Hooks(tmp_path)


@pytest.mark.trap
def test_each_hook_runs_at_its_point_and_never_without_work(make_fleet, hooks):
    fleet: Fleet = make_fleet(3)
    plan = fleet.roll("1.3.0", "--check", solver_hooks=hooks.paths)
    assert plan.returncode == 0, plan.stdout
    assert hooks.ran() == [], "not in a plan"
    done = fleet.roll("1.3.0", solver_hooks=hooks.paths)
    assert done.returncode == 0, done.stdout
    ran = hooks.ran()
    expected = [("before_rollout", [], None, None)]
    for name in ("w1", "w2", "w3"):
        expected += [("before_wave", [name], None, None), ("before_worker", None, name, ""),
                     ("after_worker", None, name, "updated"), ("after_wave", [name], None, None)]
    expected.append(("after_rollout", [], None, None))
    assert [(own["name"], own.get("wave"), own.get("worker"), own.get("outcome")) for own in ran] == expected
    assert {own["rollout_id"] for own in ran} == {fleet.verdict()["rollout_id"]}
    assert {own["target"] for own in ran} == {"1.3.0"}
    assert ran[-1]["verdict"] == "completed"
    again = fleet.roll("1.3.0", solver_hooks=hooks.paths)
    assert again.returncode == 0, again.stdout
    assert hooks.ran() == [], "nothing to do, nobody to tell"


@pytest.mark.long
def test_a_hook_that_fails_before_a_worker_or_a_wave_stops_there(make_fleet, hooks):
    fleet: Fleet = make_fleet(4)
    hooks.write("before_worker", "inventory_hostname == 'w2'")
    hooks.write("before_wave", "'w4' in solver_hook.wave")
    done = fleet.roll("1.3.0", solver_hooks=hooks.paths)
    assert done.returncode != 0, done.stdout
    assert fleet.outcomes() == {"w1": "updated", "w2": "failed", "w3": "updated", "w4": "not_attempted"}, done.stdout
    verdict = fleet.verdict()
    assert verdict["verdict"] == "aborted"
    assert "before_wave" in verdict["reasons"][0]
    assert "Fail before_wave on purpose" in verdict["reasons"][0]
    second = verdict["workers"][1]
    assert (second["cause"], second["open_at_drain"]) == ("hook", None)
    assert "this hook has had enough" in second["reason"]
    assert fleet.versions() == {"w1": "1.3.0", "w2": "1.2.0", "w3": "1.3.0", "w4": "1.2.0"}
    fleet.assert_all_serve()
    ran = hooks.ran()
    assert [own["name"] for own in ran[-2:]] == ["after_rollout", "on_failure"]
    assert [own["verdict"] for own in ran[-2:]] == ["aborted", "aborted"]

    # Mended, the same command goes on, and the worker whose hook failed needs no solver_force.
    for point in ("before_worker", "before_wave"):
        hooks.write(point)
    again = fleet.roll("1.3.0", solver_hooks=hooks.paths)
    assert again.returncode == 0, again.stdout
    assert hooks.ran()[0]["name"] == "before_rollout", "a run that goes on runs it again"
    assert set(fleet.versions().values()) == {"1.3.0"}
    assert fleet.verdict()["rollout_id"] == verdict["rollout_id"]

    hooks.write("before_rollout", "true")
    refused = fleet.roll("1.2.0", solver_hooks=hooks.paths)
    assert refused.returncode != 0, refused.stdout
    assert set(fleet.outcomes().values()) == {"not_attempted"}
    assert fleet.verdict()["verdict"] == "aborted"
    assert "before_rollout" in fleet.verdict()["reasons"][0]
    assert set(fleet.versions().values()) == {"1.3.0"}


@pytest.mark.long
def test_a_hook_that_fails_afterwards_only_warns(make_fleet, hooks):
    fleet: Fleet = make_fleet(2)
    for point in ("after_worker", "after_wave", "after_rollout"):
        hooks.write(point, "true")
    done = fleet.roll("1.3.0", solver_hooks=hooks.paths)
    assert done.returncode == 0, done.stdout
    verdict = fleet.verdict()
    assert verdict["verdict"] == "completed"
    warned = [text for text in verdict["warnings"] if "had enough" in text]
    assert len(warned) == 3, verdict["warnings"]  # one a worker; those of the two waves say the same
    assert "The hook after_rollout failed" in done.stdout


@pytest.mark.long
def test_no_hook_stops_what_brings_workers_back(make_fleet, hooks):
    fleet: Fleet = make_fleet(3)
    for point in ("before_rollout", "before_wave", "before_worker"):
        hooks.write(point, "solver_hook.going_back")
    # Within 34 % one may fail: w1 is updated, w2 and w3 meet a port that is taken, and w1 goes back.
    taken = fleet.hosts()["w1"]["solver_data_port"]
    inventory = fleet.write_inventory("taken.yml", w2={"solver_data_port": taken}, w3={"solver_data_port": taken})
    aborted = fleet.roll("1.3.0", inventory=inventory, solver_hooks=hooks.paths, solver_max_fail_percentage=34)
    assert aborted.returncode != 0, aborted.stdout
    assert fleet.outcomes() == {"w1": "rolled_back", "w2": "reverted", "w3": "reverted"}, aborted.stdout
    assert fleet.verdict()["verdict"] == "rolled_back"
    going_back = [own["name"] for own in hooks.ran() if own["going_back"]]
    assert going_back == ["before_wave", "before_worker", "after_worker", "after_wave"]

    done = fleet.roll("1.3.0", solver_hooks=hooks.paths, solver_force=True)
    assert done.returncode == 0, done.stdout
    assert hooks.ran()[0]["name"] == "before_rollout"
    back = fleet.playbook("rollback", solver_hooks=hooks.paths)
    assert back.returncode == 0, back.stdout
    assert set(fleet.versions().values()) == {"1.2.0"}
    assert len([text for text in fleet.verdict()["warnings"] if "had enough" in text]) == 5, fleet.verdict()["warnings"]


def test_a_hook_that_cannot_be_loaded_ends_the_run_before_anything_is_touched(make_fleet, hooks):
    fleet: Fleet = make_fleet(2)
    path = Path(hooks.paths["after_wave"])
    path.write_text("- name: Misspell a module\n  ansible.builtin.debugg:\n    msg: x\n", encoding="utf-8")
    before = {name: fleet.status(name)["seq"] for name in fleet.hosts()}
    done = fleet.roll("1.3.0", solver_hooks=hooks.paths)
    assert done.returncode != 0, done.stdout
    assert "debugg" in done.stdout
    assert {name: fleet.status(name)["seq"] for name in fleet.hosts()} == before
    assert hooks.ran() == []
