# SPDX-License-Identifier: GPL-3.0-or-later
"""The provider's limits on an account, switched on by --enforce-limits."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass
class Limits:
    """Counts calls on a monotonic clock that the caller hands in."""

    max_submits: int = 60
    window_s: float = 3.0
    ban_s: float = 10.0
    polls_per_captcha: int = 20
    free_polls: int = 1200
    block_s: float = 600.0
    captchas: int = 0
    polls: int = 0
    _recent: deque[float] = field(default_factory=deque)
    _banned_until: float = float("-inf")
    _blocked_until: float = float("-inf")

    def on_submit(self, now: float) -> str | None:
        """Count one in.php call; the code if it is over the limit."""
        if now < self._blocked_until:
            return "ERROR: 1005"
        if now < self._banned_until:
            return "MAX_USER_TURN"
        while self._recent and now - self._recent[0] >= self.window_s:
            self._recent.popleft()
        self._recent.append(now)
        if len(self._recent) > self.max_submits:
            self._banned_until = now + self.ban_s
            self._recent.clear()
            return "MAX_USER_TURN"
        return None

    def on_accepted(self) -> None:
        self.captchas += 1

    def on_poll(self, now: float) -> str | None:
        """Count one res.php call, getbalance included; the code if the account is blocked."""
        self.polls += 1
        if now < self._blocked_until:
            return "ERROR: 1005"
        if self.polls > self.polls_per_captcha * self.captchas + self.free_polls:
            self._blocked_until = now + self.block_s
            return "ERROR: 1005"
        return None
