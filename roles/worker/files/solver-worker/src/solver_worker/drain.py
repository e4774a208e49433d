# SPDX-License-Identifier: GPL-3.0-or-later
"""The drain as plain data: what a request makes of it, and what time makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from .clock import rfc3339

MODES = ("complete", "handover")
ON_DEADLINE = ("wait", "handover")
ON_EXPIRE = ("resume", "verify", "hold")
# Owner of the hold that a process of an unverified version puts on itself.
SELF = "solver-worker"


class BadFieldError(Exception):
    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field} {message}")
        self.field = field


@dataclass(frozen=True)
class Drain:
    """Instants are readings of the boot clock; only ``requested_at`` is a date."""

    owner: str
    reason: str
    mode: str
    on_deadline: str
    on_expire: str
    version: str
    requested_at: float
    requested: float
    grace_s: float
    deadline_s: float | None
    lease_s: float
    renewed: float
    expired: bool = False
    open_at_start: int | None = None  # tasks open when it began; what a drain is worth telling about
    held: bool = False  # came over a restart: nothing is accepted or submitted, whatever the grace says

    @property
    def lease_ends(self) -> float:
        return self.renewed + self.lease_s

    @property
    def grace_ends(self) -> float:
        return self.requested + self.grace_s

    @property
    def deadline(self) -> float | None:
        return None if self.deadline_s is None else self.requested + self.deadline_s

    def accepting(self, boot: float) -> bool:
        return not self.held and boot < self.grace_ends


@dataclass(frozen=True)
class Decision:
    status: int  # 202 begun, 200 renewed, 409 another's
    drain: Drain
    taken_from: str | None = None


@dataclass(frozen=True)
class Moment:
    """Both clocks, read once per decision."""

    boot: float
    now: float


def _text(field: str, value: Any, low: int, high: int) -> str:
    if not isinstance(value, str) or not low <= len(value) <= high or not value.isprintable():
        raise BadFieldError(field, f"must be {low} to {high} printable characters")
    return value


def number(field: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise BadFieldError(field, f"must be a number from {low:g} to {high:g}")
    return float(value)


def _choice(field: str, value: Any, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise BadFieldError(field, "must be one of: " + ", ".join(choices))
    return str(value)


def _flag(field: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadFieldError(field, "must be true or false")
    return value


FIELDS: dict[str, Any] = {
    "owner": lambda f, v: _text(f, v, 1, 200),
    "reason": lambda f, v: _text(f, v, 0, 500),
    "mode": lambda f, v: _choice(f, v, MODES),
    "grace_s": lambda f, v: number(f, v, 0, 86_400),
    "deadline_s": lambda f, v: None if v is None else number(f, v, 0, 86_400),
    "on_deadline": lambda f, v: _choice(f, v, ON_DEADLINE),
    "lease_s": lambda f, v: number(f, v, 5, 86_400),
    "on_expire": lambda f, v: _choice(f, v, ON_EXPIRE),
    "steal": _flag,
}


def parse_request(body: Any, fields: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Only what the request names; an unknown field is refused, since ignoring a misspelt wish is worse."""
    known = FIELDS if fields is None else fields
    if not isinstance(body, Mapping):
        raise BadFieldError("body", "must be a JSON object")
    unknown = sorted(set(body) - set(known))
    if unknown:
        raise BadFieldError(unknown[0], "is unknown; known: " + ", ".join(known))
    if "owner" not in body:
        raise BadFieldError("owner", "is required: the rollout's id")
    return {name: known[name](name, value) for name, value in body.items()}


def decide(
    current: Drain | None, request: Mapping[str, Any], moment: Moment, version: str, unverified: bool
) -> Decision:
    wish = {name: value for name, value in request.items() if name != "steal"}
    if current is not None and current.owner == wish["owner"]:
        renewed = replace(current, **wish, renewed=moment.boot, expired=False)
        return Decision(200, _guarded(renewed, unverified))
    if current is not None and not current.expired and not request.get("steal", False):
        return Decision(409, current)
    begun = _begin(wish, moment, version, held=current is not None and current.held)
    return Decision(202, _guarded(begun, unverified), current.owner if current else None)


def _begin(wish: Mapping[str, Any], moment: Moment, version: str, held: bool) -> Drain:
    defaults: dict[str, Any] = {
        "reason": "",
        "mode": "complete",
        "grace_s": 0.0,
        "deadline_s": None,
        "on_deadline": "wait",
        "lease_s": 900.0,
        "on_expire": "resume",
    }
    return Drain(
        **{**defaults, **wish},
        version=version,
        requested_at=moment.now,
        requested=moment.boot,
        renewed=moment.boot,
        held=held,
    )


def _guarded(drain: Drain, unverified: bool) -> Drain:
    """A version that never served here may not begin to by an expiry alone."""
    if unverified and drain.on_expire == "resume":
        return replace(drain, on_expire="verify")
    return drain


def at_startup(saved: Drain | None, moment: Moment, version: str, last_served: str | None) -> Drain | None:
    """The drain that a new process comes up with: held, and with verify if it is another version."""
    unverified = last_served is not None and last_served != version
    # A hold of our own stands for one version; another process judges afresh.
    if saved is not None and saved.owner != SELF:
        return _guarded(replace(saved, held=True), unverified)
    if not unverified:
        return None
    hold = _begin(
        {"owner": SELF, "reason": f"version {version} has not served here; {last_served} did"},
        moment,
        version,
        held=True,
    )
    return replace(hold, on_expire="verify", lease_s=0.0, expired=True)


def due_action(drain: Drain, boot: float) -> str | None:
    """What time demands now: "expire" or "handover"."""
    if not drain.expired and boot >= drain.lease_ends:
        return "expire"
    late = drain.deadline is not None and boot >= drain.deadline
    if late and drain.on_deadline == "handover" and drain.mode == "complete":
        return "handover"
    return None


def next_instant(drain: Drain, boot: float) -> float | None:
    """Seconds to the next instant at which anything changes by itself."""
    instants = [drain.grace_ends, drain.deadline, None if drain.expired else drain.lease_ends]
    ahead = [at - boot for at in instants if at is not None and at > boot]
    return min(ahead, default=None)


def save(drain: Drain, boot: float, kernel: str) -> dict[str, Any]:
    return {**asdict(drain), "saved": boot, "kernel": kernel}


def restore(document: Mapping[str, Any], boot: float, kernel: str) -> Drain:
    """On the same boot of the machine the clock went on; on another the remainder goes on from here."""
    names = {item.name for item in fields(Drain)}
    drain = Drain(**{name: value for name, value in document.items() if name in names})
    saved = float(document["saved"])
    if document.get("kernel") == kernel and boot >= saved:
        return drain
    shift = boot - saved
    return replace(drain, requested=drain.requested + shift, renewed=drain.renewed + shift)


def describe(drain: Drain | None, moment: Moment) -> dict[str, Any] | None:
    if drain is None:
        return None

    def date(instant: float | None) -> str | None:
        return None if instant is None else rfc3339(moment.now + instant - moment.boot)

    return {
        "owner": drain.owner,
        "reason": drain.reason,
        "mode": drain.mode,
        "on_deadline": drain.on_deadline,
        "on_expire": drain.on_expire,
        "version": drain.version,
        "requested_at": rfc3339(drain.requested_at),
        "grace_until": date(drain.grace_ends),
        "deadline_at": date(drain.deadline),
        "lease_expires_at": date(drain.lease_ends),
        "open_at_start": drain.open_at_start,
        "expired": drain.expired,
    }
