# SPDX-License-Identifier: GPL-3.0-or-later
"""The methods of in.php: what each needs, and which dialect of the provider has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

DIALECTS = ("captchaai", "2captcha")
IMAGE_METHODS = frozenset({"post", "base64"})
_MIN_IMAGE, _MAX_IMAGE = 100, 100_000
_EXTENSIONS = ("jpg", "jpeg", "gif", "png")
_MAGIC = (b"\x89PNG", b"\xff\xd8", b"GIF8")

# Required fields; a missing one is answered with the code beside it.
_PAGE = ("pageurl", "ERROR_PAGEURL")
_REQUIRED: dict[str, tuple[tuple[str, str], ...]] = {
    "userrecaptcha": (("googlekey", "ERROR_GOOGLEKEY"), _PAGE),
    "turnstile": (("sitekey", "ERROR_BAD_PARAMETERS"), _PAGE),
    "geetest": (("gt", "ERROR_BAD_PARAMETERS"), ("challenge", "ERROR_BAD_PARAMETERS"), _PAGE),
    "geetest_v4": (("captcha_id", "ERROR_BAD_PARAMETERS"), _PAGE),
    "funcaptcha": (("publickey", "ERROR_BAD_PARAMETERS"), _PAGE),
    "keycaptcha": (_PAGE,),
    "capy": (_PAGE,),
    "lemin": (_PAGE,),
    "amazon_waf": (_PAGE,),
    "mt_captcha": (_PAGE,),
    "friendly_captcha": (_PAGE,),
    "cutcaptcha": (_PAGE,),
    "atb_captcha": (_PAGE,),
    "rotatecaptcha": (),
    "audio": (("body", "ERROR_BAD_PARAMETERS"),),
    "cloudflare_challenge": (_PAGE,),
    "bls": (),
}
# hcaptcha is in neither list: both providers refuse it today.
_ONLY_CAPTCHAAI = frozenset({"cloudflare_challenge", "bls"})


@dataclass(frozen=True)
class Upload:
    """A file of a multipart request."""

    name: str
    data: bytes


def required(method: str) -> tuple[str, ...]:
    """The fields that a method needs; KeyError for one that in.php does not know."""
    return ("body",) if method == "base64" else tuple(name for name, _unused in _REQUIRED[method])


def check(dialect: str, fields: Mapping[str, str], image: bytes | None, upload: Upload | None = None) -> str | None:
    """The error code for a request that in.php refuses, or None."""
    method = fields.get("method", "post")
    if method in IMAGE_METHODS:
        return _check_image(method, fields, image, upload)
    if method not in _REQUIRED or (dialect != "captchaai" and method in _ONLY_CAPTCHAAI):
        return "ERROR_METHOD_CALL"
    for name, code in _required(dialect, method, fields):
        if not fields.get(name):
            return code
    return None


def _required(dialect: str, method: str, fields: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    if dialect == "captchaai" and method == "geetest" and fields.get("version") == "4":
        return (("gt", "ERROR_BAD_PARAMETERS"), _PAGE)
    return _REQUIRED[method]


def _check_image(method: str, fields: Mapping[str, str], image: bytes | None, upload: Upload | None) -> str | None:
    if method == "post" and fields.get("textcaptcha"):
        return None
    if upload is not None and upload.name.rpartition(".")[2].lower() not in _EXTENSIONS:
        return "ERROR_WRONG_FILE_EXTENSION"
    if image is None:
        return "ERROR_UPLOAD"
    if len(image) < _MIN_IMAGE:
        return "ERROR_ZERO_CAPTCHA_FILESIZE"
    if len(image) > _MAX_IMAGE:
        return "ERROR_TOO_BIG_CAPTCHA_FILESIZE"
    return None if image.startswith(_MAGIC) else "ERROR_IMAGE_TYPE_NOT_SUPPORTED"
