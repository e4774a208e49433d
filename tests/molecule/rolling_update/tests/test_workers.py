# SPDX-License-Identifier: GPL-3.0-or-later
"""Each worker behind the router, after the rollout."""

from __future__ import annotations


def test_it_serves_the_new_release(status):
    assert (status["state"], status["accepting"], status["instance"]["version"]) == ("running", True, "1.3.0")
    assert status["drain"] is None


def test_its_books_balance(status):
    totals = status["totals"]
    done = sum(totals[name] for name in ("succeeded", "failed", "uncertain", "expired"))
    assert totals["accepted"] == done + status["tasks"]["open"]
    assert totals["probes"] >= 1
