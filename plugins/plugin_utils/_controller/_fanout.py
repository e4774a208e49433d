# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""Run one module on one host or on many, each in a child process that can be ended when its line is dead.

The gate looks with it, and a turn works with it. The gate needs a live look at the whole fleet, but a play with
C(serial) has only those of its batch, and a loop with C(delegate_to) asks one host after the other. So each host gets
a child process, as core does it for a task, with a connection made of that host's own variables. Threads would not
do: the plugins of core keep the state of a task in themselves, and nothing can end a thread that waits for a line
which is dead.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
import selectors
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ansible.errors import AnsibleError
from ansible.executor.process import worker
from ansible.executor.task_executor import TaskExecutor
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.template import Templar
from ansible.utils.display import Display

from ansible_collections.solver.fleet.plugins.plugin_utils._controller._action import plain, reached

Result = dict[str, Any]
Call = Callable[[], Result]
# What an action does on a host when it has the connection, with the variables of a task there.
Work = Callable[[Mapping[str, Any]], Result]
Told = Callable[[int], None]
# How long a child that is late may take to let go of what it shares with others, before it is killed.
GRACE_S = 2.0
# How often a child looks whether its parent is still there.
TICK_S = 0.5
REAP_S = 1.0
# How often somebody hears how far it is, when nothing else happens.
SAY_S = 5.0
# Where Ansible keeps which interpreter it has discovered on a host.
PYTHON = "discovered_interpreter_python"
# Connections to one machine at once.
PER_MACHINE = 5


class _TooLate(BaseException):
    """Ends a call from inside; no C(except Exception) on the way keeps it."""


class _Nowhere:
    """Takes the place of the queue to the controller's process.

    That queue has a lock which every task shares: a child that were killed with it would stop the whole run.
    """

    def send_display(self, *_args: Any, **_kwargs: Any) -> None:
        """Say nothing: the result has the cause."""

    def send_prompt(self, **_kwargs: Any) -> NoReturn:
        raise AnsibleError("the connection wants to ask something, and there is nobody to answer")


@dataclass
class _Child:
    """One host's process, and what it has said so far."""

    host: str
    pid: int
    pipe: int
    deadline: float
    said: bytearray = field(default_factory=bytearray)


def run_everywhere(
    action: ActionBase, task_vars: Mapping[str, Any], module: str, args: Mapping[str, Mapping[str, Any]], *,
    timeout: float, parallel: int, lanes: Mapping[str, str] | None = None, main: int = 0, told: Told | None = None,
) -> dict[str, Result]:
    """Run MODULE with its ARGS on each host, PARALLEL at a time and each for at most TIMEOUT seconds.

    Never raises for a host: one of which nothing could be learnt is ``unreachable``, with the cause in ``msg``. A late
    one is let go after TIMEOUT, and killed GRACE_S later. Of the hosts that share one of the LANES, which are the
    machines' names, only a few are asked at once: an sshd as it comes drops more (MaxStartups 10:30:100).
    """
    calls = {host: call_on(action, task_vars, host, module, own) for host, own in args.items()}
    return call_all(calls, timeout=timeout, parallel=parallel, lanes=lanes, main=main, told=told)


def call_on(
    action: ActionBase, task_vars: Mapping[str, Any], host: str, module: str, args: Mapping[str, Any],
) -> Call:
    """Return the call that runs MODULE on HOST, whatever host the action's own task is for."""
    def work(variables: Mapping[str, Any]) -> Result:
        return dict(action._execute_module(module_name=module, module_args=dict(args), task_vars=variables))

    return do_on(action, task_vars, host, work)


def do_on(action: ActionBase, task_vars: Mapping[str, Any], host: str, work: Work) -> Call:
    """Return the call that does WORK on HOST, whatever host the action's own task is for."""
    return functools.partial(_call, action, task_vars["hostvars"], host, work)


def call_all(
    calls: Mapping[str, Call], *, timeout: float, parallel: int, lanes: Mapping[str, str] | None = None,
    orphans_go_on: bool = False, main: int = 0, told: Told | None = None,
) -> dict[str, Result]:
    """Make each call in a process of its own; whatever happens there, each host has a result, and nothing is left.

    Where this process is ended itself, so is what it began, unless ORPHANS_GO_ON: a switch that is cut off between the
    service's stop and its start would leave the worker down. MAIN is the controller's process: when it is gone, nobody
    else is asked, and it ends by an error. TOLD hears how many have answered, at least every few seconds.
    """
    with Calls(timeout=timeout, parallel=parallel, lanes=lanes, orphans_go_on=orphans_go_on, main=main) as running:
        for host, call in calls.items():
            running.add(host, call)
        results: dict[str, Result] = {}
        while running.busy:
            results.update(running.collect(SAY_S))
            if told:
                told(len(results))
    return {host: results[host] for host in calls}


class Calls:
    """Calls that are under way, each in a process of its own; what has ended is collected when there is time."""

    def __init__(
        self, *, timeout: float, parallel: int, lanes: Mapping[str, str] | None = None, orphans_go_on: bool = False,
        main: int = 0,
    ) -> None:
        self._orphans_go_on, self._main = orphans_go_on, main
        self._timeout, self._parallel, self._lanes = timeout, max(1, parallel), lanes or {}
        self._waiting: dict[str, Call] = {}
        self._children: dict[int, _Child] = {}
        self._selector = selectors.DefaultSelector()
        self._unstarted: dict[str, Result] = {}

    def __enter__(self) -> Calls:
        return self

    def __exit__(self, *_why: object) -> None:
        for child in self._children.values():
            _finish(child, self._timeout)
        self._selector.close()

    @property
    def busy(self) -> bool:
        """Whether anything is to be waited for."""
        return bool(self._waiting or self._children or self._unstarted)

    def asked(self) -> set[str]:
        """Return the hosts whose calls have not been collected."""
        return {*self._waiting, *(child.host for child in self._children.values())}

    def add(self, host: str, call: Call) -> None:
        """Make a call to HOST as soon as there is room."""
        self._waiting[host] = call

    def collect(self, wait: float = 3600.0) -> dict[str, Result]:
        """Return what has ended, by host; wait for something to end, but no longer than WAIT seconds."""
        self._start_what_may()
        results, self._unstarted = self._unstarted, {}
        for child in _ended(self._selector, self._children, 0.0 if results else wait):
            self._selector.unregister(child.pipe)
            del self._children[child.pipe]
            results[child.host] = _finish(child, self._timeout)
        self._start_what_may()
        return results

    def _start_what_may(self) -> None:
        if self._waiting and self._main and os.getppid() != self._main:
            # Nobody takes the results: of a fleet of hundreds most would be asked for nothing.
            raise AnsibleError("the controller's process is gone")
        for host in list(self._waiting):
            if len(self._children) >= self._parallel:
                return
            lane = self._lanes.get(host)
            if lane and sum(1 for own in self._children.values() if self._lanes.get(own.host) == lane) >= PER_MACHINE:
                continue
            call = self._waiting.pop(host)
            try:
                child = _start(call, host, self._timeout, self._orphans_go_on)
            except OSError as error:
                self._unstarted[host] = _unknown(f"starting a process on the controller for this host: {error}")
                continue
            self._children[child.pipe] = child
            self._selector.register(child.pipe, selectors.EVENT_READ)


def _unknown(cause: str) -> Result:
    return {"unreachable": True, "msg": cause}


# -- the parent's side -------------------------------------------------------------------------


def _ended(selector: selectors.BaseSelector, children: Mapping[int, _Child], wait: float) -> list[_Child]:
    """Read what has been said; return those that have nothing more to say, or no more time."""
    now = time.monotonic()
    first = min((child.deadline for child in children.values()), default=now + wait)
    ended = []
    for key, _events in selector.select(max(0.0, min(first - now, wait))):
        child = children[key.fd]
        said = os.read(child.pipe, 1 << 16)
        child.said += said
        if not said:
            ended.append(child)
    now = time.monotonic()
    return ended + [child for child in children.values() if child.deadline <= now and child not in ended]


def _finish(child: _Child, timeout: float) -> Result:
    """End the process with all that it started, and return its result."""
    end_descendants(child.pid)
    with contextlib.suppress(OSError):
        os.killpg(child.pid, signal.SIGKILL)
    _reap(child.pid)
    os.close(child.pipe)
    try:
        return reached(dict(json.loads(child.said.decode("utf-8"))))
    except (ValueError, RecursionError):
        late = child.deadline <= time.monotonic()
        return _unknown(_no_answer(timeout) if late else "the call to this host ended without an answer")


def _no_answer(timeout: float) -> str:
    return f"no answer within {timeout:g} s"


def _reap(pid: int) -> None:
    """Take note of the end; a process that the kernel holds on to is left to it."""
    deadline = time.monotonic() + REAP_S
    with contextlib.suppress(OSError):
        while os.waitpid(pid, os.WNOHANG) == (0, 0) and time.monotonic() < deadline:
            time.sleep(0.002)


def end_descendants(pid: int) -> None:
    """Kill what PID started, in whatever session: ssh and local commands may have one of their own.

    A connection that is shared and persists has no parent any more, so it stays. Where there is no /proc, the process
    group is all that is ended.
    """
    parents = dict(_parents())
    for one in [one for one in parents if one != pid and _is_below(one, pid, parents)]:
        with contextlib.suppress(OSError):
            os.kill(one, signal.SIGKILL)


def _is_below(pid: int, top: int, parents: Mapping[int, int]) -> bool:
    seen: set[int] = set()
    while pid in parents and pid not in seen:
        if pid == top:
            return True
        seen.add(pid)
        pid = parents[pid]
    return False


def _parents() -> Iterator[tuple[int, int]]:
    with contextlib.suppress(OSError):
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError, IndexError, ValueError), open(f"/proc/{name}/stat", "rb") as stream:
                yield int(name), int(stream.read().rpartition(b")")[2].split()[1])


# -- the child's side --------------------------------------------------------------------------


def _start(call: Call, host: str, timeout: float, orphan_goes_on: bool) -> _Child:
    reading, writing = os.pipe()
    parent, until = os.getpid(), time.monotonic() + timeout
    try:
        pid = os.fork()
    except OSError:
        os.close(reading)
        os.close(writing)
        raise
    if pid:
        os.close(writing)
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        return _Child(host, pid, reading, until + GRACE_S)
    try:
        os.close(reading)
        _become_a_child(parent, until, orphan_goes_on)
        _say(writing, _taken(call, timeout))
    finally:
        with contextlib.suppress(BaseException):
            end_descendants(os.getpid())
        os._exit(0)


def _become_a_child(parent: int, until: float, orphan_goes_on: bool) -> None:
    """A process group of its own, nothing to read, nothing to print, and an end: what it says goes through the pipe."""
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    Display()._final_q = _Nowhere()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)

    def tick(_number: int, _frame: Any) -> None:
        orphaned, late = os.getppid() != parent, time.monotonic() >= until
        if orphaned and orphan_goes_on and not late:
            os._exit(0)  # the ssh below us, with a local connection the module, is left to finish its call
        if not orphaned and not late:
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise _TooLate

    signal.signal(signal.SIGALRM, tick)
    signal.setitimer(signal.ITIMER_REAL, min(TICK_S, max(0.001, until - time.monotonic())), TICK_S)


def _taken(call: Call, timeout: float) -> bytes:
    try:
        result = call()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except _TooLate:
        result = _unknown(_no_answer(timeout))
    except AnsibleError as error:
        # A lost line, or variables that make no connection: of this host nothing is known.
        result = _unknown(str(error))
    except Exception as error:  # noqa: BLE001  whatever a plugin may raise concerns this host alone
        result = _unknown(f"{type(error).__name__}: {error}")
    return json.dumps(plain(result), default=str).encode("utf-8")


def _say(pipe: int, data: bytes) -> None:
    while data:
        data = data[os.write(pipe, data):]


# -- one call ----------------------------------------------------------------------------------


def _call(action: ActionBase, hostvars: Any, host: str, work: Work) -> Result:
    """Do WORK on HOST. In a process of its own, because it gives the action another host's connection."""
    variables = _variables(action, hostvars, host)
    connect(action, hostvars._inventory.get_host(host), variables)
    result = work(variables)
    tidied(action)
    with contextlib.suppress(Exception, _TooLate):
        action._connection.close()
    return {key: value for key, value in result.items() if not key.startswith("_ansible") and key != "invocation"}


def tidied(action: ActionBase) -> None:
    """Remove the folder of a call, where there was one; what is left to do must not cost the answer."""
    with contextlib.suppress(Exception, _TooLate):
        action.cleanup()


def _variables(action: ActionBase, hostvars: Any, host: str) -> dict[str, Any]:
    """Return what a task of this play would see on HOST; hostvars lack the variables of the play, and hostvars."""
    known = hostvars._inventory.get_host(host)
    if known is None:
        raise AnsibleError(f"{host} is not in the inventory")
    found = hostvars._variable_manager.get_vars(play=action._task.play, host=known, task=action._task)
    return with_python(found, getattr(action, "pythons", {}).get(host))


def with_python(variables: Mapping[str, Any], python: str | None) -> dict[str, Any]:
    """Return the variables with what an earlier call discovered, as Ansible remembers it from task to task."""
    facts = variables.get("ansible_facts") or {}
    known = {"ansible_facts": {PYTHON: python, **facts}} if python else {}
    return {**variables, **known}


def python_in(result: Mapping[str, Any]) -> str | None:
    """Return the interpreter that the call had to discover, and that could run it."""
    facts = None if result.get("failed") or result.get("unreachable") else result.get("ansible_facts")
    python = facts.get(PYTHON) if isinstance(facts, Mapping) else None
    return python if isinstance(python, str) else None


def connect(action: ActionBase, host: Any, variables: dict[str, Any]) -> None:
    """Give ACTION a connection to HOST, made as core makes one for a task: by the executor of tasks itself."""
    task = action._task
    templar = Templar(loader=action._loader, variables=variables)
    # The task has that of the host it was made for; this is what the keyword says in each of our plays.
    task.become = boolean(templar.template(variables.get("solver_become")) or False, strict=False)
    # The action's own context has this host's address, user and password in it; the worker's has those of the play.
    of_play = getattr(worker.current_worker, "_play_context", None) or action._play_context
    context = of_play.set_task_and_variable_override(task=task, variables=variables, templar=templar)
    context.post_validate(templar=templar)
    context.remote_addr = context.remote_addr or host.address
    # The releases of core differ in what the executor is made of, but not in the names.
    made_of = {"host": host, "task": task, "job_vars": variables, "play_context": context, "new_stdin": None,
               "loader": action._loader, "shared_loader_obj": action._shared_loader_obj, "final_q": _Nowhere(),
               "variable_manager": None}
    executor = TaskExecutor(**{name: made_of[name] for name in inspect.signature(TaskExecutor).parameters})
    own = variables.get("ansible_connection")
    kind = task.connection if own is None else templar.template(own)
    executor._connection = executor._get_connection(variables, templar, kind)
    executor._set_connection_options(variables, templar)
    action._connection, action._play_context, action._templar = executor._connection, context, templar
