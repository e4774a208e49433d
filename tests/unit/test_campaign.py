# SPDX-License-Identifier: GPL-3.0-or-later
"""The campaign's share of time holds, in one process and in several."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.programs

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("processes", [["-p", "no:xdist"], ["-n", "2", "--dist", "load", "--maxschedchunk=1"]])
def test_no_test_begins_when_the_share_is_used_up(tmp_path: Path, processes: list[str]) -> None:
    tests = tmp_path / "test_many.py"
    tests.write_text("import pytest\n\n@pytest.mark.parametrize('n', range(40))\ndef test_it(n):\n    pass\n")
    done = subprocess.run([sys.executable, "-m", "pytest", "-p", "tools.campaign_stop", "--stop-after=0.001",
                           "--rootdir", str(tmp_path), "-c", "/dev/null", *processes, str(tests)],
                          cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert "of this share are used up" in done.stdout, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert 1 <= int(passed[1]) <= 6, done.stdout
