# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""A rollout in Prometheus' text format, for the node exporter's textfile collector. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from ansible_collections.solver.fleet.plugins.module_utils._errors import one_line
from ansible_collections.solver.fleet.plugins.plugin_utils._gate import GOOD, Outcomes
from ansible_collections.solver.fleet.plugins.plugin_utils._names import in_order
from ansible_collections.solver.fleet.plugins.plugin_utils._types import Plan
from ansible_collections.solver.fleet.plugins.plugin_utils._verdict import document, judged, worker_row

# All words of a verdict that a file can have: one that is refused, and a check, write none.
VERDICTS = ("completed", "incomplete", "aborted", "rolled_back", "rollback_failed", "inconclusive", "paused",
            "awaiting_promotion", "interrupted")
OUTCOMES = ("updated", "already", "failed", "reverted", "returned", "rolled_back", "rollback_failed", "quarantined",
            "unreachable", "unknown", "not_attempted", "excluded")
Row = tuple[Mapping[str, str], float]


def under_way(plan: Plan, outcomes: Outcomes, backs: Outcomes) -> dict[str, Any]:
    """Return a rollout so far as a verdict: it is interrupted until there is another word."""
    seen = judged(plan, outcomes, {}, backs)
    return document("interrupted", plan, [worker_row(plan, seen, {}, name) for name in plan["workers"]])


def metrics(doc: Mapping[str, Any], now: float, *, running: bool) -> str:
    """Return the file of a rollout that is under way, or has its verdict."""
    began, ended = _instant(doc["started_at"]), now if running else _instant(doc["ended_at"])
    words = Counter(str(worker["outcome"]) for worker in doc["workers"])
    came_from = in_order({str(worker["from"]) for worker in doc["workers"] if worker["from"]})
    info = {"rollout_id": doc["rollout_id"], "kind": doc["kind"], "strategy": doc["strategy"],
            "from": ",".join(came_from), "to": doc["target"]}
    return "".join([
        _family("running", "1 while a rollout is under way.", _plain(float(running))),
        _family("info", "1; the present or the last rollout.", [(info, 1.0)]),
        _family("workers", "Workers by what became of them.",
                [({"outcome": word}, float(words[word])) for word in OUTCOMES]),
        _family("at_target_workers", "Workers that run the target.",
                _plain(float(sum(words[word] for word in GOOD)))),
        _family("start_time_seconds", "When it began.", _plain(began)),
        _family("duration_seconds", "How long it took, or has taken.", _plain(max(0.0, ended - began))),
        _family("last_verdict", "1 for the last verdict; interrupted while a rollout is under way.",
                [({"verdict": word}, float(doc["verdict"] == word)) for word in VERDICTS]),
        _family("last_verdict_time_seconds", "When this file was written, and the verdict given.", _plain(ended)),
    ])


def _plain(value: float) -> list[Row]:
    return [({}, value)]


def _family(name: str, about: str, rows: Iterable[Row]) -> str:
    full = f"solver_rollout_{name}"
    lines = [f"# HELP {full} {about}", f"# TYPE {full} gauge"]
    for labels, value in rows:
        inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        lines.append(f"{full}{{{inside}}} {value:.17g}" if inside else f"{full} {value:.17g}")
    return "\n".join(lines) + "\n"


def _escaped(text: Any) -> str:
    """Versions come from workers, the id from an operator: either may hold anything."""
    return one_line(text or "").replace("\\", "\\\\").replace('"', '\\"')


def _instant(date: Any) -> float:
    return datetime.fromisoformat(str(date).replace("Z", "+00:00")).timestamp()
