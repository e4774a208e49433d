# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether another controller is proven dead, and whose fault a failed probe is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils import _fault, _locks
from ansible_collections.solver.fleet.plugins.plugin_utils._controller import _process
from hypothesis import given
from hypothesis import strategies as st

OWN = {"host": "deck", "machine_id": "m", "boot_id": "b", "pid": 10, "pid_started": 100,
       "pid_ns": _process.INITIAL_PID_NS}


def dead(alive=None, **change):
    return _process.provably_dead(
        {**OWN, "pid": 7, "pid_started": 70, **change}, OWN, lambda pid, began: (pid, began) == (7, alive))


@pytest.mark.parametrize(("change", "alive", "expected"), [
    ({}, None, True),  # no such process
    ({}, 70, False),  # it lives
    ({}, 99, True),  # its number was given to another process
    ({"pid_ns": 1}, None, False),  # in a container, whose numbers mean nothing here
    ({"boot_id": "before"}, None, True),  # the machine was booted since
    ({"boot_id": "before", "machine_id": "other"}, None, False),
    ({"boot_id": "before", "host": "twin"}, None, False),  # cloned, with its machine id
    ({"boot_id": "before", "machine_id": ""}, None, False),
    ({"boot_id": None}, None, False),
    ({"pid_ns": None}, None, False),
    ({"pid_started": None}, None, False),
    ({"pid": None}, None, False),
    ({"pid": "7"}, None, False),  # nothing that this collection wrote
    ({"pid": -7}, None, False),  # a group of processes
    ({"pid": True}, None, False),
])
def test_only_what_is_certain_counts(change, alive, expected):
    assert dead(alive, **change) is expected


def test_a_reboot_of_a_container_proves_nothing():
    own = {**OWN, "pid_ns": 5}
    assert not _process.provably_dead({**own, "boot_id": "before"}, own, lambda _pid, _began: False)


def test_real_processes():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    other = _process.here(process.pid)
    assert not _process.provably_dead(other, _process.here(os.getpid()))
    assert process.stdin
    process.stdin.close()
    # It has ended, and this process has not asked for it yet: a zombie.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert _process.provably_dead(other, _process.here(os.getpid()))
    process.wait()
    assert _process.provably_dead(other, _process.here(os.getpid()))
    held = {"w1": {"run_id": "x", "controller": other}}
    assert _locks.proven_dead(held, _process.here(os.getpid()), _process.provably_dead) == ["x"]


def test_a_process_that_cannot_be_seen_may_live(monkeypatch):
    """As another user under hidepid: /proc shows nothing of it, but it runs."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    other, own = _process.here(process.pid), _process.here(os.getpid())
    monkeypatch.setattr(_process, "_fields", lambda _pid: [])
    try:
        assert not _process.provably_dead(other, own)
        monkeypatch.setattr(_process.os, "kill", raising(PermissionError))
        assert not _process.provably_dead(other, own)
        monkeypatch.undo()
    finally:
        process.communicate()
    monkeypatch.setattr(_process, "_fields", lambda _pid: [])
    assert _process.provably_dead(other, own)


def raising(kind):
    def raise_it(*_args, **_more):
        raise kind

    return raise_it


def test_without_proc_there_are_no_facts_and_no_proof(monkeypatch):
    monkeypatch.setattr(_process.Path, "read_text", raising(FileNotFoundError))
    monkeypatch.setattr(_process.Path, "stat", raising(FileNotFoundError))
    own = _process.here(os.getpid())
    assert [own[name] for name in ("machine_id", "boot_id", "pid_started", "pid_ns")] == [None] * 4
    assert not _process.provably_dead(own, own)


def result(fault=None, attempts=1, code="probe_failed"):
    if fault is None:
        return {"done": True}
    return {"failed": True, "msg": f"it is the {fault}'s", "failure": {
        "code": code, "details": {"fault": fault, "attempts": attempts}}}


def judge(verify, worker=None, provider=None, in_flight=()):
    made = _fault.verdict_of_probe(
        {"verify": verify, "reference_worker": worker or {}, "reference_provider": provider or {},
         "in_flight": list(in_flight)})
    return made["fault"], made["inconclusive"]


@pytest.mark.parametrize(("verify", "worker", "provider", "expected"), [
    (result("provider"), result(), None, ("release", False)),  # whatever it says itself
    (result("provider"), result("provider"), None, ("provider", True)),
    (result("worker"), result("account"), None, ("account", True)),
    (result("provider"), None, result(), ("release", False)),
    (result("provider"), None, result("network"), ("network", True)),
    (result("provider"), result(), result("provider"), ("release", False)),  # a worker counts more
    (result("account"), None, None, ("account", True)),
    (result("worker"), None, None, ("release", False)),
    (result("task"), None, None, ("release", False)),
    # a control that failed for its own host, or was not made, says nothing
    (result("provider"), result("worker"), result(), ("release", False)),
    (result("network"), {"unreachable": True}, {"skipped_checks": ["provider"]}, ("network", True)),
])
def test_a_control_decides(verify, worker, provider, expected):
    assert judge(verify, worker, provider) == expected


def test_with_failed_when_false_a_failure_is_still_one():
    assert judge(result("worker"), {**result("provider"), "failed": False}) == ("provider", True)


def test_four_errors_of_the_provider_in_a_row_need_no_control():
    in_flight = [result("provider", 2), result("provider", 2)]
    steps = {"verify": result("provider", 2), "in_flight": in_flight}
    assert not _fault.needs_reference(steps)
    assert judge(steps["verify"], result(), in_flight=in_flight) == ("provider", True)
    assert _fault.needs_reference({"verify": result("provider", 3), "in_flight": [result("provider", 3)]})
    assert _fault.needs_reference({"verify": result("provider", 3), "in_flight": [result("provider", 3), result()]})


@pytest.mark.parametrize("verify", [{}, result(), result("worker", code="wrong_version"), {"unreachable": True}])
def test_only_a_failed_probe_has_a_control(verify):
    assert not _fault.needs_reference({"verify": verify})


ANY = st.sampled_from([None, "worker", "task", "provider", "account", "network"]).map(result)


@given(ANY, ANY, ANY)
def test_nothing_is_inconclusive_while_a_control_passes(verify, worker, provider):
    fault, inconclusive = judge(verify, worker, provider)
    if worker == result():
        assert (fault, inconclusive) == ("release", False)
    assert inconclusive == (fault != "release")
