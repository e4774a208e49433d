# SPDX-License-Identifier: GPL-3.0-or-later
import asyncio
import time

import aiohttp
import pytest
from solver_worker.sandbox.faults import FaultError, parse

from .conftest import Live, Start

NOW = {"solve": {"default": (0, 0)}}


async def script(live: Live, *faults: object) -> None:
    async with live.http.post(f"{live.url}/__faults", json=list(faults)) as reply:
        assert reply.status == 200


async def test_drop_bills_and_drop_before_does_not(start: Start) -> None:
    live = await start(**NOW)
    await script(live, {"on": "in", "fault": "drop"}, {"on": "in", "fault": "drop_before", "after": 0})
    for _unused in range(2):
        with pytest.raises(aiohttp.ClientConnectionError):
            await live.submit()
    assert (await live.submit()).startswith("OK|")
    assert (await live.ledger())["totals"]["submits"] == 2


async def test_after_skips_and_times_ends(start: Start) -> None:
    live = await start(**NOW)
    await script(live, {"on": "in", "after": 1, "times": 2, "fault": "ERROR_NO_SLOT_AVAILABLE"})
    replies = [(await live.submit())[:5] for _unused in range(4)]
    assert [reply == "ERROR" for reply in replies] == [False, True, True, False]


async def test_a_fault_hits_only_what_it_matches(start: Start) -> None:
    live = await start(**NOW)
    await script(live, {"on": "in", "match": {"nonce": "nonce-aa*"}, "times": None, "fault": "html502"})
    assert "502 Bad Gateway" in await live.submit(googlekey="nonce-aabbccdd")
    assert (await live.submit()).startswith("OK|")
    async with live.http.delete(f"{live.url}/__faults"):
        pass
    assert (await live.submit(googlekey="nonce-aabbccdd")).startswith("OK|")


async def test_a_forgotten_id_stays_forgotten(start: Start) -> None:
    live = await start(**NOW)
    captcha_id = (await live.submit()).partition("|")[2]
    await script(live, {"on": "res", "fault": "forget", "match": {"nonce": "nonce-0123abcd"}})
    assert await live.result(id=captcha_id) == "ERROR_NO_SUCH_CAPCHA_ID"
    assert await live.result(id=captcha_id) == "ERROR_NO_SUCH_CAPCHA_ID"


async def test_unsolvable_gives_the_money_back(start: Start) -> None:
    live = await start(**NOW)
    captcha_id = (await live.submit()).partition("|")[2]
    assert await live.result(action="getbalance") == "99.997"
    await script(live, {"on": "res", "fault": "ERROR_CAPTCHA_UNSOLVABLE"})
    assert await live.result(id=captcha_id) == "ERROR_CAPTCHA_UNSOLVABLE"
    assert await live.result(id=captcha_id) == "ERROR_CAPTCHA_UNSOLVABLE"
    assert await live.result(action="getbalance") == "100.000"


async def test_no_balance(start: Start) -> None:
    live = await start(**NOW)
    await script(live, {"on": "in", "fault": "no_balance"}, {"on": "balance", "fault": "no_balance"})
    assert await live.submit() == "ERROR_ZERO_BALANCE"
    assert await live.result(action="getbalance") == "0"
    assert await live.result(action="getbalance") == "100.00"


async def test_slow_answers_late_but_the_id_exists(start: Start) -> None:
    live = await start(**NOW)
    await script(live, {"on": "in", "fault": "slow", "seconds": 0.3})
    began = time.monotonic()
    pending = asyncio.create_task(live.submit())
    async with asyncio.timeout(0.25):
        while not (await live.ledger())["totals"]["submits"]:
            await asyncio.sleep(0.01)
    assert not pending.done()
    assert (await pending).startswith("OK|")
    assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize("fault", [{"fault": "down", "seconds": 0.3}, {"fault": "down", "seconds": 0.3, "on": "in"}])
async def test_down_refuses_connections_and_comes_back(start: Start, fault: dict[str, object]) -> None:
    live = await start(**NOW)
    await script(live, fault)
    refused = 0
    async with asyncio.timeout(5):
        while True:
            try:
                async with aiohttp.ClientSession() as fresh, fresh.get(f"{live.url}/__health") as reply:
                    if refused:
                        assert reply.status == 200
                        break
                if "on" in fault:
                    with pytest.raises(aiohttp.ClientConnectionError):
                        await live.submit()
            except aiohttp.ClientConnectorError:
                refused += 1
            await asyncio.sleep(0.02)
    assert (await live.submit()).startswith("OK|")
    assert (await live.ledger())["totals"]["submits"] == 1


@pytest.mark.parametrize(
    "code",
    [
        "ERROR_WRONG_USER_KEY",
        "ERROR_IP_NOT_ALLOWED",
        "MAX_USER_TURN",
        "IP_BANNED",
        "ERROR: 1003",
        "TOO_MANY_BAD_IMAGES",
    ],
)
async def test_every_code_can_be_said_in_both_forms(start: Start, code: str) -> None:
    live = await start(**NOW)
    await script(live, {"on": "in", "fault": code, "times": 2}, {"on": "res", "fault": code})
    assert await live.submit() == code
    assert await live.submit(json="1") == f'{{"status": 0, "request": "{code}"}}'
    assert await live.result(id="1") == code


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "faults: expected a JSON list of objects"),
        ([{"on": "in", "fault": "explode"}], "faults[0].fault: 'explode' is neither one of drop"),
        ([{"on": "out", "fault": "drop"}], "faults[0].on: 'out' is not one of in, res, balance"),
        ([{"fault": "drop"}], "faults[0].on: None is not one of in, res, balance"),
        ([{"on": "in", "fault": "drop", "time": 1}], "faults[0].time: unknown field"),
        ([{"on": "in", "fault": "drop", "times": -1}], "faults[0].times: -1 is not a count"),
        ([{"on": "in", "fault": "slow", "seconds": "x"}], "faults[0].seconds: 'x' is not a number"),
    ],
)
def test_bad_faults_name_the_field(document: object, message: str) -> None:
    with pytest.raises(FaultError) as caught:
        parse(document)
    assert str(caught.value).startswith(message)


async def test_a_bad_fault_is_refused_over_http(start: Start) -> None:
    live = await start()
    async with live.http.post(f"{live.url}/__faults", json=[{"on": "in", "fault": "x"}]) as reply:
        assert reply.status == 400
        assert "faults[0].fault" in (await reply.json())["error"]
