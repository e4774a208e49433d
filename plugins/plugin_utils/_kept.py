# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""The door for verdicts that were kept: in a file, or on a worker's host, where somebody may have changed them.

Documents of all versions of the schema come through it; what an older one lacks is empty. Pure functions.
"""

from __future__ import annotations

from typing import Any, cast

from ansible_collections.solver.fleet.plugins.plugin_utils._shape import (
    Misfit,
    count,
    fields,
    flag,
    items,
    known,
    mapping,
    may,
    name,
    need,
    number,
    tail,
    text,
    word,
)
from ansible_collections.solver.fleet.plugins.plugin_utils._verdict import VERDICT_SCHEMA

MOST_WORKERS = 10_000
_TEXT = 4000
_COUNT, _SECONDS, _NAMES = count(), number(1e9), items(name(253), MOST_WORKERS)
_LINES = items(text(_TEXT), 200)
_NUMBER = number(low=-1e15)


def _figure(value: Any, now: float) -> Any:
    """A number that may not be known."""
    return None if value is None else _NUMBER(value, now)


_NUMBERS = mapping(_figure, 100)


def _setting(value: Any, now: float) -> Any:
    """A setting as people read it: one value, or a list of them."""
    if isinstance(value, list):
        return items(_setting, 1000)(value, now)
    if isinstance(value, str):
        return text(_TEXT)(value, now)
    return value if value is None or isinstance(value, bool) else _NUMBER(value, now)


_STEP = fields({"step": need(word), "from_s": need(_SECONDS), "to_s": need(_SECONDS), "ok": need(flag)})
_WORKER = fields({
    "name": need(name(253)), "outcome": need(word), "cause": may(word), "reason": may(text(_TEXT)),
    **{each: may(text(200)) for each in ("from", "to", "release", "runs")}, "open_at_drain": may(_COUNT),
    "timings": may(mapping(_SECONDS, 100)),
    "totals": may(fields({"before": known(_NUMBERS), "after": known(_NUMBERS)}), nullable=False),
    "steps": may(items(_STEP, 1000)), "log": may(tail(50, 2000, 100_000))})
_DOCUMENT = fields({
    "schema_version": may(text(20)), "verdict": need(word), "kind": may(word), "strategy": may(word),
    "judgement": may(fields({"word": need(word), "reason": may(text(_TEXT))})),
    **{each: may(name(200)) for each in ("rollout_id", "run_id")},
    **{each: may(text(200)) for each in ("target", "started_at", "ended_at")},
    "who": may(fields({each: may(text(253)) for each in ("user", "job", "host")})),
    "reasons": may(_LINES), "warnings": may(_LINES), "spent": may(_NAMES),
    **{each: may(_COUNT) for each in ("window", "floor", "tolerated")},
    "budget_percent": may(number(100)), "estimate_s": may(_SECONDS), "waves": may(items(_NAMES, MOST_WORKERS)),
    "settings": may(mapping(_setting, 500)), "workers": may(items(_WORKER, MOST_WORKERS)),
    "samples": may(items(fields({
        "at_s": need(_SECONDS), "serving": need(_COUNT), "versions": need(mapping(_COUNT, 200)),
        "open": need(_COUNT)}), 10_000)),
    "waits": may(items(fields({
        "worker": may(name(253)), "from_s": need(_SECONDS), "to_s": need(_SECONDS), "reason": need(text(_TEXT)),
        "for": may(_NAMES)}), 10_000)),
    "audit": may(_NUMBERS)})
# What lines are made of, also where a document says nothing of it.
_NO_WORKER: dict[str, Any] = {
    **dict.fromkeys(("from", "to", "release", "cause", "open_at_drain", "runs")), "reason": "", "timings": {},
    "totals": {"before": None, "after": None}, "log": []}
_NO_DOCUMENT: dict[str, Any] = {
    **dict.fromkeys(("kind", "strategy", "judgement", "rollout_id", "run_id", "target", "started_at", "ended_at")),
    "reasons": [],
    "warnings": [], "settings": {}}


def kept_verdict(raw: Any) -> dict[str, Any]:
    """Return a verdict that was kept as its schema has it, or raise ValueError with what is wrong with it."""
    schema = raw.get("schema") if isinstance(raw, dict) else None
    if schema != VERDICT_SCHEMA:
        found = text(100)(schema, 0.0) if isinstance(schema, str) else "none"
        raise ValueError(f"it is no verdict that this release reads: its schema is {found}, not {VERDICT_SCHEMA}")
    try:
        found = cast(dict[str, Any], _DOCUMENT(raw, 0.0))
    except Misfit as misfit:
        raise ValueError(f"it is a damaged verdict: {misfit.where} {misfit.why}") from None
    workers = [{**_NO_WORKER, **worker} for worker in found.get("workers") or []]
    return {"schema": VERDICT_SCHEMA, **_NO_DOCUMENT, **found, "workers": workers}
