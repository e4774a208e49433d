# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""Names as people count and read them: w2 before w10, and not hundreds of them. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable

MOST_NAMES = 10
_DIGITS = re.compile(r"([0-9]+)")


def natural(name: str) -> tuple[tuple[tuple[int, str], ...], str]:
    """Return the sort key of a name, in which each run of digits counts as a number.

    Texts and numbers take turns in it, so like is compared with like. Numbers are compared by their length and then
    as text, because a name may hold more digits than Python turns into a number. The name itself comes last: no two
    names are equal (w1, w01).
    """
    parts = _DIGITS.split(name)
    digits = (part.lstrip("0") for part in parts[1::2])
    numbers = [(len(number), number) for number in digits]
    texts = [(0, part) for part in parts[::2]]
    return tuple(part for pair in zip(texts, [*numbers, (0, "")], strict=True) for part in pair), name


def in_order(names: Iterable[str], reverse: bool = False) -> list[str]:
    """Return the names as people count."""
    return sorted(names, key=natural, reverse=reverse)


def listed(names: Iterable[str]) -> str:
    """Return names in one line, at most ten of them."""
    known = in_order(names)
    more = f" and {len(known) - MOST_NAMES} more" if len(known) > MOST_NAMES else ""
    return ", ".join(known[:MOST_NAMES]) + more
