# SPDX-License-Identifier: GPL-3.0-or-later
"""Switching by a standby, through the module worker_release and a light worker with two places."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.solver.fleet.plugins.module_utils import _job_release
from ansible_collections.solver.fleet.plugins.module_utils._census import census
from ansible_collections.solver.fleet.plugins.module_utils._client import WorkerClient
from ansible_collections.solver.fleet.plugins.module_utils._job import attempt
from ansible_collections.solver.fleet.plugins.module_utils._release import read_links, release_name
from ansible_collections.solver.fleet.plugins.module_utils._service import open_service
from ansible_collections.solver.fleet.plugins.module_utils._service_base import ServiceState
from ansible_collections.solver.fleet.plugins.module_utils._service_command import CommandService
from ansible_collections.solver.fleet.plugins.plugin_utils import _settings_rules
from fleetlib import control
from lightfleet import LightFleet

pytestmark = pytest.mark.quick


class OneWorker:
    """A fleet of one, whose releases 1.2.0 (it runs) and 1.3.0 are staged."""

    def __init__(self, fleet: LightFleet) -> None:
        self.fleet = fleet.up(1)
        fleet.link("1.3.0", "w1", name="staged")
        self.own = _settings_rules.resolve(fleet.hosts(), need_version=False).workers["w1"]
        self.dir = Path(self.own["worker_dir"])
        self.old, self.new = (release_name(read_links(str(self.dir))._asdict()[name]) for name in ("current", "staged"))

    def release(self, state: str, check_mode: bool = False, **more: Any) -> dict[str, Any]:
        given = {"state": state, "owner": "r1", "worker_name": "w1", "worker_dir": str(self.dir),
                 "base_dir": self.own["base_dir"], "control_socket": self.own["control_socket"],
                 "service": self.own["service"], **more}
        found = ArgumentSpecValidator(_job_release.argument_spec(), **_job_release.RULES).validate(given)
        assert not found.error_messages, found.error_messages
        return attempt(_job_release.ReleaseJob(found.validated_parameters, check_mode, lambda _text: None).run)

    def probe(self) -> dict[str, Any]:
        return WorkerClient(self.own["service"]["standby"]["socket"], 5.0).probe({"request_id": "p1"})

    def links(self) -> list[str | None]:
        return [release_name(link) for link in read_links(str(self.dir))]

    def looked(self) -> dict[str, Any]:
        return census(self.own["control_socket"], 5.0, service=self.own["service"],
                      standby_socket=self.own["service"]["standby"]["socket"])

    def drain(self, owner: str) -> None:
        wish = {"owner": owner, "grace_s": 0, "mode": "handover"}
        assert control(self.own["control_socket"], "PUT", "/v1/drain", wish)[0] == 202

    def resume(self, owner: str) -> None:
        assert control(self.own["control_socket"], "DELETE", f"/v1/drain?owner={owner}")[0] == 200

    def place(self) -> str:
        """In which of its two services the worker runs."""
        service = open_service(self.own["service"])
        states = {name: getattr(service, name).state() for name in ("home", "slot")}
        pid = self.fleet.status("w1")["instance"]["pid"]
        return ", ".join(name for name, found in states.items() if found.state == "running" and found.pid == pid)


@pytest.fixture
def one(light_fleet: LightFleet) -> OneWorker:
    return OneWorker(light_fleet)


def test_a_release_is_raised_verified_takes_over_and_comes_home(one: OneWorker) -> None:
    said = one.release("standby", check_mode=True, release=one.new)
    assert (said["changed"], one.looked()["standby"]["finding"]) == (True, "stopped")
    said = one.release("standby", release=one.new)
    assert (said["changed"], said["standby"]["state"], said["standby"]["instance"]["release"]) == (
        True, "standby", one.new)
    again = one.release("standby", release=one.new)
    assert (again["changed"], again["standby"]["instance"]["boot_id"]) == (
        False, said["standby"]["instance"]["boot_id"])
    assert one.links() == [one.old, None, one.new, one.new]
    early = one.release("active", release=one.new, switch="standby")
    assert (early["failed"], early["switched"], early["restarted"]) == (True, False, False)
    assert early["failure"]["code"] == "worker_failed"
    assert "has not solved a probe here" in early["msg"]
    assert one.links() == [one.old, None, one.new, one.new]  # as if it had never been tried
    assert one.probe()["outcome"] == "succeeded"
    done = one.release("active", release=one.new, switch="standby")
    assert (done["changed"], done["switched"], done["restarted"], done["worker_state"]) == (True, True, True, "running")
    assert one.links() == [one.new, one.old, None, one.new]
    assert one.place() == "slot"
    assert one.release("settled")["changed"] is True
    assert (one.place(), one.fleet.status("w1")["instance"]["version"]) == ("home", "1.3.0")
    assert one.release("settled")["changed"] is False
    assert one.release("active", release=one.new, switch="standby")["changed"] is False
    assert one.fleet.most_out_at_once() == 0
    assert one.fleet.served_by_unverified() == []


def test_a_standby_that_crashed_is_not_left_to_a_service_that_would_start_it_again(
    one: OneWorker, monkeypatch: pytest.MonkeyPatch,
) -> None:
    one.fleet.set_fault(version="1.3.0", crash=True)
    assert one.release("standby", release=one.new)["failed"]
    stopped: list[str] = []
    stop = CommandService.stop
    monkeypatch.setattr(CommandService, "stop", lambda self: (stopped.append(self.name), stop(self))[-1])
    assert "failure" not in one.release("dropped")
    assert stopped == [one.own["service"]["standby"]["name"]]
    assert one.place() == "home"


def test_a_link_that_a_dead_run_moved_is_moved_back_when_the_take_over_is_refused(one: OneWorker) -> None:
    one.fleet.link("1.3.0", "w1")  # and the process runs 1.2.0
    one.release("standby", release=one.new)
    said = one.release("active", release=one.new, switch="standby")
    assert "has not solved a probe here" in said["msg"]
    assert (one.links()[0], said["current"]) == (one.old, one.old)


def test_an_order_that_somebody_left_at_home_makes_no_standby_of_the_worker(one: OneWorker) -> None:
    order = Path(one.own["service"]["standby"]["home_order"])
    order.write_text(json.dumps({"socket": one.own["service"]["standby"]["socket"], "owner": "dead"}), encoding="utf-8")
    one.drain("r1")
    one.release("active", release=one.new)
    one.resume("r1")
    assert (one.fleet.status("w1")["state"], order.exists()) == ("running", False)


def test_what_lives_in_the_slot_and_says_nothing_is_not_touched(one: OneWorker) -> None:
    one.release("standby", release=one.new)
    one.probe()
    one.release("active", release=one.new, switch="standby")
    assert one.place() == "slot"
    one.fleet.set_fault("w1", hang=True)
    for state in ("standby", "dropped"):
        said = one.release(state, release=one.old, control_timeout=0.5)
        assert (said["failure"]["code"], said["failure"]["cause"]) == ("hung", "host"), said["msg"]
    one.fleet.heal()
    assert one.place() == "slot"
    assert one.fleet.status("w1")["state"] == "running"


def test_a_process_in_the_slot_that_has_handed_over_is_waited_for(
    one: OneWorker, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It stays some seconds for its connections, and what it makes room for may be raised right after it."""
    states = iter(["running", "running", "stopped", "stopped"])
    asked: list[str] = []
    state = CommandService.state

    def lingers(service: CommandService) -> Any:
        if service.name != "w1-standby" or (now := next(states, None)) is None:
            return state(service)
        asked.append(now)
        return ServiceState(now, 1, "it stays for its connections")

    monkeypatch.setattr(CommandService, "state", lingers)
    said = one.release("standby", release=one.new)
    assert said["standby"]["state"] == "standby", said
    assert asked.count("running") == 2


def test_a_worker_is_home_only_when_nobody_is_left_in_its_slot(one: OneWorker) -> None:
    """Whoever looks at its service afterwards sees one process, and that is the worker."""
    one.fleet.set_fault("w1", linger_s=1.0)
    one.release("standby", release=one.new)
    one.probe()
    one.release("active", release=one.new, switch="standby")
    assert one.looked()["in_slot"] is True
    assert one.release("settled")["changed"] is True
    assert one.looked()["in_slot"] is False
    now, serves = open_service(one.own["service"]).state(), one.fleet.status("w1")["instance"]
    assert (now.state, now.pid) == ("running", serves["pid"])


def test_a_standby_that_is_not_wanted_goes_and_the_worker_is_not_touched(one: OneWorker) -> None:
    before = one.fleet.status("w1")
    assert one.release("dropped")["changed"] is False
    one.release("standby", release=one.new)
    assert one.release("dropped", owner="r2")["changed"] is True  # also by the run that comes after
    assert one.looked()["standby"]["finding"] == "stopped"
    assert one.links() == [one.old, None, one.new, None]
    assert one.fleet.status("w1")["seq"] == before["seq"]
    one.release("standby", release=one.old)
    said = one.release("standby", release=one.new, owner="r2")  # another release is wanted
    assert (said["changed"], said["standby"]["standby"]["owner"]) == (True, "r2")


def test_without_a_standby_nothing_is_switched(one: OneWorker) -> None:
    said = one.release("active", release=one.new, switch="standby")
    assert "no standby of that release stands by (none answers)" in said["msg"]
    one.release("standby", release=one.old)
    said = one.release("active", release=one.new, switch="standby")
    assert f"what is there is {one.old}" in said["msg"]
    assert one.links()[0] == one.old
    del one.own["service"]["standby"]
    assert "no slot for a standby is named" in one.release("standby", release=one.new)["msg"]


def test_a_worker_that_was_left_in_its_slot_is_restarted_and_raised_from_there(one: OneWorker) -> None:
    for left in ("restarted", "raised"):
        one.release("standby", release=one.new)
        one.probe()
        one.release("active", release=one.new, switch="standby")
        assert one.place() == "slot"  # whoever did it died before it was settled
        if left == "raised":
            assert one.release("standby", release=one.old)["standby"]["instance"]["version"] == "1.2.0"
            assert (one.place(), one.fleet.status("w1")["instance"]["version"]) == ("home", "1.3.0")
            return
        one.drain("r1")
        one.release("active", release=one.old)
        assert (one.place(), one.fleet.status("w1")["instance"]["version"]) == ("home", "1.2.0")
        one.resume("r1")


def test_a_drain_of_somebody_else_and_a_failing_release_leave_all_as_it_was(one: OneWorker) -> None:
    one.release("standby", release=one.new)
    one.probe()
    one.drain("operator")
    said = one.release("active", release=one.new, switch="standby")
    assert (said["failure"]["code"], said["failure"]["cause"], one.links()[0]) == ("foreign_drain", "drain", one.old)
    one.resume("operator")
    one.fleet.set_fault("w1", version="1.3.0", failed="journal_newer")
    said = one.release("active", release=one.new, switch="standby")
    assert (said["failure"]["cause"], said["failure"]["details"]["refused"]) == ("release", "journal_newer")
    assert (one.links()[0], one.fleet.status("w1")["state"]) == (one.old, "running")
    one.release("dropped")
    one.fleet.set_fault("w1", version="1.3.0", crash=True)
    said = one.release("standby", release=one.new)
    assert (said["failure"]["code"], said["failure"]["cause"]) == ("not_running", "release")
    assert one.fleet.status("w1")["state"] == "running"
