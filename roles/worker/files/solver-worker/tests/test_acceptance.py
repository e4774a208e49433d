# SPDX-License-Identifier: GPL-3.0-or-later
"""What a worker promises, shown on real processes with the sandbox as its provider."""

import asyncio
import contextlib
import sqlite3
import stat
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from harness import Worker, World, balanced, eventually, task
from solver_worker import codes

FAST = ("--solve", "default=0.2:0.4")
SLOW = ("--solve", "default=60:60")


# -- the data API


async def test_a_task_is_accepted_solved_read_and_forgotten(world: World) -> None:
    world.sandbox(*FAST)
    worker = await world.worker().start()
    status, accepted = await worker.post("k1", task(1))
    assert (status, accepted["state"]) == (202, "accepted")
    again, known = await worker.post("k1", dict(reversed(task(1).items())))
    assert (again, known["id"]) == (200, accepted["id"])
    assert await worker.delete(accepted["id"]) == 409
    solved = await worker.final(accepted["id"])
    assert solved["state"] == "succeeded"
    assert solved["solution"] == "solved:nonce-00000001"
    assert (await worker.post("k1", task(2)))[0] == 422
    assert [await worker.delete(accepted["id"]) for _unused in range(2)] == [204, 204]
    assert (await worker.get(accepted["id"]))[0] == 404
    status, forgotten = await worker.post("k1", task(1))
    assert (status, forgotten["state"], forgotten["solution"]) == (200, "succeeded", None)
    assert await world.submits() == {"nonce-00000001": 1}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"googlekey": "x"}, "method"),
        ({"method": "post", "numeric": 4}, "numeric"),
        ({"method": "post", "key": "x"}, "key"),
        ({"method": "post", "pingback": "http://x"}, "pingback"),
        ([], "body"),
    ],
)
async def test_a_bad_task_is_refused_by_field(world: World, body: Any, field: str) -> None:
    worker = await world.worker().start()
    status, problem = await worker.post("k", body)
    assert (status, problem["code"], problem["field"]) == (400, "bad_field", field)


async def test_the_edges_of_the_data_api(world: World) -> None:
    worker = await world.worker(data={"max_body_bytes": 2048}).start()
    assert (await worker.get("w2-0123"))[0] == 421
    assert (await worker.get("w1-0123"))[0] == 404
    assert (await worker.post("", task(1)))[0] == 400
    assert (await worker.post("k", task(1, body="x" * 3000)))[0] == 413
    headers = {"Idempotency-Key": "k"}
    async with world.http.post(worker.url + "/v1/tasks", data=task(1), headers=headers) as reply:
        assert reply.status == 415
        assert reply.headers["X-Solver-Worker"] == "w1"
        assert reply.content_type == "application/problem+json"


async def test_another_address_than_loopback_demands_the_token(world: World) -> None:
    token = world.home / "token"
    token.write_text("s3cret-token")
    worker = await world.worker(data={"host": "0.0.0.0", "token_file": str(token)}).start()
    assert (await worker.post("k", task(1)))[0] == 401
    headers = {"Idempotency-Key": "k", "Authorization": "Bearer s3cret-token"}
    async with world.http.post(worker.url + "/v1/tasks", json=task(1), headers=headers) as reply:
        assert reply.status == 202
    async with world.http.get(worker.url + "/healthz") as reply:
        assert reply.status == 200


async def test_too_many_open_tasks_are_refused_and_counted(world: World) -> None:
    worker = await world.worker(data={"max_open_tasks": 1}).start()
    assert (await worker.post("k1", task(1)))[0] == 202
    headers = {"Idempotency-Key": "k2"}
    async with world.http.post(worker.url + "/v1/tasks", json=task(2), headers=headers) as reply:
        assert reply.status == 503
        assert int(reply.headers["Retry-After"]) > 0
        assert (await reply.json())["code"] == "too_many_open"
    assert (await worker.post("k1", task(1)))[0] == 200

    async def counted() -> bool:
        return bool((await worker.status())["totals"]["refused"] == 1)

    await eventually(counted)


# -- restarts


async def load(worker: Worker, numbers: range, rate: float) -> dict[int, str]:
    """Submits at a steady rate; on anything but an answer the same key is sent again."""
    ids: dict[int, str] = {}

    async def one(number: int) -> None:
        await asyncio.sleep((number - numbers.start) / rate)
        while number not in ids:
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                status, document = await worker.post(f"key-{number}", task(number))
                if status in (200, 202):
                    ids[number] = document["id"]
                    return
            await asyncio.sleep(0.1)

    await asyncio.gather(*(one(number) for number in numbers))
    return ids


def shares(count: int, of: int) -> list[range]:
    """One share of the load for each restart, so that a slow machine never runs out of it."""
    edges = [count * index // of for index in range(of + 1)]
    return [range(low, high) for low, high in pairwise(edges)]


async def all_of(loads: list[asyncio.Task[dict[int, str]]]) -> dict[int, str]:
    return {number: task_id for one in loads for number, task_id in (await one).items()}


async def ended_states(worker: Worker, ids: dict[int, str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for number, task_id in ids.items():
        document = await worker.final(task_id)
        found[document["state"]] = found.get(document["state"], 0) + 1
        if document["state"] == "succeeded":
            assert document["solution"] == f"solved:nonce-{number:08x}"
    return found


async def wait_open(worker: Worker, at_least: int, state: str = "open") -> Any:
    async def enough() -> Any:
        try:
            document = await worker.status()
        except (aiohttp.ClientError, OSError):
            return None
        return document if (document["tasks"] or {}).get(state, 0) >= at_least else None

    return await eventually(enough)


@pytest.mark.slow
async def test_six_restarts_by_sigterm_lose_and_bill_nothing(world: World) -> None:
    world.sandbox("--solve", "default=2:4", "--submit-latency", "0.15", "--enforce-limits")
    settings = {"poll_interval_s": 0.4, "first_poll_s": 0.5}
    worker = await world.worker(provider=settings).start()
    loads, opened = [], []
    for numbers in shares(400, of=6):
        loads.append(asyncio.create_task(load(worker, numbers, rate=25)))
        before = (await worker.status())["totals"]["succeeded"]
        document = await wait_open(worker, 20)
        opened.append(document["tasks"]["open"])
        await worker.term()
        await worker.start()

        async def moved(before: int = before) -> bool:
            return bool((await worker.status())["totals"]["succeeded"] >= before + 20)

        await eventually(moved)
    ids = await all_of(loads)
    assert await ended_states(worker, ids) == {"succeeded": 400}
    document = await worker.status()
    assert min(opened) >= 20
    assert document["instance"]["restarts"] == 6
    assert document["totals"]["uncertain"] == document["totals"]["expired"] == 0
    assert balanced(document["totals"], 0)
    assert set((await world.submits()).values()) == {1}


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["park", "resubmit"])
async def test_six_kills_leave_every_task_in_one_final_state(world: World, policy: str) -> None:
    world.sandbox("--solve", "default=1:2", "--submit-latency", "0.3")
    worker = await world.worker(tasks={"on_uncertain": policy}, provider={"poll_interval_s": 0.3}).start()
    loads, caught = [], 0
    for numbers in shares(150, of=6):
        loads.append(asyncio.create_task(load(worker, numbers, rate=14)))
        caught += (await wait_open(worker, 2, "submitting"))["tasks"]["submitting"]
        await worker.kill()
        await worker.start()
    ids = await all_of(loads)
    states = await ended_states(worker, ids)
    document = await worker.status()
    assert caught >= 6
    assert len(ids) == sum(states.values()) == document["totals"]["accepted"] == 150
    assert balanced(document["totals"], 0)
    submits = await world.submits()
    if policy == "park":
        assert states["uncertain"] >= 1
        assert states["uncertain"] == document["totals"]["uncertain"]
        assert max(submits.values()) == 1
    else:
        assert states == {"succeeded": 150}
        assert max(submits.values()) > 1


@pytest.mark.parametrize(
    ("point", "state", "submits"),
    [
        ("accept:before", "succeeded", 1),
        ("accept:after", "succeeded", 1),
        ("submitting:before", "succeeded", 1),
        ("submitting:after", "uncertain", 0),
        ("polling:before", "uncertain", 1),
        ("polling:after", "succeeded", 1),
        ("finish:before", "succeeded", 1),
        ("finish:after", "succeeded", 1),
        ("not_submitted:before", "uncertain", 0),
        ("not_submitted:after", "succeeded", 1),
    ],
)
async def test_kill_at_every_commit_of_a_task(world: World, point: str, state: str, submits: int) -> None:
    world.sandbox(*FAST)
    if point.startswith("not_submitted"):
        await world.faults({"on": "in", "fault": "ERROR_NO_SLOT_AVAILABLE", "times": 1})
    worker = await world.worker().start(SF_KILL=point)
    with contextlib.suppress(aiohttp.ClientError):
        await worker.post("k", task(7))
    assert worker.process is not None
    assert await worker.process.wait() == -9
    await worker.start()
    status, document = await worker.post("k", task(7))
    assert status == (202 if point == "accept:before" else 200)
    assert (await worker.final(document["id"]))["state"] == state
    assert sum((await world.submits()).values()) == submits
    document = await worker.status()
    assert document["totals"]["accepted"] == document["totals"][state] == 1


@pytest.mark.parametrize(("when", "state"), [("before", "running"), ("after", "drained")])
async def test_kill_at_the_commit_of_a_drain(world: World, when: str, state: str) -> None:
    worker = await world.worker().start()
    await worker.term()
    await worker.start(SF_KILL=f"save_drain:{when}")
    with pytest.raises(aiohttp.ClientError):
        await worker.drain()
    await worker.start(until=state)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_kill_at_the_commit_of_a_fetch(world: World, when: str) -> None:
    world.sandbox(*FAST)
    worker = await world.worker().start(SF_KILL=f"fetched:{when}")
    task_id = (await worker.post("k", task(1)))[1]["id"]
    await worker.final(task_id)
    with pytest.raises(aiohttp.ClientError):
        await worker.delete(task_id)
    await worker.start()
    assert (await worker.get(task_id))[0] == (200 if when == "before" else 404)
    assert await worker.delete(task_id) == 204


# -- the provider


async def test_a_submit_that_breaks_off_is_uncertain_and_never_sent_again(world: World) -> None:
    world.sandbox(*FAST)
    await world.faults({"on": "in", "fault": "drop", "times": 1})
    worker = await world.worker().start()
    _unused, document = await worker.post("k", task(3), wait=5)
    assert document["state"] == "uncertain"
    assert document["error"] == {"code": "SUBMIT_OUTCOME_UNKNOWN", "class": "network"}
    assert await world.submits() == {"nonce-00000003": 1}
    await worker.term()
    await worker.start()
    assert (await worker.final(document["id"]))["state"] == "uncertain"


async def test_html_502_of_a_submit_is_uncertain_and_of_a_poll_is_not(world: World) -> None:
    world.sandbox(*FAST)
    await world.faults({"on": "in", "fault": "html502", "times": 1}, {"on": "res", "fault": "html502", "times": 2})
    worker = await world.worker().start()
    assert (await worker.post("k1", task(1), wait=5))[1]["state"] == "uncertain"
    assert (await worker.post("k2", task(2), wait=10))[1]["state"] == "succeeded"


async def test_an_unreachable_provider_costs_nothing_but_time(world: World) -> None:
    sandbox = world.sandbox(*FAST)
    port = world.url.rsplit(":", 1)[1]
    worker = await world.worker().start()
    sandbox.end()
    _unused, accepted = await worker.post("k", task(4))

    async def noticed() -> Any:
        return (await worker.status())["provider"]["last_error"]

    assert (await eventually(noticed))["class"] == "network"
    assert (await worker.get(accepted["id"]))[1]["state"] == "accepted"
    world.sandbox(*FAST, "--port", port)
    assert (await worker.final(accepted["id"]))["state"] == "succeeded"
    assert await world.submits() == {"nonce-00000004": 1}


@pytest.mark.parametrize(
    ("on", "code", "error_class"),
    [
        ("in", "ERROR_WRONG_USER_KEY", "account"),
        ("in", "ERROR_PAGEURL", "task"),
        ("in", "ERROR_BAD_PROXY", "task"),
        ("res", "ERROR_CAPTCHA_UNSOLVABLE", "task"),
        ("res", "ERROR_WRONG_CAPTCHA_ID", "provider"),
    ],
)
async def test_a_final_error_code_ends_the_task(world: World, on: str, code: str, error_class: str) -> None:
    world.sandbox(*FAST)
    await world.faults({"on": on, "fault": code, "times": 1})
    worker = await world.worker().start()
    _unused, document = await worker.post("k", task(5), wait=10)
    assert (document["state"], document["error"]) == ("failed", {"code": code, "class": error_class})


def ends_at_once(verdict: codes.Verdict) -> bool:
    return verdict.retry_s is None and not verdict.block_s


@pytest.mark.parametrize(("on", "table"), [("in", codes.SUBMIT_CODES), ("res", codes.POLL_CODES)])
async def test_every_final_code_ends_its_task_with_its_class(
    world: World, on: str, table: dict[str, codes.Verdict]
) -> None:
    final = [code for code, verdict in table.items() if ends_at_once(verdict)]
    assert len(final) >= 8
    world.sandbox(*FAST, "--dialect", "2captcha")
    worker = await world.worker(provider={"dialect": "2captcha"}).start()
    for number, code in enumerate(final, 100):
        await world.faults({"on": on, "fault": code, "times": 1})
        _unused, document = await worker.post(f"k{number}", task(number), wait=10)
        assert document["state"] == "failed", (code, document)
        assert document["error"] == {"code": code, "class": table[code].error_class}
    assert set((await world.submits()).values()) <= {1}


@pytest.mark.parametrize("code", [code for code, verdict in codes.SUBMIT_CODES.items() if verdict.retry_s is not None])
async def test_a_transient_code_of_a_submit_keeps_the_task(world: World, code: str) -> None:
    world.sandbox(*FAST)
    await world.faults({"on": "in", "fault": code, "times": None})
    worker = await world.worker().start()
    _unused, accepted = await worker.post("k", task(6))

    async def seen() -> Any:
        error = (await worker.status())["provider"]["last_error"]
        return error if error and error["code"] == code else None

    assert (await eventually(seen))["class"] == codes.SUBMIT_CODES[code].error_class
    assert (await worker.get(accepted["id"]))[1]["state"] == "accepted"


@pytest.mark.parametrize("code", [code for code, verdict in codes.POLL_CODES.items() if verdict.retry_s is not None])
async def test_a_passing_code_of_a_poll_keeps_the_paid_task(world: World, code: str) -> None:
    world.sandbox(*FAST)
    await world.faults({"on": "res", "fault": code, "times": 1})
    worker = await world.worker().start()
    _unused, accepted = await worker.post("k", task(7))

    async def seen() -> Any:
        error = (await worker.status())["provider"]["last_error"]
        return error if error and error["code"] == code else None

    verdict = codes.POLL_CODES[code]
    assert (await eventually(seen))["class"] == verdict.error_class
    if verdict.block_polls:
        assert (await worker.get(accepted["id"]))[1]["state"] == "polling"
    else:
        assert (await worker.final(accepted["id"]))["state"] == "succeeded"


async def test_account_errors_while_polling_do_not_end_a_paid_task(world: World) -> None:
    world.sandbox(*FAST)
    await world.faults({"on": "res", "fault": "ERROR_WRONG_USER_KEY", "times": 3})
    worker = await world.worker().start()
    assert (await worker.post("k", task(6), wait=10))[1]["state"] == "succeeded"


async def test_never_solved_is_a_timeout(world: World) -> None:
    world.sandbox(*SLOW)
    worker = await world.worker(tasks={"time_limit_s": 1.0}).start()
    _unused, document = await worker.post("k", task(8), wait=10)
    assert (document["state"], document["error"]["code"]) == ("failed", "TIMEOUT")


async def test_a_token_that_aged_while_we_were_away_is_expired(world: World) -> None:
    world.sandbox("--solve", "default=0.5:0.5")
    worker = await world.worker(tasks={"token_life_s": 1.0}, provider={"first_poll_s": 30.0}).start()
    _unused, accepted = await worker.post("k", task(9))
    await wait_open(worker, 1, "polling")
    await worker.term()
    worker.configure(tasks={"token_life_s": 1.0}, provider={"first_poll_s": 1.2})
    await worker.start()
    document = await worker.final(accepted["id"])
    assert (document["state"], document["solution"]) == ("expired", None)
    assert (await worker.status())["totals"]["expired"] == 1


@pytest.mark.parametrize("step", [3600, -3600])
async def test_a_wall_clock_stepped_over_a_restart_ages_nothing(world: World, step: int) -> None:
    world.sandbox("--solve", "default=0.2:0.2")
    worker = await world.worker(tasks={"time_limit_s": 60.0}).start()
    solved = await worker.final((await worker.post("k1", task(1)))[1]["id"])
    await world.faults({"on": "res", "fault": "ERROR_ZERO_BALANCE", "times": None})
    _status, waiting = await worker.post("k2", task(2))
    await wait_open(worker, 1, "polling")

    for _again in range(2):
        await worker.term()
        await worker.start(SF_CLOCK=str(step))
        _status, read = await worker.get(solved["id"])
        assert (read["state"], read["solution"]) == ("succeeded", solved["solution"])
        for name in ("accepted_at", "solved_at", "expires_at"):
            moved = datetime.fromisoformat(read[name]) - datetime.fromisoformat(solved[name])
            assert abs(moved.total_seconds() - step) < 1, (name, solved, read)
        assert 0 <= (await worker.status())["tasks"]["oldest_age_s"] < 60

    await world.no_faults()
    assert (await worker.final(waiting["id"]))["state"] == "succeeded"
    totals = (await worker.status())["totals"]
    assert (totals["succeeded"], totals["failed"], totals["expired"]) == (2, 0, 0)


# -- drains


async def test_two_owners(world: World) -> None:
    worker = await world.worker().start()
    status, document = await worker.drain("a", reason="update")
    assert (status, document["state"], document["drain"]["owner"]) == (202, "drained", "a")
    assert (await worker.drain("a", lease_s=60))[0] == 200
    status, problem = await worker.drain("b")
    assert (status, problem["code"]) == (409, "drained_by_another")
    assert (problem["owner"], problem["reason"]) == ("a", "update")
    assert problem["lease_expires_at"] == (await worker.status())["drain"]["lease_expires_at"]
    assert (await worker.resume("b"))[0] == 409
    status, document = await worker.drain("b", steal=True)
    assert (status, document["drain"]["owner"]) == (202, "b")
    assert "drain taken over" in worker.log
    status, document = await worker.resume("b")
    assert (status, document["state"], document["drain"]) == (200, "running", None)
    assert (await worker.resume("b"))[0] == 204


async def test_grace_announces_before_it_refuses(world: World) -> None:
    worker = await world.worker().start()
    _unused, document = await worker.drain(grace_s=1.0)
    assert (document["state"], document["accepting"]) == ("draining", True)
    async with world.http.get(worker.url + "/healthz") as reply:
        assert reply.status == 404
    assert (await worker.post("k1", task(1)))[0] == 202

    async def refused() -> bool:
        return (await worker.post(f"k{time.monotonic()}", task(2)))[0] == 503

    await eventually(refused)


async def test_complete_waits_for_open_tasks_and_handover_does_not(world: World) -> None:
    world.sandbox(*SLOW)
    worker = await world.worker().start()
    await worker.post("k", task(1))
    await wait_open(worker, 1, "polling")
    _unused, document = await worker.drain()
    assert (document["state"], document["safe_to_stop"]) == ("draining", False)
    assert document["drain"]["open_at_start"] == 1
    _unused, document = await worker.drain(mode="handover")
    assert (document["state"], document["safe_to_stop"], document["idle"]) == ("drained", True, False)
    assert document["drain"]["open_at_start"] == 1  # a renewal is not a new drain


async def test_the_deadline_hands_over_only_if_asked(world: World) -> None:
    world.sandbox(*SLOW)
    worker = await world.worker().start()
    await worker.post("k", task(1))
    await wait_open(worker, 1, "polling")
    await worker.drain(deadline_s=0.5, on_deadline="handover")
    assert (await worker.reach("drained"))["drain"]["mode"] == "handover"


async def test_an_expired_lease_resumes_holds_or_verifies(world: World) -> None:
    world.sandbox("--solve", "default=0.1:0.1")
    workers = {name: world.worker(name) for name in ("resume", "verify", "hold")}
    for name, worker in workers.items():
        await worker.start()
        await worker.drain(lease_s=5, on_expire=name)
    await workers["resume"].reach("running")
    verified = await workers["verify"].reach("running")
    assert verified["totals"]["probes"] == 1

    async def expired() -> Any:
        document = await workers["hold"].status()
        return document if document["drain"]["expired"] else None

    assert (await eventually(expired))["state"] == "drained"
    assert (await workers["hold"].drain("other"))[0] == 202


async def test_a_failed_verification_stays_held(world: World) -> None:
    world.sandbox(*FAST)
    await world.faults({"on": "in", "fault": "ERROR_WRONG_USER_KEY", "times": None})
    worker = await world.worker().start()
    await worker.drain(lease_s=5, on_expire="verify")
    await eventually(lambda: "stays held" in worker.log)
    assert (await worker.status())["state"] == "drained"


async def test_a_drain_survives_restarts_and_begins_no_submit(world: World) -> None:
    world.sandbox("--solve", "default=1:1")
    worker = await world.worker().start()
    _unused, accepted = await worker.post("k", task(1))
    await wait_open(worker, 1, "polling")
    await worker.drain(mode="handover", lease_s=600)
    lease = (await worker.status())["drain"]["lease_expires_at"]
    await worker.kill()
    await worker.start(until="drained")
    document = await worker.status()
    assert document["drain"]["lease_expires_at"][:18] == lease[:18]
    assert (await worker.post("k2", task(2)))[0] == 503
    assert (await worker.final(accepted["id"]))["state"] == "succeeded"
    assert (await worker.control("POST", "/v1/probe", {"request_id": "r"}))[1]["outcome"] == "succeeded"
    assert (await worker.resume())[1]["state"] == "running"
    assert await world.submits() != {}


async def test_another_version_verifies_itself_before_it_serves(world: World) -> None:
    world.sandbox(*FAST)
    await world.faults({"on": "in", "fault": "ERROR_WRONG_USER_KEY", "times": None})
    worker = await world.worker().start(SF_VERSION="1.2.0")
    await worker.term()
    await worker.start(until="drained", SF_VERSION="1.3.0")
    document = await worker.status()
    assert (document["drain"]["on_expire"], document["drain"]["expired"]) == ("verify", True)
    await eventually(lambda: "stays held" in worker.log)
    assert (await worker.post("k", task(1)))[0] == 503
    await worker.term()
    await worker.start(SF_VERSION="1.2.0")  # the version that served serves at once
    await worker.term()
    await world.no_faults()
    await worker.start(SF_VERSION="1.3.0")
    await worker.term()
    await worker.start(SF_VERSION="1.3.0")
    assert (await worker.status())["totals"]["probes"] == 2


async def test_a_drain_over_a_version_change_verifies_whatever_it_asked(world: World) -> None:
    world.sandbox(*FAST)
    worker = await world.worker().start(SF_VERSION="1.2.0")
    await worker.drain(on_expire="resume")
    await worker.term()
    await worker.start(until="drained", SF_VERSION="1.3.0")
    assert (await worker.status())["drain"]["on_expire"] == "verify"
    assert (await worker.drain(on_expire="resume"))[1]["drain"]["on_expire"] == "verify"
    assert (await worker.resume())[1]["state"] == "running"


# -- probe


async def test_the_same_probe_is_never_billed_twice(world: World) -> None:
    world.sandbox("--solve", "default=1:1")
    worker = await world.worker().start()
    first = asyncio.create_task(worker.control("POST", "/v1/probe", {"request_id": "r1"}))

    async def running() -> bool:
        return not (await worker.status())["idle"]

    await eventually(running)
    status, problem = await worker.control("POST", "/v1/probe", {"request_id": "r2"})
    assert (status, problem["code"], problem["request_id"]) == (409, "probe_running", "r1")
    assert (await worker.status())["safe_to_stop"] is False
    joined = await worker.control("POST", "/v1/probe", {"request_id": "r1"})
    status, answer = await first
    assert (status, answer["outcome"], answer["error"]) == (200, "succeeded", None)
    assert joined == (status, answer)
    assert await worker.control("POST", "/v1/probe", {"request_id": "r1"}) == (status, answer)
    totals = (await worker.status())["totals"]
    assert (totals["probes"], totals["provider_submits"], totals["accepted"]) == (1, 1, 0)


@pytest.mark.parametrize(
    ("fault", "error_class"),
    [
        ({"on": "in", "fault": "ERROR_ZERO_BALANCE", "times": None}, "provider"),
        ({"on": "in", "fault": "ERROR_KEY_DOES_NOT_EXIST"}, "account"),
        ({"on": "in", "fault": "ERROR_PAGEURL"}, "task"),
        ({"on": "in", "fault": "drop"}, "network"),
        ({"on": "in", "fault": "html502"}, "provider"),
    ],
)
async def test_a_failed_probe_says_whose_fault_it_is(world: World, fault: dict[str, Any], error_class: str) -> None:
    world.sandbox(*FAST)
    await world.faults(fault)
    worker = await world.worker().start()
    _unused, answer = await worker.control("POST", "/v1/probe", {"request_id": "r", "timeout_s": 2})
    assert (answer["outcome"], answer["error"]["class"]) == ("failed", error_class)


async def test_a_wrong_answer_fails_the_probe(world: World) -> None:
    world.sandbox(*FAST)
    worker = await world.worker().start()
    _unused, answer = await worker.control("POST", "/v1/probe", {"request_id": "r", "expect": "other"})
    assert answer["error"]["code"] == "WRONG_ANSWER"


# -- the process


async def test_a_second_process_is_refused_and_the_first_undisturbed(world: World) -> None:
    worker = await world.worker().start()
    first = worker.process
    boot_id = (await worker.status())["instance"]["boot_id"]
    await worker.start(until="")
    assert worker.process is not None
    assert await worker.process.wait() == 75
    assert (await worker.status())["instance"]["boot_id"] == boot_id
    worker.process = first
    other = world.worker("w2", control={"socket": str(worker.socket)})
    await other.start(until="")
    assert other.process is not None
    assert await other.process.wait() == 75
    assert (await worker.status())["instance"]["boot_id"] == boot_id


async def test_a_leftover_socket_is_replaced_and_a_clean_stop_leaves_none(world: World) -> None:
    worker = await world.worker().start()
    await worker.kill()
    assert worker.socket.exists()
    await worker.start()
    assert stat.S_IMODE(worker.socket.stat().st_mode) == 0o660
    state = worker.home / "state"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert stat.S_IMODE((state / "journal.sqlite3").stat().st_mode) == 0o600
    await worker.term()
    assert not worker.socket.exists()


async def test_a_taken_port_fails_the_worker_that_still_answers(world: World) -> None:
    first = await world.worker().start()
    second = world.worker("w2", data={"port": first.port})
    document = await (await second.start(until="failed")).status()
    assert document["failure"]["code"] == "port_taken"
    assert document["totals"] is None
    assert (await second.drain())[0] == 503
    assert (await second.control("POST", "/v1/probe", {"request_id": "r"}))[0] == 503
    await second.term()


async def test_a_waiting_client_is_answered_before_the_process_exits(world: World) -> None:
    world.sandbox(*SLOW)
    worker = await world.worker().start()
    _unused, accepted = await worker.post("k", task(1))
    status_wait = asyncio.create_task(worker.control("GET", "/v1/status?wait=30&until=drained"))
    read_wait = asyncio.create_task(worker.get(accepted["id"], wait=25))
    await wait_open(worker, 1, "polling")
    began = time.monotonic()
    await worker.term()
    assert (await status_wait)[1]["state"] == "stopping"
    assert (await read_wait)[1]["state"] == "polling"
    assert time.monotonic() - began < 5


async def test_browsers_are_refused_on_the_control_socket(world: World) -> None:
    worker = await world.worker().start()
    assert (await worker.control("GET", "/v1/status", Origin="http://evil.test"))[0] == 403
    assert (await worker.control("GET", "/v1/status", Host="evil.test"))[0] == 403
    assert (await worker.control("GET", "/v1/status?wait=-1"))[0] == 400
    assert (await worker.control("GET", "/v1/status?until=done"))[0] == 400
    assert (await worker.control("PUT", "/v1/drain", {"owner": "a", "lease_s": 1}))[1]["field"] == "lease_s"
    assert (await worker.control("PUT", "/v1/drain", {"owner": "a", "graze_s": 1}))[1]["field"] == "graze_s"


async def test_no_secret_and_no_payload_in_log_or_journal(world: World) -> None:
    world.sandbox(*FAST)
    worker = await world.worker(log={"level": "debug"}).start()
    _unused, accepted = await worker.post("k", task(1, proxy="login:pa55word@10.0.0.1:80"))
    await worker.final(accepted["id"])
    await worker.term()
    kept = worker.log.encode() + (worker.home / "state" / "journal.sqlite3").read_bytes()
    for secret in (b"0123456789abcdef0123456789abcdef", b"pa55word"):
        assert secret not in kept
    assert b"solved:" not in worker.log.encode()


# -- the journal over releases


async def test_a_revert_reads_what_the_failed_release_wrote(world: World) -> None:
    world.sandbox("--solve", "default=1:2")
    worker = await world.worker().start(SF_VERSION="1.2.0")
    ids = {n: (await worker.post(f"a{n}", task(n)))[1]["id"] for n in range(5)}
    await wait_open(worker, 5, "polling")
    await worker.term()
    await worker.start(SF_VERSION="1.3.0", SF_SCHEMA="2")  # verifies itself
    assert (await worker.status())["journal"]["schema"] == 2
    ids.update({n: (await worker.post(f"a{n}", task(n)))[1]["id"] for n in range(5, 10)})
    await wait_open(worker, 5, "polling")
    await worker.term()
    await worker.start(SF_VERSION="1.2.0")
    document = await worker.status()
    assert (document["journal"]["schema"], document["journal"]["min_reader"]) == (2, 1)
    assert await ended_states(worker, ids) == {"succeeded": 10}
    assert balanced((await worker.status())["totals"], 0)
    backup = worker.home / "state" / "journal.sqlite3.schema-1"
    with contextlib.closing(sqlite3.connect(backup)) as copy:
        assert copy.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone() == ("1",)
        assert copy.execute("SELECT count(*) FROM tasks").fetchone() == (5,)


async def test_a_journal_from_the_future_is_refused_untouched(world: World) -> None:
    worker = await world.worker().start(SF_SCHEMA="3", SF_MIN_READER="3")
    await worker.term()
    path = worker.home / "state" / "journal.sqlite3"
    before = _fingerprint(path)
    document = await (await worker.start(until="failed")).status()
    assert document["failure"]["code"] == "journal_too_new"
    assert (document["totals"], document["journal"]) == (None, None)
    with pytest.raises(aiohttp.ClientConnectorError):
        await worker.get("w1-x")
    await worker.term()
    assert _fingerprint(path) == before


def _fingerprint(path: Path) -> tuple[bytes, int, list[str]]:
    beside = sorted(item.name for item in path.parent.iterdir() if item.name != "lock")
    return path.read_bytes(), path.stat().st_mtime_ns, beside
