# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""What a step of a worker's turn takes from the steps before it. Pure functions of their results."""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.solver.fleet.plugins.module_utils._errors import Json

# The fields of each step's result that a later step goes by; a dot goes one level deeper.
_NEEDED: dict[str, tuple[str, ...]] = {
    "drain": ("forced", "host_clock"),
    "hold": ("host_clock",),
    "switch": ("restarted", "boot_id_before", "boot_id", "totals_before"),
    "verify": ("worker.instance.boot_id",),
    "resume": ("host_clock",),
    "serve": ("host_clock",),
    "settle": ("boot_id",),
    "revert_drain": ("failed", "forced"),
    "revert": ("release.version", "release.id"),
}


def at(results: Json, step: str, path: str) -> Any:
    """A field of a step's result; None where the step, or any part of the way there, is missing."""
    found: Any = results.get(step)
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def trimmed(results: Json) -> Json:
    """Of the results of a turn what later steps need, to be given to a later call as C(before)."""
    out: Json = {}
    for step, paths in _NEEDED.items():
        kept: Json = {}
        for path in paths:
            value = at(results, step, path)
            if value is not None:
                _put(kept, path.split("."), value)
        if kept:
            out[step] = kept
    return out


def _put(into: Json, names: list[str], value: Any) -> None:
    for name in names[:-1]:
        into = into.setdefault(name, {})
    into[names[-1]] = value


def carried(name: str, results: Json) -> Json:
    """The options of a step that come from the steps before it in the same turn, by the names of the steps."""
    found = _CARRIED[name](results) if name in _CARRIED else {}
    return {option: value for option, value in found.items() if value not in (None, "", {})}


def _switch(results: Json) -> Json:
    # A drain that was forced leaves a worker that does not call itself safe to stop.
    return {"force_restart": at(results, "drain", "forced") or None}


def _verify(results: Json) -> Json:
    # Who waited for others, held, has its time from the end of that.
    began = at(results, "hold", "host_clock") or at(results, "drain", "host_clock")
    found = {"since": began, "totals_before": at(results, "switch", "totals_before")}
    if at(results, "switch", "restarted"):
        found["expect_boot_id_not"] = at(results, "switch", "boot_id_before")
        found["expect_boot_id"] = at(results, "switch", "boot_id")
    return found


def _soak(results: Json) -> Json:
    return {
        "expect_boot_id": at(results, "settle", "boot_id") or at(results, "verify", "worker.instance.boot_id"),
        "soak_since": at(results, "resume", "host_clock") or at(results, "serve", "host_clock"),
    }


def _serve(results: Json) -> Json:
    return {"expect_boot_id": at(results, "switch", "boot_id"),
            "totals_before": at(results, "switch", "totals_before")}


def _revert(results: Json) -> Json:
    # What hangs, or is dying, is restarted all the same: the release that must go may never come to rest.
    held = not at(results, "revert_drain", "failed") and not at(results, "revert_drain", "forced")
    return {"force_restart": None if held else True}


def _revert_verify(results: Json) -> Json:
    return {
        "expect_version": at(results, "revert", "release.version"),
        "expect_release": at(results, "revert", "release.id"),
        "totals_before": at(results, "switch", "totals_before"),
    }


_CARRIED: dict[str, Callable[[Json], Json]] = {
    "switch": _switch,
    "verify": _verify,
    "serve": _serve,
    "soak": _soak,
    "revert": _revert,
    "revert_verify": _revert_verify,
}
