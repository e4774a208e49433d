# SPDX-License-Identifier: GPL-3.0-or-later
"""rollout_stage over a real ledger, with hosts that answer by a script, and the unit that it sends to them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from action_kit import Hosts, ledger_of, made, worker_settings
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar
from ansible_collections.solver.fleet.plugins.action import rollout_look, rollout_plan, rollout_stage
from ansible_collections.solver.fleet.plugins.filter.rollout import release_wheel as filtered
from ansible_collections.solver.fleet.plugins.plugin_utils import _staging
from ansible_collections.solver.fleet.plugins.plugin_utils._controller import _run
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._ledger import Ledger, document_of
from entry_kit import census, staged

Json = dict[str, Any]
NAMES = ["w1", "w2", "w3"]
WHEEL = {"name": "solver-worker", "version": "1.3.0", "file": "solver_worker-1.3.0-py3-none-any.whl",
         "sha256": "ab" * 32}
OTHER = {"name": "httpx", "version": "1.0", "file": "httpx-1.0-py3-none-any.whl", "sha256": "cd" * 32}
WHEELS: Json = {"failed": False, "wheels": [OTHER, WHEEL]}
GONE: Json = {"unreachable": True, "msg": "no route"}
CONTENTS = {"before": ["a"], "after": ["b"], "packages_before": [], "packages_after": None}


class Stage:
    """Stages on light hosts: each call is noted, and each answers by the script."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, remote: tuple[str, ...] = ()) -> None:
        self.ledger: Ledger = ledger_of(folder, NAMES, solver_version="1.3.0", solver_wheelhouse="$CONTROLLER/wheels")
        for name in remote:
            self.ledger.keep(document_of("worker", name), {**worker_settings(name), "on_controller": False})
        self.asked: dict[str, Json] = {}
        self.brought: dict[str, Json] = {}
        self.answers: dict[str, Json] = {}
        self.transfers: dict[str, Json] = {}
        self.limits: list[Json] = []
        monkeypatch.setattr(rollout_stage, "call_all", self.call_all)
        monkeypatch.setattr(rollout_stage, "call_on", self.call_on)
        monkeypatch.setattr(rollout_stage, "do_on", lambda _action, _vars, _host, work: lambda: work({}))
        monkeypatch.setattr(rollout_stage, "bring", self.bring)

    def call_all(self, looks: dict[str, Callable[[], Json]], **limits: Any) -> Json:
        self.limits.append(limits)
        return {name: look() for name, look in looks.items()}

    def call_on(self, _action: Any, _vars: Any, host: str, module: str, args: Json) -> Callable[[], Json]:
        assert module == "solver.fleet.worker_release"
        self.asked[host] = args
        return lambda: self.answers.get(host, {**staged(), "changed": True})

    def bring(self, _action: Any, args: Json, _vars: Any) -> Json:
        host = next(name for name in NAMES if name not in self.brought)
        self.brought[host] = args
        return self.transfers.get(host, {"changed": True, "missing": []})

    def run(self, wheels: Json | None = None, workers: list[str] | None = None, diff: bool = False,
            check_mode: bool = False) -> Json:
        action = made(rollout_stage.ActionModule, {
            "ledger": str(self.ledger.folder), "wheels": wheels or WHEELS,
            "workers": NAMES if workers is None else workers}, check_mode)
        action._task.diff = diff
        said: Json = action.run(None, {"ansible_forks": 7})
        return said

    @property
    def kept(self) -> Json:
        return dict(self.ledger.read("staged"))


def test_all_are_staged_at_once_and_each_with_its_own(tmp_path, monkeypatch):
    stage = Stage(tmp_path, monkeypatch)
    said = stage.run()
    assert (said["changed"], said["msg"]) == (True, "staged on 3 of 3 workers")
    assert "diff" not in said
    assert sorted(stage.kept) == sorted(stage.asked) == NAMES
    assert stage.brought == {}, "nothing is brought to the controller's own machine"
    args = stage.asked["w2"]
    assert (args["worker_dir"], args["version"], args["sha256"]) == ("/w2", "1.3.0", "ab" * 32)
    assert (args["rollout_id"], args["state"], args["contents"]) == ("r1", "staged", False)
    assert 'name = "w2"' in args["config"]
    assert "unit" not in args
    limit, = stage.limits
    assert (limit["parallel"], limit["main"]) == (7, os.getppid())
    assert limit["timeout"] > stage.ledger.read("rollout")["settings"]["solver_deploy_timeout"]


def test_a_digest_that_was_given_is_stronger_than_that_of_the_wheel(tmp_path, monkeypatch):
    stage = Stage(tmp_path, monkeypatch)
    rollout = stage.ledger.read("rollout")
    rollout["settings"]["solver_package_sha256"] = "ef" * 32
    stage.ledger.keep("rollout", rollout)
    stage.run()
    assert stage.asked["w1"]["sha256"] == "ef" * 32


def test_wheels_travel_first_and_who_did_not_get_them_is_asked_nothing_more(tmp_path, monkeypatch):
    monkeypatch.setenv("CONTROLLER", "/controller")
    stage = Stage(tmp_path, monkeypatch, remote=("w1", "w2", "w3"))
    stage.transfers = {"w1": GONE, "w3": {"failed": True, "msg": "full", "failure": {"code": "no_space"}}}
    said = stage.run()
    assert stage.brought["w2"] == {"src": "/controller/wheels", "dest": "/opt/wheelhouse", "release": WHEEL["file"]}
    assert list(stage.asked) == ["w2"]
    assert said["msg"] == "staged on 1 of 3 workers, not on w1, w3"
    assert (stage.kept["w1"]["unreachable"], stage.kept["w3"]["msg"]) == (True, "full")


def test_one_that_fails_fails_nobody_else_and_the_plan_says_why(tmp_path, monkeypatch):
    stage = Stage(tmp_path, monkeypatch)
    stage.answers["w2"] = {"failed": True, "msg": "no such version", "failure": {"code": "pip_failed"}}
    look(stage, monkeypatch)
    assert not stage.run().get("failed")
    refused = plan_of(stage)
    assert refused["msg"].startswith("Refusing to begin, nothing was drained: w2: no such version")


def look(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {**census(), "lock_state": "free", "rollout": None}
    monkeypatch.setattr(_run, "run_everywhere", Hosts(worker_info=lambda _host, _args: answer))
    made(rollout_look.ActionModule, {"ledger": str(stage.ledger.folder)}).run(None, {})


def plan_of(stage: Stage) -> Json:
    said: Json = made(rollout_plan.ActionModule, {"ledger": str(stage.ledger.folder)}).run(None, {})
    return said


@pytest.mark.parametrize(("wheels", "reason"), [
    ({"failed": True, "msg": "no such version", "failure": {"code": "pip_failed"}}, "no such version"),
    ({"unreachable": True, "msg": "no route to localhost"}, "no route to localhost"),
    ({"changed": False}, "gathering the wheels ended without an answer"),
    ({"wheels": [{**WHEEL, "version": "1.3.1"}]}, "set solver_version to that")],
    ids=["no wheels", "unreachable", "no answer", "another version"])
def test_without_the_wheel_no_host_is_asked_and_the_plan_says_it_once(tmp_path, monkeypatch, wheels, reason):
    stage = Stage(tmp_path, monkeypatch)
    look(stage, monkeypatch)
    said = stage.run(wheels)
    assert (stage.asked, said["changed"]) == ({}, False)
    refused = plan_of(stage)
    assert refused["refused"] is True
    assert refused["msg"].count(reason) == 1
    assert "w1, w2, w3: " in refused["msg"]


def test_a_new_look_forgets_what_was_staged_by_the_last_one(tmp_path, monkeypatch):
    """Who was staged before a wait for another rollout may not answer after it."""
    stage = Stage(tmp_path, monkeypatch)
    stage.run()
    look(stage, monkeypatch)
    assert stage.kept == {}
    assert "no release was staged for it" in plan_of(stage)["msg"]


def test_where_nobody_answers_nobody_is_asked(tmp_path, monkeypatch):
    stage = Stage(tmp_path, monkeypatch, remote=("w1",))
    assert stage.run(workers=[])["msg"] == "staged on 0 of 0 workers"
    assert (stage.asked, stage.brought, stage.kept) == ({}, {}, {})


def test_an_answer_that_does_not_fit_is_of_no_use(tmp_path, monkeypatch):
    stage = Stage(tmp_path, monkeypatch)
    stage.answers["w1"] = {**staged(), "release": ["not", "a", "release"]}
    stage.run()
    assert stage.kept["w1"]["wrong"]


@pytest.mark.parametrize(("check_mode", "changed", "says"), [
    (True, False, True), (True, True, True), (False, True, True), (False, False, False)])
def test_a_plan_shows_what_waits_and_a_run_what_it_did(tmp_path, monkeypatch, check_mode, changed, says):
    stage = Stage(tmp_path, monkeypatch)
    own = {**staged(), "changed": changed, "contents": CONTENTS}
    stage.answers = {"w1": own, "w2": own, "w3": {"failed": True, "msg": "no space"}}
    said = stage.run(diff=True, check_mode=check_mode)
    assert stage.asked["w1"]["contents"] is True
    assert said["changed"] is says
    assert [one["before_header"] for one in said["diff"]] == ["w1, w2 (current, as w1)"]
    assert "contents" not in stage.kept["w1"], "it is for people alone"


def test_the_events_say_how_far_it_is(tmp_path, monkeypatch):
    stage = Stage(tmp_path, monkeypatch)
    stage.answers["w3"] = GONE
    stage.run()
    events = [json.loads(line) for line in Path(stage.ledger.events).read_text().splitlines()]
    assert [(own["event"], own["workers"], own["of"]) for own in events] == [("staged", 2, 3)]


# -- what is asked ----------------------------------------------------------------------------


def test_the_filter_is_the_same_function():
    rollout = {"package_name": "solver-worker", "settings": {"solver_version": "1.3.0"}}
    assert filtered([OTHER, WHEEL], rollout) == WHEEL
    assert filtered([OTHER], rollout) == {}
    rollout["settings"] = {"solver_version": "v1.3.0"}
    with pytest.raises(Exception, match=r"of version 1\.3\.0; set solver_version to that"):
        filtered([WHEEL], rollout)


@pytest.mark.parametrize("standby", [{}, {"name": "solver-standby@w1", "home_order": "/run/solver/w1/control-home"}],
                         ids=["alone", "with a slot"])
@pytest.mark.parametrize("unit", [{}, {"Service": {
    "MemoryMax": "1G", "Nice": 5, "PrivateTmp": True, "CPUWeight": 0, "RestrictNamespaces": None, "RestartSec": 0.5}}],
    ids=["as it is", "with additions"])
def test_the_unit_is_what_the_role_gets_from_the_same_template(standby, unit):
    """Provisioning and a rollout with the same settings must lead to the same release."""
    own = {**worker_settings("w1"), "user": "solver", "unit": unit,
           "credentials": {"data_token": "/b", "api_key": "/a"},
           "service": {"backend": "systemd", "name": "solver-worker@w1", **({"standby": standby} if standby else {})}}
    loader = DataLoader()
    of_role = {"worker_dir": own["worker_dir"], "worker_user": "solver", "worker_unit": unit, "worker_standby": standby,
               "worker_credentials": own["credentials"]}
    lookup = lookup_loader.get("template", loader=loader,
                               templar=Templar(loader=loader, variables=of_role))
    text, = lookup.run([str(rollout_stage.UNIT)], variables=of_role)
    asked = _staging.release_args(
        {"settings": ledger_settings(), "package_on_worker": "solver-worker", "new_id": "r1"}, own, WHEEL,
        rollout_stage.UNIT.read_text(encoding="utf-8"))
    assert asked["unit"] == {"name": "solver-worker@w1.service", "content": text}
    assert "LoadCredential=api_key:/w1/current/credentials/api_key\nLoadCredential=data_token:" in text


def test_what_is_asked_has_the_names_of_the_role():
    """An option that one of both sends would split the release of a provisioned worker from that of a rollout."""
    tasks = yaml.safe_load((rollout_stage.UNIT.parents[1] / "tasks/stage.yml").read_text(encoding="utf-8"))
    own = {**worker_settings("w1"), "user": "solver", "python": "/p", "credentials": {"api_key": "/a"},
           "service": {"backend": "systemd", "name": "solver-worker@w1"}}
    asked = _staging.release_args(
        {"settings": ledger_settings(), "package_on_worker": "solver-worker", "new_id": "r1"}, own, WHEEL, "")
    assert {*asked, "contents"} == set(tasks[0]["solver.fleet.worker_release"])
    bare = {**worker_settings("w1"), "wheelhouse": ""}
    settings = {**ledger_settings(), "solver_version": ""}
    less = _staging.release_args({"settings": settings, "package_on_worker": "x", "new_id": "r1"}, bare, {}, "")
    assert {*asked} - {*less} == {"version", "sha256", "wheelhouse", "run_as", "python", "unit"}


def ledger_settings() -> Json:
    return {"solver_version": "1.3.0", "solver_package_sha256": "", "solver_keep_releases": 5,
            "solver_deploy_timeout": 300.0}
