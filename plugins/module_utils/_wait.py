# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""Waiting with two bounds: the deadline of the whole, and the slice that one module call may take."""

from __future__ import annotations

import time

# So long one call of a module waits at most: whoever called it must hear from it, and may want to stop.
SLICE_S = 25.0
# A status that comes back at once must not make us spin.
SHORTEST_ROUND_S = 0.2


class Clock:
    """Monotonic time and sleep; tests inject their own."""

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Span:
    """How long a wait has lasted over all calls, and how long this call may go on."""

    def __init__(self, clock: Clock, slice_s: float, elapsed_before: float = 0.0) -> None:
        self._clock = clock
        self._start = clock.now()
        self._slice = slice_s
        self._before = max(0.0, elapsed_before)

    def in_call(self) -> float:
        return self._clock.now() - self._start

    def elapsed(self) -> float:
        """Seconds since the whole wait began, earlier calls included."""
        return self._before + self.in_call()

    def slice_left(self) -> float:
        return max(0.0, self._slice - self.in_call())

    def left(self, deadline: float) -> float:
        """Seconds that this call may still wait, given the deadline of the whole."""
        return max(0.0, min(self.slice_left(), deadline - self.elapsed()))

    def pause(self, seconds: float) -> None:
        """Sleep, but never beyond the slice."""
        seconds = min(seconds, self.slice_left())
        if seconds > 0:
            self._clock.sleep(seconds)
