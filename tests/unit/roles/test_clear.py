# SPDX-License-Identifier: GPL-3.0-or-later
"""What is taken away after the last worker of a machine: in a folder of the test's own, nothing of the machine's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]


def cleared(folder: Path, *words: str, **more: object) -> str:
    """Run it with every path below FOLDER, and without an account: a test may run as root."""
    given = {
        "worker_state": "cleared", "worker_name": "w1", "worker_base_dir": str(folder / "base"),
        "worker_dir": str(folder / "base/workers/w1"), "worker_control_socket": str(folder / "s"),
        "worker_config": {"worker": {"state_dir": str(folder / "state")}}, "worker_machine_dirs": [str(folder / "etc")],
        "worker_service": {"backend": "systemd", "name": "w1"}, "worker_wheelhouse": "", "worker_user": "", **more}
    play = [{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [
        {"ansible.builtin.include_role": {"name": "solver.fleet.worker"}, "vars": given}]}]
    (folder / "play.yml").write_text(json.dumps(play), encoding="utf-8")
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", str(folder / "play.yml"), "-e",
         f"ansible_python_interpreter={sys.executable}", *words], cwd=ROOT, capture_output=True, text=True, check=False,
        timeout=120, env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    return " ".join(done.stdout.split())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("base/workers", "base/releases/one", "base/envs", "etc"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "base/lock").touch()
    return tmp_path


def test_nothing_is_left_where_nothing_else_is(folder: Path) -> None:
    assert "nothing of the workers is left on this host" in cleared(folder)
    assert not (folder / "base").exists()
    assert not (folder / "etc").exists()
    assert "changed=0" in cleared(folder)


def test_what_is_not_ours_stays_and_is_named(folder: Path) -> None:
    (folder / "base/notes").touch()
    (folder / "etc/other.key").touch()
    assert "user nobody: provisioning did not make it" in cleared(folder, "--check", worker_user="nobody")
    said = cleared(folder)
    assert f"{folder}/base, {folder}/etc: not empty, what is in there is not ours" in said
    assert (folder / "etc/other.key").exists()
    assert not (folder / "base/releases").exists()


def test_a_worker_that_the_inventory_does_not_know_keeps_all(folder: Path) -> None:
    (folder / "base/workers/w9").mkdir()
    assert f"{folder}/base/workers/w9: workers that this inventory does not have" in cleared(folder)
    assert (folder / "base/releases/one").exists()
