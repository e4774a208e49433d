# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""Writes the report of a rollout, whatever comes: nothing that goes wrong here changes what became of the rollout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.solver.fleet.plugins.plugin_utils import _report
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._action import write_whole

TEMPLATE = Path(_report.__file__).with_name("_report.html.j2")


def write_report(path: str, document: Mapping[str, Any]) -> list[str]:
    """Write the report of a verdict; return a line where that failed."""
    try:
        write_whole(path, _report.page(document, TEMPLATE.read_text(encoding="utf-8")))
    except OSError as error:
        return [f"there is no report: writing {path} (solver_report_file): {error.strerror or error}"]
    except Exception as error:  # noqa: BLE001  a mistake of ours must not cost anybody the verdict
        return [f"there is no report: our own code failed, please report it: {error!r}"]
    return []
