# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""Failures: one base, one table of their codes with what each is blamed on, and the one shape that a result has."""

from __future__ import annotations

import errno
import os
import traceback
from typing import Any, Dict

Json = Dict[str, Any]

CAUSES = ("release", "drain", "host", "unknown")
CRASHED = "crashed"
_TRACE_LINES = 20
_TEXT_CHARS = 500
_LINE_CHARS = 1000
_MESSAGE_CHARS = 4000

# What a code is blamed on, unless whoever raises it knows better. RELEASE: what the new version does, where it runs.
# DRAIN: the drain is not ours any more, or the process that is to go does not. HOST: the machine, its disk or its
# service manager, whatever is to run there. UNKNOWN: the options, another run, the provider, or a fault of our own.
_BY_CAUSE = {
    "release": """
        worker_failed worker_exited wrong_version wrong_release wrong_journal unexpected_state totals_wrong deadline
        probe_failed probe_refused service_failed not_running stopped dead hung foreign
        release_invalid config_refused unit_refused version_mismatch
    """,
    "drain": """
        foreign_drain drain_lost lease_lost drain_timeout feature_missing not_safe_to_stop stop_timeout stop_failed
        starting stopping
    """,
    "host": """
        unwritable unreadable no_space busy locked bad_record no_release no_previous not_a_link bad_service no_service
        no_supervisor no_systemd start_failed status_failed cannot_start restart_failed restart_timeout
        restart_lost reload_failed no_user no_setpriv no_python command_failed damaged
    """,
    "unknown": """
        bad_option bad_control_socket bad_api_key_file missing_library fenced held changed lock_lost no_rollout crashed
        denied timeout pip_failed release_linked no_version unknown_version ambiguous_package no_package not_a_wheel
        wrong_digest bad_credential bad_requirement no_source bad_version bad_overlay no_version_file
        no_version_line no_wheelhouse balance_failed low_balance provider_answer provider_failed provider_refused
        provider_timeout provider_unreachable wrong_answer no_socket broken no_backend
    """,
}
CODES: dict[str, str] = {code: cause for cause, codes in _BY_CAUSE.items() for code in codes.split()}


def remedy(error: OSError, otherwise: str) -> str:
    """What mends an error of the file system: where rights are missing, nothing is wrong with what lies there."""
    if error.errno not in (errno.EACCES, errno.EPERM):
        return otherwise
    return f"the user with the id {os.getuid()} may not; set solver_become: true, or log in as one that may"


def printable(text: Any, most: int = _TEXT_CHARS) -> str:
    """A text as it may be shown: a stranger's may hold escape sequences, line breaks, or far too much."""
    return "".join(char if char.isprintable() else " " for char in str(text)[:most])


def one_line(text: Any, most: int = _LINE_CHARS) -> str:
    """The same as it may stand in a message or a table; nothing where nothing was said."""
    return "" if text is None else " ".join(printable(text, most).split())


class FleetError(Exception):
    """Something cannot be done. The code is stable, the message names the option that mends it."""

    def __init__(
        self, code: str, message: str, details: Json | None = None, cause: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = one_line(message, _MESSAGE_CHARS)
        self.details: Json = details or {}
        self.cause = cause or CODES.get(code, "unknown")


class WorkerError(FleetError):
    """Something kept us from getting a useful answer of a worker, or from what was asked of it."""


class StepError(FleetError):
    """A step on the host that cannot be done."""


def failure_of(error: FleetError) -> Json:
    """The machine-readable side of a failure; C(msg) says the same to people."""
    return {"code": error.code, "cause": error.cause, "message": error.message, "details": error.details}


def cause_of(failure: Any) -> str:
    """What a failure in a result says that it is blamed on; anything that is not declared is C(unknown)."""
    if not isinstance(failure, dict):
        return "unknown"
    cause = failure.get("cause", CODES.get(str(failure.get("code"))))
    return cause if isinstance(cause, str) and cause in CAUSES else "unknown"


def crash_of(error: Exception) -> FleetError:
    """A fault of our own as a failure: without one, a result would look like a host that was lost."""
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    trace = "".join(lines).splitlines()[-_TRACE_LINES:]
    return FleetError(
        CRASHED,
        f"{type(error).__name__}: {one_line(error)}; please report it",
        {"traceback": [printable(line) for line in trace]},
    )
