# SPDX-License-Identifier: GPL-3.0-or-later
"""What the scenarios' looks at a worker share."""

from __future__ import annotations

import contextlib
import json

import pytest


@pytest.fixture
def own(host):
    return host.ansible.get_variables()


@pytest.fixture
def status(host, own):
    # The release's own program asks: a host need not have curl.
    name = own["inventory_hostname"]
    program = f"{own.get('solver_base_dir', '/opt/solver')}/workers/{name}/current/env/bin/solver-worker"
    socket = own.get("solver_control_socket", f"/run/solver/{name}/control.sock")
    with host.sudo() if own.get("solver_become") else contextlib.nullcontext():
        done = host.run("%s status --socket %s --json", program, socket)
    assert done.rc == 0, done
    return json.loads(done.stdout)


@pytest.fixture
def name(own):
    return own["inventory_hostname"]
