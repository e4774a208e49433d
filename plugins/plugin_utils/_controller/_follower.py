# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""Follows the events of this process's own run for a callback, in a thread, and says what they are worth."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from ansible_collections.solver.fleet.plugins.plugin_utils import _screen
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._ledger import Ledger

# How often the events are looked at; it is one look at a file's length.
TICK_S = 0.3


class Follower:
    """Hands each line to SAY. C(tick), where it is set, is called after each look at the events."""

    def __init__(self, ledger: Ledger, say: Callable[[str], None]) -> None:
        self.screen = _screen.Screen()
        self.tick: Callable[[], None] | None = None
        self._ledger, self._say = ledger, say
        self._read, self._said_at, self._heartbeat_s = 0, time.monotonic(), 0.0
        self._pid = os.getpid()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    @property
    def in_main_process(self) -> bool:
        """Whether this is not one of the processes that Ansible forks for tasks."""
        return os.getpid() == self._pid

    def start(self, heartbeat_s: float) -> None:
        """Begin, also with the next playbook of the same command: of the last one nothing is said again."""
        self.end()
        self.screen, self._heartbeat_s = _screen.Screen(), heartbeat_s
        self._over.clear()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Say what is left to say; after this nothing more comes."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(5)
        self.catch_up()

    def catch_up(self) -> None:
        """Say at once what the events have that was not said yet."""
        with self._lock:
            for event in self._events():
                for line in _screen.take(self.screen, event):
                    self.say(line)

    def say(self, line: str) -> None:
        if line:
            self._said_at = time.monotonic()
            self._say(line)

    def _follow(self) -> None:
        while not self._over.wait(TICK_S):
            self.catch_up()
            now = time.monotonic()
            if self.tick is not None:
                self.tick()
            elif now - self._said_at >= self._heartbeat_s and not self._ledger.has_document():
                self.say(_screen.heartbeat(self.screen, now))

    def _events(self) -> list[dict[str, Any]]:
        """Return what is new; a line that is being written is read when it is whole."""
        try:
            with open(self._ledger.events, "rb") as stream:
                stream.seek(self._read)
                new = stream.read()
        except OSError:
            return []
        whole = new[:new.rfind(b"\n") + 1]
        self._read += len(whole)
        return [json.loads(line) for line in whole.splitlines()]
