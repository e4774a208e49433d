# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The screen of a rollout: what it does and how it ended, without the tasks of the playbooks that do it."""

from __future__ import annotations

DOCUMENTATION = r"""
name: rollout
type: stdout
short_description: Show a rollout by its workers, and not by its tasks
version_added: "1.1.0"
author:
  - solver.fleet contributors (@solver-fleet)
description:
  - >-
    Shows the plan, a line when a worker begins and one when it ends, a line at least every O(heartbeat) seconds while
    nothing else is said, and the verdict as the last thing on the screen.
  - >-
    Of this collection's own tasks only those that fail are shown; with C(-v) all of them. Everything else, such as the
    tasks of hooks and of other plays, is shown as P(ansible.builtin.default#callback) shows it.
  - >-
    Reads the events of the run, so it needs no more calls to any worker.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
options:
  heartbeat:
    description: Seconds after which something is said when there is nothing new.
    type: float
    default: 30
    env:
      - name: SOLVER_FLEET_HEARTBEAT
    ini:
      - section: callback_solver_fleet_rollout
        key: heartbeat
  live:
    description:
      - >-
        On a terminal, show below the lines who is at what, in a block that is drawn anew. This needs the Python package
        C(rich) on the controller; without it, with E(NO_COLOR), E(CI) or E(TERM=dumb), in a pipe and with C(-v) there
        are lines alone.
    type: bool
    default: true
    env:
      - name: SOLVER_FLEET_LIVE
    ini:
      - section: callback_solver_fleet_rollout
        key: live
requirements:
  - set as stdout_callback in the configuration
"""

import atexit
import os
import sys
import time
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins.callback.default import CallbackModule as Default

from ansible_collections.solver.fleet.plugins.plugin_utils import _changes, _screen
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._follower import Follower
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._ledger import Ledger
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._live import Block, write_above
from ansible_collections.solver.fleet.plugins.plugin_utils._names import listed

DEBUG = ("debug", "ansible.builtin.debug")
OURS = tuple(str(Path(__file__).resolve().parents[2] / folder) + os.sep for folder in ("playbooks", "roles"))


def _fit(diff: Any) -> list[dict[str, Any]]:
    """Return diffs in which no text of a host moves the cursor."""
    return [{name: "".join(f"{_screen.clean(line)}\n" for line in value.splitlines()) if isinstance(value, str)
             else value for name, value in each.items()} for each in (diff if isinstance(diff, list) else [diff])]


def _name_of(task: Any) -> str:
    return str(task.get_name()).rpartition(" : ")[2]


class CallbackModule(Default):  # type: ignore[misc]
    """The default callback, but for our own tasks."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "solver.fleet.rollout"

    def __init__(self) -> None:
        super().__init__()
        self._ledger = Ledger.under(constants.DEFAULT_LOCAL_TMP)
        self._block: Block | None = None
        self._document = self._others = False
        # Of the last task of ours that changed something: its name, and each host's diff.
        self._diffs: tuple[str, dict[str, str]] = ("", {})
        self._follower = Follower(self._ledger, self._line)

    @property
    def screen(self) -> _screen.Screen:
        return self._follower.screen

    # -- what the events say -----------------------------------------------------------------------

    def v2_playbook_on_start(self, playbook: Any) -> None:
        super().v2_playbook_on_start(playbook)
        self._ledger.show()
        if self._block is None and self.get_option("live") and not self._verbose:
            self._block = Block.on(sys.stdout, os.environ)
            if self._block is not None:
                write_above(self._display, self._block)
                self._follower.tick = self._redraw
        self._document = self._others = False
        self._follower.start(float(self.get_option("heartbeat")))
        atexit.unregister(self._at_exit)
        atexit.register(self._at_exit)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._show_diffs()
        self._end()
        if self._verbose or not (self.screen.verdict or self._document or self._only_looked(stats)):
            super().v2_playbook_on_stats(stats)
        for number, line in enumerate(self.screen.verdict):
            self._line(line if number == 0 else f"  {line}")

    def _only_looked(self, stats: Any) -> bool:
        """Whether nothing but our own tasks ran, and they changed nothing and all went well."""
        return not (self._others or stats.changed or stats.failures or stats.dark)

    def _at_exit(self) -> None:
        if self._follower.in_main_process:
            self._end()
            for line in _screen.interrupted(self.screen):
                self._display.display(line)

    def _end(self) -> None:
        self._follower.end()
        if self._block is not None:
            self._block.show([])

    def _line(self, line: str) -> None:
        for part in [line] if self._block is None else _screen.folded(line, self._block.size()[0]):
            self._display.display(part)

    def _redraw(self) -> None:
        if self._block is not None and not self._ledger.has_document():
            self._block.show(_screen.block(self.screen, time.monotonic(), *self._block.size()))

    # -- our own tasks -----------------------------------------------------------------------------

    @property
    def _verbose(self) -> bool:
        return int(self._display.verbosity) > 0

    def _quiet(self, task: Any) -> bool:
        path = str(task.get_path() or "").rpartition(":")[0]
        return not self._verbose and os.path.realpath(path).startswith(OURS)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._play = play  # the default callback asks it at the tasks of hooks
        if not self._quiet(play):
            super().v2_playbook_on_play_start(play)

    def v2_playbook_on_no_hosts_matched(self) -> None:
        if self._verbose or not self._ledger.exists():
            super().v2_playbook_on_no_hosts_matched()

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._show_diffs()
        self.screen.task, self.screen.task_began = _name_of(task), time.monotonic()
        self.screen.task_hosts = 0
        if not self._quiet(task):
            self._others = True
            super().v2_playbook_on_task_start(task, is_conditional)

    def v2_on_file_diff(self, result: Any) -> None:
        """A fleet of hundreds changes alike: of our own tasks each diff is shown once, when the task is over."""
        if not self._quiet(result._task):
            super().v2_on_file_diff(result)
            return
        found = result._result
        each = found["results"] if result._task.loop and "results" in found else [found]
        text = "".join(self._get_diff(_fit(one["diff"])) for one in each if one.get("diff") and one.get("changed"))
        if text:
            # Of a task that runs once, the diff itself says whose it is.
            who = "" if result._task.run_once else str(result._host.name)
            self._diffs = (_name_of(result._task), {**self._diffs[1], who: text})

    def _show_diffs(self) -> None:
        (task, texts), self._diffs = self._diffs, ("", {})
        for names in _changes.alike(texts, {name: [name] for name in texts}):
            whose = f": {listed(names)}" if names[0] else ""
            self._display.display(f"{task}{whose}\n{texts[names[0]]}".rstrip("\n"))

    def v2_playbook_on_include(self, included_file: Any) -> None:
        if not self._quiet(included_file._task):
            super().v2_playbook_on_include(included_file)

    def v2_runner_on_ok(self, result: Any) -> None:
        self.screen.task_hosts += 1
        if not self._quiet(result._task):
            super().v2_runner_on_ok(result)
            return
        self._handle_warnings(result._result)
        self._follower.catch_up()
        # A program reads it: nothing of ours may stand around it.
        self._document = self._document or bool(result._result.get("document_shown"))
        # What status, provision and others show is all that there is to see; of a rollout the events say more.
        if result._task.action in DEBUG and not self.screen.rollout:
            for line in _screen.shown(result._result):
                self._follower.say(line)

    def v2_runner_on_skipped(self, result: Any) -> None:
        if not self._quiet(result._task):
            super().v2_runner_on_skipped(result)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        if not self._quiet(result._task):
            super().v2_runner_item_on_ok(result)

    def v2_runner_item_on_skipped(self, result: Any) -> None:
        if not self._quiet(result._task):
            super().v2_runner_item_on_skipped(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        # Each worker that is not at the target fails at the end, so that the exit code says so; the verdict says why.
        self._follower.catch_up()
        if self._document and self._quiet(result._task):
            self._display.display(_screen.clean(str(result._result.get("msg"))), stderr=True)
        elif not (self._quiet(result._task) and self.screen.verdict):
            super().v2_runner_on_failed(result, ignore_errors)
