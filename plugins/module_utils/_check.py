# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""Is this worker good? Judgements over plain data, and the flow that gathers the data within its bounds."""

from __future__ import annotations

import hashlib
import json
import secrets
from datetime import datetime, timezone
from typing import Any, Callable, Dict, NamedTuple, Sequence

from ansible_collections.solver.fleet.plugins.module_utils._client import (
    ApiProblem,
    BrokenOff,
    DeadSocket,
    Finding,
    Hung,
    NoSocket,
    WorkerClient,
)
from ansible_collections.solver.fleet.plugins.module_utils._drain import name_of, parse_time
from ansible_collections.solver.fleet.plugins.module_utils._errors import WorkerError
from ansible_collections.solver.fleet.plugins.module_utils._result import elapsed_since, host_clock
from ansible_collections.solver.fleet.plugins.module_utils._wait import SHORTEST_ROUND_S, SLICE_S, Clock, Span

Json = Dict[str, Any]

FAULTS = ("worker", "account", "provider", "task", "network")
WHOSE = {
    "worker": "the fault is the worker's",
    "account": "the fault is the account's: look at the balance and the key",
    "provider": "the fault is the provider's, not the worker's",
    "task": "the fault is the task's: look at probe_task and probe_expect",
    "network": "the fault is the network's, on the way to the provider",
}
_STATES = ("starting", "recovering", "running", "draining", "drained", "stopping", "failed")
_UNSETTLED = ("starting", "recovering", "stopping", "draining")
_PARTS = ("succeeded", "failed", "uncertain", "expired")
_REQUEST_ID_CHARS = 150


class CheckOptions(NamedTuple):
    """The options of solve_check that decide anything; documented there."""

    checks: Sequence[str] = ("worker", "probe")
    expect_version: str | None = None
    expect_release: str | None = None
    expect_boot_id: str | None = None
    expect_boot_id_not: str | None = None
    expect_journal_id: str | None = None
    expect_state: Sequence[str] = ("running", "drained")
    totals_before: Json | None = None
    soak: float = 0.0
    soak_since: Json | None = None
    request_id: str | None = None
    probe_task: Json | None = None
    probe_expect: str | None = None
    probe_timeout: float = 90.0
    retries: int = 3
    interval: float = 10.0
    deadline: float = 300.0
    wait_slice: float = SLICE_S
    since: Json | None = None


class CheckError(WorkerError):
    """A check that failed, and whose fault that is."""

    def __init__(
        self, code: str, message: str, details: Json | None = None, cause: str | None = None, fault: str = "worker"
    ) -> None:
        # What is not the worker's fault is not its release's.
        cause = cause if fault == "worker" else "unknown"
        super().__init__(code, f"{message}; {WHOSE[fault]}", dict(details or {}, fault=fault), cause)


def option_defect(options: CheckOptions) -> str | None:
    """Say which option makes no sense, and what would; None if all do."""
    checks = (
        (not options.checks, "checks is empty: name at least one of worker, probe, balance, provider"),
        (not 0 <= options.wait_slice <= SLICE_S, f"wait_slice must be from 0 to {SLICE_S:g} seconds"),
        (not 0 < options.deadline <= 86400, "deadline must be more than 0 and at most 86400 seconds"),
        (not 1 <= options.probe_timeout <= 900, "probe_timeout must be from 1 to 900 seconds"),
        (not 1 <= options.retries <= 100, "retries must be from 1 to 100"),
        (not 0 <= options.interval <= 3600, "interval must be from 0 to 3600 seconds"),
        (not 0 <= options.soak <= 86400, "soak must be from 0 to 86400 seconds"),
    )
    return next((text for wrong, text in checks if wrong), None)


# --- judgements over a status document ---


def totals_defect(before: Json | None, status: Json) -> str | None:
    """Say which of the worker's books do not add up; None if all do."""
    totals = status.get("totals")
    if totals is None or status.get("tasks") is None:
        return "the totals are unknown"
    expected = sum(totals[name] for name in _PARTS) + status["tasks"]["open"]
    if totals["accepted"] != expected:
        return f"{totals['accepted']} tasks were accepted, but {expected} are accounted for"
    for name, value in sorted((before or {}).items()):
        now = totals.get(name)
        if isinstance(value, (int, float)) and isinstance(now, (int, float)) and now < value:
            return f"the total '{name}' went back from {value} to {now}"
    return None


def still_old(options: CheckOptions, status: Json) -> bool:
    """The process from before the restart still answers."""
    old = options.expect_boot_id_not
    return old is not None and status["instance"]["boot_id"] == old


def unsettled(options: CheckOptions, status: Json) -> str | None:
    """Why it is too early to judge; None when it is not."""
    if still_old(options, status):
        return "the process from before the restart still answers"
    if status["state"] in _UNSETTLED and status["state"] not in options.expect_state:
        return f"the worker is {status['state']}"
    return None


def _identity_defect(options: CheckOptions, status: Json) -> CheckError | None:
    instance = status["instance"]
    journal_id = (status.get("journal") or {}).get("id")
    rows = (
        ("worker_exited", "boot_id", options.expect_boot_id, instance["boot_id"]),
        ("wrong_version", "version", options.expect_version, instance["version"]),
        ("wrong_release", "release", options.expect_release, instance.get("release")),
        ("wrong_journal", "journal id", options.expect_journal_id, journal_id),
    )
    for code, what, wanted, found in rows:
        if wanted is not None and wanted != found:
            return CheckError(
                code,
                f"its {what} is '{found}', not '{wanted}'",
                {"expected": wanted, "found": found},
            )
    return None


def judge(options: CheckOptions, status: Json) -> CheckError | None:
    """What is wrong with a worker that has settled; None if nothing is."""
    if status["state"] == "failed":
        cause = status.get("failure") or {}
        return CheckError(
            "worker_failed",
            f"it has failed: {cause.get('message') or cause.get('code') or 'no cause given'}",
            {"failure": cause},
        )
    wrong = _identity_defect(options, status)
    if wrong:
        return wrong
    if status["state"] not in options.expect_state:
        wanted = " or ".join(options.expect_state)
        return CheckError(
            "unexpected_state",
            f"it is {status['state']}, not {wanted}",
            {"expected": list(options.expect_state), "found": status["state"]},
        )
    # A standby has no journal, and so no books.
    books = None if status["state"] == "standby" else totals_defect(options.totals_before, status)
    return CheckError("totals_wrong", books, {"totals": status["totals"]}) if books else None


def seconds_in_state(status: Json, wall: float) -> float:
    began = parse_time(status.get("since"))
    return 0.0 if began is None else max(0.0, wall - began)


# --- judgements over probes ---


def probe_request_id(base: str, boot_id: str, since: Json | None, attempt: int) -> str:
    """The same for repeated calls of one check on one process, new for anything else.

    A worker answers a known id from its records, so one that outlived the process or the check proves nothing.
    """
    seed = json.dumps([base, boot_id, since], sort_keys=True)
    digest = hashlib.sha256(seed.encode("utf-8")).hexdigest()[:12]
    return f"{base[:_REQUEST_ID_CHARS]}-{digest}" + (f"-{attempt}" if attempt else "")


def form_fields(task: Json) -> dict[str, str]:
    """A task as the flat strings of a form: YAML has numbers and truth values where in.php has text."""
    return {name: str(int(value) if isinstance(value, bool) else value) for name, value in task.items()}


def probe_fault(probe: Json) -> str:
    fault = (probe.get("error") or {}).get("class")
    return fault if fault in FAULTS else "worker"


def probe_error(probe: Json) -> Json:
    """Code and class of a failed probe, for whoever counts them."""
    return {"code": (probe.get("error") or {}).get("code"), "class": probe_fault(probe)}


def probe_failure(probes: Sequence[Json]) -> CheckError:
    """What to say when none of these tries succeeded."""
    probe, attempts = probes[-1], len(probes)
    error = probe.get("error") or {}
    times = "once" if attempts == 1 else f"{attempts} times"
    text = f"its probe failed {times}, the last with {error.get('code') or 'no code'}"
    if error.get("message"):
        text += f" ({error['message']})"
    details = {"probe": probe, "attempts": attempts, "errors": [probe_error(each) for each in probes]}
    return CheckError("probe_failed", text, details, fault=probe_fault(probe))


def probe_identity_defect(status: Json, probe: Json) -> CheckError | None:
    """A probe that another process solved says nothing of this one."""
    wanted, found = status["instance"]["boot_id"], probe.get("boot_id")
    if found == wanted:
        return None
    return CheckError(
        "worker_exited",
        "its process was replaced while it solved the probe",
        {"expected": wanted, "found": found},
    )


class ServiceView(NamedTuple):
    """What the service manager is asked; given from outside, so that the flow needs none."""

    state: Callable[[], Any]
    log: Callable[[], list[str]]


class CheckFlow:
    """One call of solve_check for the checks of a worker. C(result) is complete at any moment."""

    def __init__(
        self,
        client: WorkerClient,
        options: CheckOptions,
        *,
        service: ServiceView | None = None,
        clock: Clock | None = None,
        wall: Callable[[], float] | None = None,
        machine: Callable[[], Json] = host_clock,
    ) -> None:
        self.client = client
        self.options = options
        self.service = service
        self.wall = wall or (lambda: datetime.now(timezone.utc).timestamp())
        self.limit = options.deadline + options.soak
        # Without a request_id a later call could not go on with the same probe: then this one waits to the end.
        resumable = options.request_id is not None or "probe" not in options.checks
        slice_s = options.wait_slice if resumable else self.limit
        now = machine()
        self.span = Span(clock or Clock(), slice_s, elapsed_since(options.since, now))
        self.watched_before = elapsed_since(options.soak_since, now)
        self.status: Json | None = None
        self.pending = "the worker was not asked yet"
        self.answered: str | None = None
        self.service_pid: int | None = None
        self.probing = False
        self.failed_probes: list[Json] = []
        self.random_id = "check-" + secrets.token_hex(8)
        self.result: Json = {
            "changed": False,
            "done": False,
            "finding": "answering",
            "pending": None,
            "passed": [],
            "attempts": 0,
            "probe": None,
            "worker": None,
            "elapsed_s": 0.0,
        }

    def name(self) -> str:
        return name_of(self.status, self.client.socket_path)

    def run(self) -> bool:
        """Do what fits into this call; True when all checks of the worker have passed."""
        try:
            done = self._steps()
            self.result["pending"] = None if done else self.pending
            return done
        except CheckError as error:
            if self.service:
                error.details.setdefault("log", self.service.log())
            raise
        finally:
            self.result["elapsed_s"] = round(self.span.elapsed(), 3)

    def _steps(self) -> bool:
        if not self._settle():
            return False
        if "probe" in self.options.checks:
            if not self._probe():
                return False
            self.result["passed"].append("probe")
            # A process that ended right after its answer must not pass.
            self._look(0)
            self._judged()
        self.result["passed"].insert(0, "worker")
        return self._soaked()

    # --- the worker itself ---

    def _settle(self) -> bool:
        """Wait until there is something to judge, and judge it."""
        self._ask_service()
        while True:
            pending = self._look(0) or unsettled(self.options, self.status or {})
            if pending is None:
                self._judged()
                return True
            self.pending = pending
            self._ask_service()
            if not self._may_wait():
                return False
            self.span.pause(SHORTEST_ROUND_S)

    def _judged(self) -> None:
        if self.status is None or self.result["finding"] != "answering":
            raise self._exited("it no longer answers")
        wrong = judge(self.options, self.status)
        if wrong is not None:
            raise wrong

    def _may_wait(self) -> bool:
        if self.span.elapsed() >= self.limit:
            raise self._too_late()
        return self.span.slice_left() > 0

    def _too_late(self) -> CheckError:
        """A deadline that ends a probe is no proof against the worker: whoever solves it may just be slow."""
        details: Json = {"pending": self.pending, "finding": self.result["finding"]}
        fault = "worker"
        if self.probing:
            errors = [probe_error(each) for each in self.failed_probes]
            details.update(checking="probe", attempts=len(errors), errors=errors)
            fault = errors[-1]["class"] if errors else "worker"
        return CheckError(
            "deadline",
            f"it is not ready after {self.span.elapsed():.0f} s: {self.pending}"
            " (deadline, solver_healthy_deadline)",
            details,
            fault=fault,
        )

    def _look(self, wait: float, until: Sequence[str] = ()) -> str | None:
        """Ask the worker; the reason if it cannot be asked yet."""
        try:
            status = self.client.status(wait, until)
        except (NoSocket, DeadSocket, Hung, BrokenOff) as error:
            return self._unanswered(error)
        except Finding as error:
            self.result.update(finding=error.code)
            raise CheckError(error.code, error.message, error.details) from error
        self._seen(status)
        return None

    def _unanswered(self, error: Finding) -> str:
        self.result.update(finding=error.code, worker=None)
        if self.answered is not None and isinstance(error, (NoSocket, DeadSocket)):
            raise self._exited("its process answered and is gone")
        return error.message

    def _seen(self, status: Json) -> None:
        self.status = status
        self.result.update(finding="answering", worker=status)
        boot_id = status["instance"]["boot_id"]
        if still_old(self.options, status) or status["state"] == "stopping":
            return
        if self.answered not in (None, boot_id):
            raise self._exited("its process was replaced while it was checked")
        self.answered = boot_id

    def _exited(self, text: str) -> CheckError:
        return CheckError("worker_exited", text, {"finding": self.result["finding"]})

    def _ask_service(self) -> None:
        """A process that exits fails the check at once; the service manager is the first to know."""
        if self.service is None:
            return
        seen = self.service.state()
        state = str(getattr(seen, "state", seen))
        if state in ("stopped", "failed", "restarting"):
            detail = getattr(seen, "detail", "")
            raise self._exited(f"its process ended, the service is {state}" + (f" ({detail})" if detail else ""))
        self._same_start(seen)

    def _same_start(self, seen: Any) -> None:
        """A process that ended and was started again between two looks, or two calls, has ended all the same."""
        restarts = getattr(seen, "restarts", None)
        if restarts and self.options.expect_boot_id_not is not None:
            times = "once" if restarts == 1 else f"{restarts} times"
            raise self._exited(f"its process ended, and the service was started again {times} since its switch")
        pid = getattr(seen, "pid", None)
        if self.service_pid and pid and pid != self.service_pid:
            raise self._exited(f"its process {self.service_pid} ended, and {pid} was started")
        self.service_pid = pid or self.service_pid

    def _soaked(self) -> bool:
        """Watch a good worker for as long as asked; any change for the worse fails at once."""
        while self.options.soak > 0:
            status = self.status or {}
            left = self.options.soak - self._watched(status)
            if left <= 0:
                break
            self.pending = f"the worker is watched for {left:.0f} s more"
            if not self._may_wait():
                return False
            others = [name for name in _STATES if name != status["state"]]
            started = self.span.in_call()
            self._look(min(left, self.span.slice_left(), 5.0), others)
            self._judged()
            self._ask_service()
            self.span.pause(SHORTEST_ROUND_S - (self.span.in_call() - started))
        self.result["done"] = True
        return True

    def _watched(self, status: Json) -> float:
        """The worker's own date of its state is wrong by any step of the wall clock since its process began."""
        if self.options.soak_since:
            return self.watched_before + self.span.in_call()
        return seconds_in_state(status, self.wall())

    # --- the probe ---

    def _probe(self) -> bool:
        self.probing = True
        for attempt in range(self.options.retries):
            if attempt:
                self._interval(self.failed_probes[-1])
            probe = self._one_probe(attempt)
            if probe is None:
                return False
            wrong = probe_identity_defect(self.status or {}, probe)
            if wrong:
                raise wrong
            self.result.update(probe=probe, attempts=attempt + 1)
            if probe["outcome"] == "succeeded":
                self.probing = False
                return True
            self.failed_probes.append(probe)
        raise probe_failure(self.failed_probes)

    def _interval(self, last: Json) -> None:
        """Wait before another try, unless the last failure is one from the worker's records."""
        if last.get("fresh"):
            self.span.pause(self.options.interval)
        self._ask_service()

    def _body(self, attempt: int) -> Json:
        options, boot_id = self.options, (self.status or {})["instance"]["boot_id"]
        base = options.request_id or self.random_id
        body: Json = {
            "request_id": probe_request_id(base, boot_id, options.since, attempt),
            "timeout_s": options.probe_timeout,
        }
        if options.probe_task:
            body["task"] = form_fields(options.probe_task)
        if options.probe_expect is not None:
            body["expect"] = options.probe_expect
        return body

    def _one_probe(self, attempt: int) -> Json | None:
        """One probe to its answer; None when this call ends before."""
        body = self._body(attempt)
        while True:
            self.pending = f"probe {attempt + 1} of {self.options.retries} is not answered yet"
            started = self.span.in_call()
            try:
                whole = self.options.probe_timeout + self.client.timeout
                probe = self.client.probe(body, min(max(self.span.slice_left(), 1.0), whole))
                took = self.span.in_call() - started
                probe["fresh"] = took >= 0.5 * float(probe.get("elapsed_s") or 0)
                return probe
            except ApiProblem as problem:
                self._probe_refused(problem)
            except (Hung, BrokenOff, NoSocket, DeadSocket) as error:
                self._probe_unanswered(error)
            except Finding as error:
                raise CheckError(error.code, error.message, error.details) from error
            if not self._may_wait():
                return None
            self.span.pause(2 * SHORTEST_ROUND_S)

    def _probe_refused(self, problem: ApiProblem) -> None:
        if problem.status == 409:
            self.pending = "another probe runs on this worker"
        elif problem.status == 503:
            self.pending = f"the worker takes no probe yet: {problem.message}"
        else:
            raise CheckError("probe_refused", f"it refuses the probe: {problem.message}", problem.details, fault="task")

    def _probe_unanswered(self, error: Finding) -> None:
        """Hung may only mean that the solve goes on; whether the process is there is asked apart."""
        self._ask_service()
        silent = self._look(0)
        if silent:
            raise CheckError(error.code, f"it stopped answering during its probe: {silent}")
        self._judged()
