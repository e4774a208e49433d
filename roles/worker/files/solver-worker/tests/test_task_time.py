# SPDX-License-Identifier: GPL-3.0-or-later
"""The time of a task, by a clock that is turned by hand."""

from types import SimpleNamespace
from typing import Any

import pytest
from solver_worker import codes, config
from solver_worker.codes import Answer
from solver_worker.engine import SILENCE_GRACE_S, Engine, Task
from solver_worker.journal import Row

LIMIT_S = 300.0


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def boot(self) -> float:
        return self.at

    now = boot


class Bench:
    """An engine whose loops do not run: what they would do is done here."""

    def __init__(self, *rows: Row) -> None:
        self.clock = Clock()
        self.finals: dict[str, Any] = {}
        document = {"worker": {"name": "w1", "state_dir": "/s"}, "control": {"socket": "/c"}, "data": {"port": 1}}
        settings, _unused = config.parse(document)
        assert settings is not None
        journal: Any = SimpleNamespace(
            open_tasks=lambda: list(rows), finish=lambda task_id, final, _took: self.finals.update({task_id: final})
        )
        provider: Any = SimpleNamespace(allowance=lambda: 5000, poll_delay=lambda: 0.0)
        clock: Any = self.clock
        self.engine = Engine(
            settings, clock=clock, journal=journal, provider=provider, may_submit=lambda: True, changed=lambda: None
        )

    def polling(self, age: float) -> Task:
        task = Task("w1-1", "userrecaptcha", "polling", self.clock.at - age, "7", self.clock.at - age)
        self.engine.tasks[task.id] = task
        return task

    def ended(self, after: float) -> bool:
        """Whether the sweep has ended the task AFTER so many seconds, a tick each."""
        for _tick in range(round(after)):
            self.clock.at += 1.0
            self.engine.sweep()
        return not self.engine.tasks


def row(age: float, clock: float = 1000.0) -> Row:
    return Row(
        **dict.fromkeys(Row.__dataclass_fields__)
        | {"id": "w1-1", "method": "userrecaptcha", "state": "polling", "accepted_at": clock - age, "provider_id": "7",
           "submitted_at": clock - age, "resubmits": 0}
    )


@pytest.mark.parametrize("answer", [
    Answer("not_ready"), Answer("unclear", "HTTP_200"), Answer("unclear", "BAD_ANSWER"), Answer("error", "ERROR_NEW"),
    Answer("error", "HTTP_500"), Answer("error", "ERROR_ZERO_BALANCE")])
def test_an_answer_at_the_limit_ends_the_task(answer: Answer) -> None:
    bench = Bench()
    bench.engine._polled(bench.polling(LIMIT_S), answer)
    assert bench.finals["w1-1"].error_code == codes.TIMEOUT


@pytest.mark.parametrize(("answer", "fault"), [
    (Answer("unreachable", "ClientError"), "network"), (Answer("unclear", "HTTP_502"), "provider")])
def test_silence_at_the_limit_gets_a_minute_more(answer: Answer, fault: str) -> None:
    bench = Bench()
    bench.engine._polled(bench.polling(LIMIT_S), answer)
    assert not bench.ended(after=SILENCE_GRACE_S)
    assert bench.ended(after=2)
    assert bench.finals["w1-1"].error_class == fault


def test_a_solution_after_the_limit_counts_while_the_task_is_open_and_no_later() -> None:
    bench = Bench()
    task = bench.polling(LIMIT_S + 30)
    bench.engine._polled(task, Answer("ok", "X"))
    assert bench.finals["w1-1"].state in ("succeeded", "expired")
    bench.finals.clear()
    bench.engine._polled(task, Answer("ok", "X"))
    assert not bench.finals, "a task that has ended ends once"


def test_the_last_poll_is_due_at_the_limit() -> None:
    bench = Bench()
    bench.engine._polled(bench.polling(LIMIT_S - 2), Answer("not_ready"))
    assert bench.engine._to_poll.delay(bench.clock.at) == pytest.approx(2.0)


def test_what_an_earlier_process_left_late_is_asked_for_before_it_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("solver_worker.pace.resume_delay", lambda _due, _resumed, _interval: 200.0)
    bench = Bench(row(age=5 * LIMIT_S))
    bench.engine.load()
    assert not bench.ended(after=200 + SILENCE_GRACE_S - 1)
    assert bench.ended(after=2)


def test_a_call_that_broke_in_our_hands_leaves_nothing_open() -> None:
    bench = Bench()
    bench.polling(LIMIT_S - 5).state = "submitting"
    bench.engine.wire.add("w1-1")
    assert not bench.ended(after=10), "its call is on the wire"
    bench.engine.wire.clear()
    assert bench.ended(after=1)
    assert bench.finals["w1-1"].state == "uncertain"
