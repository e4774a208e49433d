# SPDX-License-Identifier: GPL-3.0-or-later
"""`solver-worker sandbox`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ipaddress
import json
import os
import signal
import sys
from decimal import Decimal, InvalidOperation
from pathlib import Path

from .faults import FaultError, Plan, parse
from .ledger import Ledger
from .limits import Limits
from .methods import DIALECTS
from .provider import DEFAULT_PRICE, DEFAULT_SOLVE, Provider, Settings
from .server import Sandbox

DESCRIPTION = "Run a CAPTCHA provider on loopback: same protocol, seeded solve times, scripted faults, a ledger."


class UsageError(Exception):
    """Names the option and the remedy."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--host",
        default="127.0.0.1",
        help="loopback address to bind (default %(default)s; others are refused)",
    )
    add("--port", type=int, default=0, help="0 picks a free one (default); the ready line says which")
    add("--dialect", choices=DIALECTS, default="captchaai", help="default %(default)s")
    add("--seed", type=int, default=0, help="of the solve times (default 0)")
    add(
        "--solve",
        action="append",
        default=[],
        metavar="METHOD=MIN:MAX",
        help="solve time of a method in seconds; METHOD 'default' is for all others; may be repeated",
    )
    add(
        "--price",
        action="append",
        default=[],
        metavar="METHOD=AMOUNT",
        help="price of one captcha; may be repeated",
    )
    add("--balance", default="100.00", help="money in the account at the start (default %(default)s)")
    add(
        "--submit-latency",
        type=float,
        default=0.0,
        metavar="S",
        help="time in.php takes after the id is created",
    )
    add("--threads", type=int, default=0, help="captchas in work at once; 0 is no limit (default)")
    add(
        "--enforce-limits",
        action="store_true",
        help="MAX_USER_TURN and ERROR: 1005 as the real account has them",
    )
    add("--faults", type=Path, metavar="FILE", help="JSON list of faults in force from the start")
    add(
        "--key-file",
        type=Path,
        metavar="FILE",
        help="the one key that is good (default: any of 32 characters)",
    )
    add("--ledger-file", type=Path, metavar="FILE", help="append every event of the ledger as a JSON line")
    add("--pid-file", type=Path, metavar="FILE", help="written when ready, removed at the end")


def run(args: argparse.Namespace) -> int:
    try:
        settings, plan = _settings(args), _plan(args.faults)
        host = _loopback(args.host)
        if not 0 <= args.port <= 65535:
            raise UsageError("--port: must be 0 to 65535")
        if not 0 <= args.submit_latency <= 60:
            raise UsageError("--submit-latency: must be 0 to 60 seconds")
    except UsageError as problem:
        print(f"solver-worker sandbox: {problem}", file=sys.stderr)
        return 2
    try:
        with contextlib.ExitStack() as stack:
            file = args.ledger_file
            book = stack.enter_context(file.open("a", encoding="utf-8")) if file else None
            sandbox = Sandbox(Provider(settings, Ledger(book)), plan, args.submit_latency)
            asyncio.run(_serve(sandbox, host, args.port, args.pid_file))
    except OSError as problem:
        print(f"solver-worker sandbox: {problem}", file=sys.stderr)
        return 1
    return 0


async def _serve(sandbox: Sandbox, host: str, port: int, pid_file: Path | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        url = await sandbox.start(host, port)
        if pid_file:
            pid_file.write_text(f"{os.getpid()}\n", encoding="ascii")
        print(json.dumps({"url": url, "pid": os.getpid()}), flush=True)
        await stop.wait()
    finally:
        await sandbox.stop()
        if pid_file:
            pid_file.unlink(missing_ok=True)


def _loopback(host: str) -> str:
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise UsageError(f"--host: {host!r} is not an address; use 127.0.0.1 or ::1") from None
    if not address.is_loopback:
        raise UsageError(f"--host: {host} is not a loopback address; the sandbox takes any task from anyone")
    return str(address)


def _settings(args: argparse.Namespace) -> Settings:
    if args.threads < 0:
        raise UsageError("--threads: must be 0 or more")
    return Settings(
        dialect=args.dialect,
        seed=args.seed,
        solve={**DEFAULT_SOLVE, **dict(_solve(text) for text in args.solve)},
        price={**DEFAULT_PRICE, **dict(_price(text) for text in args.price)},
        balance=_money("--balance", args.balance),
        key=_key(args.key_file),
        threads=args.threads,
        limits=Limits() if args.enforce_limits else None,
    )


def _solve(text: str) -> tuple[str, tuple[float, float]]:
    method, _unused, times = text.partition("=")
    low, _unused, high = times.partition(":")
    try:
        bounds = float(low), float(high or low)
    except ValueError:
        bounds = (1.0, 0.0)
    if not method or not 0 <= bounds[0] <= bounds[1] <= 3600:
        raise UsageError(f"--solve {text}: expected METHOD=MIN:MAX in seconds, for instance userrecaptcha=3:8")
    return method, bounds


def _price(text: str) -> tuple[str, Decimal]:
    method, _unused, amount = text.partition("=")
    return method, _money(f"--price {text}", amount)


def _money(option: str, text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or amount < 0:
        raise UsageError(f"{option}: expected an amount like 0.003")
    return amount


def _key(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(f"--key-file: cannot read {path}: {getattr(problem, 'strerror', 'not text')}") from None
    if not key:
        raise UsageError(f"--key-file: {path} is empty; put the key on its first line")
    return key


def _plan(path: Path | None) -> Plan:
    if path is None:
        return Plan()
    try:
        return Plan(parse(json.loads(path.read_text(encoding="utf-8"))))
    except OSError as problem:
        raise UsageError(f"--faults: cannot read {path}: {problem.strerror}") from None
    except FaultError as problem:
        raise UsageError(f"--faults {path}: {problem}") from None
    except ValueError as problem:
        raise UsageError(f"--faults: {path} is not JSON: {problem}") from None
