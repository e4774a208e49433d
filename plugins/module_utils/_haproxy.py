# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""Ask HAProxy over its own socket what it knows of the servers behind it."""

from __future__ import annotations

import contextlib
import csv
import io
import re
import socket
import time
from typing import Any

from ansible_collections.solver.fleet.plugins.module_utils._errors import FleetError, one_line

MAX_ANSWER_BYTES = 16 * 1024 * 1024
# Columns of "show stat", https://docs.haproxy.org/2.6/management.html#9.1
_COUNTS = {"scur": "sessions", "stot": "sessions_total", "weight": "weight", "wretr": "retries",
           "wredis": "redispatches", "econ": "connect_errors", "eresp": "response_errors", "hrsp_5xx": "answers_5xx"}

_NO_SERVERS = (None, "FRONTEND", "BACKEND")
_COUNT = re.compile(r"[0-9]{1,15}\Z")


class RouterError(FleetError):
    """HAProxy could not be asked."""


def ask(path: str, command: str, timeout: float, deadline: float) -> str:
    """Send one command and return the whole answer, by DEADLINE, the end of TIMEOUT."""
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as line:
        try:
            line.settimeout(_left(deadline))
            line.connect(path)
            line.settimeout(_left(deadline))
            line.sendall(command.encode("ascii") + b"\n")
            return _read(line, deadline).decode("utf-8", "replace")
        except FileNotFoundError as error:
            raise RouterError("no_socket", f"there is no socket '{path}': the router does not run, or stats_socket is "
                                           "another one") from error
        except ConnectionRefusedError as error:
            raise RouterError("dead", f"nobody answers at '{path}': the router has ended") from error
        except PermissionError as error:
            raise RouterError("denied", f"this user may not use '{path}'; become root or a member of the socket's "
                                        "group") from error
        except (socket.timeout, TimeoutError) as error:
            raise RouterError("hung", f"no complete answer from '{path}' within {timeout:g} s") from error
        except (OSError, ValueError) as error:
            raise RouterError("broken", f"asking '{path}': {error}") from error


def _read(line: socket.socket, deadline: float) -> bytes:
    found = io.BytesIO()
    while True:
        line.settimeout(_left(deadline))
        data = line.recv(65536)
        if not data:
            return found.getvalue()
        found.write(data)
        if found.tell() > MAX_ANSWER_BYTES:
            raise RouterError("foreign", f"the answer is longer than {MAX_ANSWER_BYTES} bytes")


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def servers(answer: str, backend: str) -> dict[str, dict[str, Any]]:
    """Return the servers of one backend from the answer to C(show stat)."""
    if not answer.startswith("# pxname,"):
        raise RouterError("foreign", "what answers is not HAProxy: no table of statistics")
    try:
        rows = [row for row in csv.DictReader(io.StringIO(answer[2:])) if row["pxname"] == backend]
    except csv.Error as error:
        raise RouterError("foreign", f"what answers is not HAProxy: {error}") from error
    if not rows:
        raise RouterError("no_backend", f"the router has no backend '{backend}'")
    return {one_line(row["svname"]): _server(row) for row in rows if row.get("svname") not in _NO_SERVERS}


def _server(row: dict[str, Any]) -> dict[str, Any]:
    status = one_line(row.get("status") or "")
    found: dict[str, Any] = {
        # "UP 1/2" is a server that is about to be down; "NOLB" answered 404: reads, but no new tasks.
        "status": status, "serving": status.startswith("UP") or status == "no check",
        "check": one_line(row.get("last_chk") or row.get("check_status") or ""),
        "address": one_line(row.get("addr") or "")}
    found.update({name: _count(row.get(column)) for column, name in _COUNTS.items()})
    return found


def _count(text: Any) -> int:
    """A count; what is none is not counted."""
    return int(text) if isinstance(text, str) and _COUNT.match(text) else 0


def look(stats_socket: str, backend: str, timeout: float) -> dict[str, Any]:
    """Return the router's live view; both questions together take at most TIMEOUT."""
    deadline = time.monotonic() + timeout
    found = servers(ask(stats_socket, "show stat", timeout, deadline), backend)
    info = dict(part for part in (tuple(line.split(": ", 1)) for line in
                                  ask(stats_socket, "show info", timeout, deadline).splitlines()) if len(part) == 2)
    return {"servers": found, "serving": sorted(name for name, one in found.items() if one["serving"]),
            "version": one_line(info.get("Version", "")), "uptime_s": _count(info.get("Uptime_sec")),
            "pid": _count(info.get("Pid")), "connections": _count(info.get("CurrConns"))}
