# SPDX-License-Identifier: GPL-3.0-or-later
"""What a test may have a worker do wrong, for some workers or for some version, and while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from .books import Traffic

# What a failed probe says, by whose fault it is.
PROBE_ERRORS = {
    "release": {"code": "WRONG_ANSWER", "class": "worker", "message": "this release solves nothing"},
    "provider": {"code": "ERROR_NO_SLOT_AVAILABLE", "class": "provider", "message": "in.php refused the task"},
    "account": {"code": "ERROR_KEY_DOES_NOT_EXIST", "class": "account", "message": "in.php refused the task"},
}


@dataclass(frozen=True)
class Behaviour:
    """The default of each is how a good worker is; infinity is for ever."""

    crash: bool = False  # ends at its start
    start_s: float = 0.0  # in state "starting"
    failed: str = ""  # comes up in state "failed", with this code
    dies_after_s: float | None = None  # ends by itself so long after it began to serve
    hang: bool = False  # takes connections, never answers
    garbage: bool = False  # answers, but not with HTTP
    status: Mapping[str, Any] | None = None  # JSON merge patch over the status document
    version: str = ""  # says that it is this version
    drain_s: float | None = None  # what is open needs so long, instead of the worker's own time
    lease_speed: float = 1.0  # a lease of 900 s ends after 900 s / lease_speed, also one that runs already
    probe: str = ""  # its probes fail: release, provider or account
    probe_s: float = 0.0  # a probe takes so long
    error_share: float = 0.0  # this share of the tasks ends as failed
    provider_share: float = 0.0  # and this share of those because of the provider
    drawn: bool = False  # which ones is drawn by the worker's name and the seed; else it is each n-th
    per_s: float | None = None  # so many tasks end in a second while it serves
    solve_s: float | None = None  # the median of its solve times
    stop_s: float = 0.0  # stopping takes so long
    linger_s: float = 0.0  # a process that has handed over stays so long for those who are still connected

    @property
    def traffic(self) -> Traffic:
        return Traffic(self.error_share, self.provider_share, self.per_s, self.solve_s, self.drawn)


@dataclass(frozen=True)
class Rule:
    changes: Mapping[str, Any]
    workers: frozenset[str] | None = None  # None: all
    version: str | None = None  # None: whatever it runs


def rule(changes: Mapping[str, Any], workers: Iterable[str] | None, version: str | None) -> Rule:
    unknown = sorted(set(changes) - {item.name for item in fields(Behaviour)})
    if unknown or changes.get("probe", "") not in ("", *PROBE_ERRORS):
        raise ValueError(f"no such fault: {', '.join(unknown) or 'probe ' + changes['probe']}")
    return Rule(changes, None if workers is None else frozenset(workers), version)


def behaviour(rules: Iterable[Rule], worker: str, version: str) -> Behaviour:
    """The rules that hold for this worker and version, the later over the earlier."""
    found = Behaviour()
    for each in rules:
        if (each.workers is None or worker in each.workers) and each.version in (None, version):
            found = replace(found, **each.changes)
    return found


def merged(document: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7396): null removes, everything that is no object replaces."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(document) if isinstance(document, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result
