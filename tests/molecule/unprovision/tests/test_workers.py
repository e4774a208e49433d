# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is left, and what the third worker left behind."""

from __future__ import annotations


def test_the_third_is_gone_and_the_others_serve(host, name, request):
    service = host.service(f"solver-worker@{name}")
    with host.sudo():
        there = host.file(f"/opt/solver/workers/{name}").exists
    if name == "w3":
        assert not service.is_running
        assert not there
    else:
        assert there
        status = request.getfixturevalue("status")
        assert (status["state"], status["accepting"]) == ("running", True)
