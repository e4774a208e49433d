# SPDX-License-Identifier: GPL-3.0-or-later
"""The provider's book: every submit by payload, what it was answered, and when that was read.

The same events build the book in memory and are appended to --ledger-file, so an audit can read
it after the process has gone. No API key and no payload is in it, only nonces.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

SCHEMA = "solver.sandbox.ledger/1"


@dataclass
class Captcha:
    """One id that the provider gave out. Times are seconds since the epoch."""

    id: str
    nonce: str
    method: str
    at: float
    ready_at: float
    answer: str
    price: Decimal
    unsolvable: bool = False
    forgotten: bool = False
    delivered_at: float | None = None
    deliveries: int = 0
    polls: int = 0
    reports: list[str] = field(default_factory=list)

    def state(self, now: float) -> str:
        if self.unsolvable:
            return "unsolvable"
        if self.forgotten:
            return "forgotten"
        return "solved" if now >= self.ready_at else "solving"

    def document(self, now: float) -> dict[str, Any]:
        state = self.state(now)
        solved = state == "solved"
        return {
            "id": self.id,
            "at": self.at,
            "method": self.method,
            "state": state,
            "answer": self.answer if solved else None,
            "solved_at": self.ready_at if solved else None,
            "first_delivery_at": self.delivered_at,
            "deliveries": self.deliveries,
            "polls": self.polls,
            "price": str(self.price),
        }


class Ledger:
    """Applies events, one method each, and writes them to the file when there is one."""

    def __init__(self, file: TextIO | None = None) -> None:
        self.captchas: dict[str, Captcha] = {}
        self._file = file

    def _write(self, event: str, captcha: Captcha, **more: Any) -> None:
        if self._file is None:
            return
        self._file.write(json.dumps({"event": event, "id": captcha.id, **more}) + "\n")
        self._file.flush()

    def submit(self, captcha: Captcha) -> None:
        self.captchas[captcha.id] = captcha
        self._write(
            "submit",
            captcha,
            nonce=captcha.nonce,
            method=captcha.method,
            at=captcha.at,
            ready_at=captcha.ready_at,
            answer=captcha.answer,
            price=str(captcha.price),
        )

    def deliver(self, captcha: Captcha, now: float) -> None:
        captcha.deliveries += 1
        if captcha.delivered_at is None:
            captcha.delivered_at = now
            self._write("deliver", captcha, at=now)

    def mark(self, captcha: Captcha, what: str) -> None:
        """'unsolvable' or 'forgotten'; said once."""
        if not getattr(captcha, what):
            setattr(captcha, what, True)
            self._write(what, captcha)

    def document(self, now: float) -> dict[str, Any]:
        return {"schema": SCHEMA, "at": now, "nonces": _by_nonce(self.captchas.values(), now)}


def _by_nonce(captchas: Iterable[Captcha], now: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for captcha in captchas:
        entry = found.setdefault(
            captcha.nonce, {"submits": [], "solved": False, "answer": None, "first_delivery_at": None}
        )
        one = captcha.document(now)
        entry["submits"].append(one)
        if one["state"] == "solved":
            entry["solved"], entry["answer"] = True, one["answer"]
        if entry["first_delivery_at"] is None:
            entry["first_delivery_at"] = one["first_delivery_at"]
    return found


def read_file(path: Path, now: float) -> dict[str, Any]:
    """The ledger document from a --ledger-file; a torn last line (a killed process) is left out."""
    ledger = Ledger()
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        _apply(ledger, event)
    return ledger.document(now)


def _apply(ledger: Ledger, event: Mapping[str, Any]) -> None:
    kind = event["event"]
    if kind == "submit":
        known = {name: event[name] for name in ("id", "nonce", "method", "at", "ready_at", "answer")}
        ledger.submit(Captcha(**known, price=Decimal(event["price"])))
        return
    captcha = ledger.captchas.get(event["id"])
    if captcha is None:
        return
    if kind == "deliver":
        ledger.deliver(captcha, event["at"])
    elif kind in ("unsolvable", "forgotten"):
        ledger.mark(captcha, kind)
