# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""Whose fault a failed probe is, by a reference solve: the same one where nothing has changed. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]

# What an error class of the probe says by itself, where no reference solve was possible.
OUTSIDE = frozenset({"account", "provider", "network"})
# What an unchanged worker, or the provider, can fail for that says something of all workers. Its own fault does not.
TELLING = OUTSIDE | {"task"}
# The worker could be asked, and the solve through it is what failed.
AT_PROBE = frozenset({"probe_failed", "probe_refused"})
# So many errors of the provider one after the other need no further proof.
IN_A_ROW = 4
# Errors that a broken release makes by itself just as well: it waits wrongly, or it reads the answer wrongly.
NOT_THE_PROVIDERS_WORD = frozenset({"TIMEOUT", "WRONG_ANSWER"})


def needs_reference(steps: Mapping[str, Any]) -> bool:
    """Whether a reference solve must say whose fault it is that the update failed at its probe."""
    return is_at_probe(steps) and not provider_is_down(steps)


def is_at_probe(steps: Mapping[str, Any]) -> bool:
    """Whether the update failed at its probe, and not at the process around it."""
    return _failed_probe(steps.get("verify") or {})


def provider_is_down(steps: Mapping[str, Any]) -> bool:
    """Whether the probes say so by themselves; C(in_flight) holds the verify results of those in flight together.

    They were solved at the same time: one that passed shows that the provider solves.
    """
    probes = [result or {} for result in steps.get("in_flight") or []]
    return not any(passed(result) for result in probes) and provider_errors_in_a_row(probes) >= IN_A_ROW


def _details(result: Json) -> Json:
    return (result.get("failure") or {}).get("details") or {}


def _failed_probe(verify: Json) -> bool:
    code = (verify.get("failure") or {}).get("code")
    at_probe = code in AT_PROBE or _details(verify).get("checking") == "probe"
    return bool(verify.get("failed")) and not verify.get("unreachable") and at_probe


def fault_class(result: Json) -> str:
    """Return whose fault a failed check says it is."""
    return str(_details(result).get("fault") or "worker")


def tried(solve: Json) -> bool:
    """Whether a reference solve says anything: it passed, or what it failed for is not its own host."""
    if not solve or solve.get("skipped") or solve.get("unreachable") or solve.get("skipped_checks"):
        return False
    return passed(solve) or (failed(solve) and fault_class(solve) in TELLING)


def failed(result: Json) -> bool:
    """Whether a check failed."""
    return bool(result.get("failed") or result.get("failure"))


def passed(result: Json) -> bool:
    """Whether a check was made to its end; a module that died without a word did not fail, and did not pass."""
    return result.get("done") is True and not failed(result) and not result.get("unreachable")


def verdict_of_probe(steps: Mapping[str, Any]) -> dict[str, Any]:
    """Say whose fault a failed probe is.

    The step C(reference_worker) is the same probe on a worker that was not in flight, C(reference_provider) a solve
    without any worker. The first counts more: it takes the same way. When a reference solve fails as well, nothing can
    be said of the release.
    """
    if provider_is_down(steps):
        return _says("provider", True, f"{IN_A_ROW} or more probes in a row failed for the provider's sake")
    verify = steps.get("verify") or {}
    for name, solve in _reference_solves(steps):
        if not failed(solve):
            return {**_says("release", False, f"the same solve passed at {name}"), "by_reference": True}
        said = f"the same solve failed at {name} too: {solve.get('msg')}"
        return {**_says(fault_class(solve), True, said), "by_reference": True}
    own = fault_class(verify)
    if own in OUTSIDE:
        return _says(own, True, "no reference solve was possible, and the error is not the worker's")
    return _says("release", False, "no reference solve was possible")


def _reference_solves(steps: Mapping[str, Any]) -> list[tuple[str, Json]]:
    """Return the reference solves that say something, the weightier first."""
    worker, provider = steps.get("reference_worker") or {}, steps.get("reference_provider") or {}
    made = []
    # The version in doubt cannot speak for itself: where it fails on another worker too, only the provider can tell.
    if tried(worker) and not (failed(worker) and _is_in_doubt(steps, worker)):
        made.append(("another worker", worker))
    if tried(provider):
        made.append(("the provider itself", provider))
    return made


def _is_in_doubt(steps: Mapping[str, Any], solve: Json) -> bool:
    """Whether a reference solve ran the version that is being tried; a new configuration alone is no new version."""
    version = _version_of(solve)
    came_from, tries = _version_of(steps.get("drain") or {}), _version_of(steps.get("verify") or {})
    return version is not None and version == tries and version != came_from


def _version_of(result: Json) -> Any:
    return ((result.get("worker") or {}).get("instance") or {}).get("version")


def _says(fault: str, inconclusive: bool, reason: str) -> dict[str, Any]:
    return {"fault": fault, "inconclusive": inconclusive, "reason": reason}


def provider_errors_in_a_row(results: Sequence[Json]) -> int:
    """Return how many probes of these verify results, in the order of time, failed last at the provider's own word.

    Only an answer in which the provider refuses counts, and what was no probe is passed over. An account that is
    refused and a way that is cut go to a reference solve: a release with a wrong key or a wrong address looks the same.
    """
    count = 0
    for error in reversed([error for result in results for error in _errors(result)]):
        if error.get("class") != "provider" or error.get("code") in NOT_THE_PROVIDERS_WORD:
            break
        count += 1
    return count


def _errors(result: Json) -> list[Json]:
    """Return the errors of a result's probes; one that passed is the last without an error."""
    if passed(result):
        return [{}]
    if not _failed_probe(result):
        return []
    details = _details(result)
    errors = details.get("errors")
    if errors is not None:
        return list(errors)
    code = ((details.get("probe") or {}).get("error") or {}).get("code")
    return [{"class": fault_class(result), "code": code}] * int(details.get("attempts") or 1)
