# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""Where the turns that go together meet: the ledger. What follows is decided under its lock, by pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.solver.fleet.plugins.module_utils._errors import one_line
from ansible_collections.solver.fleet.plugins.plugin_utils import _gate, _together
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._ledger import Ledger
from ansible_collections.solver.fleet.plugins.plugin_utils._types import Fell, Plan, State


class Others:
    """The others of one worker's turn."""

    def __init__(self, ledger: Ledger, part: str, plan: Plan, me: str) -> None:
        self.ledger, self.part, self.plan, self.me = ledger, part, plan, me
        # Whoever waits looks often; what has not changed is not read again.
        self.known: tuple[tuple[int, ...], str, str] = ((-1,), "", "")

    @property
    def is_pilot(self) -> bool:
        return _together.members(self.plan, self.me)[0] == self.me

    def arrive(self, place: str) -> None:
        with self.ledger.edit(self.part) as state:
            state["together"]["at"][self.me] = place

    def hear(self, record: Mapping[str, Any]) -> None:
        """Take in what a worker's record says: the gate, which looks at them, is behind it."""
        request = record.get("request")
        if request:
            with self.ledger.edit("view") as view:
                own = view.setdefault(self.me, {"at": 0.0, "census": {"worker": None}})
                own["record"] = {"request": {name: one_line(request.get(name)) for name in ("what", "by", "reason")}}

    def _asked_to_stop(self, state: State) -> bool:
        live = {name: own for name, own in self.ledger.read("view").items() if name in self.plan["workers"]}
        said = _gate.asked_to_stop(live)
        if said:
            state["closed"] = state["closed"] or {"cause": said.cause, "reason": said.reason}
        return said is not None

    def way(self, place: str) -> str:
        """Say whether it goes on, back, or not yet."""
        version = self.ledger.version(self.part)
        if self.known == (version, place, _together.WAIT):
            return _together.WAIT
        with self.ledger.edit(self.part) as state:
            said = _together.way(self.plan, state, self.me, place)
            passed = state["together"]["passed"]
            if said == _together.ON and place not in passed:
                if place == _together.GATHERED and self._asked_to_stop(state):
                    said = _together.BACK
                else:
                    passed.append(place)
            if said == _together.BACK:
                state["together"]["fell"] = _together.why_back(self.plan, state, self.me, place)
        self.known = (version, place, said)
        return said

    def waited_for(self, place: str) -> list[str]:
        return _together.waited_for(self.plan, self.ledger.read(self.part), self.me, place)

    def all_verified(self) -> bool:
        return _together.VERIFIED in self.ledger.read(self.part)["together"]["passed"]

    def fall(self, reason: str) -> None:
        """Turn everybody back; the first one that falls is the one to blame."""
        why: Fell = {"worker": self.me, "reason": f"{self.me}: {reason}"}
        with self.ledger.edit(self.part) as state:
            first = state["together"]["fell"] is None
            state["together"]["fell"] = state["together"]["fell"] or why
        if first:
            self.ledger.emit("fell", part=self.part, **why)

    def fell(self) -> Fell | None:
        found: Fell | None = self.ledger.read(self.part)["together"]["fell"]
        return found

    def serve_new(self) -> list[str]:
        return _together.serve_new(self.plan, self.ledger.read(self.part), self.me)
