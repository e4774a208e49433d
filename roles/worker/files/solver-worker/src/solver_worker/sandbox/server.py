# SPDX-License-Identifier: GPL-3.0-or-later
"""The sandbox on the wire: aiohttp handlers around Provider, and the faults."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from .faults import Fault, FaultError, Plan, parse
from .ledger import Captcha
from .methods import Upload
from .provider import Provider, Reply, error

_MAX_BODY = 1 << 20
_GATEWAY_PAGE = "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"


class CutError(Exception):
    """The connection is to be cut without an answer."""


class Sandbox:
    """One provider on one port, which can also be away for a while."""

    def __init__(self, provider: Provider, plan: Plan, submit_latency: float = 0.0) -> None:
        self.provider = provider
        self.plan = plan
        self.submit_latency = submit_latency
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None
        self._host = "127.0.0.1"
        self._port = 0
        self._down: asyncio.Task[None] | None = None

    # -- life --------------------------------------------------------------------------------

    async def start(self, host: str, port: int) -> str:
        self._runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        self._host, self._port = host, port
        await self._listen()
        self._port = int(self._runner.addresses[0][1])
        for fault in [one for one in self.plan.faults if one.on is None]:
            self._go_down(fault)
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{self._port}"

    async def stop(self) -> None:
        if self._down is not None:
            self._down.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._down
        if self._runner is not None:
            await self._runner.cleanup()

    async def _listen(self) -> None:
        assert self._runner is not None
        self._site = web.TCPSite(self._runner, self._host, self._port, reuse_address=True)
        await self._site.start()

    def _go_down(self, fault: Fault) -> None:
        fault.fired = max(fault.fired, 1)
        if not self.is_down:
            self._down = asyncio.create_task(self._stay_down(fault.seconds))

    @property
    def is_down(self) -> bool:
        return self._down is not None and not self._down.done()

    async def _stay_down(self, seconds: float) -> None:
        """Close the port: a caller is refused, which is not the same as being cut off."""
        assert self._site is not None
        await self._site.stop()
        await asyncio.sleep(seconds)
        await self._listen()

    # -- routes ------------------------------------------------------------------------------

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=_MAX_BODY, middlewares=[self._cut])
        for path, handler in (("/in.php", self._in), ("/res.php", self._res)):
            app.router.add_get(path, handler)
            app.router.add_post(path, handler)
        app.router.add_get("/__health", self._health)
        app.router.add_get("/__ledger", self._ledger)
        app.router.add_get("/__faults", self._faults_get)
        app.router.add_post("/__faults", self._faults_post)
        app.router.add_delete("/__faults", self._faults_delete)
        return app

    @web.middleware
    async def _cut(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            if self.is_down:  # a kept-alive connection from before the port was closed
                raise CutError
            return await handler(request)
        except CutError:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)

    async def _health(self, _unused: web.Request) -> web.Response:
        return web.json_response({"ok": True})

    async def _ledger(self, _unused: web.Request) -> web.Response:
        return web.json_response(self.provider.document())

    async def _faults_get(self, _unused: web.Request) -> web.Response:
        return web.json_response([fault.document() for fault in self.plan.faults])

    async def _faults_post(self, request: web.Request) -> web.Response:
        try:
            added = parse(json.loads(await request.text()))
        except FaultError as problem:
            return web.json_response({"error": str(problem)}, status=400)
        except ValueError:
            return web.json_response({"error": "faults: the body is not JSON"}, status=400)
        self.plan.faults.extend(added)
        for fault in added:
            if fault.on is None:
                self._go_down(fault)
        return web.json_response([fault.document() for fault in self.plan.faults])

    async def _faults_delete(self, _unused: web.Request) -> web.Response:
        self.plan.faults.clear()
        return web.json_response([])

    async def _in(self, request: web.Request) -> web.StreamResponse:
        fields, upload = await _read(request)
        fault = self._pick("in", fields, lambda: self.provider.describe(fields, upload))
        before = self._before(fault, "in")
        if before is not None:
            return _answer(before, fields)
        reply, captcha = self.provider.submit(fields, upload)
        if captcha is not None:
            self._mark(fault, captcha)
        # The id exists from here on: whoever breaks off now has been billed.
        await asyncio.sleep(self.submit_latency)
        return await _after(fault, _answer(reply, fields))

    async def _res(self, request: web.Request) -> web.StreamResponse:
        fields, _unused = await _read(request)
        place = "balance" if fields.get("action") == "getbalance" else "res"
        captcha = self.provider.find(fields.get("id", ""))
        fault = self._pick(place, fields, lambda: _known(captcha))
        if captcha is not None:
            self._mark(fault, captcha)
        before = self._before(fault, place)
        if before is not None:
            return _answer(before, fields)
        return await _after(fault, _answer(self.provider.result(fields), fields))

    # -- faults ------------------------------------------------------------------------------

    def _pick(self, place: str, fields: dict[str, str], describe: Callable[[], dict[str, str]]) -> Fault | None:
        """A fault may also match on the nonce and the method, which a poll does not carry."""
        return self.plan.pick(place, {**describe(), **fields}) if self.plan.faults else None

    def _before(self, fault: Fault | None, place: str) -> Reply | None:
        """Faults that hit before any work; a reply if the fault is one."""
        if fault is None:
            return None
        if fault.fault == "down":
            self._go_down(fault)
            raise CutError
        if fault.fault == "drop_before":
            raise CutError
        if fault.fault == "html502":
            raise web.HTTPBadGateway(text=_GATEWAY_PAGE, content_type="text/html")
        if fault.fault == "no_balance":
            return Reply(True, "0", bare=True) if place == "balance" else error("ERROR_ZERO_BALANCE")
        if place == "in" and fault.fault == "ERROR_CAPTCHA_UNSOLVABLE":
            return None  # the id is given out; the polls will say it
        return error(fault.fault) if fault.fault.isupper() else None

    def _mark(self, fault: Fault | None, captcha: Captcha) -> None:
        if fault is not None and fault.fault == "forget":
            self.provider.forget(captcha)
        elif fault is not None and fault.fault == "ERROR_CAPTCHA_UNSOLVABLE":
            self.provider.give_up(captcha)


def _known(captcha: Captcha | None) -> dict[str, str]:
    return {"nonce": captcha.nonce, "method": captcha.method} if captcha else {}


async def _after(fault: Fault | None, response: web.Response) -> web.Response:
    if fault is not None and fault.fault == "drop":
        raise CutError
    if fault is not None and fault.fault == "slow":
        await asyncio.sleep(fault.seconds)
    return response


def _answer(reply: Reply, fields: dict[str, str]) -> web.Response:
    as_json = fields.get("json") == "1"
    return web.Response(
        text=reply.render(as_json),
        content_type="application/json" if as_json else "text/plain",
        headers={"Access-Control-Allow-Origin": "*"} if fields.get("header_acao") == "1" else None,
    )


async def _read(request: web.Request) -> tuple[dict[str, str], Upload | None]:
    """Fields from the query and the body (form or multipart); the body wins."""
    fields: dict[str, str] = dict(request.query)
    upload: Upload | None = None
    form: Any = await request.post() if request.method == "POST" else {}
    for name, value in form.items():
        if isinstance(value, web.FileField):
            upload = Upload(value.filename, value.file.read())
        else:
            fields[name] = value if isinstance(value, str) else bytes(value).decode(errors="replace")
    return fields, upload
