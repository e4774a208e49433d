# SPDX-License-Identifier: GPL-3.0-or-later
"""The buckets of solve times, as docs/control-api.md has them: each is 1.25 times as wide as the one before."""

from __future__ import annotations

import math

FIRST_S = 0.1
RATIO = 1.25
BUCKETS = 43


def bucket(seconds: float) -> int:
    """The number of the bucket for one solve; the last one takes all that is longer."""
    if seconds <= FIRST_S:
        return 0
    return min(BUCKETS - 1, math.ceil(round(math.log(seconds / FIRST_S, RATIO), 9)))
