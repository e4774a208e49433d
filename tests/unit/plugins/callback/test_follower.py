# SPDX-License-Identifier: GPL-3.0-or-later
"""Who follows the events of a run: one playbook after the other, and beside a document that a program reads."""

from __future__ import annotations

import time
from pathlib import Path

from ansible_collections.solver.fleet.plugins.plugin_utils._controller._follower import Follower
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._ledger import Ledger


def closed(ledger: Ledger, reason: str) -> None:
    ledger.emit("closed", part="roll", cause="budget", reason=reason)


def test_the_next_playbook_of_a_command_says_nothing_of_the_last_one_again(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "ledger"))
    ledger.folder.mkdir()
    said: list[str] = []
    follower = Follower(ledger, said.append)
    follower.start(30.0)
    closed(ledger, "one")
    follower.end()
    follower.start(30.0)
    assert follower.screen.verdict == []
    closed(ledger, "two")
    follower.end()
    assert said == ["no further worker begins: one", "no further worker begins: two"]


def test_beside_a_document_there_is_no_heartbeat(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "ledger"))
    ledger.folder.mkdir()
    said: list[str] = []
    ticked: list[float] = []
    follower = Follower(ledger, lambda line: (said.append(line), ticked.append(time.monotonic()))[0])
    follower.start(0.0)
    follower.screen.task, follower.screen.task_began = "Ask every worker how it is", time.monotonic()
    deadline = time.monotonic() + 30
    while not said and time.monotonic() < deadline:
        time.sleep(0.01)
    assert said
    ledger.show_document()
    follower.end()
    follower.start(0.0)
    follower.screen.task = "Ask every worker how it is"
    before = len(said)
    time.sleep(0.7)  # two looks at the events
    follower.end()
    assert len(said) == before
