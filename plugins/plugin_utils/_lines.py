# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""Lines for people that tell of one worker. Pure functions of plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def progress_line(name: str, result: Mapping[str, Any], done: int, of: int) -> str:
    """Return the one line that says what became of a worker, and how far the rollout is."""
    place = f"({done} of {of} done)"
    good = result["outcome"] == "updated"
    seconds = sum(value for value in result.get("timings", {}).values() if isinstance(value, (int, float)))
    if good:
        open_tasks = result.get("open_at_drain")
        drained = "" if open_tasks is None else f", {open_tasks} tasks open when its drain began"
        return f"{name} updated {result['from'] or '?'} -> {result['to']} in {seconds:.1f} s{drained} {place}"
    return f"{name} {result['outcome'].upper()} [{result['cause']}] {result['reason']} {place}"
