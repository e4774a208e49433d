# SPDX-License-Identifier: GPL-3.0-or-later
"""The client's book: every step of every task as a JSON line, written before the next step.

It is flushed line by line, so a killed client leaves evidence up to its last step.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

SCHEMA = "solver.traffic.book/1"


class Book:
    """Writes events."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def note(self, event: str, **fields: Any) -> None:
        self._file.write(json.dumps({"event": event, "at": time.time(), **fields}) + "\n")
        self._file.flush()


@dataclass
class ClientTask:
    """What the client knows of one task. Times are seconds since the epoch."""

    key: str
    nonce: str
    expected: str
    sent_at: float
    worker: str = ""
    id: str | None = None
    accepted_at: float | None = None
    # Certainly accepted by nobody.
    refused: bool = False
    # The worker's answer if it called the task itself bad.
    rejected: str | None = None
    # A request was sent whose outcome the client does not know (any more).
    unsure: bool = False
    state: str | None = None
    solution: str | None = None
    error: str | None = None
    read_at: float | None = None
    expires_at: float | None = None
    gone: str | None = None


@dataclass
class ClientBook:
    tasks: dict[str, ClientTask] = field(default_factory=dict)
    ended: bool = False
    cut: int = 0
    declined: int = 0
    retried: int = 0


def read(lines: Iterable[str]) -> ClientBook:
    """The book of one run; a torn last line (a killed client) is left out."""
    book = ClientBook()
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        _apply(book, event)
    return book


def _apply(book: ClientBook, event: Mapping[str, Any]) -> None:
    name = event["event"]
    if name == "task":
        key = event["key"]
        book.tasks[key] = ClientTask(key, event["nonce"], event["expected"], event["at"])
        return
    if name in ("begin", "end"):
        book.ended = name == "end"
        return
    handler = _HANDLERS.get(name)
    task = book.tasks.get(event.get("key", ""))
    if handler is not None and task is not None:
        handler(book, task, event)


def _send(book: ClientBook, task: ClientTask, event: Mapping[str, Any]) -> None:
    # Until the outcome is written down nobody knows it: the client may be killed right here.
    task.worker, task.unsure = event["worker"], True
    book.cut += bool(event.get("cut"))
    book.retried += event.get("attempt", 1) > 1


def _accepted(_unused: ClientBook, task: ClientTask, event: Mapping[str, Any]) -> None:
    task.id, task.worker, task.accepted_at, task.unsure = event["id"], event["worker"], event["at"], False


def _declined(book: ClientBook, task: ClientTask, _unused: Mapping[str, Any]) -> None:
    book.declined += 1
    task.unsure = False


def _rejected(_unused: ClientBook, task: ClientTask, event: Mapping[str, Any]) -> None:
    task.unsure, task.rejected = False, event["why"]


def _refused(_unused: ClientBook, task: ClientTask, __: Mapping[str, Any]) -> None:
    task.refused, task.unsure = True, False


def _final(_unused: ClientBook, task: ClientTask, event: Mapping[str, Any]) -> None:
    task.state, task.solution, task.error = event["state"], event.get("solution"), event.get("error")
    task.read_at, task.expires_at = event["at"], event.get("expires_at")


def _gone(_unused: ClientBook, task: ClientTask, event: Mapping[str, Any]) -> None:
    task.gone = event["why"]


_HANDLERS: dict[str, Callable[[ClientBook, ClientTask, Mapping[str, Any]], None]] = {
    "send": _send,
    "accepted": _accepted,
    "declined": _declined,
    "rejected": _rejected,
    "refused": _refused,
    "final": _final,
    "gone": _gone,
}
