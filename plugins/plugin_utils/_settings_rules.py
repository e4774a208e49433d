# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""Read and check the settings of a whole fleet, and the rules over several of them. Pure functions."""

from __future__ import annotations

import difflib
import ipaddress
import itertools
import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.solver.fleet.plugins.module_utils._socket import MAX_SOCKET_PATH_BYTES
from ansible_collections.solver.fleet.plugins.plugin_utils import _toml
from ansible_collections.solver.fleet.plugins.plugin_utils._names import listed, natural
from ansible_collections.solver.fleet.plugins.plugin_utils._regions import WORD
from ansible_collections.solver.fleet.plugins.plugin_utils._settings import (
    AWX,
    HOOKS,
    INTERNAL,
    LOCAL_FLEET,
    LOOPBACK,
    ROUTER,
    SECRETS,
    SETTINGS,
)
from ansible_collections.solver.fleet.plugins.plugin_utils._settings_read import (
    SettingError,
    read,
    share_of,
    window_size,
)
from ansible_collections.solver.fleet.plugins.plugin_utils._settings_worker import machine_of, worker_facts

# As docs/openapi/control-v1.yaml has it.
_WORKER_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}\Z")
# A phase that is late ends with its last call, and its connection: one of 60 s was seen to take 78.7 s.
LEASE_MARGIN_S = 20.0
# Where others live, too.
SYSTEM_DIRS = frozenset({"", "/", *("/" + name for name in (
    "bin", "boot", "dev", "etc", "home", "lib", "media", "mnt", "opt", "proc", "root", "run", "sbin", "srv", "sys",
    "tmp", "usr", "usr/local", "usr/local/lib", "usr/lib", "var", "var/lib", "var/opt", "var/tmp"))})
# A worker's hook that is delegated to the worker.
ITSELF = ("{{ inventory_hostname }}", "{{inventory_hostname}}")
# What a rollout writes on the controller; each is a file of its own.
FILES = ("solver_verdict_file", "solver_report_file", "solver_metrics_file")


@dataclass
class Resolved:
    """What the playbooks work with: rollout settings, and for each worker its own."""

    settings: dict[str, Any] = field(default_factory=dict)
    workers: dict[str, dict[str, Any]] = field(default_factory=dict)
    routers: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    package: str = ""
    package_on_worker: str = ""
    package_name: str = ""


def resolve(
    variables: Mapping[str, Mapping[str, Any]], need_version: bool = True, left_out: Sequence[str] = (),
    rolls: bool = True, routers: Mapping[str, Mapping[str, Any]] | None = None, *, stages: bool = True,
) -> Resolved:
    """Read the settings of a fleet: VARIABLES maps each inventory host to its variables, ROUTERS each router to its.

    LEFT_OUT are the workers of the inventory that the run does not have. ROLLS says that workers will be touched,
    NEED_VERSION that it is to a version which somebody must name, STAGES that a version that is named will be staged.
    """
    out = Resolved()
    _of_the_fleet(out, variables)
    _package(out)
    for host, host_vars in variables.items():
        out.workers[host] = _worker(out, host, host_vars)
    if stages and out.settings["solver_version"]:
        _extend(out.errors, _unwritable(out.workers))
    if need_version and not out.settings.get("solver_version"):
        _extend(out.errors, ["solver_version is not set; name the version to roll out, "
                             "for example -e solver_version=1.3.0"])
    out.routers = {host: _router(out, host, host_vars) for host, host_vars in (routers or {}).items()}
    if need_version:
        _names_of_workers(out)
    _of_several(out, len(variables))
    _routers_rules(out, rolls)
    _machines_rules(out)
    if rolls:
        _hooks(out)
        _rollout_rules(out)
    if rolls and left_out and not out.settings["solver_allow_partial"]:
        _extend(out.errors, [
            f"the run is limited and lacks {', '.join(left_out)}; window and budget must be those of the whole fleet. "
            "Run it without --limit, or set solver_allow_partial: true"])
    return out


def unknown_names(names: Mapping[str, Any]) -> list[str]:
    """Return a message for each solver_ variable that nothing reads."""
    known = set(SETTINGS) | set(ROUTER) | set(LOCAL_FLEET) | set(SECRETS) | set(AWX)
    messages = []
    for name in sorted(names):
        if not name.startswith("solver_") or name in known or name in INTERNAL or name.startswith(WORD):
            continue
        near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.8)
        hint = f"; did you mean {near[0]}?" if near else "; docs/settings.md lists the settings"
        messages.append(f"{name} is not a setting of solver.fleet{hint}")
    return messages


def _extend(messages: list[str], more: list[str]) -> None:
    messages.extend(message for message in more if message not in messages)


def _collect(out: Resolved, name: str, raw: Any, into: dict[str, Any], host: str = "") -> None:
    try:
        into[name] = read(name, raw)
    except SettingError as error:
        _extend(out.errors, [f"{host}: {error}" if host else str(error)])
        into[name] = read(name, None)


def _of_the_fleet(out: Resolved, variables: Mapping[str, Mapping[str, Any]]) -> None:
    """Read what is set once; a rollout has one plan, so it must not differ between the workers."""
    first = next(iter(variables.values()), {})
    for host_vars in variables.values():
        _extend(out.errors, unknown_names(host_vars))
    own = {name: setting for name, setting in SETTINGS.items() if not setting.per_worker}
    for name, setting in own.items():
        _collect(out, name, first.get(name), {} if setting.secret else out.settings)
    _extend(out.errors, [
        f"{name} differs between the workers; it is a setting of the whole fleet, set it in one place"
        for name in own if _differs(name, [host_vars.get(name) for host_vars in variables.values()])])
    if out.settings["solver_events_dir"]:
        out.settings["solver_events_dir"] = os.path.abspath(os.path.expanduser(out.settings["solver_events_dir"]))


def _differs(name: str, raw: Sequence[Any]) -> bool:
    """Whether the values mean different things; null, an empty text and the default itself mean the same."""
    unlike = {repr(value): value for value in raw}
    try:
        values = [read(name, value) for value in unlike.values()] if len(unlike) > 1 else []
    except SettingError:
        return True
    return any(value != values[0] for value in values)


def _worker(out: Resolved, host: str, host_vars: Mapping[str, Any]) -> dict[str, Any]:
    own: dict[str, Any] = {}
    for name, setting in SETTINGS.items():
        if setting.per_worker:
            _collect(out, name, host_vars.get(name), own, host)
    worker = worker_facts(host, host_vars, own, expanded(out.settings["solver_wheelhouse"]))
    standby = worker["service"].get("standby") or {}
    missing = [verb for verb in ("start", "stop", "status") if verb not in own["solver_standby_service"]]
    if standby and own["solver_service_backend"] == "command" and missing:
        _extend(out.errors, [f"{host}: solver_standby is true, but solver_standby_service has no {', '.join(missing)}; "
                             "name the commands of the slot, or set solver_standby: false"])
    chosen = sorted({"name", "socket", "order", "home_order"} & set(own["solver_standby_service"]))
    if chosen:
        _extend(out.errors, [f"{host}: solver_standby_service has {', '.join(chosen)}, which follows from the worker; "
                             "take it out"])
    _extend(out.errors, _too_long(host, worker["control_socket"], str(standby.get("socket") or "")))
    return worker


def _unwritable(workers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say what of the workers' configurations and units could not be written into a release, each thing once."""
    by_reason: dict[str, list[str]] = {}
    for host, worker in workers.items():
        try:
            _toml.dumps(worker["config"])
        except ValueError as error:
            by_reason.setdefault(str(error), []).append(host)
        unit = worker["unit"] if worker["service"]["backend"] == "systemd" else {}
        for reason in _no_unit(unit):
            by_reason.setdefault(reason, []).append(host)
    return [f"{listed(hosts)}: {reason}" for reason, hosts in by_reason.items()]


def _no_unit(unit: Mapping[str, Any]) -> Iterator[str]:
    for section, directives in unit.items():
        if not isinstance(directives, Mapping):
            yield f"solver_unit.{section} must be a section with its directives, such as {{Service: {{MemoryMax: 1G}}}}"
            continue
        for name, value in directives.items():
            if not isinstance(value, (str, int, float, type(None))):
                yield (f"solver_unit.{section}.{name} is a {type(value).__name__}; a directive is text, a number, "
                       "true, false, or nothing")


def expanded(path: str) -> str:
    """Return where a path of the controller leads; a setting itself is shown as it was written."""
    return os.path.expanduser(os.path.expandvars(path))


def _too_long(host: str, control_socket: str, of_standby: str) -> list[str]:
    """Say which socket's path is too long: the worker's own, or that of its standby, which follows from it."""
    for what, path in (("solver_control_socket is", control_socket),
                       ("the socket of its standby, beside solver_control_socket, is", of_standby)):
        size = len(os.fsencode(path))
        if size > MAX_SOCKET_PATH_BYTES:
            return [f"{host}: {what} {size} bytes long ({path}); a Unix socket's path holds at most "
                    f"{MAX_SOCKET_PATH_BYTES}, choose a shorter directory"]
    return []


def _router(out: Resolved, host: str, host_vars: Mapping[str, Any]) -> dict[str, Any]:
    _extend(out.errors, unknown_names(host_vars))
    own: dict[str, Any] = {}
    for name in ROUTER:
        _collect(out, name, host_vars.get(name), own, host)
    for address in own["solver_router_bind"]:
        if not re.fullmatch(r"[^\s:]+:[0-9]+|\[[0-9a-fA-F:]+\]:[0-9]+", address):
            _extend(out.errors, [f"{host}: solver_router_bind is {address!r}; it must be HOST:PORT"])
    return {**{name.removeprefix("solver_router_"): value for name, value in own.items()},
            "machine": machine_of(host, host_vars)}


def _package(out: Resolved) -> None:
    """What the controller gathers, and the name under which a worker then finds it among the wheels."""
    version = out.settings["solver_version"]
    package = out.settings["solver_package"] or f"solver-worker=={version}"
    out.package = out.package_on_worker = package
    out.package_name = re.split(r"[\s=<>!~\[]", package, maxsplit=1)[0]
    if package.endswith(".whl"):
        parts = os.path.basename(package).split("-")
        out.package = os.path.abspath(os.path.expanduser(package))
        out.package_on_worker = "==".join(parts[:2])
        out.package_name = parts[0]
        if version and len(parts) > 1 and parts[1] != version:
            out.errors.append(f"solver_package is {package}, a wheel of version {parts[1]}, but solver_version is "
                              f"{version}; name the same version in both")


def _of_several(out: Resolved, fleet: int) -> None:
    """Rules over more than one setting."""
    settings = out.settings
    try:
        settings["window"] = window_size(settings["solver_max_unavailable"], fleet)
        settings["surge"] = share_of("solver_surge", settings["solver_surge"], fleet, settings["window"])
        settings["flip"] = share_of("solver_flip", settings["solver_flip"], fleet, fleet)
        most = settings["solver_max_soaking"]
        settings["soaking"] = settings["window"] if most is None else most
    except SettingError as error:
        _extend(out.errors, [str(error)])
    if settings["solver_on_drain_timeout"] == "force" and not settings["solver_accept_loss"]:
        _extend(out.errors, ["solver_on_drain_timeout is force, which may lose tasks; "
                             "set solver_accept_loss: true as well, or use handover"])
    if settings["solver_resume_foreign"] and not settings["solver_reason"]:
        _extend(out.errors, ["solver_resume_foreign needs a solver_reason: it ends a drain of somebody else"])
    _lease_rule(out)
    _unknown_names_of_workers(out)
    sockets = [worker["control_socket"] for worker in out.workers.values()]
    if fleet == 1:
        out.warnings.append("the fleet has one worker: while it is updated nothing takes tasks")
    if len(set(sockets)) < len(sockets) and _one_machine(out):
        _extend(out.errors, ["two workers of one machine have the same solver_control_socket; "
                             "one inventory host is one worker with its own socket"])


def _lease_rule(out: Resolved) -> None:
    """A lease that ends while its phase goes on would put an unverified worker to its own probe in the middle of it."""
    settings = out.settings
    longest = max(settings["solver_drain_timeout"], settings["solver_healthy_deadline"])
    needed = longest + LEASE_MARGIN_S
    if settings["solver_drain_lease"] < needed:
        _extend(out.errors, [f"solver_drain_lease is {settings['solver_drain_lease']:g} s, but a phase of the update "
                             f"may take {longest:g} s (the longer of solver_drain_timeout and "
                             f"solver_healthy_deadline) and a call more; make it at least {needed:g} s"])


def _rollout_rules(out: Resolved) -> None:
    """What would let a rollout hang, abort by itself, or never abort."""
    settings = out.settings
    twice = settings["solver_switch"] == "standby" or settings["solver_strategy"] == "blue_green"
    phases = settings["solver_drain_timeout"] + (2 if twice else 1) * settings["solver_healthy_deadline"]
    if settings["solver_progress_deadline"] <= phases:
        _extend(out.errors, [f"solver_progress_deadline is {settings['solver_progress_deadline']:g} s, but one worker "
                             f"may take {phases:g} s (solver_drain_timeout + {'twice ' if twice else ''}"
                             "solver_healthy_deadline); make it longer"])
    soak = settings["solver_min_healthy_time"]
    turn = settings["solver_drain_timeout"] + 2 * settings["solver_healthy_deadline"] + soak
    if settings["solver_lock_ttl"] <= turn:
        _extend(out.errors, [f"solver_lock_ttl is {settings['solver_lock_ttl']:g} s, but one worker's turn may take "
                             f"{turn:g} s (solver_drain_timeout + twice solver_healthy_deadline + "
                             "solver_min_healthy_time); make it longer"])
    if settings["solver_max_fail_percentage"] >= 100:
        _extend(out.errors, ["solver_max_fail_percentage is 100, a budget that can never be exceeded: the rollout "
                             "would go through the whole fleet whatever fails; use less"])
    if settings["solver_canary_bake_max"] < settings["solver_canary_bake"]:
        _extend(out.errors, [f"solver_canary_bake_max is {settings['solver_canary_bake_max']:g} s, shorter than "
                             f"solver_canary_bake, {settings['solver_canary_bake']:g} s; make it longer"])
    if settings["solver_lock_steal"] and not settings["solver_reason"]:
        _extend(out.errors, ["solver_lock_steal needs a solver_reason, which is kept with the lock"])
    _files_rules(out)


def _files_rules(out: Resolved) -> None:
    """What one file on the controller would hold twice, or nobody would read."""
    named = [(name, out.settings[name]) for name in FILES if out.settings[name]]
    for (one, path), (other, its) in itertools.combinations(named, 2):
        if path == its:
            _extend(out.errors, [f"{other} and {one} are the same file; name two"])
    if out.settings["solver_metrics_file"] and not out.settings["solver_metrics_file"].endswith(".prom"):
        _extend(out.errors, [f"solver_metrics_file is {out.settings['solver_metrics_file']}, but the node exporter "
                             "reads no file whose name does not end with .prom; name it so"])


def _hooks(out: Resolved) -> None:
    """Where a hook runs, and that its file can be found from anywhere."""
    for name, path in out.settings["solver_hooks"].items():
        if name not in HOOKS:
            _extend(out.errors, [f"solver_hooks has {name}, {_no_point(str(name))}"])
        elif not isinstance(path, str) or not os.path.isabs(path) or not path.isprintable():
            _extend(out.errors, [f"solver_hooks.{name} is {path!r}; it must be the absolute path of a task file on the "
                                 "controller, such as '{{ inventory_dir }}/hooks/" + f"{name}.yml'"])


def _no_point(name: str) -> str:
    renamed = name.replace("_wave", "_stage")
    if renamed != name and renamed in HOOKS:
        return f"which is {renamed} now: a rollout goes by stages; rename it"
    near = difflib.get_close_matches(name, HOOKS, n=1)
    hint = f"; did you mean {near[0]}?" if near else f"; choose of: {', '.join(HOOKS)}"
    return f"which is no point of a rollout{hint}"


def _routers_rules(out: Resolved, rolls: bool) -> None:
    """What a router would send to nobody, or too long to somebody who has left."""
    settings = out.settings
    if not out.routers:
        if rolls and settings["solver_floor_view"] == "routers":
            _extend(out.errors, ["solver_floor_view is routers, but the inventory group "
                                 f"{settings['solver_router_hosts']} (solver_router_hosts) has no host"])
        return
    interval = settings["solver_router_check_interval"]
    if rolls and settings["solver_drain_grace"] < 2 * interval:
        _extend(out.errors, [f"solver_drain_grace is {settings['solver_drain_grace']:g} s, but a router looks at a "
                             f"worker every {interval:g} s (solver_router_check_interval); make the grace at least "
                             f"{2 * interval:g} s"])
    for host, router in out.routers.items():
        alone = sorted((worker["name"] for worker in out.workers.values() if worker["machine"] != router["machine"]
                        and worker["data_address"].rpartition(":")[0] in LOOPBACK), key=natural)
        if alone:
            _extend(out.errors, [f"the router {host} cannot reach {', '.join(alone)}: solver_data_host is loopback on "
                                 "another machine; set it to an address of the worker's host"])


def system_dirs(out: Resolved, *which: str) -> list[str]:
    """Say which of these directories of the workers is the system's: it would be given to one, or go with it."""
    return [f"{host}: solver_{name} is {worker[name]}, a directory of the system, which would not be its own any more; "
            "name one below it" for host, worker in out.workers.items() for name in which
            if posixpath.normpath(worker[name] or "/").replace("//", "/") in SYSTEM_DIRS]


def provision_refusals(out: Resolved) -> list[str]:
    """Say what must not be put on a host; a fleet that has it already may be rolled, paused and removed."""
    errors = system_dirs(out, "base_dir", "worker_dir")
    machines = {router["machine"] for router in out.routers.values()}
    far = sorted((host for host, worker in out.workers.items() if machines - {worker["machine"]}
                  and _is_every_address(worker["data_address"].rpartition(":")[0])), key=natural)
    return errors + ([f"{', '.join(far)}: solver_data_host is every address of the worker's host, which no router on "
                      "another machine can connect to; set it to the one by which the routers reach it"] if far else [])


def _is_every_address(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False  # a name


def _machines_rules(out: Resolved) -> None:
    """What two workers of one machine cannot each have for themselves."""
    users: dict[tuple[str, str], dict[str, str]] = {}
    for host, worker in out.workers.items():
        if worker["user"]:
            users.setdefault((worker["machine"], worker["base_dir"]), {})[host] = worker["user"]
    for (machine, base), own in users.items():
        if len(set(own.values())) > 1:
            said = ", ".join(f"{host} has {own[host]}" for host in sorted(own, key=natural))
            _extend(out.errors, [f"solver_user differs between the workers of {machine} in {base} ({said}), but its "
                                 "files can belong to one user alone; set one solver_user, or another solver_base_dir"])


def _names_of_workers(out: Resolved) -> None:
    """What a worker refuses when it starts, and its control API has no other."""
    wrong = [host if host == own["name"] else f"{host} ({own['name']})" for host, own in out.workers.items()
             if not _WORKER_NAME.match(own["name"])]
    if wrong:
        _extend(out.errors, [f"{', '.join(sorted(wrong, key=natural))}: a worker's name is 1 to 63 of a-z, 0-9 and "
                             "'-', beginning with a letter or digit; set solver_worker_name for each, for example "
                             "solver_worker_name: w1"])


def _unknown_names_of_workers(out: Resolved) -> None:
    for name in ("solver_exclude", "solver_only"):
        strangers = sorted(set(out.settings[name]) - set(out.workers), key=natural)
        if strangers:
            _extend(out.errors, [f"{name} names {', '.join(strangers)}, which the fleet does not have"])


def _one_machine(out: Resolved) -> bool:
    keys = [(worker["base_dir"], worker["worker_dir"]) for worker in out.workers.values()]
    return len(set(keys)) < len(keys)


def each_task(tasks: Any, above: Mapping[str, Any] | None = None) -> Iterator[Mapping[str, Any]]:
    """Yield the tasks of a loaded file, also those in its blocks, with what they have from those.

    What a file includes is not looked at.
    """
    for task in tasks if isinstance(tasks, list) else []:
        if isinstance(task, Mapping):
            own = {**(above or {}), **task}
            passed = {name: own[name] for name in ("delegate_to", "run_once") if name in own}
            parts = [part for part in ("block", "rescue", "always") if part in task]
            yield from (inner for part in parts for inner in each_task(task[part], passed)) if parts else [own]


def unheard(tasks: Any) -> str:
    """Return the first other host to which a task is delegated without a C(register).

    The play ignores whoever cannot be reached, so where that host is silent the task counts as passed.
    """
    hosts = (str(task.get("delegate_to") or "") for task in each_task(tasks) if not task.get("register"))
    return next((host for host in hosts if host not in ("", *LOOPBACK, *ITSELF)), "")


def says_run_once(tasks: Any) -> bool:
    """Whether a task of a loaded file, or of a block in it, has C(run_once): Ansible rescues one host of it alone."""
    return any(task.get("run_once") for task in each_task(tasks))
