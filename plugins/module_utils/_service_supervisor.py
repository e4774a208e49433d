# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""Services under supervisord, asked over its Unix socket; only the standard library is needed."""

from __future__ import annotations

import base64
import configparser
import contextlib
import http.client
import os
import socket
import time
import xmlrpc.client
from typing import Any

from ansible_collections.solver.fleet.plugins.module_utils._service_base import (
    Service,
    ServiceError,
    ServiceState,
    Settings,
    need,
)

# Numbers of supervisord's protocol.
_NOT_RUNNING, _ALREADY_STARTED, _SPAWN_ERROR, _BAD_NAME = 70, 60, 50, 10
_STATES = {
    "RUNNING": "running",
    "STARTING": "starting",
    "STOPPED": "stopped",
    # Still there; whoever waits for a stop must go on waiting.
    "STOPPING": "running",
    "BACKOFF": "restarting",
    "FATAL": "failed",
    "EXITED": "failed",
}
_AT_REST = ("STOPPED", "FATAL", "EXITED")
_CALL_TIMEOUT_S = 10.0


class _Socket(socket.socket):
    """Each time that it waits, it waits for what is left of the call's time."""

    deadline = 0.0

    def _left(self) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise socket.timeout
        self.settimeout(left)

    def connect(self, address: Any) -> None:
        self._left()
        super().connect(address)

    def sendall(self, *arguments: Any) -> None:
        self._left()
        super().sendall(*arguments)

    def recv_into(self, *arguments: Any) -> int:
        self._left()
        return super().recv_into(*arguments)


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, deadline: float) -> None:
        super().__init__("localhost")
        self.path, self.deadline = path, deadline

    def connect(self) -> None:
        self.sock = _Socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.deadline = self.deadline
        self.sock.connect(self.path)


class _Transport(xmlrpc.client.Transport):
    """A connection for each call, which has a time of its own, with whatever it tries twice."""

    def __init__(self, path: str, login: str | None) -> None:
        super().__init__(headers=[("Authorization", "Basic " + login)] if login else [])
        self.path = path
        self.deadline = 0.0

    def request(self, *arguments: Any, **named: Any) -> Any:
        self.deadline = time.monotonic() + _CALL_TIMEOUT_S
        return super().request(*arguments, **named)

    def make_connection(self, host: Any) -> http.client.HTTPConnection:  # noqa: ARG002 - the base names it
        return _Connection(self.path, self.deadline)


def read_server_settings(config: str) -> tuple[str, str | None]:
    """Socket and login (base64) from a supervisord.conf."""
    parser = configparser.RawConfigParser(inline_comment_prefixes=(" ;", "\t;"), strict=False)
    try:
        with open(config, encoding="utf-8") as stream:
            parser.read_file(stream)
        path = parser.get("unix_http_server", "file").strip()
    except (OSError, configparser.Error, UnicodeDecodeError) as error:
        raise ServiceError(
            "bad_service",
            f"reading '{config}': no socket of supervisord found there ({error.__class__.__name__}); "
            "set service.config (solver_service) to its supervisord.conf, or service.socket to its socket",
            {"option": "service.config"},
        ) from error
    path = path.replace("%(here)s", os.path.dirname(os.path.abspath(config)))
    user = parser.get("unix_http_server", "username", fallback="").strip()
    password = parser.get("unix_http_server", "password", fallback="").strip()
    login = base64.b64encode(f"{user}:{password}".encode()).decode("ascii") if user else None
    return path, login


class SupervisorService(Service):
    """A program of supervisord."""

    def __init__(self, settings: Settings, **injected: Any) -> None:
        super().__init__(settings, **injected)
        login = None
        if settings.get("config"):
            self.socket, login = read_server_settings(need(settings, "config"))
        if settings.get("socket") or not settings.get("config"):
            self.socket = need(settings, "socket")
        self._server = xmlrpc.client.ServerProxy(
            "http://localhost/RPC2", transport=_Transport(self.socket, login), allow_none=True
        )

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self._server.supervisor, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == _BAD_NAME:
                raise ServiceError(
                    "no_service",
                    f"asking supervisord for '{self.name}': it has no program of this name; "
                    "correct service.name (solver_service), or let supervisord read its configuration again",
                    {"option": "service.name"},
                ) from fault
            if method in ("stopProcess", "startProcess"):
                raise  # their callers know what these mean
            raise ServiceError(
                "no_supervisor",
                f"asking supervisord for '{self.name}': {fault.faultString}; look at its log",
                {"socket": self.socket},
            ) from fault
        except socket.timeout as error:
            raise ServiceError(
                "no_supervisor",
                f"asking supervisord at '{self.socket}': no complete answer within {_CALL_TIMEOUT_S:g} s; "
                "look at its log",
                {"socket": self.socket},
            ) from error
        except (OSError, http.client.HTTPException, xmlrpc.client.Error, ValueError) as error:
            raise ServiceError(
                "no_supervisor",
                f"asking supervisord at '{self.socket}': {getattr(error, 'strerror', None) or error}; "
                "start it, or correct service.config (solver_service)",
                {"socket": self.socket, "option": "service.config"},
            ) from error

    def _raw_state(self) -> str:
        return str(self._call("getProcessInfo", self.name).get("statename"))

    def state(self) -> ServiceState:
        info = self._call("getProcessInfo", self.name)
        detail = str(info.get("spawnerr") or info.get("description") or "")
        if info.get("statename") == "EXITED":
            detail = f"exit status {info.get('exitstatus')}; {detail}"
        return ServiceState(
            _STATES.get(str(info.get("statename")), "unknown"), int(info.get("pid") or 0) or None, detail
        )

    def cannot_start(self) -> str | None:
        try:
            state = str(self._call("getState").get("statename"))
            self._raw_state()
        except ServiceError as error:
            return error.message
        return None if state == "RUNNING" else f"supervisord is {state}, and starts nothing; look at its log"

    def _take_up_changes(self) -> None:
        """A program that rests is started as it is defined now: the definition may have changed since it ran."""
        # What cannot be taken up is started as it is, and says by itself what is wrong.
        with contextlib.suppress(ServiceError, xmlrpc.client.Fault):
            if self._raw_state() not in _AT_REST:
                return
            _added, changed, _removed = self._call("reloadConfig")[0]
            if self.name in changed:
                self._call("removeProcessGroup", self.name)
                self._call("addProcessGroup", self.name)

    def start(self) -> None:
        self._take_up_changes()
        try:
            self._call("startProcess", self.name, False)
        except xmlrpc.client.Fault as fault:
            # A process that died within the call was started too: state() and the log say what became of it.
            if fault.faultCode not in (_ALREADY_STARTED, _SPAWN_ERROR):
                raise ServiceError(
                    "start_failed",
                    f"starting '{self.name}' under supervisord: {fault.faultString}; "
                    "see service.log_file and the program's command",
                    {"fault": fault.faultString},
                ) from fault

    def stop(self) -> None:
        deadline = self.clock() + self.timeout
        asked = False
        while True:
            found = self._raw_state()
            if found in _AT_REST:
                return
            # A program in BACKOFF may be between two attempts: ask again until it rests.
            if found != "STOPPING" and not (asked and found == "RUNNING"):
                asked = self._ask_to_stop()
            if self.clock() >= deadline:
                raise ServiceError(
                    "stop_timeout",
                    f"stopping '{self.name}': still {found} after {self.timeout:g} s; "
                    "raise service.timeout (solver_service), "
                    "or lower stopwaitsecs of the program",
                    {"state": found, "option": "service.timeout"},
                )
            self.sleep(0.05)

    def _ask_to_stop(self) -> bool:
        try:
            self._call("stopProcess", self.name, False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != _NOT_RUNNING:
                raise ServiceError(
                    "stop_failed",
                    f"stopping '{self.name}' under supervisord: {fault.faultString}",
                    {"fault": fault.faultString},
                ) from fault
        return True
