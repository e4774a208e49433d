# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""How long a drain lasts over several calls, by a clock that nobody steps.

The worker says when its drain was asked for, by its wall clock. When that is set meanwhile, a drain would seem to be
late at once, or never. So the call that begins a drain notes the steady clock beside the rollout's record. A run that
goes on with the drain of a dead one has its own time for it: what passed in between is not the worker's fault.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any, Callable, Dict

from ansible_collections.solver.fleet.plugins.module_utils._files import read_json, write_json
from ansible_collections.solver.fleet.plugins.module_utils._record import FOLDER
from ansible_collections.solver.fleet.plugins.module_utils._result import elapsed_since, host_clock

Json = Dict[str, Any]


class DrainClock:
    """The note of one worker; without a directory there is none, and the wall clock must do."""

    def __init__(
        self, worker_dir: str | None = None, clock: Callable[[], Json] = host_clock, run_id: str | None = None
    ) -> None:
        self.path = os.path.join(worker_dir, FOLDER, "drain.json") if worker_dir else None
        self.clock = clock
        self.run_id = run_id

    def begin(self, drain: Json | None) -> None:
        """Note the moment in which this drain began; a note that cannot be written is missed, not needed."""
        if self.path and drain:
            with contextlib.suppress(OSError):
                os.makedirs(os.path.dirname(self.path), mode=0o750, exist_ok=True)
                write_json(self.path, {"owner": drain.get("owner"), "requested_at": drain.get("requested_at"),
                                       "run_id": self.run_id, "clock": self.clock()})

    def adopt(self, drain: Json | None) -> None:
        """Begin anew with a drain that another run had noted."""
        note = self._note(drain or {})
        if note and self._of_another_run(note):
            self.begin(drain)

    def elapsed(self, drain: Json) -> float | None:
        """Seconds since this very drain began; None where that was not noted, or in another boot of the host."""
        note = self._note(drain)
        if note is None:
            return None
        if self._of_another_run(note):
            return 0.0
        now = self.clock()
        noted = note.get("clock")
        of_this_boot = isinstance(noted, dict) and noted.get("host_boot_id") == now.get("host_boot_id")
        return elapsed_since(noted, now) if of_this_boot else None

    def _note(self, drain: Json) -> Json | None:
        note = read_json(self.path) if self.path else None
        same = note and all(note.get(name) == drain.get(name) for name in ("owner", "requested_at"))
        return note if same else None

    def _of_another_run(self, note: Json) -> bool:
        return self.run_id is not None and note.get("run_id") != self.run_id
