# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""What worker_drain does behind its options."""

from __future__ import annotations

from typing import Any

from ansible_collections.solver.fleet.plugins.module_utils._drain import DrainFlow, DrainOptions, option_defect
from ansible_collections.solver.fleet.plugins.module_utils._drain_clock import DrainClock
from ansible_collections.solver.fleet.plugins.module_utils._client import WorkerClient
from ansible_collections.solver.fleet.plugins.module_utils._errors import Json, WorkerError
from ansible_collections.solver.fleet.plugins.module_utils._job import Job
from ansible_collections.solver.fleet.plugins.module_utils._record_file import RecordFile
from ansible_collections.solver.fleet.plugins.module_utils._result import LEASE_S, control_argument_spec, positive
from ansible_collections.solver.fleet.plugins.module_utils._wait import SLICE_S

RULES: dict[str, Any] = {"required_by": {"run_id": ["worker_dir"]}}


def argument_spec() -> dict[str, Any]:
    return dict(
        control_argument_spec(),
        state={"type": "str", "choices": ["drained", "active"], "default": "drained"},
        owner={"type": "str", "required": True},
        reason={"type": "str", "default": ""},
        mode={"type": "str", "choices": ["complete", "handover"], "default": "complete"},
        timeout={"type": "float", "default": 120.0},
        grace={"type": "float", "default": 5.0},
        lease={"type": "float", "default": LEASE_S},
        on_expire={"type": "str", "choices": ["resume", "verify", "hold"]},
        on_timeout={
            "type": "str",
            "choices": ["handover", "return_to_service", "force"],
            "default": "return_to_service",
        },
        accept_loss={"type": "bool", "default": False},
        steal={"type": "bool", "default": False},
        worker_dir={"type": "path"},
        run_id={"type": "str"},
        wait_slice={"type": "float", "default": SLICE_S},
        absent_ok={"type": "bool", "default": False},
        hung_ok={"type": "bool", "default": False},
    )


class DrainJob(Job):
    """One call of worker_drain."""

    flow: DrainFlow | None = None

    def _active(self) -> bool:
        return bool(self.params["state"] == "active")

    def doing(self) -> str:
        verb = "Putting back into service" if self._active() else "Draining"
        return f"{verb} {self.flow.name() if self.flow else 'the worker'}"

    def work(self) -> None:
        self.flow = flow = self._flow()
        with RecordFile(self.params["worker_dir"] or "").fence(self.params["run_id"]):
            (flow.resume if self._active() else flow.drain)()

    def _flow(self) -> DrainFlow:
        positive(self.params, "control_timeout")
        options = DrainOptions(**{name: self.params[name] for name in DrainOptions._fields})
        defect = option_defect(options)
        if defect:
            raise WorkerError("bad_option", defect)
        client = WorkerClient(self.params["control_socket"], self.params["control_timeout"])
        began = DrainClock(self.params["worker_dir"], run_id=self.params["run_id"])
        return DrainFlow(client, options, check_mode=self.check_mode, began=began)

    def finish(self) -> Json:
        if self.flow is None:
            return {}
        warnings = {"warnings": self.flow.warnings} if self.flow.warnings else {}
        return dict(self.flow.finish(), **warnings)
