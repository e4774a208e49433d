# SPDX-License-Identifier: GPL-3.0-or-later
"""What the looks at a worker under systemd share."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def name(host):
    return host.ansible.get_variables()["inventory_hostname"]


@pytest.fixture
def status(host, name):
    program = f"/opt/solver/workers/{name}/current/env/bin/solver-worker"
    with host.sudo():
        done = host.run("%s status --socket %s --json", program, f"/run/solver/{name}/control.sock")
    assert done.rc == 0, done
    return json.loads(done.stdout)
