# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast we may call the provider: blocks, the submit window, and the account's rule on polls."""

from __future__ import annotations

from collections import deque
from random import SystemRandom

# The provider bans an account for ten seconds above 60 submits in 3 s; the margin is for its clock.
WINDOW_S = 3.0
WINDOW_SUBMITS = 50
# It blocks an account once res.php calls exceed 20 per captcha plus 1200.
CALLS_PER_CAPTCHA = 20
CALLS_FREE = 1200
CALLS_MARGIN = 20
# Below this allowance polls are stretched, so that the rule is approached slowly and never met.
CALLS_TIGHT = 600
WIDEN_AFTER_S = 60.0
RESUME_CALLS_PER_S = 100.0

_RANDOM = SystemRandom()


class Block:
    """Until when one kind of call must not be made."""

    def __init__(self) -> None:
        self._until = 0.0

    def extend(self, until: float) -> None:
        self._until = max(self._until, until)

    def delay(self, now: float) -> float:
        return max(0.0, self._until - now)


class SubmitWindow:
    def __init__(self) -> None:
        self._recent: deque[float] = deque()

    def delay(self, now: float) -> float:
        while self._recent and self._recent[0] <= now - WINDOW_S:
            self._recent.popleft()
        if len(self._recent) < WINDOW_SUBMITS:
            return 0.0
        return self._recent[0] + WINDOW_S - now

    def count(self, now: float) -> None:
        self._recent.append(now)


def allowance(captchas: int, calls: int) -> int:
    """res.php calls that the account's rule still grants."""
    return CALLS_PER_CAPTCHA * captchas + CALLS_FREE - CALLS_MARGIN - calls


def poll_interval(base: float, waited: float, left: int) -> float:
    """Wider for old tasks, and wider for all when the allowance runs short."""
    interval = base
    if waited > WIDEN_AFTER_S:
        interval *= 2
    if left < CALLS_TIGHT:
        interval *= 1 + 4 * (1 - max(left, 0) / CALLS_TIGHT)
    return interval


def resume_delay(due_in: float, resumed: int, interval: float) -> float:
    """After a restart: not before it was due, and not all at once."""
    spread = max(interval, resumed / RESUME_CALLS_PER_S)
    return max(due_in, 0.0) + _RANDOM.uniform(0, spread)


def jitter(seconds: float) -> float:
    return seconds * _RANDOM.uniform(0.9, 1.1)
