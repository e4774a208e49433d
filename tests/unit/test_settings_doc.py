# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/settings.md is what the table of settings says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "settings_doc.py"
sys.path.insert(0, str(TOOL.parent))
sys.path.insert(0, str(ROOT / ".collections"))

import settings_doc  # noqa: E402
from ansible_collections.solver.fleet.plugins.plugin_utils._settings import (  # noqa: E402
    AWX,
    LOCAL_FLEET,
    ROUTER,
    SECRETS,
    SETTINGS,
    Setting,
)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(TOOL), *words], capture_output=True, text=True, timeout=60, check=False)


def test_the_page_is_current():
    done = run("--check")
    assert done.returncode == 0, done.stderr


def test_every_setting_has_one_row():
    rows = re.findall(r"^\| `(solver_\w+)` \|", settings_doc.PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted([*SETTINGS, *ROUTER, *LOCAL_FLEET, *AWX, *SECRETS])


def test_a_stale_page_is_told_and_left_alone(tmp_path):
    page = tmp_path / "settings.md"
    page.write_text(settings_doc.page().replace("Failure budget", "A budget"), encoding="utf-8")
    before = page.read_bytes()
    done = run("--check", "--page", str(page))
    assert done.returncode == 1
    assert "is stale; run tools/settings_doc.py" in done.stderr
    assert page.read_bytes() == before
    assert run("--page", str(page)).returncode == 0
    assert run("--check", "--page", str(page)).returncode == 0


def test_a_page_that_is_not_there_is_stale(tmp_path):
    assert run("--check", "--page", str(tmp_path / "none.md")).returncode == 1


def test_a_setting_without_a_theme_is_refused():
    with pytest.raises(settings_doc.ThemeError, match="without a theme: solver_new"):
        settings_doc.check_themes({**SETTINGS, "solver_new": Setting("flag", False, "New.")})
    with pytest.raises(settings_doc.ThemeError, match="not in the table: solver_version"):
        settings_doc.check_themes({name: own for name, own in SETTINGS.items() if name != "solver_version"})


@pytest.mark.parametrize(("setting", "kind", "default"), [
    (Setting("seconds", 120.0, "", minimum=1), "number, seconds, at least 1", "`120`"),
    (Setting("seconds", 1.5, "", minimum=0.1, maximum=86_400), "number, seconds, at least 0.1, at most 86400", "`1.5`"),
    (Setting("count", 5, "", maximum=1_000_000), "whole number, at most 1000000", "`5`"),
    (Setting("text", "", "", maximum=500), "text, at most 500 characters", "none"),
    (Setting("stages", [], ""), "list such as `[1, 10%, 100%]`, or the same with commas between", "none"),
    (Setting("flag", False, ""), "`true` or `false`", "`false`"),
    (Setting("choice", "a", "", choices=("a", "b")), "one of `a`, `b`", "`a`"),
    (Setting("names", ["1.2.0", "1.3.0"], ""), "list, or names with commas between", "`1.2.0, 1.3.0`"),
    (Setting("count", 0, ""), "whole number", "`0`"),
    (Setting("mapping", {}, ""), "mapping", "none"),
])
def test_types_and_defaults_in_words(setting, kind, default):
    assert settings_doc.type_of(setting) == kind
    assert settings_doc.default_of(setting) == default


def test_a_bar_does_not_break_the_table():
    assert settings_doc.row("solver_x", Setting("text", "", "a | b")).count(" | ") == 4
