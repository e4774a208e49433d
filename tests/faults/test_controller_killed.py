# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller is killed at real workers; then the same command again, the leases alone, or recover.yml.

What hangs on no worker is in tests/light.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from faultlib import (
    FAILS_ITS_PROBE,
    LEASES,
    RESUMES_SLOWLY,
    Sampler,
    begin_a_revert,
    ended,
    kill_all,
    kill_main,
    record_of,
    until,
    watched,
)
from fleetlib import Fleet, assert_nothing_lost, seen_verdict, wait_for

# By what the workers say.
PHASES: dict[str, Callable[[Sampler], Any]] = {
    "draining": lambda seen: seen.last("w1").get("state") in ("draining", "drained"),
    "switched": lambda seen: seen.last("w1").get("instance", {}).get("version") == "1.3.0",
    "soaking": lambda seen: seen.last("w1").get("accepting") and seen.last("w1")["instance"]["version"] == "1.3.0",
    "second worker": lambda seen: seen.last("w2").get("state") in ("draining", "drained"),
    "two in flight": lambda seen: all(seen.last(name).get("drain") for name in ("w1", "w2")),
}


def begin(fleet: Fleet, seen: Sampler, phase: str, **variables: Any) -> Any:
    """Begin a rollout and return it in a phase."""
    variables.setdefault("solver_min_healthy_time", 4)
    process = fleet.start_playbook("rolling_update", solver_version="1.3.0", **variables)
    until(phase, lambda: PHASES[phase](seen), process)
    return process


def assert_interrupted(fleet: Fleet, process: Any) -> None:
    assert fleet.verdict()["verdict"] == "interrupted"
    seen_verdict("interrupted", process.returncode)


def kill_in(fleet: Fleet, seen: Sampler, phase: str, **variables: Any) -> None:
    process = begin(fleet, seen, phase, **variables)
    kill_all(process)
    assert_interrupted(fleet, process)


def by_group(number: signal.Signals) -> Callable[[Any], Any]:
    """As a terminal or AWX does."""
    def send(process: Any) -> None:
        os.killpg(process.pid, number)
        ended(process)

    return send


KILLS: dict[str, Callable[[Any], Any]] = {
    "SIGINT": by_group(signal.SIGINT), "SIGTERM": by_group(signal.SIGTERM), "everything": kill_all,
    "the main process alone": kill_main}


@pytest.mark.parametrize(("how", "phase"), [
    # each ansible-core makes something else of a signal
    *(pytest.param(how, "draining", marks=pytest.mark.trap) for how in ("SIGINT", "SIGTERM", "everything")),
    ("everything", "switched"), ("everything", "soaking"),
    ("everything", "second worker"), ("the main process alone", "draining"), ("the main process alone", "switched")])
def test_run_again_converges_and_continues(make_fleet, phase, how):
    fleet: Fleet = make_fleet(2)
    fleet.start_traffic(rate=6)
    with watched(fleet) as seen:
        process = begin(fleet, seen, phase)
        KILLS[how](process)
        assert_interrupted(fleet, process)
        # The worker that was first has been told whose rollout this is.
        first = record_of(fleet, "w1")["rollout"]["id"]
        done = fleet.roll("1.3.0")
    audit = fleet.end_traffic()
    assert done.returncode == 0, done.stdout
    assert set(fleet.versions().values()) == {"1.3.0"}
    fleet.assert_all_serve()
    assert (fleet.verdict()["verdict"], fleet.verdict()["rollout_id"]) == ("completed", first)
    assert {record_of(fleet, name)["rollout"]["id"] for name in fleet.hosts()} == {first}
    assert all(record_of(fleet, name)["lock"] is None for name in fleet.hosts())
    assert_nothing_lost(audit)


def test_killed_with_two_workers_in_flight_run_again_converges(make_fleet):
    fleet: Fleet = make_fleet(4)
    fleet.start_traffic(rate=8)
    with watched(fleet, window=2) as seen:
        kill_in(fleet, seen, "two in flight", solver_max_unavailable=2)
        done = fleet.roll("1.3.0", solver_max_unavailable=2)
    audit = fleet.end_traffic()
    assert done.returncode == 0, done.stdout
    assert fleet.verdict()["verdict"] == "completed"
    assert set(fleet.versions().values()) == {"1.3.0"}
    fleet.assert_all_serve()
    assert all(record_of(fleet, name)["lock"] is None for name in fleet.hosts())
    assert_nothing_lost(audit)


NEXT: dict[str, Callable[[Fleet], Any]] = {
    "again": lambda fleet: fleet.roll(FAILS_ITS_PROBE, solver_probe_retries=1),
    "recover": lambda fleet: fleet.playbook("recover", solver_probe_retries=1),
}


@pytest.mark.parametrize("then", NEXT)
def test_killed_while_a_worker_goes_back(make_fleet, then):
    """The release is bad, and the controller dies in the middle of the revert: it is never left running or held."""
    fleet: Fleet = make_fleet(2)
    fleet.start_traffic(rate=6)
    assert fleet.roll(RESUMES_SLOWLY).returncode == 0
    with watched(fleet, never_accepts=(FAILS_ITS_PROBE,)) as seen:
        kill_all(begin_a_revert(fleet, seen))
        done = NEXT[then](fleet)
        assert set(fleet.versions().values()) == {RESUMES_SLOWLY}, done.stdout
        fleet.assert_all_serve()
        again = fleet.playbook("recover")
    audit = fleet.end_traffic()
    assert (again.returncode, fleet.verdict()["verdict"]) == (0, "completed"), again.stdout
    assert all(record_of(fleet, name)["lock"] is None for name in fleet.hosts())
    fleet.assert_all_serve()
    assert_nothing_lost(audit)


@pytest.mark.trap
@pytest.mark.parametrize(("phase", "version"), [("draining", "1.2.0"), ("switched", "1.3.0")])
def test_the_leases_alone_bring_every_worker_back(make_fleet, phase, version):
    """Expiry before the switch resumes; after it the worker verifies itself and then serves."""
    fleet: Fleet = make_fleet(2)
    with watched(fleet) as seen:
        kill_in(fleet, seen, phase, **LEASES)
        wait_for(lambda: seen.last("w1").get("state") == "running", "w1 in service again by its lease", 100)
    fleet.assert_all_serve()
    assert fleet.versions() == {"w1": version, "w2": "1.2.0"}


def test_recover_brings_back_what_was_left(make_fleet):
    fleet: Fleet = make_fleet(2)
    with watched(fleet) as seen:
        kill_in(fleet, seen, "switched")
        done = fleet.playbook("recover")
        assert done.returncode == 0, done.stdout
        fleet.assert_all_serve()
        assert fleet.versions() == {"w1": "1.3.0", "w2": "1.2.0"}
        boots = {name: fleet.status(name)["seq"] for name in fleet.hosts()}
        again = fleet.playbook("recover")
        assert again.returncode == 0, again.stdout
        assert {name: fleet.status(name)["seq"] for name in fleet.hosts()} == boots
        assert record_of(fleet, "w1")["lock"] is None
        # the rollout goes on, and still knows where each worker came from
        done = fleet.roll("1.3.0")
    assert done.returncode == 0, done.stdout
    assert record_of(fleet, "w1")["rollout"]["from"]["version"] == "1.2.0"
    assert set(fleet.versions().values()) == {"1.3.0"}


def test_recover_reverts_what_cannot_be_verified_and_then_has_nothing_to_do(make_fleet):
    """The dead run had switched w1 to a release that serves, but cannot solve: it must neither serve nor stay held."""
    fleet: Fleet = make_fleet(2)
    with watched(fleet, never_accepts=(FAILS_ITS_PROBE,)) as seen:
        process = fleet.start_playbook("rolling_update", solver_version=FAILS_ITS_PROBE)
        until("the new process of w1",
              lambda: seen.last("w1").get("instance", {}).get("version") == FAILS_ITS_PROBE, process)
        kill_all(process)
        done = fleet.playbook("recover", solver_probe_retries=1)
        assert done.returncode != 0, done.stdout
        assert fleet.outcomes()["w1"] == "reverted", done.stdout
        assert set(fleet.versions().values()) == {"1.2.0"}
        fleet.assert_all_serve()
        again = fleet.playbook("recover")
    assert again.returncode == 0, again.stdout
    assert fleet.verdict()["verdict"] == "completed"
