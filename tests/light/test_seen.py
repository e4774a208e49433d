# SPDX-License-Identifier: GPL-3.0-or-later
"""What is seen of a rollout: its report, its status while it runs and afterwards, its history."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
from pathlib import Path

import jsonschema
from fleetlib import ROOT, VERDICT, wait_for
from lightfleet import LightFleet

SCREEN = {"ANSIBLE_STDOUT_CALLBACK": "solver.fleet.rollout"}
STATUS = jsonschema.Draft202012Validator(json.loads((ROOT / "docs/schemas/status-1.json").read_text("utf-8")))


def test_a_rollout_leaves_a_report_of_what_happened_when(light_fleet: LightFleet) -> None:
    fleet = light_fleet.up(3, drain_s=(0.3, 0.6))
    fleet.set_fault("w2", version="1.3.0", probe="release")
    path, metrics = fleet.dir / "report.html", fleet.dir / "solver.prom"
    done = fleet.roll("1.3.0", solver_report_file=str(path), solver_metrics_file=str(metrics),
                      solver_max_fail_percentage=50)
    assert done.returncode == 2, done.stdout
    document = fleet.verdict()
    assert list(VERDICT.iter_errors(document)) == []
    assert fleet.outcomes() == {"w1": "updated", "w2": "reverted", "w3": "updated"}, done.stdout
    for worker in document["workers"]:
        steps = worker["steps"]
        assert [own["step"] for own in steps][:3] == ["drain", "switch", "verify"], worker
        assert all(own["from_s"] <= own["to_s"] for own in steps)
        assert all(one["to_s"] <= after["from_s"] + 0.02 for one, after in itertools.pairwise(steps)), steps
        assert steps[0]["to_s"] - steps[0]["from_s"] >= 0.25, "a drain takes as long as its tasks"
    assert [own["step"] for own in document["workers"][1]["steps"] if not own["ok"]] == ["verify"]
    assert {min(own["serving"] for own in document["samples"]), document["samples"][-1]["serving"]} == {2, 3}
    assert document["samples"][-1]["versions"] == {"1.2.0": 1, "1.3.0": 2}
    assert document["spent"] == ["w2"]
    text = path.read_text(encoding="utf-8")
    assert "w2: reverted, cause: release" in text
    assert "WRONG_ANSWER" in text
    numbers = metrics.read_text(encoding="utf-8").splitlines()
    assert 'solver_rollout_workers{outcome="updated"} 2' in numbers
    assert 'solver_rollout_workers{outcome="reverted"} 1' in numbers
    assert {"solver_rollout_running 0", 'solver_rollout_last_verdict{verdict="incomplete"} 1'} <= set(numbers)
    listed = fleet.playbook("history", env=SCREEN)
    assert listed.returncode == 0, listed.stdout
    assert f"  {document['rollout_id']} of " in listed.stdout
    assert "update 1.2.0 -> 1.3.0: incomplete in " in listed.stdout
    one = fleet.playbook("history", env=SCREEN, solver_rollout_id=document["rollout_id"], solver_status_format="json")
    assert json.loads(one.stdout) == document, "what the workers keep is what the file says"
    again = fleet.playbook("report", solver_rollout_id=document["rollout_id"],
                           solver_report_file=str(fleet.dir / "2.html"))
    assert again.returncode == 0, again.stdout
    assert (fleet.dir / "2.html").read_bytes() == path.read_bytes()
    shown = fleet.playbook("status", env=SCREEN, solver_status_format="json")
    assert shown.returncode == 0, shown.stdout
    status = json.loads(shown.stdout)
    assert list(STATUS.iter_errors(status)) == []
    assert (status["fleet"]["serving"], status["rollout"], status["locks"]) == (3, None, [])
    assert [own["last_outcome"] for own in status["workers"]] == ["updated", "reverted", "updated"]


def locked(fleet: LightFleet) -> bool:
    """Whether a rollout holds all workers, by their records."""
    records = [Path(fleet.base.path, "workers", name, "rollout/record.json") for name in fleet.hosts()]
    return all(path.exists() and json.loads(path.read_text())["lock"] for path in records)


def test_a_rollout_is_watched_to_its_end_and_the_exit_code_is_that_of_its_verdict(light_fleet: LightFleet) -> None:
    fleet = light_fleet.up(3, drain_s=3.0)
    fleet.set_fault("w3", version="1.3.0", probe="release")
    run = fleet.start_playbook("rolling_update", solver_version="1.3.0", solver_max_fail_percentage=50)
    wait_for(lambda: locked(fleet), "the lock", 60)
    watched = fleet.playbook("status", env=SCREEN, solver_status_watch=0.5)
    assert run.wait(120) == 2
    assert watched.returncode == 2, watched.stdout
    looks = [line for line in watched.stdout.splitlines() if line.startswith("Under way: update to 1.3.0")]
    assert len(looks) >= 2, watched.stdout
    assert len(set(looks)) >= 2, "it moves"
    assert "ended: incomplete" in " ".join(watched.stdout.split()), watched.stdout
    assert "waits for rolling_update.yml" not in watched.stdout.partition("No rollout holds the lock.")[0]
    rows = [line for line in watched.stdout.splitlines() if line.startswith("w") and " : ok=" not in line]
    assert max(map(len, rows)) <= 80, watched.stdout


def test_after_a_killed_controller_the_status_says_that_it_is_dead(light_fleet: LightFleet) -> None:
    fleet = light_fleet.up(2, drain_s=15.0)
    run = fleet.start_playbook("rolling_update", solver_version="1.3.0", solver_stages="1,100%")
    wait_for(lambda: locked(fleet) and fleet.status("w1")["drain"], "the first drain", 60)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    shown = fleet.playbook("status", env=SCREEN)
    assert shown.returncode == 0, shown.stdout
    assert "Its controller is dead: stage 1 of 2 (0 of 1), 0 of 2 workers had their turn, in its turn were w1." in (
        " ".join(shown.stdout.split())), shown.stdout
    rollout = re.search(r"rollout-\w+-\w+", shown.stdout)
    assert rollout is not None
    path = fleet.dir / "killed.html"
    made = fleet.playbook("report", solver_rollout_id=rollout[0], solver_report_file=str(path))
    assert made.returncode == 0, made.stdout
    assert "it was in its turn, and is still drained" in path.read_text(encoding="utf-8")


def test_what_is_no_success_is_not_exit_0(light_fleet: LightFleet) -> None:
    fleet = light_fleet.up(1)
    away = fleet.write_inventory("away.yml", w1={
        "ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 9})
    (fleet.dir / "bad.json").write_text('{"schema": "solver.verdict/7"}', encoding="utf-8")
    for name, said, more in (
            ("status", "no worker's host could be reached", {"inventory": away}),
            ("history", "no worker's host could be reached", {"inventory": away}),
            ("status", "nothing matches nobody", {"solver_hosts": "nobody"}),
            ("history", "no worker has a verdict of r7", {"solver_rollout_id": "r7"}),
            ("report", "its schema is solver.verdict/7", {"solver_verdict_file": str(fleet.dir / "bad.json")}),
            ("report", "No such file", {"solver_verdict_file": str(fleet.dir / "none.json")})):
        done = fleet.playbook(name, **more)  # type: ignore[arg-type]
        assert done.returncode != 0, done.stdout
        assert said in " ".join(done.stdout.split()).replace("''", "'"), done.stdout
