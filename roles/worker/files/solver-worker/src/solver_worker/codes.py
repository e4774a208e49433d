# SPDX-License-Identifier: GPL-3.0-or-later
"""What each answer of the provider means: whose fault it is and what to do next."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["ok", "not_ready", "error", "unclear", "unreachable"]
Class = Literal["worker", "account", "provider", "task", "network"]

NOT_READY = "CAPCHA_NOT_READY"  # the protocol's own spelling
TIMEOUT = "TIMEOUT"


@dataclass(frozen=True)
class Answer:
    """One exchange with the provider.

    ``unreachable``: the connection never stood, so nothing was sent. ``unclear``: it stood, and what
    became of the request is not known.
    """

    kind: Kind
    value: str = ""

    @property
    def silent(self) -> bool:
        """Nobody answered who could: no connection, no answer in time, or a proxy's word for that."""
        return self.kind == "unreachable" or (self.kind == "unclear" and self.value.startswith("HTTP_5"))


@dataclass(frozen=True)
class Verdict:
    error_class: Class
    retry_s: float | None = None  # try the same call again after so long; None: never
    block_s: float = 0.0  # nobody may make this kind of call for so long
    block_polls: bool = False  # the block holds for res.php too


_ACCOUNT = Verdict("account")
_TASK = Verdict("task")

SUBMIT_CODES: dict[str, Verdict] = {
    "ERROR_WRONG_USER_KEY": _ACCOUNT,
    "ERROR_KEY_DOES_NOT_EXIST": _ACCOUNT,
    "ERROR_ZERO_BALANCE": _ACCOUNT,
    "ERROR_IP_NOT_ALLOWED": _ACCOUNT,
    "IP_BANNED": Verdict("account", block_s=300),
    "ERROR_NO_SLOT_AVAILABLE": Verdict("provider", retry_s=5),
    "MAX_USER_TURN": Verdict("provider", retry_s=10, block_s=10),
    "ERROR_TOO_MUCH_REQUESTS": Verdict("provider", retry_s=10, block_s=10),
    "ERROR: 1001": Verdict("provider", retry_s=600, block_s=600),
    "ERROR: 1002": Verdict("provider", retry_s=300, block_s=300),
    "ERROR: 1003": Verdict("provider", retry_s=30, block_s=30),
    "ERROR: 1004": Verdict("account", block_s=600, block_polls=True),
    "ERROR: 1005": Verdict("provider", retry_s=600, block_s=600, block_polls=True),
    "ERROR_PAGEURL": _TASK,
    "ERROR_GOOGLEKEY": _TASK,
    "ERROR_WRONG_GOOGLEKEY": _TASK,
    "ERROR_BAD_TOKEN_OR_PAGEURL": _TASK,
    "ERROR_BAD_PARAMETERS": _TASK,
    "ERROR_METHOD_CALL": _TASK,
    "ERROR_TOKEN_EXPIRED": _TASK,
    "ERROR_ZERO_CAPTCHA_FILESIZE": _TASK,
    "ERROR_TOO_BIG_CAPTCHA_FILESIZE": _TASK,
    "ERROR_WRONG_FILE_EXTENSION": _TASK,
    "ERROR_IMAGE_TYPE_NOT_SUPPORTED": _TASK,
    "ERROR_UPLOAD": _TASK,
    "ERROR_CAPTCHAIMAGE_BLOCKED": _TASK,
    "TOO_MANY_BAD_IMAGES": _TASK,
    "ERROR_BAD_PROXY": _TASK,
    "ERROR_PROXY_CONNECTION_FAILED": _TASK,
    "ERROR_CAPTCHA_UNSOLVABLE": _TASK,
}

# CaptchaAI's reference gives this code to a full account, not to an empty one.
_ZERO_BALANCE_CAPTCHAAI = Verdict("provider", retry_s=5)

_KEEP = 0.0  # polling goes on at its own pace

POLL_CODES: dict[str, Verdict] = {
    "ERROR_CAPTCHA_UNSOLVABLE": _TASK,
    "ERROR_WRONG_ID_FORMAT": Verdict("provider"),
    "ERROR_WRONG_CAPTCHA_ID": Verdict("provider"),
    "ERROR_NO_SUCH_CAPCHA_ID": Verdict("provider"),
    "ERROR_BAD_DUPLICATES": _TASK,
    "ERROR_TOKEN_EXPIRED": _TASK,
    "ERROR_BAD_PROXY": _TASK,
    "ERROR_PROXY_CONNECTION_FAILED": _TASK,
    "ERROR_WRONG_USER_KEY": Verdict("account", retry_s=_KEEP),
    "ERROR_KEY_DOES_NOT_EXIST": Verdict("account", retry_s=_KEEP),
    "ERROR_ZERO_BALANCE": Verdict("account", retry_s=_KEEP),
    "ERROR_IP_NOT_ALLOWED": Verdict("account", retry_s=_KEEP),
    "ERROR_IP_ADDRES": Verdict("account", retry_s=_KEEP),
    "IP_BANNED": Verdict("account", retry_s=_KEEP, block_s=300, block_polls=True),
    "ERROR_TOO_MUCH_REQUESTS": Verdict("provider", retry_s=_KEEP, block_s=10, block_polls=True),
    "MAX_USER_TURN": Verdict("provider", retry_s=_KEEP, block_s=10, block_polls=True),
    "ERROR: 1001": Verdict("provider", retry_s=_KEEP, block_s=600, block_polls=True),
    "ERROR: 1002": Verdict("provider", retry_s=_KEEP, block_s=300, block_polls=True),
    "ERROR: 1003": Verdict("provider", retry_s=_KEEP, block_s=30, block_polls=True),
    "ERROR: 1004": Verdict("account", retry_s=_KEEP, block_s=600, block_polls=True),
    "ERROR: 1005": Verdict("provider", retry_s=_KEEP, block_s=600, block_polls=True),
}

_CODE = re.compile(r"ERROR: ?[0-9]{1,5}|[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")


def submit_verdict(code: str, dialect: str) -> Verdict:
    if code == "ERROR_ZERO_BALANCE" and dialect == "captchaai":
        return _ZERO_BALANCE_CAPTCHAAI
    return SUBMIT_CODES.get(code, Verdict("provider"))


def poll_verdict(code: str) -> Verdict:
    """An unknown code keeps polling: the task is paid, and its time limit bounds the wait."""
    return POLL_CODES.get(code, Verdict("provider", retry_s=_KEEP))


def _code_in(text: str) -> str | None:
    stripped = text.strip()
    if len(stripped) > 64 or not _CODE.fullmatch(stripped):
        return None
    return re.sub(r"^ERROR: ?", "ERROR: ", stripped)


def _unwrap(text: str) -> tuple[bool, str] | None:
    """(success, text) of a plain or a JSON answer; None when it is neither, or nothing that could be kept as text."""
    if text.startswith("OK|"):
        return True, text[3:]
    if not text.lstrip().startswith("{"):
        return False, text
    try:
        document = json.loads(text)
        success = document["status"] in (1, "1")
        return success, _as_text(document["request"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _as_text(request: Any) -> str:
    """Some solutions are objects, and some servers write ids as numbers; nothing, truth and infinity are neither."""
    if request is None or isinstance(request, bool):
        raise TypeError("no text")
    text = request if isinstance(request, str) else json.dumps(request, allow_nan=False)
    text.encode("utf-8")  # raises at half a surrogate pair, which JSON can spell
    return text


def read_submit(status: int, text: str) -> Answer:
    unwrapped = _unwrap(text)
    if status >= 500 or unwrapped is None:
        return Answer("unclear", f"HTTP_{status}")
    success, value = unwrapped
    if success:
        identifier = value.strip()
        good = re.fullmatch(r"[0-9]{1,64}", identifier)
        return Answer("ok", identifier) if good else Answer("unclear", "BAD_ANSWER")
    code = _code_in(value)
    return Answer("error", code) if code else Answer("unclear", f"HTTP_{status}")


def read_poll(status: int, text: str) -> Answer:
    unwrapped = _unwrap(text)
    if status >= 500 or unwrapped is None:
        return Answer("unclear", f"HTTP_{status}")
    success, value = unwrapped
    if success:
        return Answer("ok", value)
    code = _code_in(value)
    if code == NOT_READY:
        return Answer("not_ready")
    return Answer("error", code) if code else Answer("unclear", f"HTTP_{status}")


def read_balance(status: int, text: str) -> Answer:
    unwrapped = _unwrap(text)
    if status >= 500 or unwrapped is None:
        return Answer("unclear", f"HTTP_{status}")
    value = unwrapped[1].strip()
    if re.fullmatch(r"-?[0-9]{1,20}(\.[0-9]{1,20})?", value):
        return Answer("ok", value)
    code = _code_in(value)
    return Answer("error", code) if code else Answer("unclear", f"HTTP_{status}")


# Methods whose answer is a text that does not age; everything else is a token that does.
IMAGE_METHODS = frozenset({"post", "base64", "textcaptcha", "rotatecaptcha", "audio", "canvas", "bounding_box", "bls"})


def is_image(method: str) -> bool:
    return method in IMAGE_METHODS
