# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line. Exit codes: 0 ok, 1 failed, 2 usage or configuration, 75 lock held elsewhere."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import __version__, config, schema
from .errors import ConfigError, JournalRefusedError

OK, FAILED, USAGE = 0, 1, 2
WAIT_SLICE_S = 25.0


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = _parser(arguments[0] if arguments else "").parse_args(arguments)
    try:
        return int(args.run(args))
    except ConfigError as exc:
        print(f"solver-worker: {exc}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader is gone; without this the interpreter complains once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _parser(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="solver-worker",
        description="A CAPTCHA-solving worker that updates without losing a task.",
        epilog="Exit codes: 0 ok, 1 failed, 2 usage or configuration, 75 lock held by another.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_serve(commands)
    _add_check(commands)
    _add_status(commands)
    _add_drain(commands)
    _add_resume(commands)
    _add_probe(commands)
    for name, text in (("sandbox", "a provider on loopback for tests"), ("traffic", "load and audit")):
        sub = commands.add_parser(name, help=text, description=text)
        # Loaded only when asked for: a worker in production needs neither.
        if name == command:
            module = importlib.import_module(f"solver_worker.{name}.cli")
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    return parser


def _add_serve(commands: Any) -> None:
    sub = commands.add_parser("serve", help="run the worker", description="Run the worker until SIGTERM.")
    sub.add_argument("--config", required=True, type=Path, help="TOML file")
    sub.add_argument(
        "--standby",
        type=Path,
        metavar="ORDER",
        default=os.environ.get("SOLVER_STANDBY_ORDER"),
        help="if this file is there: be a standby as it says (control API); default: $SOLVER_STANDBY_ORDER",
    )
    sub.set_defaults(run=_serve)


def _serve(args: argparse.Namespace) -> int:
    from . import lifecycle, logs, serve, standby  # noqa: PLC0415 (other commands need no aiohttp)

    settings = config.load(args.config)
    key = config.api_key(settings, os.environ)
    token = config.data_token(settings)
    logs.configure(settings.log.level)
    release = config.release_id(args.config, __version__)
    worker = lifecycle.Worker(settings, __version__, release, key)
    order = standby.read_order(Path(args.standby), settings, worker.clock.boot()) if args.standby else None
    return serve.serve(worker, token, order)


# -- check


def _add_check(commands: Any) -> None:
    sub = commands.add_parser(
        "check",
        help="is this configuration complete?",
        description="Reads only: is this configuration complete, and could this release open its journal?",
    )
    sub.add_argument("--config", required=True, type=Path, help="TOML file")
    sub.add_argument("--journal", action="store_true", help="also look at the journal")
    sub.add_argument("--json", action="store_true", help="one JSON object on stdout")
    sub.set_defaults(run=_check)


def _check(args: argparse.Namespace) -> int:
    settings, problems = config.read(args.config)
    journal = None
    code = USAGE if problems else OK
    if settings is not None:
        problems = _unreadable(settings)
        code = USAGE if problems else OK
        if args.journal:
            try:
                journal = schema.describe(settings.journal_path)
            except (JournalRefusedError, OSError) as exc:
                problems.append(str(exc))
                code = code or FAILED
    _print_check(args, {"ok": not problems, "version": __version__, "problems": problems, "journal": journal})
    return code


def _unreadable(settings: config.Config) -> list[str]:
    """A key from the environment belongs to the service, which is not us: only files are looked at."""
    problems = []
    for path, name in (
        (settings.provider.api_key_file, "provider.api_key_file"),
        (settings.data.token_file, "data.token_file"),
    ):
        if path:
            try:
                config.read_secret(path, name)
            except ConfigError as exc:
                problems.append(str(exc))
    return problems


def _print_check(args: argparse.Namespace, result: dict[str, Any]) -> None:
    if args.json:
        print(json.dumps(result))
    elif result["ok"]:
        print(f"solver-worker {__version__}: {args.config} is complete")
    else:
        print("\n".join(result["problems"]), file=sys.stderr)


# -- the control socket


def _socket_argument(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--socket", required=True, help="the worker's control socket")


def _add_status(commands: Any) -> None:
    sub = commands.add_parser("status", help="ask a worker", description="Print the state of a worker.")
    _socket_argument(sub)
    sub.add_argument("--json", action="store_true", help="the whole status document")
    sub.add_argument("--wait", type=float, default=0.0, metavar="S", help="wait so long for a change")
    sub.add_argument("--until", default="", metavar="A,B", help="wait for one of these states")
    sub.set_defaults(run=_controlled(_status))


def _controlled(action: Any) -> Any:
    from .client import ControlError  # noqa: PLC0415

    def run(args: argparse.Namespace) -> int:
        try:
            return int(action(args))
        except ControlError as exc:
            print(f"solver-worker: {exc}", file=sys.stderr)
            return FAILED

    return run


def _ask_status(socket_path: str, wait: float, until: str) -> Any:
    from . import client  # noqa: PLC0415

    query = {"wait": f"{wait:g}", **({"until": until} if until else {})} if wait else None
    return client.checked(client.call(socket_path, "GET", "/v1/status", query=query, timeout=wait + 10))


def _await(socket_path: str, wait: float, until: str) -> Any:
    """Long polls in slices, so that a socket that vanishes is noticed."""
    ends = time.monotonic() + wait
    document = _ask_status(socket_path, min(wait, WAIT_SLICE_S), until)
    while until and document["state"] not in until.split(","):
        left = ends - time.monotonic()
        if left <= 0:
            break
        document = _ask_status(socket_path, min(left, WAIT_SLICE_S), until)
    return document


def _status(args: argparse.Namespace) -> int:
    document = _await(args.socket, max(args.wait, 0.0), args.until)
    _print_status(document, args.json)
    return OK if not args.until or document["state"] in args.until.split(",") else FAILED


def _print_status(document: Any, as_json: bool) -> None:
    if as_json:
        print(json.dumps(document))
        return
    instance, tasks, drain = document["instance"], document["tasks"], document["drain"]
    held = f", drained by {drain['owner']} until {drain['lease_expires_at']}" if drain else ""
    count = "unknown" if tasks is None else tasks["open"]
    print(f"{instance['name']} {instance['version']}: {document['state']}, {count} open{held}")


def _add_drain(commands: Any) -> None:
    sub = commands.add_parser("drain", help="take a worker out of service", description="Begin or renew a drain.")
    _socket_argument(sub)
    sub.add_argument("--owner", required=True, help="who drains; only this owner may renew or end it")
    sub.add_argument("--reason", help="for people")
    sub.add_argument("--mode", choices=("complete", "handover"))
    sub.add_argument("--grace", dest="grace_s", type=float, metavar="S", help="go on accepting for so long")
    sub.add_argument("--deadline", dest="deadline_s", type=float, metavar="S")
    sub.add_argument("--on-deadline", choices=("wait", "handover"))
    sub.add_argument("--lease", dest="lease_s", type=float, metavar="S", help="5 to 86400")
    sub.add_argument("--on-expire", choices=("resume", "verify", "hold"))
    sub.add_argument("--steal", action="store_true", default=None, help="take another's drain over")
    sub.add_argument("--wait", type=float, default=0.0, metavar="S", help="wait so long for drained")
    sub.add_argument("--json", action="store_true", help="the whole status document")
    sub.set_defaults(run=_controlled(_drain))


def _drain(args: argparse.Namespace) -> int:
    from . import client, drain  # noqa: PLC0415

    body = {name: getattr(args, name) for name in drain.FIELDS if getattr(args, name) is not None}
    document = client.checked(client.call(args.socket, "PUT", "/v1/drain", body=body))
    if args.wait > 0:
        document = _await(args.socket, args.wait, "drained")
    _print_status(document, args.json)
    return OK if args.wait <= 0 or document["state"] == "drained" else FAILED


def _add_resume(commands: Any) -> None:
    sub = commands.add_parser("resume", help="end a drain", description="End a drain: the worker serves again.")
    _socket_argument(sub)
    sub.add_argument("--owner", required=True)
    sub.add_argument("--steal", action="store_true", help="end another's drain")
    sub.set_defaults(run=_controlled(_resume))


def _resume(args: argparse.Namespace) -> int:
    from . import client  # noqa: PLC0415

    query = {"owner": args.owner, **({"steal": "true"} if args.steal else {})}
    document = client.checked(client.call(args.socket, "DELETE", "/v1/drain", query=query))
    print("was not draining" if document is None else document["state"])
    return OK


def _add_probe(commands: Any) -> None:
    sub = commands.add_parser("probe", help="solve one real task", description="Solve one real task; it is billed.")
    _socket_argument(sub)
    sub.add_argument("--request-id", default="", help="the same id is never billed twice; default: a new one")
    sub.add_argument("--task", help="JSON object with the fields of in.php; default: the shipped image")
    sub.add_argument("--expect", help="the solution that must come")
    sub.add_argument("--timeout", type=float, default=90.0, metavar="S")
    sub.add_argument("--json", action="store_true", help="the whole answer")
    sub.set_defaults(run=_controlled(_probe))


def _probe(args: argparse.Namespace) -> int:
    from . import client  # noqa: PLC0415

    body: dict[str, Any] = {"request_id": args.request_id or uuid.uuid4().hex, "timeout_s": args.timeout}
    if args.task is not None:
        try:
            body["task"] = json.loads(args.task)
        except ValueError as exc:
            raise ConfigError(f"--task is not JSON: {exc}") from exc
    if args.expect is not None:
        body["expect"] = args.expect
    answer = client.checked(client.call(args.socket, "POST", "/v1/probe", body=body, timeout=args.timeout + 10))
    if args.json:
        print(json.dumps(answer))
    else:
        error = answer["error"]
        print(answer["outcome"] + (f": {error['code']} ({error['class']}): {error['message']}" if error else ""))
    return OK if answer["outcome"] == "succeeded" else FAILED
