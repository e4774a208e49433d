# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs as AWX runs them: ansible-runner, AWX's callback and variables, its cancel. Nothing is lost by any of it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from awxjobs import ADDRESS, Controller, Job, end
from awxlib import Workflow, Written, configure, of, stand_in
from faultlib import record_of
from fleetlib import ROOT, tree, wait_for
from lightfleet import LightFleet
from test_rollout_killed import assert_all_run, assert_unlocked, look, runs

UPDATE = "playbooks/rolling_update.yml"
# No drain ends before a test says so.
LONG = {"solver_drain_timeout": 300, "solver_progress_deadline": 600}


@pytest.fixture
def awx(light_fleet: LightFleet) -> Iterator[Controller]:
    # How often a test starts a playbook is what it costs, so the workers have next to nothing to do.
    controller = Controller(light_fleet.up(2))
    yield controller
    controller.end()


def hosts_of(job: Job, event: str) -> set[str]:
    return {own["event_data"]["host"] for own in job.events() if own["event"] == event}


def assert_refused(job: Job, *words: str) -> None:
    assert (job.status, job.rc, job.artifacts()["solver_last_verdict"]) == ("failed", 2, "refused"), job.stdout
    assert [word for word in words if word not in job.stdout] == [], job.stdout


def our_lines(job: Job) -> list[str]:
    """What solver.fleet.progress said between AWX's own lines."""
    return [own["stdout"] for own in job.events() if own["event"] == "verbose"]


def assert_told(job: Job) -> None:
    """AWX has its own events of all tasks, our progress between them, and the artifacts."""
    assert (job.status, job.rc) == ("successful", 0), job.stdout
    kinds = {own["event"] for own in job.events()}
    assert {"playbook_on_start", "runner_on_ok", "playbook_on_stats", "verbose"} <= kinds
    lines = our_lines(job)
    assert any(line.startswith("w1 begins (1 of 2)") for line in lines), lines
    assert any(line.startswith("w2 updated 1.2.0 -> 1.3.0") for line in lines), lines
    rollout_id = job.artifacts()["solver_last_rollout_id"]
    assert lines.index(f"update {rollout_id}") == 0
    assert job.artifacts() == {
        "solver_last_verdict": "completed", "solver_last_rollout_id": rollout_id, "solver_last_counts": {"updated": 2},
        "solver_last_duration_s": job.artifacts()["solver_last_duration_s"], "solver_last_reason": ""}
    assert rollout_id.startswith(f"awx-{job.number}-")


def test_what_awx_has_lost_goes_on_and_nothing_runs_beside_it(awx: Controller) -> None:
    """AWX was restarted and calls a job failed that is still at work: whatever is launched then is told which one.

    A second template, a slice, a limit: each is refused before anybody is drained, also when nothing else runs.
    """
    fleet = awx.fleet
    fleet.set_fault(drain_s=200)
    first = awx.launch(UPDATE, streamed=True, solver_version="1.3.0", **LONG)
    awx.until("the drain of w1", lambda: look(fleet, "w1").get("drain"), first)
    beside = [awx.launch("playbooks/rollback.yml"), awx.launch(UPDATE, slice_of=["w2"], solver_version="1.3.0")]
    for other in beside:
        assert_refused(other.wait(), f"AWX job {first.number} at {ADDRESS}/#/jobs/playbook/{first.number} holds")
    fleet.heal()
    first.wait()
    assert_told(awx.process(first))
    assert_all_run(fleet, "1.3.0")
    before = {name: fleet.status(name)["seq"] for name in fleet.hosts()}
    alone = [awx.launch(UPDATE, slice_of=["w2"], solver_version="1.2.0"),
             awx.launch(UPDATE, limit="w2", solver_version="1.2.0")]
    for other in alone:
        assert_refused(other.wait(), "w1", "solver_allow_partial")
    assert {name: fleet.status(name)["seq"] for name in fleet.hosts()} == before
    assert_unlocked(fleet)


def test_the_repository_is_a_project_too(awx: Controller) -> None:
    job = awx.run("playbooks/status.yml", project=ROOT)
    assert (job.status, job.rc) == ("successful", 0), job.stdout
    assert "w1" in hosts_of(job, "runner_on_ok")
    assert "Serving: 2 of 2" in job.stdout


def test_relaunched_on_failed_hosts_it_is_refused_and_relaunched_it_converges(awx: Controller) -> None:
    fleet = awx.fleet
    fleet.set_fault("w2", version="1.3.0", probe="release")
    failed = awx.run(UPDATE, solver_version="1.3.0")
    assert (failed.status, failed.artifacts()["solver_last_verdict"]) == ("failed", "rolled_back")
    assert "w2" in hosts_of(failed, "runner_on_failed")
    fleet.heal()
    assert_refused(awx.run(UPDATE, limit="w2", solver_version="1.3.0"), "w1", "solver_allow_partial")
    done = awx.run(UPDATE, solver_version="1.3.0", solver_force="true")
    assert done.status == "successful", done.stdout
    assert_all_run(fleet, "1.3.0")


# -- what ends a job before its end ----------------------------------------------------------------

MOMENTS: dict[str, Callable[[LightFleet], Any]] = {
    "draining": lambda fleet: look(fleet, "w1").get("drain"),
    "switched": lambda fleet: runs(fleet, "w1", "1.3.0"),
    "soaking": lambda fleet: runs(fleet, "w1", "1.3.0") and look(fleet, "w1").get("accepting"),
    "the second one draining": lambda fleet: look(fleet, "w2").get("drain"),
}
# Three seeds, three moments of a wave.
SEEDS = dict(zip((17, 18, 19), random.Random(17).sample(sorted(MOMENTS), 3), strict=True))


def begun(awx: Controller, seed: int, **given: Any) -> Job:
    """Begin an update, and come back at the moment that the seed gives."""
    chance, moment = random.Random(seed), SEEDS[seed]
    awx.fleet.set_fault(drain_s=chance.uniform(2, 5))
    job = awx.launch(UPDATE, solver_version="1.3.0", solver_min_healthy_time=round(chance.uniform(2, 4), 1), **given)
    awx.until(moment, lambda: MOMENTS[moment](awx.fleet), job)
    return job


def ended(awx: Controller, job: Job) -> None:
    """It is as AWX leaves it: no verdict, no artifacts, and the lock still names the job."""
    assert job.artifacts() == {}
    for name in awx.fleet.hosts():
        path = awx.fleet.dir / "base/workers" / name / "rollout/record.json"
        record = json.loads(path.read_text(encoding="utf-8"))
        where = record["lock"]["controller"]
        assert record["lock"]["job"] == str(job.number)
        assert where["url"] == f"{ADDRESS}/#/jobs/playbook/{job.number}"
        # Each job has a container of its own; from another one nobody can see that its process is gone.
        where["pid_ns"] += 1
        path.write_text(json.dumps(record), encoding="utf-8")
    awx.fleet.heal()


def by_leases(awx: Controller, _job: Job) -> None:
    """Nobody does anything."""
    awx.fleet.set_fault(lease_speed=10_000)
    wait_for(lambda: all(look(awx.fleet, name).get("accepting") for name in awx.fleet.hosts()), "all serve", 60)


def by_recover(awx: Controller, job: Job) -> None:
    assert_refused(awx.run("playbooks/recover.yml"), f"AWX job {job.number} at {ADDRESS}")
    done = awx.run("playbooks/recover.yml", solver_lock_steal="true", solver_reason="it was cancelled")
    assert (done.status, done.rc) == ("successful", 0), done.stdout
    assert_unlocked(awx.fleet)


def by_relaunch(awx: Controller, _job: Job) -> None:
    done = awx.run(UPDATE, solver_version="1.3.0", solver_lock_steal="true", solver_reason="it was cancelled")
    assert (done.status, done.rc) == ("successful", 0), done.stdout
    assert set(awx.fleet.versions().values()) == {"1.3.0"}
    assert_unlocked(awx.fleet)


def assert_nothing_lost(fleet: LightFleet) -> None:
    """Nobody is drained, each task is accounted for, and nobody served a release that had not solved."""
    fleet.assert_all_serve()
    assert fleet.most_out_at_once() <= 1
    assert fleet.served_by_unverified() == []


QUICK = ((17, by_leases),)


@pytest.mark.parametrize(("seed", "then"), [
    pytest.param(seed, then, marks=[pytest.mark.quick] if (seed, then) in QUICK else [], id=f"{seed}-{then.__name__}")
    for seed in SEEDS for then in (by_leases, by_recover, by_relaunch)])
def test_cancelled_in_the_middle(awx: Controller, seed: int, then: Callable[[Controller, Job], None]) -> None:
    job = begun(awx, seed)
    job.cancel()
    assert (job.status, job.rc) == ("canceled", 254)
    ended(awx, job)
    then(awx, job)
    assert_nothing_lost(awx.fleet)


@pytest.mark.parametrize(("beside", "said"), [
    ({}, f"AWX job 41 at {ADDRESS}"), ({"slice_of": ["w2"]}, f"AWX job 41 at {ADDRESS}"),
    ({"limit": "w2"}, "the run is limited and lacks w1")], ids=["a second job", "slice", "limit"])
def test_cancelled_while_another_one_asks(awx: Controller, beside: dict[str, Any], said: str) -> None:
    awx.fleet.set_fault(drain_s=200)
    job = awx.launch(UPDATE, solver_version="1.3.0", **LONG)
    awx.until("the drain of w1", lambda: look(awx.fleet, "w1").get("drain"), job)
    other = awx.launch(UPDATE, solver_version="1.3.0", **beside)
    assert_refused(other.wait(), said)
    job.cancel()
    ended(awx, job)
    by_recover(awx, job)
    assert_nothing_lost(awx.fleet)


def test_cancelled_in_a_mesh(awx: Controller) -> None:
    """Receptor ends the worker of ansible-runner, which is on another machine than AWX."""
    job = begun(awx, 18, streamed=True)
    job.cancel()
    awx.process(job)
    assert job.status == "canceled"
    ended(awx, job)
    by_recover(awx, job)
    assert_nothing_lost(awx.fleet)


def test_a_job_that_takes_too_long_is_killed(awx: Controller) -> None:
    fleet = awx.fleet
    fleet.set_fault("w1", drain_s=600)
    job = awx.launch(UPDATE, timeout=60, solver_version="1.3.0", **LONG)
    below: dict[int, str] = {}
    awx.until("the drain of w1", lambda: look(fleet, "w1").get("drain") and below.update(tree(job.process.pid)) is None,
              job)
    job.wait()
    end(below)
    assert job.status == "timeout"
    ended(awx, job)
    by_recover(awx, job)
    assert_nothing_lost(fleet)


# -- three regions ---------------------------------------------------------------------------------

REGIONS = {"eu": ["w1", "w2"], "us": ["w3"], "ap": ["w4"]}


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Written]:
    def made(**given: Any) -> Written:
        with stand_in(tmp_path_factory.mktemp("awx")) as there:
            done, written = configure(there, {"solver_awx_project_url": "https://git.example.com/x.git",
                                              "solver_awx_regions": list(REGIONS), **given})
        assert done.returncode == 0, done.stdout
        return written

    return made


def launch(awx: Controller, written: Written, answers: dict[str, Any]) -> tuple[Workflow, dict[str, Job]]:
    """Run the workflow as AWX does; what its survey asks reaches each template that asks for it."""
    flow = Workflow(of(written, "workflow_job_template")["Solver | region by region"]["workflow_nodes"])
    templates = of(written, "job_template")
    jobs: dict[str, Job] = {}
    while ready := flow.ready():
        for name in ready:
            node = flow.nodes[name]
            template = templates[node["unified_job_template"]["name"]]
            asked = {own["variable"]: own["default"] for own in template.get("survey_spec", {}).get("spec", ())}
            answered = {variable: answers.get(variable, default) for variable, default in asked.items()}
            given = {**template.get("extra_vars", {}), **answered, **node["extra_data"], **flow.begin(name)}
            jobs[name] = awx.launch(template["playbook"], **given)
        for name in ready:
            job = jobs[name].wait()
            flow.end(name, job.status == "successful", job.artifacts())
    return flow, jobs


@pytest.fixture
def regions(light_fleet: LightFleet) -> Iterator[Controller]:
    controller = Controller(light_fleet.up(4), REGIONS)
    yield controller
    controller.end()


def test_a_region_that_fails_stops_the_workflow(regions: Controller, objects: Callable[..., Written]) -> None:
    fleet = regions.fleet
    fleet.set_fault("w3", version="1.3.0", probe="release")
    flow, jobs = launch(regions, objects(solver_awx_bake_minutes=0), {"solver_version": "1.3.0"})
    assert list(jobs) == ["eu", "gate 1", "us", "recover us", "gate 2"]
    assert flow.failed()
    assert {name: job.status for name, job in jobs.items()} == {
        "eu": "successful", "gate 1": "successful", "us": "failed", "recover us": "successful", "gate 2": "failed"}
    assert "1 of 3 regions had their turn; next: us" in jobs["gate 1"].stdout
    assert "us (aborted) failed, and none may" in jobs["gate 2"].stdout
    assert fleet.versions() == {"w1": "1.3.0", "w2": "1.3.0", "w3": "1.2.0", "w4": "1.2.0"}
    fleet.assert_all_serve()
    assert_unlocked_where_known(fleet)
    assert record_of(fleet, "w1")["roster"] == ["w1", "w2"], "each region is a fleet of its own"


def test_within_the_budget_the_others_go_on(regions: Controller, objects: Callable[..., Written]) -> None:
    fleet = regions.fleet
    fleet.set_fault("w3", version="1.3.0", probe="release")
    written = objects(solver_awx_bake_minutes=0, solver_awx_regions_at_once=2, solver_awx_regions_budget=1)
    flow, jobs = launch(regions, written, {"solver_version": "1.3.0"})
    assert list(jobs) == ["eu", "gate 1", "us", "ap", "recover us", "gate 3"]
    assert flow.failed()
    assert "us (aborted) did not end as completed" in jobs["gate 3"].stdout
    assert fleet.versions() == {"w1": "1.3.0", "w2": "1.3.0", "w3": "1.2.0", "w4": "1.3.0"}
    fleet.assert_all_serve()


def test_after_its_bake_each_worker_of_the_canary_region_must_serve(regions: Controller) -> None:
    regions.fleet.stop("w2")
    given = {"solver_awx_gate": 1, "solver_awx_bake_minutes": 1}
    gates = {canary: regions.launch(
        "playbooks/awx_gate.yml", solver_hosts=canary, solver_awx_regions=[canary, "ap"],
        **{f"solver_last_region_{canary}": "completed"}, **given) for canary in ("eu", "us")}
    assert gates["us"].wait().status == "successful", gates["us"].stdout
    assert gates["eu"].wait().status == "failed"
    assert "1 of 2 workers of the canary region do not serve after its bake: w2" in gates["eu"].stdout


def assert_unlocked_where_known(fleet: LightFleet) -> None:
    known = [name for name in fleet.hosts() if (fleet.dir / "base/workers" / name / "rollout/record.json").exists()]
    assert [name for name in known if record_of(fleet, name)["lock"] is not None] == []
