# SPDX-License-Identifier: GPL-3.0-or-later
"""Of a status document what its metrics are made of, with something in every field."""

from typing import Any

from solver_worker import histogram

STATUS: dict[str, Any] = {
    "instance": {
        "name": "w1",
        "version": "1.2.0",
        "release": '1.2.0-"odd"\\\n',
        "started_at": "2026-11-23T17:00:00.000Z",
    },
    "state": "drained",
    "accepting": False,
    "drain": {"owner": "rollout-7f3c", "lease_expires_at": "2026-11-23T17:31:00.000Z"},
    "tasks": {"open": 3, "accepted": 0, "submitting": 1, "polling": 2, "unfetched": 4, "oldest_age_s": 41.2},
    "totals": {
        "accepted": 100,
        "succeeded": 84,
        "failed": 10,
        "uncertain": 1,
        "expired": 2,
        "probes": 7,
        "provider_submits": 107,
        "refused": 12,
    },
    "failures": {"worker": 1, "account": 0, "provider": 5, "task": 2, "network": 0},
    "solve_histogram": [1, 0, 3] + [0] * (histogram.BUCKETS - 4) + [80],
    "provider": {"ok": True, "balance": "12.34", "balance_at": "2026-11-23T17:30:00.000Z"},
}
