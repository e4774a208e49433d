# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may import what, as CONTRIBUTING.md says."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PURE = sorted((ROOT / "plugins/plugin_utils").glob("*.py"))
# Of these a pure function needs nothing: they ask the machine, the clock, or Ansible.
IMPURE = {"ansible", "fcntl", "pathlib", "random", "secrets", "shutil", "signal", "socket", "subprocess", "tempfile",
          "time"}


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", PURE, ids=lambda path: path.name)
def test_what_decides_asks_nobody(path: Path) -> None:
    names = list(imported(path))
    assert not {name.partition(".")[0] for name in names} & IMPURE
    assert not [name for name in names if "plugin_utils._controller" in name]
