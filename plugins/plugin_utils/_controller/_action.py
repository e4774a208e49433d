# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""What the controller-side actions share: reading hostvars, and writing files atomically."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.solver.fleet.plugins.plugin_utils._settings import SECRETS

# What tells machines apart.
_OF_HOST = ("ansible_connection", "ansible_host")


def fleet_variables(
    action: ActionBase, task_vars: Mapping[str, Any], hosts: Iterable[str],
) -> dict[str, dict[str, Any]]:
    """Return each host's solver_ variables, templated for that host.

    hostvars lack the variables of the play, which is where ``import_playbook`` puts those that a wrapper sets.
    """
    of_play = getattr(getattr(action._task, "play", None), "vars", None) or {}
    shared = {name: plain(action._templar.template(task_vars[name])) for name in of_play
              if name.startswith("solver_") and name not in SECRETS}
    return {host: {**_solver_variables(task_vars["hostvars"][host], host), **shared} for host in hosts}


def _solver_variables(host_vars: Mapping[str, Any], host: str) -> dict[str, Any]:
    out = {}
    for name in [str(key) for key in host_vars if str(key).startswith("solver_") or key in _OF_HOST]:
        try:
            # Whoever only looks must not need the vault's password.
            out[name] = None if name in SECRETS else plain(host_vars[name])
        except AnsibleError as error:
            raise AnsibleActionFail(f"{host}: {name} cannot be templated: {error}") from error
    return out


def fleet_facts(task_vars: Mapping[str, Any], hosts: Iterable[str], *names: str) -> dict[str, dict[str, Any]]:
    """Return the named variables of each host, without those it does not have."""
    out: dict[str, dict[str, Any]] = {}
    for host in hosts:
        host_vars = task_vars["hostvars"][host]
        out[host] = {name: plain(host_vars[name]) for name in names if name in host_vars}
    return out


def plain(value: Any) -> Any:
    """Return plain Python data: no lazy containers of the templating engine, no subclasses of str."""
    if isinstance(value, Mapping):
        return {str(key): plain(value[key]) for key in value}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, str):
        return str(value)
    return value


def reached(result: dict[str, Any]) -> dict[str, Any]:
    """Return a module's result, as C(unreachable) where the host said no word: for whoever reads it first."""
    return {**result, "unreachable": True} if result.get("timedout") or _wordless(result) else result


# What Ansible adds where a module ended without an answer: it was killed, or its files were taken away under it.
_CRASH = frozenset({"module_stdout", "module_stderr"})
# All that a result has when not the module but Ansible itself gave up.
_WORDLESS = frozenset({"failed", "msg", "changed", "attempts", "exception", "warnings", "deprecations"})


def _wordless(result: Mapping[str, Any]) -> bool:
    """Whether a call failed without a word of its module: ours always say C(failure).

    A host that shuts down ends the modules that run on it. C(timedout) is a line that went dead in the middle of a
    call. ansible-core 2.18 also says C(failed) instead of C(unreachable) when the line is lost while it removes its
    temporary files, after the module's own end.
    """
    if result.get("failed") is not True or "msg" not in result or "failure" in result:
        return False
    return set(result) <= _WORDLESS or not _CRASH.isdisjoint(result)


def write_refusal(path: str, document: Mapping[str, Any]) -> None:
    """Write a verdict that touched nothing, but never over one that was interrupted: its id is needed to go on."""
    target = Path(os.path.expandvars(path)).expanduser()
    with contextlib.suppress(OSError, ValueError):
        if json.loads(target.read_text(encoding="utf-8")).get("verdict") == "interrupted":
            return
    write_json(path, document)


def write_json(path: str, document: Mapping[str, Any]) -> None:
    """Write DOCUMENT to PATH, whole or not at all; it survives a kill at any moment."""
    try:
        write_whole(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise AnsibleActionFail(f"writing {path} (solver_verdict_file): {error.strerror or error}") from error


def write_whole(path: str, text: str) -> None:
    """Write TEXT to PATH, whole or not at all."""
    target = Path(os.path.expandvars(path)).expanduser()
    temporary = ""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
