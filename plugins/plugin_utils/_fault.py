# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""Whose fault a failed probe is, by a control: the same solve where nothing has changed. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]

# What an error class of the probe says by itself, where no control was possible.
OUTSIDE = frozenset({"account", "provider", "network"})
# So many errors of the provider one after the other need no further proof.
IN_A_ROW = 4


def needs_control(steps: Mapping[str, Any]) -> bool:
    """Whether a control must say whose fault it is that the update failed at its probe."""
    return is_at_probe(steps) and not provider_is_down(steps)


def is_at_probe(steps: Mapping[str, Any]) -> bool:
    """Whether the update failed at its probe, and not at the process around it."""
    return _failed_probe(steps.get("verify") or {})


def provider_is_down(steps: Mapping[str, Any]) -> bool:
    """Whether the probes of the wave say so by themselves; C(wave) holds the verify results of all its workers."""
    return provider_errors_in_a_row(steps.get("wave") or []) >= IN_A_ROW


def _failed_probe(verify: Json) -> bool:
    code = (verify.get("failure") or {}).get("code")
    return bool(verify.get("failed")) and not verify.get("unreachable") and code == "probe_failed"


def fault_class(result: Json) -> str:
    """Return whose fault a failed check says it is."""
    return str(((result.get("failure") or {}).get("details") or {}).get("fault") or "worker")


def tried(control: Json) -> bool:
    """Whether a control says anything: it ran, and what it failed for is not the control's own host."""
    if not control or control.get("skipped") or control.get("unreachable") or control.get("skipped_checks"):
        return False
    return not failed(control) or fault_class(control) in OUTSIDE


def failed(result: Json) -> bool:
    """Whether a check failed, also where the task was told to go on."""
    return bool(result.get("failed") or result.get("failure"))


def verdict_of_probe(steps: Mapping[str, Any]) -> dict[str, Any]:
    """Say whose fault a failed probe is.

    The step C(control_worker) is the same probe on a worker that was not part of the wave, C(control_provider) a solve
    without any worker. The first counts more: it takes the same way. When a control fails as well, nothing can be said
    of the release.
    """
    verify, worker = steps.get("verify") or {}, steps.get("control_worker") or {}
    provider = steps.get("control_provider") or {}
    if provider_is_down(steps):
        return _says("provider", True, f"{IN_A_ROW} or more probes in a row failed for the provider's sake")
    controls = [(name, control) for name, control in (("another worker", worker), ("the provider itself", provider))
                if tried(control)]
    if controls:
        name, control = controls[0]
        if not failed(control):
            return _says("release", False, f"the same solve passed at {name}")
        return _says(fault_class(control), True, f"the same solve failed at {name} too: {control.get('msg')}")
    own = fault_class(verify)
    if own in OUTSIDE:
        return _says(own, True, "no control was possible, and the error is not the worker's")
    return _says("release", False, "no control was possible")


def _says(fault: str, inconclusive: bool, reason: str) -> dict[str, Any]:
    return {"fault": fault, "inconclusive": inconclusive, "reason": reason}


def provider_errors_in_a_row(results: Sequence[Json]) -> int:
    """Return how many of the last verify results, in the order of time, failed for the provider's sake."""
    count = 0
    for result in reversed(results):
        if not _failed_probe(result) or fault_class(result) not in OUTSIDE:
            break
        count += int(((result.get("failure") or {}).get("details") or {}).get("attempts") or 1)
    return count
