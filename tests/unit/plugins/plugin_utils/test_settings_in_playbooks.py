# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a playbook takes a setting straight from the inventory, it reads it as the table would."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils._settings import (
    AWX,
    LOCAL_FLEET,
    ROUTER,
    SETTINGS,
    setting_of,
)

PLAYBOOKS = Path(__file__).parents[4] / "playbooks"
ALL = {**SETTINGS, **ROUTER, **LOCAL_FLEET, **AWX}
# Not the setting's own default, but what is done without one.
INSTEAD = {
    "solver_index_url": "omit", "solver_local_fleet_dir": "lookup('ansible.builtin.env', 'PWD') ~ '/.local-fleet'",
    "solver_local_fleet_python": "ansible_playbook_python",
    "solver_router_hosts": "'solver_routers' if 'solver_routers' in groups else 'localhost:!localhost'"}
# The lookup takes what is blank for the default itself, as test_fleet.py shows.
TO_LOOKUP = re.compile(r"lookup\('solver.fleet.fleet', (solver_hosts) \| default\(''\)")
FOUND = sorted({(path.relative_to(PLAYBOOKS).as_posix(), name, given)
                for path in PLAYBOOKS.rglob("*.yml")
                for name, given in re.findall(r"(solver_\w+) \| default\(((?:[^()]|\([^()]*\))*)\)",
                                              TO_LOOKUP.sub("", path.read_text(encoding="utf-8")))
                if name in ALL})
LOOKED_UP = {path.relative_to(PLAYBOOKS).as_posix() for path in PLAYBOOKS.rglob("*.yml")
             if TO_LOOKUP.search(path.read_text(encoding="utf-8"))}


def test_they_are_found():
    assert {"solver_hosts", "solver_become", "solver_router_hosts", "solver_local_fleet_size"} <= {
        name for _path, name, _given in FOUND}
    assert {"provision.yml", "remove.yml", "rolling_update.yml"} <= {
        path for path, name, _given in FOUND if name == "solver_hosts"}
    assert {f"{name}.yml" for name in (
        "awx_gate", "awx_verdict", "doctor", "history", "provision", "remove", "report", "request", "resume",
        "rolling_update", "status")} == LOOKED_UP


@pytest.mark.parametrize(("path", "name", "given"), FOUND)
def test_null_and_an_empty_text_are_the_default_there_too(path, name, given):
    """Without `true` a blank field of a survey is no pattern: no host matches it, and the exit code is 0."""
    value, comma, also_blank = given.rpartition(", ")
    assert (comma, also_blank) == (", ", "true")
    if name in INSTEAD:
        assert value == INSTEAD[name]
    else:
        assert ast.literal_eval({"true": "True", "false": "False"}.get(value, value)) == setting_of(name).default


@pytest.mark.parametrize("blank", [None, ""])
def test_a_blank_pattern_is_the_whole_fleet(tmp_path, blank):
    (tmp_path / "inventory.yml").write_text('{"solver_workers": {"hosts": {"w1": {}, "w2": {}}}}', encoding="utf-8")
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(tmp_path / "inventory.yml"),
         str(PLAYBOOKS / "status.yml"), "--list-hosts", "-e", json.dumps({"solver_hosts": blank})],
        env={**os.environ, "ANSIBLE_CONFIG": str(PLAYBOOKS.parent / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        cwd=PLAYBOOKS.parent, capture_output=True, text=True, check=False, timeout=120)
    assert "hosts (2)" in done.stdout, done.stdout + done.stderr
