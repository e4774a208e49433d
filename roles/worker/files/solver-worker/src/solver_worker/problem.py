# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors as application/problem+json with a stable code."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from . import logs

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_CODES = {403: "forbidden", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}


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
        return response


@web.middleware
async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ProblemError as exc:
        return exc.response()
    except web.HTTPException as exc:
        response = ProblemError(exc.status, _CODES.get(exc.status, "http_error"), exc.reason).response()
        if "Allow" in exc.headers:
            response.headers["Allow"] = exc.headers["Allow"]
        return response
    except Exception as exc:  # noqa: BLE001 (the client gets an answer, the log the cause)
        logs.error("request failed", path=request.path, cause=f"{type(exc).__name__}: {exc}")
        detail = "the outcome is not known; repeat the request with the same key"
        return ProblemError(500, "internal", detail).response()


async def read_json(request: web.Request) -> Any:
    if request.content_type != "application/json":
        raise ProblemError(415, "not_json", "send the body as application/json")
    try:
        return json.loads(await request.text())
    except (ValueError, LookupError, RecursionError) as exc:
        raise ProblemError(400, "bad_json", "the body is not JSON in UTF-8", field="body") from exc


def wait_seconds(request: web.Request, default: float = 0.0) -> float:
    text = request.query.get("wait")
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 60:
        raise ProblemError(400, "bad_field", "wait must be a number of seconds from 0 to 60", field="wait")
    return value
