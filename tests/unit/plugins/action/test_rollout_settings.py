# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings as a play gets them, by the real ansible-playbook; nothing is connected to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible_collections.solver.fleet.plugins.action import rollout_settings

pytestmark = pytest.mark.programs

ROOT = Path(__file__).resolve().parents[4]
PLAY = """
- hosts: solver_workers
  gather_facts: false
  tasks:
    - solver.fleet.rollout_settings:
        kind: {kind}
        fleet: "{{{{ groups.solver_workers }}}}"
      register: solver_rollout
      run_once: true
    - ansible.builtin.copy:
        content: "{{{{ {{'hosts': solver_rollout.hosts, 'workers': solver_rollout.workers | default({{}}) | list,
                   'lanes': solver_rollout.lanes}} | to_json }}}}"
        dest: {out}
      delegate_to: localhost
      connection: local
      run_once: true
"""


def settled(folder: Path, kind: str, *words: str, **shared: object) -> subprocess.CompletedProcess[str]:
    hosts = {name: {"solver_data_port": 9000 + number} for number, name in enumerate(("w1", "w2", "w3"))}
    hosts["w1"]["ansible_host"] = hosts["w2"]["ansible_host"] = "deck"
    hosts["w3"]["ansible_connection"] = "local"
    settings = {"solver_version": "1.3.0", "solver_verdict_file": str(folder / "verdict.json"), **shared}
    (folder / "inventory.yml").write_text(json.dumps({"solver_workers": {"hosts": hosts, "vars": settings}}))
    name = "omit" if kind == "none" else kind
    text = PLAY.format(kind='"{{ omit }}"' if name == "omit" else name, out=folder / "out.json")
    (folder / "play.yml").write_text(text)
    return subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(folder / "inventory.yml"),
         str(folder / "play.yml"), "-e", f"ansible_python_interpreter={sys.executable}", *words],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def test_a_rollout_has_the_workers_in_its_ledger_and_in_no_variable(tmp_path: Path) -> None:
    done = settled(tmp_path, "update")
    assert done.returncode == 0, done.stdout
    found = json.loads((tmp_path / "out.json").read_text())
    assert (found["hosts"], found["workers"]) == (["w1", "w2", "w3"], [])


@pytest.mark.parametrize("kind", ["provision", "remove", "request"])
def test_a_limit_leaves_the_whole_fleet_in_rosters_and_routers(tmp_path: Path, kind: str) -> None:
    done = settled(tmp_path, kind, "--limit", "w2")
    assert done.returncode == 0, done.stdout
    names = ["w1", "w2", "w3"]
    assert json.loads((tmp_path / "out.json").read_text()) == {
        "hosts": names, "workers": names, "lanes": {"w1": "deck", "w2": "deck"}}


def test_the_routers_of_all_fleets_are_not_given_one_of_them_alone() -> None:
    routers = {"r1": {"machine": "r1"}}
    eu: Any = SimpleNamespace(settings={"solver_hosts": "eu"}, routers=routers)
    refusal, = rollout_settings._routers_of_others(eu, "solver_routers")
    assert refusal.startswith("solver_hosts is eu, and the routers are those of the group solver_routers")
    for settings, own in (({"solver_hosts": "solver_workers"}, routers), ({"solver_hosts": "eu"}, {}), ({}, routers)):
        well: Any = SimpleNamespace(settings=settings, routers=own)
        assert rollout_settings._routers_of_others(well, "solver_routers") == []


@pytest.mark.parametrize("kind", ["none", "provision", "remove"])
def test_a_missing_hook_stops_only_who_would_run_it(tmp_path: Path, kind: str) -> None:
    hooks = {"before_rollout": str(tmp_path / "missing.yml")}
    assert settled(tmp_path, kind, solver_hooks=hooks).returncode == 0
    refused = settled(tmp_path, "update", solver_hooks=hooks)
    assert refused.returncode != 0
    assert json.loads((tmp_path / "verdict.json").read_text())["verdict"] == "refused"


@pytest.mark.parametrize(("kind", "code"), [("none", 0), ("remove", 0), ("update", 0), ("provision", 0)])
def test_no_settings_need_the_password_of_the_vault(tmp_path: Path, kind: str, code: int) -> None:
    """A key that stands encrypted in the inventory is for the task that brings it to the host, and for no other."""
    vaulted = "!vault |\n          $ANSIBLE_VAULT;1.1;AES256\n          " + "61" * 40
    (tmp_path / "group_vars").mkdir()
    text = f"solver_api_key: {vaulted}\nsolver_data_token: {vaulted}\n"
    (tmp_path / "group_vars" / "solver_workers.yml").write_text(text)
    done = settled(tmp_path, kind)
    assert done.returncode == code, done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["none", "provision"])
def test_who_only_looks_writes_over_no_verdict(tmp_path: Path, kind: str) -> None:
    (tmp_path / "verdict.json").write_text('{"verdict": "completed"}')
    assert settled(tmp_path, kind, solver_drain_timeout="long").returncode != 0
    assert json.loads((tmp_path / "verdict.json").read_text()) == {"verdict": "completed"}


def test_strata_are_variables_that_the_workers_have(tmp_path: Path) -> None:
    refused = settled(tmp_path, "update", solver_strata="zone")
    assert refused.returncode != 0
    assert "solver_strata names zone, a variable that no worker has" in " ".join(refused.stdout.split())
    assert settled(tmp_path, "update", solver_strata="zone", zone="a").returncode == 0


@pytest.mark.parametrize(("text", "module"), [
    ("- pause: seconds=5\n", "pause"), ("- action: pause seconds=5\n", "pause"),
    ("- add_host: {name: x}\n", "add_host"),
    ("- block:\n    - debug:\n  rescue:\n    - block:\n        - local_action: pause\n", "pause"),
    ("- wait_for: {timeout: 1}\n", ""), ("- nobody.knows.this: {}\n", ""), ("- debug:\n    msg: pause\n", ""),
    ("- name: No action at all\n", ""), ("- include_tasks: more.yml\n", "")])
def test_what_ansible_does_once_for_all_hosts_is_found_in_a_hook(text: str, module: str) -> None:
    assert rollout_settings._for_all_at_once(yaml.safe_load(text)) == module


@pytest.mark.parametrize(("point", "code"), [("before_worker", 2), ("after_stage", 2), ("before_rollout", 0)])
def test_it_is_refused_where_it_would_end_the_run_without_a_verdict(tmp_path: Path, point: str, code: int) -> None:
    path = tmp_path / "hook.yml"
    path.write_text("- name: Ask\n  ansible.builtin.pause: {prompt: Go on?}\n")
    done = settled(tmp_path, "update", solver_hooks={point: str(path)})
    assert done.returncode == code, done.stdout
    if code:
        reason, = json.loads((tmp_path / "verdict.json").read_text())["reasons"]
        assert reason.startswith(f"solver_hooks.{point}: {path} has ansible.builtin.pause, which Ansible does not "
                                 "run there: it would end the run without a verdict; wait by ansible.builtin.wait_for")
