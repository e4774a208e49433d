# SPDX-License-Identifier: GPL-3.0-or-later
"""The histories of test_histories.py where all workers go together: no two versions ever serve at once."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import Phase, event, example, given, settings
from hypothesis import strategies as st
from test_histories import EXAMPLES, VERSIONS, BrokenError, World, calm, in_the_world, version_of

WANTED = {"solver_strategy": "recreate", "solver_accept_downtime": True}


class Together(World):
    """A fleet whose rollouts are all of this kind; its hosts may be lost, or its connections are good."""

    def __init__(self, size: int, chance: random.Random, loses: bool) -> None:
        super().__init__(size, chance)
        self.loses = loses

    def forks(self, hosts: int) -> int:
        return hosts

    def happens(self, one_in: int) -> bool:
        # This is how often a host is lost.
        return super().happens(one_in) and (self.loses or one_in != 100)

    def run(self, kind: str, version: str = "", **given_settings: Any) -> str:
        self.parted = len(self.serving()) > 1
        assert self.loses or not self.parted
        return super().run(kind, version, **given_settings)

    def look(self) -> None:
        # All may be out at once, so the window is no matter.
        self.out_before = set(self.workers)
        super().look()
        if not self.parted and len(self.serving()) > 1:
            raise BrokenError(f"at once {self.serving()}: {self.shown()}")

    def look_at_the_record(self, name: str, outcome: dict[str, Any]) -> None:
        # Nothing is written down of one that was not touched, because not all could begin.
        if outcome["outcome"] != "not_attempted":
            super().look_at_the_record(name, outcome)

    def serving(self) -> set[str]:
        """Return which versions serve, on the hosts that can be reached: of another one nobody knows."""
        return {version_of(worker.running) for worker in self.workers.values() if worker.serves() and worker.reachable}


@in_the_world
@settings(max_examples=EXAMPLES, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(st.integers(0, 2**32))
@example(105685162)
def test_no_two_versions_serve_at_once_whatever_happens(seed: int) -> None:
    chance = random.Random(seed)
    size = chance.randint(1, 6)
    world = Together(size, chance, chance.random() < 0.4)
    own = {**WANTED, "window": 1, "soaking": 1, "solver_min_healthy_time": chance.choice([0.0, 60.0]),
           "solver_progress_deadline": chance.choice([900.0, 1e6, 1e6])}
    try:
        storm(world, own)
        calm(world, {**own, "solver_progress_deadline": 1e9})
    except (AssertionError, BrokenError) as error:
        error.add_note("\n".join([f"{size} workers, {own}", *world.story, "; ".join(world.moves)]))
        raise


def storm(world: Together, own: dict[str, Any]) -> None:
    for _move in range(world.chance.randint(1, 6)):
        what = world.chance.choice([*["update"] * 3, "rollback", "recover", "leases end", "hosts are back"])
        for worker in world.workers.values():
            if what == "leases end":
                worker.lease_ends()
            worker.reachable = worker.reachable or what == "hosts are back"
        if what in ("update", "rollback", "recover"):
            version = world.chance.choice(VERSIONS) if what == "update" else ""
            event(f"{what}: {world.run(what, version, **own)}")
        else:
            world.story.append(what)
        assert world.loses or len(world.serving()) <= 1, "nobody was lost, and two versions serve"
