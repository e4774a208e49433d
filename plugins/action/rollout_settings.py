# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Read and check the settings of the whole fleet, on the controller, before anything is touched."""

from __future__ import annotations

import getpass
import os
import secrets
import time
from datetime import datetime, UTC
from typing import Any

from ansible import constants
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.parsing.mod_args import ModuleArgsParser
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import action_loader

from ansible_collections.solver.fleet.plugins.module_utils._errors import one_line
from ansible_collections.solver.fleet.plugins.plugin_utils._awx import job_address
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._action import (
    fleet_facts,
    fleet_variables,
    write_refusal,
)
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._ledger import Ledger
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._process import here
from ansible_collections.solver.fleet.plugins.plugin_utils._settings import SETTINGS
from ansible_collections.solver.fleet.plugins.plugin_utils._settings_rules import (
    Resolved,
    each_task,
    provision_refusals,
    resolve,
    says_run_once,
    system_dirs,
    unheard,
)
from ansible_collections.solver.fleet.plugins.plugin_utils._verdict import document

KINDS = ("update", "rollback", "recover", "provision", "remove", "resume", "request")
# These touch no worker that serves, so the rules of a rollout are not theirs: neither hooks nor a verdict.
STILL = (None, "provision", "remove", "resume", "request")
# These stage a release, where a version is named.
STAGING = ("update", "rollback", "provision")
# What these leave behind (rosters, routers, requests) is of the whole fleet, whatever a limit makes of the play.
WHOLE = ("provision", "remove", "request")


class ActionModule(ActionBase):  # type: ignore[misc]
    """One call for the whole fleet, so that each mistake is said once."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        _unused, args = self.validate_argument_spec({
            "kind": {"type": "str", "choices": list(KINDS)},
            "fleet": {"type": "list", "elements": "str"}})
        kind = args["kind"]
        rolls = kind not in STILL
        played = list(task_vars["ansible_play_hosts_all"])
        hosts = list(args["fleet"] or played) if kind in WHOLE else played
        variables = fleet_variables(self, task_vars, hosts)
        left_out = sorted(set(args["fleet"] or ()) - set(hosts))
        named = next((own["solver_router_hosts"] for own in variables.values() if own.get("solver_router_hosts")), "")
        group = named or SETTINGS["solver_router_hosts"].default
        routers = fleet_variables(self, task_vars, task_vars["groups"].get(group, []))
        resolved = resolve(variables, need_version=kind in ("update", "provision"), left_out=left_out,
                           rolls=rolls, routers=routers, stages=kind in STAGING)
        if kind in ("provision", "remove") and not resolved.errors:
            resolved.errors += _of_others(kind, resolved) + ([] if named else _routers_of_others(resolved, group))
        ledger = Ledger.under(constants.DEFAULT_LOCAL_TMP)
        if rolls and ledger.exists():
            resolved.errors.append("this ansible-playbook has run a rollout already; run one rollout per command")
        resolved.errors += [f"{host} is the name of a worker and of a group; rename one of them"
                            for host in hosts if rolls and host in task_vars["groups"]]
        if rolls and not resolved.errors:
            resolved.errors += self._unreadable_hooks(resolved.settings["solver_hooks"])
        strata: dict[str, str] = {}
        if rolls and not resolved.errors:
            strata = _strata(resolved, task_vars, hosts)
        resolved.errors += _stray_words(task_vars)
        if resolved.errors:
            return result | _refused(resolved, rolls)
        settings = resolved.settings
        rollout = {
            "kind": kind, "settings": settings, "hosts": hosts,
            "routers": resolved.routers, "strata": strata, "ledger": str(ledger.folder),
            "wait_until": time.monotonic() + settings["solver_lock_wait"],
            "new_id": settings["solver_rollout_id"] or _new_id(task_vars), "run_id": secrets.token_hex(8),
            "started_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "who": {"job": _job(task_vars), "user": str(task_vars.get("awx_user_name") or getpass.getuser()),
                    "controller": _where(_job(task_vars))},
            "staging": bool(settings["solver_version"]) and kind in STAGING,
            "package": resolved.package, "package_on_worker": resolved.package_on_worker,
            "package_name": resolved.package_name.lower().replace("_", "-"),
            # Who shares a machine with whom; nothing is to be spared where no connection is made.
            "lanes": {name: own["machine"] for name, own in resolved.workers.items() if own["machine"] != "local"}}
        if rolls:
            self._begin(ledger, rollout, resolved.workers)
        # Of a rollout the ledger has them: what stands in a variable is read by every task for every worker.
        workers = {} if rolls else {"workers": resolved.workers}
        return result | rollout | workers | {"warnings": resolved.warnings, "changed": False}

    def _begin(self, ledger: Ledger, rollout: dict[str, Any], workers: dict[str, Any]) -> None:
        ledger.sweep()
        ledger.begin(os.getppid(), rollout, workers)
        folder = rollout["settings"]["solver_events_dir"]
        if folder:
            stamp = rollout["started_at"].replace("-", "").replace(":", "")
            try:
                ledger.keep_events(os.path.join(folder, f"{stamp}-{rollout['run_id']}.jsonl"))
            except OSError as error:
                raise AnsibleActionFail(f"writing to {folder} (solver_events_dir): {error.strerror}") from error
        ledger.emit("begun", kind=rollout["kind"], run_id=rollout["run_id"], workers=len(rollout["hosts"]))

    def _unreadable_hooks(self, hooks: dict[str, str]) -> list[str]:
        """Read each task file as Ansible will: one that is missing or is no list of tasks ends a run at once."""
        errors = []
        for name, path in hooks.items():
            try:
                tasks = self._loader.load_from_file(path, cache="none")
            except AnsibleError as error:
                errors.append(f"solver_hooks.{name}: {path} cannot be read: {one_line(error.message)}")
                continue
            if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
                errors.append(f"solver_hooks.{name}: {path} must hold a list of tasks")
            elif says_run_once(tasks):
                errors.append(f"solver_hooks.{name}: {path} has a task with run_once, and one that fails would end "
                              "the run without a verdict; take it out, around a rollout or a stage it runs once anyway")
            elif name.endswith(("_stage", "_worker")) and (action := _for_all_at_once(tasks)):
                errors.append(f"solver_hooks.{name}: {path} has {action}, which Ansible does not run there: it would "
                              "end the run without a verdict; wait by ansible.builtin.wait_for with a timeout, and ask "
                              "a person in before_rollout, or between two workers by pause.yml")
            elif name.startswith("before_") and (host := unheard(tasks)):
                errors.append(f"solver_hooks.{name}: {path} delegates a task to {host} without register: where that "
                              "host cannot be reached the task counts as passed; register it, and assert in the next "
                              "task that it is not unreachable")
        return errors


def _for_all_at_once(tasks: Any) -> str:
    """Return the first action that does not run for each host by itself, as the strategy of our turns needs it."""
    for task in each_task(tasks):
        try:
            action, _args, _to = ModuleArgsParser(dict(task)).parse()
            found = action_loader.get(action, class_only=True)
        except (AnsibleError, ImportError):
            continue  # Ansible says it, when it reads the file
        if getattr(found, "BYPASS_HOST_LOOP", False):
            return str(action)
    return ""


def _of_others(kind: str, resolved: Resolved) -> list[str]:
    """Say what is not the workers' own, and would be changed by provisioning or deleted by a removal."""
    return provision_refusals(resolved) if kind == "provision" else system_dirs(resolved, "worker_dir")


def _routers_of_others(resolved: Resolved, group: str) -> list[str]:
    """Say that routers would get the workers of one fleet alone, which may be there for others, too."""
    fleet = resolved.settings.get("solver_hosts")
    if not resolved.routers or fleet in (None, SETTINGS["solver_hosts"].default):
        return []
    return [f"solver_hosts is {fleet}, and the routers are those of the group {group}, which may serve other fleets as "
            f"well: they would know {fleet} alone from then on; name the routers of {fleet} with "
            "-e solver_router_hosts=GROUP, or none with -e solver_router_hosts=none"]


def _strata(resolved: Resolved, task_vars: dict[str, Any], hosts: list[str]) -> dict[str, str]:
    """Return the values of the variables that solver_strata names, in one text for each worker that has any."""
    names = resolved.settings["solver_strata"]
    try:
        found = fleet_facts(task_vars, hosts, *names)
    except AnsibleError as error:
        resolved.errors.append(f"solver_strata: a variable cannot be templated: {one_line(error.message)}")
        return {}
    for name in names:
        if not any(name in own for own in found.values()):
            resolved.errors.append(f"solver_strata names {name}, a variable that no worker has; correct the name, or "
                                   "set the variable for each worker")
    return {host: one_line(", ".join(f"{name} {own.get(name, '-')}" for name in names)) for host, own in found.items()}


def _refused(resolved: Resolved, rolls: bool) -> dict[str, Any]:
    path = resolved.settings.get("solver_verdict_file")
    # Whoever only looks or asks must not write over the verdict of a rollout.
    if path and rolls:
        target = {"target": resolved.settings.get("solver_version")}
        write_refusal(path, document("refused", target, reasons=resolved.errors))
    return {
        "failed": True,
        "msg": "Refusing to begin, nothing was touched: " + "; ".join(resolved.errors),
        "failure": {"code": "bad_settings", "message": "bad settings", "details": {"errors": resolved.errors}},
    }


def _stray_words(task_vars: dict[str, Any]) -> list[str]:
    """What Ansible drops without a word: -e solver_reason="on the phone" reaches it as one and two words."""
    words = task_vars.get("_raw_params")
    if not words:
        return []
    return [f"-e has {str(words)!r}, which belongs to no variable: quote a value with blanks twice, as in "
            "-e 'solver_reason=\"on the phone\"', or give JSON"]


def _job(task_vars: dict[str, Any]) -> str | None:
    """AWX's job id where there is one: an operator can look it up."""
    job = task_vars.get("awx_job_id") or task_vars.get("tower_job_id")
    return str(job) if job else None


def _where(job: str | None) -> dict[str, Any]:
    """Where this runs, with the address of the job where AWX tells its own."""
    url = job_address(os.environ.get("AWX_HOST", ""), job)
    return {**here(), **({"url": url} if url else {})}


def _new_id(task_vars: dict[str, Any]) -> str:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    job = _job(task_vars)
    return f"awx-{job}-{stamp}" if job else f"rollout-{stamp}-{secrets.token_hex(3)}"
