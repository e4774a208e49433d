# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""The table of the variables that people set: type, default, meaning, and who may see them.

C(_settings_read) reads values by it, C(_settings_rules) checks them together before anything is touched, and
C(docs/settings.md) is made from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ansible_collections.solver.fleet.plugins.module_utils._record import TTL_S
from ansible_collections.solver.fleet.plugins.module_utils._result import LEASE_S
from ansible_collections.solver.fleet.plugins.module_utils._socket import MAX_SOCKET_PATH_BYTES

# Nobody on another machine gets here.
LOOPBACK = ("127.0.0.1", "localhost", "::1")

# Where tasks of the user may run, in the order of a rollout.
HOOKS = ("before_rollout", "before_stage", "before_worker", "after_worker", "after_stage", "after_rollout",
         "on_failure")


@dataclass(frozen=True)
class Setting:
    """One variable: how to read it, what it is when nobody sets it, what it means, and who may see it."""

    kind: str  # text, path, count, seconds, percent, window, stages, flag, names, mapping, choice
    default: Any
    doc: str
    choices: tuple[str, ...] = ()
    per_worker: bool = False  # may differ from worker to worker
    minimum: float | None = None
    maximum: float | None = None  # for text: characters
    blank: bool = False  # an empty text is a value of its own, not the default
    shown: bool = False  # part of the verdict document, so that a reader need not look for the inventory
    secret: bool = False  # may hold a password: in no message, and resolve() does not hand it out

    def __post_init__(self) -> None:
        if self.shown and (self.secret or self.per_worker):
            raise ValueError("the verdict shows settings of the whole fleet, and none that may hold a password")


def _choice(default: str, doc: str, *choices: str, per_worker: bool = False, shown: bool = False) -> Setting:
    return Setting("choice", default, doc, choices=choices, per_worker=per_worker, shown=shown)


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
    "solver_index_url": Setting(
        "text", "", "Package index for the controller; empty means pip's own setting.", secret=True),
    "solver_keep_releases": Setting(
        "count", 5, "Releases kept on a worker; a linked one is never removed.", minimum=2),
    # the rollout
    "solver_hosts": Setting("text", "solver_workers", "Inventory pattern of the fleet; one host is one worker."),
    "solver_exclude": Setting("names", [], "Workers (inventory names) that this rollout leaves alone.", shown=True),
    "solver_allow_partial": Setting(
        "flag", False, "Allow a run that leaves out a part of the fleet, by a limit or a slice. The window and the "
        "budget are then those of the part.", shown=True),
    "solver_only": Setting(
        "names", [], "Only these workers (inventory names), for rollback.yml, recover.yml and resume.yml (default: "
        "all), and whom remove.yml removes (required there)."),
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
    "solver_resume_foreign": Setting(
        "flag", False, "For resume.yml: end also drains that belong to no rollout of ours; needs solver_reason."),
    "solver_remove_everything": Setting(
        "flag", False, "For remove.yml: take away also the journals, with the last worker of a machine its user, "
        "folders and wheels, and with the last of the fleet its routers."),
    "solver_on_abort": _choice(
        "rollback", "What happens to the updated workers when a bad release exceeds the budget: rollback brings each "
        "back to where it came from; stop leaves them.", "rollback", "stop", shown=True),
    "solver_progress_deadline": Setting(
        "seconds", 900.0, "Without a worker that becomes healthy for so long, the rollout is aborted. Must be longer "
        "than solver_drain_timeout and solver_healthy_deadline together.", minimum=5,
        maximum=604_800, shown=True),
    "solver_reason": Setting("text", "", "Why, shown by every worker while it drains.", maximum=500, shown=True),
    "solver_lock_wait": Setting(
        "seconds", 0.0, "How long to wait for another rollout to end. 0: refuse at once.", minimum=0, maximum=86_400),
    "solver_lock_ttl": Setting(
        "seconds", TTL_S, "After so long without a sign of life the lock of a rollout is free. Must be longer than "
        "one worker's turn may take.", minimum=60, maximum=86_400),
    "solver_lock_steal": Setting(
        "flag", False, "Take the lock of another rollout that is known to be dead; needs solver_reason."),
    "solver_rollout_id": Setting(
        "text", "", "Identity of the rollout and owner of its drains. Default: made up.", maximum=200),
    "solver_max_unavailable": Setting(
        "window", None, "Workers out of service at once: a count, or a percentage such as 20% (rounded down, at "
        "least 1). Above 50 % is refused. Default: 1 below 10 workers, 10 % from 10 on.", shown=True),
    "solver_window": _choice(
        "sliding", "How the window moves on. sliding: the next worker begins when one is back in service. waves: in "
        "groups of the window's size, and the next group begins when the whole group before it has ended; with "
        "solver_stages each stage is split into such groups.", "sliding", "waves", shown=True),
    "solver_switch": _choice(
        "in_place", "How a worker comes to the new release. in_place: it is drained and restarted. standby: the new "
        "release is raised and verified in a second process while the old one serves, and takes over from it; needs "
        "solver_standby. A release that fails there has cost no capacity.", "in_place", "standby", shown=True),
    "solver_surge": Setting(
        "window", None, "With solver_switch: standby, how many workers may have a standby at once, each with the "
        "memory of a second process: a count, or a percentage (100% for all). Default: as many as the window.",
        shown=True),
    "solver_stages": Setting(
        "stages", [], "Sizes of the rollout's stages, each a count or a percentage of the fleet (rounded down, at "
        "least 1). The last one repeats until every worker has had its turn. Default: one stage.", shown=True),
    "solver_strategy": _choice(
        "rolling", "How the fleet is updated; docs/strategies.md says which when. rolling: a few workers at a time. "
        "canary: first on a few, whose tasks are then compared with those of all others for a while. recreate: all at "
        "once, with a brief stop. blue_green: the new release is verified beside every worker, then all switch. An "
        "interrupted rollout goes on with the strategy that it began with.", "rolling", "canary", "recreate",
        "blue_green", shown=True),
    "solver_accept_downtime": Setting(
        "flag", False, "Allow a rollout that takes all workers out of service at once: solver_strategy: recreate.",
        shown=True),
    "solver_flip": Setting(
        "window", None, "With solver_strategy: blue_green, how many workers switch at once when all are verified: a "
        "count, or a percentage. Default: all.", shown=True),
    "solver_blue_keep": Setting(
        "seconds", 1800.0, "With solver_strategy: blue_green, how long the old release stands by after the switch, so "
        "that rollback.yml is a matter of seconds. 0: not at all.", minimum=0, maximum=86_400, shown=True),
    "solver_strata": Setting(
        "names", [], "Host variables, such as zone or os, by which the canaries are chosen: one worker of each "
        "combination of their values. Default: one worker, from 20 workers on 5 %.", shown=True),
    "solver_canary_bake": Setting(
        "seconds", 600.0, "How long the canaries are compared with the others, at least.", minimum=1, maximum=604_800,
        shown=True),
    "solver_canary_min_tasks": Setting(
        "count", 100, "How many tasks must have ended on the canaries, and as many on the others, before the new "
        "release is promoted. With fewer than 100 it is judged wrongly more often.", minimum=30, maximum=1_000_000,
        shown=True),
    "solver_canary_bake_max": Setting(
        "seconds", 3600.0, "How long the comparison may take. What is not known by then is inconclusive.", minimum=1,
        maximum=604_800, shown=True),
    "solver_promote": _choice(
        "auto", "What follows when the canaries are as good as the others, or all standbys of blue_green are verified. "
        "auto: the rollout goes on. manual: it ends as awaiting_promotion. now: it goes on at once, without a "
        "comparison; for the same command once more.",
        "auto", "manual", "now", shown=True),
    "solver_on_inconclusive": _choice(
        "keep", "What becomes of the canaries when nobody can say whether they are as good as the others: they keep "
        "the new release, or return to where they came from.", "keep", "return", shown=True),
    "solver_order": _choice(
        "drain", "Who comes first: the longest drain, by each worker's own 99th percentile of solve times, or the name "
        "in natural order (w2 before w10).", "drain", "name", shown=True),
    "solver_max_soaking": Setting(
        "count", None, "How many workers may be in their soak (solver_min_healthy_time) outside of the window at once. "
        "A further worker that serves again keeps its place in the window until its soak ends or another's does. "
        "0 keeps every soak inside the window. Default: as many as the window.", minimum=0, shown=True),
    "solver_max_fail_percentage": Setting(
        "percent", 25.0, "Failure budget of the whole fleet: above it (not at it) no further worker is touched. "
        "0 means none may fail.", shown=True),
    "solver_hooks": Setting(
        "mapping", {}, f"Task files of your own, by the point where they run: {', '.join(HOOKS)}. Each an absolute "
        "path on the controller."),
    "solver_verdict_file": Setting("path", "", "Where the controller writes the verdict, a JSON document."),
    "solver_report_file": Setting(
        "path", "", "Where the controller writes the report of a rollout, one HTML file that needs nothing else. "
        "report.yml makes one from a verdict."),
    "solver_metrics_file": Setting(
        "path", "", "Where the controller writes the state of a rollout for Prometheus: a file of the node exporter's "
        "textfile collector, which reads those named *.prom."),
    "solver_events_dir": Setting(
        "path", "", "Directory on the controller in which the run's events are kept, one JSON document a line, in the "
        "file STARTED_AT-RUN_ID.jsonl. Empty: they are gone after the verdict."),
    "solver_status_format": _choice(
        "table", "What status.yml and history.yml show: a table, or one JSON document.", "table", "json"),
    "solver_status_watch": Setting(
        "seconds", 0.0, "status.yml looks again after so long, until the rollout has ended; its exit code is then that "
        "of the rollout. 0: one look.", minimum=0, maximum=3600),
    "solver_router_hosts": Setting(
        "text", "solver_routers", "Inventory group of the routers, if there are any. Another one is named with -e: "
        "which hosts a play is for must be known before any host's variables are."),
    "solver_router_check_interval": Setting(
        "seconds", 1.0, "Time between two health checks of a worker by its router. solver_drain_grace must be at least "
        "twice as long.", minimum=0.1, maximum=60),
    "solver_floor_view": _choice(
        "workers", "Who says which workers serve, before each worker: they themselves, or also all routers that "
        "can be asked.", "workers", "routers"),
    # drain
    "solver_drain_mode": _choice(
        "complete", "complete waits until nothing is open; handover until nothing is on its way to the "
        "provider: the next process goes on polling.", "complete", "handover", shown=True),
    "solver_drain_timeout": Setting(
        "seconds", 120.0, "Time for a drain: the longest solve plus a buffer.", minimum=1, maximum=86_400, shown=True),
    "solver_drain_grace": Setting(
        "seconds", 5.0, "Time in which a draining worker still accepts while it already says so to the router.",
        minimum=0, maximum=86_400),
    "solver_drain_lease": Setting(
        "seconds", LEASE_S, "After so long without a renewal a worker ends the drain by itself. Must be 20 s "
        "longer than each of solver_drain_timeout and solver_healthy_deadline.", minimum=60,
        maximum=86_400, shown=True),
    "solver_on_drain_timeout": _choice(
        "handover", "What happens when a drain is not over in time: hand open tasks over to the next process "
        "(where the worker can), return_to_service (the worker fails and nothing was switched), or force "
        "(needs solver_accept_loss).", "handover", "return_to_service", "force", shown=True),
    "solver_accept_loss": Setting("flag", False, "Allow what may lose tasks: force."),
    # deploy and verify
    "solver_deploy_timeout": Setting(
        "seconds", 300.0, "Time for staging a release on a worker.", minimum=10, maximum=86_400),
    "solver_healthy_deadline": Setting(
        "seconds", 300.0, "Time from the end of the drain until the worker is verified, its restart included.",
        minimum=5, maximum=86_400, shown=True),
    "solver_probe_task": Setting(
        "mapping", {}, "Fields of the task that verifies a worker. Default: the worker's own small image."),
    "solver_probe_expect": Setting("text", "", "Answer that solver_probe_task must get."),
    "solver_probe_timeout": Setting("seconds", 90.0, "Time for one probe solve.", minimum=1, maximum=900),
    "solver_probe_interval": Setting("seconds", 10.0, "Pause between two probes.", minimum=0, maximum=3600),
    "solver_probe_retries": Setting(
        "count", 3, "Probes tried before a worker counts as failed.", minimum=1, maximum=100),
    "solver_min_healthy_time": Setting(
        "seconds", 60.0, "Soak: a resumed worker is watched for so long. 0: not at all.", minimum=0, maximum=86_400,
        shown=True),
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
        "path", "", f"The worker's control socket, at most {MAX_SOCKET_PATH_BYTES} bytes. "
        "Default: /run/solver/NAME/control.sock.", per_worker=True),
    "solver_control_timeout": Setting(
        "seconds", 5.0, "Time for one answer of the control socket.", minimum=0.1, maximum=600),
    "solver_data_host": Setting("text", "127.0.0.1", "Address of the data API.", per_worker=True),
    "solver_data_port": Setting("count", 8080, "Port of the data API.", per_worker=True, minimum=1, maximum=65_535),
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
    "solver_standby": Setting(
        "flag", False, "provision.yml gives the worker a slot for a standby: a second service, in which a new release "
        "is verified while the old one serves (solver_switch: standby). A change is rolled like a version.",
        per_worker=True),
    "solver_standby_service": Setting(
        "mapping", {}, "For the command backend, the start, stop and status commands of the slot, which run what the "
        "link standby names with --standby; for each backend its log_file.", per_worker=True),
    "solver_unit": Setting(
        "mapping", {}, "For the systemd backend: further settings of the unit, by section, such as "
        "{Service: {MemoryMax: 1G}}. A change is rolled like a version.", per_worker=True),
    "solver_user_exists": Setting(
        "flag", False, "For the systemd backend: solver_user is an account of your own, taken as it is. Otherwise "
        "provision.yml makes it, and refuses one that it did not make.", per_worker=True),
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
        "text", "haproxy", "The distribution's package; empty to install none.", per_worker=True, blank=True),
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

# What playbooks/awx_configure.yml writes into AWX; they may stand in the same files.
AWX: dict[str, Setting] = {
    "solver_awx_project_url": Setting(
        "text", "", "Git address of the project: your copy of examples/awx_project. Required."),
    "solver_awx_project_branch": Setting("text", "", "Its branch. Default: what Git calls the default."),
    "solver_awx_project_credential": Setting(
        "text", "", "Name of the credential in AWX that may read it. Default: it is public."),
    "solver_awx_playbooks": Setting("text", "playbooks", "Folder of the project with the playbooks."),
    "solver_awx_inventory_path": Setting("text", "inventory.yml", "The inventory, as a path in the project."),
    "solver_awx_image": Setting(
        "text", "", "Container image of the execution environment, with ansible-core 2.18 or later and Python 3.11 or "
        "later. Default: the one that the organization has."),
    "solver_awx_organization": Setting("text", "Default", "Organization in AWX; it must exist."),
    "solver_awx_prefix": Setting("text", "Solver", "First word of the name of each object."),
    "solver_awx_names": Setting(
        "mapping", {}, "Other names for single objects, such as {update: Roll the solvers}. Default: the prefix and "
        "what it is."),
    "solver_awx_collection": _choice(
        "awx.awx", "The collection that writes into AWX: ansible.controller for the Ansible Automation Platform.",
        "awx.awx", "ansible.controller"),
    "solver_awx_forks": Setting("count", 20, "Forks of each job.", minimum=1, maximum=500),
    "solver_awx_job_timeout": Setting(
        "count", 28_800, "Seconds after which AWX kills a job that changes workers. Longer than the longest plan: "
        "what is killed leaves a drain to its lease.", minimum=3600, maximum=604_800),
    "solver_awx_approval_timeout": Setting(
        "count", 86_400, "Seconds that the workflow waits between its canaries and the rest. 0: for ever.", minimum=0,
        maximum=2_592_000),
    "solver_awx_recover_minutes": Setting(
        "count", 15, "Minutes between two runs of recover.yml. 0: it is not scheduled.", minimum=0, maximum=1440),
    "solver_awx_regions": Setting(
        "names", [], "Regions: groups of the inventory, each a fleet of its own, in the order in which they are "
        "updated. The first is the canary. Default: the fleet is one."),
    "solver_awx_regions_at_once": Setting(
        "count", 1, "How many regions are updated at once, behind the canary.", minimum=1, maximum=100),
    "solver_awx_regions_budget": Setting(
        "count", 0, "How many regions may fail before no further one begins. The canary may not.", minimum=0,
        maximum=1000),
    "solver_awx_bake_minutes": Setting(
        "count", 60, "Minutes between the canary region and the others, after which each of its workers must still "
        "serve.", minimum=0, maximum=1440),
    "solver_awx_instance_groups": Setting(
        "mapping", {}, "Instance group of AWX that runs the jobs of a region, such as {eu: frankfurt}. Default: the "
        "one that the organization has."),
    "solver_awx_report_dir": Setting(
        "text", "", "Folder that AWX shows in its job containers, for the reports. Default: no template for them, "
        "because a file elsewhere is gone with the container."),
}

# Set by the playbooks themselves; those with "last" also by an earlier job of a workflow, from set_stats.
INTERNAL = frozenset({
    "solver_asked", "solver_awx_gate", "solver_claimed", "solver_gate", "solver_hook", "solver_hook_failed",
    "solver_judged", "solver_last_counts", "solver_last_duration_s", "solver_last_reason", "solver_last_rollout_id",
    "solver_last_verdict", "solver_looked", "solver_operation", "solver_package_wheel", "solver_place",
    "solver_planned", "solver_raised",
    "solver_removal", "solver_reported", "solver_request", "solver_resumed",
    "solver_rollout", "solver_turn",
    "solver_verdict", "solver_wheels",
})


def setting_of(name: str) -> Setting:
    """Return the row of a setting, whoever it is for."""
    return SETTINGS.get(name) or ROUTER.get(name) or LOCAL_FLEET.get(name) or AWX[name]


def shown_settings() -> tuple[str, ...]:
    """Return the names of the settings that are part of the verdict document."""
    return tuple(name for name, setting in SETTINGS.items() if setting.shown)
