# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole commands of the Makefile that take minutes, so that the campaign runs them like any other test."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from fleetlib import ROOT

COMMANDS = {
    "molecule": ["make", "molecule"],
    "the bench that compares with builtin modules": [sys.executable, "tests/bench/engine.py", "plain"],
    **{f"real workers on ansible-core {core}": [sys.executable, "tools/cores.py", "--real", "--core", core]
       for core in ("2.18", "2.21")},
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_takes_minutes(command: str) -> None:
    # Its tests are a session of their own.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(COMMANDS[command], cwd=ROOT, env=env, capture_output=True, text=True, check=False,
                          timeout=1500)
    if "no supported ansible-core can run" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
