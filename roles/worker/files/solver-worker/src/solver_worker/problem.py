# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors as application/problem+json with a stable code, and bodies read within bounds."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from . import logs
from .errors import NotWrittenError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# A body that has not come by then will not.
BODY_S = 30.0
_CODES = {400: "bad_request", 403: "forbidden", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}


class ProblemError(Exception):
    def __init__(self, status: int, code: str, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.more = more

    def response(self) -> web.Response:
        document = {"code": self.code, "title": self.code.replace("_", " "), "status": self.status}
        document.update(detail=str(self), **self.more)
        response = web.json_response(document, status=self.status, content_type="application/problem+json")
        if "retry_after_s" in self.more:
            response.headers["Retry-After"] = str(self.more["retry_after_s"])
        if self.status in (401, 408) or self.code == "bad_request":
            # Who sends such things keeps no connection of ours.
            response.force_close()
        return response


def from_http(exc: web.HTTPException) -> web.Response:
    response = ProblemError(exc.status, _CODES.get(exc.status, "http_error"), exc.reason).response()
    if "Allow" in exc.headers:
        response.headers["Allow"] = exc.headers["Allow"]
    return response


@web.middleware
async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ProblemError as exc:
        return exc.response()
    except web.HTTPException as exc:
        return from_http(exc)
    except NotWrittenError as exc:
        detail = f"writing the journal: {exc}; nothing was changed"
        return ProblemError(503, "journal_unwritable", detail, retry_after_s=5).response()
    except Exception as exc:  # noqa: BLE001 (the client gets an answer, the log the cause)
        resource = request.match_info.route.resource
        cause = str(exc) if isinstance(exc, sqlite3.Error) else logs.cause_of(exc)
        logs.error("request failed", call=f"{request.method} {resource and resource.canonical}", cause=cause)
        detail = "the outcome is not known; repeat the request with the same key"
        return ProblemError(500, "internal", detail).response()


async def read_text(request: web.Request) -> str:
    """The body in UTF-8 and no other charset: some decoders of Python's take a minute for what fits into a body."""
    if request.content_type != "application/json" or (request.charset or "utf-8").lower() not in ("utf-8", "utf8"):
        raise ProblemError(415, "not_json", "send the body as application/json in UTF-8")
    try:
        async with asyncio.timeout(BODY_S):
            return (await request.read()).decode("utf-8")
    except TimeoutError as exc:
        raise ProblemError(408, "too_slow", f"the body did not come within {BODY_S:g} s") from exc
    except UnicodeDecodeError as exc:
        raise _not_json() from exc
    except (web.HTTPException, ConnectionError):
        raise
    except Exception as exc:  # a broken chunk; its text quotes what was sent
        raise ProblemError(400, "bad_request", "the body is broken off, or its framing is wrong") from exc


async def read_json(request: web.Request) -> Any:
    try:
        return json.loads(await read_text(request))
    except (ValueError, RecursionError) as exc:
        raise _not_json() from exc


def _not_json() -> ProblemError:
    return ProblemError(400, "bad_json", "the body is not JSON in UTF-8", field="body")


def wait_seconds(request: web.Request) -> float:
    text = request.query.get("wait")
    if text is None:
        return 0.0
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 60:
        raise ProblemError(400, "bad_field", "wait must be a number of seconds from 0 to 60", field="wait")
    return value
