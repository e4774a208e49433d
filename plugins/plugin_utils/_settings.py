# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""The variables that people set: their types, defaults and meaning, in one place.

The playbooks validate against this table before anything is touched, and C(docs/settings.md) is made from it.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# Nobody on another machine gets here.
LOOPBACK = ("127.0.0.1", "localhost", "::1")

MAX_SOCKET_PATH = 107  # bytes; sun_path of Linux is 108 with its terminating NUL


@dataclass(frozen=True)
class Setting:
    """One variable: how to read it, what it is when nobody sets it, and what it means."""

    kind: str  # text, path, count, seconds, percent, window, flag, names, mapping, choice
    default: Any
    doc: str
    choices: tuple[str, ...] = ()
    per_worker: bool = False  # may differ from worker to worker
    minimum: float | None = None
    maximum: float | None = None  # for text: characters


def _choice(default: str, doc: str, *choices: str, per_worker: bool = False) -> Setting:
    return Setting("choice", default, doc, choices=choices, per_worker=per_worker)


SETTINGS: dict[str, Setting] = {
    # the release
    "solver_version": Setting(
        "text", "", "Version to roll out, or to provision. Required by rolling_update.yml and provision.yml."),
    "solver_package": Setting(
        "text", "", "Package to install: a requirement or the path of a wheel on the controller. "
        "Default: solver-worker==solver_version."),
    "solver_package_sha256": Setting("text", "", "Expected SHA-256 of the wheel, in hexadecimal."),
    "solver_wheelhouse": Setting(
        "path", "~/.cache/solver.fleet/wheelhouse",
        "Directory on the controller that holds the release and all that it needs, as wheels. "
        "Missing wheels are fetched into it once, unless solver_offline."),
    "solver_offline": Setting("flag", False, "Use only the wheels that solver_wheelhouse already holds."),
    "solver_index_url": Setting("text", "", "Package index for the controller; empty means pip's own setting."),
    "solver_keep_releases": Setting(
        "count", 5, "Releases kept on a worker; a linked one is never removed.", minimum=2),
    # the rollout
    "solver_hosts": Setting("text", "solver_workers", "Inventory pattern of the fleet; one host is one worker."),
    "solver_exclude": Setting("names", [], "Workers (inventory names) that this rollout leaves alone."),
    "solver_allow_partial": Setting(
        "flag", False, "Allow a run that leaves out a part of the fleet, by a limit or a slice. The window and the "
        "budget are then those of the part."),
    "solver_only": Setting(
        "names", [], "Only these workers (inventory names), for rollback.yml and recover.yml (default: all), and whom "
        "remove.yml removes (required there)."),
    "solver_fleet_size": Setting(
        "count", 0, "How many workers the fleet has; a run with another number is refused. 0: as many as there are. "
        "Once it was provisioned or rolled, the fleet knows its members by itself.", minimum=0),
    "solver_forget": Setting(
        "names", [], "Workers (inventory names) that are gone for good: later runs no longer miss them."),
    "solver_force": Setting(
        "flag", False, "Try a release again on workers on which that very release failed before."),
    "solver_foreign_drain": _choice(
        "refuse", "What happens when somebody else drains a worker: refuse the rollout, or exclude that worker.",
        "refuse", "exclude"),
    "solver_on_abort": _choice(
        "rollback", "What happens to the updated workers when a bad release exceeds the budget: rollback brings each "
        "back to where it came from; stop leaves them.", "rollback", "stop"),
    "solver_progress_deadline": Setting(
        "seconds", 900.0, "Without a worker that becomes healthy for so long, the rollout is aborted. Must be longer "
        "than solver_drain_timeout, solver_deploy_timeout and solver_healthy_deadline together.", minimum=5),
    "solver_reason": Setting("text", "", "Why, shown by every worker while it drains.", maximum=500),
    "solver_lock_wait": Setting(
        "seconds", 0.0, "How long to wait for another rollout to end. 0: refuse at once.", minimum=0, maximum=86_400),
    "solver_lock_ttl": Setting(
        "seconds", 1800.0, "After so long without a sign of life the lock of a rollout is free.", minimum=60,
        maximum=86_400),
    "solver_lock_steal": Setting(
        "flag", False, "Take the lock of another rollout that is known to be dead; needs solver_reason."),
    "solver_rollout_id": Setting(
        "text", "", "Identity of the rollout and owner of its drains. Default: made up.", maximum=200),
    "solver_max_unavailable": Setting(
        "window", None, "Workers out of service at once: a count, or a percentage such as 20% (rounded down, at "
        "least 1). Above 50 % is refused. Default: 1 below 10 workers, 10 % from 10 on."),
    "solver_max_fail_percentage": Setting(
        "percent", 25.0, "Failure budget of the whole fleet: above it (not at it) no further worker is touched. "
        "0 means none may fail."),
    "solver_hooks": Setting(
        "mapping", {}, "Task files of your own, by the point where they run: before_rollout, before_wave, "
        "before_worker, after_worker, after_wave, after_rollout, on_failure. Each an absolute path on the controller."),
    "solver_verdict_file": Setting("path", "", "Where the controller writes the verdict, a JSON document."),
    "solver_router_hosts": Setting(
        "text", "solver_routers", "Inventory group of the routers, if there are any. Another one is named with -e: "
        "which hosts a play is for must be known before any host's variables are."),
    "solver_router_check_interval": Setting(
        "seconds", 1.0, "Time between two health checks of a worker by its router. solver_drain_grace must be at least "
        "twice as long.", minimum=0.1, maximum=60),
    "solver_floor_view": _choice(
        "workers", "Who says which workers serve, before each wave: they themselves, or also all routers that "
        "can be asked.", "workers", "routers"),
    # drain
    "solver_drain_mode": _choice(
        "complete", "complete waits until nothing is open; handover until nothing is on its way to the "
        "provider: the next process goes on polling.", "complete", "handover"),
    "solver_drain_timeout": Setting(
        "seconds", 120.0, "Time for a drain: the longest solve plus a buffer.", minimum=1),
    "solver_drain_grace": Setting(
        "seconds", 5.0, "Time in which a draining worker still accepts while it already says so to the router.",
        minimum=0),
    "solver_drain_lease": Setting(
        "seconds", 900.0, "After so long without a renewal a worker ends the drain by itself.", minimum=60,
        maximum=86_400),
    "solver_on_drain_timeout": _choice(
        "handover", "What happens when a drain is not over in time: hand open tasks over to the next process "
        "(where the worker can), return_to_service (the worker fails and nothing was switched), or force "
        "(needs solver_accept_loss).", "handover", "return_to_service", "force"),
    "solver_accept_loss": Setting("flag", False, "Allow what may lose tasks: force."),
    # deploy and verify
    "solver_deploy_timeout": Setting(
        "seconds", 300.0, "Time for staging a release on a worker.", minimum=10),
    "solver_healthy_deadline": Setting(
        "seconds", 300.0, "Time from the restart until the worker is verified.", minimum=5),
    "solver_probe_task": Setting(
        "mapping", {}, "Fields of the task that verifies a worker. Default: the worker's own small image."),
    "solver_probe_expect": Setting("text", "", "Answer that solver_probe_task must get."),
    "solver_probe_timeout": Setting("seconds", 90.0, "Time for one probe solve.", minimum=1, maximum=900),
    "solver_probe_interval": Setting("seconds", 10.0, "Pause between two probes.", minimum=0, maximum=3600),
    "solver_probe_retries": Setting(
        "count", 3, "Probes tried before a worker counts as failed.", minimum=1, maximum=100),
    "solver_min_healthy_time": Setting(
        "seconds", 60.0, "Soak: a resumed worker is watched for so long. 0: not at all.", minimum=0, maximum=86_400),
    # the worker
    "solver_provider_url": Setting(
        "text", "https://ocr.captchaai.com", "The provider's base address.", per_worker=True),
    "solver_api_key_file": Setting(
        "path", "", "File on the worker's host that holds the provider's key. Default for systemd: "
        "/etc/solver/NAME.key, which provision.yml writes from solver_api_key.", per_worker=True),
    "solver_worker_name": Setting("text", "", "Default: the inventory name.", per_worker=True),
    "solver_base_dir": Setting("path", "/opt/solver", "Releases and environments of a machine.", per_worker=True),
    "solver_worker_dir": Setting(
        "path", "", "The worker's own links and state. Default: solver_base_dir/workers/NAME.", per_worker=True),
    "solver_control_socket": Setting(
        "path", "", f"The worker's control socket, at most {MAX_SOCKET_PATH} bytes. "
        "Default: /run/solver/NAME/control.sock.", per_worker=True),
    "solver_control_timeout": Setting(
        "seconds", 5.0, "Time for one answer of the control socket.", minimum=0.1),
    "solver_data_host": Setting("text", "127.0.0.1", "Address of the data API.", per_worker=True),
    "solver_data_port": Setting("count", 8080, "Port of the data API.", per_worker=True, minimum=1),
    "solver_data_token_file": Setting(
        "path", "", "File on the worker's host with the data API's bearer token; needed off loopback. provision.yml "
        "writes it from solver_data_token.", per_worker=True),
    "solver_worker_config": Setting(
        "mapping", {}, "Further settings of the worker, by section, laid over the rendered configuration.",
        per_worker=True),
    "solver_worker_python": Setting(
        "text", "", "Python 3.11 or later for the worker's environment. Default: the one that runs the modules "
        "there if it will do, else the newest of 3.13, 3.12 and 3.11 in the search path.",
        per_worker=True),
    "solver_service_backend": _choice(
        "systemd", "What runs the worker's process.", "systemd", "supervisor", "command", per_worker=True),
    "solver_service": Setting(
        "mapping", {}, "Settings of the service backend: for supervisor its socket and log_file, for command its "
        "commands; for systemd nothing is needed.", per_worker=True),
    "solver_unit": Setting(
        "mapping", {}, "For the systemd backend: further settings of the unit, by section, such as "
        "{Service: {MemoryMax: 1G}}. A change is rolled like a version.", per_worker=True),
    "solver_user": Setting(
        "text", "solver", "For the systemd backend: the user that the worker runs as; provision.yml makes it.",
        per_worker=True),
    "solver_become": Setting(
        "flag", False, "Become root on the workers' hosts, with Ansible's become; how is for Ansible's own settings. "
        "Needed for the systemd backend where the login is not root.", per_worker=True),
    "solver_supervisor": Setting(
        "mapping", {}, "For the supervisor backend: program_dir (which supervisord's [include] reads) and "
        "supervisorctl (the command).", per_worker=True),
}

# Settings of the hosts that route, the group solver_router_hosts; each router may have its own.
ROUTER: dict[str, Setting] = {
    "solver_router_bind": Setting(
        "names", ["127.0.0.1:8090"], "Addresses that the router listens on, HOST:PORT. More than loopback must be "
        "asked for.", per_worker=True),
    "solver_router_body_bytes": Setting(
        "count", 262_144, "Buffer for one request. A longer one is not sent to a second worker when the first refuses.",
        per_worker=True, minimum=16_384),
    "solver_router_keys": Setting(
        "count", 200_000, "How many idempotency keys the router remembers, for a day.", per_worker=True, minimum=1000),
    "solver_router_max_connections": Setting(
        "count", 2000, "Connections at once.", per_worker=True, minimum=10, maximum=500_000),
    "solver_router_stats_socket": Setting(
        "path", "/run/solver-router/stats.sock", "HAProxy's own socket, for solver_floor_view.", per_worker=True),
    "solver_router_backend": Setting(
        "text", "solver", "HAProxy's backend with the workers, for solver_floor_view with a router of your own.",
        per_worker=True),
    "solver_router_package": Setting(
        "text", "haproxy", "The distribution's package; empty to install none.", per_worker=True),
}

# Secrets that provision.yml brings to the hosts. They are known, but never read into facts, results or documents.
SECRETS = {
    "solver_api_key": "The provider's key, from a vault or a credential; goes to solver_api_key_file.",
    "solver_data_token": "The data API's bearer token; goes to solver_data_token_file.",
}

# Variables of the embedded local fleet (playbooks/local_fleet.yml); they may stand in the same inventory.
LOCAL_FLEET: dict[str, Setting] = {
    "solver_local_fleet_state": _choice("present", "Whether the fleet is there.", "present", "absent"),
    "solver_local_fleet_dir": Setting("path", "", "Its folder. Default: .local-fleet where you are."),
    "solver_local_fleet_size": Setting("count", 4, "How many workers.", minimum=1),
    "solver_local_fleet_version": Setting("text", "1.2.0", "The release that the fleet starts on."),
    "solver_local_fleet_versions": Setting(
        "names", ["1.2.0", "1.3.0"], "Releases that are built from the reference worker's source."),
    "solver_local_fleet_overlays": Setting(
        "mapping", {}, "Per version a folder laid over the source before it is built (fixture releases)."),
    "solver_local_fleet_sandbox": Setting("names", [], "Arguments for the sandbox provider."),
    "solver_local_fleet_worker_config": Setting("mapping", {}, "Further worker settings, by section."),
    "solver_local_fleet_python": Setting("text", "", "Interpreter for the fleet. Default: the running one."),
    "solver_local_fleet_purge": Setting("flag", False, "With absent: remove cached builds and reports as well."),
}

# Where tasks of the user may run, in the order of a rollout.
HOOKS = ("before_rollout", "before_wave", "before_worker", "after_worker", "after_wave", "after_rollout", "on_failure")

# Set by the playbooks themselves.
INTERNAL = frozenset({
    "solver_back", "solver_back_gate", "solver_back_outcome", "solver_back_result", "solver_begun", "solver_census",
    "solver_enrolled", "solver_final", "solver_gate", "solver_hook", "solver_hook_failures", "solver_lock",
    "solver_operation", "solver_outcome", "solver_package_wheel", "solver_plan", "solver_plan_result",
    "solver_removal", "solver_removal_look", "solver_removal_looks", "solver_request", "solver_requested",
    "solver_rollout", "solver_staged", "solver_step", "solver_unlocked", "solver_verdict",
    "solver_verdict_result", "solver_waited", "solver_wave_hook_failures", "solver_wheels",
})


def says_run_once(tasks: Any) -> bool:
    """Whether a task of a loaded file, or of a block in it, has C(run_once): Ansible rescues one host of it alone."""
    if isinstance(tasks, Mapping):
        inner = [tasks.get(part) for part in ("block", "rescue", "always")]
        return bool(tasks.get("run_once")) or any(says_run_once(part) for part in inner)
    return isinstance(tasks, list) and any(says_run_once(task) for task in tasks)


class SettingError(ValueError):
    """A setting that cannot be used; the message names it and the remedy."""


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


def unknown_names(names: Mapping[str, Any]) -> list[str]:
    """Return a message for each solver_ variable that nothing reads."""
    known = set(SETTINGS) | set(ROUTER) | set(LOCAL_FLEET) | set(SECRETS)
    messages = []
    for name in sorted(names):
        if not name.startswith("solver_") or name in known or name in INTERNAL:
            continue
        near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.8)
        hint = f"; did you mean {near[0]}?" if near else "; docs/settings.md lists the settings"
        messages.append(f"{name} is not a setting of solver.fleet{hint}")
    return messages


def read(name: str, raw: Any) -> Any:
    """Return the value of setting NAME as its type, or raise SettingError."""
    setting = SETTINGS.get(name) or ROUTER.get(name) or LOCAL_FLEET[name]
    if raw is None:
        return _copy(setting.default)
    value = _READERS[setting.kind](name, raw)
    if setting.choices and value not in setting.choices:
        raise SettingError(f"{name} is {raw!r}; choose one of: {', '.join(setting.choices)}")
    if setting.minimum is not None and value < setting.minimum:
        raise SettingError(f"{name} is {raw}; it must be at least {setting.minimum:g}")
    _check_maximum(name, setting, value)
    return value


def _check_maximum(name: str, setting: Setting, value: Any) -> None:
    """What the modules and the worker would refuse only after the first drain."""
    if setting.maximum is None:
        return
    if isinstance(value, str):
        if len(value) > setting.maximum or not value.isprintable():
            raise SettingError(f"{name} must be one line of at most {setting.maximum:g} printable characters")
    elif value > setting.maximum:
        raise SettingError(f"{name} is {value:g}; it must be at most {setting.maximum:g}")


def _copy(value: Any) -> Any:
    return value.copy() if isinstance(value, (list, dict)) else value


def _text(name: str, raw: Any) -> str:
    if isinstance(raw, (dict, list, bool)):
        raise SettingError(f"{name} is {raw!r}; it must be text")
    return str(raw).strip()


def _number(name: str, raw: Any) -> float:
    if isinstance(raw, bool):
        raise SettingError(f"{name} is {raw!r}; it must be a number")
    try:
        return float(raw)
    except (TypeError, ValueError):
        raise SettingError(f"{name} is {raw!r}; it must be a number") from None


def _count(name: str, raw: Any) -> int:
    number = _number(name, raw)
    if number != int(number):
        raise SettingError(f"{name} is {raw!r}; it must be a whole number")
    return int(number)


def _percent(name: str, raw: Any) -> float:
    number = _number(name, str(raw).strip().rstrip("%"))
    if not 0 <= number <= 100:
        raise SettingError(f"{name} is {raw!r}; it must lie between 0 and 100 (percent of the fleet)")
    return number


def _flag(name: str, raw: Any) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    key = str(raw).strip().lower()
    if key not in words:
        raise SettingError(f"{name} is {raw!r}; it must be true or false")
    return words[key]


def _names(name: str, raw: Any) -> list[str]:
    if isinstance(raw, str):
        return [part.strip() for part in raw.split(",") if part.strip()]
    if isinstance(raw, (list, tuple)):
        return [str(part) for part in raw]
    raise SettingError(f"{name} is {raw!r}; it must be a list, or names with commas between")


def _mapping(name: str, raw: Any) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        raise SettingError(f"{name} is {raw!r}; it must be a mapping")
    return dict(raw)


def _window(name: str, raw: Any) -> str:
    text = _text(name, raw)
    number = _number(name, text.rstrip("%"))
    if number <= 0:
        raise SettingError(f"{name} is {raw}; at least one worker must be allowed to be out of service, use 1 or more")
    if not text.endswith("%") and number != int(number):
        raise SettingError(f"{name} is {raw}; it must be a whole number of workers, or a percentage such as 20%")
    return text


_READERS: dict[str, Callable[[str, Any], Any]] = {
    "text": _text, "path": _text, "choice": _text, "count": _count, "seconds": _number, "percent": _percent,
    "window": _window, "flag": _flag, "names": _names, "mapping": _mapping,
}


def window_size(raw: str | None, fleet: int) -> int:
    """Return how many of FLEET workers may be out of service at once; above half is refused, one never is.

    Default 1 below 10 workers and 10 % from there: percentages say little of a small fleet.
    """
    if raw is None:
        return 1 if fleet < 10 else max(1, fleet // 10)
    if raw.endswith("%"):
        percent = float(raw.rstrip("%"))
        if percent > 50:
            raise SettingError(
                f"solver_max_unavailable is {raw}; more than half of the fleet may never be out of service, "
                "use 50% or less")
        return max(1, int(fleet * percent / 100))
    count = int(float(raw))
    if count > 1 and count * 2 > fleet:
        raise SettingError(
            f"solver_max_unavailable is {count} of {fleet} workers; more than half of the fleet may never be out "
            f"of service, use {max(1, fleet // 2)} or less")
    return count


def resolve(
    variables: Mapping[str, Mapping[str, Any]], need_version: bool = True, left_out: Sequence[str] = (),
    rolls: bool = True, routers: Mapping[str, Mapping[str, Any]] | None = None,
) -> Resolved:
    """Read the settings of a fleet: VARIABLES maps each inventory host to its variables, ROUTERS each router to its.

    LEFT_OUT are the workers of the inventory that the run does not have. ROLLS says that workers will be touched,
    NEED_VERSION that it is to a version which somebody must name.
    """
    out = Resolved()
    first = next(iter(variables.values()), {})
    for host_vars in variables.values():
        _extend(out.errors, unknown_names(host_vars))
    for name, setting in SETTINGS.items():
        if not setting.per_worker:
            _collect(out, name, first.get(name), out.settings)
    _same_everywhere(out, variables)
    _package(out)
    for host, host_vars in variables.items():
        out.workers[host] = _worker(out, host, host_vars)
    if need_version and not out.settings.get("solver_version"):
        _extend(out.errors, ["solver_version is not set; name the version to roll out, "
                             "for example -e solver_version=1.3.0"])
    out.routers = {host: _router(out, host, host_vars) for host, host_vars in (routers or {}).items()}
    _together(out, len(variables))
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


def _extend(messages: list[str], more: list[str]) -> None:
    messages.extend(message for message in more if message not in messages)


def _collect(out: Resolved, name: str, raw: Any, into: dict[str, Any], host: str = "") -> None:
    try:
        into[name] = read(name, raw)
    except SettingError as error:
        _extend(out.errors, [f"{host}: {error}" if host else str(error)])
        into[name] = _copy((SETTINGS.get(name) or ROUTER[name]).default)


def _same_everywhere(out: Resolved, variables: Mapping[str, Mapping[str, Any]]) -> None:
    """A rollout has one plan: a setting of the whole fleet must not differ between its workers."""
    for name, setting in SETTINGS.items():
        values = {repr(host_vars.get(name)) for host_vars in variables.values()}
        if not setting.per_worker and len(values) > 1:
            # Without the values: an index address may hold a password.
            _extend(out.errors, [f"{name} differs between the workers; it is a setting of the whole fleet, set it in "
                                 "one place"])


def _worker(out: Resolved, host: str, host_vars: Mapping[str, Any]) -> dict[str, Any]:
    own: dict[str, Any] = {}
    for name, setting in SETTINGS.items():
        if setting.per_worker:
            _collect(out, name, host_vars.get(name), own, host)
    name = own["solver_worker_name"] or host
    on_controller = host_vars.get("ansible_connection") == "local"
    base = own["solver_base_dir"].rstrip("/")
    worker_dir = own["solver_worker_dir"] or f"{base}/workers/{name}"
    socket = own["solver_control_socket"] or f"/run/solver/{name}/control.sock"
    size = len(os.fsencode(socket))
    if size > MAX_SOCKET_PATH:
        _extend(out.errors, [f"{host}: solver_control_socket is {size} bytes long ({socket}); a Unix socket's path "
                             f"holds at most {MAX_SOCKET_PATH}, choose a shorter directory"])
    backend = own["solver_service_backend"]
    systemd = backend == "systemd"
    secrets = secret_files(name, own) if systemd else {}
    return {
        "name": name, "base_dir": base, "worker_dir": worker_dir, "control_socket": socket,
        "python": own["solver_worker_python"],
        "service": {**own["solver_service"], "backend": backend,
                    "name": own["solver_service"].get("name", f"solver-worker@{name}" if systemd else name)},
        "supervisor": own["solver_supervisor"],
        "unit": own["solver_unit"], "user": own["solver_user"] if systemd else "", "credentials": secrets,
        "provider": {"url": own["solver_provider_url"],
                     "api_key_file": secrets.get("api_key") or own["solver_api_key_file"]},
        "config": worker_config(name, f"/var/lib/solver/{name}" if systemd else f"{worker_dir}/state", socket, own,
                                secrets),
        "on_controller": on_controller,
        "wheelhouse": out.settings["solver_wheelhouse"] if on_controller else f"{base}/wheelhouse",
        "machine": _machine(host, host_vars), "data_address": f"{own['solver_data_host']}:{own['solver_data_port']}",
        "data_url": f"http://{own['solver_data_host']}:{own['solver_data_port']}",
    }


def _machine(host: str, host_vars: Mapping[str, Any]) -> str:
    """Return what tells one machine from another, as far as the inventory knows."""
    return "local" if host_vars.get("ansible_connection") == "local" else str(host_vars.get("ansible_host") or host)


def _router(out: Resolved, host: str, host_vars: Mapping[str, Any]) -> dict[str, Any]:
    _extend(out.errors, unknown_names(host_vars))
    own: dict[str, Any] = {}
    for name in ROUTER:
        _collect(out, name, host_vars.get(name), own, host)
    for address in own["solver_router_bind"]:
        if not re.fullmatch(r"[^\s:]+:[0-9]+|\[[0-9a-fA-F:]+\]:[0-9]+", address):
            _extend(out.errors, [f"{host}: solver_router_bind is {address!r}; it must be HOST:PORT"])
    return {**{name.removeprefix("solver_router_"): value for name, value in own.items()},
            "machine": _machine(host, host_vars)}


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
        alone = sorted(worker["name"] for worker in out.workers.values() if worker["machine"] != router["machine"]
                       and worker["data_address"].rpartition(":")[0] in LOOPBACK)
        if alone:
            _extend(out.errors, [f"the router {host} cannot reach {', '.join(alone)}: solver_data_host is loopback on "
                                 "another machine; set it to an address of the worker's host"])


def _machines_rules(out: Resolved) -> None:
    """What two workers of one machine cannot each have for themselves."""
    users: dict[tuple[str, str], dict[str, str]] = {}
    for host, worker in out.workers.items():
        if worker["user"]:
            users.setdefault((worker["machine"], worker["base_dir"]), {})[host] = worker["user"]
    for (machine, base), own in users.items():
        if len(set(own.values())) > 1:
            said = ", ".join(f"{host} has {user}" for host, user in sorted(own.items()))
            _extend(out.errors, [f"solver_user differs between the workers of {machine} in {base} ({said}), but its "
                                 "files can belong to one user alone; set one solver_user, or another solver_base_dir"])


def _hooks(out: Resolved) -> None:
    """Where a hook runs, and that its file can be found from anywhere."""
    for name, path in out.settings["solver_hooks"].items():
        if name not in HOOKS:
            near = difflib.get_close_matches(str(name), HOOKS, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; choose of: {', '.join(HOOKS)}"
            _extend(out.errors, [f"solver_hooks has {name}, which is no point of a rollout{hint}"])
        elif not isinstance(path, str) or not os.path.isabs(path):
            _extend(out.errors, [f"solver_hooks.{name} is {path!r}; it must be the absolute path of a task file on the "
                                 "controller, such as '{{ inventory_dir }}/hooks/" + f"{name}.yml'"])


def secret_files(name: str, own: Mapping[str, Any]) -> dict[str, str]:
    """Return the secrets that systemd hands to the worker, and the files on its host that hold them."""
    files = {"api_key": own["solver_api_key_file"] or f"/etc/solver/{name}.key"}
    if own["solver_data_token_file"]:
        files["data_token"] = own["solver_data_token_file"]
    return files


def worker_config(
    name: str, state_dir: str, socket: str, own: Mapping[str, Any], credentials: Mapping[str, str],
) -> dict[str, dict[str, Any]]:
    """Return the worker's configuration as sections of plain values, before it is written as TOML."""
    files = {"api_key": own["solver_api_key_file"], "data_token": own["solver_data_token_file"]}
    files.update({key: f"credential:{key}" for key in credentials})
    config: dict[str, dict[str, Any]] = {
        "worker": {"name": name, "state_dir": state_dir},
        "control": {"socket": socket},
        "data": {"host": own["solver_data_host"], "port": own["solver_data_port"]},
        "provider": {"url": own["solver_provider_url"], "api_key_file": files["api_key"]},
    }
    if files["data_token"]:
        config["data"]["token_file"] = files["data_token"]
    for section, values in own["solver_worker_config"].items():
        merged = config.setdefault(str(section), {})
        if isinstance(values, Mapping):
            merged.update(values)
        else:
            config[str(section)] = values
    return config


def _together(out: Resolved, fleet: int) -> None:
    """Rules over more than one setting."""
    settings = out.settings
    try:
        out.settings["window"] = window_size(settings["solver_max_unavailable"], fleet)
    except SettingError as error:
        _extend(out.errors, [str(error)])
    if settings["solver_on_drain_timeout"] == "force" and not settings["solver_accept_loss"]:
        _extend(out.errors, ["solver_on_drain_timeout is force, which may lose tasks; "
                             "set solver_accept_loss: true as well, or use handover"])
    longest = max(settings["solver_drain_timeout"], settings["solver_deploy_timeout"],
                  settings["solver_healthy_deadline"])
    if settings["solver_drain_lease"] < longest:
        _extend(out.errors, [f"solver_drain_lease is {settings['solver_drain_lease']:g} s, shorter than a phase of "
                             f"the update ({longest:g} s); make it longer than solver_drain_timeout, "
                             "solver_deploy_timeout and solver_healthy_deadline"])
    _unknown_names_of_workers(out)
    sockets = [worker["control_socket"] for worker in out.workers.values()]
    if fleet == 1:
        out.warnings.append("the fleet has one worker: while it is updated nothing takes tasks")
    if len(set(sockets)) < len(sockets) and _one_machine(out):
        _extend(out.errors, ["two workers of one machine have the same solver_control_socket; "
                             "one inventory host is one worker with its own socket"])


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


def _rollout_rules(out: Resolved) -> None:
    """What would let a rollout hang, abort by itself, or never abort."""
    settings = out.settings
    phases = settings["solver_drain_timeout"] + settings["solver_deploy_timeout"] + settings["solver_healthy_deadline"]
    if settings["solver_progress_deadline"] <= phases:
        _extend(out.errors, [f"solver_progress_deadline is {settings['solver_progress_deadline']:g} s, but one worker "
                             f"may take {phases:g} s (solver_drain_timeout + solver_deploy_timeout + "
                             "solver_healthy_deadline); make it longer"])
    soak = settings["solver_min_healthy_time"]
    wave = settings["solver_drain_timeout"] + 2 * settings["solver_healthy_deadline"] + soak
    if settings["solver_lock_ttl"] <= wave:
        _extend(out.errors, [f"solver_lock_ttl is {settings['solver_lock_ttl']:g} s, but a wave may take {wave:g} s "
                             "(solver_drain_timeout + twice solver_healthy_deadline + solver_min_healthy_time); "
                             "make it longer"])
    if settings["solver_max_fail_percentage"] >= 100:
        _extend(out.errors, ["solver_max_fail_percentage is 100, a budget that can never be exceeded: the rollout "
                             "would go through the whole fleet whatever fails; use less"])
    if settings["solver_lock_steal"] and not settings["solver_reason"]:
        _extend(out.errors, ["solver_lock_steal needs a solver_reason, which is kept with the lock"])


def _unknown_names_of_workers(out: Resolved) -> None:
    for name in ("solver_exclude", "solver_only"):
        strangers = sorted(set(out.settings[name]) - set(out.workers))
        if strangers:
            _extend(out.errors, [f"{name} names {', '.join(strangers)}, which the fleet does not have"])


def _one_machine(out: Resolved) -> bool:
    keys = [(worker["base_dir"], worker["worker_dir"]) for worker in out.workers.values()]
    return len(set(keys)) < len(keys)
