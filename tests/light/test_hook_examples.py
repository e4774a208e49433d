# SPDX-License-Identifier: GPL-3.0-or-later
"""The example hooks of the docs, against a small receiver: what each posts, and that none can hold a rollout up."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from fleetlib import ROOT
from lightfleet import LightFleet

EXAMPLES = ROOT / "docs" / "examples" / "hooks"
HOOKS = {point: str(EXAMPLES / f"{name}.yml") for point, name in {
    "before_rollout": "silence_alerts", "before_worker": "out_of_balancer", "after_worker": "into_balancer",
    "after_rollout": "tell_chat"}.items()}


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[tuple[str, str, Any]]]]:
    got: list[tuple[str, str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def _take(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.command, self.path, json.loads(body)))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_PUT = _take  # noqa: N815

        def log_message(self, *_args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    thread.join()
    server.server_close()


def variables(url: str) -> dict[str, Any]:
    return {"solver_hooks": HOOKS, "hook_alertmanager_url": url, "hook_webhook_url": f"{url}/hook/T0KEN",
            "hook_balancer_url": url}


def test_each_example_posts_what_the_docs_show(
    light_fleet: LightFleet, receiver: tuple[str, list[tuple[str, str, Any]]],
) -> None:
    url, got = receiver
    light_fleet.up(2)
    done = light_fleet.roll("1.3.0", **variables(url))
    assert done.returncode == 0, done.stdout
    # The next worker may begin while the last one is put back into the balancer.
    inner = sorted(got[1:-1], key=lambda one: one[1])
    assert [(verb, path) for verb, path, _body in (got[0], *inner, got[-1])] == [
        ("POST", "/api/v2/silences"),
        ("PUT", "/pools/solver/w1"), ("PUT", "/pools/solver/w1"), ("PUT", "/pools/solver/w2"),
        ("PUT", "/pools/solver/w2"), ("POST", "/hook/T0KEN")]
    bodies = [body for _verb, _path, body in (got[0], *inner, got[-1])]
    rollout = light_fleet.verdict()["rollout_id"]
    assert (bodies[0]["createdBy"], bodies[0]["comment"]) == (rollout, "update to 1.3.0")
    assert bodies[0]["startsAt"] < bodies[0]["endsAt"]
    assert [body["enabled"] for body in bodies[1:5]] == [False, True, False, True]
    assert bodies[5] == {"text": f"update to 1.3.0: completed, {rollout}"}
    assert "T0KEN" not in done.stdout


def test_a_receiver_that_never_answers_holds_nothing_up(light_fleet: LightFleet) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        light_fleet.up(2)
        only = {point: HOOKS[point] for point in ("before_rollout", "after_rollout")}
        done = light_fleet.roll("1.3.0", **variables(url) | {"solver_hooks": only, "hook_timeout": 1})
    assert done.returncode == 0, done.stdout
    assert light_fleet.verdict()["verdict"] == "completed"
    assert "The alerts of the fleet are not silenced" in done.stdout
    assert "The chat was not told" in done.stdout
    assert "T0KEN" not in done.stdout
