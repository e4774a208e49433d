# SPDX-License-Identifier: GPL-3.0-or-later
"""Two services of one worker, seen as one."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.module_utils._service import open_home, open_service, open_slot
from ansible_collections.solver.fleet.plugins.module_utils._service_base import Service, ServiceError, ServiceState
from ansible_collections.solver.fleet.plugins.module_utils._service_slotted import SlottedService


class Place(Service):
    def __init__(self, name: str, state: str, done: list[str]) -> None:
        super().__init__({"name": name, "backend": "x"})
        self.is_now, self.done = state, done

    def state(self) -> ServiceState:
        if self.is_now == "missing":
            raise ServiceError("no_service", "it has no program of this name")
        return ServiceState(self.is_now, 7 if self.is_now == "running" else None, self.name)

    def start(self) -> None:
        self.done.append(f"start {self.name}")

    def stop(self) -> None:
        self.done.append(f"stop {self.name}")

    stop_by_force = stop

    def restart(self, force: bool = False, keep: Any = ()) -> None:
        self.done.append(f"restart {self.name}")

    def cannot_start(self) -> str | None:
        return None

    def log_tail(self, lines: int = 20) -> list[str]:
        return [self.name]


def both(home: str, slot: str) -> tuple[SlottedService, list[str]]:
    done: list[str] = []
    return SlottedService({"name": "w1", "backend": "x"}, Place("home", home, done), Place("slot", slot, done)), done


@pytest.mark.parametrize(("home", "slot", "where"), [
    ("running", "stopped", "home"), ("running", "running", "home"), ("starting", "running", "home"),
    ("stopped", "running", "slot"), ("failed", "restarting", "slot"), ("stopped", "stopped", "home"),
    ("stopped", "missing", "home"), ("failed", "missing", "home"),
])
def test_the_worker_is_at_home_unless_only_the_slot_lives(home, slot, where):
    service, _done = both(home, slot)
    assert (service.state().detail, service.log_tail()) == (where, [where])


def test_a_worker_at_home_is_restarted_there_and_its_standby_left_alone():
    service, done = both("running", "running")
    service.restart()
    assert done == ["restart home"]


@pytest.mark.parametrize(("slot", "ended"), [
    ("running", ["stop home", "stop slot"]), ("stopped", ["stop home"]), ("missing", ["stop home"])])
def test_to_stop_it_is_to_stop_both(slot, ended):
    for verb in ("stop", "stop_by_force"):
        service, done = both("running", slot)
        getattr(service, verb)()
        assert done == ended


def test_the_slot_is_like_the_worker_s_own_service_but_for_what_is_said():
    settings = {"backend": "command", "name": "w1", "start": ["/bin/start"], "stop": ["/bin/stop"],
                "status": ["/bin/status"], "log_file": "/log/w1",
                "standby": {"name": "w1-standby", "socket": "/s", "order": "/o", "home_order": "/h",
                            "start": ["/bin/other"], "status": None}}
    slot = open_slot(settings)
    assert (slot.name, slot.settings["start"], slot.settings["stop"], slot.settings["log_file"]) == (
        "w1-standby", ["/bin/other"], ["/bin/stop"], "/log/w1")
    assert isinstance(open_service(settings), SlottedService)
    assert not isinstance(open_home(settings), SlottedService)
    assert not isinstance(open_service({**settings, "standby": None}), SlottedService)
