# SPDX-License-Identifier: GPL-3.0-or-later
"""What the doctor says of a worker's machine, of the worker, and of the controller's wheels."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils import _doctor
from rollout_kit import census

WORKER = {"service": {"backend": "systemd"}, "data_address": "127.0.0.1:8081"}
SETTINGS = {"solver_control_timeout": 5.0, "solver_version": "1.3.0", "solver_package": "", "solver_offline": True,
            "solver_wheelhouse": "/w"}
NOW = 1000.0
MACHINE: dict[str, Any] = {
    "python": "3.11.2", "uid": 0, "clock": NOW, "manager": True, "port_open": True, "worker_python": "/usr/bin/python3",
    "disk": {"place": "/opt", "free_mb": 9000, "writable": True},
    "secrets": {"/etc/solver/w1.key": {"mode": 0o600, "uid": 0, "filled": True}}}
WELL = census()


def worker(**fields: Any) -> dict[str, Any]:
    return {**WELL, "worker": {**WELL["worker"], **fields}}


def said(machine: dict[str, Any] | None = None, about: Any = None) -> list[str]:
    found = _doctor.machine({"machine": {**MACHINE, **(machine or {})}})
    return [f"{one.level}: {one.text}" for one in _doctor.examined(WORKER, found, about or WELL, SETTINGS, NOW)]


def test_of_a_worker_that_is_well_nothing_is_said():
    assert said() == []
    assert _doctor.lines({"w1": [], "w2": []}, []) == [
        "2 workers: 2 without a finding, 0 findings that keep something from working"]
    assert not _doctor.is_bad({"w1": []}, [])


@pytest.mark.parametrize(("machine", "text"), [
    ({"uid": 1000}, "bad: tasks run as user 1000, and units of systemd need root"),
    ({"worker_python": None, "worker_python_problem": "none in python3"}, "bad: none in python3"),
    ({"disk": {"place": "/opt", "free_mb": 10, "writable": True}}, "bad: 10 MB are free at /opt, a release needs 200"),
    ({"disk": {"place": "/opt", "free_mb": 900, "writable": False}}, "bad: /opt cannot be written"),
    ({"clock": NOW + 90}, "odd: its clock differs from the controller's by 90 s"),
    ({"manager": False}, "bad: it was not booted with systemd"),
    ({"secrets": {"/k": {"problem": "No such file or directory"}}}, "bad: /k: No such file or directory"),
    ({"secrets": {"/k": {"mode": 0o600, "uid": 0, "filled": False}}}, "bad: /k is empty"),
    ({"secrets": {"/k": {"mode": 0o644, "uid": 0, "filled": True}}}, "bad: /k may be read by everybody (mode 0644)"),
])
def test_each_defect_of_a_machine_is_named(machine, text):
    assert said(machine) == [text]


@pytest.mark.parametrize(("about", "text"), [
    ({"finding": "stopped", "worker": None},
     "bad: somebody listens at 127.0.0.1:8081, and it is no worker of this name"),
    (worker(state="failed", failure={"code": "x", "message": "no\nport"}), "bad: it has failed: no port"),
    (worker(accepting=False, refusal={"code": "full", "message": "disk full"}),
     "bad: it takes no tasks: disk full"),
    ({**WELL, "service_problem": "its unit is masked"}, "bad: its unit is masked"),
    ({**WELL, "release_problem": "its Python is gone"}, "bad: it would not survive a restart: its Python is gone"),
    (worker(provider={"ok": False, "last_error": {"code": "ERROR_ZERO_BALANCE"}}),
     "bad: its provider answers ERROR_ZERO_BALANCE"),
])
def test_each_defect_of_a_worker_is_named(about, text):
    assert text in said(about=about)


def test_without_root_nothing_else_is_said_and_what_may_not_be_asked_is_no_stranger():
    """Else it would tell somebody to end the very worker that it may not ask."""
    blind = {"secrets": {"/k": {"problem": "Permission denied"}}, "disk": {**MACHINE["disk"], "writable": False}}
    denied = {"finding": "denied", "worker": None, "message": "permission denied; set solver_become: true"}
    assert said({**blind, "uid": 1000}, denied) == ["bad: tasks run as user 1000, and units of systemd need root"]
    assert not [line for line in said(blind, denied) if "somebody listens" in line]


def test_no_worker_yet_is_odd_but_keeps_nothing_from_working():
    found = said({"port_open": False}, {"finding": "stopped", "worker": None})
    assert found == ["odd: no worker serves (stopped)"]


def test_a_host_that_cannot_be_asked_or_answers_wrongly_has_one_finding():
    lost = _doctor.examined(WORKER, {"unreachable": True, "msg": "a: no\nroute"}, {}, SETTINGS, NOW)
    assert [(one.level, one.text) for one in lost] == [("bad", "a: no route")]
    for raw, text in (({"failed": True, "msg": "sudo: no"}, "sudo: no"), ({"machine": {}}, "it answers wrongly: "),
                      ({"machine": {**MACHINE, "uid": "x\x1b"}}, "it answers wrongly: uid is text"),
                      ({"machine": 5}, "it answers wrongly")):
        one, = _doctor.examined(WORKER, _doctor.machine(raw), {}, SETTINGS, NOW)
        assert one.text.startswith(text)


@pytest.mark.parametrize(("versions", "more", "bad"), [
    (["1.2.0", "1.3.0"], {}, False),
    (["1.2.0"], {}, True),
    ([], {}, True),
    ([], {"solver_offline": False}, False),
    ([], {"solver_version": ""}, False),
    ([], {"solver_package": "/x.whl"}, False),
])
def test_a_wheel_that_is_missing_is_named_where_none_can_be_fetched(versions, more, bad):
    assert bool(_doctor.wheels({**SETTINGS, **more}, versions)) is bad


def test_what_is_true_of_many_is_said_once():
    one = _doctor.Defect("bad", "x", "do y")
    assert _doctor.lines({"w10": [one], "w2": [one], "w1": []}, [one._replace(text="z")]) == [
        "BAD  controller: z; do y", "BAD  w2, w10: x; do y",
        "3 workers: 1 without a finding, 2 findings that keep something from working"]
    assert _doctor.is_bad({"w10": [one]}, [])
    assert not _doctor.is_bad({"w1": [one._replace(level="odd")]}, [])
