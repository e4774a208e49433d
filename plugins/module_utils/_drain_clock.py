# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""How long a drain lasts over several calls, by a clock that nobody steps.

The worker says when its drain was asked for, by its wall clock. When that is set meanwhile, a drain would seem to be
late at once, or never. So the call that begins a drain notes the steady clock beside the rollout's record.
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

    def __init__(self, worker_dir: str | None = None, clock: Callable[[], Json] = host_clock) -> None:
        self.path = os.path.join(worker_dir, FOLDER, "drain.json") if worker_dir else None
        self.clock = clock

    def begin(self, drain: Json | None) -> None:
        """Note the moment in which this drain began; a note that cannot be written is missed, not needed."""
        if self.path and drain:
            with contextlib.suppress(OSError):
                os.makedirs(os.path.dirname(self.path), mode=0o750, exist_ok=True)
                write_json(self.path, {"owner": drain.get("owner"), "requested_at": drain.get("requested_at"),
                                       "clock": self.clock()})

    def elapsed(self, drain: Json) -> float | None:
        """Seconds since this very drain began; None where that was not noted, or in another boot of the host."""
        note = read_json(self.path) if self.path else None
        if not note or any(note.get(name) != drain.get(name) for name in ("owner", "requested_at")):
            return None
        now = self.clock()
        noted = note.get("clock") or {}
        return elapsed_since(noted, now) if noted.get("host_boot_id") == now.get("host_boot_id") else None
