# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator meets: looks, requests, resume, remove and provision again, plans that refuse as the run would."""

from __future__ import annotations

from typing import Any

import pytest
from faultlib import kill_all
from fleetlib import control, wait_for
from lightfleet import LightFleet

pytestmark = pytest.mark.slow

REMOVAL = "remove-0123456789abcdef"


def flat(text: str) -> str:
    return " ".join(text.split()).replace("''", "'")  # YAML doubles quotes


def drain(fleet: LightFleet, name: str, owner: str, **more: Any) -> None:
    body = {"owner": owner, "reason": "new disk", "mode": "complete", "grace_s": 0, "lease_s": 900, **more}
    code, answer = control(fleet.socket(name), "PUT", "/v1/drain", body)
    assert code in (200, 202), answer


def states(fleet: LightFleet) -> dict[str, str]:
    return {name: fleet.status(name)["state"] for name in fleet.hosts()}


def test_resume_ends_what_may_be_ended_and_says_why_not_of_the_rest(light_fleet: LightFleet) -> None:
    fleet = light_fleet.up(3, drain_s=0.1)
    drain(fleet, "w1", "alice")
    drain(fleet, "w2", REMOVAL)
    shown = fleet.playbook("status")
    assert "drained by alice: new disk" in flat(shown.stdout)
    done = fleet.playbook("resume")
    assert done.returncode == 2, done.stdout
    assert f"w2: serves again, it was drained by '{REMOVAL}'" in flat(done.stdout)
    assert "w1: it is drained by 'alice' (new disk)" in flat(done.stdout)
    assert "solver_resume_foreign: true with a solver_reason" in flat(done.stdout)
    assert fleet.status("w2")["state"] == "running"
    assert fleet.status("w1")["drain"]["owner"] == "alice"
    recovered = fleet.playbook("recover")
    assert recovered.returncode == 2, "exit 0 means that every worker serves"
    assert "w1 does not serve: excluded (drained by 'alice'" in flat(recovered.stdout)
    refused = fleet.playbook("resume", solver_resume_foreign=True)
    assert "solver_resume_foreign needs a solver_reason" in flat(refused.stdout)
    done = fleet.playbook("resume", solver_resume_foreign=True, solver_reason="alice is away", solver_only=["w1"])
    assert done.returncode == 0, done.stdout
    assert set(states(fleet).values()) == {"running"}


def test_resume_leaves_a_removal_at_work_alone_and_ends_the_drain_of_one_that_died(light_fleet: LightFleet) -> None:
    fleet = light_fleet.up(2, drain_s=600)
    going = fleet.start_playbook("remove", solver_only=["w2"], solver_drain_grace=0, solver_drain_timeout=600)
    try:
        wait_for(lambda: fleet.status("w2")["drain"], "the removal to drain w2", 60)
        kept = fleet.playbook("resume")
        assert kept.returncode == 2, kept.stdout
        assert "w2: remove.yml is taking it away now, as 'remove-" in flat(kept.stdout), kept.stdout
        assert fleet.status("w2")["drain"], "it is still drained"
    finally:
        kill_all(going)
    done = fleet.playbook("resume")
    assert done.returncode == 0, done.stdout
    assert "w2: serves again, it was drained by 'remove-" in flat(done.stdout)
    assert set(states(fleet).values()) == {"running"}


def test_what_was_removed_and_provisioned_again_serves(light_fleet: LightFleet) -> None:
    fleet = light_fleet.up(2, drain_s=0.1)
    removed = fleet.playbook("remove", solver_only=["w2"])
    assert removed.returncode == 0, removed.stdout
    again = fleet.playbook("provision", solver_version="1.2.0")
    assert again.returncode == 0, again.stdout
    assert set(states(fleet).values()) == {"running"}
    drain(fleet, "w1", "alice")
    kept = fleet.playbook("provision", solver_version="1.2.0")
    assert kept.returncode == 2, "it does not serve"
    assert "w1 is in place, but does not serve: it is drained by 'alice' (new disk)" in flat(kept.stdout)


def test_why_a_worker_could_not_be_removed_is_said(light_fleet: LightFleet) -> None:
    fleet = light_fleet.up(2, drain_s=600)
    done = fleet.playbook("remove", solver_only=["w1", "w2"], solver_drain_timeout=1, solver_drain_grace=0)
    assert done.returncode == 2, done.stdout
    said = flat(done.stdout).rpartition("could not be removed: ")[2]
    assert "solver_drain_timeout" in said.partition("Run the same command again.")[0], said
    assert "not tried, or out of reach" in said.partition("Run the same command again.")[0], "the second one was not"
    assert set(states(fleet).values()) == {"running"}


@pytest.mark.long  # the next fleet builds its environments anew
def test_removing_everything_leaves_nothing_and_says_what_it_left_before(light_fleet: LightFleet) -> None:
    fleet = light_fleet.up(2, drain_s=0.1)
    base = fleet.dir / "base"
    one = fleet.playbook("remove", solver_only=["w2"])
    assert one.returncode == 0, one.stdout
    assert f"w2: left are {base} (for other workers, now or later), its journal, " in flat(one.stdout)
    assert "solver_remove_everything: true takes all that away" in flat(one.stdout)
    done = fleet.playbook("remove", solver_only=["w1", "w2"], solver_remove_everything=True)
    assert done.returncode == 0, done.stdout
    assert not [path.name for path in base.iterdir() if path.name in ("workers", "releases", "envs", "pip")]
    assert f"{base}: not empty, what is in there is not ours" in flat(done.stdout)


def test_a_plan_refuses_what_the_run_would_refuse(light_fleet: LightFleet) -> None:
    fleet = light_fleet.up(2)
    for version, said in (("v1.3.0", "set solver_version to that"), ("9.9.9", "holds solver-worker 1.2.0, 1.3.0")):
        done = fleet.roll(version, "--check")
        assert (done.returncode, said in flat(done.stdout)) == (2, True), done.stdout
        assert fleet.verdict()["verdict"] == "refused"
    away = fleet.write_inventory("away.yml", **{
        name: {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 9} for name in ("w1", "w2")})
    done = fleet.roll("1.3.0", "--check", inventory=away)
    assert done.returncode == 2, done.stdout
    assert "only 0 of the fleet's workers could be locked" in flat(done.stdout)
    shown = fleet.playbook("status", inventory=away)
    assert "No answer from: w1, w2." in flat(shown.stdout)
    asked = fleet.playbook("pause", inventory=away)
    assert asked.returncode == 2, asked.stdout
    assert "No rollout is running" in flat(asked.stdout)
    stray = fleet.playbook("pause", "-e", "solver_reason=on the phone")
    assert stray.returncode == 2, stray.stdout
    assert "-e has 'the phone', which belongs to no variable" in flat(stray.stdout)


@pytest.mark.quick
def test_the_doctor_names_what_is_wrong_and_its_exit_code_says_so(light_fleet: LightFleet) -> None:
    light_fleet.up(3)
    well = light_fleet.playbook("doctor")
    assert well.returncode == 0, well.stdout
    assert "3 workers: 3 without a finding" in well.stdout
    light_fleet.kill("w2")
    ill = light_fleet.playbook("doctor", solver_worker_python="/no/python3", solver_version="9.9.9",
                               solver_offline=True)
    text = " ".join(ill.stdout.split())
    assert ill.returncode == 2, ill.stdout
    assert "BAD w1, w2, w3: looking for a Python of at least 3.11" in text
    assert "BAD w2: no worker serves (dead)" in text
    assert "BAD controller: solver_wheelhouse" in text
    assert "has no wheel of solver-worker 9.9.9" in text
