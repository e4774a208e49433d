# SPDX-License-Identifier: GPL-3.0-or-later
"""Scripted faults: which one, if any, hits this request."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PLACES = ("in", "res", "balance")
NAMED = ("drop", "drop_before", "html502", "slow", "down", "forget", "no_balance")
_CODE = re.compile(r"ERROR(_[A-Z0-9_]+|: \d{4})|MAX_USER_TURN|IP_BANNED|TOO_MANY_BAD_IMAGES|CAPCHA_NOT_READY")
_KEYS = frozenset({"on", "match", "times", "after", "fault", "seconds"})
_DEFAULT_SECONDS = {"slow": 5.0, "down": 1.0}


class FaultError(ValueError):
    """A fault that nobody can carry out; the message names the field."""


@dataclass
class Fault:
    """One scripted fault. times None: for ever. on None: at once (only 'down')."""

    fault: str
    on: str | None = None
    match: dict[str, str] = field(default_factory=dict)
    times: int | None = 1
    after: int = 0
    seconds: float = 0.0
    seen: int = 0
    fired: int = 0

    def matches(self, place: str, fields: Mapping[str, str]) -> bool:
        """Values are shell patterns; a missing field never matches."""
        return self.on == place and all(
            name in fields and fnmatch.fnmatchcase(fields[name], pattern) for name, pattern in self.match.items()
        )

    def take(self) -> bool:
        """Count one matching request; true if the fault hits it."""
        self.seen += 1
        if self.seen <= self.after or (self.times is not None and self.fired >= self.times):
            return False
        self.fired += 1
        return True

    def document(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in (*sorted(_KEYS), "seen", "fired")}


@dataclass
class Plan:
    """The faults in force, in order; the first that fires wins."""

    faults: list[Fault] = field(default_factory=list)

    def pick(self, place: str, fields: Mapping[str, str]) -> Fault | None:
        for fault in self.faults:
            if fault.matches(place, fields) and fault.take():
                return fault
        return None


def parse(document: object) -> list[Fault]:
    """Faults from the JSON list of --faults or POST /__faults."""
    if not isinstance(document, Sequence) or isinstance(document, str | bytes):
        raise FaultError("faults: expected a JSON list of objects")
    return [_parse_one(index, entry) for index, entry in enumerate(document)]


def _parse_one(index: int, entry: object) -> Fault:
    where = f"faults[{index}]"
    if not isinstance(entry, Mapping):
        raise FaultError(f"{where}: expected an object")
    unknown = sorted(set(entry) - _KEYS)
    if unknown:
        raise FaultError(f"{where}.{unknown[0]}: unknown field; known are {', '.join(sorted(_KEYS))}")
    name = _name(where, entry.get("fault"))
    return Fault(
        fault=name,
        on=_place(where, entry.get("on"), name),
        match=_match(where, entry.get("match", {})),
        times=None if entry.get("times", 1) is None else _count(where, "times", entry.get("times", 1)),
        after=_count(where, "after", entry.get("after", 0)),
        seconds=_seconds(where, entry.get("seconds", _DEFAULT_SECONDS.get(name, 0.0))),
    )


def _name(where: str, value: object) -> str:
    if isinstance(value, str) and (value in NAMED or _CODE.fullmatch(value)):
        return value
    raise FaultError(f"{where}.fault: {value!r} is neither one of {', '.join(NAMED)} nor an error code")


def _place(where: str, value: object, name: str) -> str | None:
    if value is None and name == "down":
        return None
    if isinstance(value, str) and value in PLACES:
        return value
    raise FaultError(f"{where}.on: {value!r} is not one of {', '.join(PLACES)}")


def _match(where: str, value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise FaultError(f"{where}.match: expected an object of field: pattern")
    return {str(name): str(pattern) for name, pattern in value.items()}


def _count(where: str, key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise FaultError(f"{where}.{key}: {value!r} is not a count")
    return value


def _seconds(where: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 3600:
        raise FaultError(f"{where}.seconds: {value!r} is not a number of seconds from 0 to 3600")
    return float(value)
