# SPDX-License-Identifier: GPL-3.0-or-later
"""How the client treats each outcome, against scripted workers on real ports."""

import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from solver_worker.traffic.book import Book
from solver_worker.traffic.client import Answer, Client, Outcome, judge
from solver_worker.traffic.load import Load, Plan, epoch
from solver_worker.traffic.tasks import generate

from .conftest import free_port


class Scripted:
    """Answers submits from a list of statuses ("drop" cuts), then 202; keeps what it took."""

    def __init__(self, name: str, script: list[int | str], health: int = 200) -> None:
        self.name, self.script, self.health = name, script, health
        self.keys: list[str] = []
        self.taken: dict[str, str] = {}
        self.url = ""

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes([web.get("/healthz", self._health), web.post("/v1/tasks", self._post)])
        app.add_routes([web.get("/v1/tasks/{id}", self._get), web.delete("/v1/tasks/{id}", self._delete)])
        return app

    async def _health(self, _unused: web.Request) -> web.Response:
        return web.Response(status=self.health)

    async def _post(self, request: web.Request) -> web.Response:
        key = request.headers["Idempotency-Key"]
        self.keys.append(key)
        step = self.script.pop(0) if self.script else 202
        if step not in (202, "drop", 500):
            return web.json_response({"code": "scripted"}, status=int(step))
        body = await request.json()
        known = key in self.taken
        self.taken[key] = f"solved:{body['googlekey'].removeprefix('googlekey-')}"
        if step == "drop":
            assert request.transport is not None
            request.transport.abort()
        if step == 500:
            return web.Response(status=500)
        return web.json_response({"id": f"{self.name}-{key[-6:]}", "state": "x"}, status=200 if known else 202)

    async def _get(self, request: web.Request) -> web.Response:
        found = [answer for key, answer in self.taken.items() if request.match_info["id"].endswith(key[-6:])]
        if not found:
            return web.json_response({}, status=404)
        return web.json_response({"id": request.match_info["id"], "state": "succeeded", "solution": found[0]})

    async def _delete(self, _unused: web.Request) -> web.Response:
        return web.Response(status=204)


Start = Callable[..., Awaitable[Scripted]]


@pytest.fixture
async def scripted() -> AsyncIterator[Start]:
    runners: list[web.AppRunner] = []

    async def make(name: str, *script: int | str, health: int = 200) -> Scripted:
        worker = Scripted(name, list(script), health)
        runner = web.AppRunner(worker.app(), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        worker.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        runners.append(runner)
        return worker

    yield make
    for runner in runners:
        await runner.cleanup()


async def run(*workers: Scripted, tasks: int = 1, lost: float = 0.0, **plan: Any) -> list[dict[str, Any]]:
    file = io.StringIO()
    urls = {worker.name: worker.url for worker in workers}
    settings = {"rate": 100.0, "patience_s": 2.0, "timeout_s": 3.0, **plan}
    await Load(
        Plan(workers=urls, tasks=tasks, **settings), generate("run", 1, {"userrecaptcha": 1.0}, lost), Book(file)
    ).run()
    return [json.loads(line) for line in file.getvalue().splitlines()]


def names(events: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in events]


async def test_a_task_goes_its_whole_way(scripted: Start) -> None:
    events = await run(await scripted("w1"))
    steps = [name for name in names(events) if name != "submitted"]
    assert steps == ["begin", "task", "send", "accepted", "final", "fetched", "end"]


async def test_a_refusal_goes_to_the_next_worker_at_once(scripted: Start) -> None:
    first, second = await scripted("w1", 503), await scripted("w2")
    events = await run(first, second)
    assert [event["worker"] for event in events if event["event"] in ("declined", "accepted")] == ["w1", "w2"]
    assert first.keys == second.keys


@pytest.mark.parametrize("outcome", ["drop", 500, 502, 504])
async def test_an_unknown_outcome_is_asked_again_there(scripted: Start, outcome: int | str) -> None:
    first, second = await scripted("w1", outcome), await scripted("w2")
    events = await run(first, second)
    assert [event["worker"] for event in events if event["event"] in ("unsure", "accepted")] == ["w1", "w1"]
    assert len(first.keys) == 2
    assert first.keys[0] == first.keys[1]
    assert second.keys == []


async def test_after_a_doubt_not_connected_is_still_a_doubt(scripted: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    outcomes = [
        Outcome("unsure", "no answer"),
        Outcome("declined", "not connected", unsent=True),
        Outcome("accepted", "known", "w1-1"),
    ]

    async def submit(_unused: Client, worker: str, *__: object) -> Outcome:
        asked.append(worker)
        return outcomes.pop(0)

    monkeypatch.setattr(Client, "submit", submit)
    events = await run(await scripted("w1"), await scripted("w2"))
    assert asked == ["w1", "w1", "w1"]
    assert names(events).count("unsure") == 2


async def test_not_connected_from_the_first_is_no_doubt() -> None:
    nobody = Scripted("w9", [])
    nobody.url = f"http://127.0.0.1:{free_port()}"
    events = await run(nobody, patience_s=0.2)
    assert names(events).count("refused") == 1
    assert "unsure" not in names(events)


async def test_a_503_after_a_doubt_means_not_accepted(scripted: Start) -> None:
    first, second = await scripted("w1", 502, 503), await scripted("w2")
    events = await run(first, second)
    assert [event["worker"] for event in events if event["event"] == "accepted"] == ["w2"]


async def test_lost_answers_are_injected_and_retried_with_the_same_key(scripted: Start) -> None:
    worker = await scripted("w1")
    events = await run(worker, tasks=10, lost=1.0)
    sends = [event for event in events if event["event"] == "send"]
    assert {event["cut"] for event in sends if event["attempt"] == 1} == {"sent", "answered"}
    assert len({event["key"] for event in events if event["event"] == "accepted"}) == 10
    assert all(event["cut"] is None for event in sends if event["attempt"] > 1)
    assert "known" in {event["why"] for event in events if event["event"] == "accepted"}


async def test_only_healthy_workers_are_offered_tasks(scripted: Start) -> None:
    draining, serving = await scripted("w1", health=404), await scripted("w2")
    await run(draining, serving, tasks=6)
    assert (len(draining.keys), len(serving.keys)) == (0, 6)


async def test_a_rejected_task_is_not_offered_again(scripted: Start) -> None:
    worker = await scripted("w1", 422)
    events = await run(worker)
    assert names(events).count("rejected") == len(worker.keys) == 1


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(202, {"id": "w1-1"}), "accepted"),
        (Answer(200, {"id": "w1-1"}), "accepted"),
        (Answer(202, {}), "unsure"),
        (Answer(503), "declined"),
        (Answer(429), "declined"),
        (Answer(0, why="not connected: x"), "declined"),
        (Answer(0, why="no answer: x"), "unsure"),
        (Answer(500), "unsure"),
        (Answer(502), "unsure"),
        (Answer(504), "unsure"),
        (Answer(400), "rejected"),
        (Answer(422), "rejected"),
    ],
)
def test_what_an_answer_means(answer: Answer, kind: str) -> None:
    assert judge(answer).kind == kind


def test_the_same_seed_makes_the_same_tasks() -> None:
    def first(seed: int) -> list[tuple[str, str | None]]:
        tasks = generate("r", seed, {"userrecaptcha": 0.5, "base64": 0.5}, 0.3)
        return [(task.method, task.cut) for _unused, task in zip(range(50), tasks, strict=False)]

    assert first(1) == first(1) != first(2)


def test_times_are_read_as_the_data_api_writes_them() -> None:
    assert epoch("1970-01-01T00:01:40.500Z") == 100.5
    assert epoch(None) is epoch("soon") is None


async def test_clients_have_one_task_at_a_time_and_end(scripted: Start) -> None:
    worker = await scripted("w1")
    events = await run(worker, tasks=7, clients=2)
    assert names(events)[-1] == "end"
    assert names(events).count("final") == 7
    open_now, most = 0, 0
    for name in names(events):
        open_now += {"task": 1, "final": -1}.get(name, 0)
        most = max(most, open_now)
    assert most == 2


@pytest.mark.parametrize("wanted", [0, 2_000, 60_000])
def test_a_body_is_as_large_as_it_should_be(wanted: int) -> None:
    task = next(generate("run", 1, {"base64": 1.0}, 0.0, wanted))
    size = len(json.dumps(task.body()))
    assert size < 1000 if not wanted else abs(size - wanted) < 100
