# SPDX-License-Identifier: GPL-3.0-or-later
"""A plugin of pytest for tools/campaign.py: begin no further test when the time is used up."""

from __future__ import annotations

import time

import pytest

_BEGAN = time.monotonic()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--stop-after", type=float, default=0.0, help="seconds after which no further test begins")


class Stop:
    """Lives in the process that hands the tests out; where xdist does that, it reads no word of the session's."""

    def __init__(self, session: pytest.Session, seconds: float) -> None:
        self.runner = session.config.pluginmanager.getplugin("dsession") or session
        self.seconds = seconds

    def pytest_runtest_logfinish(self) -> None:
        if time.monotonic() - _BEGAN > self.seconds:
            self.runner.shouldstop = f"the {self.seconds:.0f} s of this share are used up"


def pytest_sessionstart(session: pytest.Session) -> None:
    seconds = session.config.getoption("--stop-after")
    if seconds and not hasattr(session.config, "workerinput"):
        session.config.pluginmanager.register(Stop(session, seconds))
