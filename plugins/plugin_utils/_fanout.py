# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""Run one module on many hosts at once, from within a single action.

The gate needs a live look at the whole fleet, but a play with C(serial) has only the hosts of its wave, and a loop with
C(delegate_to) asks one host after the other. So each host gets a child process, as core does it for a task, with a
connection made of that host's own variables. A child that is late is killed with all that it started.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible import constants
from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import become_loader, connection_loader
from ansible.template import Templar
from ansible.utils.display import Display

from ansible_collections.solver.fleet.plugins.plugin_utils._action import plain

Result = dict[str, Any]
# A child that outlives its parent ends by itself, so much later.
ORPHAN_S = 5


@dataclass
class _Child:
    """One host's process, and what it has said so far."""

    host: str
    pid: int
    pipe: int
    deadline: float
    said: bytearray = field(default_factory=bytearray)


@dataclass
class _Look:
    """One module on one host."""

    action: ActionBase
    variables: dict[str, Any]
    module: str
    args: Mapping[str, Any]

    def take(self) -> Result:
        try:
            self.action._connection = connect(self.action, self.variables)
            result: Result = self.action._execute_module(
                module_name=self.module, module_args=dict(self.args), task_vars=self.variables)
        except AnsibleError as error:
            # A lost line, or variables that make no connection: of this host nothing is known.
            return {"unreachable": True, "msg": str(error)}
        return {key: value for key, value in result.items() if not key.startswith("_ansible")}


def run_everywhere(
    action: ActionBase, task_vars: Mapping[str, Any], module: str, args: Mapping[str, Mapping[str, Any]], *,
    timeout: float, parallel: int,
) -> dict[str, Result]:
    """Run MODULE with its ARGS on each host, PARALLEL at a time and each for at most TIMEOUT seconds.

    Never raises for a host: one of which nothing could be learnt is ``unreachable``, with the cause in ``msg``.
    """
    waiting = list(args)
    results: dict[str, Result] = {}
    with selectors.DefaultSelector() as selector:
        children: dict[int, _Child] = {}
        try:
            while waiting or children:
                while waiting and len(children) < parallel:
                    host = waiting.pop(0)
                    look = _Look(action, task_vars["hostvars"].raw_get(host), module, args[host])
                    child = _start(look, host, timeout)
                    children[child.pipe] = child
                    selector.register(child.pipe, selectors.EVENT_READ)
                for child in _ended(selector, children):
                    selector.unregister(child.pipe)
                    del children[child.pipe]
                    results[child.host] = _finish(child, timeout)
        finally:
            for child in children.values():
                _finish(child, timeout)
    return results


def _ended(selector: selectors.BaseSelector, children: Mapping[int, _Child]) -> list[_Child]:
    """Read what has been said; return those that have nothing more to say, or no more time."""
    first = min(child.deadline for child in children.values())
    ended = []
    for key, _events in selector.select(max(0.0, first - time.monotonic())):
        child = children[key.fd]
        said = os.read(child.pipe, 1 << 16)
        child.said += said
        if not said:
            ended.append(child)
    now = time.monotonic()
    return ended + [child for child in children.values() if child.deadline <= now and child not in ended]


def _finish(child: _Child, timeout: float) -> Result:
    """End the process with all that it started, and return its result."""
    late = child.deadline <= time.monotonic()
    with contextlib.suppress(OSError):
        os.killpg(child.pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        os.waitpid(child.pid, 0)
    os.close(child.pipe)
    try:
        result = json.loads(child.said.decode("utf-8"))
    except ValueError:
        text = f"no answer within {timeout:g} s" if late else "the look at this host ended without an answer"
        return {"unreachable": True, "msg": text}
    return dict(result)


def _start(look: _Look, host: str, timeout: float) -> _Child:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        return _Child(host, pid, reading, time.monotonic() + timeout)
    try:
        os.close(reading)
        _become_a_child(timeout)
        _say(writing, json.dumps(plain(look.take()), default=str).encode("utf-8"))
    finally:
        os._exit(0)


def _become_a_child(timeout: float) -> None:
    """A process group of its own, nothing to read, nothing to print: what a look says goes through the pipe alone."""
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(int(timeout) + ORPHAN_S)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    Display().display = _silent


def _silent(*_args: Any, **_kwargs: Any) -> None:
    """Take the place of what prints."""


def _say(pipe: int, data: bytes) -> None:
    while data:
        data = data[os.write(pipe, data):]


def connect(action: ActionBase, variables: dict[str, Any]) -> Any:
    """Return a connection to the host that VARIABLES belong to, as core makes one for a task."""
    templar = Templar(loader=action._loader, variables=variables)
    task = action._task
    context = action._play_context.copy() if hasattr(action._play_context, "copy") else action._play_context
    action._play_context = context = context.set_task_and_variable_override(
        task=task, variables=variables, templar=templar)
    kind = str(templar.template(variables.get("ansible_connection") or task.connection or "ssh"))
    connection = connection_loader.get(kind, context, new_stdin=None)
    keys = task.dump_attrs()
    keys.pop("retries", None)
    keys["timeout"] = context.timeout
    if context.password:
        keys["password"] = context.password
    wanted = variables.get("ansible_become", task.become)
    if boolean(templar.template(wanted) or False, strict=False):
        method = templar.template(variables.get("ansible_become_method") or task.become_method or "sudo")
        connection.set_become_plugin(become_loader.get(method))
    _options("connection", connection, variables, templar, keys)
    _options("shell", connection._shell, variables, templar, keys)
    if connection.become is not None:
        _options("become", connection.become, variables, templar, {**keys, "become_pass": context.become_pass})
    return connection


def _options(kind: str, plugin: Any, variables: Mapping[str, Any], templar: Any, keys: Mapping[str, Any]) -> None:
    names = constants.config.get_plugin_vars(kind, plugin._load_name)
    own = {name: templar.template(variables[name]) for name in names if name in variables}
    plugin.set_options(task_keys=dict(keys), var_options=own)
