# SPDX-License-Identifier: GPL-3.0-or-later
"""The control API, asked of the reference worker and of the light one: what holds for one holds for the other.

Every answer is also held against docs/openapi/control-v1.yaml.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from fleetlib import ROOT
from harness import Process, Worker, World, balanced, eventually, task
from lightfleet import LightFleet
from test_openapi import Contract

pytestmark = pytest.mark.quick

CONTRACT = Contract(yaml.safe_load((ROOT / "docs/openapi/control-v1.yaml").read_text(encoding="utf-8")))

REFUSALS = [
    ("GET", "/v1/status?wait=x", None, 400, "bad_field", "wait"),
    ("GET", "/v1/status?wait=61", None, 400, "bad_field", "wait"),
    ("GET", "/v1/status?until=asleep", None, 400, "bad_field", "until"),
    ("PUT", "/v1/drain", None, 415, "not_json", None),
    ("PUT", "/v1/drain", [], 400, "bad_field", "body"),
    ("PUT", "/v1/drain", {}, 400, "bad_field", "owner"),
    ("PUT", "/v1/drain", {"owner": "a", "mood": 1}, 400, "bad_field", "mood"),
    ("PUT", "/v1/drain", {"owner": "a", "lease_s": 4}, 400, "bad_field", "lease_s"),
    ("PUT", "/v1/drain", {"owner": "a", "mode": "no"}, 400, "bad_field", "mode"),
    ("DELETE", "/v1/drain", None, 400, "bad_field", "owner"),
    ("DELETE", "/v1/drain?owner=a&steal=1", None, 400, "bad_field", "steal"),
    ("POST", "/v1/probe", {}, 400, "bad_field", "request_id"),
    ("POST", "/v1/probe", {"request_id": "r", "mood": 1}, 400, "bad_field", "mood"),
    ("POST", "/v1/probe", {"request_id": "r", "timeout_s": 0}, 400, "bad_field", "timeout_s"),
    ("POST", "/v1/probe", {"request_id": "r", "task": {"body": "x"}}, 400, "bad_field", "task"),
]


class Subject(Worker):
    """A worker under test: the harness's client of it, every answer checked, and the little that is not HTTP."""

    async def control(self, method: str, target: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        answer = await super().control(method, target, body, **headers)
        CONTRACT.check(method, target, answer)
        return answer

    async def probe(self, request_id: str, **more: Any) -> tuple[int, Any]:
        return await self.control("POST", "/v1/probe", {"request_id": request_id, **more})

    async def up(self, version: str = "1.2.0", until: str = "running") -> Subject:
        raise NotImplementedError

    async def busy(self) -> None:
        """Give it a task that takes a minute."""
        raise NotImplementedError

    async def probes(self, refused: bool = False, slow: bool = False) -> None:
        raise NotImplementedError

    async def hurry(self) -> None:
        """Let leases end earlier, where that can be had."""

    async def stand_by(self, version: str = "1.3.0", lease_s: float = 60) -> AStandby:
        """Raise a standby and wait until it answers."""
        socket = self.socket.with_name("s.sock")
        order = {"socket": str(socket), "owner": "me", "lease_s": lease_s}
        self.order.write_text(json.dumps(order), encoding="utf-8")
        await self.start_standby(version)
        standby = AStandby(self, socket)
        await eventually(standby.answers)
        return standby

    @property
    def order(self) -> Path:
        raise NotImplementedError

    async def start_standby(self, version: str) -> None:
        raise NotImplementedError


@dataclass
class AStandby:
    worker: Subject
    socket: Path

    async def control(self, method: str, target: str, body: Any = None) -> tuple[int, Any]:
        connector = aiohttp.UnixConnector(str(self.socket))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, "http://localhost" + target, json=body) as reply,
        ):
            answer = reply.status, await reply.json(content_type=None)
        CONTRACT.check(method, target, answer)
        return answer

    async def answers(self) -> bool:
        try:
            return bool((await self.control("GET", "/v1/status"))[1]["state"] == "standby")
        except (aiohttp.ClientError, OSError):
            return False

    async def status(self) -> Any:
        return (await self.control("GET", "/v1/status"))[1]

    async def probe(self, request_id: str, **more: Any) -> Any:
        return (await self.control("POST", "/v1/probe", {"request_id": request_id, **more}))[1]["outcome"]

    async def take_over(self, owner: str = "me") -> tuple[int, Any]:
        return await self.control("POST", "/v1/standby/take-over", {"owner": owner})


class Real(Subject):
    def __init__(self, world: World) -> None:
        self.sandbox = world.sandbox("--solve", "default=0.1:0.1", "--solve", "userrecaptcha=60:60")
        super().__init__(world, "w1", {"data": {}})

    async def up(self, version: str = "1.2.0", until: str = "running") -> Subject:
        await self.start(until, SF_VERSION=version)
        return self

    async def busy(self) -> None:
        assert (await self.post("k", task(1)))[0] == 202

        async def polling() -> bool:
            return bool((await self.status())["tasks"]["polling"] == 1)

        await eventually(polling)

    async def probes(self, refused: bool = False, slow: bool = False) -> None:
        await self.world.no_faults()
        if refused:
            await self.world.faults({"on": "in", "fault": "ERROR_KEY_DOES_NOT_EXIST", "times": None})
        if slow:
            await self.world.faults({"on": "res", "fault": "CAPCHA_NOT_READY", "times": 8})

    @property
    def order(self) -> Path:
        return self.home / "order.json"

    async def start_standby(self, version: str) -> None:
        command = self.command("serve", "--standby", str(self.order), "--config", str(self.config))
        self.world.keep(Process(command, self.home / "log", {"SF_VERSION": version}))


class Light(Subject):
    def __init__(self, world: World, fleet: LightFleet) -> None:
        self.world, self.fleet, self.name = world, fleet, "w1"
        self.boot(load=0)

    def boot(self, load: int) -> None:
        self.fleet.up(1, load=load, drain_s=60)
        self.socket = Path(self.fleet.socket("w1"))
        self.process = _Answering()  # type: ignore[assignment]

    async def up(self, version: str = "1.2.0", until: str = "running") -> Subject:
        self.fleet.link(version, "w1")
        self.fleet.start("w1")
        await self.reach(until)
        return self

    async def busy(self) -> None:
        self.boot(load=1)

    async def probes(self, refused: bool = False, slow: bool = False) -> None:
        self.fleet.heal()
        self.fleet.set_fault(probe="account" if refused else "", probe_s=1.0 if slow else 0.0)

    async def hurry(self) -> None:
        self.fleet.set_fault(lease_speed=20)

    async def term(self) -> None:
        await asyncio.to_thread(self.fleet.stop, "w1")

    async def kill(self) -> None:
        self.fleet.kill("w1")

    @property
    def order(self) -> Path:
        return self.socket.with_name(f"{self.socket.stem}-standby.order")

    async def start_standby(self, version: str) -> None:
        self.fleet.link(version, "w1", name="standby")
        await asyncio.to_thread(self.fleet.start_standby, "w1")


class _Answering:
    """Stands for a process where the harness looks whether there is still one."""

    alive = True


@pytest.fixture(params=["real", "light"])
async def worker(request: pytest.FixtureRequest, light_folder: Path) -> AsyncIterator[Subject]:
    home = Path(tempfile.mkdtemp(prefix="sl-", dir="/tmp"))
    world, fleet = World(home), LightFleet(light_folder)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http:
        world.http = http
        try:
            yield await (Real(world) if request.param == "real" else Light(world, fleet)).up()
        finally:
            world.end()
            shutil.rmtree(home)
            fleet.down()


async def test_status_features_and_versions(worker: Subject) -> None:
    assert await worker.control("GET", "/") == (200, {"versions": ["v1"]})
    status = await worker.status()
    assert status["api"]["features"] == [
        "drain.lease", "drain.persist", "probe", "wait", "handover", "verify", "peer_log", "solve_histogram",
        "failure_classes", "standby"]
    assert (status["instance"]["name"], status["instance"]["version"]) == ("w1", "1.2.0")
    assert (status["state"], status["accepting"], status["safe_to_stop"]) == ("running", True, False)
    assert (status["idle"], status["drain"], status["failure"]) == (True, None, None)


async def test_refusals_name_the_field(worker: Subject) -> None:
    for method, target, body, status, code, field in REFUSALS:
        found, problem = await worker.control(method, target, body)
        assert (found, problem["code"], problem.get("field")) == (status, code, field), (method, target, body)


async def test_what_is_no_call_of_the_api(worker: Subject) -> None:
    for headers in ({"Origin": "http://x"}, {"Host": "example.net"}):
        assert (await worker.control("GET", "/v1/status", **headers))[0] == 403
    for method, target, code in (("GET", "/v2", "not_found"), ("POST", "/v1/drain", "method_not_allowed")):
        # The description does not know these.
        _unused, problem = await Worker.control(worker, method, target)
        assert problem["code"] == code


async def test_two_owners_of_a_drain(worker: Subject) -> None:
    status, document = await worker.drain("a", reason="update")
    assert (status, document["state"], document["accepting"]) == (202, "drained", False)
    assert (document["safe_to_stop"], document["drain"]["owner"]) == (True, "a")
    status, renewed = await worker.drain("a", lease_s=60)
    assert (status, renewed["drain"]["reason"]) == (200, "update")
    assert renewed["drain"]["lease_expires_at"] < document["drain"]["lease_expires_at"]
    status, problem = await worker.drain("b")
    assert (status, problem["code"], problem["owner"]) == (409, "drained_by_another", "a")
    assert (await worker.resume("b"))[0] == 409
    status, document = await worker.drain("b", steal=True)
    assert (status, document["drain"]["owner"]) == (202, "b")
    status, document = await worker.resume("b")
    assert (status, document["state"], document["drain"]) == (200, "running", None)
    assert (await worker.resume("b"))[0] == 204


async def test_grace_still_accepts(worker: Subject) -> None:
    _unused, document = await worker.drain(grace_s=0.5)
    assert (document["state"], document["accepting"]) == ("draining", True)
    assert (await worker.reach("drained"))["accepting"] is False


async def test_complete_waits_for_what_is_open_and_handover_does_not(worker: Subject) -> None:
    await worker.busy()
    before = await worker.status()
    _unused, document = await worker.drain()
    assert (document["state"], document["safe_to_stop"], document["tasks"]["open"]) == ("draining", False, 1)
    assert document["drain"]["open_at_start"] == 1
    _unused, document = await worker.drain(mode="handover")
    assert (document["state"], document["safe_to_stop"], document["tasks"]["open"]) == ("drained", True, 1)
    assert balanced(document["totals"], document["tasks"]["open"])
    assert all(document["totals"][name] >= value for name, value in before["totals"].items())
    await worker.term()
    await worker.up(until="drained")
    after = await worker.status()
    assert (after["tasks"]["open"], after["journal"]["id"]) == (1, before["journal"]["id"])
    assert balanced(after["totals"], 1)


async def test_the_deadline_hands_over(worker: Subject) -> None:
    await worker.busy()
    await worker.drain(deadline_s=0.3, on_deadline="handover")
    assert (await worker.reach("drained"))["drain"]["mode"] == "handover"


@pytest.mark.parametrize("on_expire", ["resume", "verify", "hold"])
async def test_what_becomes_of_a_lease_that_ran_out(worker: Subject, on_expire: str) -> None:
    await worker.drain(lease_s=5, on_expire=on_expire)
    await worker.hurry()
    if on_expire == "hold":
        assert (await eventually(lambda: _expired(worker)))["state"] == "drained"
        assert (await worker.drain("other"))[0] == 202
    else:
        document = await worker.reach("running")
        assert (document["drain"], document["totals"]["probes"]) == (None, int(on_expire == "verify"))


async def _expired(worker: Subject) -> Any:
    document = await worker.status()
    return document if document["drain"]["expired"] else None


async def test_a_drain_survives_a_restart(worker: Subject) -> None:
    await worker.drain("a", lease_s=600, grace_s=300)
    before = await worker.status()
    await worker.term()
    after = await (await worker.up(until="drained")).status()
    assert after["instance"]["boot_id"] != before["instance"]["boot_id"]
    assert after["instance"]["restarts"] == before["instance"]["restarts"] + 1
    assert (after["accepting"], after["drain"]["owner"], after["drain"]["on_expire"]) == (False, "a", "resume")
    assert after["drain"]["lease_expires_at"][:18] == before["drain"]["lease_expires_at"][:18]
    assert (await worker.resume("a"))[1]["state"] == "running"


async def test_another_version_is_held_until_it_has_solved_a_probe(worker: Subject) -> None:
    await worker.probes(refused=True)
    await worker.term()
    document = await (await worker.up("1.3.0", until="drained")).status()
    drain = document["drain"]
    assert (document["accepting"], document["instance"]["version"]) == (False, "1.3.0")
    assert (drain["owner"], drain["on_expire"], drain["expired"]) == ("solver-worker", "verify", True)
    await eventually(lambda: _probes(worker, 1))
    assert (await worker.status())["state"] == "drained"
    await worker.term()
    await worker.up("1.2.0")  # the version that served last serves at once
    await worker.term()
    await worker.probes()
    await worker.up("1.3.0")
    await worker.term()
    await worker.up("1.3.0")
    assert (await worker.status())["totals"]["probes"] == 2


async def _probes(worker: Subject, count: int) -> bool:
    status = await worker.status()
    return bool(status["totals"]["probes"] == count and (status["safe_to_stop"] or status["accepting"]))


async def test_a_drain_over_a_version_change_verifies_whatever_it_asked(worker: Subject) -> None:
    await worker.drain(on_expire="resume")
    await worker.term()
    document = await (await worker.up("1.3.0", until="drained")).status()
    assert (document["drain"]["owner"], document["drain"]["on_expire"]) == ("me", "verify")
    assert (await worker.drain(on_expire="resume"))[1]["drain"]["on_expire"] == "verify"
    assert (await worker.resume())[1]["state"] == "running"


async def test_a_probe_is_never_billed_twice(worker: Subject) -> None:
    await worker.probes(slow=True)
    first = asyncio.create_task(worker.probe("r1"))
    await eventually(lambda: _probing(worker))
    status, problem = await worker.probe("r2")
    assert (status, problem["code"], problem["request_id"]) == (409, "probe_running", "r1")
    assert (await worker.status())["safe_to_stop"] is False
    joined = await worker.probe("r1")
    status, answer = await first
    assert (status, answer["outcome"], answer["error"], answer["version"]) == (200, "succeeded", None, "1.2.0")
    assert joined == (status, answer)
    await worker.term()
    await worker.up()
    assert await worker.probe("r1") == (status, answer)
    totals = (await worker.status())["totals"]
    assert (totals["probes"], totals["provider_submits"], totals["accepted"]) == (1, 1, 0)


async def _probing(worker: Subject) -> bool:
    return not (await worker.status())["idle"]


async def test_a_failed_probe_says_whose_fault_it_is(worker: Subject) -> None:
    assert (await worker.probe("r1", expect="other"))[1]["error"]["code"] == "WRONG_ANSWER"
    assert (await worker.probe("r2", expect="w7q4k"))[1]["outcome"] == "succeeded"
    await worker.probes(refused=True)
    _unused, answer = await worker.probe("r3")
    assert (answer["outcome"], answer["error"]["class"]) == ("failed", "account")


async def test_a_standby_is_probed_and_takes_over(worker: Subject) -> None:
    await worker.busy()
    before = await worker.status()
    standby = await worker.stand_by()
    document = await standby.status()
    assert [document[name] for name in ("tasks", "totals", "journal", "drain", "accepting")] == [None] * 4 + [False]
    assert (document["instance"]["version"], document["standby"]["owner"]) == ("1.3.0", "me")
    assert (await standby.control("PUT", "/v1/drain", {"owner": "me"}))[1]["state"] == "standby"
    status, problem = await standby.take_over()
    assert (status, problem["code"]) == (409, "unverified")
    assert (await standby.status())["standby"]["last_error"]["code"] == "unverified"
    assert await standby.probe("p1", expect="other") == "failed"
    assert await standby.probe("p2") == "succeeded"
    assert (await standby.status())["standby"]["verified"] is True
    status, document = await standby.take_over()
    assert (status, document["state"], document["standby"]) == (200, "running", None)
    after = await worker.reach("running")
    assert after["instance"]["boot_id"] == document["instance"]["boot_id"] != before["instance"]["boot_id"]
    assert (after["instance"]["version"], after["journal"]["id"]) == ("1.3.0", before["journal"]["id"])
    assert after["instance"]["restarts"] == before["instance"]["restarts"] + 1
    assert (after["tasks"]["open"], after["totals"]["probes"]) == (1, 2)
    assert (worker.order.exists(), standby.socket.exists()) == (False, False)
    assert (await worker.probe("p2"))[1]["boot_id"] == after["instance"]["boot_id"]
    assert (await worker.control("POST", "/v1/standby/take-over", {"owner": "me"}))[0] == 503
    assert (await worker.control("PUT", "/v1/standby", {"owner": "me"}))[0] == 503


async def test_a_standby_is_its_owner_s_and_so_is_the_drain_under_it(worker: Subject) -> None:
    standby = await worker.stand_by()
    for method, target in (("PUT", "/v1/standby"), ("DELETE", "/v1/standby?owner=you"),
                           ("POST", "/v1/standby/take-over")):
        status, problem = await standby.control(method, target, {"owner": "you"})
        assert (status, problem["code"], problem["owner"]) == (409, "standby_of_another", "me")
    status, problem = await standby.control("PUT", "/v1/standby", {"owner": "me", "lease_s": 1})
    assert (status, problem["field"]) == (400, "lease_s")
    assert (await standby.control("PUT", "/v1/standby", {"owner": "me", "reason": "r"}))[1]["standby"]["reason"] == "r"
    assert await standby.probe("p") == "succeeded"
    await worker.drain("you")
    assert (await standby.take_over())[1]["code"] == "drained_by_another"
    await worker.drain("me", steal=True, mode="handover")
    status, document = await standby.take_over()
    assert (status, document["state"], document["drain"]["owner"]) == (200, "drained", "me")
    assert (await worker.drain("me", on_expire="resume"))[1]["drain"]["on_expire"] == "resume"  # it is verified
    assert (await worker.resume("me"))[1]["state"] == "running"


async def test_a_standby_ends_by_its_owner_or_by_its_lease(worker: Subject) -> None:
    standby = await worker.stand_by()
    assert (await standby.control("DELETE", "/v1/standby?owner=me"))[0] == 200
    await eventually(lambda: not standby.socket.exists() and not worker.order.exists())
    again = await worker.stand_by(lease_s=5)
    await worker.hurry()
    await eventually(lambda: not again.socket.exists() and not worker.order.exists())
    assert (await worker.status())["state"] == "running"


async def test_a_waiting_client_hears_of_a_change_and_of_the_end(worker: Subject) -> None:
    waiting = asyncio.create_task(worker.control("GET", "/v1/status?wait=20&until=drained"))
    await worker.drain()
    assert (await waiting)[1]["state"] == "drained"
    seq = (await worker.status())["seq"]
    waiting = asyncio.create_task(worker.control("GET", "/v1/status?wait=20"))
    await asyncio.sleep(0.2)  # nothing shows that it waits
    await worker.term()
    assert (await waiting)[1]["state"] == "stopping"
    assert (await waiting)[1]["seq"] > seq


async def test_a_clean_stop_leaves_no_socket_and_a_killed_one_is_replaced(worker: Subject) -> None:
    await worker.term()
    assert not worker.socket.exists()
    await worker.up()
    await worker.kill()
    assert worker.socket.exists()
    with pytest.raises(aiohttp.ClientError):
        await worker.status()
    assert (await (await worker.up()).status())["instance"]["restarts"] == 2
