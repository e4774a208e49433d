# SPDX-License-Identifier: GPL-3.0-or-later
"""What the judge of a canary says of books; how often it is wrong is in test_canary_rates.py."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils import _canary
from ansible_collections.solver.fleet.plugins.plugin_utils._canary import Arm, Look, Rules

sys.path.append(str(Path(__file__).resolve().parents[4] / "roles/worker/files/solver-worker/src"))
from solver_worker import histogram

RULES = Rules(min_tasks=100, bake_s=600.0, max_s=3600.0)
EMPTY: dict[str, Any] = {"succeeded": 0, "failed": 0, "uncertain": 0, "expired": 0, "apart": 0, "times": []}


def books(**counts: Any) -> dict[str, Any]:
    return {**EMPTY, **counts}


def since(then: dict[str, Any], now: dict[str, Any], journal: str = "j") -> Arm | None:
    return _canary.since({"arm": "canary", "at": "", "journal": "j", "books": then, "looks": 0}, journal, now)


def test_the_interval_is_newcombes():
    """His own example, 56 of 70 against 48 of 80: 0.0524 to 0.3339."""
    low, high = _canary.worse_by(Arm(1, 56, 14), Arm(1, 48, 32), 1.959964)
    assert (round(low, 4), round(high, 4)) == (0.0524, 0.3339)


@pytest.mark.parametrize(("old", "new", "seconds", "word"), [
    ((95, 5), (95, 5), 600, "promote"),
    ((95, 5), (95, 5), 599, ""),  # not before its time
    ((950, 50), (94, 5), 3599, ""),  # too few, and there is time
    ((950, 50), (94, 5), 3600, "inconclusive"),
    ((29, 0), (10, 19), 3599, ""),  # so few say nothing at all
    ((30, 0), (10, 20), 1, "fail"),  # what is certain need not be waited for
    ((285, 15), (260, 40), 600, "inconclusive"),  # the last look
    ((9500, 500), (9500, 500), 600, "promote"),
    ((400, 600), (400, 600), 600, "inconclusive"),  # nobody solves
    ((0, 0), (0, 0), 3600, "inconclusive"),
])
def test_what_it_says(old: tuple[int, int], new: tuple[int, int], seconds: float, word: str):
    said = _canary.judge(Arm(3, *old), Arm(1, *new), RULES, seconds, Look())
    assert said.word == word, said
    assert bool(said.reason) == bool(word)


def test_the_same_is_looked_at_once():
    """More tasks of the same look are no new look, also after the controller was killed."""
    old = Arm(3, 285, 15)
    first = _canary.judge(old, Arm(1, 30, 5), RULES, 10, Look())
    assert (first.word, first.look.due) == ("", 1)
    again = _canary.judge(old, Arm(1, 30, 20), RULES, 20, first.look)
    assert again.word == ""
    assert _canary.judge(old, Arm(1, 40, 25), RULES, 20, first.look).word == "fail"
    # With the time another look is due.
    assert _canary.judge(old, Arm(1, 30, 20), RULES, 600, first.look).word == "fail"


def test_the_providers_failures_are_apart_and_promote_nobody():
    old, bad = Arm(3, 950, 50), Arm(1, 150, 0, apart=150)
    assert _canary.judge(old, bad, RULES, 700, Look()).word == ""
    last = _canary.judge(old, bad._replace(succeeded=310, apart=300), RULES, 700, Look())
    assert (last.word, "300 failed at the provider" in last.reason) == ("inconclusive", True)
    # The same on both sides says nothing against the release.
    alike = _canary.judge(old._replace(apart=100), Arm(1, 285, 15, apart=30), RULES, 700, Look())
    assert alike.word == "promote"


def test_what_has_happened_since_the_baseline():
    then = books(succeeded=10, failed=3, expired=1, uncertain=2, apart=1, times=[1, 2])
    now = books(succeeded=110, failed=13, expired=3, uncertain=3, apart=5, times=[1, 12])
    assert since(then, now) == Arm(1, 100, 8, 4, 1, (0, 10))
    assert since(then, now, journal="another") is None
    assert since(now, then) is None, "books never go back"
    assert since(then, {**now, "times": []}).times == ()
    assert since(then, {**now, "apart": 500}).failed == 2, "what is apart is a part"


def test_an_arm_without_the_times_of_somebody_has_none():
    one, other = Arm(1, 10, 1, times=(1, 2)), Arm(1, 10, 1)
    assert _canary.together([one, one]).times == (2, 4)
    assert _canary.together([one, other]) == Arm(2, 20, 2)
    assert _canary.together([]) == Arm()


def test_a_worker_that_claims_far_more_than_the_others_does_not_decide_for_them():
    good = Arm(1, 95, 5)
    assert _canary.together([good, good, Arm(1, 0, 10**12)]) == Arm(2, 190, 10)
    assert _canary.together([good, good, Arm(1, 900, 50)]).workers == 3
    assert _canary.together([good, Arm(1, 0, 10**6)]).workers == 2, "of two nobody knows which"


def drawn(seed: int, factor: float, tasks: int) -> tuple[int, ...]:
    chance, out = random.Random(seed), [0] * histogram.BUCKETS
    for _task in range(tasks):
        out[histogram.bucket(30.0 * factor * chance.lognormvariate(0, 0.5))] += 1
    return tuple(out)


@pytest.mark.parametrize(("factor", "least", "most"), [(1.0, 0, 0), (1.25, 0, 4), (1.5, 80, 100), (2.0, 100, 100)])
def test_solves_that_take_longer(factor: float, least: int, most: int):
    """Of 100 draws of 300 tasks; at the bound itself one of a hundred is called slower."""
    found = sum(_canary.slower(drawn(seed, 1.0, 900), drawn(seed + 1000, factor, 300)) for seed in range(100))
    assert least <= found <= most
    assert not _canary.slower(drawn(1, 1.0, 900), drawn(2, 4.0, 20)), "too few"
    assert not _canary.slower((), drawn(2, 4.0, 300))


def test_a_bucket_is_as_wide_as_what_is_too_slow():
    assert histogram.RATIO == _canary.SLOWER
    for number in range(histogram.BUCKETS - 1):
        edge = histogram.FIRST_S * histogram.RATIO ** number
        assert (histogram.bucket(edge), histogram.bucket(edge * 1.001)) == (number, number + 1)
    assert (histogram.bucket(0.0), histogram.bucket(1e9)) == (0, histogram.BUCKETS - 1)


def test_the_mann_whitney_of_like_counts_is_a_half():
    assert _canary.mann_whitney([5, 5, 5], [5, 5, 5]) == pytest.approx(0.5, abs=0.03)
    assert _canary.mann_whitney([30, 0], [0, 30]) < 1e-9
    assert _canary.mann_whitney([30], [30]) == 1.0


def test_fewer_tasks_are_looked_at_in_fewer_looks():
    assert _canary.looks(100) == [30, 60, 100, 150, 200, 300]
    assert _canary.looks(30) == [30, 45, 60, 90]
