# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""What every service backend offers: restart, stop, start, state, whether it can start, and the end of the log."""

from __future__ import annotations

import contextlib
import json
import os
import time
from datetime import datetime
from typing import Any, Callable, Dict, NamedTuple, Sequence

from ansible_collections.solver.fleet.plugins.module_utils._detached import detached
from ansible_collections.solver.fleet.plugins.module_utils._errors import StepError, one_line
from ansible_collections.solver.fleet.plugins.module_utils._files import mask, open_checked, tail
from ansible_collections.solver.fleet.plugins.module_utils._result import LONGEST_S

Settings = Dict[str, Any]
# How long a service may take to stop, unless the setting says otherwise: stop_s of a worker and a reserve.
STOP_TIMEOUT_S = 60.0
LOG_BYTES = 65536
_POLL_S = 0.1
# What of a log line in JSON is no detail of it.
_HEAD = ("at", "level", "event", "exception")
# A manager that was told to start may still say "stopped" for a moment.
START_GRACE_S = 2.0


class ServiceState(NamedTuple):
    """What the service manager says of a service.

    C(failed) was given up or ended by itself; C(restarting) ended by itself and will be tried again. C(restarts) counts
    how often the manager started it by itself since somebody told it to start; None where it does not tell.
    """

    state: str  # running, starting, stopped, failed, restarting, or unknown
    pid: int | None
    detail: str
    restarts: int | None = None

    def record(self) -> Settings:
        return {"state": self.state, "pid": self.pid, "detail": self.detail}


class ServiceError(StepError):
    """The service manager refuses, or cannot be asked."""


def need(settings: Settings, key: str) -> str:
    """A setting that the backend cannot do without."""
    value = settings.get(key)
    if not isinstance(value, str) or not value:
        raise ServiceError(
            "bad_service",
            f"reading service: the backend '{settings.get('backend')}' needs service.{key}; set it in solver_service",
            {"option": f"service.{key}"},
        )
    return value


def read_log_end(path: str, lines: int, since: float | None = None) -> list[str]:
    """The last lines of a log file, of what was written after C(since); empty if there is none.

    Whoever writes it may put a link in its place.
    """
    try:
        with open_checked(path) as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - LOG_BYTES))
            return log_lines(stream.read(LOG_BYTES).decode("utf-8", "replace"), lines, since)
    except FileNotFoundError:
        return []
    except OSError as error:
        return [one_line(f"{path} is not shown: {error.strerror}")]


def log_lines(text: str, lines: int, since: float | None = None) -> list[str]:
    """The last lines as people read them; with C(since), without all up to the last that says it is older."""
    found = [(line, _as_json(line)) for line in text.splitlines() if line.strip()]
    if since is not None:
        old = [place for place, (_line, entry) in enumerate(found) if (_when(entry) or since) < since]
        found = found[old[-1] + 1:] if old else found
    return tail(mask("\n".join(_readable(line, entry) for line, entry in found[-lines:])), lines)


def _as_json(line: str) -> Settings:
    """A log line that is a JSON object with an event; nothing for any other."""
    if line.lstrip().startswith("{"):
        with contextlib.suppress(ValueError, RecursionError):
            entry = json.loads(line)
            if isinstance(entry, dict) and isinstance(entry.get("event"), str):
                return entry
    return {}


def _when(entry: Settings) -> float | None:
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        found = datetime.fromisoformat(str(entry.get("at")).replace("Z", "+00:00"))
        return found.timestamp() if found.tzinfo else None
    return None


def _readable(line: str, entry: Settings) -> str:
    """JSON in the JSON of a result is unreadable: the same in words, of an exception what it says."""
    if not entry:
        return line
    words = [f"{name}={value}" for name, value in entry.items() if name not in _HEAD]
    raised = str(entry.get("exception") or "").strip().splitlines()[-1:]
    head = " ".join(str(entry[name]) for name in ("at", "level", "event") if entry.get(name))
    return " ".join((head + (":" if words or raised else "") + " " + " ".join(words + raised)).split())


class Service:
    """One service. A backend fills in the verbs; start and stop may be called in any state."""

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.settings = settings
        self.name = need(settings, "name")
        self.clock = clock
        self.sleep = sleep
        self.since: float | None = None  # when the process was started whose log is asked for
        self.timeout = STOP_TIMEOUT_S
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            self.timeout = float(settings.get("timeout") or STOP_TIMEOUT_S)
        if not 0 < self.timeout < LONGEST_S:
            raise ServiceError(
                "bad_service",
                f"reading service: {self.timeout:g} s cannot be waited for; correct service.timeout (solver_service)",
                {"option": "service.timeout"},
            )

    def start(self) -> None:
        """Begin to start; what becomes of it is for state() to say."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop, and come back when it is stopped."""
        raise NotImplementedError

    def state(self) -> ServiceState:
        raise NotImplementedError

    def cannot_start(self) -> str | None:
        """Why the manager could not start the service if it were stopped now; None if nothing speaks against it."""
        raise NotImplementedError

    def absent(self) -> str | None:
        """Why the manager does not know the service at all; what it would run may be still to come."""
        return self.cannot_start()

    def restart(self, force: bool = False, keep: Sequence[int] = ()) -> None:
        """Stop and start. What was stopped is started, also if this process is killed in between.

        FORCE ends also a process that does not end by itself. The locks on the descriptors KEEP are held meanwhile.
        """
        self.since = time.time()
        own = self.anew()
        detached(lambda: own.stop_and_start(force), own.start_once_stopped, 5 * self.timeout + 60, keep)

    def anew(self) -> Service:
        """The same service, with connections of its own."""
        return type(self)(self.settings, clock=self.clock, sleep=self.sleep)

    def stop_and_start(self, force: bool) -> None:
        (self.stop_by_force if force else self.stop)()
        self.since = time.time()
        self.start()

    def stop_by_force(self) -> None:
        """Stop also a process that hangs; most managers do so whenever they stop."""
        self.stop()

    def start_once_stopped(self) -> None:
        """Start what failed to stop in time, and may still come to it."""
        deadline = self.clock() + self.timeout
        while self.clock() < deadline:
            if self.state().state in ("stopped", "failed"):
                self.start()
                return
            self.sleep(_POLL_S)

    def log_tail(self, lines: int = 20) -> list[str]:
        """The last lines, of those that the process said which is to be judged."""
        log_file = self.settings.get("log_file")
        return read_log_end(log_file, lines, self.since) if isinstance(log_file, str) and log_file else []
