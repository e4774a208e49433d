# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases that are as good, and 5, 10 and 20 points worse, on the books of light workers whose tasks fail by chance:
they are promoted and failed as often as docs/strategies.md says, within the confidence of so many attempts."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._bake import Bake
from fleetlib import ROOT
from lightworker.books import Books, Traffic

ATTEMPTS = 120
NAMES = ("w1", "w2", "w3", "w4")
LIVE: dict[str, Any] = {name: {"at": 0.0, "census": {"worker": {"state": "running", "drain": False}}} for name in NAMES}


class Records:
    """All take what is written."""

    def lock_args(self, _name: str) -> dict[str, Any]:
        return {}

    def everywhere(self, _module: str, args: Any, _read: Any) -> dict[str, dict[str, Any]]:
        return {name: {"ours": True} for name in args}


def attempt(worse: float, seed: int) -> str:
    """One comparison, a look each second; each worker ends one task in a second."""
    bake = Bake(Records(), {"promote": "auto", "bake": {
        "canaries": ["w1"], "control": list(NAMES[1:]), "min_tasks": 100, "bake_s": 30.0, "max_s": 400.0,
        "needs_s": None, "least_s": None, "traffic": "", "judged": None, "baselines": {}}})
    books = {name: Books(1, 1.0, f"{seed} {name}") for name in NAMES}
    traffic = {name: Traffic(0.05 + (worse if name == "w1" else 0.0), per_s=1.0, drawn=True) for name in NAMES}
    for second in range(1000):
        for name, own in books.items():
            own.advance(float(second), True, 1.0, traffic[name])
            bake.take(name, {"census": {"worker": {
                "totals": own.totals, "journal": {"id": name}, "solve_histogram": own.histogram}}}, second)
        ended = bake.step(LIVE, float(second))
        if ended:
            return ended.word
    raise AssertionError("it never ended")


def promised() -> list[tuple[float, float]]:
    page = (ROOT / "docs/strategies.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| 95 % \| 3 \| (.+) \|$", page, re.MULTILINE)
    cells = [re.match(r"([\d.]+) / ([\d.]+)", cell) for cell in row.split(" | ")]
    return [(float(cell.group(1)) / 100, float(cell.group(2)) / 100) for cell in cells if cell]


def bounds(share: float) -> tuple[float, float]:
    """Where the share of ATTEMPTS lies in 999 of 1,000 cases, by Wilson's interval around what was promised."""
    z = 3.29
    square = z * z / ATTEMPTS
    middle = (share + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(share * (1 - share) / ATTEMPTS + square / ATTEMPTS / 4)
    return middle - half, middle + half


@pytest.mark.parametrize(("number", "worse"), list(enumerate((0.0, 0.05, 0.10, 0.20))))
def test_a_release_is_promoted_and_failed_as_often_as_the_page_says(number: int, worse: float) -> None:
    words = Counter(attempt(worse, seed) for seed in range(ATTEMPTS))
    for word, share in zip(("promote", "fail"), promised()[number], strict=True):
        low, high = bounds(share)
        assert low - 1e-9 <= words[word] / ATTEMPTS <= high + 1e-9, (words, share)
