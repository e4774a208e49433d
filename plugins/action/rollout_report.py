# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Make the report of a verdict, from a document or from its file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail

from ansible_collections.solver.fleet.plugins.plugin_utils._controller._report_file import write_report
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._run import FleetAction
from ansible_collections.solver.fleet.plugins.plugin_utils._kept import kept_verdict

# Of a fleet of thousands.
MOST_BYTES = 64 << 20


class ActionModule(FleetAction):
    """Writes one file on the controller, and touches no worker."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = self.options(tmp, task_vars, document={"type": "dict"}, verdict_file={"type": "str", "default": ""},
                              report_file={"type": "str", "default": ""})
        given = self.args
        source, target = given["verdict_file"], given["report_file"]
        document = given["document"] or self._read(source)
        target = target or (f"{os.path.splitext(source)[0]}.html" if source and not given["document"] else "")
        if not target:
            raise AnsibleActionFail("making the report: where to? name a file with -e solver_report_file=...")
        if self._task.check_mode:
            return result | {"changed": True, "msg": f"The report would be {target}."}
        for wrong in write_report(target, document):
            raise AnsibleActionFail(f"making the report: {wrong}")
        return result | {"changed": True, "msg": f"The report is {target}."}

    def _read(self, source: str) -> dict[str, Any]:
        """Return the verdict in a file, or fail with what is wrong with it in one line."""
        path = Path(os.path.expandvars(source)).expanduser()
        try:
            with path.open("rb") as stream:
                raw = stream.read(MOST_BYTES)
            return kept_verdict(json.loads(raw))
        except OSError as error:
            why = error.strerror
        except (ValueError, RecursionError) as error:
            why = str(error) if "verdict" in str(error) else "it is no JSON document"
        raise AnsibleActionFail(f"making the report: reading {source} (solver_verdict_file): {why}")
