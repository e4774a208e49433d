# SPDX-License-Identifier: GPL-3.0-or-later
"""The totals of one worker and its open tasks, as they are at the instant that somebody asks for."""

from __future__ import annotations

import math
import random
from typing import NamedTuple

from solver_worker import histogram
from solver_worker.journal import CLASSES

TOTALS = ("accepted", "succeeded", "failed", "uncertain", "expired", "probes", "provider_submits", "refused")
# The standard deviation of the logarithm of a solve time.
SPREAD = 0.5


class Traffic(NamedTuple):
    """How the tasks of a release end; C(per_s) is how many do while the worker accepts, by default all in solve_s."""

    error_share: float = 0.0
    provider_share: float = 0.0
    per_s: float | None = None
    solve_s: float | None = None
    drawn: bool = False  # by chance, with the seed of the worker, instead of each n-th


class Books:
    """While the worker accepts, LOAD tasks are open and new ones replace those that end; afterwards they run out."""

    def __init__(self, load: int, solve_s: float, seed: str = "") -> None:
        self.totals = dict.fromkeys(TOTALS, 0)
        self.failures = dict.fromkeys(CLASSES, 0)
        self.histogram = [0] * histogram.BUCKETS
        self.open = 0
        self._load = load
        self._solve_s = solve_s
        self._chance = random.Random(seed)
        self._at = 0.0
        self._new = 0.0
        self._wrong = 0.0
        self._since: float | None = 0.0  # nothing is accepted since
        self._then = 0  # so many were open then

    def advance(self, now: float, accepting: bool, drain_s: float, traffic: Traffic = Traffic()) -> None:  # noqa: B008
        """From the last look until NOW; ACCEPTING is how it is from now on."""
        if self._since is None:
            rate = self._load / self._solve_s if traffic.per_s is None else traffic.per_s
            self._new += (now - self._at) * rate
            ended = int(self._new)
            self._new -= ended
            self._accept(ended)
            self._end(ended, traffic)
        else:
            self._end(self.open - self._left(now, drain_s), traffic)
        self._at = now
        if accepting:
            self._since = None
            self._accept(self._load - self.open)
        elif self._since is None:
            self._since, self._then = now, self.open

    def empty_at(self, drain_s: float) -> float:
        """When the last open task ends, if nothing is accepted meanwhile."""
        return math.inf if self._since is None else self._since + drain_s

    def _left(self, now: float, drain_s: float) -> int:
        gone = 1.0 if drain_s <= 0 else (now - (self._since or 0.0)) / drain_s
        # Rounding must not keep a task open beyond the time for which somebody set a timer.
        return min(self.open, max(0, math.ceil(self._then * (1.0 - gone) - 1e-6)))

    def _accept(self, count: int) -> None:
        self.open += count
        self.totals["accepted"] += count
        self.totals["provider_submits"] += count

    def _end(self, count: int, traffic: Traffic) -> None:
        wrong = self._failed(count, traffic)
        self.open -= count
        self.totals["failed"] += wrong
        self.totals["succeeded"] += count - wrong
        provider = round(wrong * traffic.provider_share)
        self.failures["provider"] += provider
        self.failures["worker"] += wrong - provider
        if traffic.solve_s is None:
            self.histogram[histogram.bucket(self._solve_s)] += count - wrong
            return
        for _task in range(count - wrong):
            took = traffic.solve_s * math.exp(SPREAD * self._chance.gauss(0, 1))
            self.histogram[histogram.bucket(took)] += 1

    def _failed(self, count: int, traffic: Traffic) -> int:
        if traffic.drawn:
            return sum(self._chance.random() < traffic.error_share for _task in range(count))
        self._wrong += count * traffic.error_share
        wrong = min(count, int(self._wrong))
        self._wrong -= wrong
        return wrong
