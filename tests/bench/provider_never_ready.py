# SPDX-License-Identifier: GPL-3.0-or-later
"""A provider for the benchmark: gives ids after 150 ms and never has an answer, so tasks stay open."""

import asyncio
import itertools
import json

from aiohttp import web

SUBMIT_S = 0.15
ids = itertools.count(1_000_000)


async def submit(request: web.Request) -> web.Response:
    await request.read()
    await asyncio.sleep(SUBMIT_S)
    return web.Response(text=f"OK|{next(ids)}")


async def result(request: web.Request) -> web.Response:
    form = await request.post()
    return web.Response(text="1.00" if form.get("action") == "getbalance" else "CAPCHA_NOT_READY")


async def main() -> None:
    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/in.php", submit)
    app.router.add_post("/res.php", result)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(json.dumps({"url": f"http://127.0.0.1:{runner.addresses[0][1]}"}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
