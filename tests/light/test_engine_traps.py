# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of Ansible, and ways to start a playbook, that made a rollout fail, hang, or end well with nothing done."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils._controller import _fanout
from fleetlib import ROOT, Fleet, ansible_bin, events_of
from lightfleet import LightFleet

# local_fleet sets a fleet up, so it needs none.
# Those that work on the fleet of an inventory.
PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml")
                   if path.stem not in ("awx_configure", "local_fleet"))


def test_a_fact_cache_keeps_nothing_of_an_aborted_rollout(light_fleet: LightFleet, tmp_path: Path) -> None:
    fleet, cache, hook = light_fleet.up(2), tmp_path / "facts", tmp_path / "hook.yml"
    hook.write_text("- name: Leave a fact in the cache\n  ansible.builtin.set_fact:\n    mark: left\n"
                    "    cacheable: true\n", encoding="utf-8")
    env = {"ANSIBLE_CACHE_PLUGIN": "ansible.builtin.jsonfile", "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(cache)}
    own = {"env": env, "solver_hooks": {"before_worker": str(hook)}}
    fleet.set_fault(version="1.3.0", probe="release")
    aborted = fleet.roll("1.3.0", solver_max_fail_percentage=0, **own)
    assert fleet.verdict()["verdict"] == "aborted", aborted.stdout
    # The cache is in use, and holds what the user put there and nothing of ours.
    kept = {path.name.rpartition("s1_")[2]: json.loads(path.read_text(encoding="utf-8")) for path in cache.iterdir()}
    assert kept, aborted.stdout
    assert "mark" in json.dumps(kept)
    assert "solver" not in json.dumps(kept), kept

    fleet.heal()
    done = fleet.roll("1.4.0", **own)
    assert done.returncode == 0, done.stdout
    assert fleet.verdict()["verdict"] == "completed"
    assert fleet.verdict()["reasons"] == []
    assert set(fleet.versions().values()) == {"1.4.0"}


def test_facts_need_not_be_variables(light_fleet: LightFleet, tmp_path: Path) -> None:
    """inject_facts_as_vars=False; the wheels travel as to a remote host, and the hook is told the verdict."""
    fleet, hook = light_fleet.up(2, ansible_connection="ansible.builtin.local"), tmp_path / "hook.yml"
    hook.write_text("- name: Write down the verdict\n  ansible.builtin.copy:\n"
                    "    content: \"{{ solver_verdict.verdict }}\"\n"
                    f"    dest: {tmp_path}/verdict\n    mode: '0600'\n", encoding="utf-8")
    done = fleet.roll("1.3.0", env={"ANSIBLE_INJECT_FACT_VARS": "False"}, solver_hooks={"after_rollout": str(hook)},
                      solver_wheelhouse=str(fleet.wheelhouse))
    assert done.returncode == 0, done.stdout
    assert fleet.verdict()["verdict"] == "completed"
    assert set(fleet.versions().values()) == {"1.3.0"}
    assert (tmp_path / "verdict").read_text(encoding="utf-8") == "completed"


@pytest.mark.quick
def test_an_interpreter_is_discovered_once_for_each_worker(light_fleet: LightFleet, tmp_path: Path) -> None:
    """Where the inventory names none; a call that asks all forgets what its processes have found out."""
    fleet, shell, asked = light_fleet.up(2), tmp_path / "sh", tmp_path / "asked"
    shell.write_text(f"#!/bin/sh\ncase \"$*\" in *'echo FOUND'*) echo once >> {asked};; esac\nexec /bin/sh \"$@\"\n")
    shell.chmod(0o755)
    fleet.vars["solver_worker_python"] = fleet.vars.pop("ansible_python_interpreter")
    env = {"ANSIBLE_EXECUTABLE": str(shell), "PATH": f"{ansible_bin()}:/usr/bin:/bin"}
    done = fleet.roll("1.3.0", env=env, inventory=fleet.write_inventory("none.yml"))
    assert done.returncode == 0, done.stdout
    assert fleet.verdict()["verdict"] == "completed"
    # Two workers, and the controller, where the wheels are gathered; each question goes through two shells.
    assert asked.read_text().count("once") <= 2 * 3, done.stdout


def test_without_pipelining_nothing_is_left_in_the_remote_tmp(light_fleet: LightFleet, tmp_path: Path) -> None:
    """Ansible's default. Each call of a turn has a process of its own, in which its folder alone is known."""
    fleet = light_fleet.up(1, ansible_remote_tmp=str(tmp_path / "remote"))
    done = fleet.roll("1.3.0", env={"ANSIBLE_PIPELINING": "0"})
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "remote").exists()
    assert list((tmp_path / "remote").iterdir()) == []


def test_the_operators_task_timeout_ends_neither_the_gate_nor_a_turn(light_fleet: LightFleet, tmp_path: Path) -> None:
    """The turn of w1 and the wait of w2 take longer than it."""
    limit = 12
    fleet = light_fleet.up(2, solver_events_dir=str(tmp_path / "events"), solver_order="name")
    fleet.set_fault("w1", version="1.2.0", drain_s=limit + 2.0)
    done = fleet.roll("1.3.0", env={"ANSIBLE_TASK_TIMEOUT": str(limit)})
    assert done.returncode == 0, done.stdout
    assert fleet.verdict()["verdict"] == "completed"
    seen = events_of(tmp_path / "events")
    at = {(own["event"], own["worker"]): own["clock"] for own in seen if own["event"] in ("admitted", "outcome")}
    assert at["outcome", "w1"] - at["admitted", "w1"] > limit
    asked = min(own["clock"] for own in seen if own["event"] == "waiting" and own["worker"] == "w2")
    assert at["admitted", "w2"] - asked > limit


@pytest.mark.quick
@pytest.mark.parametrize("name", PLAYBOOKS)
def test_a_playbook_for_which_the_inventory_has_no_workers_says_so(tmp_path: Path, name: str) -> None:
    inventory = tmp_path / "inventory.yml"
    inventory.write_text("other:\n  hosts:\n    x:\n", encoding="utf-8")
    done = Fleet(tmp_path).playbook(name, inventory=inventory, solver_version="1.3.0", solver_only=["w1"])
    assert done.returncode != 0, done.stdout
    assert "the inventory has no workers" in " ".join(done.stdout.split()), done.stdout


@pytest.mark.quick
@pytest.mark.parametrize("task", ["Give the verdict", "Look once more, give the verdict and the lock back"])
def test_a_rollout_does_not_start_in_its_middle(light_fleet: LightFleet, task: str) -> None:
    """The name of a play matches no task, and that of a task leaves out all that is before it."""
    fleet = light_fleet.up(2)
    before = {name: fleet.status(name)["seq"] for name in fleet.hosts()}
    done = fleet.roll("1.3.0", "--start-at-task", task)
    assert done.returncode != 0, done.stdout
    assert "--start-at-task leaves out" in " ".join(done.stdout.split())
    assert {name: fleet.status(name)["seq"] for name in fleet.hosts()} == before


def test_a_blank_survey_field_is_the_whole_fleet(light_fleet: LightFleet) -> None:
    fleet = light_fleet.up(2)
    shown = fleet.playbook("status", solver_hosts=None)
    assert shown.returncode == 0, shown.stdout
    assert all(f"{name} " in shown.stdout for name in ("w1", "w2")), shown.stdout
    done = fleet.roll("1.3.0", solver_hosts=None)
    assert done.returncode == 0, done.stdout
    assert set(fleet.outcomes()) == {"w1", "w2"}


def most_at_once(lanes: dict[str, str], log: Path, others: int) -> int:
    """Take twenty looks, each of which waits until OTHERS have begun; return how many were under way at once."""
    def note(change: int) -> None:
        handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, f"{time.monotonic_ns()} {change}\n".encode())
        os.close(handle)

    def look() -> dict[str, Any]:
        note(1)
        until = time.monotonic() + 20
        while log.read_text(encoding="utf-8").count(" 1\n") < others and time.monotonic() < until:
            time.sleep(0.01)
        note(-1)
        return {}

    answers = _fanout.call_all({f"w{number}": look for number in range(20)}, timeout=60, parallel=20, lanes=lanes)
    assert set(map(str, answers.values())) == {"{}"}, answers
    most = now = 0
    for line in sorted(log.read_text(encoding="utf-8").splitlines()):
        now += int(line.split()[1])
        most = max(most, now)
    return most


@pytest.mark.quick
def test_workers_on_one_machine_are_asked_a_few_at_a_time(tmp_path: Path) -> None:
    """An sshd as it comes drops connections beyond ten that have not logged in (MaxStartups)."""
    assert most_at_once({f"w{number}": "one" for number in range(20)}, tmp_path / "one", 5) == 5
    assert most_at_once({f"w{number}": str(number % 2) for number in range(20)}, tmp_path / "two", 6) > 5
