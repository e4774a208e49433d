# SPDX-License-Identifier: GPL-3.0-or-later
"""How often the judge of a canary is wrong, by adding up all that can happen; docs/strategies.md prints it."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections import defaultdict
from pathlib import Path

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils import _canary
from ansible_collections.solver.fleet.plugins.plugin_utils._canary import Arm, Look

ROOT = Path(__file__).resolve().parents[4]
RULES = _canary.Rules(min_tasks=100, bake_s=0.0, max_s=math.inf)
WORSE = (0, 5, 10, 20)
# What is less probable than this is left out, on each side and at each look.
NEVER = 1e-10

Spread = dict[int, float]


def binomial(tasks: int, rate: float) -> Spread:
    out = {}
    for solved in range(tasks + 1):
        log = (math.lgamma(tasks + 1) - math.lgamma(solved + 1) - math.lgamma(tasks - solved + 1)
               + solved * math.log(rate) + (tasks - solved) * math.log1p(-rate))
        if log > math.log(NEVER):
            out[solved] = math.exp(log)
    return out


def further(spread: Spread, step: Spread) -> Spread:
    out: Spread = defaultdict(float)
    for one, probable in spread.items():
        for more, also in step.items():
            out[one + more] += probable * also
    return {one: probable for one, probable in out.items() if probable > NEVER}


def said(solved: int, tasks: int, other: int, others: int, look: int) -> str:
    old, new = Arm(1, other, others - other), Arm(1, solved, tasks - solved)
    return _canary.judge(old, new, RULES, 1.0, Look(look, True)).word


def split(column: Spread, tasks: int, other: int, others: int, look: int) -> tuple[Spread, dict[str, float]]:
    """Part what may have become of the canaries' tasks by what is said of it: the fewer were solved, the worse."""
    solved = sorted(column)
    fails = bisect_left(solved, 1, key=lambda one: said(one, tasks, other, others, look) != "fail")
    good = bisect_left(solved, 1, key=lambda one: said(one, tasks, other, others, look) == "promote")
    words = {"fail": sum(column[one] for one in solved[:fails]), "promote": sum(column[one] for one in solved[good:])}
    return {one: column[one] for one in solved[fails:good]}, words


def rates(old: float, worse: float, control: int) -> tuple[float, float, float]:
    """The probabilities that it is promoted, and that it fails, and how many tasks of the canaries that takes."""
    # By what the others have solved: what of the canaries' tasks then goes with it.
    now: dict[int, Spread] = {0: {0: 1.0}}
    total: dict[str, float] = defaultdict(float)
    mean, before = 0.0, 0
    for look, tasks in enumerate(_canary.looks(RULES.min_tasks)):
        step_new = binomial(tasks - before, old - worse)
        step_old = binomial((tasks - before) * control, old)
        later: dict[int, Spread] = defaultdict(lambda: defaultdict(float))
        for other, column in now.items():
            moved = further(column, step_new)
            for more, probable in step_old.items():
                into = later[other + more]
                for solved, own in moved.items():
                    into[solved] += own * probable
        mean += (tasks - before) * sum(sum(column.values()) for column in now.values())
        now = {}
        for other, column in later.items():
            rest, words = split({one: own for one, own in column.items() if own > NEVER / 100}, tasks, other,
                                tasks * control, look)
            for word, probable in words.items():
                total[word] += probable
            if rest:
                now[other] = rest
        before = tasks
    return total["promote"], total["fail"], mean


def printed() -> dict[tuple[str, str], list[str]]:
    page = (ROOT / "docs/strategies.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d\d) % \| (\d+) \| (.+) \|$", page, re.MULTILINE)
    return {(rate, control): cells.split(" | ") for rate, control, cells in rows}


def cell(old: int, worse: int, control: int) -> str:
    promoted, failed, tasks = rates(old / 100, worse / 100, control)
    return f"{100 * promoted:.1f} / {100 * failed:.1f} ({tasks:.0f})"


@pytest.mark.parametrize(("old", "control", "worse"), [(95, 1, 20), (95, 3, 20)])
def test_the_page_says_how_often_the_judge_is_wrong(old: int, control: int, worse: int) -> None:
    assert printed()[str(old), str(control)][WORSE.index(worse)] == cell(old, worse, control)


@pytest.mark.slow
@pytest.mark.parametrize("control", [1, 3, 9])
@pytest.mark.parametrize("old", [95, 85])
def test_the_whole_table_is_what_is_computed(old: int, control: int) -> None:
    assert printed()[str(old), str(control)] == [cell(old, worse, control) for worse in WORSE]
