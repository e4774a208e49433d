# SPDX-License-Identifier: GPL-3.0-or-later
"""A standby that does not come up: what its service manager says of it ends the wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.solver.fleet.plugins.module_utils._service_base import ServiceState
from ansible_collections.solver.fleet.plugins.module_utils._standby import Standby, StandbyOptions


class Clock:
    """Time passes while somebody sleeps."""

    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds


class FakeService:
    """A service of which nothing ever answers."""

    def __init__(self, state: str) -> None:
        self.says = state

    def start(self) -> None:
        """Begin."""

    def state(self) -> ServiceState:
        return ServiceState(self.says, None, "")

    def log_tail(self) -> list[str]:
        return ["boom"]


@pytest.mark.parametrize(("state", "seconds", "says"), [
    ("failed", 0, "the standby ended"), ("stopped", 2, "the standby ended"), ("restarting", 2, "the standby ended"),
    ("starting", 50, "did not answer within 50 s (restart_timeout, solver_healthy_deadline)")])
def test_one_that_ended_is_waited_for_no_longer_than_it_takes_to_say_so(
        tmp_path: Path, state: str, seconds: float, says: str) -> None:
    """Also one in a crash loop, which its manager may never give up."""
    clock: Any = Clock()
    service: Any = FakeService(state)
    standby = Standby(StandbyOptions(control_socket=str(tmp_path / "w.sock"), standby_socket=str(tmp_path / "s.sock"),
                                     order=str(tmp_path / "order"), owner="r1", timeout=50.0), service, clock)
    with pytest.raises(FleetError, match="boom") as error:
        standby.up()
    assert says in error.value.message
    assert seconds <= clock.at - 100.0 <= seconds + 0.5
