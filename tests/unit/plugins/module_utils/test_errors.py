# SPDX-License-Identifier: GPL-3.0-or-later
"""Failures: their codes are all declared, and what a result says of them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from ansible_collections.solver.fleet.plugins.module_utils import (
    _errors,
    _haproxy,
    _job_check,
    _job_drain,
    _job_lock,
    _job_release,
    _release_standby,
    _service_base,
    _socket,
)
from ansible_collections.solver.fleet.plugins.module_utils._check import CheckError
from ansible_collections.solver.fleet.plugins.module_utils._client import ApiProblem
from ansible_collections.solver.fleet.plugins.module_utils._errors import CODES, WorkerError, cause_of
from ansible_collections.solver.fleet.plugins.module_utils._job import Job, attempt
from ansible_collections.solver.fleet.plugins.module_utils._result import positive

PLUGINS = Path(_errors.__file__).resolve().parents[1]
SOURCES = sorted([*PLUGINS.glob("module_utils/*.py"), *PLUGINS.glob("modules/*.py")])
RAISED = {"FleetError", "WorkerError", "StepError", "CheckError", "ServiceError", "RouterError"}
# Codes that are computed: where, what the expression is, and what it may be.
FULL = "'no_space' if error.errno in FULL else 'unwritable'"
VERB = "f'{verb}_failed'"
COMPUTED = {
    ("_check.py", "error.code"): [],  # an error that is passed on
    ("_job_check.py", "error.code"): [],
    ("_check.py", "code"): ["worker_exited", "wrong_version", "wrong_release", "wrong_journal"],
    ("_release_switch.py", "seen.state"): ["hung", "denied", "foreign", "starting", "stopping"],
    ("_release_standby.py", "_REFUSED.get(problem.code, 'worker_failed')"): [
        *_release_standby._REFUSED.values(), "worker_failed"],
    ("_release_stage.py", "code"): ["release_invalid", "config_refused"],
    ("_release_stage.py", "'unknown_version' if not paths else 'ambiguous_package'"): [
        "unknown_version", "ambiguous_package"],
    ("_errors.py", "CRASHED"): ["crashed"],
    ("_service_command.py", VERB): ["start_failed", "stop_failed", "status_failed"],
    ("_service_systemd.py", VERB): ["start_failed", "stop_failed", "restart_failed"],
    ("_detached.py", "said['code']"): [],  # an error that is passed on from another process
    ("_record_file.py", FULL): ["no_space", "unwritable"],
    ("_wheelhouse_copy.py", FULL): ["no_space", "unwritable"],
}


def raised_codes():
    """Every first argument of a call that makes an error, by where it stands."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RAISED:
                yield path.name, node.args[0]


def named_classes(cls=_socket._Named):
    return [cls.named, *(name for sub in cls.__subclasses__() for name in named_classes(sub))]


def test_every_code_is_declared():
    seen = set(named_classes())
    for where, argument in raised_codes():
        computed = (where, ast.unparse(argument))
        constant = isinstance(argument, ast.Constant)
        assert constant or computed in COMPUTED, f"add {computed} to COMPUTED, with what it may be"
        seen.update([argument.value] if constant else COMPUTED[computed])
    # Nothing either is declared that nobody raises: that would be a slip of the pen.
    assert set(CODES) == seen


def test_each_code_has_one_cause():
    listed = [code for codes in _errors._BY_CAUSE.values() for code in codes.split()]
    assert len(listed) == len(set(listed))
    assert set(CODES.values()) == set(_errors.CAUSES)


@pytest.mark.parametrize(("failure", "cause"), [
    (None, "unknown"), ("x", "unknown"), ({}, "unknown"), ({"code": "never_heard_of"}, "unknown"),
    ({"code": ["x"]}, "unknown"), ({"code": "probe_failed"}, "release"), ({"code": "no_space"}, "host"),
    ({"code": "x", "cause": "drain"}, "drain"), ({"code": "probe_failed", "cause": "the moon"}, "unknown"),
    ({"code": "probe_failed", "cause": {}}, "unknown"),
])
def test_what_is_not_declared_is_unknown(failure, cause):
    assert cause_of(failure) == cause


@pytest.mark.parametrize(("error", "cause"), [
    (CheckError("probe_failed", "no"), "release"),
    (CheckError("probe_failed", "no", fault="provider"), "unknown"),
    (CheckError("no_supervisor", "no", cause="host"), "host"),
    (_service_base.ServiceError("start_failed", "no"), "host"),
    (_service_base.ServiceError("stop_failed", "no", cause="host"), "host"),
    (ApiProblem(500, {"code": "no_space", "detail": "its own idea"}), "release"),
    (_haproxy.RouterError("no_backend", "no"), "unknown"),
    (_socket.BrokenOff("no"), "release"),
    (_socket.AccessDenied("no"), "unknown"),
])
def test_a_failure_carries_its_cause(error, cause):
    failure = _errors.failure_of(error)
    assert set(failure) == {"code", "cause", "message", "details"}
    assert failure["cause"] == cause


def test_a_stranger_writes_nothing_but_text_into_a_message():
    error = ApiProblem(503, {"code": "\x1b[31m", "detail": "busy\n\x1b[2Jforged" + "x" * 9999})
    assert error.code == "http_503"
    assert error.message.isprintable()
    assert len(error.message) <= 500


class Broken(Job):
    def work(self):
        self.params["touched"] = True
        raise ZeroDivisionError("by \x1b nought")

    def doing(self):
        return "Draining worker 'w1'"

    def finish(self):
        return {"changed": True}


def test_a_crash_of_ours_is_a_failure_that_keeps_what_was_done():
    result = Broken({}, False, str).run()
    assert result["failed"]
    assert result["changed"]
    assert result["msg"] == "Draining worker 'w1': ZeroDivisionError: by nought; please report it"
    failure = result["failure"]
    assert (failure["code"], failure["cause"]) == ("crashed", "unknown")
    assert any("test_errors.py" in line for line in failure["details"]["traceback"])
    assert len(failure["details"]["traceback"]) <= 20


def test_a_crash_while_a_failure_is_told_changes_nothing_about_the_failure():
    def work():
        raise WorkerError("foreign", "no worker")

    result = attempt(work, so_far=lambda: {}["x"])
    assert (result["msg"], result["failure"]["code"]) == ("no worker", "foreign")


def floats(spec, prefix=()):
    for name, option in spec.items():
        if option["type"] == "float":
            yield (*prefix, name)
        yield from floats(option.get("options", {}), (*prefix, name))


NEEDED = {"control_socket": "/nowhere/c.sock", "owner": "me", "worker_name": "w1", "worker_dir": "/nowhere",
          "base_dir": "/nowhere", "release": "x", "config": "", "state": None, "run_id": "r"}
JOBS = [(_job_drain, _job_drain.DrainJob, "drained"), (_job_check, _job_check.CheckJob, None),
        (_job_lock, _job_lock.LockJob, "renewed"), (_job_release, _job_release.ReleaseJob, "active")]
CASES = [(module, job, state, path) for module, job, state in JOBS for path in floats(module.argument_spec())]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -1.0, 1e300], ids=str)
@pytest.mark.parametrize(("module", "job", "state", "path"), CASES, ids=lambda part: ".".join(part) if isinstance(
    part, tuple) else None)
def test_every_float_option_refuses_what_is_no_time(module, job, state, path, value):
    spec = module.argument_spec()
    params = {name: option.get("default") for name, option in spec.items()}
    params.update({name: given for name, given in NEEDED.items() if name in spec}, state=state)
    params["run_id"] = None
    if "service" in spec and path[0] == "service":
        params["service"] = {"backend": "systemd", "name": "x"}
    into = params if len(path) == 1 else params[path[0]]
    into[path[-1]] = value
    failure = job(params, False, str).run()["failure"]
    assert failure["code"] in ("bad_option", "bad_service")
    assert path[-1] in failure["message"]


def test_a_whole_number_beyond_all_bounds_is_refused_and_crashes_nothing():
    with pytest.raises(WorkerError, match="ttl must be a positive number of seconds, got 1000"):
        positive({"ttl": 10**400}, "ttl")


@pytest.mark.parametrize("path", sorted(PLUGINS.glob("modules/*.py")), ids=lambda path: path.stem)
def test_every_module_ends_by_the_one_way_that_knows_crashes(path):
    source = path.read_text(encoding="utf-8")
    if "def main()" in source:  # the others are documentation of an action
        assert "leave(module, " in source
        assert "_json(" not in source
        assert "try:" not in source
