# SPDX-License-Identifier: GPL-3.0-or-later
"""The totals of one worker and its open tasks, as they are at the instant that somebody asks for."""

from __future__ import annotations

import math

TOTALS = ("accepted", "succeeded", "failed", "uncertain", "expired", "probes", "provider_submits", "refused")


class Books:
    """While the worker accepts, LOAD tasks are open and new ones replace those that end; afterwards they run out."""

    def __init__(self, load: int, solve_s: float) -> None:
        self.totals = dict.fromkeys(TOTALS, 0)
        self.open = 0
        self._load = load
        self._rate = load / solve_s
        self._at = 0.0
        self._new = 0.0
        self._wrong = 0.0
        self._since: float | None = 0.0  # nothing is accepted since
        self._then = 0  # so many were open then

    def advance(self, now: float, accepting: bool, drain_s: float, error_share: float) -> None:
        """From the last look until NOW; ACCEPTING is how it is from now on."""
        if self._since is None:
            self._new += (now - self._at) * self._rate
            ended = int(self._new)
            self._new -= ended
            self._accept(ended)
            self._end(ended, error_share)
        else:
            self._end(self.open - self._left(now, drain_s), error_share)
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

    def _end(self, count: int, error_share: float) -> None:
        self._wrong += count * error_share
        wrong = min(count, int(self._wrong))
        self._wrong -= wrong
        self.open -= count
        self.totals["failed"] += wrong
        self.totals["succeeded"] += count - wrong
