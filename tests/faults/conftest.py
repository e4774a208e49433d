# SPDX-License-Identifier: GPL-3.0-or-later
"""Fleets for the fault suite, and its table of what happened, with durations."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))
sys.path.insert(0, str(Path(__file__).parent))
from faultlib import VERSIONS, all_broken_releases
from fleetlib import ROOT, VERDICTS, Fleet, ansible_bin
from fleetpool import Pool


@pytest.fixture(scope="session")
def fault_folder() -> Path:
    """One folder per test process: what is built in it serves all its fleets, one after the other."""
    core = ansible_bin().parent.name.strip(".")
    folder = ROOT / ".cache" / "faults" / f"{core}-{os.environ.get('PYTEST_XDIST_WORKER', 'single')}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def pool(fault_folder: Path) -> Iterator[Pool]:
    # Not with_suffix: what follows the dot of 2.21-gw0 is no suffix, and two processes would share one folder.
    overlays = all_broken_releases(fault_folder.with_name(f"{fault_folder.name}.overlays"))
    made = Pool(fault_folder, 6, solver_local_fleet_versions=VERSIONS, solver_local_fleet_overlays=overlays)
    yield made
    made.close()


@pytest.fixture
def make_fleet(pool: Pool) -> Iterator[Callable[..., Fleet]]:
    def make(size: int = 2, **variables: object) -> Fleet:
        fleet = pool.get(size, **variables)
        # Who comes first would otherwise depend on which tasks each worker had just solved.
        fleet.write_inventory("inventory.yml", **{name: {"solver_order": "name"} for name in fleet.hosts()})
        return fleet

    yield make
    pool.rest()


def pytest_sessionstart(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):
        VERDICTS.unlink(missing_ok=True)


def exit_codes() -> Counter[tuple[str, int]]:
    """How often each verdict was seen, and with which exit code; each pair was checked where it was seen."""
    lines = VERDICTS.read_text(encoding="utf-8").splitlines() if VERDICTS.exists() else []
    return Counter((own["verdict"], own["code"]) for own in map(json.loads, lines))


def pytest_terminal_summary(terminalreporter) -> None:
    """The table of the scenarios: what was tried, how it ended, how long it took."""
    reports = [report for outcome in ("passed", "failed", "xfailed", "skipped")
               for report in terminalreporter.stats.get(outcome, []) if report.when == "call" or outcome == "skipped"]
    reports = [report for report in reports if report.nodeid.startswith("tests/faults/")]
    rows = sorted(({"scenario": report.nodeid.split("::", 1)[1], "result": report.outcome,
                    "seconds": round(report.duration, 1)} for report in reports), key=lambda row: row["scenario"])
    if not rows:
        return
    for row in rows:
        terminalreporter.write_line(f"{row['result']:<8} {row['seconds']:>7.1f} s  {row['scenario']}")
    for (word, code), count in sorted(exit_codes().items()):
        terminalreporter.write_line(f"exit code {code} with the verdict {word}: {count} times")
    terminalreporter.write_line(f"{len(rows)} scenarios, {sum(row['seconds'] for row in rows):.0f} s of work")
    path = ROOT / ".cache" / "results" / "faults.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
