# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""What awx_configure.yml is told, and whether its objects fit together, before anything in AWX is changed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.solver.fleet.plugins.plugin_utils import _regions
from ansible_collections.solver.fleet.plugins.plugin_utils._plan_lines import minutes
from ansible_collections.solver.fleet.plugins.plugin_utils._settings import AWX
from ansible_collections.solver.fleet.plugins.plugin_utils._settings_read import SettingError, read

PREFIX = "solver_awx_"
TEMPLATES = ("provision", "plan", "update", "status", "pause", "abort", "recover", "rollback", "history", "report",
             "verdict", "gate")
# By what the data call each object, and what stands in its name behind the prefix.
NAMES = {
    **{name: name for name in TEMPLATES},
    "credential_type": "provider key and data token", "secrets": "secrets", "ssh": "SSH key",
    "environment": "execution environment", "project": "project", "inventory": "fleet", "source": "fleet from project",
    "workflow": "staged update", "regions": "region by region", "promotion": "promote the release?",
    "schedule": "recover regularly",
}
# What an AWX calls itself to which nobody has told its address.
UNSET_HOSTS = ("towerhost", "platformhost")
# What a node, or a template, points to.
LINKS = ("success_nodes", "failure_nodes", "always_nodes")


def settings(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return all settings without their prefix, with the names of the objects; and what is wrong with them."""
    problems = [_unknown(name, name, AWX, "docs/awx.md lists the settings") for name in sorted(set(given) - set(AWX))]
    values: dict[str, Any] = {}
    for name in AWX:
        try:
            values[name.removeprefix(PREFIX)] = read(name, given.get(name))
        except SettingError as error:
            problems.append(str(error))
            values[name.removeprefix(PREFIX)] = read(name, None)
    if not values["project_url"]:
        problems.append("solver_awx_project_url is not set; it is the Git address of your copy of examples/awx_project")
    named = values["names"]
    values["names"] = {key: str(named.get(key) or f"{values['prefix']} | {what}") for key, what in NAMES.items()}
    problems += _regions.problems(regions_of(values), values["instance_groups"])
    return values, problems + _of_names(named, values["names"])


def regions_of(awx: Mapping[str, Any]) -> _regions.Regions:
    """Return the regions of the settings."""
    return _regions.Regions(tuple(awx["regions"]), awx["regions_at_once"], awx["regions_budget"])


def region_objects(awx: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of the objects follows from the regions: the nodes of their workflow, and their schedules."""
    regions = regions_of(awx)
    if not regions.names:
        return {"nodes": [], "schedules": []}
    return {"nodes": _regions.nodes(regions, awx), "schedules": _regions.schedules(regions, awx)}


def gate(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return whether the gate opens of which the job's variables were GIVEN, the words for it, and how long to bake."""
    try:
        awx = {name.removeprefix(PREFIX): read(name, given.get(name)) for name in AWX
               if "region" in name or "bake" in name}
        after = int(given.get("solver_awx_gate") or 0)
    except (SettingError, TypeError, ValueError) as error:
        return _closed(str(error))
    if not 1 <= after <= len(awx["regions"]):
        return _closed("this is a node of the workflow that takes the regions one after another; launch that one")
    step = _regions.at_gate(regions_of(awx), after, given)
    if step.stop:
        return _closed(step.stop)
    following = f"next: {', '.join(step.start)}" if step.start else "all regions run the release"
    return {"open": True, "say": f"{after} of {len(awx['regions'])} regions had their turn; {following}",
            "bake_minutes": awx["bake_minutes"] if after == 1 else 0}


def _closed(why: str) -> dict[str, Any]:
    return {"open": False, "say": why, "bake_minutes": 0}


def _of_names(named: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    problems = [_unknown(f"solver_awx_names: {key}", key, NAMES, "choose one of: " + ", ".join(NAMES))
                for key in sorted(map(str, set(named) - set(NAMES)))]
    problems += [f"solver_awx_names: {key} must be text in one line" for key in sorted(set(named) & set(NAMES))
                 if not (isinstance(named[key], str) and named[key].isprintable())]
    # In AWX a template, a workflow and an approval are of one kind, and are found by their names.
    of_jobs = [names[key] for key in (*TEMPLATES, "workflow", "regions", "promotion")]
    twice = sorted({name for name in of_jobs if of_jobs.count(name) > 1})
    return problems + [f"solver_awx_names: two templates are called {name}" for name in twice]


def _unknown(shown: str, name: str, known: Iterable[str], otherwise: str) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.7)
    return f"{shown} is not known; {f'did you mean {near[0]}?' if near else otherwise}"


def job_address(base: str, job: str | None) -> str | None:
    """Return the address of a JOB in an AWX whose own one is BASE, which it tells its jobs as AWX_HOST."""
    base = base.strip().rstrip("/")
    try:
        host = urlsplit(base).hostname
    except ValueError:
        return None
    known = base.startswith(("http://", "https://")) and base.isprintable() and host not in (None, *UNSET_HOSTS)
    return f"{base}/#/jobs/playbook/{job}" if job and known else None


def job_warnings(estimate_s: float, given: Any) -> list[str]:
    """Return a warning where AWX would kill the job before the plan is through; GIVEN is what its template says."""
    try:
        timeout = read("solver_awx_job_timeout", given) if given else 0
    except SettingError as error:
        return [str(error)]
    if not timeout or estimate_s < timeout:
        return []
    return [f"this takes about {minutes(estimate_s)}, and AWX kills the job after {minutes(timeout)}, in the middle of "
            "somebody's turn; set solver_awx_job_timeout higher and run awx_configure.yml, or make the window larger"]


def sent(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object as AWX gets it: what a setting left empty is not sent."""
    return {key: value for key, value in item.items() if value not in ("", None)}


def misfits(templates: Iterable[Mapping[str, Any]], workflows: Iterable[Mapping[str, Any]],
            schedules: Iterable[Mapping[str, Any]]) -> list[str]:
    """Say which workflow or schedule points to what is not there, or hands on what is not taken."""
    asked = {own["name"]: _asked(own) for own in templates if own.get("state", "present") != "absent"}
    problems = [f"{own['name']}{problem}" for own in schedules
                for problem in _of_schedule(own, asked.get(own["unified_job_template"]))]
    for workflow in workflows:
        nodes = workflow["workflow_nodes"]
        there = {node["identifier"] for node in nodes}
        for node in nodes:
            problems += [f"{workflow['name']}, node {node['identifier']}: {problem}"
                         for problem in _of_node(node, there, asked)]
    return problems


def _asked(template: Mapping[str, Any]) -> set[str]:
    return {question["variable"] for question in (template.get("survey_spec") or {}).get("spec", [])}


def _of_schedule(schedule: Mapping[str, Any], asked: set[str] | None) -> list[str]:
    runs = schedule["unified_job_template"]
    if asked is None:
        return [f" runs {runs}, which is no template"]
    return [f": {runs} does not ask for {name}" for name in sorted(set(schedule.get("extra_data", {})) - asked)]


def _of_node(node: Mapping[str, Any], there: set[str], asked: Mapping[str, set[str]]) -> list[str]:
    related = node.get("related", {})
    leads = {own["identifier"] for link in LINKS for own in related.get(link, [])}
    problems = [f"it leads to {gone}, which is no node" for gone in sorted(leads - there)]
    runs = node["unified_job_template"]
    if runs["type"] != "job_template":
        return problems
    if runs["name"] not in asked:
        return [*problems, f"it runs {runs['name']}, which is no template"]
    # AWX refuses them.
    extra = sorted(set(node.get("extra_data", {})) - asked[runs["name"]])
    return problems + [f"{runs['name']} does not ask for {name}" for name in extra]
