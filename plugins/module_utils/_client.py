# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""A typed client of the control API of a worker, version 1."""

from __future__ import annotations

import json
import re
import time
from typing import Any, Dict, Sequence
from urllib.parse import quote, urlencode

from ansible_collections.solver.fleet.plugins.module_utils._errors import WorkerError, one_line, printable
from ansible_collections.solver.fleet.plugins.module_utils._json import plain_json
from ansible_collections.solver.fleet.plugins.module_utils._socket import (
    AccessDenied,
    Answer,
    BadSocketPath,
    BrokenOff,
    DeadSocket,
    Finding,
    Foreign,
    Hung,
    NoSocket,
    check_socket_path,
    exchange,
)

__all__ = [
    "AccessDenied",
    "ApiProblem",
    "BadSocketPath",
    "BrokenOff",
    "DeadSocket",
    "Finding",
    "Foreign",
    "Hung",
    "NoSocket",
    "STATUS_SCHEMA",
    "WorkerClient",
    "WorkerError",
    "status_defects",
]

_CODE = re.compile(r"[a-z][a-z0-9_]{0,60}\Z")

STATUS_SCHEMA = "solver.worker.status/1"
# A worker may hold a long-poll this long; more is cut by the worker itself.
MAX_WAIT_S = 60.0

Json = Dict[str, Any]
_NUMBER: tuple[type, ...] = (int, float)
_OBJECT_OR_NULL: tuple[type, ...] = (dict, type(None))

# What the modules rely on. Anything else in the document is passed through unseen.
_STATUS_FIELDS: dict[str, tuple[type, ...]] = {
    "api": (dict,),
    "instance": (dict,),
    "state": (str,),
    "since": (str,),
    "seq": (int,),
    "accepting": (bool,),
    "safe_to_stop": (bool,),
    "idle": (bool,),
    "drain": _OBJECT_OR_NULL,
    "tasks": _OBJECT_OR_NULL,
    "totals": _OBJECT_OR_NULL,
}
_NESTED_FIELDS: dict[str, dict[str, tuple[type, ...]]] = {
    "instance": {"name": (str,), "version": (str,), "boot_id": (str,), "pid": (int,)},
    "drain": {"owner": (str,), "mode": (str,)},
    "tasks": {"open": (int,)},
    "totals": {
        "accepted": (int,),
        "succeeded": (int,),
        "failed": (int,),
        "uncertain": (int,),
        "expired": (int,),
    },
    "solve_times": {"p99_s": (*_NUMBER, type(None))},
    "standby": {"owner": (str,), "verified": (bool,), "taking_over": (bool,)},
}
# Counts are unknown, not 0, in these states.
_STATES_WITHOUT_COUNTS = ("starting", "recovering", "failed", "standby")


class ApiProblem(WorkerError):  # noqa: N818  named after the media type
    """The worker answered, and refused: application/problem+json with a stable code."""

    def __init__(self, status: int, problem: Json) -> None:
        text = problem.get("detail") or problem.get("title") or f"HTTP status {status}"
        code = str(problem.get("code"))
        # What a process refuses is its release's doing, whatever it calls it; but for a disk no release can.
        cause = "host" if code == "journal_unwritable" else "release"
        super().__init__(code if _CODE.match(code) else f"http_{status}", one_line(text, 500), problem, cause)
        self.status = status
        self.problem = problem


def _misfits(where: str, value: Any, fields: dict[str, tuple[type, ...]]) -> list[str]:
    found = []
    for name, types in fields.items():
        if name not in value:
            found.append(f"{where}{name} is missing")
        elif not isinstance(value[name], types) or (isinstance(value[name], bool) and bool not in types):
            found.append(f"{where}{name} has the wrong type")
        elif isinstance(value[name], str) and value[name] != printable(value[name]):
            found.append(f"{where}{name} is too long, or holds control characters")
    return found


def _extras(document: Json) -> list[str]:
    """What a document need not have, but must not have otherwise."""
    found = [f"{name} is no object" for name in ("journal", "failure", "solve_times", "provider", "standby")
             if not isinstance(document.get(name), _OBJECT_OR_NULL)]
    features = document["api"].get("features") or []
    if not isinstance(features, list) or not all(isinstance(name, str) for name in features):
        found.append("api.features is no list of names")
    return found


def probe_defect(document: Any) -> str | None:
    """Say what keeps a document from being the answer to a probe; None if nothing does."""
    if not isinstance(document, dict) or document.get("outcome") not in ("succeeded", "failed"):
        return "outcome is none of succeeded, failed"
    if not isinstance(document.get("error"), _OBJECT_OR_NULL):
        return "error is no object"
    took = document.get("elapsed_s")
    if took is not None and (isinstance(took, bool) or not isinstance(took, (int, float)) or took < 0):
        return "elapsed_s is no time"
    texts = [document.get("boot_id"), *((document.get("error") or {}).get(name) for name in ("code", "class"))]
    if not all(text is None or (isinstance(text, str) and text == printable(text)) for text in texts):
        return "boot_id or error is no short text"
    return None


def status_defects(document: Any) -> list[str]:
    """Say what keeps a document from being a status document of this API; empty if nothing does."""
    if not isinstance(document, dict):
        return ["the answer is no object"]
    if document.get("schema") != STATUS_SCHEMA:
        return [f"schema is not {STATUS_SCHEMA}"]
    found = _misfits("", document, _STATUS_FIELDS)
    for name, fields in _NESTED_FIELDS.items():
        if isinstance(document.get(name), dict):
            found += _misfits(name + ".", document[name], fields)
    found = found or _extras(document)
    if not found and document["state"] not in _STATES_WITHOUT_COUNTS:
        nulls = [name for name in ("tasks", "totals") if document[name] is None]
        found += [f"{name} is null in state {document['state']}" for name in nulls]
    return found


def _decode(path: str, answer: Answer) -> Json:
    try:
        document = plain_json(answer.body)
    except ValueError as error:
        raise Foreign(
            f"'{path}' is no worker: its answer (HTTP status {answer.status}) is not JSON ({one_line(error, 100)})"
        ) from error
    if not isinstance(document, dict):
        raise Foreign(f"'{path}' is no worker: its answer is not a JSON object")
    return document


class WorkerClient:
    """One worker behind its control socket. Every call is bounded and safe to repeat."""

    def __init__(self, socket_path: str, timeout: float = 5.0) -> None:
        check_socket_path(socket_path)
        self.socket_path = socket_path
        self.timeout = timeout

    def _send(self, method: str, target: str, body: Json | None, timeout: float) -> Answer:
        data = None if body is None else json.dumps(body).encode("utf-8")
        ends = time.monotonic() + timeout
        try:
            return exchange(self.socket_path, method, target, data, timeout=timeout)
        except BrokenOff:
            # A process that is just going ends connections; asking again, in the time that is left, tells what is there
            # now. All calls of this API may be repeated: drains by owner, probes by request_id.
            left = ends - time.monotonic()
            if left <= 0:
                raise
            return exchange(self.socket_path, method, target, data, timeout=left)

    def call(
        self, method: str, target: str, body: Json | None = None, timeout: float | None = None
    ) -> tuple[int, Json | None]:
        """Send one request; 4xx and 5xx raise ApiProblem, an answer not of this API raises Foreign."""
        answer = self._send(method, target, body, self.timeout if timeout is None else timeout)
        if answer.status == 204:
            return answer.status, None
        if 200 <= answer.status < 300:
            return answer.status, _decode(self.socket_path, answer)
        if answer.status >= 400 and answer.content_type == "application/problem+json":
            raise ApiProblem(answer.status, _decode(self.socket_path, answer))
        raise Foreign(f"'{self.socket_path}' is no worker of this API: HTTP status {answer.status}")

    def _status_document(self, document: Json | None) -> Json:
        defects = status_defects(document)
        if document is None or defects:
            raise Foreign(
                f"'{self.socket_path}' answers wrongly: {'; '.join(defects[:3])} (in its status document)",
                details={"defects": defects[:10]},
            )
        return document

    def status(self, wait: float = 0, until: Sequence[str] = ()) -> Json:
        """The status document; with C(wait) it may take so long, plus the timeout, to come."""
        wait = max(0.0, min(wait, MAX_WAIT_S))
        query = {}
        if wait > 0:
            query["wait"] = f"{wait:.3f}"
            if until:
                query["until"] = ",".join(until)
        target = "/v1/status" + ("?" + urlencode(query, safe=",") if query else "")
        try:
            return self._status_document(self.call("GET", target, timeout=self.timeout + wait)[1])
        except ApiProblem as problem:
            # A worker of this API has a status in every state.
            raise Foreign(
                f"'{self.socket_path}' has no status: HTTP status {problem.status}, {problem.message}",
                details=problem.details,
            ) from problem

    def put_drain(self, body: Json) -> tuple[int, Json]:
        """Begin (202), renew or change (200) a drain."""
        status, document = self.call("PUT", "/v1/drain", body)
        return status, self._status_document(document)

    def delete_drain(self, owner: str, steal: bool = False) -> tuple[int, Json | None]:
        """End a drain: 200 with the status document, or 204 and None where there was none."""
        target = "/v1/drain?owner=" + quote(owner, safe="") + ("&steal=true" if steal else "")
        status, document = self.call("DELETE", target)
        return status, None if document is None else self._status_document(document)

    def probe(self, body: Json, timeout: float | None = None) -> Json:
        """Have the worker solve one real task; C(timeout) bounds how long we wait for the answer."""
        if timeout is None:
            timeout = float(body.get("timeout_s", 90)) + self.timeout
        document = self.call("POST", "/v1/probe", body, timeout)[1]
        defect = probe_defect(document)
        if document is None or defect:
            raise Foreign(f"'{self.socket_path}' answers wrongly: {defect} (in its answer to a probe)")
        return document

    def put_standby(self, body: Json) -> Json:
        """Renew or change a standby; C(body) names its owner."""
        return self._status_document(self.call("PUT", "/v1/standby", body)[1])

    def delete_standby(self, owner: str, steal: bool = False) -> Json:
        """End a standby; the document is its last."""
        target = "/v1/standby?owner=" + quote(owner, safe="") + ("&steal=true" if steal else "")
        return self._status_document(self.call("DELETE", target)[1])

    def take_over(self, owner: str, within: float) -> Json:
        """Have the standby become the worker; ApiProblem says why it did not, and then it stands by as before."""
        body = {"owner": owner, "within_s": within}
        return self._status_document(self.call("POST", "/v1/standby/take-over", body, within + self.timeout)[1])
