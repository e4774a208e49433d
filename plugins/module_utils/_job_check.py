# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""What solve_check does behind its options."""

from __future__ import annotations

import importlib
import time
import traceback
from typing import Any

from ansible.module_utils.basic import missing_required_lib
from ansible_collections.solver.fleet.plugins.module_utils._check import (
    CheckError,
    CheckFlow,
    CheckOptions,
    ServiceView,
    option_defect,
)
from ansible_collections.solver.fleet.plugins.module_utils._client import WorkerClient
from ansible_collections.solver.fleet.plugins.module_utils._errors import FleetError, Json, WorkerError
from ansible_collections.solver.fleet.plugins.module_utils._job import Job
from ansible_collections.solver.fleet.plugins.module_utils._provider_check import (
    Provider,
    ProviderAccess,
    enough,
    read_key,
)
from ansible_collections.solver.fleet.plugins.module_utils._result import elapsed_since, host_clock, positive
from ansible_collections.solver.fleet.plugins.module_utils._service import ServiceError, open_service
from ansible_collections.solver.fleet.plugins.module_utils._wait import SLICE_S

RULES: dict[str, Any] = {}
OF_WORKER = ("worker", "probe")
OF_PROVIDER = ("balance", "provider")


def argument_spec() -> dict[str, Any]:
    return {
        "control_socket": {"type": "path", "required": False},
        "control_timeout": {"type": "float", "default": 5.0},
        "checks": {
            "type": "list",
            "elements": "str",
            "choices": [*OF_WORKER, *OF_PROVIDER],
            "default": list(OF_WORKER),
        },
        "expect_version": {"type": "str"},
        "expect_release": {"type": "str"},
        "expect_boot_id": {"type": "str"},
        "expect_boot_id_not": {"type": "str"},
        "expect_journal_id": {"type": "str"},
        "expect_state": {"type": "list", "elements": "str", "default": ["running", "drained"]},
        "totals_before": {"type": "dict"},
        "soak": {"type": "float", "default": 0.0},
        "soak_since": {"type": "dict"},
        "request_id": {"type": "str"},
        "since": {"type": "dict"},
        "probe_task": {"type": "dict"},
        "probe_expect": {"type": "str"},
        "probe_timeout": {"type": "float", "default": 90.0},
        "retries": {"type": "int", "default": 3},
        "interval": {"type": "float", "default": 10.0},
        "deadline": {"type": "float", "default": 300.0},
        "wait_slice": {"type": "float", "default": SLICE_S},
        "service": {"type": "dict"},
        "provider_url": {"type": "str", "default": "https://ocr.captchaai.com"},
        # A path, not the key; the key itself is never an option.
        "api_key_file": {"type": "path", "no_log": False},
        "min_balance": {"type": "float", "default": 0.0},
        "require_requests": {"type": "bool", "default": True},
    }


class CheckJob(Job):
    """One call of solve_check, as steps that each may raise; C(result) grows on the way."""

    def __init__(self, params: Json, check_mode: bool, hide: Any) -> None:
        super().__init__(params, check_mode, hide)
        self.result: Json = {"changed": False, "done": False, "passed": [], "skipped_checks": [], "pending": None}
        self.begins = "Checking"

    def doing(self) -> str:
        return self.begins

    def finish(self) -> Json:
        return dict(self.result, host_clock=host_clock())

    def work(self) -> None:
        options = CheckOptions(**{name: self.params[name] for name in CheckOptions._fields})
        self._validate(options)
        if self.check_mode:
            self.result.update(done=True, skipped_checks=self.params["checks"])
            return
        if self._wants(OF_WORKER) and not self._worker(options):
            return
        if self._wants(OF_PROVIDER):
            self._provider()
        self.result["done"] = True

    def _wants(self, names: tuple[str, ...]) -> list[str]:
        return [name for name in names if name in self.params["checks"]]

    def _validate(self, options: CheckOptions) -> None:
        positive(self.params, "control_timeout")
        defect = option_defect(options)
        if not 0 <= self.params["min_balance"] < 1e9:
            defect = "min_balance must be from 0 to 1000000000"
        if self._wants(OF_WORKER) and not self.params["control_socket"]:
            defect = "control_socket is missing: the checks worker and probe need it"
        if self._wants(OF_PROVIDER) and not self.params["api_key_file"]:
            defect = "api_key_file is missing: the checks balance and provider need it"
        if defect:
            raise WorkerError("bad_option", defect)

    def _worker(self, options: CheckOptions) -> bool:
        client = WorkerClient(self.params["control_socket"], self.params["control_timeout"])
        try:
            flow = CheckFlow(client, options, service=self._service())
            return self._checked(flow)
        except ServiceError as error:
            raise CheckError(error.code, error.message, error.details, error.cause) from error

    def _checked(self, flow: CheckFlow) -> bool:
        try:
            return flow.run()
        finally:
            self.begins = f"Checking {flow.name()}"
            self.result.update(flow.result, done=False)

    def _service(self) -> ServiceView | None:
        if not self.params["service"]:
            return None
        service = open_service(self.params["service"])
        passed = elapsed_since(self.params["since"], host_clock())
        service.since = time.time() - passed if passed else None
        return ServiceView(service.state, service.log_tail)

    def _provider(self) -> None:
        requests = self._requests()
        if requests is None:
            self.result["skipped_checks"] += self._wants(OF_PROVIDER)
            return
        self.begins = "Checking the provider"
        key = read_key(self.params["api_key_file"])
        self.hide(key)
        access = ProviderAccess(self.params["provider_url"], key, self.params["probe_timeout"])
        self._ask_provider(Provider(access, requests))

    def _requests(self) -> Any:
        """The library, which only these checks load; None where it is missing and may be."""
        try:
            return importlib.import_module("requests")
        except ImportError:
            if not self.params["require_requests"]:
                return None
            self.begins = ""
            self.result["exception"] = traceback.format_exc()
        lack = missing_required_lib("requests", reason="for the checks balance and provider")
        raise FleetError("missing_library", lack)

    def _ask_provider(self, provider: Provider) -> None:
        if "balance" in self.params["checks"]:
            balance = provider.balance()
            self.result["balance"] = str(balance)
            low = enough(balance, self.params["min_balance"])
            if low:
                raise low
            self.result["passed"].append("balance")
        if "provider" in self.params["checks"]:
            seconds = provider.solve(self.params["probe_task"], self.params["probe_expect"])
            self.result["solve_s"] = round(seconds, 3)
            self.result["passed"].append("provider")
