# SPDX-License-Identifier: GPL-3.0-or-later
"""What the playbooks must say literally, because Ansible makes something else of anything else."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.solver.fleet.plugins.plugin_utils._settings import INTERNAL

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))
ROLL = ROOT / "playbooks" / "engine" / "roll.yml"
ACTIONS = sorted((ROOT / "plugins" / "action").glob("*.py"))
# They talk to no worker: a limit has nothing to say there.
OF_NO_FLEET = ("local_fleet", "awx_configure")


class Loader(yaml.SafeLoader):
    """Knows the tags of Ansible."""


Loader.add_multi_constructor("!", lambda loader, _suffix, node: loader.construct_scalar(node))


def plays(path: Path) -> list[dict[str, Any]]:
    return [play for play in yaml.load(path.read_text(encoding="utf-8"), Loader) if "hosts" in play]


def tasks(path: Path) -> list[dict[str, Any]]:
    """All tasks of a playbook or of a file of tasks, those in blocks and under apply among them."""
    found: list[dict[str, Any]] = []

    def walk(items: list[dict[str, Any]]) -> None:
        for item in items:
            inner = [item[part] for part in ("pre_tasks", "tasks", "post_tasks", "block", "rescue", "always")
                     if part in item]
            for own in inner:
                walk(own)
            if not inner and "hosts" not in item:
                found.append(item)

    walk(yaml.load(path.read_text(encoding="utf-8"), Loader) or [])
    return found


def everywhere() -> list[tuple[Path, dict[str, Any]]]:
    return [(path, task) for path in sorted((ROOT / "playbooks").rglob("*.yml")) if "vars" not in path.parts
            for task in tasks(path)]


def test_the_play_that_rolls_says_literally_how():
    rolls, = plays(ROLL)
    assert rolls["strategy"] == "ansible.builtin.host_pinned"
    assert rolls["any_errors_fatal"] is False
    assert rolls["max_fail_percentage"] == 0
    assert rolls["ignore_unreachable"] is True
    assert rolls["gather_facts"] is False
    assert rolls["tags"] == ["always"], "with --tags a gate that is skipped is open"
    # No host variable is seen there: only what the plan left in the ledger.
    assert rolls["hosts"] == "{{ query('solver.fleet.stages', 'hosts', part=roll_part | default('roll')) }}"
    assert rolls["serial"] == "{{ query('solver.fleet.stages', 'sizes', part=roll_part | default('roll')) }}"
    assert "order" not in rolls, "it would destroy the order of the plan"
    assert "throttle" not in ROLL.read_text(encoding="utf-8"), "it ends the run where a host is lost"


def test_forward_and_back_are_the_same_play():
    text = yaml.load((ROOT / "playbooks" / "rolling_update.yml").read_text(encoding="utf-8"), Loader)
    imported = [(play["ansible.builtin.import_playbook"], play["vars"]) for play in text if "hosts" not in play]
    assert imported == [("engine/roll.yml", {"roll_part": "roll"}), ("engine/roll.yml", {"roll_part": "back"})]
    others = {f"{path.stem}: {play['name']}" for path in PLAYBOOKS for play in plays(path) if "serial" in play}
    assert others == {"remove: Remove the workers"}


def test_nothing_in_the_play_that_rolls_is_run_once():
    """Under host_pinned it would run on every host."""
    hooks = [ROOT / "playbooks" / "tasks" / name for name in ("hook.yml", "hook_worker.yml")]
    assert [task["name"] for path in (ROLL, *hooks) for task in tasks(path) if "run_once" in task] == []


def test_every_guard_runs_whatever_tags_are_chosen():
    assert [play["name"] for path in (*PLAYBOOKS, ROLL) for play in plays(path)
            if path.stem != "local_fleet" and play.get("tags") != ["always"]] == []
    assert [task["name"] for _path, task in everywhere() if "tags" in task] == []


WAITS = ("rollout_look", "rollout_stage", "rollout_claim", "rollout_gate", "worker_turn", "rollout_verdict")


def test_what_waits_by_the_settings_has_no_other_end():
    """An operator's task_timeout would end it in the middle: without a verdict, with the lock held."""
    found = {name: task.get("timeout") for _path, task in everywhere() for name in WAITS
             if f"solver.fleet.{name}" in task}
    assert found == dict.fromkeys(WAITS, 0)


def test_whoever_reads_the_settings_registers_them_under_the_one_name():
    """What an action hands out as facts may be kept by the operator's fact cache, and be read by the next run."""
    found = [task.get("register") for _path, task in everywhere() if "solver.fleet.rollout_settings" in task]
    assert len(found) >= 5
    assert set(found) == {"solver_rollout"}


@pytest.mark.parametrize("path", ACTIONS, ids=lambda path: path.stem)
def test_no_action_of_ours_hands_out_facts(path):
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    words = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert "ansible_facts" not in words | {node.arg for node in nodes if isinstance(node, ast.keyword)}


def test_what_is_for_the_controller_uses_no_sudo():
    """ansible_become in the inventory is for the workers' hosts, and is stronger than the keyword."""
    def controllers(task: dict[str, Any]) -> bool:
        includes = [own for own in task.values() if isinstance(own, dict)]
        return "localhost" in [task.get("delegate_to"), *(own.get("apply", {}).get("delegate_to") for own in includes)]

    there = [(path.name, task) for path, task in everywhere() if controllers(task) and path.stem != "local_fleet"]
    assert there
    sudo = [task["name"] for _name, task in there if task.get("vars", {}).get("ansible_become") is not False]
    assert sudo == []


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
def test_every_play_of_the_fleet_is_linear(path):
    """Under a configured `free` or `host_pinned`, run_once is ignored: each worker would make a plan of its own."""
    assert [play["name"] for play in plays(path)
            if play["hosts"] != "localhost" and play.get("strategy") != "ansible.builtin.linear"] == []


def test_no_play_addresses_localhost():
    """A limit skips such a play without a word, and the run ends with exit status 0."""
    assert [f"{path.stem}: {play['name']}" for path in (*PLAYBOOKS, ROLL) for play in plays(path)
            if path.stem not in OF_NO_FLEET and play["hosts"] == "localhost"] == []


def test_the_first_play_of_each_playbook_refuses_an_empty_fleet():
    firsts = {path.stem: plays(path)[0]["hosts"] for path in PLAYBOOKS
              if plays(path) and path.stem not in OF_NO_FLEET}
    assert {"rolling_update", "provision", "remove", "request", "status", "history", "report"} <= set(firsts)
    assert [name for name, hosts in firsts.items() if not hosts.startswith("{{ lookup('solver.fleet.fleet', ")] == []


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
def test_nothing_asks_a_person(path):
    text = path.read_text(encoding="utf-8")
    assert "vars_prompt" not in text
    assert "ansible.builtin.pause" not in text


@pytest.mark.parametrize("path", [
    path for folder in ("playbooks", "roles") for path in sorted((ROOT / folder).rglob("*.yml"))
    if "solver-worker" not in path.parts], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_variable_is_made_a_number_before_it_is_divided(path):
    """ansible-core 2.18 renders a number that was passed on as text."""
    divided = re.findall(r"[^({]*\w\)? / [\d]", path.read_text(encoding="utf-8"))
    assert [part for part in divided if "| float / " not in part] == []


def test_what_the_playbooks_set_is_known_to_be_theirs():
    """Else a playbook that reads the settings after a rollout, in the same run, takes it for a misspelt setting."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "playbooks").rglob("*.yml"))
    set_here = set(re.findall(r"register: (solver_\w+)", text)) | set(re.findall(
        r"set_fact:\n(?: +\w+:.*\n)*? +(solver_\w+):", text))
    passed_on = {"solver_hook", "solver_operation", "solver_request"}  # variables of includes and imports
    from_elsewhere = {name for name in INTERNAL if name.startswith(("solver_last_", "solver_awx_"))}
    assert set_here | passed_on == INTERNAL - from_elsewhere, "and nothing else may be misspelt without a word"


LOOKS = ("fleet_ask", "fleet_resume")


def test_whoever_looks_at_hosts_does_it_with_a_bound():
    """A plain task on a host that dropped off the network waits as long as ssh does, and all the others with it."""
    assert [f"{path.stem}: {task['name']}" for path, task in everywhere() if "solver.fleet.worker_info" in task] == []
    looks = [task for _path, task in everywhere() if any(f"solver.fleet.{name}" in task for name in LOOKS)]
    assert len(looks) >= 7
    assert {task.get("timeout") for task in looks} == {0}, "each has times of its own"
    acts = ("solver.fleet.rollout_lock", "solver.fleet.wheelhouse_copy")
    assert [task["name"] for _path, task in everywhere() if set(acts) & set(task) and not task.get("timeout")] == []
    included = [task for _path, task in everywhere() if task.get("ansible.builtin.include_role", {}).get(
        "name") == "solver.fleet.router"]
    assert [task["name"] for task in included if not task["ansible.builtin.include_role"].get("apply", {}).get(
        "timeout")] == []
    steps = yaml.load((ROOT / "roles/worker/tasks/main.yml").read_text(encoding="utf-8"), Loader)
    assert [step["name"] for step in steps if "timeout" not in step["ansible.builtin.include_tasks"]["apply"]] == []
