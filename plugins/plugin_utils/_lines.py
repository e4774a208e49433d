# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""Lines for people that tell of one worker. Pure functions of plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def progress_line(plan: Mapping[str, Any], name: str, result: Mapping[str, Any]) -> str:
    """Return the one line that says what became of a worker, with its place in the rollout."""
    place = f"({plan['order'].index(name) + 1}/{len(plan['order'])})" if name in plan["order"] else ""
    good = result["outcome"] == "updated"
    seconds = sum(value for value in result.get("timings", {}).values() if isinstance(value, (int, float)))
    if good:
        open_tasks = result.get("open_at_drain")
        drained = "" if open_tasks is None else f", {open_tasks} tasks open when its drain began"
        return f"{name} updated {result['from'] or '?'} -> {result['to']} in {seconds:.1f} s{drained} {place}".rstrip()
    return f"{name} {result['outcome'].upper()} [{result['cause']}] {result['reason']} {place}".rstrip()
