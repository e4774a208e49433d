# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""Several fleets, one after another: which region is next, when to stop, and the workflow of AWX that is made of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.solver.fleet.plugins.plugin_utils._names import listed

# What a rollout in a region hands on, behind it the name of the region.
WORD = "solver_last_region_"
GOOD = ("completed",)
# In a name of a variable of AWX nothing else may stand.
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# The group of a fleet that is one.
WHOLE = "solver_workers"


@dataclass(frozen=True)
class Regions:
    """The regions in their order, of which the first is the canary; how many at once, and how many may fail."""

    names: tuple[str, ...]
    at_once: int = 1
    budget: int = 0


@dataclass(frozen=True)
class Step:
    """Regions to begin next, or why no further one begins. With neither, something still runs or all is done."""

    start: tuple[str, ...] = ()
    stop: str = ""


def next_step(regions: Regions, words: Mapping[str, str], running: Collection[str] = ()) -> Step:
    """Return what is next, after the WORDS (verdicts) of the regions that have ended, while others are RUNNING.

    The canary region goes alone and must succeed, whatever the budget: what a release does is seen there first.
    """
    canary = regions.names[0]
    failed = [name for name in regions.names if name in words and words[name] not in GOOD]
    if canary in failed:
        return Step(stop=f"{canary}, the canary region, ended as {words[canary]}; no other region is touched")
    if len(failed) > regions.budget:
        return Step(stop=f"{_named(failed, words)} failed, and {regions.budget or 'none'} may "
                         "(solver_awx_regions_budget); no further region is touched")
    waiting = [name for name in regions.names if name not in words and name not in running]
    if canary not in words:
        return Step(start=() if running else (canary,))
    return Step(start=tuple(waiting[:max(0, regions.at_once - len(running))]))


def _named(failed: Sequence[str], words: Mapping[str, str]) -> str:
    return listed(f"{name} ({words[name]})" for name in failed)


def waves(regions: Regions) -> list[tuple[str, ...]]:
    """Return the regions as they follow where each succeeds; in a workflow those of a wave begin together."""
    words: dict[str, str] = {}
    out = []
    while (step := next_step(regions, words)).start:
        out.append(step.start)
        words.update(dict.fromkeys(step.start, GOOD[0]))
    return out


def at_gate(regions: Regions, after: int, handed: Mapping[str, Any]) -> Step:
    """Return what is next at the gate behind the first AFTER regions, by what their jobs HANDED on.

    A job that was killed or cancelled hands on nothing. At the last gate a region that failed within the budget is
    still one that has to be done, so that the workflow does not end as a success.
    """
    words = {name: str(handed.get(WORD + name) or "no verdict, it was refused, cancelled or killed")
             for name in regions.names[:after]}
    step = next_step(regions, words)
    failed = [name for name, word in words.items() if word not in GOOD]
    if failed and not step.stop and not step.start:
        return Step(stop=f"all regions had their turn, but {_named(failed, words)} did not end as completed; "
                         "launch the workflow again, the others are left alone")
    return step


def region_word(kind: str, hosts: str, verdict: str) -> dict[str, str]:
    """Return what a rollout says of its region. A recovery says nothing: it would hide what went before."""
    return {WORD + hosts: verdict} if kind != "recover" and hosts != WHOLE and NAME.match(hosts) else {}


def not_serving(document: Mapping[str, Any]) -> str:
    """Say who of a region does not serve after its bake, by the document of its status; empty if all do."""
    missing = [own["name"] for own in document["workers"] if not own["serves"]]
    return (f"{len(missing)} of {document['fleet']['workers']} workers of the canary region do not serve after its "
            f"bake: {listed(missing)}") if missing else ""


# -- the objects of AWX ----------------------------------------------------------------------------


def problems(regions: Regions, instance_groups: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the regions as they were set."""
    if not regions.names:
        return ["solver_awx_instance_groups is for solver_awx_regions, which is not set"] if instance_groups else []
    found = [f"solver_awx_regions: {name} cannot be a group of the inventory; use letters, digits and _"
             for name in regions.names if not NAME.match(name)]
    found += [f"solver_awx_regions: {name} stands there twice" for name in sorted(set(regions.names))
              if regions.names.count(name) > 1]
    if len(regions.names) == 1:
        found.append("solver_awx_regions has one region; name two or more, or none where the fleet is one")
    if WHOLE in regions.names:
        found.append(f"solver_awx_regions: {WHOLE} is the group of a fleet that is one; call the regions' groups "
                     "otherwise, and have none of that name, so that a job without a region is refused")
    if regions.budget >= len(regions.names):
        found.append(f"solver_awx_regions_budget is {regions.budget}; it must be less than the number of regions, "
                     f"{len(regions.names)}")
    found += [f"solver_awx_instance_groups: {name} is none of solver_awx_regions"
              for name in sorted(map(str, set(instance_groups) - set(regions.names)))]
    return found + [f"solver_awx_instance_groups: {name} must be the name of an instance group"
                    for name, own in instance_groups.items() if not (isinstance(own, str) and own.strip())]


def nodes(regions: Regions, awx: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the nodes of the workflow: waves of regions, a gate behind each, a recovery where a region fails.

    Only what ran before a node hands anything on to it, so a gate that is to know of all regions must come after all
    of them: hence waves, and no lanes.
    """
    found: list[dict[str, Any]] = []
    after, leads = 0, waves(regions)
    for wave, following in zip(leads, [*leads[1:], ()], strict=True):
        after += len(wave)
        gate = f"gate {after}"
        for name in wave:
            found += [_node(awx, name, "update", name, success_nodes=[gate], failure_nodes=[f"recover {name}"]),
                      _node(awx, f"recover {name}", "recover", name, always_nodes=[gate])]
        found.append({**_job(awx, gate, "gate"), "extra_data": {"solver_awx_gate": after},
                      "related": {"success_nodes": _to(following)}})
    return found


def _node(awx: Mapping[str, Any], identifier: str, template: str, region: str, **leads: list[str]) -> dict[str, Any]:
    related: dict[str, Any] = {link: _to(names) for link, names in leads.items()}
    if region in awx["instance_groups"]:
        related["instance_groups"] = [{"name": awx["instance_groups"][region]}]
    return {**_job(awx, identifier, template), "extra_data": {"solver_hosts": region}, "related": related}


def _job(awx: Mapping[str, Any], identifier: str, template: str) -> dict[str, Any]:
    return {"identifier": identifier, "unified_job_template": {
        "name": awx["names"][template], "type": "job_template", "organization": {"name": awx["organization"]}}}


def _to(names: Sequence[str]) -> list[dict[str, str]]:
    return [{"identifier": name} for name in names]


def schedules(regions: Regions, awx: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a recovery for each region, spread over the minutes between two of them."""
    every = max(1, awx["recover_minutes"])
    groups = awx["instance_groups"]
    return [{"name": f"{awx['names']['schedule']}: {name}", "organization": awx["organization"],
             "unified_job_template": awx["names"]["recover"], "extra_data": {"solver_hosts": name},
             **({"instance_groups": [groups[name]]} if name in groups else {}),
             "rrule": f"DTSTART:20260101T00{number % min(every, 60):02}00Z RRULE:FREQ=MINUTELY;INTERVAL={every}",
             "enabled": awx["recover_minutes"] > 0} for number, name in enumerate(regions.names)]
