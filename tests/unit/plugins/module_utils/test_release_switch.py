# SPDX-License-Identifier: GPL-3.0-or-later
"""The decisions of a switch, and its steps against a scripted worker and service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.module_utils import _files, _release_switch
from ansible_collections.solver.fleet.plugins.module_utils._client import (
    ApiProblem,
    DeadSocket,
    Hung,
    NoSocket,
    WorkerError,
)
from ansible_collections.solver.fleet.plugins.module_utils._files import StepError, mask
from ansible_collections.solver.fleet.plugins.module_utils._release import (
    HOME_ORDER,
    SLOT_ORDER,
    Known,
    Links,
    envs_to_prune,
    needed_releases,
    read_links,
    releases_to_prune,
    standby_unit,
)
from ansible_collections.solver.fleet.plugins.module_utils._release_switch import (
    Move,
    Seen,
    Switch,
    renewal,
    restart_outcome,
)
from ansible_collections.solver.fleet.plugins.module_utils._service import ServiceState

DRAIN = {"owner": "r1", "mode": "complete"}


def status(state: str = "drained", boot: str = "b1", release: str = "old", **more: Any) -> dict[str, Any]:
    return {
        "api": {"features": ["verify"]},
        "instance": {"boot_id": boot, "release": release, "pid": 7},
        "state": state,
        "safe_to_stop": True,
        "drain": DRAIN,
        "totals": {"accepted": 3},
        "journal": {"id": "j"},
        **more,
    }


class FakeClient:
    """Answers from a list; the last answer stays."""

    def __init__(self, *answers: Any, put: Any = None) -> None:
        self.answers = list(answers)
        self.put = put
        self.calls: list[Any] = []

    def status(self, wait: float = 0, until: Any = ()) -> dict[str, Any]:
        if wait:
            self.calls.append("wait")
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def put_drain(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.calls.append(body)
        if isinstance(self.put, Exception):
            raise self.put
        return self.put or (200, status())

    def delete_drain(self, owner: str, steal: bool = False) -> tuple[int, None]:
        self.calls.append(("delete", owner, steal))
        return 204, None


class FakeService:
    def __init__(self, *states: ServiceState) -> None:
        self.states = list(states) or [ServiceState("running", 8, "")]
        self.calls: list[str] = []

    name = "w1"
    refuses: str | None = None

    def restart(self, force: bool = False, keep: Any = ()) -> None:
        self.calls.append("restart")

    def cannot_start(self) -> str | None:
        return self.refuses

    def state(self) -> ServiceState:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def log_tail(self, lines: int = 20) -> list[str]:
        return ["the end of the log"]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.worker = folder / "workers" / "w1"
        self.worker.mkdir(parents=True)
        for name in ("old", "new", "older"):
            (folder / "releases" / name / "env" / "bin").mkdir(parents=True)
            (folder / "releases" / name / "env" / "bin" / "python").touch()
            (folder / "releases" / name / "release.json").write_text(
                f'{{"schema": "solver.release/1", "id": "{name}", "version": "1"}}'
            )
        self.link("current", "old")

    def link(self, name: str, release: str) -> None:
        (self.worker / name).symlink_to(self.folder / "releases" / release)

    def links(self) -> tuple[str | None, ...]:
        return tuple(path and Path(path).name for path in read_links(str(self.worker))[:2])

    def switch(self, client: FakeClient, service: FakeService | None = None, **more: Any) -> Switch:
        move = Move("w1", str(self.worker), str(self.folder), **{"release": "new", "owner": "r1", **more})
        clock = Clock()
        return Switch(move, client, service or FakeService(), clock, clock.sleep)  # type: ignore[arg-type]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_the_drain_is_renewed_to_verify_before_the_link_moves(world: World) -> None:
    client, service = FakeClient(status(), status(boot="b2", release="new")), FakeService()
    switch = world.switch(client, service, lease_s=60.0)
    result = switch.run(False)
    assert client.calls == [{"owner": "r1", "on_expire": "verify", "lease_s": 60.0}]
    assert service.calls == ["restart"]
    assert world.links() == ("new", "old")
    assert (result["boot_id_before"], result["boot_id"], result["changed"]) == ("b1", "b2", True)


def test_nothing_waits_any_more_after_a_switch(world: World) -> None:
    world.link("staged", "new")
    world.switch(FakeClient(status())).run(False)
    assert world.links() == ("new", "old")
    assert read_links(str(world.worker)).staged is None


def test_a_worker_that_cannot_verify_itself_is_held() -> None:
    document = status(api={"features": []})
    assert renewal(Move("w1", "", "", owner="r1"), document)["on_expire"] == "hold"


REFUSALS = [
    (status(drain=None), None, {}, "lease_lost"),
    (status(drain={"owner": "other"}), None, {}, "foreign_drain"),
    (status(), ApiProblem(409, {"code": "drained_by_another", "owner": "x", "detail": "no"}), {}, "foreign_drain"),
    (status(), (202, status()), {}, "lease_lost"),
    (status(), (200, status(state="draining", safe_to_stop=False)), {}, "not_safe_to_stop"),
    (status(), ApiProblem(503, {"code": "stopping", "detail": "no"}), {}, "stopping"),
    (Hung("it hangs"), None, {}, "hung"),
    (WorkerError("denied", "no right"), None, {}, "denied"),
    (WorkerError("foreign", "no worker"), None, {"force_restart": True}, "foreign"),
    (status(state="starting", drain=None), None, {}, "starting"),
]


@pytest.mark.parametrize(("answer", "put", "more", "code"), REFUSALS)
def test_a_refusal_touches_nothing(world: World, answer: Any, put: Any, more: dict[str, Any], code: str) -> None:
    service = FakeService()
    switch = world.switch(FakeClient(answer, put=put), service, **more)
    with pytest.raises((StepError, WorkerError)) as error:
        switch.run(False)
    assert error.value.code == code
    assert service.calls == []
    assert world.links() == ("old", None)
    assert (switch.result["switched"], switch.result["changed"]) == (False, False)


def test_a_drain_that_began_by_mistake_is_given_back(world: World) -> None:
    client = FakeClient(status(), put=(202, status()))
    with pytest.raises(StepError):
        world.switch(client).run(False)
    assert client.calls[-1] == ("delete", "r1", False)


@pytest.mark.parametrize(
    ("first", "more"),
    [
        (NoSocket("none"), {}),
        (DeadSocket("dead"), {}),
        (status(state="failed", drain=None, safe_to_stop=False), {}),
        (Hung("it hangs"), {"force_restart": True}),
        (status(state="starting", drain=None), {"force_restart": True}),
    ],
)
def test_where_nothing_can_be_lost_no_drain_is_needed(world: World, first: Any, more: dict[str, Any]) -> None:
    client = FakeClient(first, status(boot="b2", release="new"))
    assert world.switch(client, **more).run(False)["restarted"] is True
    assert client.calls == []
    assert world.links() == ("new", "old")


def test_a_worker_that_is_just_starting_is_waited_for(world: World) -> None:
    client = FakeClient(status(state="starting"), status(), status(boot="b2"))
    assert world.switch(client).run(False)["switched"] is True
    assert client.calls[0] == "wait"


def test_at_target_nothing_happens(world: World) -> None:
    service = FakeService()
    result = world.switch(FakeClient(status("running", drain=None)), service, release="old").run(False)
    assert (result["changed"], service.calls) == (False, [])


def test_check_mode_asks_for_no_drain_and_touches_nothing(world: World) -> None:
    client, service = FakeClient(status("running", drain=None)), FakeService()
    result = world.switch(client, service, release="not-there-yet").run(True)
    assert (result["changed"], client.calls, service.calls) == (True, [], [])
    assert world.links() == ("old", None)


def test_killed_between_two_links_the_way_back_is_known(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real, done = _release_switch.switch_link, []

    def killed(path: str, target: str) -> None:
        if done:
            raise KeyboardInterrupt
        done.append(path)
        real(path, target)

    monkeypatch.setattr(_release_switch, "switch_link", killed)
    with pytest.raises(KeyboardInterrupt):
        world.switch(FakeClient(NoSocket("none"))).run(False)
    assert world.links() == ("old", "old"), "where it comes from is written first"
    (world.worker / "previous").unlink()
    world.link("previous", "older")
    done.clear()
    with pytest.raises(KeyboardInterrupt):
        world.switch(FakeClient(NoSocket("none")), release=None, previous=True).run(False)
    assert world.links() == ("older", "older"), "where it goes to is never overwritten"


def test_a_service_that_gave_up_shows_its_log(world: World) -> None:
    service = FakeService(ServiceState("restarting", None, "exited too quickly"))
    switch = world.switch(FakeClient(NoSocket("none")), service)
    with pytest.raises(StepError) as error:
        switch.run(False)
    assert error.value.message == (
        "restarting worker w1: its service is restarting (exited too quickly); the details show the end of its log"
    )
    assert error.value.details["log"] == ["the end of the log"]
    assert (switch.result["switched"], switch.result["restarted"]) == (True, True)


def test_a_link_that_has_moved_is_told_whatever_fails_next(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the way back the link to the previous one comes second; what the next start runs has changed by then."""
    world.link("previous", "new")
    whole, full = _release_switch.switch_link, OSError(28, "No space left on device", "previous")

    def link(path: str, target: str) -> None:
        if path.endswith("previous"):
            raise full
        whole(path, target)

    monkeypatch.setattr(_release_switch, "switch_link", link)
    switch = world.switch(FakeClient(status()), FakeService())
    with pytest.raises(StepError, match="No space left on device"):
        switch.run(False)
    assert world.links()[0] == "new"
    assert switch.result["switched"] is True


@pytest.mark.parametrize(("code", "restarted"), [("stop_timeout", True), ("reload_failed", False)])
def test_a_restart_that_was_asked_for_is_told_whatever_comes_of_it(
        world: World, monkeypatch: pytest.MonkeyPatch, code: str, restarted: bool) -> None:
    """The link leads there already, by a run that was killed: the manager may still start it."""
    world.link("previous", "older")
    service, switch_to = FakeService(), "old"

    def restart(force: bool = False, keep: Any = ()) -> None:
        raise StepError(code, "it does not end")

    monkeypatch.setattr(service, "restart", restart)
    switch = world.switch(FakeClient(status(release="older")), service, release=switch_to)
    with pytest.raises(StepError, match="it does not end"):
        switch.run(False)
    assert (switch.result["switched"], switch.result["restarted"]) == (False, restarted)


def test_what_stands_by_is_needed_like_what_runs(world: World) -> None:
    world.link("standby", "new")
    world.link("staged", "older")
    assert needed_releases([str(world.worker)]) == {"old", "new"}


UNIT = """[Service]
EnvironmentFile=/srv/app/current/env
ExecStart=/opt/solver/workers/current/current/env/bin/solver-worker serve --standby {home}
"""


def test_the_unit_of_a_slot_leads_to_the_standby_and_nothing_else_of_it_changes() -> None:
    made = standby_unit(UNIT.format(home="/run/w1" + HOME_ORDER), "/opt/solver/workers/current")
    assert made == UNIT.format(home="/run/w1" + SLOT_ORDER).replace("current/current", "current/standby")
    assert standby_unit(UNIT.format(home="/run/w1.json"), "/opt/solver/workers/current") is None


def test_of_a_removal_that_is_killed_nothing_stays_that_looks_whole(
        world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = world.folder / "releases" / "older"

    def killed(_path: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_files.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            _files.remove_tree(str(gone))
    assert not gone.exists()
    gone.mkdir()
    _files.remove_tree(str(gone))
    assert sorted(path.name for path in gone.parent.iterdir()) == ["new", "old"]


def test_a_process_that_never_changes_is_given_up(world: World) -> None:
    service = FakeService(ServiceState("running", 7, ""))
    switch = world.switch(FakeClient(status()), service, restart_timeout=5.0)
    with pytest.raises(StepError, match="running and the worker drained: there is no other process") as error:
        switch.run(False)
    assert error.value.code == "restart_timeout"


def test_restart_needs_a_service(world: World) -> None:
    move = Move("w1", str(world.worker), str(world.folder), release="new", owner="r1")
    with pytest.raises(StepError, match="set service, or restart to false"):
        Switch(move, FakeClient(status()), None).run(False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("now", "service", "elapsed", "outcome"),
    [
        (Seen("answers", status(boot="b2")), ("starting", 8), 0, "done"),
        (Seen("answers", status()), ("running", 7), 9, None),
        (Seen("stopped"), ("running", 8), 1, None),
        (Seen("stopped"), ("running", 8), 3, "done"),
        (Seen("stopped"), ("running", 7), 9, None),
        (Seen("stopped"), ("running", None), 2, None),
        (Seen("stopped"), ("running", None), 3, "done"),
        (Seen("answers", status()), ("running", None), 9, None),
        (Seen("stopped"), ("starting", 8), 1, None),
        (Seen("stopped"), ("starting", 8), 3, "done"),
        (Seen("stopped"), ("starting", None), 3, "done"),
        (Seen("stopped"), ("starting", 7), 9, None),
        (Seen("hung"), ("running", None), 9, None),
        (Seen("answers", status()), ("starting", 8), 9, None),
        (Seen("answers", status()), ("starting", None), 9, None),
        (Seen("stopped"), ("unknown", 8), 9, None),
        (Seen("stopped"), ("stopped", None), 1, None),
        (Seen("stopped"), ("stopped", None), 2, "failed"),
        (Seen("dead"), ("failed", None), 0, "failed"),
        (Seen("dead"), ("restarting", None), 0, "failed"),
    ],
)
def test_restart_outcomes(now: Seen, service: tuple[str, int | None], elapsed: float, outcome: str | None) -> None:
    before = Seen("answers", status())
    assert restart_outcome(before, 7, now, ServiceState(*service, ""), elapsed) == outcome


def test_pruning_is_by_worker_and_age() -> None:
    known = [Known(f"r{i}", "w1", f"2026-01-0{i}", f"e{i}") for i in range(1, 6)]
    known.append(Known("x", "w2", "2026-01-01", "e1"))
    assert releases_to_prune(known, "w1", 2, {"r2"}, "r1") == ["r3"]
    assert releases_to_prune(known, "w1", 0, {k.name for k in known}) == []
    assert envs_to_prune(["e1", "e2", "e9"], known) == ["e9"]


def test_no_previous_when_both_links_are_the_same() -> None:
    base = _release_switch.Base("/b")
    with pytest.raises(StepError) as error:
        _release_switch.release_to_switch_to(Move("w1", "", "", previous=True), Links("/b/r", "/b/r"), base)
    assert error.value.code == "no_previous"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("at https://u:p@h/simple", "at https://********@h/simple"),
        ("https://token@h", "https://********@h"),
        ("mail a@b", "mail a@b"),
    ],
)
def test_mask(text: str, masked: str) -> None:
    assert mask(text) == masked


def test_what_cannot_be_started_again_is_not_stopped(world: World) -> None:
    service = FakeService()
    service.refuses = "its unit is masked"
    client = FakeClient(status())
    switch = world.switch(client, service)
    with pytest.raises(StepError, match=r"could not be started again: its unit is masked") as error:
        switch.run(check_mode=False)
    assert (error.value.code, error.value.cause) == ("cannot_start", "host")
    assert (service.calls, client.calls) == ([], [])
    assert (switch.result["switched"], switch.result["restarted"]) == (False, False)
    assert world.links() == ("old", None)
