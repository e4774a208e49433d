# SPDX-License-Identifier: GPL-3.0-or-later
"""Who follows the events of a run: one playbook after the other, and beside a document that a program reads."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
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


def test_beside_a_document_there_is_no_heartbeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(str(tmp_path / "ledger"))
    ledger.folder.mkdir()
    said: list[str] = []
    looks: list[bool] = []
    look = ledger.has_document
    monkeypatch.setattr(ledger, "has_document", lambda: looks.append(look()) or looks[-1])
    follower = Follower(ledger, said.append)

    def follow(enough: Callable[[], bool]) -> None:
        follower.start(0.0)
        follower.screen.task = "Ask every worker how it is"
        wait_for(enough)
        follower.end()

    follow(lambda: bool(said))
    ledger.show_document()
    said.clear()
    follow(lambda: looks.count(True) >= 2)
    assert said == []


def wait_for(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not reached() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert reached()
