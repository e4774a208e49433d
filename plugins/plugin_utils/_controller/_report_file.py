# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""Writes what is made of a rollout for others: nothing that goes wrong here changes what became of the rollout."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.solver.fleet.plugins.plugin_utils import _metrics, _report
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._action import write_whole

TEMPLATE = Path(_report.__file__).with_name("_report.html.j2")


def write_report(path: str, document: Mapping[str, Any]) -> list[str]:
    """Write the report of a verdict; return a line where that failed."""
    return _write("there is no report", "solver_report_file", path,
                  lambda: _report.page(document, TEMPLATE.read_text(encoding="utf-8")))


def write_metrics(path: str, document: Callable[[], Mapping[str, Any]], *, running: bool) -> list[str]:
    """Write the metrics of a rollout; return a line where that failed."""
    return _write("there are no metrics", "solver_metrics_file", path,
                  lambda: _metrics.metrics(document(), time.time(), running=running))


def _write(missing: str, setting: str, path: str, make: Callable[[], str]) -> list[str]:
    try:
        write_whole(path, make())
    except OSError as error:
        return [f"{missing}: writing {path} ({setting}): {error.strerror or error}"]
    except Exception as error:  # noqa: BLE001  a mistake of ours must not cost anybody the verdict
        return [f"{missing}: our own code failed, please report it: {error!r}"]
    return []
