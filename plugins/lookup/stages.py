# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The stages of the plan that this run follows, for the C(hosts) and the C(serial) of the play that rolls."""

from __future__ import annotations

DOCUMENTATION = r"""
name: stages
author:
  - solver.fleet contributors (@solver-fleet)
version_added: "1.1.0"
short_description: Return the workers, or the sizes, of the stages of a rollout
description:
  - Reads them from the ledger of the run. Without a plan that is followed there is nobody.
  - This is internal to the playbooks of the collection, and may change in any release.
options:
  _terms:
    description: V(hosts) for the workers in order, V(sizes) for the number of workers in each stage.
    type: list
    elements: str
    required: true
  part:
    description: V(roll) for the rollout itself, V(back) for the way back after an abort.
    type: str
    choices: [roll, back]
    default: roll
"""

EXAMPLES = r"""
- name: Roll
  hosts: "{{ query('solver.fleet.stages', 'hosts') }}"
  serial: "{{ query('solver.fleet.stages', 'sizes') }}"
"""

RETURN = r"""
_list:
  description: The names, or the sizes.
  type: list
  elements: raw
"""

from typing import Any

from ansible import constants
from ansible.plugins.lookup import LookupBase

from ansible_collections.solver.fleet.plugins.plugin_utils._controller._ledger import Ledger
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._run import PLAN_OF

NOBODY = "localhost:!localhost"


class LookupModule(LookupBase):  # type: ignore[misc]
    """Runs in the controller's main process, before the play has hosts."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **options: Any) -> list[Any]:
        self.set_options(var_options=variables, direct=options)
        part = self.get_option("part")
        ledger = Ledger.under(constants.DEFAULT_LOCAL_TMP)
        # The state is begun when the lock is held: a plan alone is followed by nobody.
        stages = ledger.read(PLAN_OF[part]).get("stages", []) if ledger.exists() and ledger.read(part) else []
        if terms[0] == "sizes":
            return [len(stage["workers"]) for stage in stages if stage["workers"]] or [1]
        return [name for stage in stages for name in stage["workers"]] or [NOBODY]
