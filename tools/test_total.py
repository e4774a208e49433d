# SPDX-License-Identifier: GPL-3.0-or-later
"""Add up what the test runners have written under .cache/results, and close with one line.

The runners of `make test` each print their own summary; this is their sum, read from their reports, not counted here.
"""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

RESULTS = Path(__file__).resolve().parent.parent / ".cache" / "results"


def print_slowest(count: int = 10) -> None:
    """Say where the time goes: the slowest tests of each suite, with what their fixtures took."""
    for report in sorted(RESULTS.glob("*.xml")):
        cases = ElementTree.parse(report).getroot().iter("testcase")  # noqa: S314 - our own runners wrote it
        timed = sorted(((float(case.get("time", 0)), case) for case in cases), key=lambda pair: -pair[0])
        slow = [f"{seconds:7.1f} s  {case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
                for seconds, case in timed[:count] if seconds >= 1]
        if slow:
            print(f"slowest of {report.stem}, {sum(seconds for seconds, _case in timed):.0f} s of work:")
            print("\n".join(slow))


def main() -> int:
    total = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    for report in sorted(RESULTS.glob("*.xml")):
        suites = ElementTree.parse(report).getroot().iter("testsuite")  # noqa: S314 - our own runners wrote it
        counts = dict.fromkeys(total, 0)
        for suite in suites:
            for name in counts:
                counts[name] += int(suite.get(name, 0))
        print(f"{report.stem:<14} {counts['tests']} tests, {counts['failures'] + counts['errors']} failed, "
              f"{counts['skipped']} skipped")
        for name, value in counts.items():
            total[name] += value
    print_slowest()
    failed = total["failures"] + total["errors"]
    passed = total["tests"] - failed - total["skipped"]
    print(f"{passed} passed, {failed} failed, {total['skipped']} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
