# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""The service that keeps a worker running, whichever manager the host has."""

from __future__ import annotations

from typing import Any

from ansible_collections.solver.fleet.plugins.module_utils._service_base import (
    Service,
    ServiceError,
    ServiceState,
    Settings,
)
from ansible_collections.solver.fleet.plugins.module_utils._service_command import CommandService
from ansible_collections.solver.fleet.plugins.module_utils._service_slotted import SlottedService
from ansible_collections.solver.fleet.plugins.module_utils._service_supervisor import SupervisorService
from ansible_collections.solver.fleet.plugins.module_utils._service_systemd import SystemdService

__all__ = [
    "BACKENDS",
    "SERVICE_SPEC",
    "Service",
    "ServiceError",
    "ServiceState",
    "open_service",
    "slot_settings",
]

BACKENDS: dict[str, type[Service]] = {
    "command": CommandService,
    "supervisor": SupervisorService,
    "systemd": SystemdService,
}

# The option `service` of the modules that have one.
SERVICE_SPEC: dict[str, Any] = {
    "type": "dict",
    "options": {
        "backend": {"type": "str", "required": True, "choices": ["supervisor", "systemd", "command"]},
        "name": {"type": "str", "required": True},
        "config": {"type": "path"},
        "socket": {"type": "path"},
        "scope": {"type": "str", "choices": ["system", "user"], "default": "system"},
        "start": {"type": "list", "elements": "str"},
        "stop": {"type": "list", "elements": "str"},
        "status": {"type": "list", "elements": "str"},
        "log_file": {"type": "path"},
        "timeout": {"type": "float", "default": 60.0},
        "standby": {
            "type": "dict",
            "options": {
                "name": {"type": "str", "required": True},
                "socket": {"type": "path", "required": True},
                "order": {"type": "path", "required": True},
                "home_order": {"type": "path", "required": True},
                "start": {"type": "list", "elements": "str"},
                "stop": {"type": "list", "elements": "str"},
                "status": {"type": "list", "elements": "str"},
                "log_file": {"type": "path"},
            },
        },
    },
}


def open_service(settings: Settings, **injected: Any) -> Service:
    """The service that these settings describe, with the slot of its standby if it has one.

    C(injected) are clock and sleep.
    """
    home = _open(settings, **injected)
    if not isinstance(settings.get("standby"), dict):
        return home
    return SlottedService(settings, home, _open(slot_settings(settings), **injected), **injected)


def slot_settings(settings: Settings) -> Settings:
    """The settings of the slot's service: those of the worker's own, but for what is said of the standby."""
    own = {name: settings["standby"].get(name) for name in ("name", "start", "stop", "status", "log_file")}
    return {**settings, "standby": None, **{name: value for name, value in own.items() if value}}


def _open(settings: Settings, **injected: Any) -> Service:
    backend = settings.get("backend")
    if not isinstance(backend, str) or backend not in BACKENDS:
        raise ServiceError(
            "bad_service",
            f"reading service: '{backend}' is no backend; set service.backend (solver_service_backend) to one of "
            f"{', '.join(sorted(BACKENDS))}",
            {"option": "service.backend"},
        )
    return BACKENDS[backend](settings, **injected)
