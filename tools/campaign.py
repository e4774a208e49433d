# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the tests that take minutes each, all of them or for a share of time.

`make test` leaves these out. With --seconds they run in an order that changes with --turn, until the time is used up,
so that all of them are seen over a few runs. By default the turn is the number of commits, so each state of the project
sees others. What was not run is said: it does not count as passed.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
REPORT = ROOT / ".cache" / "results" / "campaign.xml"
# What `make test` leaves out: the folders, and the mark of what it does not run there.
PARTS = ((("tests/integration", "tests/light", "tests/faults"), "not quick"), (("tests/unit",), "slow"))
# Tests that have a fleet of real workers in common share its set-up, so a turn takes whole files.
STOP = "tools.campaign_stop"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.0, help="begin no further test after so long (default: all)")
    parser.add_argument("--turn", type=int, help="which order to take (default: the number of commits)")
    args = parser.parse_args()
    turn = commits() if args.turn is None else args.turn
    nodes = in_turn([node for folders, mark in PARTS for node in collect(folders, mark)], turn)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.unlink(missing_ok=True)
    share = f", for {args.seconds:.0f} s" if args.seconds else ""
    print(f"campaign: {len(nodes)} tests, turn {turn}{share}", flush=True)
    command = [sys.executable, "-m", "pytest", "-p", STOP, f"--stop-after={args.seconds}", "-n", "2", "--dist", "load",
               "--maxschedchunk=1", f"--junit-xml={REPORT}", "--durations=10", *nodes]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    return told(len(nodes), code)


def commits() -> int:
    done = subprocess.run(["git", "rev-list", "--count", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 else 0


def collect(folders: Sequence[str], mark: str) -> list[str]:
    command = [sys.executable, "-m", "pytest", *folders, "-m", mark, "--collect-only", "-q", "-p", "no:xdist"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return [line for line in done.stdout.splitlines() if "::" in line]


def in_turn(nodes: list[str], turn: int) -> list[str]:
    """Return the tests in an order that differs from turn to turn; those of one file stay together."""
    def mixed(name: str) -> str:
        return hashlib.sha256(f"{turn} {name}".encode()).hexdigest()

    def key(node: str) -> tuple[str, str]:
        return mixed(node.partition("::")[0]), mixed(node)

    return sorted(nodes, key=key)


def told(wanted: int, code: int) -> int:
    """Say what was run; only a failure is one, time that is used up is none."""
    if not REPORT.exists():
        return code or 1
    suites = list(ElementTree.parse(REPORT).getroot().iter("testsuite"))  # noqa: S314 - our own runner wrote it
    count = {name: sum(int(suite.get(name, 0)) for suite in suites) for name in ("tests", "failures", "errors")}
    failed = count["failures"] + count["errors"]
    print(f"campaign: {count['tests']} of {wanted} run, {failed} failed, {wanted - count['tests']} not run this time")
    return 1 if failed or (code not in (0, 2)) else 0


if __name__ == "__main__":
    sys.exit(main())
