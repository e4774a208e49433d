# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lines of a rollout beside whatever another stdout callback shows; AWX allows no other than its own."""

from __future__ import annotations

DOCUMENTATION = r"""
name: progress
type: aggregate
short_description: Say how a rollout goes, beside the stdout callback of your own
version_added: "1.1.0"
author:
  - solver.fleet contributors (@solver-fleet)
description:
  - >-
    Says the same lines as P(solver.fleet.rollout#callback): the plan, a line when a worker begins and one when it ends,
    a line at least every O(heartbeat) seconds while nothing else is said, and the verdict as its last words. The tasks
    are shown by the stdout callback as ever.
  - Where P(solver.fleet.rollout#callback) is the stdout callback, it says nothing.
options:
  heartbeat:
    description: Seconds after which something is said when there is nothing new.
    type: float
    default: 30
    env:
      - name: SOLVER_FLEET_HEARTBEAT
    ini:
      - section: callback_solver_fleet_progress
        key: heartbeat
requirements:
  - set in callbacks_enabled in the configuration
"""

import atexit
from typing import Any

from ansible import constants
from ansible.plugins.callback import CallbackBase

from ansible_collections.solver.fleet.plugins.plugin_utils import _screen
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._follower import Follower
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._ledger import Ledger


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Says lines; shows no task."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "solver.fleet.progress"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._ledger = Ledger.under(constants.DEFAULT_LOCAL_TMP)
        self._follower = Follower(self._ledger, self._display.display)
        self._shows = False

    def v2_playbook_on_start(self, _playbook: Any) -> None:
        if self._ledger.has_screen() and not self._shows:
            self.disabled = True
            return
        self._shows = True
        self._ledger.show()
        self._follower.start(float(self.get_option("heartbeat")))
        atexit.unregister(self._at_exit)
        atexit.register(self._at_exit)

    def v2_playbook_on_stats(self, _stats: Any) -> None:
        self._follower.end()
        for line in self._follower.screen.verdict:
            self._display.display(line)

    def _at_exit(self) -> None:
        if self._follower.in_main_process:
            self._follower.end()
            for line in _screen.interrupted(self._follower.screen):
                self._display.display(line)
