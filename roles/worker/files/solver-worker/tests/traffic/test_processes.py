# SPDX-License-Identifier: GPL-3.0-or-later
"""Traffic, sandbox and workers as processes, with the worst that can happen to each."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import ENVIRONMENT, House, free_port, healthy, until

SOLVES = ("--solve", "default=1:2", "--solve", "base64=0.3:0.6", "--seed", "7", "--submit-latency", "0.05")


def finish(process: "subprocess.Popen[str]") -> int:
    return process.wait(timeout=60)


def test_a_worker_that_keeps_tasks_in_memory_is_caught(house: House) -> None:
    provider = house.sandbox(*SOLVES)
    port = free_port()
    command = [sys.executable, str(Path(__file__).with_name("memory_worker.py")), "m1", str(port), provider]
    url = f"http://127.0.0.1:{port}"
    house.workers["m1"] = (command, url)
    worker = house.start(command, "m1.log")
    until(lambda: healthy(url), "the worker serves")
    traffic = house.traffic("--rate", "20", "--tasks", "60", "--timeout", "20", journals=False)
    until(lambda: house.accepted() >= 30, "30 tasks accepted")
    worker.kill()
    worker.wait()
    house.start(command, "m1.log")
    assert finish(traffic) == 1
    report = house.report()
    assert report["audit"]["lost"] > 0
    assert report["books"]["journals"] is False
    assert report["problems"]["lost"][0]["why"] == "read answered 404"
    counts = report["audit"]
    finals = ("answered", "failed", "expired", "uncertain", "lost", "wrong")
    assert counts["accepted"] == sum(counts[name] for name in finals)


def test_the_reference_worker_loses_nothing_over_stop_and_restart(house: House) -> None:
    provider = house.sandbox(*SOLVES)
    workers = {name: house.worker(name, provider) for name in ("w1", "w2")}
    traffic = house.traffic("--rate", "20", "--tasks", "100", "--lost-answers", "0.1", "--timeout", "40")
    for name, count in (("w1", 25), ("w2", 60)):
        until(lambda count=count: house.accepted() >= count, f"{count} tasks accepted")  # type: ignore[misc]
        workers[name].send_signal(signal.SIGTERM)
        workers[name].wait(timeout=20)
        workers[name] = house.worker(name, provider)
    code = finish(traffic)
    report = house.report()
    assert code == 0, report
    assert report["audit"]["answered"] == report["audit"]["accepted"] == 100
    assert report["client"]["cut_on_purpose"] > 0
    assert report["client"]["retries"] >= report["client"]["cut_on_purpose"]
    assert report["books"] == {"client": True, "journals": True, "ledger": True}
    assert 1 <= report["latency_s"]["p50"] <= report["latency_s"]["p99"] < 20


def test_a_killed_client_leaves_a_book_that_can_be_audited(house: House) -> None:
    provider = house.sandbox(*SOLVES)
    house.worker("w1", provider)
    traffic = house.traffic("--rate", "20", "--duration", "60")
    until(lambda: house.accepted() >= 10, "10 tasks accepted")
    traffic.kill()
    traffic.wait()
    report = _audit(house)
    assert "the client's book has no end: the client was killed" in report["warnings"]
    assert report["audit"]["accepted"] >= 10
    assert report["audit"]["lost"] == 0

    def settled() -> bool:
        return bool(_audit(house)["open"] == 0)

    # The worker goes on without its client; then the same books are green.
    until(settled, "every task is final")
    assert _audit(house)["ok"]


def _audit(house: House) -> dict[str, Any]:
    command = [sys.executable, "-m", "solver_worker.traffic", "audit", "--json"]
    command += ["--book", str(house.path / "book.jsonl"), "--ledger-file", str(house.path / "ledger.jsonl")]
    command += ["--journal", f"w1={house.path}/w1/journal.sqlite3"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=30, check=False)
    document: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if document["ok"] else 1)
    return document


def test_a_file_ends_the_submitting_and_nobody_serving_is_refused(house: House) -> None:
    house.workers["w1"] = ([], f"http://127.0.0.1:{free_port()}")
    stop = house.path / "stop"
    traffic = house.traffic("--rate", "10", "--until-file", str(stop), "--patience", "0.3", journals=False)
    book = house.path / "book.jsonl"
    until(lambda: book.exists() and '"event": "refused"' in book.read_text(), "a task is refused")
    stop.touch()
    assert finish(traffic) == 1
    report = house.report()
    assert report["audit"]["refused"] == report["client"]["tasks"] > 0
    assert report["audit"]["accepted"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--worker: name at least one, or give --workers-file"),
        (["--worker", "w1"], "--worker w1: expected NAME=VALUE"),
        (["--worker", "w1=ftp://x"], "--worker w1=ftp://x: expected http://HOST:PORT"),
        (["--worker", "w1=http://127.0.0.1:9"], "--duration, --tasks or --until-file: one of them"),
        (["--worker", "w1=http://127.0.0.1:9", "--tasks", "0"], "--tasks: must be 1 to"),
        (["--worker", "w1=http://127.0.0.1:9", "--tasks", "1", "--rate", "0"], "--rate: must be"),
        (["--worker", "w1=http://127.0.0.1:9", "--tasks", "1", "--mix", "x=1"], "--mix x=1: 'x' is not a method"),
        (["--worker", "w1=http://127.0.0.1:9", "--tasks", "1", "--mix", "bls=1"], "--mix bls=1: 'bls' has no field"),
        (["--workers-file", "/nonexistent/w"], "--workers-file: cannot read /nonexistent/w"),
    ],
)
def test_bad_options_are_named(tmp_path: Path, options: list[str], message: str) -> None:
    book = tmp_path / "book.jsonl"
    command = [sys.executable, "-m", "solver_worker.traffic", "run", "--book", str(book), *options]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, book.exists()) == (2, False)
    assert done.stderr.startswith(f"solver-worker traffic: {message}")


def test_an_old_book_is_never_overwritten(tmp_path: Path) -> None:
    book = tmp_path / "book.jsonl"
    book.write_text("precious\n")
    command = [sys.executable, "-m", "solver_worker.traffic", "run", "--book", str(book)]
    command += ["--worker", "w1=http://127.0.0.1:9", "--tasks", "1"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, book.read_text()) == (2, "precious\n")
    assert "exists; name a new file for this run" in done.stderr


def test_books_that_were_asked_for_and_are_missing_fail_the_audit(tmp_path: Path) -> None:
    book = tmp_path / "book.jsonl"
    book.write_text("")
    command = [sys.executable, "-m", "solver_worker.traffic", "audit", "--json", "--book", str(book)]
    command += ["--journal", f"w1={tmp_path}/none.sqlite3", "--ledger-file", str(tmp_path / "none")]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    warnings = json.loads(done.stdout)["warnings"]
    assert any(text.startswith("missing book: journal of w1") for text in warnings)
    assert any(text.startswith("missing book: ledger") for text in warnings)
