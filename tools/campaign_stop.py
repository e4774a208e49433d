# SPDX-License-Identifier: GPL-3.0-or-later
"""A plugin of pytest for tools/campaign.py: begin no further test when the time is used up."""

from __future__ import annotations

import time

import pytest

_BEGAN = time.monotonic()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--stop-after", type=float, default=0.0, help="seconds after which no further test begins")


class Stop:
    """Lives in the process that hands the tests out."""

    def __init__(self, session: pytest.Session, seconds: float) -> None:
        self.session, self.seconds = session, seconds

    def pytest_runtest_logfinish(self) -> None:
        if time.monotonic() - _BEGAN > self.seconds:
            self.session.shouldstop = f"the {self.seconds:.0f} s of this share are used up"


def pytest_sessionstart(session: pytest.Session) -> None:
    seconds = session.config.getoption("--stop-after")
    if seconds and not hasattr(session.config, "workerinput"):
        session.config.pluginmanager.register(Stop(session, seconds))
