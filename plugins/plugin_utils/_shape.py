# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""Small checks from which the shape of a document is put together: C(_entry) says what fits, this says how to look.

A check takes a value and the time, and returns the value as it may be used, or raises C(Misfit). Whatever a shape does
not name is left out of what it returns, so nothing in it can be larger, deeper or of another type than the shape says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

Check = Callable[[Any, float], Any]

# No count and no duration of ours comes near; up to here a float holds each integer, and sums stay finite.
HIGHEST = 10**15
# What the clocks of two machines may differ by before a date is called wrong.
AHEAD_S = 86400.0
MARK = "\ufffd"
_ESCAPE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?|\x9b[0-?]*[ -/]*[@-~]?", re.DOTALL)
_MARKS = re.compile(f"{MARK}{{2,}}")
_WORD = re.compile(r"[a-z0-9_]*\Z")
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z\Z")


class Misfit(Exception):  # noqa: N818  it is an answer, no failure of ours
    """A value does not fit; C(where) is the way to it, from the outside."""

    def __init__(self, why: str, where: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.where = where

    def inside(self, name: str) -> Misfit:
        """Return the misfit as it is seen from around the field NAME, or the entry C([3])."""
        dot = "." if self.where and not self.where.startswith("[") else ""
        self.where = f"{name}{dot}{self.where}"
        return self


def words(value: str, limit: int) -> str:
    """Return text for people: one line of printable characters, with an ellipsis where more than LIMIT were given.

    What a terminal would obey, or what would turn the direction of the text, becomes a mark: it must not forge a line.
    """
    if len(value) <= limit and value.isprintable():
        return value
    head = _ESCAPE.sub(MARK, value[:4 * limit])
    text = "".join(one if one.isprintable() else " " if one.isspace() else MARK for one in head)
    text = _MARKS.sub(MARK, text)
    return text if len(text) <= limit and len(value) <= 4 * limit else text[:limit - 1] + "…"


def _kind(value: Any) -> str:
    for kind, name in ((bool, "a truth value"), ((int, float), "a number"), (str, "text"), (list, "a list"),
                       (dict, "an object"), (type(None), "null")):
        if isinstance(value, kind):
            return name
    return "something else"


def _of(kind: type, name: str, value: Any) -> None:
    if not isinstance(value, kind):
        raise Misfit(f"is {_kind(value)} where {name} belongs")


# --- single values ---


def flag(value: Any, _now: float) -> bool:
    """Check a truth value."""
    _of(bool, "a truth value", value)
    return bool(value)


def number(high: float = HIGHEST, low: float = 0) -> Check:
    """Return a check for a finite number."""
    def check(value: Any, _now: float) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise Misfit(f"is {_kind(value)} where a number belongs")
        if not low <= value <= high:  # also not a number at all, and no infinity
            raise Misfit(f"is no number from {low:g} to {high:g}")
        return value
    return check


def count(high: int = HIGHEST, low: int = 0) -> Check:
    """Return a check for an integer."""
    within = number(high, low)

    def check(value: Any, now: float) -> Any:
        if isinstance(within(value, now), float):
            raise Misfit("is no integer")
        return value
    return check


def text(limit: int) -> Check:
    """Return a check for text that only people read: made fit to be shown, never refused."""
    def check(value: Any, _now: float) -> str:
        _of(str, "text", value)
        return words(value, limit)
    return check


def name(limit: int = 200, least: int = 1) -> Check:
    """Return a check for an id or a name, which is compared and sent back, and so must stay as it is."""
    def check(value: Any, _now: float) -> Any:
        _of(str, "text", value)
        if not least <= len(value) <= limit:
            raise Misfit(f"is longer than {limit} characters" if value else "is empty")
        if not value.isprintable() or MARK in value:
            raise Misfit("holds characters that cannot be printed")
        return value
    return check


def word(value: Any, _now: float) -> Any:
    """Check a word of a programme, such as a code."""
    _of(str, "text", value)
    if len(value) > 60 or not _WORD.match(value):
        raise Misfit("is no word of lower case letters")
    return value


def choice(*known: str) -> Check:
    """Return a check for one of some words."""
    def check(value: Any, _now: float) -> Any:
        _of(str, "text", value)
        if value not in known:
            raise Misfit(f"is none of {', '.join(known)}")
        return value
    return check


def moment(value: Any, _now: float) -> Any:
    """Check a date as the control API has them."""
    _seconds(value)
    return value


def date(value: Any, now: float, ahead: float = AHEAD_S) -> Any:
    """Check a date of a record, which orders rollouts: one that is yet to come would be the newest for ever."""
    if _seconds(value) > now + ahead:
        raise Misfit("is a date that is yet to come")
    return value


def _seconds(value: Any) -> float:
    _of(str, "a date", value)
    try:
        if _MOMENT.match(value):
            return datetime.fromisoformat(value).astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        pass
    raise Misfit("is no date such as 2026-11-24T01:00:00Z")


# --- several values ---


class Field(NamedTuple):
    """One field of an object."""

    check: Check
    required: bool = False
    nullable: bool = True


def need(check: Check) -> Field:
    """Return a field that is there, and not null."""
    return Field(check, required=True, nullable=False)


def known(check: Check) -> Field:
    """Return a field that is there, and may be null."""
    return Field(check, required=True)


def may(check: Check, nullable: bool = True) -> Field:
    """Return a field that may be missing, or null."""
    return Field(check, nullable=nullable)


def fields(shape: Mapping[str, Field]) -> Check:
    """Return a check for an object, of which only the fields of SHAPE are kept."""
    rows = [(key, *field) for key, field in shape.items()]

    def check(value: Any, now: float) -> dict[str, Any]:
        _of(dict, "an object", value)
        out: dict[str, Any] = {}
        for key, inner, required, nullable in rows:
            if key not in value:
                if required:
                    raise Misfit("is missing", key)
                continue
            given = value[key]
            try:
                out[key] = None if given is None and nullable else inner(given, now)
            except Misfit as misfit:
                raise misfit.inside(key) from None
        return out
    return check


def _bounded(value: Any, most: int) -> None:
    if len(value) > most:
        raise Misfit(f"has {len(value)} entries where at most {most} belong")


def items(inner: Check, most: int) -> Check:
    """Return a check for a list."""
    def check(value: Any, now: float) -> list[Any]:
        _of(list, "a list", value)
        _bounded(value, most)
        out = []
        for place, one in enumerate(value):
            try:
                out.append(inner(one, now))
            except Misfit as misfit:
                raise misfit.inside(f"[{place}]") from None
        return out
    return check


def good_items(inner: Check, most: int) -> Check:
    """Return a check for a list of which each entry stands for itself: one that does not fit is left out."""
    def check(value: Any, now: float) -> list[Any]:
        _of(list, "a list", value)
        out = []
        for one in value[:most]:
            try:
                out.append(inner(one, now))
            except Misfit:
                continue
        return out
    return check


def mapping(inner: Check, most: int, key_limit: int = 253) -> Check:
    """Return a check for an object whose keys are names."""
    key_fits = name(key_limit)

    def check(value: Any, now: float) -> dict[str, Any]:
        _of(dict, "an object", value)
        _bounded(value, most)
        out = {}
        for key, one in value.items():
            try:
                out[key_fits(key, now)] = inner(one, now)
            except Misfit as misfit:
                raise misfit.inside(f"[{words(str(key), 60)}]") from None
        return out
    return check


def names(most: int, limit: int = 253) -> Check:
    """Return a check for a list of names; a roster is as long as the fleet, so the good case is one look at all."""
    one_by_one = items(name(limit), most)

    def check(value: Any, now: float) -> Any:
        _of(list, "a list", value)
        plain = len(value) <= most and set(map(type, value)) <= {str} and all(value)
        whole = "".join(value) if plain else MARK
        if whole.isprintable() and MARK not in whole and max(map(len, value), default=0) <= limit:
            return list(value)
        return one_by_one(value, now)
    return check


def tail(most: int, limit: int, total: int) -> Check:
    """Return a check for log lines: the last ones, as long as they take no more than TOTAL bytes."""
    line = text(limit)

    def check(value: Any, now: float) -> list[str]:
        _of(list, "a list", value)
        out: list[str] = []
        left = total
        for one in reversed(value[-most:]):
            shown = line(one, now)
            left -= len(shown.encode("utf-8"))
            if left < 0:
                break
            out.insert(0, shown)
        return out
    return check
