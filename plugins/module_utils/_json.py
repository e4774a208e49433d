# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""JSON that a stranger wrote: what comes out of here can be counted with, shown, and written again by anybody."""

from __future__ import annotations

import json
import math
from typing import Any

# Beyond this no count is one, and JavaScript and jq would show another.
_LARGEST = 1 << 53
_DIGITS = len(str(-_LARGEST))
# No document of ours is half as deep; what reads a result after us recurses, on the controller too.
_DEEPEST = 20


def plain_json(data: bytes) -> Any:
    """The document in DATA; C(ValueError) where it is none, or too deep, or holds what is no number or no text."""
    try:
        document = json.loads(
            data.decode("utf-8"), parse_constant=_finite, parse_float=_finite, parse_int=_whole
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check(document)
    return document


def _whole(text: str) -> int:
    # Its digits first: to read a million of them takes long.
    if len(text) > _DIGITS or not -_LARGEST < int(text) < _LARGEST:
        raise ValueError("a number beyond all bounds")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no number")
    return value


def _check(document: Any) -> None:
    level = [document]
    for _depth in range(_DEEPEST):
        inside: list[Any] = []
        for value in level:
            if isinstance(value, str):
                value.encode("utf-8")  # half a surrogate pair, which JSON can spell, is a UnicodeEncodeError
            elif isinstance(value, list):
                inside += value
            elif isinstance(value, dict):
                inside += [*value, *value.values()]
        if not inside:
            return
        level = inside
    raise ValueError("it is nested too deeply")
