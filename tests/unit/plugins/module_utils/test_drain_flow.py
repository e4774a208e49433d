# SPDX-License-Identifier: GPL-3.0-or-later
"""worker_drain against a model of a worker, with a clock that the tests turn."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.module_utils._client import (
    ApiProblem,
    BrokenOff,
    DeadSocket,
    Hung,
    NoSocket,
    WorkerError,
)
from ansible_collections.solver.fleet.plugins.module_utils._drain import (
    DrainFlow,
    DrainOptions,
    drain_body,
    elapsed_of,
    option_defect,
    parse_time,
    slow_solves_warning,
)
from ansible_collections.solver.fleet.plugins.module_utils._drain_clock import DrainClock
from hypothesis import given
from hypothesis import strategies as st

EPOCH = 1_700_000_000.0


def rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class ModelWorker:
    """Keeps the rules of the drain; its open tasks end at a time, its process may be away for a while."""

    socket_path = "/run/w1.sock"
    timeout = 5.0

    def __init__(self, clock: Any, make_status: Any) -> None:
        self.clock = clock
        self.make_status = make_status
        self.drain: dict[str, Any] | None = None
        self.open = 3
        self.solved_at = clock.now() + 40
        self.away: list[tuple[float, float, WorkerError]] = []
        self.sent: list[tuple[str, Any]] = []
        self.changes: dict[str, Any] = {}
        self.put_errors: list[Exception] = []

    def wall(self) -> float:
        return EPOCH + float(self.clock.now())

    def _answer(self) -> dict[str, Any]:
        for begin, end, error in self.away:
            if begin <= self.clock.now() < end:
                raise error
        left = 0 if self.clock.now() >= self.solved_at else self.open
        free = self.drain is not None and (left == 0 or self.drain["mode"] == "handover")
        state = "running" if self.drain is None else "drained" if free else "draining"
        tasks = {"open": left, "accepted": 0, "submitting": 0, "polling": left, "unfetched": 0, "oldest_age_s": 1.0}
        totals = {"accepted": 9, "succeeded": 9 - left, "failed": 0, "uncertain": 0, "expired": 0}
        document = self.make_status(state, tasks=tasks, totals=totals, drain=self.drain, safe_to_stop=free)
        return dict(document, **self.changes)

    def status(self, wait: float = 0, until: Any = ()) -> dict[str, Any]:
        end = self.clock.now() + wait
        while True:
            document = self._answer()
            if self.clock.now() >= end or document["state"] in until:
                return document
            self.clock.time += min(1.0, end - self.clock.now())

    def put_drain(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self._answer()
        self.sent.append(("PUT", body))
        if self.put_errors:
            raise self.put_errors[0]
        current = self.drain
        if current and current["owner"] != body["owner"] and not body.get("steal"):
            raise ApiProblem(
                409,
                {
                    "code": "drained_by_another",
                    **{k: current[k] for k in ("owner", "reason")},
                    "lease_expires_at": current["lease_expires_at"],
                },
            )
        ours = current is not None and current["owner"] == body["owner"]
        fresh = {
            "mode": "complete",
            "reason": "",
            "on_expire": "resume",
            "requested_at": rfc3339(self.wall()),
            "lease_expires_at": rfc3339(self.wall() + body["lease_s"]),
            "expired": False,
        }
        base = current if ours and current else fresh
        self.drain = {**base, **{k: v for k, v in body.items() if k != "steal"}}
        return 200 if ours else 202, self._answer()

    def delete_drain(self, owner: str, steal: bool = False) -> tuple[int, dict[str, Any] | None]:
        self._answer()
        self.sent.append(("DELETE", owner))
        if self.drain is None:
            return 204, None
        if self.drain["owner"] != owner and not steal:
            raise ApiProblem(409, {"code": "drained_by_another", "owner": self.drain["owner"]})
        self.drain = None
        return 200, self._answer()


@pytest.fixture
def worker(clock: Any, tools: Any) -> ModelWorker:
    return ModelWorker(clock, tools.status)


def flow(worker: ModelWorker, check_mode: bool = False, **options: Any) -> DrainFlow:
    return DrainFlow(
        worker,  # type: ignore[arg-type]
        DrainOptions(**{"owner": "me", **options}),
        check_mode=check_mode,
        clock=worker.clock,
        wall=worker.wall,
    )


def drained(worker: ModelWorker, **options: Any) -> dict[str, Any]:
    one = flow(worker, **options)
    one.drain()
    return one.finish()


def other_drain(worker: ModelWorker, owner: str = "other") -> None:
    worker.put_drain({"owner": owner, "reason": "repair", "lease_s": 900})
    worker.sent.clear()


def test_calls_go_on_with_one_drain(worker: ModelWorker) -> None:
    first = drained(worker)
    assert (first["done"], first["changed"], first["began"], first["open_at_drain"]) == (False, True, True, 3)
    assert first["elapsed_s"] == pytest.approx(25, abs=0.5)
    assert first["remaining"]["open"] == 3
    second = drained(worker)
    assert (second["done"], second["changed"], second["began"], second["open_at_drain"]) == (True, False, False, None)
    assert second["elapsed_s"] == pytest.approx(40, abs=1.5)
    assert second["worker"]["safe_to_stop"] is True
    assert worker.sent[1] == ("PUT", {"owner": "me", "lease_s": 900.0})


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
def test_a_stepped_wall_clock_makes_no_drain_late_or_endless(worker: ModelWorker, tmp_path: Any, step: float) -> None:
    def steady() -> dict[str, Any]:
        return {"host_boot_id": "b", "uptime_s": 500.0 + float(worker.clock.now())}

    def call(wall: Any) -> dict[str, Any]:
        one = DrainFlow(worker, DrainOptions(owner="me", timeout=60.0),  # type: ignore[arg-type]
                        clock=worker.clock, wall=wall, began=DrainClock(str(tmp_path), steady))
        one.drain()
        return one.finish()

    assert not call(worker.wall)["done"]
    second = call(lambda: worker.wall() + step)
    assert second["done"]
    assert second["elapsed_s"] == pytest.approx(40, abs=1.5)


def test_the_note_is_of_one_drain_and_one_boot(tmp_path: Any) -> None:
    drain = {"owner": "me", "requested_at": "then"}
    clock = {"host_boot_id": "b", "uptime_s": 10.0}
    note = DrainClock(str(tmp_path), lambda: dict(clock))
    assert note.elapsed(drain) is None
    note.begin(drain)
    clock["uptime_s"] = 15.0
    assert note.elapsed(drain) == 5.0
    assert note.elapsed({**drain, "requested_at": "later"}) is None
    assert note.elapsed({**drain, "owner": "you"}) is None
    clock["host_boot_id"] = "c"
    assert note.elapsed(drain) is None
    assert DrainClock(None).elapsed(drain) is None


def test_a_run_has_its_own_time_for_the_drain_that_a_dead_one_left(worker: ModelWorker, tmp_path: Any) -> None:
    """Met: the next run was late at once, while a probe of the dead one kept the worker from being safe to stop."""

    def steady() -> dict[str, Any]:
        return {"host_boot_id": "b", "uptime_s": 500.0 + float(worker.clock.now())}

    def call(run_id: str, check_mode: bool = False) -> dict[str, Any]:
        one = DrainFlow(worker, DrainOptions(owner="me", timeout=60.0), check_mode=check_mode,  # type: ignore[arg-type]
                        clock=worker.clock, wall=worker.wall, began=DrainClock(str(tmp_path), steady, run_id))
        one.drain()
        return one.finish()

    call("run1")
    worker.clock.time += 100
    worker.solved_at = worker.clock.now() + 40
    call("run2", check_mode=True)
    assert not call("run2")["done"]
    second = call("run2")
    assert second["done"]
    assert second["elapsed_s"] == pytest.approx(40, abs=1.5)


def test_a_new_drain_asks_for_everything(worker: ModelWorker) -> None:
    drained(worker, reason="update", grace=2, timeout=60, lease=300, wait_slice=0)
    assert worker.sent == [
        (
            "PUT",
            {
                "owner": "me",
                "lease_s": 300,
                "reason": "update",
                "mode": "complete",
                "grace_s": 2,
                "deadline_s": 60,
                "on_deadline": "wait",
                "on_expire": "resume",
            },
        )
    ]


def test_a_repeated_call_never_weakens_what_happens_at_expiry(worker: ModelWorker) -> None:
    drained(worker, wait_slice=0)
    assert worker.drain is not None
    worker.drain["on_expire"] = "verify"
    drained(worker, wait_slice=0)
    assert worker.drain["on_expire"] == "verify"
    assert drained(worker, wait_slice=0, on_expire="hold")["changed"] is True
    assert worker.drain["on_expire"] == "hold"


def test_a_missed_deadline_fails_and_returns_the_worker(worker: ModelWorker) -> None:
    worker.solved_at = worker.clock.now() + 10_000
    for _call in range(3):
        assert drained(worker, timeout=100)["done"] is False
    one = flow(worker, timeout=100)
    with pytest.raises(WorkerError) as caught:
        one.drain()
    assert caught.value.code == "drain_timeout"
    assert caught.value.message == (
        "3 tasks were still open after 100 s; it serves again; raise timeout (solver_drain_timeout),"
        " or let on_timeout=handover (solver_on_drain_timeout) pass them to the next process"
    )
    assert caught.value.details["remaining"]["open"] == 3
    result = one.finish()
    assert (result["gave_back"], result["done"], result["remaining"]["open"]) == (True, False, 3)
    assert worker.drain is None


@pytest.mark.parametrize("on_expire", [None, "hold"])
def test_what_is_to_be_held_is_not_given_back_where_the_drain_fails(
    worker: ModelWorker, monkeypatch: pytest.MonkeyPatch, on_expire: str | None,
) -> None:
    one = flow(worker, on_expire=on_expire)

    def fails() -> None:
        raise WorkerError("hung", "it says nothing")

    monkeypatch.setattr(one, "_await_drained", fails)
    with pytest.raises(WorkerError):
        one.drain()
    assert (worker.drain is not None) == (on_expire == "hold")


def test_a_missed_deadline_does_not_return_what_is_to_be_held(worker: ModelWorker) -> None:
    worker.solved_at = worker.clock.now() + 10_000
    for _call in range(3):
        assert drained(worker, timeout=100, on_expire="hold")["done"] is False
    one = flow(worker, timeout=100, on_expire="hold")
    with pytest.raises(WorkerError, match="it was not given back") as caught:
        one.drain()
    assert caught.value.code == "drain_timeout"
    assert (one.finish()["gave_back"], worker.drain is None) == (False, False)


def test_a_missed_deadline_hands_over(worker: ModelWorker) -> None:
    worker.solved_at = worker.clock.now() + 10_000
    result = drained(worker, timeout=10, on_timeout="handover")
    assert (result["done"], result["fallback"], result["changed"]) == (True, True, True)
    assert result["drain"]["mode"] == "handover"
    again = drained(worker, timeout=10, on_timeout="handover")
    assert (again["done"], again["fallback"], again["changed"]) == (True, True, False)


def test_a_missed_deadline_is_forced_only_with_open_eyes(worker: ModelWorker) -> None:
    worker.solved_at = worker.clock.now() + 10_000
    result = drained(worker, timeout=10, on_timeout="force", accept_loss=True)
    assert (result["done"], result["forced"], result["remaining"]["open"]) == (True, True, 3)
    assert option_defect(DrainOptions("me", on_timeout="force")) == (
        "on_timeout=force drops what is still open: set accept_loss=true (solver_accept_loss) to accept that"
    )


def test_a_foreign_drain_is_refused_with_its_holder(worker: ModelWorker) -> None:
    other_drain(worker)
    with pytest.raises(
        WorkerError, match=r"it is drained by 'other' \(repair\) until .*Z; .* resume\.yml \(solver_resume_foreign"
    ) as caught:
        drained(worker)
    assert caught.value.code == "foreign_drain"
    assert caught.value.details["owner"] == "other"
    assert worker.sent == []


def test_a_foreign_drain_that_comes_first_is_refused_too(worker: ModelWorker) -> None:
    holder = {"code": "drained_by_another", "owner": "other", "reason": "", "lease_expires_at": "soon"}
    worker.put_errors = [ApiProblem(409, holder)]
    with pytest.raises(WorkerError, match="it is drained by 'other' until soon"):
        drained(worker)


def test_stealing_takes_the_drain_over(worker: ModelWorker) -> None:
    other_drain(worker)
    worker.open = 0
    result = drained(worker, steal=True)
    assert (result["done"], result["drain"]["owner"]) == (True, "me")
    assert worker.sent[0][1]["steal"] is True


def test_an_expired_foreign_drain_is_free(worker: ModelWorker) -> None:
    other_drain(worker)
    assert worker.drain is not None
    worker.drain["expired"] = True
    one = flow(worker)
    one.resume()
    assert one.finish()["done"] is True


@pytest.mark.parametrize("error", [NoSocket("gone"), DeadSocket("gone")])
def test_an_absent_worker_is_drained_by_nature_if_expected(worker: ModelWorker, error: WorkerError) -> None:
    worker.away = [(0, 1e9, error)]
    result = drained(worker, absent_ok=True)
    assert (result["done"], result["worker"], result["finding"]) == (True, None, error.code)
    with pytest.raises(type(error)):
        drained(worker)


def test_a_hung_worker_is_never_drained_by_nature(worker: ModelWorker) -> None:
    worker.away = [(0, 1e9, Hung("silent"))]
    with pytest.raises(Hung):
        drained(worker, absent_ok=True)


def test_a_hung_worker_is_given_up_where_the_loss_is_accepted(worker: ModelWorker) -> None:
    worker.away = [(0, 1e9, Hung("silent"))]
    result = drained(worker, hung_ok=True, accept_loss=True)
    assert (result["done"], result["forced"], result["finding"]) == (True, True, "hung")


@pytest.mark.parametrize("error", [NoSocket("gone"), DeadSocket("gone")])
def test_to_give_up_what_hangs_is_not_to_expect_that_nothing_is_there(
    worker: ModelWorker, error: WorkerError
) -> None:
    worker.away = [(0, 1e9, error)]
    with pytest.raises(type(error)):
        drained(worker, hung_ok=True, accept_loss=True)


def test_a_worker_that_only_seems_to_hang_is_drained_like_any_other(worker: ModelWorker) -> None:
    worker.solved_at = worker.clock.now()
    result = drained(worker, hung_ok=True, accept_loss=True)
    assert (result["done"], result["forced"], result["finding"]) == (True, False, "answering")


@pytest.mark.parametrize("state", ["starting", "stopping"])
def test_what_never_comes_up_or_goes_down_is_given_up_after_the_call(worker: ModelWorker, state: str) -> None:
    worker.changes = {"state": state}
    result = drained(worker, hung_ok=True, accept_loss=True)
    assert (result["done"], result["forced"], worker.sent) == (True, True, [])


def test_a_process_is_given_up_only_with_its_loss(worker: ModelWorker) -> None:
    assert "set accept_loss=true" in str(option_defect(DrainOptions("me", hung_ok=True)))


def test_a_worker_that_crashes_and_comes_back_is_waited_for(worker: ModelWorker) -> None:
    begin = worker.clock.now()
    worker.away = [(begin + 5, begin + 9, DeadSocket("gone"))]
    worker.solved_at = begin + 12
    assert drained(worker)["done"] is True


def test_a_worker_that_stays_away_fails_the_drain(worker: ModelWorker) -> None:
    begin = worker.clock.now()
    worker.away = [(begin + 5, 1e9, DeadSocket("gone"))]
    one = flow(worker)
    with pytest.raises(DeadSocket):
        one.drain()
    assert worker.clock.now() - begin < 20
    assert (one.finish()["finding"], one.finish()["gave_back"]) == ("dead", False)


def test_a_lost_drain_is_noticed(worker: ModelWorker) -> None:
    drained(worker, wait_slice=0)
    worker.changes = {"drain": None, "state": "running"}
    worker.drain = None
    one = flow(worker)
    one.client.put_drain = lambda body: (200, worker._answer())  # type: ignore[method-assign]
    with pytest.raises(WorkerError) as caught:
        one.drain()
    assert caught.value.code == "drain_lost"


def test_a_failure_gives_back_what_the_call_took(worker: ModelWorker) -> None:
    one = flow(worker)
    real = worker.put_drain

    def put_then_fail(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        code, status = real(body)
        worker.changes = {"state": "failed", "failure": {"code": "journal", "message": "disk full"}}
        return code, dict(status, **worker.changes)

    worker.put_drain = put_then_fail  # type: ignore[method-assign]
    with pytest.raises(WorkerError, match="it has failed: disk full"):
        one.drain()
    assert worker.drain is None
    assert (one.finish()["gave_back"], one.finish()["changed"]) == (True, False)


def test_a_drain_that_a_worker_heard_and_did_not_answer_in_time_is_given_back(worker: ModelWorker) -> None:
    """Its disk stalls: else it would be out of service for a whole lease, and nobody would know of a drain."""
    one, real = flow(worker), worker.put_drain

    def hear(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        real(body)
        raise Hung("no answer within 5 s")

    worker.put_drain = hear  # type: ignore[method-assign]
    with pytest.raises(WorkerError, match="no answer within 5 s"):
        one.drain()
    assert worker.drain is None
    assert one.finish()["gave_back"] is True


@pytest.mark.parametrize("error", [NoSocket("gone"), DeadSocket("gone"), BrokenOff("cut"), Hung("silent")])
@pytest.mark.parametrize("when", ["before the first look", "while it is asked"])
def test_a_worker_that_dies_while_it_is_put_back_is_waited_for(
    worker: ModelWorker, error: WorkerError, when: str,
) -> None:
    """Its service starts it again, and its drain has outlived it."""
    drained(worker, wait_slice=0)
    begin = worker.clock.now()
    real = worker.delete_drain

    def die(owner: str, steal: bool = False) -> Any:
        if worker.clock.now() < begin + 3:
            worker.away = [(0, begin + 4, error)]
            raise error
        return real(owner, steal)

    if when == "before the first look":
        worker.away = [(0, begin + 3, error)]
    else:
        worker.delete_drain = die  # type: ignore[method-assign]
    one = flow(worker)
    one.resume()
    result = one.finish()
    assert (result["done"], result["changed"], result["finding"]) == (True, True, "answering")
    assert worker.drain is None


def test_a_worker_that_stays_away_cannot_be_put_back(worker: ModelWorker) -> None:
    drained(worker, wait_slice=0)
    begin = worker.clock.now()
    worker.away = [(0, 1e9, DeadSocket("gone"))]
    one = flow(worker)
    with pytest.raises(DeadSocket):
        one.resume()
    assert worker.clock.now() - begin < 12
    assert one.finish()["finding"] == "dead"


@pytest.mark.parametrize("state", ["drained", "active"])
def test_check_mode_sends_no_change(worker: ModelWorker, state: str) -> None:
    if state == "active":
        drained(worker, wait_slice=0)
        worker.sent.clear()
    one = flow(worker, check_mode=True)
    (one.resume if state == "active" else one.drain)()
    result = one.finish()
    assert (result["changed"], result["done"], worker.sent) == (True, True, [])
    assert result["diff"]["after"]["state"] == ("running" if state == "active" else "drained")
    assert result["diff"]["before"] != result["diff"]["after"]


def test_check_mode_refuses_a_foreign_drain(worker: ModelWorker) -> None:
    other_drain(worker)
    with pytest.raises(WorkerError, match="it is drained by 'other'"):
        flow(worker, check_mode=True).drain()


def test_active_is_idempotent(worker: ModelWorker) -> None:
    drained(worker, wait_slice=0)
    for changed in (True, False):
        one = flow(worker)
        one.resume()
        assert (one.finish()["changed"], one.finish()["done"]) == (changed, True)
    assert [verb for verb, _what in worker.sent] == ["PUT", "DELETE"]


def test_active_reports_a_worker_that_stays_held(worker: ModelWorker) -> None:
    drained(worker, wait_slice=0)
    worker.changes = {"state": "drained"}
    with pytest.raises(WorkerError) as caught:
        flow(worker).resume()
    assert caught.value.code == "not_running"


def test_a_missing_feature_is_refused_before_anything_is_touched(worker: ModelWorker) -> None:
    worker.changes = {"api": {"features": ["drain.lease", "drain.persist"]}}
    with pytest.raises(WorkerError, match=r"mode=handover needs the feature 'handover'.*set mode=complete"):
        drained(worker, mode="handover")
    assert worker.sent == []


def test_the_wait_never_outlasts_half_a_lease(worker: ModelWorker) -> None:
    worker.solved_at = worker.clock.now() + 10_000
    assert drained(worker, lease=10)["elapsed_s"] == pytest.approx(5, abs=0.5)


def test_a_slow_worker_is_warned_of(worker: ModelWorker) -> None:
    worker.changes = {"solve_times": {"count": 10, "p99_s": 100.0}}
    one = flow(worker, timeout=120, wait_slice=0)
    one.drain()
    assert one.warnings == [
        "99 % of this worker's solves end within 100 s; a drain timeout of 120 s leaves no margin, 130 s would"
        " (timeout, solver_drain_timeout)"
    ]
    again = flow(worker, timeout=120, wait_slice=0)
    again.drain()
    assert again.warnings == []


@pytest.mark.parametrize(
    ("timeout", "mode", "p99", "warned"),
    [
        (130, "complete", 100, False),
        (129.9, "complete", 100, True),
        (1, "handover", 100, False),
        (1, "complete", None, False),
    ],
)
def test_when_solves_are_too_slow(timeout: float, mode: str, p99: float | None, warned: bool) -> None:
    options = DrainOptions("me", timeout=timeout, mode=mode)
    assert (slow_solves_warning(options, {"solve_times": {"p99_s": p99}}) is not None) is warned


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("owner", " ", "owner"),
        ("wait_slice", 26, "wait_slice"),
        ("lease", 4, "lease"),
        ("grace", -1, "grace"),
        ("timeout", 0, "timeout"),
        ("timeout", float("nan"), "timeout"),
    ],
)
def test_bad_options_are_named(option: str, value: Any, named: str) -> None:
    defect = option_defect(DrainOptions(**{"owner": "me", option: value}))
    assert defect is not None
    assert named in defect


@given(st.floats(0, 4e9), st.sampled_from(["Z", "+00:00", "+02:00", "-11:30"]))
def test_times_are_read_as_they_are_written(seconds: float, zone: str) -> None:
    shift = {"Z": 0, "+00:00": 0, "+02:00": 7200, "-11:30": -41400}[zone]
    text = datetime.fromtimestamp(seconds + shift, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + zone
    assert parse_time(text) == pytest.approx(seconds, abs=1e-3)


@given(st.text() | st.none() | st.integers(), st.floats(0, 4e9))
def test_an_unreadable_time_counts_as_just_begun(text: Any, wall: float) -> None:
    if parse_time(text) is None:
        assert elapsed_of({"requested_at": text}, wall) == 0.0


@given(
    st.builds(
        DrainOptions,
        owner=st.just("me"),
        mode=st.sampled_from(["complete", "handover"]),
        on_expire=st.sampled_from([None, "resume", "verify", "hold"]),
        on_timeout=st.sampled_from(["handover", "return_to_service"]),
        reason=st.sampled_from(["", "a", "b"]),
    ),
    st.floats(0, 1000),
)
def test_a_renewal_settles_after_one_request(options: DrainOptions, elapsed: float) -> None:
    first = drain_body(options, None, 0, foreign=False)
    drain = {name: first[name] for name in ("owner", "mode", "on_expire", "reason")}
    assert set(drain_body(options, drain, elapsed, foreign=False)) == {"owner", "lease_s"}
