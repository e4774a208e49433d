# SPDX-License-Identifier: GPL-3.0-or-later
"""A standby as plain data: who wants it and for how long, and the order that it was started by."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import drain as drains
from .clock import kernel_boot_id, rfc3339
from .config import Config, socket_path
from .drain import BadFieldError, Moment
from .errors import ConfigError, NotTakenOverError

MAX_ORDER_BYTES = 65_536
LEASE_S = 900.0
WITHIN_S = 30.0
WITHIN_MOST_S = 300.0

_COMMON = {name: drains.FIELDS[name] for name in ("owner", "reason", "lease_s")}
_RENEWAL = {**_COMMON, "steal": drains.FIELDS["steal"]}
_TAKE_OVER = {"owner": drains.FIELDS["owner"], "within_s": lambda f, v: drains.number(f, v, 1, WITHIN_MOST_S)}
# What a client writes, and what we add to it: the boot clock at the last renewal, and the boot that it belongs to.
_ORDER = {
    **_COMMON,
    "socket": lambda _f, v: socket_path(v),
    "renewed": lambda f, v: drains.number(f, v, 0, float("inf")),
    "kernel": lambda _f, v: str(v),
}


@dataclass(frozen=True)
class Standby:
    owner: str
    reason: str
    lease_s: float
    renewed: float  # a reading of the boot clock
    verified: bool = False  # the last probe of this process succeeded
    taking_over: bool = False
    last_error: NotTakenOverError | None = None

    @property
    def lease_ends(self) -> float:
        return self.renewed + self.lease_s

    def expired(self, boot: float) -> bool:
        """A take-over is bounded by itself; its end must not meet a standby that has gone."""
        return not self.taking_over and boot >= self.lease_ends

    def describe(self, moment: Moment) -> dict[str, Any]:
        error = self.last_error
        return {
            "owner": self.owner,
            "reason": self.reason,
            "lease_expires_at": rfc3339(moment.now + self.lease_ends - moment.boot),
            "verified": self.verified,
            "taking_over": self.taking_over,
            "last_error": None if error is None else {"code": error.code, "message": str(error)},
        }


def parse_renewal(body: Any) -> dict[str, Any]:
    return drains.parse_request(body, _RENEWAL)


def parse_take_over(body: Any) -> dict[str, Any]:
    return {"within_s": WITHIN_S, **drains.parse_request(body, _TAKE_OVER)}


def renew(current: Standby, wish: Mapping[str, Any], boot: float) -> Standby | None:
    """None: it is another owner's."""
    if wish["owner"] != current.owner and not wish.get("steal", False):
        return None
    return replace(current, **{name: value for name, value in wish.items() if name != "steal"}, renewed=boot)


@dataclass(frozen=True)
class Order:
    """The file that makes a standby of a process. It is there for as long as whoever starts us again shall get one."""

    path: Path
    socket: Path
    standby: Standby

    def save(self, standby: Standby) -> None:
        document = {name: getattr(standby, name) for name in ("owner", "reason", "lease_s", "renewed")}
        document.update(socket=str(self.socket), kernel=kernel_boot_id())
        beside = self.path.with_name(self.path.name + ".new")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o640)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(document, file)
        beside.replace(self.path)

    def fulfil(self) -> None:
        self.path.unlink(missing_ok=True)


def read_order(path: Path, config: Config, boot: float) -> Order | None:
    """None without one: then this process is the worker itself."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_ORDER_BYTES)
        document = drains.parse_request(json.loads(text), _ORDER)
        socket = Path(document["socket"])
    except FileNotFoundError:
        return None
    except KeyError as exc:
        raise ConfigError(f"reading the order {path} (--standby): {exc.args[0]} is missing") from exc
    except BadFieldError as exc:
        raise ConfigError(f"reading the order {path} (--standby): {exc}") from exc
    except OSError as exc:
        raise ConfigError(f"reading the order {path} (--standby): {exc.strerror}") from exc
    except (ValueError, RecursionError) as exc:
        raise ConfigError(f"reading the order {path} (--standby): {exc}") from exc
    own = Path(config.control.socket)
    if socket.parent != own.parent or socket == own:
        raise ConfigError(f"reading the order {path} (--standby): socket must lie beside control.socket {own}")
    return Order(path, socket, _remembered(document, boot))


def _remembered(document: Mapping[str, Any], boot: float) -> Standby:
    lease = document.get("lease_s", LEASE_S)
    renewed = document.get("renewed", boot)
    if document.get("kernel", kernel_boot_id()) != kernel_boot_id() or renewed > boot:
        renewed = boot - lease  # of an earlier boot of the machine, which no standby survives
    return Standby(document["owner"], document.get("reason", ""), lease, renewed)
