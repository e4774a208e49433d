# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""The judge of a canary: the new release against the old one, over the same time, with known error rates.

Two arms: the workers that were updated, and those that were not yet. Of each the final tasks are counted from the books
of its workers' journals. The judge looks when both arms have so many, and then says that the new release fails, that
it is promoted, or nothing yet. A test computes how often it is wrong, docs/strategies.md says it. Pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.solver.fleet.plugins.plugin_utils._types import Baseline, Books

# Each look at the same data is a chance to be wrong, so there are few, and each asks for more than one alone would.
LOOKS = (0.3, 0.6, 1.0, 1.5, 2.0, 3.0)  # of the tasks that are needed to promote
LEAST = 30
Z_FAIL, Z_PROMOTE = 2.71, 1.96
# How much worse is certainly too much, and how much worse it must certainly not be.
TOO_MUCH, NOT_MORE = 0.02, 0.10
# Where the old release itself solves less than this, nobody can say what the new one is worth.
BOTH_BAD = 0.5
# So much slower is too slow; the buckets of the histogram are as far apart.
SLOWER = 1.25
P_SLOWER = 0.01
# So many times as many tasks as most workers end is not believed.
FAR_MORE = 10
# Whose failures say nothing of a release.
NOT_OURS = ("provider", "account")
_COUNTS = ("succeeded", "failed", "uncertain", "expired", "apart")


class Arm(NamedTuple):
    """What became of the tasks of some workers since the baseline."""

    workers: int = 0
    succeeded: int = 0
    failed: int = 0  # by the release, as far as one can tell
    apart: int = 0  # by the provider or its account
    uncertain: int = 0
    times: tuple[int, ...] = ()  # the histogram of solve times; empty where a worker has none

    @property
    def tasks(self) -> int:
        """How many tasks count."""
        return self.succeeded + self.failed

    @property
    def whole(self) -> Arm:
        """The same where every failure counts, whoever is to blame."""
        return self._replace(failed=self.failed + self.apart, apart=0)

    @property
    def rate(self) -> float:
        return self.succeeded / self.tasks if self.tasks else 0.0


class Rules(NamedTuple):
    """What the settings say of the bake."""

    min_tasks: int
    bake_s: float
    max_s: float


def looks(min_tasks: int) -> list[int]:
    """Return at how many tasks in each arm the judge looks."""
    return sorted({max(LEAST, round(share * min_tasks)) for share in LOOKS})


def wilson(succeeded: int, tasks: int, z: float) -> tuple[float, float]:
    """Return the interval in which the true rate lies."""
    share, square = succeeded / tasks, z * z / tasks
    middle = (share + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(share * (1 - share) / tasks + square / tasks / 4)
    return middle - half, middle + half


def worse_by(old: Arm, new: Arm, z: float) -> tuple[float, float]:
    """Return the interval in which lies by how much the new rate is lower than the old one, by Newcombe's method 10."""
    difference = old.rate - new.rate
    old_low, old_high = wilson(old.succeeded, old.tasks, z)
    new_low, new_high = wilson(new.succeeded, new.tasks, z)
    return (difference - math.hypot(old.rate - old_low, new_high - new.rate),
            difference + math.hypot(old_high - old.rate, new.rate - new_low))


def look_at(old: Arm, new: Arm, min_tasks: int) -> str:
    """Return what one look says: C(fail), C(promote), or nothing."""
    if min(old.tasks, new.tasks) < LEAST:
        return ""
    if worse_by(old, new, Z_FAIL)[0] > TOO_MUCH or slower(old.times, new.times):
        return "fail"
    enough = min(old.tasks, new.tasks) >= min_tasks
    return "promote" if enough and worst(old, new) < NOT_MORE else ""


def worst(old: Arm, new: Arm) -> float:
    """Return by how much the new release may be worse at most; also where what it does to the provider counts."""
    return max(worse_by(old, new, Z_PROMOTE)[1], worse_by(old.whole, new.whole, Z_PROMOTE)[1])


def slower(old: Sequence[int], new: Sequence[int]) -> bool:
    """Whether the new solve times are certainly more than 1.25 times the old ones (Mann-Whitney, one-sided).

    One bucket of the histogram is that factor wide, so to divide by it is to move by one.
    """
    moved = [sum(new[:2]), *new[2:], 0] if new else []
    if len(old) != len(moved) or min(sum(old), sum(moved)) < LEAST:
        return False
    return mann_whitney(old, moved) <= P_SLOWER


def mann_whitney(old: Sequence[int], new: Sequence[int]) -> float:
    """Return how probable it is that NEW lies so far above OLD by chance; both are counts by bucket."""
    many_old, many_new = sum(old), sum(new)
    total = many_old + many_new
    wins, below, ties = 0.0, 0, 0
    for one, other in zip(old, new, strict=True):
        wins += other * (below + one / 2)
        below += one
        ties += (one + other) ** 3 - (one + other)
    spread = many_old * many_new / 12 * ((total + 1) - ties / (total * (total - 1)))
    if spread <= 0:
        return 1.0
    return math.erfc((wins - many_old * many_new / 2 - 0.5) / math.sqrt(2 * spread)) / 2


# --- the books ---


def books_of(worker: Mapping[str, Any] | None) -> tuple[str, Books] | None:
    """Return the journal of a status document, and what an arm needs of its books; nothing while they are unknown."""
    totals, journal = (worker or {}).get("totals"), ((worker or {}).get("journal") or {}).get("id")
    if not worker or not totals or not journal:
        return None
    failures = worker.get("failures") or {}
    apart = sum(int(failures.get(name) or 0) for name in NOT_OURS)
    return str(journal), {
        "succeeded": totals["succeeded"], "failed": totals["failed"], "uncertain": totals["uncertain"],
        "expired": totals["expired"], "apart": apart, "times": list(worker.get("solve_histogram") or [])}


def final_tasks(books: Books) -> int:
    """Return how many tasks have ended with a word."""
    return books["succeeded"] + books["failed"] + books["expired"]


def ended_between(then: Mapping[str, Any] | None, now: Mapping[str, Any]) -> int | None:
    """Return how many tasks ended on a worker between two looks (results of worker_info) at the same journal."""
    before, after = books_of((then or {}).get("worker")), books_of(now.get("worker"))
    if before is None or after is None or before[0] != after[0]:
        return None
    return max(0, final_tasks(after[1]) - final_tasks(before[1]))


def since(baseline: Baseline, journal: str, now: Books) -> Arm | None:
    """Return what has happened on one worker; nothing where its books are others by now, or have gone back."""
    before, after = dict[str, Any](baseline["books"]), dict[str, Any](now)
    grew = {name: after[name] - before[name] for name in _COUNTS}
    if journal != baseline["journal"] or min(grew.values()) < 0:
        return None
    alike = len(after["times"]) == len(before["times"])
    times = [one - other for one, other in zip(after["times"], before["times"], strict=False)] if alike else []
    # What a worker books under a class it has booked as failed; one that does not is no reason for a negative count.
    apart = min(grew["apart"], grew["failed"])
    return Arm(1, grew["succeeded"], grew["failed"] + grew["expired"] - apart, apart, grew["uncertain"],
               tuple(times) if min(times, default=-1) >= 0 else ())


def together(arms: Sequence[Arm]) -> Arm:
    """Return several workers as one arm. A histogram that lacks somebody would compare other tasks than it says.

    Of three and more, one that says of itself that it does many times what the others do is left out: alone it would
    decide for all.
    """
    if len(arms) > 2:
        most = FAR_MORE * max(LEAST, sorted(arm.tasks + arm.apart for arm in arms)[len(arms) // 2])
        arms = [arm for arm in arms if arm.tasks + arm.apart <= most]
    whole = len({len(arm.times) for arm in arms}) == 1
    times = tuple(sum(column) for column in zip(*(arm.times for arm in arms), strict=True)) if whole else ()
    return Arm(sum(arm.workers for arm in arms), sum(arm.succeeded for arm in arms), sum(arm.failed for arm in arms),
               sum(arm.apart for arm in arms), sum(arm.uncertain for arm in arms), times)


# --- the judge ---


class Look(NamedTuple):
    """What the judge has seen: how many looks are due, and whether the time was up. The same again is no new look."""

    due: int = 0
    ripe: bool = False
    over: bool = False


class Said(NamedTuple):
    """What the judge says: C(word) is empty while nobody knows."""

    word: str
    reason: str
    look: Look


def judge(old: Arm, new: Arm, rules: Rules, seconds: float, last: Look) -> Said:
    """Judge what SECONDS of comparison have shown; LAST is the last look that was taken."""
    steps = looks(rules.min_tasks)
    due = sum(1 for tasks in steps if min(old.tasks, new.tasks) >= tasks)
    look = Look(max(due, last.due), seconds >= rules.bake_s, seconds >= rules.max_s)
    if look == last or (not due and not look.over):
        return Said("", "", last)
    word = look_at(old, new, rules.min_tasks)
    if word == "fail":
        return Said("fail", f"the new release is worse: {in_words(old, new)}", look)
    if not look.ripe or (not word and not look.over and due < len(steps)):
        return Said("", "", look)
    why = _both_bad(old) or ("" if word else _not_known(old, new, rules.min_tasks))
    if why:
        return Said("inconclusive", f"nobody can say whether the new release is as good: {why}; {in_words(old, new)}",
                    look)
    return Said("promote", f"the new release is as good: {in_words(old, new)}", look)


def _both_bad(old: Arm) -> str:
    every = old.tasks + old.apart
    if not every or old.succeeded / every >= BOTH_BAD:
        return ""
    return "the old release does not solve either"


def _not_known(old: Arm, new: Arm, min_tasks: int) -> str:
    for arm, who in ((new, "the canaries"), (old, "the others")):
        if arm.tasks < min_tasks:
            return f"only {arm.tasks} tasks ended on {who}, {min_tasks} are needed (solver_canary_min_tasks)"
    return f"it may be up to {100 * worst(old, new):.0f} points worse, and it need not be"


def in_words(old: Arm, new: Arm) -> str:
    """Say what became of the tasks of both arms."""
    return f"{_arm(new, 'canary')}, {_arm(old, 'other')}" + _pace(old, new)


def _arm(arm: Arm, who: str) -> str:
    plural = {"canary": "canaries", "other": "others"}[who] if arm.workers != 1 else who
    beside = [f"{count} {what}" for count, what in (
        (arm.apart, "failed at the provider"), (arm.uncertain, "uncertain")) if count]
    more = f" (beside {', '.join(beside)})" if beside else ""
    return f"{arm.workers} {plural} solved {arm.succeeded} of {arm.tasks}{more}"


def _pace(old: Arm, new: Arm) -> str:
    if not old.times or not new.times:
        return "; solve times are not compared"
    return f"; it is more than {SLOWER:g} times as slow" if slower(old.times, new.times) else ""


def progress(old: Arm, new: Arm, rules: Rules, seconds: float) -> str:
    """Say how far the comparison is."""
    return (f"{in_words(old, new)}; {rules.min_tasks} tasks are needed on each side; {seconds:.0f} s of at least "
            f"{rules.bake_s:.0f} s, at most {rules.max_s:.0f} s")
