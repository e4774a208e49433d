# SPDX-License-Identifier: GPL-3.0-or-later
"""Two services of one worker, seen as one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.module_utils._service import open_service, slot_settings
from ansible_collections.solver.fleet.plugins.module_utils._service_base import Service, ServiceError, ServiceState
from ansible_collections.solver.fleet.plugins.module_utils._service_slotted import SlottedService

Both = Callable[..., "tuple[SlottedService, list[str]]"]


class Place(Service):
    def __init__(self, name: str, state: str, done: list[str]) -> None:
        super().__init__({"name": name, "backend": "x"})
        self.is_now, self.done = state, done

    def anew(self) -> Place:
        return self

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


@pytest.fixture
def both(tmp_path: Path) -> Both:
    """Both places in some state, with or without the orders that make standbys of them."""
    def made(home: str, slot: str, *orders: str) -> tuple[SlottedService, list[str]]:
        done: list[str] = []
        settings = {"name": "w1", "backend": "x", "standby": {
            each: str(tmp_path / each) for each in ("order", "home_order")}}
        for order in orders:
            (tmp_path / order).touch()
        return SlottedService(settings, Place("home", home, done), Place("slot", slot, done)), done

    return made


@pytest.mark.parametrize(("home", "slot", "orders", "where"), [
    ("running", "stopped", [], "home"), ("running", "running", ["order"], "home"),
    ("starting", "running", ["order"], "home"), ("failed", "running", ["order"], "home"),
    ("stopped", "running", [], "slot"), ("failed", "restarting", [], "slot"), ("stopped", "stopped", [], "home"),
    ("stopped", "missing", [], "home"), ("failed", "missing", [], "home"),
    ("running", "running", [], "slot"),  # it has handed over, and stays for those who are still connected
    ("running", "running", ["home_order"], "slot"),  # it stands by to bring the worker home
])
def test_the_worker_is_in_the_slot_if_what_lives_there_has_no_order(both, home, slot, orders, where):
    service, _done = both(home, slot, *orders)
    assert (service.state().detail, service.log_tail()) == (where, [where])


def test_who_serves_may_be_told_from_who_has_handed_over(both):
    service, _done = both("running", "running")
    assert (service.holds(), service.holds(7), service.holds(8)) == (True, True, False)


def test_a_worker_in_its_slot_is_restarted_at_home(both):
    service, done = both("stopped", "running")
    service.anew().stop_and_start(False)
    assert done == ["stop home", "stop slot", "start home"]


def test_a_worker_at_home_is_restarted_there_and_its_standby_left_alone(both):
    service, done = both("running", "running", "order")
    service.restart()
    assert done == ["restart home"]


def test_what_is_started_at_home_is_the_worker_whatever_somebody_left(both, tmp_path):
    for verb in ("start", "restart"):
        service, done = both("stopped", "stopped", "home_order")
        getattr(service, verb)()
        assert (done, (tmp_path / "home_order").exists()) == ([f"{verb} home"], False)


@pytest.mark.parametrize(("slot", "ended"), [
    ("running", ["stop home", "stop slot"]), ("stopped", ["stop home"]), ("missing", ["stop home"])])
def test_to_stop_it_is_to_stop_both(both, slot, ended):
    for verb in ("stop", "stop_by_force"):
        service, done = both("running", slot, "order")
        getattr(service, verb)()
        assert done == ended


def test_the_slot_is_like_the_worker_s_own_service_but_for_what_is_said():
    settings = {"backend": "command", "name": "w1", "start": ["/bin/start"], "stop": ["/bin/stop"],
                "status": ["/bin/status"], "log_file": "/log/w1",
                "standby": {"name": "w1-standby", "socket": "/s", "order": "/o", "home_order": "/h",
                            "start": ["/bin/other"], "status": None}}
    service = open_service(settings)
    assert isinstance(service, SlottedService)
    slot = service.slot
    assert (slot.name, slot.settings["start"], slot.settings["stop"], slot.settings["log_file"]) == (
        "w1-standby", ["/bin/other"], ["/bin/stop"], "/log/w1")
    for plain in ({**settings, "standby": None}, slot_settings(settings)):
        assert not isinstance(open_service(plain), SlottedService)
