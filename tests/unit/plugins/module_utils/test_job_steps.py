# SPDX-License-Identifier: GPL-3.0-or-later
"""worker_steps against a model of a worker on a real socket, with real links and a service of shell commands."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from ansible_collections.solver.fleet.plugins.module_utils import _job_steps
from ansible_collections.solver.fleet.plugins.module_utils._carried import trimmed
from ansible_collections.solver.fleet.plugins.module_utils._job_steps import StepsJob
from ansible_collections.solver.fleet.plugins.module_utils._record import Claim, empty, held, now
from ansible_collections.solver.fleet.plugins.module_utils._record_file import RecordFile

TURN = ("drain", "switch", "verify", "resume", "soak", "record")
BACK = ("revert_drain", "revert", "revert_verify", "revert_resume")
MODULES = {"switch": "worker_release", "revert": "worker_release", "verify": "solve_check", "soak": "solve_check",
           "revert_verify": "solve_check", "record": "rollout_lock"}


class Model:
    """Keeps the drain; its process is another one whenever the service's start command has written to its file."""

    def __init__(self, folder: Path, tools: Any) -> None:
        self.folder = folder
        self.tools = tools
        self.drain: dict[str, Any] | None = None
        self.open = 0
        self.probe: dict[str, Any] = {"outcome": "succeeded", "elapsed_s": 0.1, "error": None}
        self.asked: list[tuple[str, str, Any]] = []
        self.lock = threading.Lock()

    def boot(self) -> int:
        path = self.folder / "starts"
        return len(path.read_text()) if path.exists() else 0

    def status(self) -> Any:
        current = (self.folder / "worker/current").readlink().name
        waits = self.drain is not None and self.open and self.drain["mode"] == "complete"
        state = "running" if self.drain is None else "draining" if waits else "drained"
        instance = {"name": "w1", "version": current.split("-")[0], "release": current, "boot_id": f"b{self.boot()}",
                    "pid": 7, "started_at": "2026-01-01T00:00:00Z", "restarts": 0}
        tasks = {"open": self.open, "accepted": 0, "submitting": 0, "polling": self.open, "unfetched": 0,
                 "oldest_age_s": None}
        totals = {"accepted": self.open, "succeeded": 0, "failed": 0, "uncertain": 0, "expired": 0}
        return self.tools.status(state, instance=instance, drain=self.drain, tasks=tasks, totals=totals,
                                 safe_to_stop=state == "drained")

    def __call__(self, connection: Any) -> None:
        data = self.tools.read_request(connection)
        head, _unused, body = data.partition(b"\r\n\r\n")
        method, target = head.split(b" ", 2)[:2]
        length = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
        while len(body) < int(length[0] if length else 0):
            body += connection.recv(65536)
        with self.lock:
            status, document = self.answer(method.decode(), urlsplit(target.decode()).path, body)
        text = json.dumps(document).encode()
        connection.sendall(b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
            status, len(text), text))

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        given = json.loads(body) if body else None
        self.asked.append((method, path, given))
        if method == "PUT":
            known = self.drain or {"mode": "complete", "requested_at": "2026-01-01T00:00:00Z"}
            code = 200 if self.drain else 202
            self.drain = {**known, **given}
            return code, self.status()
        if method == "DELETE":
            self.drain = None
        if method == "POST":
            return 200, {"boot_id": f"b{self.boot()}", **self.probe}
        return 200, self.status()


def given(args: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in args.items() if value is not None}


class World:
    def __init__(self, folder: Path, model: Model, socket: str) -> None:
        self.folder, self.model, self.socket = folder, model, socket
        self.hidden: list[str] = []

    def args(self, name: str) -> dict[str, Any]:
        control = {"control_socket": self.socket, "control_timeout": 2}
        where = {"worker_dir": str(self.folder / "worker")}
        service = {"backend": "command", "name": "w1", "status": ["true"], "stop": ["true"],
                   "start": ["sh", "-c", f"printf x >> {self.folder}/starts"]}
        release = {**control, **where, "state": "active", "worker_name": "w1", "base_dir": str(self.folder),
                   "owner": "r1", "service": service, "run_id": "run1"}
        drain = {**control, **where, "owner": "r1", "run_id": "run1"}
        check = {**control, "checks": ["worker"]}
        return {
            "drain": {**drain, "timeout": 60, "grace": 0},
            "switch": {**release, "release": "1.3.0-new"},
            "verify": {**check, "checks": ["worker", "probe"], "request_id": "r1-w1", "expect_version": "1.3.0",
                       "retries": 1},
            "resume": {**drain, "state": "active"},
            "soak": {**check, "soak": 0.3, "expect_state": ["running"]},
            "record": {**where, "state": "renewed", "run_id": "run1", "outcome": "updated"},
            "revert_drain": {**drain, "mode": "handover", "timeout": 1, "on_timeout": "force", "accept_loss": True,
                             "grace": 0, "absent_ok": True},
            "revert": {**release, "release": "1.2.0-old"},
            "revert_verify": check,
            "revert_resume": {**drain, "state": "active"},
        }[name]

    def job(self, *names: str, before: Any = None, check_mode: bool = False, slice_s: float = 25.0,
            **more: Any) -> StepsJob:
        steps = [{"name": name, "module": MODULES.get(name, "worker_drain"), "goes_on": name == "revert_drain",
                  "args": given({**self.args(name), **more.get(name, {})})} for name in names]
        params = {"steps": steps, "before": before or {}, "slice": slice_s}
        return StepsJob(params, check_mode, self.hidden.append)

    def run(self, *names: str, **more: Any) -> Any:
        return self.job(*names, **more).run()["done_steps"]

    def record(self) -> Any:
        return RecordFile(str(self.folder / "worker")).read()


@pytest.fixture
def world(tmp_path: Path, serve: Any, tools: Any) -> World:
    (tmp_path / "worker").mkdir()
    for name in ("1.2.0-old", "1.3.0-new"):
        (tmp_path / "releases" / name / "env/bin").mkdir(parents=True)
        (tmp_path / "releases" / name / "env/bin/python").touch()
        (tmp_path / "releases" / name / "release.json").write_text(json.dumps(
            {"schema": "solver.release/1", "id": name, "version": name.split("-", maxsplit=1)[0]}))
    (tmp_path / "worker/current").symlink_to(tmp_path / "releases/1.2.0-old")
    file = RecordFile(str(tmp_path / "worker"))
    with file.guarded(exclusive=True):
        file.write(held(empty(), Claim("r1", "run1", release_to={"version": "1.3.0", "release": "1.3.0-new"}), now()))
    model = Model(tmp_path, tools)
    return World(tmp_path, model, serve(model).path)


def test_a_whole_turn_in_one_call(world: World) -> None:
    results = world.run(*TURN)
    assert list(results) == list(TURN), results
    assert all(not result.get("failed") and result.get("done", True) for result in results.values()), results
    assert results["switch"]["restarted"]
    assert (results["switch"]["boot_id_before"], results["switch"]["boot_id"]) == ("b0", "b1")
    assert results["verify"]["passed"] == ["worker", "probe"]
    assert world.model.drain is None
    assert world.record()["rollout"]["outcome"] == "updated"


def test_it_stops_at_what_failed_and_then_goes_back(world: World) -> None:
    world.model.probe = {"outcome": "failed", "elapsed_s": 0.1,
                         "error": {"code": "ERROR_X", "class": "worker", "message": "no"}}
    forth = world.run(*TURN)
    assert list(forth) == ["drain", "switch", "verify"]
    assert forth["verify"]["failure"]["code"] == "probe_failed"
    assert forth["verify"]["failure"]["cause"] == "release"
    assert forth["verify"]["msg"].startswith("Checking worker 'w1': its probe failed once")
    back = world.run(*BACK, before=trimmed(forth))
    assert list(back) == list(BACK), back
    assert back["revert_resume"]["done"]
    assert back["revert_verify"]["worker"]["instance"]["release"] == "1.2.0-old"
    assert world.model.boot() == 2


def test_a_probe_that_answers_nonsense_is_the_releases_failure_and_no_lost_host(world: World) -> None:
    """Met: `float("fast")` ended the module, and the worker was left drained on the bad release as unreachable."""
    for nonsense in ({"elapsed_s": "fast"}, {"elapsed_s": float("nan")}, {"error": "none"}, {"boot_id": 7},
                     {"error": {"class": ["worker"]}}):
        world.model.probe = {"outcome": "succeeded", "elapsed_s": 0.1, "error": None, **nonsense}
        result = world.run("verify", verify={"expect_version": "1.2.0"})["verify"]
        assert result["failed"]
        assert (result["failure"]["code"], result["failure"]["cause"]) == ("foreign", "release"), nonsense


def test_a_crash_in_one_step_is_that_steps_failure(world: World, monkeypatch: Any) -> None:
    kind = _job_steps.KINDS["solve_check"]

    class Crashing(kind.job):  # type: ignore[name-defined, misc]
        def work(self) -> None:
            raise KeyError("instance")

    monkeypatch.setitem(_job_steps.KINDS, "solve_check", kind._replace(job=Crashing))
    whole = world.job(*TURN).run()
    assert not whole.get("failed")
    assert list(whole["done_steps"]) == ["drain", "switch", "verify"]
    crashed = whole["done_steps"]["verify"]
    assert crashed["failed"]
    assert crashed["msg"] == "Checking: KeyError: 'instance'; please report it"
    assert (crashed["failure"]["code"], crashed["failure"]["cause"]) == ("crashed", "unknown")
    assert crashed["failure"]["details"]["traceback"]
    assert whole["done_steps"]["switch"]["switched"]


def test_what_is_not_done_stops_it_and_the_next_call_goes_on(world: World) -> None:
    world.model.open = 2
    first = world.run(*TURN, slice_s=0.5)
    assert list(first) == ["drain"]
    assert first["drain"]["done"] is False
    world.model.open = 0
    assert list(world.run(*TURN, before=trimmed(first))) == list(TURN)
    assert [method for method, _path, _body in world.model.asked].count("DELETE") == 1


def test_a_later_call_knows_what_earlier_ones_found(world: World) -> None:
    first = world.run("drain", "switch")
    verify = {"expect_boot_id_not": None}
    assert world.run("verify", before=trimmed(first), verify=verify)["verify"]["done"]
    # and goes by it: the process that was replaced is not the new one
    stale = trimmed({**first, "switch": {**first["switch"], "boot_id_before": "b1"}})
    result = world.run("verify", before=stale, verify={"wait_slice": 0.2})["verify"]
    assert result["pending"] == "the process from before the restart still answers"


def test_what_may_fail_does_not_stop_it(world: World) -> None:
    world.model.open = 1
    results = world.run("revert_drain", "revert", revert_drain={"owner": "another"})
    assert not results["revert_drain"].get("failed")
    world.model.drain = {"owner": "somebody", "mode": "complete", "lease_expires_at": "2099-01-01T00:00:00Z"}
    results = world.run("revert_drain", "revert", revert={"release": "1.3.0-new"})
    assert results["revert_drain"]["failure"]["code"] == "foreign_drain"
    assert results["revert"]["failure"]["cause"] == "drain"


def test_each_step_gets_what_is_left_of_the_slice(world: World, clock: Any, monkeypatch: Any) -> None:
    seen = []

    class Watched(_job_steps.Job):
        def work(self) -> None:
            seen.append(self.params["wait_slice"])
            clock.time += 10

        def finish(self) -> Any:
            return {"done": True}

    for name in ("worker_drain", "solve_check"):
        monkeypatch.setitem(_job_steps.KINDS, name, _job_steps.KINDS[name]._replace(job=Watched))
    job = world.job("drain", "verify", "soak", "revert_verify", "resume", "revert_drain", soak={"wait_slice": 2})
    job.clock = clock
    job.run()
    # the rest, the step's own wish, never nothing; to resume fails where it may not wait, and what goes on is not
    # asked again
    assert seen == [25.0, 15.0, 2.0, 1.0, 25.0, 25.0]


def test_check_mode_touches_nothing(world: World) -> None:
    results = world.run(*TURN, check_mode=True)
    assert list(results) == list(TURN)
    assert results["switch"]["changed"]
    assert {method for method, _path, _body in world.model.asked} == {"GET"}
    assert world.model.boot() == 0
    assert world.record()["rollout"]["outcome"] is None


@pytest.mark.parametrize(("changes", "message"), [
    ({"verify": {"deadlin": 3}}, r"reading the step verify: deadlin\. Supported parameters include"),
    ({"switch": {"state": "staged", "config": "x"}}, "reading the step switch: its state must be one of active, stan"),
    ({"switch": {"owner": None}}, "reading the step switch: state is active but all of the following are missing"),
    ({"drain": {"timeout": "soon"}}, "reading the step drain: .*timeout"),
])
def test_wrong_options_run_no_step(world: World, changes: Any, message: str) -> None:
    result = world.job(*TURN, **changes).run()
    assert result["failed"]
    assert result["done_steps"] == {}
    assert result["failure"]["code"] == "bad_option"
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(result["msg"])
    assert world.model.asked == []


@pytest.mark.parametrize("slice_s", [float("nan"), float("inf"), -1.0, 26.0])
def test_a_slice_has_bounds(world: World, slice_s: float) -> None:
    assert world.job("drain", slice_s=slice_s).run()["msg"] == "slice must be from 0 to 25 seconds"


def test_two_steps_of_one_name_would_hide_each_other(world: World) -> None:
    assert "two of them have the same name" in world.job("drain", "drain").run()["msg"]


def test_a_fenced_run_does_nothing(world: World) -> None:
    results = world.run(*TURN, drain={"run_id": "run0"})
    assert list(results) == ["drain"]
    assert (results["drain"]["failure"]["code"], results["drain"]["failure"]["cause"]) == ("fenced", "unknown")


def test_a_key_is_told_to_the_module(world: World) -> None:
    (world.folder / "key").write_text("sesame-of-the-provider")
    args = {"checks": ["balance"], "api_key_file": str(world.folder / "key"), "provider_url": "http://127.0.0.1:1"}
    result = world.run("soak", soak=args)["soak"]
    assert result["failure"]["code"] == "provider_unreachable"
    assert result["failure"]["cause"] == "unknown"
    assert world.hidden == ["sesame-of-the-provider"]
    assert "sesame" not in json.dumps(result)
