# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""The provider itself, asked without any worker: its balance, and one direct solve."""

from __future__ import annotations

import base64
import json
import re
import struct
import threading
import zlib
from decimal import Decimal
from typing import Any, Callable, Dict, NamedTuple

from ansible_collections.solver.fleet.plugins.module_utils._check import CheckError, form_fields
from ansible_collections.solver.fleet.plugins.module_utils._errors import WorkerError, one_line
from ansible_collections.solver.fleet.plugins.module_utils._wait import Clock

Json = Dict[str, Any]

CALL_TIMEOUT_S = 15.0
SHORTEST_CALL_S = 1.0
ANSWER_BYTES = 65536
_ID = re.compile(r"[0-9]{1,64}\Z")
_AMOUNT = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?\Z")
FIRST_POLL_S = {"base64": 5.0, "post": 5.0}
FIRST_POLL_TOKEN_S = 20.0
POLL_S = 5.0
IMAGE_TEXT = "4T7L"
_ACCOUNT_CODES = (
    "ERROR_WRONG_USER_KEY",
    "ERROR_KEY_DOES_NOT_EXIST",
    "ERROR_ZERO_BALANCE",
    "ERROR_IP_NOT_ALLOWED",
    "ERROR_IP_ADDRES",
    "IP_BANNED",
    "ERROR: 1004",
)
_PROVIDER_CODES = ("ERROR_NO_SLOT_AVAILABLE", "MAX_USER_TURN", "ERROR_TOO_MUCH_REQUESTS")
_LOST_ID_CODES = ("ERROR_WRONG_ID_FORMAT", "ERROR_WRONG_CAPTCHA_ID", "ERROR_NO_SUCH_CAPCHA_ID")
_SCALE = 8
# Five by seven, one number per row.
_GLYPHS = {
    "4": (2, 6, 10, 18, 31, 2, 2),
    "T": (31, 4, 4, 4, 4, 4, 4),
    "7": (31, 1, 2, 4, 8, 8, 8),
    "L": (16, 16, 16, 16, 16, 16, 31),
}


class ProviderAccess(NamedTuple):
    url: str
    key: str
    timeout: float


def read_key(path: str) -> str:
    """The API key from its file; no message ever shows more than the path."""
    try:
        with open(path, encoding="utf-8") as stream:
            key = stream.read(4096).strip()
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or "it is not text"
        raise WorkerError(
            "bad_api_key_file",
            f"reading api_key_file '{path}': {cause}; set api_key_file (solver_api_key_file) to a readable "
            "file with the key",
        ) from None
    if not key or not key.isprintable() or " " in key:
        raise WorkerError(
            "bad_api_key_file",
            f"reading api_key_file '{path}': it holds no key; put the key, alone, into it",
        )
    return key


def image_of(text: str) -> bytes:
    """A grey PNG that shows a text; its C(answer) chunk tells the sandbox what a person reads."""
    rows = []
    for line in range(7):
        bits = "".join(f"{_GLYPHS[char][line]:05b}0" for char in text)
        pixels = b"".join((b"\x10" if bit == "1" else b"\xf0") * _SCALE for bit in bits)
        rows += [b"\x00" + pixels] * _SCALE
    width, height = 6 * len(text) * _SCALE, 7 * _SCALE

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (
            chunk(b"IHDR", header),
            chunk(b"tEXt", b"answer\x00" + text.encode("ascii")),
            chunk(b"IDAT", zlib.compress(b"".join(rows), 9)),
            chunk(b"IEND", b""),
        )
    )


def default_task() -> Json:
    return {"method": "base64", "body": base64.b64encode(image_of(IMAGE_TEXT)).decode("ascii")}


def fault_of(code: str) -> str:
    """Whose fault an error code of the provider is."""
    if code in _ACCOUNT_CODES:
        return "account"
    if code in _PROVIDER_CODES or code in _LOST_ID_CODES:
        return "provider"
    return "task" if code.startswith(("ERROR_", "TOO_MANY_")) else "provider"


class Provider:
    """The two calls of the provider. C(http) is the requests module, given from outside: it may be missing."""

    def __init__(self, access: ProviderAccess, http: Any, clock: Clock | None = None) -> None:
        self._access = access
        self._http = http
        self._clock = clock or Clock()

    def _call(self, name: str, fields: Json, left: float) -> tuple[bool, str]:
        """One call, which takes no longer than is LEFT of the whole, however slowly an answer drips."""
        seconds = max(SHORTEST_CALL_S, min(CALL_TIMEOUT_S, left))
        try:
            status, coding, raw = _within(seconds, lambda: self._post(name, fields, 0.9 * seconds))
        except TimeoutError:
            text = f"{name} at provider_url '{self._access.url}' gave no whole answer in {seconds:.0f} s"
            raise CheckError("provider_timeout", text, fault="provider") from None
        except Exception as error:  # noqa: BLE001 - what a stranger's answer can break is more than any list
            raise CheckError(
                "provider_unreachable",
                f"calling {name} at provider_url '{self._access.url}' failed ({type(error).__name__})",
                fault="network",
            ) from None
        if status != 200:
            raise CheckError("provider_answer", f"{name} answered with HTTP status {status}", fault="provider")
        return parse_answer(name, _unpacked(raw, coding))

    def _post(self, name: str, fields: Json, seconds: float) -> tuple[int, str, bytes]:
        url = self._access.url.rstrip("/") + "/" + name
        # In the body, so that neither a log of a proxy nor the text of an error can show the key.
        data = dict(fields, key=self._access.key, json="1")
        headers = {"Accept-Encoding": "gzip"}
        with self._http.post(
            url, data=data, headers=headers, timeout=seconds, allow_redirects=False, stream=True
        ) as answer:
            raw = answer.raw.read(ANSWER_BYTES, decode_content=False)
            return answer.status_code, str(answer.headers.get("Content-Encoding", "")), raw

    def balance(self) -> Decimal:
        ok, text = self._call("res.php", {"action": "getbalance"}, CALL_TIMEOUT_S)
        if not ok:
            raise CheckError("balance_failed", f"getbalance answered {text}", {"code": text}, fault=fault_of(text))
        if not _AMOUNT.match(text):
            raise CheckError("provider_answer", "getbalance answered no amount", fault="provider")
        return Decimal(text)

    def solve(self, task: Json | None, expect: str | None) -> float:
        """Solve one task directly; the seconds that it took."""
        fields = form_fields(task) if task else default_task()
        expect = IMAGE_TEXT if task is None and expect is None else expect
        began = self._clock.now()
        ok, text = self._call("in.php", fields, self._access.timeout)
        if not ok:
            raise CheckError("provider_refused", f"in.php answered {text}", {"code": text}, fault=fault_of(text))
        if not _ID.match(text):
            raise CheckError("provider_answer", "in.php answered no id", fault="provider")
        first = FIRST_POLL_S.get(str(fields.get("method")), FIRST_POLL_TOKEN_S)
        answer = self._poll(text, began, first)
        if expect is not None and answer.strip().casefold() != expect.casefold():
            raise CheckError("wrong_answer", "the direct solve gave another answer than expected", fault="provider")
        return self._clock.now() - began

    def _left(self, began: float) -> float:
        left = self._access.timeout - (self._clock.now() - began)
        if left <= 0:
            raise CheckError(
                "provider_timeout",
                f"the direct solve took more than {self._access.timeout:g} s (probe_timeout)",
                fault="provider",
            )
        return left

    def _poll(self, provider_id: str, began: float, pause: float) -> str:
        while True:
            self._clock.sleep(min(pause, self._left(began)))
            ok, text = self._call("res.php", {"action": "get", "id": provider_id}, self._left(began))
            if ok:
                return text
            if text != "CAPCHA_NOT_READY":
                raise CheckError("provider_failed", f"res.php answered {text}", {"code": text}, fault=fault_of(text))
            pause = POLL_S


def _within(seconds: float, work: Callable[[], Any]) -> Any:
    """What WORK returns or raises in time. A time-out per read never ends a peer that drips, so it has a thread of
    its own, which is left behind when its time is up and goes with the process."""
    done: list[tuple[Any, BaseException | None]] = []

    def run() -> None:
        try:
            done.append((work(), None))
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            done.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not done:
        raise TimeoutError
    value, error = done[0]
    if error is not None:
        raise error
    return value


def _unpacked(raw: bytes, coding: str) -> bytes:
    """The body, of which nothing is left where it is too long, or not packed as it says."""
    if coding.lower() in ("gzip", "x-gzip"):
        try:
            unpacker = zlib.decompressobj(wbits=31)
            raw = unpacker.decompress(raw, ANSWER_BYTES)
        except zlib.error:
            return b""
        if not unpacker.eof:
            return b""
    return raw if len(raw) < ANSWER_BYTES else b""


def parse_answer(name: str, raw: bytes) -> tuple[bool, str]:
    """An answer of json=1, or its plain form, as a line that may be shown; anything else is not of this protocol."""
    try:
        text = raw.decode("utf-8").strip()
        document = json.loads(text) if text.startswith("{") else None
    except (ValueError, RecursionError):
        document, text = None, "\n"
    if isinstance(document, dict):
        request = document.get("request")
        if isinstance(request, (str, int, float)) and not isinstance(request, bool):
            return document.get("status") in (1, "1"), one_line(request, 200)
    elif text.startswith("OK|"):
        return True, one_line(text[3:], ANSWER_BYTES)
    elif text and len(text) <= 60 and text.isprintable() and "<" not in text:
        return bool(_AMOUNT.match(text)), text
    raise CheckError("provider_answer", f"{name} answered something that is not of its protocol", fault="provider")


def enough(balance: Decimal, minimum: float) -> CheckError | None:
    if balance >= Decimal(str(minimum)):
        return None
    return CheckError(
        "low_balance",
        f"the balance is {balance}, below min_balance {minimum:g}",
        {"balance": str(balance), "min_balance": minimum},
        fault="account",
    )
