# SPDX-License-Identifier: GPL-3.0-or-later
"""solve_check: its judgements, and its flow with a clock that the tests turn."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from ansible_collections.solver.fleet.plugins.module_utils._check import (
    CheckError,
    CheckFlow,
    CheckOptions,
    ServiceView,
    form_fields,
    judge,
    option_defect,
    probe_request_id,
    totals_defect,
    unsettled,
)
from ansible_collections.solver.fleet.plugins.module_utils._client import ApiProblem, DeadSocket, Hung, NoSocket
from ansible_collections.solver.fleet.plugins.module_utils._service_base import ServiceState
from hypothesis import given
from hypothesis import strategies as st

SINCE = {"host_boot_id": "h", "uptime_s": 100.0}


class Seen(NamedTuple):
    state: str
    pid: int | None
    detail: str


class ScriptedWorker:
    """Statuses in turn (the last one stays), probes in turn; a probe with a known id answers again."""

    socket_path = "/run/w1.sock"
    timeout = 5.0

    def __init__(self, clock: Any, statuses: list[Any], probes: list[Any]) -> None:
        self.clock = clock
        self.statuses = statuses
        self.probes = probes
        self.known: dict[str, Any] = {}
        self.bodies: list[dict[str, Any]] = []

    def status(self, wait: float = 0, until: Any = ()) -> Any:
        document = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if isinstance(document, Exception):
            raise document
        if wait and document["state"] not in until:
            self.clock.time += wait
        return document

    def probe(self, body: dict[str, Any], timeout: float | None = None) -> Any:
        self.bodies.append(body)
        request_id = body["request_id"]
        if request_id not in self.known:
            step = self.probes.pop(0)
            if isinstance(step, Exception):
                self.clock.time += timeout if isinstance(step, Hung) and timeout else 0
                raise step
            self.clock.time += step["elapsed_s"]
            self.known[request_id] = step
        return dict(self.known[request_id])


def probe(code: str | None = None, fault: str = "provider", **changes: Any) -> dict[str, Any]:
    error = {"code": code, "class": fault, "message": "in.php refused the task"} if code else None
    return {
        "outcome": "failed" if code else "succeeded",
        "elapsed_s": 2.0,
        "error": error,
        "version": "1.2.0",
        "boot_id": "boot-1",
        **changes,
    }


def flow(worker: ScriptedWorker, service: ServiceView | None = None, **options: Any) -> CheckFlow:
    options.setdefault("request_id", "r")
    machine = {"host_boot_id": "h", "uptime_s": 100.0 + worker.clock.now() - 1000.0}
    return CheckFlow(
        worker,  # type: ignore[arg-type]
        CheckOptions(**options),
        service=service,
        clock=worker.clock,
        wall=lambda: 1767225600.0 + worker.clock.now() - 1000.0,  # 2026-01-01T00:00:00Z
        machine=lambda: machine,
    )


def failing(one: CheckFlow) -> CheckError:
    with pytest.raises(CheckError) as caught:
        one.run()
    return caught.value


def test_a_good_worker_passes(clock: Any, tools: Any) -> None:
    one = flow(ScriptedWorker(clock, [tools.status()], [probe()]), expect_version="1.2.0", expect_boot_id="boot-1")
    assert one.run() is True
    assert (one.result["passed"], one.result["attempts"]) == (["worker", "probe"], 1)


def test_it_waits_for_the_new_process(clock: Any, tools: Any) -> None:
    old = tools.status(instance={**tools.status()["instance"], "boot_id": "boot-0"})
    statuses = [
        old,
        NoSocket("none"),
        Hung("silent"),
        tools.status("starting"),
        tools.status("recovering"),
        tools.status("drained"),
    ]
    one = flow(ScriptedWorker(clock, statuses, []), checks=["worker"], expect_boot_id_not="boot-0")
    assert one.run() is True


def test_a_slice_that_ends_is_no_failure(clock: Any, tools: Any) -> None:
    one = flow(ScriptedWorker(clock, [NoSocket("none")], []), wait_slice=3)
    assert one.run() is False
    assert one.result["pending"] == "none"
    assert clock.now() == pytest.approx(1003)


def test_the_deadline_counts_over_all_calls(clock: Any, tools: Any) -> None:
    worker = ScriptedWorker(clock, [NoSocket("none")], [])
    for _call in range(4):
        assert flow(worker, since=SINCE, deadline=110).run() is False
    error = failing(flow(worker, since=SINCE, deadline=110))
    assert (error.code, error.details["finding"]) == ("deadline", "stopped")
    assert "it is not ready after 110 s: none (deadline, solver_healthy_deadline)" in error.message


@pytest.mark.parametrize("state", ["stopped", "failed", "restarting"])
def test_a_process_that_exits_fails_at_once_with_its_log(clock: Any, state: str) -> None:
    view = ServiceView(lambda: Seen(state, None, "exit 3"), lambda: ["boom"])
    error = failing(flow(ScriptedWorker(clock, [NoSocket("none")], []), service=view))
    assert (error.code, error.details["log"], error.details["fault"]) == ("worker_exited", ["boom"], "worker")
    assert clock.now() == 1000.0


def test_a_service_that_starts_again_and_again_is_noticed(clock: Any) -> None:
    pids = iter([5, 5, 6])
    view = ServiceView(lambda: Seen("starting", next(pids), ""), list)
    error = failing(flow(ScriptedWorker(clock, [NoSocket("none")], []), service=view))
    assert error.message.startswith("its process 5 ended, and 6 was started")


@pytest.mark.parametrize(("restarts", "old", "fails"), [(1, "boot-0", True), (0, "boot-0", False), (3, None, False)])
def test_a_process_that_the_manager_replaced_since_its_switch_fails(
    clock: Any, tools: Any, restarts: int, old: str | None, fails: bool,
) -> None:
    """Between the switch and the first look, or between two calls, nobody saw it end; systemd counted it."""
    view = ServiceView(lambda: ServiceState("running", 7, "", restarts), list)
    worker = ScriptedWorker(clock, [tools.status("drained")], [])
    one = flow(worker, service=view, checks=["worker"], expect_boot_id_not=old)
    if not fails:
        assert one.run() is True
        return
    error = failing(one)
    assert error.code == "worker_exited"
    assert error.message.startswith("its process ended, and the service was started again once since its switch")


@pytest.mark.parametrize("gone", [NoSocket("none"), DeadSocket("left")])
def test_a_process_that_answered_and_is_gone_fails_at_once(clock: Any, tools: Any, gone: Exception) -> None:
    error = failing(flow(ScriptedWorker(clock, [tools.status("recovering"), gone], [])))
    assert error.code == "worker_exited"
    assert clock.now() < 1001


def test_a_process_that_is_replaced_fails_at_once(clock: Any, tools: Any) -> None:
    other = tools.status("starting", instance={**tools.status()["instance"], "boot_id": "boot-2"})
    error = failing(flow(ScriptedWorker(clock, [tools.status("starting"), other], [])))
    assert error.code == "worker_exited"


def test_a_process_that_dies_after_its_probe_does_not_pass(clock: Any, tools: Any) -> None:
    worker = ScriptedWorker(clock, [tools.status(), NoSocket("none")], [probe()])
    assert failing(flow(worker)).code == "worker_exited"


@pytest.mark.parametrize("fault", ["worker", "account", "provider", "task", "network"])
def test_a_failed_probe_says_whose_fault_it_is(clock: Any, tools: Any, fault: str) -> None:
    worker = ScriptedWorker(clock, [tools.status()], [probe("E1", fault), probe("E2", fault), probe("E3", fault)])
    error = failing(flow(worker))
    assert (error.code, error.details["fault"], error.details["attempts"]) == ("probe_failed", fault, 3)
    assert error.message.startswith("its probe failed 3 times, the last with E3 (in.php refused the task); the fault")
    assert len({body["request_id"] for body in worker.bodies}) == 3


def test_a_later_call_walks_over_recorded_failures_without_a_bill(clock: Any, tools: Any) -> None:
    worker = ScriptedWorker(clock, [tools.status()], [probe("E1"), probe("E2"), probe()])
    worker.probes.insert(2, Hung("slow"))
    assert flow(worker, interval=5).run() is False
    before = clock.now()
    assert flow(worker, interval=5).run() is True
    assert clock.now() - before < 3
    assert worker.probes == []


def test_without_a_request_id_one_call_waits_to_the_end(clock: Any, tools: Any) -> None:
    worker = ScriptedWorker(clock, [tools.status()], [probe("E1", elapsed_s=40.0), probe(elapsed_s=40.0)])
    assert flow(worker, request_id=None, wait_slice=5).run() is True


def test_another_probe_is_waited_for(clock: Any, tools: Any) -> None:
    busy = ApiProblem(409, {"code": "probe_running"})
    assert flow(ScriptedWorker(clock, [tools.status()], [busy, busy, probe()])).run() is True


def test_a_refused_probe_task_is_the_tasks_fault(clock: Any, tools: Any) -> None:
    worker = ScriptedWorker(clock, [tools.status()], [ApiProblem(400, {"code": "bad_field", "detail": "no method"})])
    error = failing(flow(worker))
    assert (error.code, error.details["fault"]) == ("probe_refused", "task")


def test_a_probe_of_another_process_proves_nothing(clock: Any, tools: Any) -> None:
    assert failing(flow(ScriptedWorker(clock, [tools.status()], [probe(boot_id="boot-9")]))).code == "worker_exited"


def test_a_soak_watches_the_worker(clock: Any, tools: Any) -> None:
    worker = ScriptedWorker(clock, [tools.status()], [])
    assert flow(worker, checks=["worker"], soak=30).run() is False
    assert flow(worker, checks=["worker"], soak=30).run() is True
    assert clock.now() == pytest.approx(1030, abs=1)
    worker.statuses = [tools.status(), tools.status("failed", failure={"code": "x", "message": "disk full"})]
    assert failing(flow(worker, checks=["worker"], soak=90)).code == "worker_failed"


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_a_soak_since_a_reading_of_the_host_minds_no_stepped_clock(clock: Any, tools: Any, step: float) -> None:
    worker = ScriptedWorker(clock, [tools.status()], [])

    def call() -> bool:
        check = flow(worker, checks=["worker"], soak=30, soak_since={"host_boot_id": "h", "uptime_s": 100.0})
        wall = check.wall
        check.wall = lambda: wall() + step
        return check.run()

    assert call() is False
    assert call() is True
    assert clock.now() == pytest.approx(1030, abs=1)


@pytest.mark.parametrize(
    ("options", "changes", "code"),
    [
        ({"expect_version": "9"}, {}, "wrong_version"),
        ({"expect_release": "9"}, {}, "wrong_release"),
        ({"expect_journal_id": "9"}, {}, "wrong_journal"),
        ({"expect_boot_id": "9"}, {}, "worker_exited"),
        ({"expect_state": ["drained"]}, {}, "unexpected_state"),
        ({}, {"state": "failed", "failure": {"code": "port", "message": "taken"}}, "worker_failed"),
        ({"totals_before": {"accepted": 1}}, {}, "totals_wrong"),
        ({}, {"tasks": {"open": 1}}, "totals_wrong"),
    ],
)
def test_what_is_wrong_with_a_worker(tools: Any, options: Any, changes: Any, code: str) -> None:
    error = judge(CheckOptions(**options), tools.status(**changes))
    assert error is not None
    assert (error.code, error.details["fault"]) == (code, "worker")


def test_states_that_pass_by_themselves(tools: Any) -> None:
    options = CheckOptions()
    assert [
        s
        for s in ("starting", "recovering", "running", "draining", "drained", "stopping", "failed")
        if unsettled(options, tools.status(s))
    ] == ["starting", "recovering", "draining", "stopping"]


COUNT = st.integers(0, 50)


@given(COUNT, COUNT, COUNT, COUNT, COUNT, st.integers(-3, 3))
def test_books_add_up_exactly(a: int, b: int, c: int, d: int, is_open: int, error: int) -> None:
    totals = {"accepted": a + b + c + d + is_open + error, "succeeded": a, "failed": b, "uncertain": c, "expired": d}
    document = {"totals": totals, "tasks": {"open": is_open}}
    assert (totals_defect(None, document) is None) is (error == 0)
    assert (totals_defect({"succeeded": a + 1}, document) is None) is False
    if error == 0:
        assert totals_defect(totals, document) is None


@given(st.text(max_size=300), st.integers(0, 9), st.integers(0, 9))
def test_probe_ids_are_stable_and_apart(base: str, one: int, other: int) -> None:
    first = probe_request_id(base, "b", SINCE, one)
    assert first == probe_request_id(base, "b", dict(SINCE), one)
    assert (first == probe_request_id(base, "b", SINCE, other)) is (one == other)
    assert first != probe_request_id(base, "b2", SINCE, one)
    assert first != probe_request_id(base, "b", None, one)
    assert len(first) <= 200


def test_a_task_in_yaml_becomes_text() -> None:
    assert form_fields({"method": "post", "numeric": 1, "phrase": True}) == {
        "method": "post",
        "numeric": "1",
        "phrase": "1",
    }


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("checks", []),
        ("wait_slice", 30),
        ("deadline", 0),
        ("probe_timeout", 0),
        ("retries", 0),
        ("interval", -1),
        ("soak", -1),
    ],
)
def test_bad_options_are_named(option: str, value: Any) -> None:
    assert str(option_defect(CheckOptions(**{option: value}))).startswith(option)


def test_a_provider_that_never_ends_is_not_the_workers_fault_though_the_deadline_comes_first(
    clock: Any, tools: Any
) -> None:
    """The defaults: three tries of 90 s and two pauses do not fit into 300 s with a restart before them."""
    worker = ScriptedWorker(clock, [tools.status()], [])
    worker.probes = [probe("TIMEOUT", elapsed_s=90.0), probe("TIMEOUT", elapsed_s=90.0), Hung("slow")]
    # 20 s went by before this call
    error = failing(flow(worker, since={"host_boot_id": "h", "uptime_s": 80.0}, request_id=None, deadline=215))
    assert (error.code, error.details["checking"], error.details["fault"]) == ("deadline", "probe", "provider")
    assert error.details["errors"] == [{"code": "TIMEOUT", "class": "provider"}] * 2


def test_each_failed_try_is_told(clock: Any, tools: Any) -> None:
    worker = ScriptedWorker(clock, [tools.status()], [probe("E1", "worker"), probe("E2", "account")])
    assert failing(flow(worker, retries=2)).details["errors"] == [
        {"code": "E1", "class": "worker"},
        {"code": "E2", "class": "account"},
    ]


def test_a_deadline_before_the_probe_is_the_workers(clock: Any, tools: Any) -> None:
    error = failing(flow(ScriptedWorker(clock, [tools.status("starting")], []), request_id=None, deadline=9))
    assert (error.code, error.details["fault"]) == ("deadline", "worker")
    assert "checking" not in error.details
