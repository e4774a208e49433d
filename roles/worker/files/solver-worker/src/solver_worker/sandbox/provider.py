# SPDX-License-Identifier: GPL-3.0-or-later
"""The provider behind in.php and res.php, without a network: fields in, reply out."""

from __future__ import annotations

import hmac
import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from . import methods, payload
from .ledger import Captcha, Ledger
from .limits import Limits

DEFAULT_SOLVE = {"default": (3.0, 8.0), "post": (1.0, 3.0), "base64": (1.0, 3.0)}
DEFAULT_PRICE = {"default": Decimal("0.003"), "post": Decimal("0.0005"), "base64": Decimal("0.0005")}
_MAX_POLL_IDS = 1000


@dataclass(frozen=True)
class Reply:
    """What the provider says; `extra` are further fields (plain: joined with a bar)."""

    ok: bool
    text: str
    extra: tuple[tuple[str, str], ...] = ()
    # getbalance answers a bare number in plain text, without OK|.
    bare: bool = False

    def render(self, as_json: bool) -> str:
        if as_json:
            return json.dumps({"status": int(self.ok), "request": self.text, **dict(self.extra)})
        if not self.ok or self.bare:
            return self.text
        return "|".join(["OK", self.text, *(value for _unused, value in self.extra)])


def error(code: str) -> Reply:
    return Reply(False, code)


@dataclass
class Settings:
    dialect: str = "captchaai"
    seed: int = 0
    solve: dict[str, tuple[float, float]] = field(default_factory=lambda: dict(DEFAULT_SOLVE))
    price: dict[str, Decimal] = field(default_factory=lambda: dict(DEFAULT_PRICE))
    balance: Decimal = Decimal("100.00")
    # None: any key of 32 characters is good.
    key: str | None = None
    threads: int = 0
    limits: Limits | None = None


class Provider:
    """All state of the account. Clocks come in, so that tests own the time."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.ledger = ledger
        self.balance = settings.balance
        self._clock = clock
        # One offset for good: a stepped wall clock must not move solve times.
        self._epoch = wall() - clock()
        # Ids differ between two lives of the sandbox: an id of the former life is unknown.
        self._next_id = int(wall() * 1000) * 1000
        self.counts = {"in": 0, "res": 0, "balance": 0}

    def now(self) -> float:
        return self._epoch + self._clock()

    # -- in.php ------------------------------------------------------------------------------

    def submit(self, fields: Mapping[str, str], upload: methods.Upload | None = None) -> tuple[Reply, Captcha | None]:
        self.counts["in"] += 1
        method = fields.get("method", "post")
        image = _image(method, fields, upload)
        code = (
            self._key_error(fields)
            or self._limit("on_submit")
            or methods.check(self.settings.dialect, fields, image, upload)
            or self._no_money(self._price(method))
            or self._no_thread()
        )
        if code:
            return error(code), None
        captcha = self._create(method, fields, image)
        return Reply(True, captcha.id), captcha

    def describe(self, fields: Mapping[str, str], upload: methods.Upload | None) -> dict[str, str]:
        """What a fault can match on besides the fields themselves."""
        method = fields.get("method", "post")
        image = _image(method, fields, upload)
        nonce = payload.find_nonce(fields, image) or payload.fingerprint(fields, image)
        return {"nonce": nonce, "method": method}

    def _create(self, method: str, fields: Mapping[str, str], image: bytes | None) -> Captcha:
        self._next_id += 1
        captcha_id = str(self._next_id)
        nonce = payload.find_nonce(fields, image)
        name = nonce or payload.fingerprint(fields, image)
        low, high = self.settings.solve.get(method, self.settings.solve["default"])
        # Seeded by the payload, not by the order of arrival: the same task takes as long in every run.
        chance = random.Random(f"{self.settings.seed}:{name}")  # noqa: S311 - not cryptography
        now = self.now()
        captcha = Captcha(
            id=captcha_id,
            nonce=name,
            method=method,
            at=now,
            ready_at=now + chance.uniform(low, high),
            answer=payload.answer_for(captcha_id, nonce, image),
            price=self._price(method),
        )
        self.balance -= captcha.price
        if self.settings.limits:
            self.settings.limits.on_accepted()
        self.ledger.submit(captcha)
        return captcha

    def _price(self, method: str) -> Decimal:
        return self.settings.price.get(method, self.settings.price["default"])

    def _key_error(self, fields: Mapping[str, str]) -> str | None:
        given, wanted = fields.get("key", ""), self.settings.key
        if wanted is None:
            return None if len(given) == 32 else "ERROR_WRONG_USER_KEY"
        if hmac.compare_digest(given.encode(), wanted.encode()):
            return None
        return "ERROR_KEY_DOES_NOT_EXIST" if len(given) == 32 else "ERROR_WRONG_USER_KEY"

    def _limit(self, rule: str) -> str | None:
        limits = self.settings.limits
        if limits is None:
            return None
        result: str | None = getattr(limits, rule)(self._clock())
        return result

    def _no_money(self, price: Decimal) -> str | None:
        return "ERROR_ZERO_BALANCE" if self.balance < price else None

    def _no_thread(self) -> str | None:
        """CaptchaAI sells threads and says ERROR_ZERO_BALANCE when none is free."""
        if not self.settings.threads:
            return None
        now = self.now()
        busy = sum(captcha.state(now) == "solving" for captcha in self.ledger.captchas.values())
        if busy < self.settings.threads:
            return None
        return "ERROR_ZERO_BALANCE" if self.settings.dialect == "captchaai" else "ERROR_NO_SLOT_AVAILABLE"

    # -- res.php -----------------------------------------------------------------------------

    def result(self, fields: Mapping[str, str]) -> Reply:
        self.counts["balance" if fields.get("action") == "getbalance" else "res"] += 1
        code = self._key_error(fields) or self._limit("on_poll")
        if code:
            return error(code)
        actions: dict[str, Callable[[Mapping[str, str]], Reply]] = {
            "get": self._get,
            "get2": self._get2,
            "getbalance": lambda _unused: Reply(True, str(self.balance), bare=True),
            "reportgood": self._report,
            "reportbad": self._report,
        }
        action = actions.get(fields.get("action", ""))
        return action(fields) if action else error("ERROR_EMPTY_ACTION")

    def find(self, captcha_id: str) -> Captcha | None:
        return self.ledger.captchas.get(captcha_id)

    def _unknown_id(self) -> str:
        return "ERROR_WRONG_CAPTCHA_ID" if self.settings.dialect == "2captcha" else "ERROR_NO_SUCH_CAPCHA_ID"

    def _poll(self, captcha_id: str) -> tuple[Reply, Captcha | None]:
        if not captcha_id.isdigit():
            return error("ERROR_WRONG_ID_FORMAT"), None
        captcha = self.find(captcha_id)
        if captcha is None or captcha.forgotten:
            return error(self._unknown_id()), None
        captcha.polls += 1
        state = captcha.state(self.now())
        if state == "unsolvable":
            return error("ERROR_CAPTCHA_UNSOLVABLE"), None
        if state == "solving":
            return error("CAPCHA_NOT_READY"), None
        self.ledger.deliver(captcha, self.now())
        return Reply(True, captcha.answer), captcha

    def _get(self, fields: Mapping[str, str]) -> Reply:
        if "ids" in fields:
            wanted = fields["ids"].split(",")[:_MAX_POLL_IDS]
            return Reply(True, "|".join(self._poll(one)[0].text for one in wanted), bare=True)
        return self._poll(fields.get("id", ""))[0]

    def _get2(self, fields: Mapping[str, str]) -> Reply:
        reply, captcha = self._poll(fields.get("id", ""))
        return Reply(True, reply.text, (("price", str(captcha.price)),)) if captcha else reply

    def _report(self, fields: Mapping[str, str]) -> Reply:
        captcha = self.find(fields.get("id", ""))
        if captcha is None or captcha.delivered_at is None:
            return error(self._unknown_id() if captcha is None else "ERROR_REPORT_NOT_RECORDED")
        if captcha.reports:
            return error("ERROR_DUPLICATE_REPORT")
        captcha.reports.append(fields["action"])
        return Reply(True, "OK_REPORT_RECORDED", bare=True)

    # -- what faults do ----------------------------------------------------------------------

    def give_up(self, captcha: Captcha) -> None:
        """Unsolvable: the price goes back, as with the real ones."""
        if not captcha.unsolvable:
            self.balance += captcha.price
        self.ledger.mark(captcha, "unsolvable")

    def forget(self, captcha: Captcha) -> None:
        self.ledger.mark(captcha, "forgotten")

    def document(self) -> dict[str, Any]:
        now = self.now()
        document = self.ledger.document(now)
        captchas = self.ledger.captchas.values()
        per_nonce = [len(entry["submits"]) for entry in document["nonces"].values()]
        document["totals"] = {
            "submits": sum(per_nonce),
            "payloads": len(per_nonce),
            "repeated": sum(count > 1 for count in per_nonce),
            "solved": sum(captcha.state(now) == "solved" for captcha in captchas),
            "delivered": sum(captcha.delivered_at is not None for captcha in captchas),
            "unsolvable": sum(captcha.unsolvable for captcha in captchas),
            "forgotten": sum(captcha.forgotten for captcha in captchas),
            "calls": dict(self.counts),
            "balance": str(self.balance),
        }
        return document


def _image(method: str, fields: Mapping[str, str], upload: methods.Upload | None) -> bytes | None:
    if method == "base64":
        return payload.decode_base64(fields.get("body", ""))
    return upload.data if upload else None
