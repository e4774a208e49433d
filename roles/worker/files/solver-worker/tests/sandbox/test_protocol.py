# SPDX-License-Identifier: GPL-3.0-or-later
"""The wire protocol: exact bytes, in every way a client may ask."""

import base64
import json
from decimal import Decimal
from pathlib import Path

import aiohttp
import pytest
from solver_worker.sandbox import payload
from solver_worker.sandbox.ledger import read_file
from solver_worker.sandbox.limits import Limits

from .conftest import KEY, RECAPTCHA, Start


async def test_plain_submit_poll_and_answer(start: Start) -> None:
    live = await start(solve={"default": (5, 5)})
    status, _unused, captcha_id = (await live.submit()).partition("|")
    assert (status, captcha_id.isdigit()) == ("OK", True)
    assert await live.result(id=captcha_id) == "CAPCHA_NOT_READY"
    live.clock.now += 4.9
    assert await live.result(id=captcha_id) == "CAPCHA_NOT_READY"
    live.clock.now += 0.2
    assert await live.result(id=captcha_id) == "OK|solved:nonce-0123abcd"
    assert await live.result(id=captcha_id, action="get2") == "OK|solved:nonce-0123abcd|0.003"
    assert await live.result(id=captcha_id) == "OK|solved:nonce-0123abcd"


async def test_json_submit_poll_and_answer(start: Start) -> None:
    live = await start(solve={"default": (5, 5)})
    reply = json.loads(await live.submit(json="1"))
    assert reply["status"] == 1
    captcha_id = reply["request"]
    assert json.loads(await live.result(id=captcha_id, json="1")) == {
        "status": 0,
        "request": "CAPCHA_NOT_READY",
    }
    live.clock.now += 5
    assert json.loads(await live.result(id=captcha_id, json="1", action="get2")) == {
        "status": 1,
        "request": "solved:nonce-0123abcd",
        "price": "0.003",
    }


async def test_get_multipart_and_query_are_the_same_request(start: Start) -> None:
    live = await start()
    async with live.http.get(f"{live.url}/in.php", params={"key": KEY, **RECAPTCHA}) as reply:
        assert (await reply.text()).startswith("OK|")
    form = aiohttp.FormData({"key": KEY, **RECAPTCHA})
    form._is_multipart = True
    async with live.http.post(f"{live.url}/in.php", data=form) as reply:
        assert (await reply.text()).startswith("OK|")
    assert len((await live.ledger())["nonces"]["nonce-0123abcd"]["submits"]) == 2


async def test_an_uploaded_file_answers_its_own_text(start: Start) -> None:
    live = await start(solve={"default": (0, 0), "post": (0, 0)})
    form = aiohttp.FormData({"key": KEY, "method": "post"})
    form.add_field("file", payload.make_png({"answer": "W7q2"}), filename="a.png", content_type="image/png")
    async with live.http.post(f"{live.url}/in.php", data=form) as reply:
        captcha_id = (await reply.text()).partition("|")[2]
    assert await live.result(id=captcha_id) == "OK|W7q2"


async def test_a_nonce_after_the_end_of_an_image_wins_over_its_text(start: Start) -> None:
    live = await start(solve={"base64": (0, 0), "default": (0, 0)})
    image = payload.make_png({"answer": "W7q2"}) + b"nonce-00ff00ff"
    captcha_id = (await live.submit(method="base64", body=base64.b64encode(image).decode(), googlekey="")).partition(
        "|"
    )[2]
    assert await live.result(id=captcha_id) == "OK|solved:nonce-00ff00ff"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"key": "short"}, "ERROR_WRONG_USER_KEY"),
        ({"pageurl": ""}, "ERROR_PAGEURL"),
        ({"googlekey": ""}, "ERROR_GOOGLEKEY"),
        ({"method": "turnstile"}, "ERROR_BAD_PARAMETERS"),
        ({"method": "hcaptcha", "sitekey": "x"}, "ERROR_METHOD_CALL"),
        ({"method": "no-such"}, "ERROR_METHOD_CALL"),
        ({"method": "base64", "body": "%%%"}, "ERROR_UPLOAD"),
        ({"method": "base64", "body": base64.b64encode(b"\x89PNG").decode()}, "ERROR_ZERO_CAPTCHA_FILESIZE"),
        (
            {"method": "base64", "body": base64.b64encode(b"x" * 200).decode()},
            "ERROR_IMAGE_TYPE_NOT_SUPPORTED",
        ),
        (
            {"method": "base64", "body": base64.b64encode(b"x" * 100_001).decode()},
            "ERROR_TOO_BIG_CAPTCHA_FILESIZE",
        ),
    ],
)
async def test_bad_submits_are_not_billed(start: Start, fields: dict[str, str], code: str) -> None:
    live = await start()
    assert await live.submit(**fields) == code
    assert (await live.ledger())["totals"]["balance"] == "100.00"


async def test_a_method_can_be_one_dialects_own(start: Start) -> None:
    ours, theirs = await start(dialect="captchaai"), await start(dialect="2captcha")
    assert (await ours.submit(method="bls")).startswith("OK|")
    assert await theirs.submit(method="bls") == "ERROR_METHOD_CALL"


async def test_unknown_ids_read_differently_by_dialect(start: Start) -> None:
    ours, theirs = await start(dialect="captchaai"), await start(dialect="2captcha")
    assert await ours.result(id="42") == "ERROR_NO_SUCH_CAPCHA_ID"
    assert await theirs.result(id="42") == "ERROR_WRONG_CAPTCHA_ID"
    assert await ours.result(id="4x2") == "ERROR_WRONG_ID_FORMAT"
    assert await ours.result(action="nothing") == "ERROR_EMPTY_ACTION"


async def test_several_ids_in_one_call(start: Start) -> None:
    live = await start(solve={"default": (0, 0), "turnstile": (9, 9)})
    first = (await live.submit()).partition("|")[2]
    second = (await live.submit(method="turnstile", sitekey="x")).partition("|")[2]
    assert await live.result(ids=f"{first},{second}") == "solved:nonce-0123abcd|CAPCHA_NOT_READY"


async def test_reports_count_once_and_only_after_the_answer(start: Start) -> None:
    live = await start(solve={"default": (5, 5)})
    captcha_id = (await live.submit()).partition("|")[2]
    assert await live.result(id=captcha_id, action="reportbad") == "ERROR_REPORT_NOT_RECORDED"
    live.clock.now += 5
    await live.result(id=captcha_id)
    assert await live.result(id=captcha_id, action="reportgood") == "OK_REPORT_RECORDED"
    assert await live.result(id=captcha_id, action="reportbad") == "ERROR_DUPLICATE_REPORT"


async def test_the_balance_falls_with_each_submit_until_there_is_none(start: Start) -> None:
    live = await start(balance=Decimal("0.007"))
    assert await live.result(action="getbalance") == "0.007"
    await live.submit()
    assert json.loads(await live.result(action="getbalance", json="1")) == {"status": 1, "request": "0.004"}
    await live.submit()
    assert await live.submit() == "ERROR_ZERO_BALANCE"


async def test_no_free_thread_is_said_as_each_dialect_says_it(start: Start) -> None:
    ours, theirs = await start(threads=1, dialect="captchaai"), await start(threads=1, dialect="2captcha")
    await ours.submit()
    await theirs.submit()
    assert await ours.submit() == "ERROR_ZERO_BALANCE"
    assert await theirs.submit() == "ERROR_NO_SLOT_AVAILABLE"
    ours.clock.now += 10
    assert (await ours.submit()).startswith("OK|")


async def test_only_the_configured_key_is_good(start: Start) -> None:
    live = await start(key="a" * 32)
    assert await live.submit() == "ERROR_KEY_DOES_NOT_EXIST"
    assert (await live.submit(key="a" * 32)).startswith("OK|")


async def test_too_many_submits_are_banned_for_ten_seconds(start: Start) -> None:
    live = await start(limits=Limits(max_submits=2))
    assert [(await live.submit())[:3] for _unused in range(2)] == ["OK|", "OK|"]
    assert await live.submit() == "MAX_USER_TURN"
    live.clock.now += 9.9
    assert await live.submit() == "MAX_USER_TURN"
    live.clock.now += 0.2
    assert (await live.submit()).startswith("OK|")


async def test_too_many_polls_block_the_account(start: Start) -> None:
    live = await start(limits=Limits(free_polls=2, polls_per_captcha=1), solve={"default": (99, 99)})
    captcha_id = (await live.submit()).partition("|")[2]
    for _unused in range(3):
        assert await live.result(id=captcha_id) == "CAPCHA_NOT_READY"
    assert await live.result(id=captcha_id) == "ERROR: 1005"
    assert await live.submit() == "ERROR: 1005"
    live.clock.now += 600
    assert (await live.submit()).startswith("OK|")


async def test_the_same_seed_solves_the_same_payload_in_the_same_time(start: Start) -> None:
    times = []
    for seed in (7, 7, 8):
        live = await start(seed=seed, solve={"default": (3, 8)})
        captcha_id = (await live.submit()).partition("|")[2]
        captcha = live.sandbox.provider.find(captcha_id)
        assert captcha is not None
        times.append(captcha.ready_at - captcha.at)
    assert times[0] == times[1] != times[2]
    assert all(3 <= seconds <= 8 for seconds in times)


async def test_the_ledger_file_tells_what_the_live_ledger_told(start: Start, tmp_path: Path) -> None:
    live = await start(
        solve={"default": (1, 1)},
        faults=[{"on": "in", "match": {"nonce": "nonce-dead*"}, "fault": "ERROR_CAPTCHA_UNSOLVABLE"}],
    )
    first = (await live.submit()).partition("|")[2]
    await live.submit()
    await live.submit(googlekey="nonce-deaddead")
    live.clock.now += 2
    await live.result(id=first)
    told = await live.ledger()
    with (tmp_path / "ledger.jsonl").open("a", encoding="utf-8") as torn:
        torn.write('{"event": "submit", "id": "9')
    kept = read_file(tmp_path / "ledger.jsonl", told["at"])
    # Polls are not worth a line each.
    for book in (told, kept):
        for entry in book["nonces"].values():
            for submit in entry["submits"]:
                submit.pop("polls")
    assert kept["nonces"] == told["nonces"]
    assert [one["state"] for one in told["nonces"]["nonce-0123abcd"]["submits"]] == ["solved", "solved"]
    assert told["nonces"]["nonce-deaddead"]["submits"][0]["state"] == "unsolvable"
    assert told["totals"]["repeated"] == 1


@pytest.mark.parametrize("number", range(64))
def test_a_nonce_in_a_png_ends_where_its_text_ends(number: int) -> None:
    # The checksum behind the text begins with a hexadecimal digit in about one of twelve images.
    nonce = f"nonce-{number:016x}"
    image = payload.make_png({"comment": nonce})
    assert payload.find_nonce({}, image) == nonce
    assert payload.find_nonce({}, payload.make_png({"answer": "x"}) + nonce.encode()) == nonce
