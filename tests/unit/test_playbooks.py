# SPDX-License-Identifier: GPL-3.0-or-later
"""What the playbooks must say literally, because Ansible makes something else of anything else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.solver.fleet.plugins.plugin_utils._settings import INTERNAL

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))


class Loader(yaml.SafeLoader):
    """Knows the tags of Ansible."""


Loader.add_multi_constructor("!", lambda loader, _suffix, node: loader.construct_scalar(node))


def plays(path: Path) -> list[dict[str, Any]]:
    return [play for play in yaml.load(path.read_text(encoding="utf-8"), Loader) if "hosts" in play]


def waves() -> list[dict[str, Any]]:
    return [play for play in plays(ROOT / "playbooks" / "rolling_update.yml") if "serial" in play]


def test_the_plays_that_roll_say_literally_how():
    assert len(waves()) == 2, "one play rolls, one rolls back"
    for play in waves():
        assert play["strategy"] == "ansible.builtin.linear"
        assert play["any_errors_fatal"] is False
        assert play["max_fail_percentage"] == 0
        assert play["ignore_unreachable"] is True
        # No host variable is seen there: only groups, which the plan made.
        assert "groups | solver.fleet.wave_sizes" in play["serial"]
        assert "groups | solver.fleet.wave_hosts" in play["hosts"]
        assert "order" not in play, "it would destroy the order of the plan"


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
def test_every_play_of_the_fleet_is_linear(path):
    """Under a configured `free` or `host_pinned`, run_once is ignored: each worker would make a plan of its own."""
    assert [play["name"] for play in plays(path)
            if play["hosts"] != "localhost" and play.get("strategy") != "ansible.builtin.linear"] == []


def test_no_play_that_matters_addresses_localhost():
    """A limit skips such a play without a word; what is left says only that there are no workers."""
    local = {f"{path.stem}: {play['name']}" for path in PLAYBOOKS for play in plays(path)
             if path.stem != "local_fleet" and play["hosts"] == "localhost"}
    assert all(name.endswith("Refuse an empty fleet") for name in local), local


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
def test_nothing_asks_a_person(path):
    text = path.read_text(encoding="utf-8")
    assert "vars_prompt" not in text
    assert "ansible.builtin.pause" not in text


def test_every_guard_runs_whatever_tags_are_chosen():
    """With --tags a task that lacks `always` is skipped, and a gate that is skipped is open."""
    for play in waves():
        gate, *rest = play["tasks"]
        leave = next(task for task in rest if task.get("ansible.builtin.meta") == "end_host")
        assert gate["tags"] == leave["tags"] == ["always"]


@pytest.mark.parametrize("path", [
    path for folder in ("playbooks", "roles") for path in sorted((ROOT / folder).rglob("*.yml"))
    if "solver-worker" not in path.parts], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_variable_is_made_a_number_before_it_is_divided(path):
    """ansible-core 2.18 renders a number that was passed on as text."""
    divided = re.findall(r"[^({]*\w\)? / [\d]", path.read_text(encoding="utf-8"))
    assert [part for part in divided if "| float / " not in part] == []


def test_what_the_playbooks_set_is_known_to_be_theirs():
    """Else a playbook that reads the settings after a rollout, in the same run, takes it for a misspelt setting."""
    files = [*PLAYBOOKS, *(ROOT / "playbooks" / "tasks").glob("*.yml")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    set_here = set(re.findall(r"register: (solver_\w+)", text)) | set(re.findall(
        r"set_fact:\n(?: +\w+:.*\n)*? +(solver_\w+):", text))
    assert set_here - set(INTERNAL) == set()
