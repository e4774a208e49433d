# SPDX-License-Identifier: GPL-3.0-or-later
"""Verdicts as a rollout writes them, of any size, and what a browser makes of their report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.solver.fleet.plugins.plugin_utils import _story, _verdict
from rollout_kit import SETTINGS, census, fleet, plan

TEMPLATE = Path(_story.__file__).with_name("_report.html.j2").read_text(encoding="utf-8")
AT_TARGET = census("1.3.0", release="1.3.0-new")
# What a worker may say: each would be something else than text to a reader that does not escape it.
HOSTILE = ["<script>alert(1)</script>", "</title></svg><img src=x onerror=alert(1)>", "\"'><b onclick=alert(1)>",
           "{{ 7 * 7 }}{% raw %}", "&amp;&lt;", "]]><!-- -->", "javascript:alert(1)", "\u202egnirts"]


def turn(name: str, at: float, failing: bool = False, part: str = "roll") -> list[dict[str, Any]]:
    """The events of one turn of about 17 s, as they are emitted."""
    def one(event: str, clock: float, **facts: Any) -> dict[str, Any]:
        return {"event": event, "clock": clock, "part": part, "worker": name, **facts}

    events = [
        one("waiting", at - 5.0, reason="the window of 1 is full"), one("admitted", at),
        one("program_begun", at, steps=["drain", "switch", "verify", "resume"]),
        one("progress", at + 10.0, step="drain", ok=False, took_s=9.5, remaining={"open": 4}, open_at_drain=12),
        one("step_ended", at + 15.0, step="drain", ok=True, took_s=1.0, ago_s=4.0),
        one("step_ended", at + 15.0, step="switch", ok=True, took_s=2.0, ago_s=2.0)]
    if not failing:
        return [*events, one("step_ended", at + 15.0, step="verify", ok=True, took_s=1.5, ago_s=0.5),
                one("step_ended", at + 15.0, step="resume", ok=True, took_s=0.5), one("serves", at + 15.0),
                one("step_ended", at + 17.0, step="soak", ok=True, took_s=2.0),
                one("outcome", at + 17.0, outcome="updated")]
    return [*events, one("step_ended", at + 15.0, step="verify", ok=False, took_s=2.0, reason="no"),
            one("follow_up", at + 15.0, action="revert"),
            one("program_begun", at + 15.0, steps=["revert_drain", "revert", "revert_verify", "revert_resume"]),
            *(one("step_ended", at + 17.0, step=step, ok=True, took_s=0.5, ago_s=ago) for step, ago in (
                ("revert_drain", 1.5), ("revert", 1.0), ("revert_verify", 0.5), ("revert_resume", 0.0))),
            one("outcome", at + 17.0, outcome="reverted")]


def verdict(size: int = 4, failing: tuple[str, ...] = (), text: str = "its probe failed", together: int = 1,
            **settings: Any) -> dict[str, Any]:
    """The verdict of a rollout that takes so many TOGETHER, in which the release fails on some."""
    made = plan(fleet(size), solver_max_unavailable=together, window=together, **settings)
    made.update(started_at="2026-11-24T01:00:00Z", ended_at="2026-11-24T01:30:00Z",
                settings=_verdict.settings_shown({**SETTINGS, "solver_reason": text, **settings}),
                who={"user": "ada", "job": None, "host": "deck"})
    events: list[dict[str, Any]] = [{"event": "begun", "clock": 100.0}]
    outcomes: dict[str, Any] = {}
    for place, name in enumerate(made["order"]):
        events += turn(name, 110.0 + 17.0 * (place // together), name in failing)
        bad = {"outcome": "reverted", "cause": "release", "reason": f"verify: {text}", "log": [text] * 20}
        outcomes[name] = bad if name in failing else {
            "outcome": "updated", "open_at_drain": 12, "timings": {"drain": 11.0, "verify": 1.5}}
    final = {name: census() if name in failing else AT_TARGET for name in made["workers"]}
    return _verdict.verdict(made, outcomes, final, story=_story.tell(made, events, final))
