# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""What can be known of one worker without changing anything."""

from __future__ import annotations

import os
from typing import Any, Dict

from ansible_collections.solver.fleet.plugins.module_utils._client import Finding, WorkerClient
from ansible_collections.solver.fleet.plugins.module_utils._errors import StepError, one_line
from ansible_collections.solver.fleet.plugins.module_utils._files import read_json
from ansible_collections.solver.fleet.plugins.module_utils._record_file import RecordFile, look
from ansible_collections.solver.fleet.plugins.module_utils._release import restart_defect
from ansible_collections.solver.fleet.plugins.module_utils._release_standby import memory_for, slot_problem
from ansible_collections.solver.fleet.plugins.module_utils._result import host_clock
from ansible_collections.solver.fleet.plugins.module_utils._service import open_service
from ansible_collections.solver.fleet.plugins.module_utils._service_slotted import SlottedService

Json = Dict[str, Any]
_RELEASE_FILE = "release.json"


def in_words(status: Json) -> str:
    """One line that says how a worker is."""
    instance = status["instance"]
    text = f"worker '{instance['name']}' is {status['state']}, version {instance['version']}"
    count = (status.get("tasks") or {}).get("open")
    if count is not None:
        text += f", {count} open task{'' if count == 1 else 's'}"
    drain = status.get("drain")
    if drain:
        text += f", drain of '{drain['owner']}'"
    cause = status.get("failure") or {}
    if cause:
        text += f", because: {cause.get('message') or cause.get('code')}"
    return one_line(text)


def linked_release(worker_dir: str, link: str) -> Json | None:
    """The metadata of the release behind a link; None where there is none or it cannot be read."""
    return read_json(os.path.join(worker_dir, link, _RELEASE_FILE))


def service_problem(service: Json) -> str | None:
    """Why the service would not start again if its process ended now; None if nothing speaks against it."""
    try:
        return open_service(service).cannot_start()
    except StepError as error:
        return error.message


def in_slot(service: Json, worker: Json) -> bool:
    """Whether the worker runs in the slot of its standby."""
    try:
        found = open_service(service)
        return isinstance(found, SlottedService) and found.holds(worker["instance"]["pid"])
    except StepError:
        return False


def slot_of(service: Json, worker: Json | None, standby: Json) -> Json:
    """What is to know of a worker's slot: who is there, and whether a standby could be."""
    stands = standby.get("finding") == "answering"
    return {
        "in_slot": worker is not None and in_slot(service, worker), "standby_problem": standby_problem(service),
        # One that stands by has its memory already.
        "standby_memory": memory_for(worker["instance"]["pid"]) if worker and not stands else None}


def standby_problem(service: Json) -> str | None:
    """Why no standby could be raised beside the worker."""
    try:
        return slot_problem(service)
    except StepError as error:
        return error.message


def found_at(path: str, timeout: float) -> Json:
    """What is at a control socket."""
    try:
        status = WorkerClient(path, timeout).status()
    except Finding as error:
        return {"finding": error.code, "message": error.message, "worker": None}
    return {"finding": "answering", "message": in_words(status), "worker": status}


def census(
    control_socket: str, control_timeout: float, worker_dir: str | None = None, *, history: int = 0,
    service: Json | None = None, verdict_of: str | None = None,
    standby_socket: str | None = None,
) -> Json:
    """The result of worker_info."""
    result: Json = {**found_at(control_socket, control_timeout), "host_clock": host_clock()}
    if standby_socket:
        result["standby"] = found_at(standby_socket, control_timeout)
    if service:
        result["service_problem"] = service_problem(service)
        if service.get("standby"):
            result.update(slot_of(service, result["worker"], result.get("standby") or {}))
    if worker_dir:
        result["release_problem"] = restart_defect(worker_dir)
        result.update(look(worker_dir))
        if history > 0:
            result["history"] = RecordFile(worker_dir).heads(history)
        if verdict_of:
            result["verdict"] = RecordFile(worker_dir).kept(verdict_of)
        result["releases"] = {link: linked_release(worker_dir, link) for link in ("current", "previous", "staged")}
    return result
