# SPDX-License-Identifier: GPL-3.0-or-later
"""fleet_changes: one task shows what staging said of all workers."""

from __future__ import annotations

from typing import Any

import pytest
from action_kit import made
from ansible_collections.solver.fleet.plugins.action import fleet_changes

CONTENTS = {"before": ["a"], "after": ["b"], "packages_before": [], "packages_after": None}


def show(check_mode: bool, **staged: Any) -> Any:
    hostvars = {name: {"staged": own} if own else {} for name, own in staged.items()}
    action = made(fleet_changes.ActionModule, {"staged": "staged"}, check_mode)
    return action.run(None, {"ansible_play_hosts": list(staged), "hostvars": hostvars})


@pytest.mark.parametrize(("check_mode", "changed", "says"), [
    (True, False, True), (True, True, True), (False, True, True), (False, False, False)])
def test_a_plan_shows_what_waits_and_a_run_what_it_did(check_mode: bool, changed: bool, says: bool) -> None:
    own = {"changed": changed, "contents": CONTENTS}
    said = show(check_mode, w1=own, w2=own, w3={"failed": True, "msg": "no space"}, w4=None)
    assert said["changed"] is says
    assert [one["before_header"] for one in said["diff"]] == ["w1, w2 (current, as w1)"]


def test_nothing_is_changed_where_nothing_differs() -> None:
    said = show(True, w1={"changed": True, "contents": {**CONTENTS, "after": ["a"]}})
    assert (said["changed"], said["diff"]) == (False, [])
