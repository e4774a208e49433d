# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks of the user around a rollout: when each runs, with what it is told, and what its failure stops."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fleetlib import ansible_bin
from lightfleet import LightFleet

POINTS = ("before_rollout", "before_stage", "before_worker", "after_worker", "after_stage", "after_rollout",
          "on_failure")
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

    def write(self, point: str, fail_when: str = "", more: str = "") -> None:
        path = self.folder / f"{point}.yml"
        fail = FAIL.format(point=point, when=fail_when) if fail_when else ""
        path.write_text(NOTE.format(book=self.book) + fail + more, encoding="utf-8")
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


def names(ran: list[dict[str, Any]], worker: str | None = None) -> list[str]:
    """The points that ran, of one worker or of what runs on the controller."""
    return [own["name"] for own in ran if own.get("worker") == worker]


@pytest.mark.trap
def test_each_hook_runs_at_its_point_and_never_without_work(light_fleet: LightFleet, hooks: Hooks) -> None:
    fleet = light_fleet.up(3)
    own = {"solver_hooks": hooks.paths, "solver_stages": [1, "100%"]}
    plan = fleet.roll("1.3.0", "--check", **own)
    assert plan.returncode == 0, plan.stdout
    assert hooks.ran() == [], "not in a plan"
    done = fleet.roll("1.3.0", **own)
    assert done.returncode == 0, done.stdout
    ran = hooks.ran()
    # The next worker begins while the one before it is in its hook, so the order is that of each alone.
    told = [(own["name"], own["stage"]) for own in ran if "stage" in own]
    first, second = ["w1"], ["w2", "w3"]
    assert told == [("before_rollout", []), ("before_stage", first), ("after_stage", first),
                    ("before_stage", second), ("after_stage", second), ("after_rollout", [])]
    around = [(own["name"], own.get("stage") or own["worker"]) for own in ran[1:-1]]
    assert around[:4] == [("before_stage", first), ("before_worker", "w1"), ("after_worker", "w1"),
                          ("after_stage", first)]
    assert around[4:6] == [("before_stage", second), ("before_worker", "w2")]
    assert around[-2:] == [("after_worker", "w3"), ("after_stage", second)]
    for worker in ("w1", "w2", "w3"):
        assert names(ran, worker) == ["before_worker", "after_worker"]
    assert [own["outcome"] for own in ran if own["name"] == "after_worker"] == ["updated"] * 3
    assert {own["rollout_id"] for own in ran} == {fleet.verdict()["rollout_id"]}
    assert {own["target"] for own in ran} == {"1.3.0"}
    assert ran[-1]["verdict"] == "completed"
    again = fleet.roll("1.3.0", **own)
    assert again.returncode == 0, again.stdout
    assert hooks.ran() == [], "nothing to do, nobody to tell"


def test_nobody_is_touched_before_the_hook_of_the_stage_has_ended(light_fleet: LightFleet, hooks: Hooks) -> None:
    """Nobody's drain begins, and nobody's own hook; the window would have room for both."""
    fleet = light_fleet.up(4, solver_max_unavailable=2)
    look = (f"- name: Look\n  ansible.builtin.shell: cat {fleet.dir}/states.jsonl > "
            f"{hooks.folder}/{{{{ solver_hook.name }}}}\n")
    for point in ("before_stage", "after_stage"):
        hooks.write(point, more=look)
    done = fleet.roll("1.3.0", solver_hooks=hooks.paths)
    assert done.returncode == 0, done.stdout
    order = [own["name"] for own in hooks.ran()]
    assert order.index("before_stage") == 1, order
    assert order.count("before_stage") == order.count("after_stage") == 1, order
    assert "draining" not in (hooks.folder / "before_stage").read_text(encoding="utf-8")
    served = [json.loads(line) for line in (hooks.folder / "after_stage").read_text(encoding="utf-8").splitlines()]
    assert {own["worker"] for own in served
            if own.get("state") == "running" and own["version"] == "1.3.0"} == {"w1", "w2", "w3", "w4"}


def test_a_hook_that_fails_before_a_worker_or_a_stage_stops_there(light_fleet: LightFleet, hooks: Hooks) -> None:
    fleet = light_fleet.up(4)
    own = {"solver_hooks": hooks.paths, "solver_stages": [3, "100%"]}
    hooks.write("before_worker", "inventory_hostname == 'w2'")
    hooks.write("before_stage", "'w4' in solver_hook.stage")
    done = fleet.roll("1.3.0", **own)
    assert done.returncode != 0, done.stdout
    assert fleet.outcomes() == {"w1": "updated", "w2": "failed", "w3": "updated", "w4": "not_attempted"}, done.stdout
    verdict = fleet.verdict()
    assert verdict["verdict"] == "aborted"
    assert "before_stage" in verdict["reasons"][0]
    assert "Fail before_stage on purpose" in verdict["reasons"][0]
    second = verdict["workers"][1]
    assert (second["cause"], second["open_at_drain"]) == ("hook", None)
    assert "this hook has had enough" in second["reason"]
    assert fleet.versions() == {"w1": "1.3.0", "w2": "1.2.0", "w3": "1.3.0", "w4": "1.2.0"}
    assert {event["worker"] for event in fleet.events() if event.get("state") == "draining"} == {"w1", "w3"}
    fleet.assert_all_serve()
    ran = hooks.ran()
    assert names(ran, "w2") == ["before_worker", "after_worker"]
    assert names(ran, "w4") == []
    assert names(ran)[-2:] == ["after_rollout", "on_failure"]
    assert [own["verdict"] for own in ran[-2:]] == ["aborted", "aborted"]

    # Mended, the same command goes on, and the worker whose hook failed needs no solver_force.
    for point in ("before_worker", "before_stage"):
        hooks.write(point)
    again = fleet.roll("1.3.0", **own)
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


def test_the_first_worker_of_a_stage_fails_by_its_hook_and_the_stage_goes_on(
    light_fleet: LightFleet, hooks: Hooks,
) -> None:
    fleet = light_fleet.up(4)
    hooks.write("before_worker", "inventory_hostname == 'w1'")
    done = fleet.roll("1.3.0", solver_hooks=hooks.paths, solver_max_fail_percentage=25)
    assert done.returncode != 0, done.stdout
    assert fleet.outcomes() == {"w1": "failed", **dict.fromkeys(("w2", "w3", "w4"), "updated")}, done.stdout
    assert fleet.verdict()["verdict"] == "incomplete"
    assert names(hooks.ran())[-3:] == ["after_stage", "after_rollout", "on_failure"]


def test_a_hook_that_fails_afterwards_only_warns(light_fleet: LightFleet, hooks: Hooks) -> None:
    fleet = light_fleet.up(2)
    for point in ("after_worker", "after_stage", "after_rollout"):
        hooks.write(point, "true")
    done = fleet.roll("1.3.0", solver_hooks=hooks.paths)
    assert done.returncode == 0, done.stdout
    verdict = fleet.verdict()
    assert verdict["verdict"] == "completed"
    warned = [text for text in verdict["warnings"] if "had enough" in text]
    assert len(warned) == 3, verdict["warnings"]  # one a worker, and that of the stage
    assert "The hook after_rollout failed" in done.stdout


def test_no_hook_stops_what_brings_workers_back(light_fleet: LightFleet, hooks: Hooks) -> None:
    fleet = light_fleet.up(3)
    for point in ("before_rollout", "before_stage", "before_worker"):
        hooks.write(point, "solver_hook.going_back")
    # Within 34 % one may fail: w1 is updated, w2 and w3 fail their probe, and w1 goes back.
    fleet.set_fault("w2", "w3", version="1.3.0", probe="release")
    aborted = fleet.roll("1.3.0", solver_hooks=hooks.paths, solver_max_fail_percentage=34)
    assert aborted.returncode != 0, aborted.stdout
    assert fleet.outcomes() == {"w1": "rolled_back", "w2": "reverted", "w3": "reverted"}, aborted.stdout
    assert fleet.verdict()["verdict"] == "rolled_back"
    going_back = [own["name"] for own in hooks.ran() if own["going_back"]]
    assert going_back == ["before_stage", "before_worker", "after_worker", "after_stage"]

    fleet.heal()
    done = fleet.roll("1.3.0", solver_hooks=hooks.paths, solver_force=True)
    assert done.returncode == 0, done.stdout
    assert hooks.ran()[0]["name"] == "before_rollout"
    back = fleet.playbook("rollback", solver_hooks=hooks.paths)
    assert back.returncode == 0, back.stdout
    assert set(fleet.versions().values()) == {"1.2.0"}
    warned = [text for text in fleet.verdict()["warnings"] if "had enough" in text]
    assert len(warned) == 5, fleet.verdict()["warnings"]  # the rollout's, the stage's, and one a worker


def test_a_hook_that_cannot_be_loaded_ends_the_run_before_anything_is_touched(
    light_fleet: LightFleet, hooks: Hooks,
) -> None:
    fleet = light_fleet.up(2)
    path = Path(hooks.paths["after_stage"])
    path.write_text("- name: Misspell a module\n  ansible.builtin.debugg:\n    msg: x\n", encoding="utf-8")
    before = {name: fleet.status(name)["seq"] for name in fleet.hosts()}
    done = fleet.roll("1.3.0", solver_hooks=hooks.paths)
    assert done.returncode != 0, done.stdout
    assert "debugg" in done.stdout
    assert {name: fleet.status(name)["seq"] for name in fleet.hosts()} == before
    assert hooks.ran() == []


@pytest.mark.quick
@pytest.mark.parametrize(("old", "new"), [("before_wave", "before_stage"), ("after_wave", "after_stage")])
def test_the_old_name_of_a_hook_is_refused_with_the_new_one(
    light_fleet: LightFleet, hooks: Hooks, old: str, new: str,
) -> None:
    fleet = light_fleet.up(2)
    before = {name: fleet.status(name)["seq"] for name in fleet.hosts()}
    done = fleet.roll("1.3.0", solver_hooks={old: hooks.paths[new]})
    assert done.returncode == 2, done.stdout
    assert old in fleet.verdict()["reasons"][0]
    assert new in fleet.verdict()["reasons"][0]
    assert {name: fleet.status(name)["seq"] for name in fleet.hosts()} == before


def test_what_is_delegated_to_the_controller_becomes_nobody(
    light_fleet: LightFleet, hooks: Hooks, tmp_path: Path,
) -> None:
    """ansible_become: true in `all` is meant for the workers' hosts, and the controller may have no sudo at all."""
    fleet = light_fleet.up(2)
    sudo = tmp_path / "sudo"
    sudo.write_text("#!/bin/sh\necho nobody may become root here >&2\nexit 1\n", encoding="utf-8")
    sudo.chmod(0o755)
    everybody = {"ansible_become": True, "ansible_become_exe": str(sudo), "ansible_python_interpreter": fleet.python}
    inventory = fleet.dir / "become.json"
    inventory.write_text(json.dumps({"all": {"vars": everybody, "children": {"solver_workers": {
        "vars": {**fleet.vars, "ansible_become": False}, "hosts": fleet.hosts()}}}}), encoding="utf-8")
    env = {"ANSIBLE_BECOME_ALLOW_SAME_USER": "1"}  # the tests may be root's
    done = fleet.playbook("rolling_update", inventory=inventory, env=env, solver_version="1.3.0",
                          solver_hooks=hooks.paths)
    assert done.returncode == 0, done.stdout
    assert names(hooks.ran()) == ["before_rollout", "before_stage", "after_stage", "after_rollout"], done.stdout
    assert fleet.verdict()["warnings"] == []
    # and it is a become that fails: without what the playbook does about it, nothing runs on the controller.
    play = tmp_path / "play.yml"
    play.write_text("- hosts: w1\n  gather_facts: false\n  tasks:\n    - ansible.builtin.command: 'true'\n"
                    "      delegate_to: localhost\n      become: false\n", encoding="utf-8")
    without = subprocess.run([str(ansible_bin() / "ansible-playbook"), str(play), "-i", str(inventory)],
                             env={**os.environ, **env}, capture_output=True, text=True, check=False, timeout=60)
    assert "nobody may become root here" in without.stdout, without.stdout


def test_a_hook_that_ends_its_host_ends_the_rollout_and_not_the_verdict(light_fleet: LightFleet, hooks: Hooks) -> None:
    """meta: end_host takes the worker out of the play while it has a place in the window, which it never gives back."""
    fleet = light_fleet.up(2, solver_order="name", solver_drain_timeout=1, solver_deploy_timeout=20,
                           solver_healthy_deadline=5, solver_progress_deadline=27)
    hooks.write("before_worker", more="- name: End\n  ansible.builtin.meta: end_host\n"
                                      "  when: inventory_hostname == 'w1'\n")
    done = fleet.playbook("rolling_update", timeout=200, solver_version="1.3.0", solver_hooks=hooks.paths)
    assert done.returncode == 2, done.stdout
    verdict = fleet.verdict()
    assert verdict["verdict"] == "aborted"
    assert "w1" in verdict["reasons"][0], verdict["reasons"]
    assert "solver_progress_deadline" in verdict["reasons"][0], verdict["reasons"]
    assert fleet.outcomes() == {"w1": "unknown", "w2": "not_attempted"}
    assert set(fleet.versions().values()) == {"1.2.0"}
    fleet.assert_all_serve()


def test_a_balancer_that_cannot_be_reached_keeps_the_worker_from_its_drain(
        light_fleet: LightFleet, hooks: Hooks) -> None:
    """As docs/hooks.md has it: Ansible itself goes on where a host that a task is delegated to is unreachable."""
    fleet = light_fleet.up(1)
    asks = ("- name: Ask\n  ansible.builtin.command: 'true'\n  delegate_to: lb1\n  vars:\n"
            "    ansible_connection: ssh\n    ansible_host: 127.0.0.1\n    ansible_port: 1\n")
    hooks.write("before_worker", more=asks)
    refused = fleet.playbook("rolling_update", solver_version="1.3.0", solver_hooks=hooks.paths)
    assert refused.returncode == 2
    assert "delegates a task to lb1 without register" in " ".join(refused.stdout.split()), refused.stdout
    hooks.write("before_worker", more=f"{asks}  register: asked\n- name: Fail where it is silent\n"
                                      "  ansible.builtin.assert: {that: asked is not unreachable, fail_msg: silent}\n")
    done = fleet.playbook("rolling_update", solver_version="1.3.0", solver_hooks=hooks.paths)
    own, = fleet.verdict()["workers"]
    assert (own["outcome"], own["cause"]) == ("failed", "hook"), done.stdout
    assert fleet.versions() == {"w1": "1.2.0"}
