# SPDX-License-Identifier: GPL-3.0-or-later
"""README's "On your own fleet", typed as it stands: in this checkout, by somebody whose home is empty."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def block() -> str:
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## On your own fleet")[2]
    found = re.search(r"```console\n(.*?)```", section, re.DOTALL)
    assert found
    return found.group(1)


@pytest.mark.slow
def test_the_commands_of_the_readme_put_the_collection_into_the_home(tmp_path: Path) -> None:
    before = {path.name for path in ROOT.iterdir()}, sorted((ROOT / ".collections").rglob("*"))
    # Building the wheels asks a package index for what the worker needs; the plan of it shows that the module is found.
    commands = re.sub(r"^ansible localhost", "ansible localhost --check", block(), flags=re.MULTILINE)
    assert "--check" in commands
    env = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    env.update(HOME=str(tmp_path), PATH=f"{Path(sys.executable).parent}:{env['PATH']}", ANSIBLE_NOCOLOR="1")
    done = subprocess.run(["bash", "-ec", commands], cwd=ROOT, env=env, capture_output=True, text=True, check=False,
                          timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    installed = tmp_path / ".ansible/collections/ansible_collections/solver/fleet"
    assert not installed.is_symlink()
    assert (installed / "playbooks/provision.yml").exists()
    assert (installed / "roles/worker/files/solver-worker/pyproject.toml").exists()
    assert '"failed": true' not in done.stdout
    assert ({path.name for path in ROOT.iterdir()}, sorted((ROOT / ".collections").rglob("*"))) == before
    shown = subprocess.run(["bash", "-ec", "cd ~ && ansible-playbook solver.fleet.status --syntax-check"], cwd=ROOT,
                           env=env, capture_output=True, text=True, check=False, timeout=120)
    assert shown.returncode == 0, shown.stdout + shown.stderr
