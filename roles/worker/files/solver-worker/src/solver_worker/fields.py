# SPDX-License-Identifier: GPL-3.0-or-later
"""The fields of in.php that a client may send: a flat JSON object of strings, under names that mean one thing only."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from .drain import BadFieldError

# Fields of in.php that are the worker's own business.
RESERVED = frozenset({"key", "json", "soft_id", "pingback"})
MOST = 200
LONGEST_NAME = 100
_DECODER = json.JSONDecoder()
_GAP = re.compile(r"[ \t\n\r]*")


class NotJsonError(ValueError):
    """The text is no JSON."""


def parse(text: str) -> dict[str, str]:
    """Reads a flat object a string at a time: no number of brackets, digits or names makes it take long.

    A general parser is one call that nothing can interrupt; 64 MiB of empty lists hold it for ten seconds.
    """
    found: dict[str, str] = {}
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        raise BadFieldError("body", "must be a JSON object")
    at = _skip(text, at + 1)
    if text[at : at + 1] != "}":
        at = _members(text, at, found)
    if _skip(text, at + 1) != len(text):
        raise NotJsonError
    return found


def _members(text: str, at: int, found: dict[str, str]) -> int:
    """Returns where the closing brace is."""
    while True:
        name, at = _string(text, at)
        at = _expect(text, at, ":")
        if text[at : at + 1] != '"':
            raise BadFieldError(shown(name), "must be a string")
        value, at = _string(text, at)
        if name in found:
            raise BadFieldError(shown(name), "comes twice")
        found[name] = value
        if len(found) > MOST:
            raise BadFieldError("body", f"must not have more than {MOST} fields")
        at = _skip(text, at)
        if text[at : at + 1] == "}":
            return at
        at = _expect(text, at, ",")


def _skip(text: str, at: int) -> int:
    gap = _GAP.match(text, at)
    return at if gap is None else gap.end()


def _expect(text: str, at: int, mark: str) -> int:
    at = _skip(text, at)
    if text[at : at + 1] != mark:
        raise NotJsonError
    return _skip(text, at + 1)


def _string(text: str, at: int) -> tuple[str, int]:
    if text[at : at + 1] != '"':
        raise NotJsonError
    value, end = _DECODER.raw_decode(text, at)
    return str(value), end


def check(document: Mapping[str, Any]) -> dict[str, str]:
    """Refuses what the provider cannot be sent, or would read as a field of ours."""
    for name, value in document.items():
        if not (1 <= len(name) <= LONGEST_NAME and name.isascii() and name.isprintable()):
            raise BadFieldError(shown(name), f"is no name of a field: 1 to {LONGEST_NAME} printable ASCII characters")
        if read_as(name) in RESERVED:
            raise BadFieldError(name, "is the worker's own business; leave it out")
        if not isinstance(value, str):
            raise BadFieldError(name, "must be a string")
        if not _encodable(value):
            raise BadFieldError(name, "holds half a character (a lone surrogate)")
    if not document.get("method"):
        raise BadFieldError("method", "is required, as in.php names it")
    return dict(document)


def read_as(name: str) -> str:
    """The name as the provider may read it.

    PHP drops leading blanks, takes a bracket for the beginning of an index, and makes of a blank, a dot or a
    bracket that is left open an underscore; others do not tell upper from lower case.
    """
    name = name.lstrip(" ").lower()
    head, bracket, tail = name.partition("[")
    if bracket and head and "]" in tail:
        name = head
    return re.sub(r"[ .\[]", "_", name)


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(name: str) -> str:
    """A client's name, fit for an answer and a log."""
    return name[:LONGEST_NAME].encode("unicode_escape").decode("ascii")
