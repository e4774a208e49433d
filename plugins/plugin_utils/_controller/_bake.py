# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""The comparison of canaries with the others, at the gate of the stage that follows on them.

Baseline and judgement are in the workers' records before anything follows from them. So a comparison whose controller
was killed goes on where it was, and what was judged is not judged again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from ansible_collections.solver.fleet.plugins.plugin_utils import _canary, _entry, _gate
from ansible_collections.solver.fleet.plugins.plugin_utils._canary import Arm, Look
from ansible_collections.solver.fleet.plugins.plugin_utils._names import in_order
from ansible_collections.solver.fleet.plugins.plugin_utils._types import Baseline, Books, Judgement, Plan, Seen

# A canary that does not serve for so long, with nobody who drained it, has failed; its service may start it once more.
DOWN_S = 30.0
# A worker's books are read so often in the time of the comparison, but no more often than the gate looks at anybody.
READINGS, SOONEST_S, LATEST_S = 20, 2.0, 10.0
# A large control group is read at this pace; the canaries are few, and what they show is what is waited for.
CONTROL_S = 0.25
_DATE = "%Y-%m-%dT%H:%M:%SZ"


class Asks(Protocol):
    """What the comparison needs of the gate."""

    def everywhere(self, module: str, args: Mapping[str, Mapping[str, Any]], read: Any) -> dict[str, dict[str, Any]]:
        """Run a module on many workers at once."""

    def lock_args(self, name: str) -> dict[str, Any]:
        """Return the options by which a worker's lock is renewed."""


class Ended(NamedTuple):
    """How the comparison ended: C(promote), C(fail) or C(inconclusive)."""

    word: str
    reason: str


class Bake:
    """One comparison; C(step) is called again and again until it returns how it ended."""

    def __init__(self, asks: Asks, plan: Plan) -> None:
        bake = plan["bake"]
        if bake is None:
            raise ValueError("the plan has a stage that is compared, and does not say how")
        self.asks, self.plan, self.bake = asks, plan, bake
        self.arm_of = {**dict.fromkeys(self.bake["canaries"], "canary"),
                       **dict.fromkeys(self.bake["control"], "control")}
        self.rules = _canary.Rules(self.bake["min_tasks"], self.bake["bake_s"], self.bake["max_s"])
        self.every_s = min(LATEST_S, max(SOONEST_S, self.rules.bake_s / READINGS))
        self.baselines: dict[str, Baseline] = dict(self.bake["baselines"])
        self.books: dict[str, tuple[str, Books]] = {}
        self.asked: dict[str, float] = {}
        # Since when a canary is down, and how long it was before.
        self.down: dict[str, float] = {}
        self.was_down: dict[str, float] = {}
        self.began = time.monotonic() - self._ago()
        self.look = Look(max((own["looks"] for own in self.baselines.values() if own["arm"] == "canary"), default=0))

    def _ago(self) -> float:
        """How long ago the comparison began, by most of the records."""
        if not self.baselines:
            return 0.0
        at = Counter(own["at"] for own in self.baselines.values()).most_common(1)[0][0]
        return max(0.0, time.time() - datetime.fromisoformat(at).timestamp())

    # -- the books

    def due(self, now: float) -> list[str]:
        """Return whose books are to be read again, the oldest first: else the last ones would never have their turn."""
        every = {"canary": self.every_s, "control": max(self.every_s, CONTROL_S * len(self.bake["control"]))}
        due = [name for name, arm in self.arm_of.items() if now - self.asked.get(name, -1e9) >= every[arm]]
        return sorted(due, key=lambda name: self.asked.get(name, -1e9))

    def take(self, name: str, answer: Mapping[str, Any], now: float) -> None:
        """Take in what a worker said."""
        if name in self.arm_of:
            self.asked[name] = now
            found = _canary.books_of((answer.get("census") or {}).get("worker"))
            if found:
                self.books[name] = found

    def arms(self) -> tuple[Arm, Arm]:
        """Return the old release's arm and the new one's; who has other books by now has left its arm."""
        arms: dict[str, list[Arm]] = {"control": [], "canary": []}
        for name, baseline in self.baselines.items():
            if name in self.books:
                own = _canary.since(baseline, *self.books[name])
                arms[baseline["arm"]] += [own] if own else []
        return _canary.together(arms["control"]), _canary.together(arms["canary"])

    def progress(self) -> str:
        """Say how far it is."""
        return _canary.progress(*self.arms(), self.rules, time.monotonic() - self.began)

    # -- deciding

    def step(self, live: _gate.Live, now: float) -> Ended | None:
        """Return how it ended, once it has."""
        judged = self.bake["judged"]
        if judged:
            return Ended(judged["word"], judged["reason"])
        if self.plan["promote"] == "now":
            return self._write_down("promote", "promoted by solver_promote: now")
        if set(self.asked) != set(self.arm_of):
            return None  # not everybody has been asked once
        if not self.baselines:
            return self._begin(now)
        gone = self._down(live, now)
        if gone:
            return self._write_down("fail", f"{gone} runs the new release, and has not served for {DOWN_S:.0f} s")
        return self._judge(now)

    def _down(self, live: _gate.Live, now: float) -> str:
        """Return a canary that has not served for long in all, though nobody drained it."""
        for name in self.bake["canaries"]:
            seen: Seen = live.get(name) or {}
            worker = seen["census"]["worker"] if "census" in seen else None
            drained = worker is not None and worker["drain"]
            if seen.get("unreachable") or _gate.serves_now(seen) or drained:
                since = self.down.pop(name, now)
                self.was_down[name] = self.was_down.get(name, 0.0) + now - since
            elif now - self.down.setdefault(name, now) + self.was_down.get(name, 0.0) >= DOWN_S:
                return name
        return ""

    def _judge(self, now: float) -> Ended | None:
        old, new = self.arms()
        said = _canary.judge(old, new, self.rules, now - self.began, self.look)
        if said.word == "promote" and self.down:
            return None  # its books are good, and it is out of service at this moment
        if said.word:
            return self._write_down(said.word, said.reason)
        if said.look.due > self.look.due:
            # Whoever goes on must not look again at what was looked at.
            self._baseline({name: {**own, "looks": said.look.due} for name, own in self.baselines.items()
                            if own["arm"] == "canary"})
        self.look = said.look
        return None

    # -- the records

    def _begin(self, now: float) -> Ended | None:
        at = datetime.now(UTC).strftime(_DATE)
        wanted: dict[str, Baseline] = {
            name: {"arm": arm, "at": at, "journal": self.books[name][0], "books": self.books[name][1], "looks": 0}
            for name, arm in self.arm_of.items() if name in self.books}
        kept = self._baseline(wanted)
        self.baselines = {name: own for name, own in wanted.items() if name in kept}
        self.began = now
        if {own["arm"] for own in self.baselines.values()} == {"canary", "control"}:
            return None
        return self._write_down("inconclusive", "nobody can say whether the new release is as good: of the canaries or "
                                "of the others none shows its books")

    def _baseline(self, baselines: Mapping[str, Baseline]) -> list[str]:
        return self._record({name: {"baseline": own} for name, own in baselines.items()})

    def _write_down(self, word: str, reason: str) -> Ended:
        """A judgement of which most of the workers do not know is none."""
        judgement: Judgement = {"word": word, "reason": reason, "at": datetime.now(UTC).strftime(_DATE)}
        kept = self._record({name: {"judgement": judgement} for name in self.arm_of})
        if 2 * len(kept) > len(self.arm_of):
            return Ended(word, reason)
        return Ended("inconclusive", f"{reason}; but of {len(self.arm_of)} workers only "
                                     f"{', '.join(in_order(kept)) or 'none'} could write that down")

    def _record(self, more: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Write into the records; return the workers that did."""
        args = {name: {**self.asks.lock_args(name), **own} for name, own in more.items()}
        said = self.asks.everywhere("rollout_lock", args, _entry.lock_answer)
        return [name for name, own in said.items() if own.get("ours") and not own.get("failed")]
