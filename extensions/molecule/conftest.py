# SPDX-License-Identifier: GPL-3.0-or-later
"""What the scenarios' looks at a worker share."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def own(host):
    return host.ansible.get_variables()


@pytest.fixture
def status(host, own):
    # The release's own program asks: a host need not have curl.
    program = f"{own['solver_base_dir']}/workers/{own['inventory_hostname']}/current/env/bin/solver-worker"
    done = host.run("%s status --socket %s --json", program, own["solver_control_socket"])
    assert done.rc == 0, done
    return json.loads(done.stdout)
