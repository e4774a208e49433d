# SPDX-License-Identifier: GPL-3.0-or-later
"""A second process of a worker stands by and takes over, shown on real processes under traffic."""

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from harness import Process, Worker, World, balanced, eventually, task
from hypothesis import given
from hypothesis import strategies as st
from solver_worker import config, handover
from solver_worker import drain as drains
from solver_worker.errors import ConfigError
from solver_worker.standby import read_order
from solver_worker.succession import Ask, why_not

FAST = ("--solve", "default=0.2:0.4")


class Standby:
    """A standby of a worker, reached by its own control socket until it has taken over."""

    def __init__(self, worker: Worker, order: Path, env: dict[str, str]) -> None:
        self.worker = worker
        self.order = order
        self.env = env
        self.socket = worker.home / "s.sock"
        self.process = self.again()

    def again(self) -> Process:
        """What its service manager does when it died."""
        command = self.worker.command("serve", "--standby", str(self.order), "--config", str(self.worker.config))
        return self.worker.world.keep(Process(command, self.worker.home / "log", self.env))

    async def control(self, method: str, target: str, body: Any = None) -> tuple[int, Any]:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket))) as session,
            session.request(method, "http://localhost" + target, json=body) as reply,
        ):
            text = await reply.text()
            return reply.status, json.loads(text) if text else None

    async def probe(self, request_id: str = "p1", **more: Any) -> Any:
        status, answer = await self.control("POST", "/v1/probe", {"request_id": request_id, **more})
        assert status == 200, answer
        return answer

    async def take_over(self, owner: str = "me", within_s: float = 20) -> tuple[int, Any]:
        return await self.control("POST", "/v1/standby/take-over", {"owner": owner, "within_s": within_s})

    async def up(self) -> "Standby":
        async def stands() -> bool:
            assert self.process.alive, self.worker.log
            try:
                return bool((await self.control("GET", "/v1/status"))[1]["state"] == "standby")
            except (aiohttp.ClientError, OSError):
                return False

        await eventually(stands)
        return self


def raise_standby(worker: Worker, version: str = "9.0.0", order: dict[str, Any] | None = None, **env: str) -> Standby:
    path = worker.home / "order.json"
    document = {"socket": str(worker.home / "s.sock"), "owner": "me", "lease_s": 60, **(order or {})}
    path.write_text(json.dumps(document))
    return Standby(worker, path, {"SF_VERSION": version, **env})


async def verified(worker: Worker, version: str = "9.0.0", **env: str) -> Standby:
    standby = await raise_standby(worker, version, **env).up()
    assert (await standby.probe(f"p-{standby.process.pid}"))["outcome"] == "succeeded"
    return standby


@dataclass
class Traffic:
    """Requests at a steady rate, half of them on connections that are kept; each task is sent four times."""

    worker: Worker
    took: list[tuple[float, float]] = field(default_factory=list)  # when, and for how long
    wrong: list[str] = field(default_factory=list)
    ids: dict[int, str] = field(default_factory=dict)

    async def one(self, session: aiohttp.ClientSession, request: int) -> None:
        began, number = time.monotonic(), request // 4
        headers = {"Idempotency-Key": f"key-{number}"}
        try:
            async with session.post(f"{self.worker.url}/v1/tasks", json=task(number), headers=headers) as reply:
                document = await reply.json()
                if reply.status not in (200, 202):
                    self.wrong.append(f"{reply.status} {document}")
                    return
        except (aiohttp.ClientError, OSError, TimeoutError) as exc:
            self.wrong.append(repr(exc))
            return
        self.ids[number] = document["id"]
        self.took.append((began, time.monotonic() - began))


@asynccontextmanager
async def traffic(worker: Worker, rate: float = 50.0) -> AsyncIterator[Traffic]:
    seen, over = Traffic(worker), asyncio.Event()
    bound = aiohttp.ClientTimeout(total=20)
    fresh = aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True), timeout=bound)
    kept = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=20), timeout=bound)

    async def send() -> None:
        async with asyncio.TaskGroup() as group:
            number, began = 0, time.monotonic()
            while not over.is_set():
                number += 1
                group.create_task(seen.one((fresh, kept)[number % 2], number))
                await asyncio.sleep(max(began + number / rate - time.monotonic(), 0))

    async with fresh, kept:
        sending = asyncio.create_task(send())
        try:
            yield seen
        finally:
            over.set()
            await sending


# -- standing by


async def test_a_standby_answers_status_and_probe_and_touches_nothing(world: World) -> None:
    world.sandbox(*FAST)
    worker = await world.worker().start()
    before = await worker.status()
    standby = await raise_standby(worker).up()
    _unused, document = await standby.control("GET", "/v1/status")
    assert (document["tasks"], document["totals"], document["journal"], document["drain"]) == (None,) * 4
    assert (document["standby"]["owner"], document["standby"]["verified"]) == ("me", False)
    assert "standby" in document["api"]["features"]
    assert (document["accepting"], document["safe_to_stop"]) == (False, True)
    answer = await standby.probe()
    assert (answer["outcome"], answer["version"]) == ("succeeded", "9.0.0")
    assert await standby.probe() == answer
    assert (await standby.control("GET", "/v1/status"))[1]["standby"]["verified"]
    assert (await standby.probe("p2", expect="something else"))["outcome"] == "failed"
    assert not (await standby.control("GET", "/v1/status"))[1]["standby"]["verified"]
    now = await worker.status()
    assert (now["state"], now["totals"], now["seq"]) == ("running", before["totals"], before["seq"])
    assert now["standby"] is None


async def test_a_standby_cannot_be_drained_and_a_worker_is_no_standby(world: World) -> None:
    worker = await world.worker().start()
    standby = await raise_standby(worker).up()
    for method, target in (("PUT", "/v1/drain"), ("DELETE", "/v1/drain?owner=me")):
        status, problem = await standby.control(method, target, {"owner": "me"})
        assert (status, problem["code"], problem["state"]) == (503, "not_now", "standby")
    for method, target in (
        ("PUT", "/v1/standby"),
        ("DELETE", "/v1/standby?owner=me"),
        ("POST", "/v1/standby/take-over"),
    ):
        status, problem = await worker.control(method, target, {"owner": "me"})
        assert (status, problem["code"]) == (503, "not_now")
        assert "no standby" in problem["detail"]


async def test_only_its_owner_renews_and_ends_a_standby(world: World) -> None:
    worker = await world.worker().start()
    standby = await raise_standby(worker).up()
    for method, target, code in (
        ("PUT", "/v1/standby", "standby_of_another"),
        ("DELETE", "/v1/standby?owner=you", "standby_of_another"),
        ("POST", "/v1/standby/take-over", "standby_of_another"),
    ):
        status, problem = await standby.control(method, target, {"owner": "you"})
        assert (status, problem["code"], problem["owner"]) == (409, code, "me")
    assert (await standby.control("PUT", "/v1/standby", {"owner": "me", "colour": 1}))[0] == 400
    status, document = await standby.control("PUT", "/v1/standby", {"owner": "me", "reason": "still wanted"})
    assert (status, document["standby"]["reason"]) == (200, "still wanted")
    assert json.loads(standby.order.read_text())["reason"] == "still wanted"
    stolen = await standby.control("PUT", "/v1/standby", {"owner": "you", "steal": True})
    assert (stolen[0], stolen[1]["standby"]["owner"]) == (200, "you")
    assert (await standby.control("DELETE", "/v1/standby?owner=you"))[0] == 200
    assert await standby.process.wait() == 0
    assert (standby.order.exists(), standby.socket.exists()) == (False, False)
    assert (await worker.status())["state"] == "running"


async def test_without_renewal_a_standby_ends_by_itself_and_a_restart_does_not_prolong_it(world: World) -> None:
    worker = await world.worker().start()
    standby = await raise_standby(worker, order={"lease_s": 5}).up()
    began = time.monotonic()
    standby.process.send(signal.SIGKILL)
    await standby.process.wait()
    assert standby.order.exists()
    assert await standby.again().wait() == 0
    assert time.monotonic() - began < 9
    assert not standby.order.exists()
    assert "lease of the standby ran out" in worker.log


async def test_two_standbys_of_one_worker_are_refused(world: World) -> None:
    worker = await world.worker().start()
    await raise_standby(worker).up()
    second = raise_standby(worker, order={"socket": str(worker.home / "t.sock")})
    assert await second.process.wait() == 75
    assert "a worker has one at a time" in worker.log


@pytest.mark.parametrize(
    ("order", "text"),
    [
        ({"socket": "/tmp/elsewhere.sock"}, "socket must lie beside control.socket"),
        ({"socket": "relative"}, "absolute path"),
        ({"owner": ""}, "owner must be 1 to 200"),
        ({"lease_s": 1}, "lease_s must be a number from 5"),
        ({"colour": 1}, "colour is unknown"),
    ],
)
async def test_a_bad_order_is_refused_by_field(world: World, order: dict[str, Any], text: str) -> None:
    worker = world.worker()
    standby = raise_standby(worker, order=order)
    assert await standby.process.wait() == 2
    assert text in worker.log


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(["socket", "owner", "reason", "lease_s", "renewed", "kernel"]), JSON) | JSON)
def test_no_order_breaks_more_than_itself(tmp_path_factory: pytest.TempPathFactory, document: Any) -> None:
    home = tmp_path_factory.mktemp("order", numbered=True)
    path = home / "order.json"
    made, _problems = config.parse(
        {
            "worker": {"name": "w1", "state_dir": "/s"},
            "control": {"socket": "/r/c.sock"},
            "data": {"port": 1},
            "provider": {"api_key_file": "/k"},
        }
    )
    assert made is not None
    path.write_text(json.dumps(document))
    with suppress(ConfigError):
        read_order(path, made, 100.0)
    for text in (b"", b"{", b"\xff", b"[" * 70_000):
        path.write_bytes(text)
        with pytest.raises(ConfigError, match="reading the order"):
            read_order(path, made, 100.0)


@given(st.dictionaries(st.sampled_from(["owner", "version", "verified", "within_s", "addresses"]), JSON))
def test_only_a_whole_question_is_one(message: dict[str, Any]) -> None:
    good = {"owner": "me", "version": "9", "verified": True, "within_s": 5, "addresses": []}
    assert Ask.read(good) is not None
    found = Ask.read({**good, **message})
    assert found is None or 0 < found.within_s <= 300
    assert message.keys() == good.keys() or Ask.read(message) is None


def test_who_may_take_over() -> None:
    ask = Ask("me", "9", True, 5.0, [])
    drain = drains.decide(None, {"owner": "you"}, drains.Moment(1.0, 1.0), "8", False).drain
    bare = replace(ask, verified=False)
    rows = (
        ("serving", None, ask, None),
        ("failed", None, ask, "not_now"),
        ("stopping", None, ask, "not_now"),
        ("serving", drain, ask, "drained_by_another"),
        ("serving", replace(drain, expired=True), ask, None),
        ("serving", replace(drain, owner="me"), ask, None),
        ("serving", None, bare, "unverified"),
        ("serving", None, replace(bare, version="8"), None),
    )
    for phase, held, asked, code in rows:
        refusal = why_not(phase, "8", held, asked)
        assert (None if refusal is None else refusal.code) == code, (phase, held, asked)


# -- taking over


async def test_it_takes_over_with_all_that_is_open_and_serves(world: World) -> None:
    world.sandbox("--solve", "userrecaptcha=2:2", "--solve", "default=0.1:0.1")
    worker = await world.worker().start()
    assert worker.process is not None
    ids = [(await worker.post(f"k{number}", task(number)))[1]["id"] for number in range(5)]
    before = await worker.status()
    standby = await verified(worker)
    status, document = await standby.take_over()
    assert status == 200, document
    assert await worker.process.wait() == 0
    now = await worker.status()
    assert (now["state"], now["instance"]["pid"]) == ("running", standby.process.pid)
    assert now["instance"]["boot_id"] == document["instance"]["boot_id"] != before["instance"]["boot_id"]
    assert (now["instance"]["version"], now["standby"], now["drain"]) == ("9.0.0", None, None)
    assert now["journal"]["id"] == before["journal"]["id"]
    assert now["instance"]["restarts"] == before["instance"]["restarts"] + 1
    assert [(await worker.final(one))["state"] for one in ids] == ["succeeded"] * 5
    status, known = await worker.post("k0", task(0))
    assert (status, known["id"]) == (200, ids[0])
    totals = (await worker.status())["totals"]
    assert (totals["accepted"], totals["succeeded"], totals["probes"], totals["provider_submits"]) == (5, 5, 1, 6)
    assert balanced(totals, 0)
    assert (standby.order.exists(), standby.socket.exists(), worker.socket.exists()) == (False, False, True)
    # The probe is known to the process that took over, and its place is free for the next.
    again = await worker.control("POST", "/v1/probe", {"request_id": f"p-{standby.process.pid}"})
    assert again[1]["boot_id"] == now["instance"]["boot_id"]
    assert (await worker.status())["totals"]["probes"] == 1
    await raise_standby(worker).up()


async def test_take_overs_under_traffic_refuse_and_break_nothing(world: World) -> None:
    world.sandbox(*FAST)
    worker = await world.worker().start()
    assert worker.process is not None
    serving = worker.process
    async with traffic(worker, rate=25) as seen:
        for number in range(3):
            standby = await verified(worker, f"9.0.{number}")
            status, document = await standby.take_over()
            assert (status, document["state"]) == (200, "running"), document
            assert await serving.wait() == 0
            serving = standby.process
    assert seen.wrong == []
    assert len(seen.ids) > 8
    for task_id in seen.ids.values():
        assert (await worker.final(task_id))["state"] == "succeeded"
    totals = (await worker.status())["totals"]
    assert (totals["accepted"], totals["refused"]) == (len(seen.ids), 0)
    submits = await world.submits()
    assert {submits[f"nonce-{number:08x}"] for number in seen.ids} == {1}


async def test_a_drain_goes_on_in_the_new_process_and_its_owner_alone_takes_over(world: World) -> None:
    world.sandbox(*FAST)
    worker = await world.worker().start()
    standby = await verified(worker)
    await worker.drain("you", mode="handover", on_expire="verify")
    status, problem = await standby.take_over()
    assert (status, problem["code"]) == (409, "drained_by_another")
    _unused, document = await standby.control("GET", "/v1/status")
    assert (document["state"], document["standby"]["last_error"]["code"]) == ("standby", "drained_by_another")
    assert document["standby"]["verified"]
    await worker.resume("you")
    await worker.drain("me", mode="handover", on_expire="verify", lease_s=77)
    status, document = await standby.take_over()
    assert (status, document["state"]) == (200, "drained")
    drain = (await worker.status())["drain"]
    assert (drain["owner"], drain["on_expire"]) == ("me", "verify")
    assert (await worker.resume("me"))[1]["state"] == "running"


async def test_an_unverified_standby_never_takes_over_another_version(world: World) -> None:
    world.sandbox(*FAST)
    worker = await world.worker().start()
    standby = await raise_standby(worker).up()
    status, problem = await standby.take_over()
    assert (status, problem["code"]) == (409, "unverified")
    await standby.probe("good")
    await standby.probe("bad", expect="something else")
    assert (await standby.take_over())[1]["code"] == "unverified"
    assert (await worker.status())["state"] == "running"
    same = (await worker.status())["instance"]["version"]
    assert (await standby.control("DELETE", "/v1/standby?owner=me"))[0] == 200
    await standby.process.wait()
    twin = await raise_standby(worker, same).up()
    status, document = await twin.take_over()
    assert (status, document["state"]) == (200, "running"), document


async def test_a_journal_that_stays_locked_is_said_within_the_bound(world: World) -> None:
    """By a process that hands nothing over: a release without the feature, or a stranger."""
    world.sandbox(*FAST)
    worker = await world.worker().start()
    standby = await verified(worker)
    (worker.home / "state" / "handover.sock").unlink()
    began = time.monotonic()
    status, problem = await standby.take_over(within_s=1)
    assert (status, problem["code"]) == (409, "lock_held")
    assert "drain and stop" in problem["detail"]
    assert time.monotonic() - began < 5
    assert (await worker.status())["state"] == "running"


async def test_of_a_process_that_hands_nothing_over_it_takes_the_place_when_it_stops(world: World) -> None:
    world.sandbox(*FAST)
    worker = await world.worker().start()
    standby = await verified(worker)
    (worker.home / "state" / "handover.sock").unlink()
    taking = asyncio.create_task(standby.take_over())

    async def waits() -> bool:
        return bool((await standby.control("GET", "/v1/status"))[1]["standby"]["taking_over"])

    await eventually(waits)
    await worker.term()
    status, document = await taking
    assert (status, document["state"]) == (200, "running"), document
    assert (await worker.post("k", task(1)))[0] == 202


async def test_calls_that_do_not_end_refuse_the_take_over_and_the_old_one_goes_on(world: World) -> None:
    world.sandbox("--solve", "default=0.2:0.2", "--submit-latency", "8")
    worker = await world.worker().start()
    same = (await worker.status())["instance"]["version"]
    standby = await raise_standby(worker, same).up()
    await worker.post("k", task(1))

    async def on_the_wire() -> bool:
        return bool((await worker.status())["tasks"]["submitting"])

    await eventually(on_the_wire)
    status, problem = await standby.take_over(within_s=1)
    assert (status, problem["code"]) == (409, "busy")
    assert (await worker.status())["state"] == "running"
    assert (await worker.post("k2", task(2)))[0] == 202


async def test_a_socket_that_cannot_be_passed_is_bound_again(world: World) -> None:
    world.sandbox(*FAST)
    worker = await world.worker().start(SF_NO_SOCKETS="1")
    standby = await verified(worker)
    status, document = await standby.take_over()
    assert (status, document["state"]) == (200, "running"), document
    assert (await worker.post("k", task(1)))[0] == 202


async def test_another_port_is_bound_and_requests_in_hand_find_their_way(world: World) -> None:
    world.sandbox(*FAST)
    worker = await world.worker().start()
    async with aiohttp.ClientSession() as kept:
        async with kept.get(worker.url + "/healthz") as reply:
            assert reply.status == 200
        old = worker.url
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            worker.port = sock.getsockname()[1]
        worker.configure(data={"port": worker.port})
        standby = await verified(worker)
        assert (await standby.take_over())[0] == 200
        headers = {"Idempotency-Key": "late"}
        async with kept.post(old + "/v1/tasks", json=task(1), headers=headers) as reply:
            assert (reply.status, reply.headers["Connection"]) == (202, "close")
    assert (await worker.post("late", task(1)))[0] == 200


# -- somebody dies


@dataclass(frozen=True)
class Death:
    who: str  # old, new
    at: str  # the place in wrapped.py
    serves: str  # who does in the end


DEATHS = [
    Death("new", "asked", "old"),
    Death("old", "asked", "new"),
    Death("old", "quiet", "new"),
    Death("old", "left", "new"),
    Death("new", "go", "old"),
    Death("new", "opened", "old"),
    Death("new", "recovered", "old"),
    Death("new", "replaced", "old"),
    Death("old", "served", "new"),
]


@pytest.mark.parametrize("death", DEATHS, ids=lambda death: f"{death.who}-{death.at}")
async def test_whoever_is_killed_one_process_serves_what_is_verified(world: World, death: Death) -> None:
    world.sandbox(*FAST)
    dying = {"SF_DIE": death.at}
    worker = await world.worker().start(**(dying if death.who == "old" else {}))
    assert worker.process is not None
    task_id = (await worker.post("k", task(1)))[1]["id"]
    standby = await verified(worker, **(dying if death.who == "new" else {}))
    try:
        status, document = await standby.take_over()
        assert status in (200, 409), document
    except (aiohttp.ClientError, OSError):
        assert death.who == "new"
    survivor = standby.process if death.serves == "new" else worker.process

    async def serves() -> bool:
        try:
            found = await worker.status()
        except (aiohttp.ClientError, OSError):
            return False
        return bool(found["state"] == "running" and found["instance"]["pid"] == survivor.pid)

    await eventually(serves)
    assert (await worker.final(task_id))["state"] == "succeeded"
    assert (await worker.final((await worker.post("k2", task(2)))[1]["id"]))["state"] == "succeeded"
    await (worker.process if death.serves == "new" else standby.process).wait()
    assert [(await world.submits())[f"nonce-{number:08x}"] for number in (1, 2)] == [1, 1]


async def test_who_can_neither_hand_over_nor_come_back_ends_and_is_started_again(world: World) -> None:
    world.sandbox(*FAST)
    worker = await world.worker().start(SF_NO_WAY_BACK="1")
    assert worker.process is not None
    standby = await verified(worker, SF_DIE="opened")
    with suppress(aiohttp.ClientError, OSError):
        await standby.take_over()
    assert await worker.process.wait() == 1
    await worker.start()  # as its service manager does
    assert (await worker.post("k", task(1)))[0] == 202


async def test_whoever_is_started_again_is_the_worker_or_finds_it(world: World) -> None:
    """By a service manager that sees one of the two processes die: the one place, and the other."""
    world.sandbox(*FAST)
    worker = await world.worker().start()
    standby = await verified(worker)
    assert (await standby.take_over())[0] == 200
    before = Process(worker.command("serve", "--config", str(worker.config)), worker.home / "log")
    world.keep(before)
    assert await before.wait() == 75
    standby.process.send(signal.SIGKILL)
    await standby.process.wait()
    worker.process = world.keep(standby.again())
    assert (await worker.reach("running", "drained"))["state"] == "running"
    assert (await worker.status())["instance"]["version"] == "9.0.0"


async def test_a_bare_standby_is_held_like_any_unverified_version(world: World) -> None:
    """The worker is gone, and nobody probed what takes its place."""
    world.sandbox("--solve", "default=60:60")
    worker = await world.worker().start()
    standby = await raise_standby(worker).up()
    await worker.kill()
    status, document = await standby.take_over()
    assert (status, document["state"], document["drain"]["owner"]) == (200, "drained", "solver-worker")


def test_only_its_own_user_and_root_may_ask_for_the_listening_socket(
    monkeypatch: pytest.MonkeyPatch, short_dir: Path,
) -> None:
    """The folder keeps others out already; this holds where somebody has opened it."""
    address = str(short_dir / "door.sock")

    def ask() -> socket.socket:
        asking = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        asking.connect(address)
        return asking

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(address)
        listening.listen()
        with ask(), listening.accept()[0] as connection:
            assert handover._may(connection)
        if os.geteuid() != 0:
            monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
            with ask(), listening.accept()[0] as connection:
                assert not handover._may(connection)
            return
        short_dir.chmod(0o755)
        Path(address).chmod(0o777)
        child = os.fork()
        if child == 0:
            os.setuid(65534)
            ask().recv(1)
            os._exit(0)
        with listening.accept()[0] as connection:
            assert not handover._may(connection)
        assert os.waitpid(child, 0)[1] == 0
