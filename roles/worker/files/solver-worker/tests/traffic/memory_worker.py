# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker as they usually are: everything in memory. The audit must see what it loses.

Arguments: NAME PORT PROVIDER_URL
"""

import asyncio
import contextlib
import sys
import uuid
from typing import Any

import aiohttp
from aiohttp import web

KEY = "k" * 32
tasks: dict[str, dict[str, Any]] = {}
by_key: dict[str, str] = {}
running: set[asyncio.Task[None]] = set()


async def solve(http: aiohttp.ClientSession, provider: str, task: dict[str, Any], body: dict[str, str]) -> None:
    async with http.post(f"{provider}/in.php", data={"key": KEY, "json": "1", **body}) as reply:
        captcha_id = (await reply.json())["request"]
    while True:
        params = {"key": KEY, "action": "get", "id": captcha_id, "json": "1"}
        async with http.get(f"{provider}/res.php", params=params) as reply:
            document = await reply.json()
        if document["request"] != "CAPCHA_NOT_READY":
            task["solution"] = document["request"]
            task["state"] = "succeeded" if document["status"] else "failed"
            task["done"].set()
            return
        await asyncio.sleep(0.1)


def shown(task: dict[str, Any]) -> dict[str, Any]:
    return {name: task.get(name) for name in ("id", "state", "solution")}


async def main(name: str, port: int, provider: str) -> None:
    async with aiohttp.ClientSession() as http:

        async def post(request: web.Request) -> web.Response:
            key = request.headers["Idempotency-Key"]
            if key in by_key:
                return web.json_response(shown(tasks[by_key[key]]))
            task = {"id": f"{name}-{uuid.uuid4().hex}", "state": "polling", "done": asyncio.Event()}
            tasks[task["id"]], by_key[key] = task, task["id"]
            solving = asyncio.create_task(solve(http, provider, task, await request.json()))
            running.add(solving)
            return web.json_response(shown(task), status=202)

        async def get(request: web.Request) -> web.Response:
            task = tasks.get(request.match_info["id"])
            if task is None:
                return web.json_response({}, status=404)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(task["done"].wait(), float(request.query.get("wait", "0")))
            return web.json_response(shown(task))

        async def delete(request: web.Request) -> web.Response:
            tasks.pop(request.match_info["id"], None)
            return web.Response(status=204)

        async def health(_unused: web.Request) -> web.Response:
            return web.Response()

        app = web.Application()
        app.add_routes([web.post("/v1/tasks", post), web.get("/healthz", health)])
        app.add_routes([web.get("/v1/tasks/{id}", get), web.delete("/v1/tasks/{id}", delete)])
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()


asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
