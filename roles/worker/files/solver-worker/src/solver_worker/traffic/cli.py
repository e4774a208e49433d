# SPDX-License-Identifier: GPL-3.0-or-later
"""`solver-worker traffic run | audit`."""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..sandbox import ledger as provider_ledger
from . import book as client_book
from . import journals
from .audit import audit, table
from .load import Load, Plan
from .tasks import check_mix, generate

DESCRIPTION = "Put steady load on workers, and audit the books of client, workers and provider."


class UsageError(Exception):
    """Names the option and the remedy."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="traffic_command", required=True, metavar="run | audit")
    run_parser = commands.add_parser("run", help="submit tasks, read the results, then audit")
    _add_run(run_parser)
    _add_books(run_parser)
    audit_parser = commands.add_parser("audit", help="audit the books of an earlier run again")
    _add_books(audit_parser)


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--worker",
        action="append",
        default=[],
        metavar="NAME=URL",
        help="a worker's data API; may be repeated",
    )
    add("--rate", type=float, default=5.0, help="tasks per second over all workers (default %(default)s)")
    add(
        "--clients",
        type=int,
        default=0,
        metavar="N",
        help="instead of a rate: N clients, each with one task at a time",
    )
    add(
        "--body-bytes",
        type=int,
        default=0,
        metavar="N",
        help="pad the images so that a submit has about so many bytes",
    )
    add("--duration", type=float, metavar="S", help="submit for so long")
    add("--tasks", type=int, metavar="N", help="submit so many")
    add("--until-file", type=Path, metavar="PATH", help="stop submitting once this file exists")
    add("--mix", default="userrecaptcha=0.8,base64=0.2", help="shares of the methods (default %(default)s)")
    add("--seed", type=int, default=0, help="of methods and lost answers (default 0)")
    add(
        "--lost-answers",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="cut so many submits before the answer",
    )
    add(
        "--patience",
        type=float,
        default=15.0,
        metavar="S",
        help="look so long for a worker that takes a task",
    )
    add(
        "--timeout",
        type=float,
        default=180.0,
        metavar="S",
        help="wait so long for one outcome, or one result",
    )
    add("--token-file", type=Path, metavar="FILE", help="bearer token of the data API")
    add("--progress", action="store_true", help="a line per second on stderr")


def _add_books(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--workers-file",
        type=Path,
        metavar="FILE",
        help='JSON: {NAME: URL}, or a list of {"name", "url", "journal"}',
    )
    add(
        "--book",
        type=Path,
        required=True,
        metavar="FILE",
        help="the client's book, JSON lines; run needs a new one",
    )
    add(
        "--journal",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="a worker's journal; may be repeated",
    )
    ledger = parser.add_mutually_exclusive_group()
    ledger.add_argument("--ledger-url", metavar="URL", help="the running sandbox")
    ledger.add_argument("--ledger-file", type=Path, metavar="FILE", help="what the sandbox wrote with --ledger-file")
    add("--report", type=Path, metavar="FILE", help="write the report there as JSON")
    add("--json", action="store_true", help="print the report as JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    try:
        named = _workers_file(args.workers_file)
        paths = {name: Path(one["journal"]) for name, one in named.items() if one.get("journal")}
        paths.update({name: Path(path) for name, path in _pairs("--journal", args.journal)})
        if args.traffic_command == "run":
            _run_load(args, {name: one["url"] for name, one in named.items() if one.get("url")})
        report = _audit(args, paths)
    except UsageError as problem:
        print(f"solver-worker traffic: {problem}", file=sys.stderr)
        return 2
    _publish(args, report)
    return 0 if report["ok"] else 1


# -- run -----------------------------------------------------------------------------------------


def _run_load(args: argparse.Namespace, workers: dict[str, str]) -> None:
    workers.update(_pairs("--worker", args.worker))
    plan = _plan(args, workers)
    mix = _mix(args.mix)
    try:
        file = args.book.open("x", encoding="utf-8")
    except FileExistsError:
        raise UsageError(f"--book: {args.book} exists; name a new file for this run") from None
    except OSError as problem:
        raise UsageError(f"--book: cannot write {args.book}: {problem.strerror}") from None
    with file:
        tasks = generate(secrets.token_hex(4), args.seed, mix, args.lost_answers, args.body_bytes)
        asyncio.run(_with_signals(plan, tasks, client_book.Book(file), args.progress))


async def _with_signals(plan: Plan, tasks: Any, book: client_book.Book, progress: bool) -> None:
    load = Load(plan, tasks, book)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, load.stop)
    await load.run(progress)


def _plan(args: argparse.Namespace, workers: Mapping[str, str]) -> Plan:
    for name, url in workers.items():
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or not parts.port:
            raise UsageError(f"--worker {name}={url}: expected http://HOST:PORT")
    if not workers:
        raise UsageError("--worker: name at least one, or give --workers-file")
    if args.duration is None and args.tasks is None and args.until_file is None:
        raise UsageError("--duration, --tasks or --until-file: one of them must say when to stop")
    _check_numbers(args)
    return Plan(
        workers={name: url.rstrip("/") for name, url in workers.items()},
        rate=args.rate,
        clients=args.clients,
        tasks=args.tasks,
        duration_s=args.duration,
        until_file=args.until_file,
        patience_s=args.patience,
        timeout_s=args.timeout,
        token=_token(args.token_file),
    )


def _check_numbers(args: argparse.Namespace) -> None:
    bounds = {"rate": (0.001, 10_000), "lost_answers": (0, 1), "patience": (0, 3600), "timeout": (1, 86_400)}
    bounds |= {"clients": (0, 10_000), "body_bytes": (0, 130_000)}
    bounds |= {"duration": (0, 86_400 * 30), "tasks": (1, 10_000_000)}
    for name, (low, high) in bounds.items():
        value = getattr(args, name)
        if value is not None and not low <= value <= high:
            raise UsageError(f"--{name.replace('_', '-')}: must be {low} to {high}")


def _token(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(f"--token-file: cannot read {path}: {getattr(problem, 'strerror', 'not text')}") from None
    if not token or not token.isprintable():
        raise UsageError(f"--token-file: {path} holds no token")
    return token


def _mix(text: str) -> dict[str, float]:
    try:
        mix = {name: float(share) for name, share in _pairs("--mix", text.split(","))}
        check_mix(mix)
    except ValueError as problem:
        raise UsageError(f"--mix {text}: {problem}") from None
    return mix


def _pairs(option: str, texts: list[str]) -> list[tuple[str, str]]:
    pairs = [text.partition("=") for text in texts]
    for name, sign, value in pairs:
        if not name or not sign or not value:
            raise UsageError(f"{option} {name}{sign}{value}: expected NAME=VALUE")
    return [(name, value) for name, _unused, value in pairs]


def _workers_file(path: Path | None) -> dict[str, dict[str, str]]:
    """{name: {"url": ..., "journal": ...}}"""
    if path is None:
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(document, dict):
            document = [{"name": name, "url": url} for name, url in document.items()]
        return {str(one["name"]): {key: str(value) for key, value in one.items()} for one in document}
    except OSError as problem:
        raise UsageError(f"--workers-file: cannot read {path}: {problem.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UsageError(f'--workers-file: {path}: expected {{NAME: URL}} or [{{"name", "url"}}]') from None


# -- audit ---------------------------------------------------------------------------------------


def _audit(args: argparse.Namespace, paths: Mapping[str, Path]) -> dict[str, Any]:
    try:
        with args.book.open(encoding="utf-8") as file:
            client = client_book.read(file)
    except OSError as problem:
        raise UsageError(f"--book: cannot read {args.book}: {problem.strerror}") from None
    missing: list[str] = []
    found = _journals(paths, missing)
    ledger = _ledger(args, missing)
    return audit(client, found, ledger, missing)


def _journals(paths: Mapping[str, Path], missing: list[str]) -> dict[str, journals.JournalBook]:
    found: dict[str, journals.JournalBook] = {}
    for name, path in sorted(paths.items()):
        try:
            found[name] = journals.read(path)
        except journals.JournalError as problem:
            missing.append(f"journal of {name}: {problem}")
    return found


def _ledger(args: argparse.Namespace, missing: list[str]) -> dict[str, Any] | None:
    try:
        if args.ledger_url:
            return _fetch_ledger(args.ledger_url)
        if args.ledger_file:
            return provider_ledger.read_file(args.ledger_file, time.time())
    except (OSError, ValueError, KeyError) as problem:
        missing.append(f"ledger: {problem}")
    return None


def _fetch_ledger(url: str) -> dict[str, Any]:
    if urlsplit(url).scheme != "http":
        raise UsageError(f"--ledger-url {url}: expected http://HOST:PORT of a sandbox")
    # No proxy: the sandbox is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url.rstrip("/").removesuffix("/__ledger") + "/__ledger", timeout=10) as reply:
        document: dict[str, Any] = json.load(reply)
    if document.get("schema") != provider_ledger.SCHEMA:
        raise ValueError(f"{url} is not a ledger of the sandbox")
    return document


def _publish(args: argparse.Namespace, report: Mapping[str, Any]) -> None:
    text = json.dumps(report, indent=1)
    if args.report:
        partial = args.report.with_name(args.report.name + ".partial")
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(args.report)
    print(text if args.json else table(report))
