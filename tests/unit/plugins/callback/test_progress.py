# SPDX-License-Identifier: GPL-3.0-or-later
"""The lines beside another stdout callback: said once, whoever says them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.callback import progress
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._ledger import Ledger


@pytest.fixture
def callback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(progress.constants, "DEFAULT_LOCAL_TMP", str(tmp_path))
    monkeypatch.setattr(progress.atexit, "register", lambda _end: None)
    made = progress.CallbackModule()
    monkeypatch.setattr(made, "get_option", {"heartbeat": 30.0}.get)
    yield made
    made._follower.end()


def test_it_goes_on_with_the_next_playbook_of_the_same_command(callback: Any) -> None:
    callback.v2_playbook_on_start(None)
    callback.v2_playbook_on_start(None)
    assert not getattr(callback, "disabled", False)


def test_it_is_silent_where_the_screen_says_the_same(callback: Any, tmp_path: Path) -> None:
    Ledger.under(str(tmp_path)).show()
    callback.v2_playbook_on_start(None)
    assert callback.disabled
