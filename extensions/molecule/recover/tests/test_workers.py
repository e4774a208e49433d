# SPDX-License-Identifier: GPL-3.0-or-later
"""Each worker after the recovery, seen from its host."""

from __future__ import annotations


def test_it_serves_and_nobody_drains_it(status):
    assert (status["state"], status["accepting"], status["drain"]) == ("running", True, None)
    assert status["instance"]["version"] == "1.2.0"
