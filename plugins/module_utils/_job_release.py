# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""What worker_release does behind its options."""

from __future__ import annotations

import os
from contextlib import ExitStack, nullcontext
from typing import Any, ContextManager

from ansible_collections.solver.fleet.plugins.module_utils._client import WorkerClient
from ansible_collections.solver.fleet.plugins.module_utils._errors import Json
from ansible_collections.solver.fleet.plugins.module_utils._files import hide_credentials
from ansible_collections.solver.fleet.plugins.module_utils._job import Job
from ansible_collections.solver.fleet.plugins.module_utils._record_file import BUSY_S, RecordFile
from ansible_collections.solver.fleet.plugins.module_utils._release import Base, Content
from ansible_collections.solver.fleet.plugins.module_utils._release_standby import Slot, TakeOver
from ansible_collections.solver.fleet.plugins.module_utils._release_stage import (
    MIN_FREE_MB,
    Stage,
    Target,
    current_content,
    remove_release,
)
from ansible_collections.solver.fleet.plugins.module_utils._release_switch import Move, Switch, look
from ansible_collections.solver.fleet.plugins.module_utils._result import LEASE_S, control_argument_spec, positive
from ansible_collections.solver.fleet.plugins.module_utils._service import SERVICE_SPEC, Service, open_service
from ansible_collections.solver.fleet.plugins.module_utils._wheels import IndexOptions

RULES: dict[str, Any] = {
    "required_if": [
        ("state", "staged", ["config"]),
        ("state", "active", ["owner"]),
        ("state", "standby", ["owner", "release", "service"]),
        ("state", "dropped", ["owner", "service"]),
        ("state", "settled", ["owner", "service"]),
        ("switch", "standby", ["service"]),
    ],
}


def argument_spec() -> dict[str, Any]:
    return dict(
        control_argument_spec(),
        state={"type": "str", "choices": ["staged", "standby", "active", "settled", "dropped", "absent"],
               "default": "staged"},
        worker_name={"type": "str", "required": True},
        worker_dir={"type": "path", "required": True},
        base_dir={"type": "path", "required": True},
        package={"type": "str"},
        version={"type": "str"},
        sha256={"type": "str"},
        wheelhouse={"type": "path"},
        index_url={"type": "str"},
        extra_index_urls={"type": "list", "elements": "str", "default": []},
        config={"type": "str"},
        unit={"type": "dict", "options": {"name": {"type": "str", "required": True},
                                          "content": {"type": "str", "required": True}}},
        credentials={"type": "dict", "default": {}},
        run_as={"type": "str"},
        python={"type": "path"},
        release={"type": "str"},
        previous={"type": "bool", "default": False},
        restart={"type": "bool", "default": True},
        switch={"type": "str", "choices": ["in_place", "standby"], "default": "in_place"},
        take_over_timeout={"type": "float", "default": 30.0},
        reason={"type": "str", "default": ""},
        force_restart={"type": "bool", "default": False},
        restart_timeout={"type": "float", "default": 30.0},
        service=SERVICE_SPEC,
        owner={"type": "str"},
        rollout_id={"type": "str"},
        run_id={"type": "str"},
        lease={"type": "float", "default": LEASE_S},
        on_expire={"type": "str", "choices": ["verify", "hold"], "default": "verify"},
        keep={"type": "int", "default": 5},
        min_free_mb={"type": "int", "default": MIN_FREE_MB},
        deploy_timeout={"type": "int", "default": 300},
        worker_dirs_glob={"type": "str"},
        contents={"type": "bool", "default": False},
    )


def target_of(given: Json) -> Target:
    return Target(
        worker_name=given["worker_name"],
        worker_dir=os.path.abspath(given["worker_dir"]),
        base_dir=os.path.abspath(given["base_dir"]),
        config=given["config"] or "",
        package=given["package"] or None,
        version=given["version"] or None,
        sha256=given["sha256"],
        wheelhouse=given["wheelhouse"],
        where=IndexOptions(given["index_url"], tuple(given["extra_index_urls"])),
        python=given["python"],
        rollout_id=given["rollout_id"],
        keep=given["keep"],
        min_free_mb=given["min_free_mb"],
        timeout=given["deploy_timeout"],
        worker_dirs=given["worker_dirs_glob"],
        unit=(given["unit"]["name"], given["unit"]["content"]) if given["unit"] else None,
        credentials=tuple(sorted((str(name), str(path)) for name, path in given["credentials"].items())),
        run_as=given["run_as"] or None,
    )


def move_of(given: Json) -> Move:
    return Move(
        worker_name=given["worker_name"],
        worker_dir=os.path.abspath(given["worker_dir"]),
        base_dir=os.path.abspath(given["base_dir"]),
        release=given["release"],
        previous=given["previous"],
        restart=given["restart"],
        owner=given["owner"],
        lease_s=given["lease"],
        force_restart=given["force_restart"],
        restart_timeout=given["restart_timeout"],
        on_expire=given["on_expire"],
    )


def diff_of(given: Json, version: str) -> Json:
    before, after = both(given, version)
    return {
        "before_header": f"{given['worker_name']} (current)",
        "after_header": f"{given['worker_name']} (staged)",
        "before": before,
        "after": after,
    }


def contents_of(given: Json, version: str, packages: tuple[list[str], list[str] | None]) -> Json:
    """The same as lines, and the packages of both; None where they are not installed yet."""
    before, after = both(given, version)
    return {
        "before": before.splitlines(),
        "after": after.splitlines(),
        "packages_before": packages[0],
        "packages_after": packages[1],
    }


def both(given: Json, version: str) -> tuple[str, str]:
    """The current configuration and unit, and the new ones; there is no secret in either."""
    unit = given["unit"]
    before_version, before = current_content(given["worker_dir"], unit["name"] if unit else None)
    after = Content(given["config"], (unit["name"], unit["content"]) if unit else None)
    return shown(before_version, before), shown(version, after)


def shown(version: str, content: Content) -> str:
    unit = f"# unit: {content.unit[0]}\n{content.unit[1]}" if content.unit else ""
    return f"# version: {version}\n{content.config}{unit}"


class ReleaseJob(Job):
    """One call of worker_release; the result is there even if it fails on the way."""

    def __init__(self, params: Json, check_mode: bool, hide: Any) -> None:
        super().__init__(params, check_mode, hide)
        self.given = params
        self.result: Json = {"changed": False}

    def work(self) -> None:
        hide_credentials(self.hide, [self.given["index_url"], *self.given["extra_index_urls"]])
        positive(self.given, "control_timeout", "restart_timeout", "take_over_timeout", "lease", "deploy_timeout")
        getattr(self, "_" + self.given["state"])()

    def finish(self) -> Json:
        return self.result

    def _client(self) -> WorkerClient:
        return WorkerClient(self.given["control_socket"], self.given["control_timeout"])

    def _staged(self) -> None:
        client = self._client()
        stage = Stage(target_of(self.given))
        self.result = stage.result
        stage.run(self.check_mode)
        self.result["running_release"] = look(client).instance("release")
        version = self.result["release"]["version"]
        if self.given["contents"]:
            self.result["contents"] = contents_of(self.given, version, stage.packages())
        else:
            self.result["diff"] = diff_of(self.given, version)

    def _active(self) -> None:
        with ExitStack() as held:
            self._switch(*self._alone(held))

    def _alone(self, held: ExitStack) -> tuple[Service | None, list[int]]:
        """While HELD the run has the worker's lock, and no other module is at it."""
        file = RecordFile(os.path.abspath(self.given["worker_dir"]))
        service = open_service(self.given["service"]) if self.given["service"] else None
        # As long as a restart that another module left behind may take to stop what it stops.
        wait = (service.timeout if service else 0) + BUSY_S
        alone: ContextManager[int | None] = nullcontext() if self.check_mode else file.alone(wait)
        handles = [held.enter_context(file.fence(self.given["run_id"])), held.enter_context(alone)]
        return service, [handle for handle in handles if handle is not None]

    def _switch(self, service: Service | None, keep: list[int]) -> None:
        move, client = move_of(self.given), self._client()
        if self.given["switch"] == "standby":
            switch: Switch = TakeOver(move, client, self._slot(), self.given["take_over_timeout"], keep=keep)
        else:
            switch = Switch(move, client, service, keep=keep)
        self.result = switch.result
        switch.run(self.check_mode)
        self.result["diff"] = {
            "before": f"{self.result['from'] or ''}\n",
            "after": f"{self.result['to']}\n",
        }

    # -- the standby

    def _slot(self) -> Slot:
        return Slot(self.given["service"], self.given)

    def _standby(self) -> None:
        with ExitStack() as held:
            self._alone(held)
            slot = self._slot()
            before = slot.beside.status()
            boot_id = before and before["instance"]["boot_id"]
            if not self.check_mode:
                before = slot.raise_standby(self.given["release"], Base(self.given["base_dir"]))
            now = before["instance"] if before else {}
            self.result.update(
                changed=boot_id is None or now.get("boot_id") != boot_id or now["release"] != self.given["release"],
                standby=before)

    def _dropped(self) -> None:
        with ExitStack() as held:
            self._alone(held)
            slot = self._slot()
            self.result["changed"] = slot.beside.status() is not None if self.check_mode else slot.drop()

    def _settled(self) -> None:
        with ExitStack() as held:
            self._alone(held)
            slot = self._slot()
            within = self.given["take_over_timeout"]
            self.result["changed"] = slot.holds_worker() if self.check_mode else slot.settle(within)
            self.result["boot_id"] = look(self._client()).instance("boot_id")

    def _absent(self) -> None:
        name = self.given["release"]
        self.result = remove_release(target_of(self.given), name, self.check_mode)
        if name:
            self.result["diff"] = {"before": f"{name}\n" if self.result["changed"] else "", "after": ""}
