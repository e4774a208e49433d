# SPDX-License-Identifier: GPL-3.0-or-later
"""The actions of a rollout as Ansible would make them, with a real ledger and a scripted caller of modules."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible_collections.solver.fleet.plugins.plugin_utils import _admit
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._ledger import Ledger

sys.path.insert(0, str(Path(__file__).parents[1] / "plugin_utils"))
from rollout_kit import SETTINGS

Json = dict[str, Any]


def made(kind: type[Any], args: Mapping[str, Any], check_mode: bool = False) -> Any:
    """An action without a connection: what it asks of a host goes through the scripted caller."""
    task = SimpleNamespace(args=dict(args), check_mode=check_mode, async_val=0, action="x", _parent=None, play=None,
                           environment=None, diff=False)
    connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="/nowhere"), has_pipelining=True)
    return kind(task, connection, SimpleNamespace(), DataLoader(), None, None)


def worker_settings(name: str) -> Json:
    return {"name": name, "machine": "local", "control_socket": f"/{name}/control.sock", "worker_dir": f"/{name}",
            "base_dir": "/opt", "service": {"backend": "command", "name": name}, "on_controller": True,
            "provider": {"url": "http://x", "api_key_file": ""}, "config": {"worker": {"name": name}}, "unit": {},
            "user": "", "python": "", "credentials": {}, "wheelhouse": "/opt/wheelhouse"}


def rollout_of(names: list[str], **settings: Any) -> Json:
    own = {**SETTINGS, "solver_min_healthy_time": 0.0, **settings}
    return {"kind": "update", "settings": own, "hosts": names,
            "workers": {name: worker_settings(name) for name in names}, "routers": {}, "lanes": {}, "strata": {},
            "run_id": "run1", "new_id": "r1", "started_at": "2026-11-24T05:00:00Z", "wait_until": 0.0,
            "who": {"job": None, "user": "ada", "controller": {"host": "deck"}}, "staging": True,
            "package": "solver-worker==1.3.0", "package_on_worker": "solver-worker", "package_name": "solver-worker"}


def ledger_of(folder: Path, names: list[str], plan: Mapping[str, Any] | None = None, **settings: Any) -> Ledger:
    """The ledger of a run that holds the lock, where there is a plan."""
    ledger = Ledger(str(folder / "ledger"))
    rollout = rollout_of(names, **settings)
    workers = rollout.pop("workers")
    ledger.begin(os.getpid(), rollout, workers)
    if plan:
        ledger.keep("plan", plan)
        ledger.keep("roll", _admit.begin(0.0))
    return ledger


class Hosts:
    """Answers for run_everywhere: by the module's name, in the order in which it is called."""

    def __init__(self, **answers: list[Any] | Callable[..., Any]) -> None:
        self.answers = answers
        self.calls: list[tuple[str, Json]] = []
        self.mains: list[int] = []

    def __call__(self, _action: Any, _task_vars: Any, module: str, args: Mapping[str, Any], **how: Any) -> Json:
        name = module.rpartition(".")[2]
        self.mains.append(how["main"])
        self.calls.append((name, {host: dict(own) for host, own in args.items()}))
        answer = self.answers[name]
        if callable(answer):
            return {host: answer(host, own) for host, own in args.items()}
        return answer.pop(0)
