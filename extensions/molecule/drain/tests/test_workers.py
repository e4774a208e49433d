# SPDX-License-Identifier: GPL-3.0-or-later
"""Each worker while the first is drained, seen from its host."""

from __future__ import annotations


def test_the_first_is_drained_and_the_others_serve(own, status):
    if own["inventory_hostname"] == "w1":
        assert (status["state"], status["accepting"], status["tasks"]["open"]) == ("drained", False, 0)
        assert status["drain"]["owner"] == "molecule"
    else:
        assert (status["state"], status["accepting"], status["drain"]) == ("running", True, None)
