# SPDX-License-Identifier: GPL-3.0-or-later
"""The worker with something bent, for a child process of a test; the product has no such hooks.

SF_VERSION=x        runs as another version
SF_SCHEMA=n         knows that many journal schemas, each adding a column and a table
SF_KILL=step:when   kills itself right before or after the commit of the first such step
SF_MIN_READER=n     with SF_SCHEMA: the last step demands such a reader
SF_TIDY=s           tidies its journal that often
SF_NO_SOCKETS=1     cannot pass its listening socket on
SF_NO_WAY_BACK=1    cannot come back from a take-over that failed
SF_DIE=place        kills itself at this place of a take-over
SF_CLOCK=s          sees a wall clock that is off by so many seconds
"""

import inspect
import os
import signal
import sys
import time
from types import SimpleNamespace

import solver_worker
from solver_worker import cli, clock, handover, lifecycle, schema, serve, succession
from solver_worker.journal import Journal


def bend_version(version: str) -> None:
    solver_worker.__version__ = version
    cli.__version__ = version


def bend_schema(newest: int, min_reader: int) -> None:
    for number in range(2, newest + 1):
        schema.STEPS.append(
            schema.Step(
                schema=number,
                min_reader=min_reader if number == newest else 1,
                statements=(
                    f"ALTER TABLE tasks ADD COLUMN extra_{number} TEXT NOT NULL DEFAULT 'new'",
                    f"CREATE TABLE added_{number} (id INTEGER PRIMARY KEY)",
                ),
            )
        )


def bend_commit(step: str, when: str) -> None:
    inside = []
    method, commit = getattr(Journal, step), Journal._commit

    def stepped(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        inside.append(step)
        try:
            return method(self, *args, **kwargs)
        finally:
            inside.pop()

    def dying(self) -> None:  # type: ignore[no-untyped-def]
        if inside and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        commit(self)
        if inside:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(Journal, step, stepped)
    Journal._commit = dying  # type: ignore[method-assign]


def bend_clock(seconds: float) -> None:
    clock.time = SimpleNamespace(  # type: ignore[assignment]
        time=lambda: time.time() + seconds, clock_gettime=time.clock_gettime
    )


def bend_sockets() -> None:
    def say(self, message, sockets=()):  # type: ignore[no-untyped-def]
        return False if sockets else whole(self, message)

    whole = handover.Line.say
    handover.Line.say = say  # type: ignore[method-assign]


def bend_take_over(place: str) -> None:
    """Kills this process at one place of a take-over; which side it is on, the test knows."""

    def die(*_args, **_kwargs):  # type: ignore[no-untyped-def]
        os.kill(os.getpid(), signal.SIGKILL)

    def dying(method):  # type: ignore[no-untyped-def]
        def before(*args, **kwargs):  # type: ignore[no-untyped-def]
            done = method(*args, **kwargs)
            return after(done) if inspect.isawaitable(done) else die()

        async def after(done):  # type: ignore[no-untyped-def]
            await done
            die()

        return before

    def said(self, message, sockets=()):  # type: ignore[no-untyped-def]
        return say(self, message, sockets) and ("within_s" in message and die())

    say = handover.Line.say
    where, name = {
        "asked": (succession.Ask, "read"),
        "quiet": (succession, "_give"),
        "left": (lifecycle.Worker, "leave"),
        "go": (succession.Successor, "_locks"),
        "opened": (lifecycle.Worker, "open"),
        "recovered": (lifecycle.Worker, "recover"),
        "replaced": (serve.Process, "replace_worker"),
        "served": (succession, "_linger"),
    }[place]
    if place == "asked":
        handover.Line.say = said  # type: ignore[method-assign]
    setattr(where, name, die if place in ("asked", "quiet", "go", "served") else dying(getattr(where, name)))


if __name__ == "__main__":
    if "SF_CLOCK" in os.environ:
        bend_clock(float(os.environ["SF_CLOCK"]))
    if "SF_TIDY" in os.environ:
        lifecycle.TIDY_EVERY_S = float(os.environ["SF_TIDY"])
    if "SF_VERSION" in os.environ:
        bend_version(os.environ["SF_VERSION"])
    if "SF_SCHEMA" in os.environ:
        bend_schema(int(os.environ["SF_SCHEMA"]), int(os.environ.get("SF_MIN_READER", "1")))
    if "SF_KILL" in os.environ:
        bend_commit(*os.environ["SF_KILL"].split(":"))
    if "SF_NO_SOCKETS" in os.environ:
        bend_sockets()
    if "SF_NO_WAY_BACK" in os.environ:
        serve.Process.regain_control = lambda _self: 1 / 0  # type: ignore[assignment, method-assign, return-value]
    if "SF_DIE" in os.environ:
        bend_take_over(os.environ["SF_DIE"])
    sys.exit(cli.main())
