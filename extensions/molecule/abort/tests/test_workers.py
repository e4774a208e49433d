# SPDX-License-Identifier: GPL-3.0-or-later
"""Each worker after the abort, seen from its host."""

from __future__ import annotations


def test_it_serves_what_it_served_before(status):
    assert (status["state"], status["drain"], status["instance"]["version"]) == ("running", None, "1.2.0")
