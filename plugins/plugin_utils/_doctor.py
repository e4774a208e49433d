# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""What keeps a fleet from being provisioned or updated, one finding a line, each with its remedy. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.solver.fleet.plugins.module_utils._errors import one_line
from ansible_collections.solver.fleet.plugins.module_utils._release import PROGRAM
from ansible_collections.solver.fleet.plugins.module_utils._release_stage import MIN_FREE_MB
from ansible_collections.solver.fleet.plugins.plugin_utils._names import in_order
from ansible_collections.solver.fleet.plugins.plugin_utils._shape import (
    Misfit,
    count,
    fields,
    flag,
    mapping,
    may,
    need,
    number,
    text,
)

Json = Mapping[str, Any]
# Leases are by each host's own clock; dates in records and logs are read beside each other.
SKEW_S = 30.0

_MACHINE = fields({
    "python": need(text(50)), "uid": need(count()), "clock": need(number(1e11)), "manager": need(flag),
    "port_open": need(flag), "worker_python": may(text(300)), "worker_python_problem": may(text(500)),
    "disk": need(fields({"place": need(text(300)), "free_mb": need(count()), "writable": need(flag)})),
    "secrets": need(mapping(fields({"problem": may(text(200)), "mode": may(count()), "uid": may(count()),
                                    "filled": may(flag)}), 20, 1000))})


class Defect(NamedTuple):
    """What is wrong, and what mends it: C(bad) keeps something from working, C(odd) may."""

    level: str
    text: str
    remedy: str


def machine(raw: Any) -> dict[str, Any]:
    """Take the answer of host_look in: C(problem) where there is none that can be used."""
    if raw.get("failed"):
        return {"problem": one_line(raw.get("msg")) or "it failed"}
    try:
        return dict(_MACHINE(raw.get("machine"), 0.0))
    except Misfit as misfit:
        return {"problem": f"it answers wrongly: {misfit.where} {misfit.why}"}


def examined(
    worker: Json, found: Json, census: Json, settings: Json, now: float,
) -> list[Defect]:
    """Return what there is to say of one worker: its machine FOUND, its CENSUS; NOW is the controller's clock."""
    if found.get("unreachable"):
        return [Defect("bad", one_line(found.get("msg")) or "no answer",
                       "see ansible_host, ansible_user and the SSH key in the inventory")]
    if found.get("problem"):
        return [Defect("bad", str(found["problem"]), "see solver_become and ansible_python_interpreter")]
    if worker["service"]["backend"] == "systemd" and found["uid"] != 0:
        # Without it the rest looks worse than it is, and what would mend that may harm a worker that is well.
        return [Defect("bad", f"tasks run as user {found['uid']}, and units of systemd need root",
                       "set solver_become: true, and see that this user may use sudo")]
    return [*_machine(found, settings, now), *_secrets(found), *_service(worker, found, census),
            *_worker(census)]


def _machine(found: Json, settings: Json, now: float) -> Iterator[Defect]:
    if found.get("worker_python_problem"):
        yield Defect("bad", str(found["worker_python_problem"]), "install it, or name one in solver_worker_python")
    disk = found["disk"]
    if disk["free_mb"] < MIN_FREE_MB:
        yield Defect("bad", f"{disk['free_mb']} MB are free at {disk['place']}, a release needs {MIN_FREE_MB}",
                     "make room, or set solver_base_dir to where there is some")
    if not disk["writable"]:
        yield Defect("bad", f"{disk['place']} cannot be written",
                     "set solver_become: true, or another solver_base_dir")
    skew = abs(found["clock"] - now)
    if skew > SKEW_S + float(settings["solver_control_timeout"]):
        yield Defect("odd", f"its clock differs from the controller's by {skew:.0f} s", "set up time synchronization")


def _secrets(found: Json) -> Iterator[Defect]:
    for path, own in found["secrets"].items():
        if own.get("problem"):
            yield Defect("bad", f"{path}: {own['problem']}", "provision.yml puts it there from solver_api_key or "
                                                             "solver_data_token, or put it there yourself")
        elif not own.get("filled"):
            yield Defect("bad", f"{path} is empty", "provision.yml fills it from solver_api_key or solver_data_token")
        elif int(own.get("mode") or 0) & 0o007:
            yield Defect("bad", f"{path} may be read by everybody (mode {own['mode']:04o})", f"chmod o= {path}")


def _service(worker: Json, found: Json, census: Json) -> Iterator[Defect]:
    if not found["manager"]:
        yield Defect("bad", "it was not booted with systemd", "set solver_service_backend to supervisor or command")
    elif census.get("service_problem"):
        yield Defect("bad", one_line(census["service_problem"]), "provision.yml puts the service there")
    finding = census.get("finding")
    if found["port_open"] and finding not in ("answering", "hung", "denied"):
        yield Defect("bad", f"somebody listens at {worker['data_address']}, and it is no worker of this name",
                     "end that, or set another solver_data_port")
    if finding in ("foreign", "denied"):
        yield Defect("bad", one_line(census.get("message")) or f"its control socket is {finding}",
                     "see solver_control_socket and solver_become")


def _worker(census: Json) -> Iterator[Defect]:
    worker = census.get("worker")
    if census.get("release_problem"):
        yield Defect("bad", f"it would not survive a restart: {one_line(census['release_problem'])}",
                     "provision.yml with the version that runs mends it")
    if not worker:
        # One that was there and is gone, or hangs, is not one that was never installed.
        finding = census.get("finding") or "nothing was found"
        yield Defect("bad" if finding in ("dead", "hung") else "odd", f"no worker serves ({finding})",
                     "provision.yml installs and starts it; status.yml says more")
        return
    if worker["state"] == "failed":
        yield Defect("bad", f"it has failed: {one_line((worker.get('failure') or {}).get('message'))}",
                     "status.yml says more")
    elif worker.get("accepting") is False and not worker.get("drain"):
        yield Defect("bad", f"it takes no tasks: {one_line((worker.get('refusal') or {}).get('message'))}",
                     "make room for its journal")
    provider = worker.get("provider") or {}
    if provider.get("ok") is False:
        error = provider.get("last_error") or {}
        yield Defect("bad", f"its provider answers {one_line(error.get('code')) or 'with errors'}",
                     "see the account, its balance and solver_provider_url")


def wheels(settings: Json, versions: Sequence[str]) -> list[Defect]:
    """Say that the controller lacks the release that solver_version names; VERSIONS are those in its wheelhouse."""
    version = settings["solver_version"]
    if settings["solver_package"] or not version or version in versions or not settings["solver_offline"]:
        return []
    where = f"solver_wheelhouse ({settings['solver_wheelhouse']})"
    return [Defect("bad", f"{where} has no wheel of {PROGRAM} {version}",
                   "build it with the module wheelhouse, or set solver_offline: false")]


def lines(fleet: Mapping[str, Sequence[Defect]], controller: Sequence[Defect]) -> list[str]:
    """Return the findings for people: what is wrong, once for all whom it is true of, and who is well."""
    said: dict[Defect, list[str]] = {}
    for name in in_order(fleet):
        for defect in fleet[name]:
            said.setdefault(defect, []).append(name)
    out = [_line(defect, "controller") for defect in controller]
    out += [_line(defect, ", ".join(names)) for defect, names in said.items()]
    bad = sum(line.startswith("BAD") for line in out)
    well = [name for name in in_order(fleet) if not fleet[name]]
    summary = f"{len(fleet)} workers: {len(well)} without a finding, {bad} findings that keep something from working"
    return [*out, summary]


def _line(defect: Defect, who: str) -> str:
    return f"{'BAD' if defect.level == 'bad' else 'odd'}  {who}: {defect.text}; {defect.remedy}"


def is_bad(fleet: Mapping[str, Sequence[Defect]], controller: Sequence[Defect]) -> bool:
    """Whether anything keeps something from working."""
    return any(defect.level == "bad" for own in [*fleet.values(), controller] for defect in own)
