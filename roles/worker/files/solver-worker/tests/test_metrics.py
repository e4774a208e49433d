# SPDX-License-Identifier: GPL-3.0-or-later
"""GET /metrics: what the status document says, in a form that Prometheus reads."""

import re
import shutil
import subprocess
from typing import Any

import pytest
from harness import KEY, Worker, World, task
from metrics_kit import STATUS
from prometheus_client.parser import text_string_to_metric_families
from solver_worker import histogram, metrics


def samples(text: str) -> dict[str, float]:
    """Each sample by how it is written; a family or a sample that is there twice is refused by Prometheus."""
    families = [family.name for family in text_string_to_metric_families(text)]
    assert len(families) == len(set(families))
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    found = {name: float(value) for name, _unused, value in lines}
    assert len(found) == len(lines)
    return {name.removeprefix("solver_worker_"): value for name, value in found.items()}


def of(status: dict[str, Any]) -> dict[str, float]:
    return samples(metrics.text(status).decode())


async def scrape(worker: Worker, **headers: str) -> tuple[int, str, str]:
    async with worker.world.http.get(worker.url + "/metrics", headers=headers) as reply:
        return reply.status, reply.headers["Content-Type"], await reply.text()


def test_everything_that_the_status_knows_is_there() -> None:
    found = of(STATUS)
    assert found[r'info{release="1.2.0-\"odd\"\\\n",version="1.2.0",worker="w1"}'] == 1
    assert [name for name, value in found.items() if name.startswith("state{") and value] == ['state{state="drained"}']
    assert found["accepting"] == 0
    assert found["drain_owner_present"] == 1
    assert found["drain_lease_end_time_seconds"] == 1795455060
    assert found['open_tasks{state="polling"}'] == 2
    assert found["oldest_open_task_age_seconds"] == 41.2
    assert found["accepted_tasks_total"] == 100
    assert found['final_tasks_total{class="",outcome="succeeded"}'] == 84
    assert found['final_tasks_total{class="",outcome="uncertain"}'] == 1
    assert found['final_tasks_total{class="provider",outcome="failed"}'] == 5
    assert (found["provider_ok"], found["provider_balance"]) == (1, 12.34)


def test_the_books_balance_and_so_does_the_histogram() -> None:
    """Failures that an older release booked have no class; they are not lost."""
    found = of(STATUS)
    assert found["accepted_tasks_total"] == sum(
        value for name, value in found.items() if name.startswith(("final_tasks_total", "open_tasks"))
    )
    assert found['final_tasks_total{class="unknown",outcome="failed"}'] == 2
    buckets = {name: value for name, value in found.items() if name.startswith("solve_seconds_bucket")}
    assert len(buckets) == histogram.BUCKETS
    assert buckets['solve_seconds_bucket{le="0.1"}'] == 1
    assert buckets['solve_seconds_bucket{le="0.1562"}'] == 4
    assert buckets['solve_seconds_bucket{le="+Inf"}'] == 84


def test_what_is_not_known_is_left_out() -> None:
    status = {**STATUS, "drain": None, "provider": {"ok": None, "balance": None, "balance_at": None}}
    assert not [name for name in of(status) if re.match("provider_ok|provider_balance|drain_lease", name)]
    closed = {**status, **dict.fromkeys(("tasks", "totals", "failures", "solve_histogram", "provider"))}
    assert not [name for name in of(closed) if "task" in name or "solve_" in name]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_has_nothing_to_say() -> None:
    for status in (STATUS, {**STATUS, "drain": None, "tasks": None, "totals": None, "provider": None}):
        command = ["promtool", "check", "metrics"]
        done = subprocess.run(command, input=metrics.text(status), capture_output=True, timeout=30, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


async def test_a_worker_under_way_is_measured(world: World) -> None:
    world.sandbox("--solve", "default=0.1:0.2")
    worker = await world.worker().start()
    _unused, accepted = await worker.post("k1", task(1))
    await worker.final(accepted["id"])
    await worker.drain("operator", reason="s3cret reason")
    status, kind, text = await scrape(worker)
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    found = samples(text)
    assert found['final_tasks_total{class="",outcome="succeeded"}'] == 1
    assert found['solve_seconds_bucket{le="+Inf"}'] == 1
    assert found["provider_ok"] == 1
    assert found["drain_owner_present"] == 1
    for private in (KEY, "k1", "operator", "s3cret", "nonce", accepted["id"], str(worker.home)):
        assert private not in text


async def test_the_token_of_the_data_api_is_asked_for(world: World) -> None:
    token = world.home / "token"
    token.write_text("s3cret-token")
    worker = await world.worker(data={"token_file": str(token)}).start()
    for headers in ({}, {"Authorization": "Bearer another"}):
        status, _unused, text = await scrape(worker, **headers)
        assert (status, "solver_worker" in text) == (401, False)
    status, _unused, text = await scrape(worker, Authorization="Bearer s3cret-token")
    assert (status, "solver_worker_info" in text, "s3cret" in text) == (200, True, False)
