#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The host's part; the controller's part is the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: wheelhouse_copy
short_description: Bring wheels from the controller to a host
version_added: "1.0.0"
author:
  - solver.fleet contributors (@solver-fleet)
description:
  - Copies the wheels of a directory on the controller that the host does not have yet, by their digests, all in one
    transfer. When nothing is missing it is one remote call, whatever the number of wheels.
  - Each wheel is compared with the controller's digest on the host before it gets its name there, in one step.
  - Wheels that are on the host only are left alone, and what is no wheel is not brought.
options:
  src:
    description: The directory on the controller, as M(solver.fleet.wheelhouse) fills it.
    type: path
    required: true
  dest:
    description: The directory on the host. It is created if it does not exist.
    type: path
    required: true
  release:
    description:
      - Name of the file of one wheel. Wheels of the same package with another version stay behind.
      - Without it, all wheels are brought.
    type: str
  wheels:
    description: Which wheels there are. The action fills it in.
    type: list
    elements: dict
    default: []
    suboptions:
      file:
        description: Name of the file.
        type: str
        required: true
      sha256:
        description: Digest of the file.
        type: str
        required: true
  bundle:
    description: The missing wheels on their way to O(dest). The action fills it in.
    type: path
extends_documentation_fragment:
  - solver.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
  platform:
    support: full
    platforms: posix
  action:
    description: A part of it runs on the controller.
    support: full
seealso:
  - module: solver.fleet.wheelhouse
  - module: solver.fleet.worker_release
"""

EXAMPLES = r"""
- name: Bring the wheels of one release and all that it needs
  solver.fleet.wheelhouse_copy:
    src: /var/lib/solver/wheelhouse
    dest: /opt/solver/wheelhouse
    release: solver_worker-1.3.0-py3-none-any.whl
"""

RETURN = r"""
directory:
  description: The directory on the host, as an absolute path.
  type: str
  returned: success
missing:
  description: The files that the host did not have, or had with another content.
  type: list
  elements: str
  returned: success
  sample: ["solver_worker-1.3.0-py3-none-any.whl"]
failure:
  description: Why it failed.
  type: dict
  returned: failure
  contains:
    code:
      description: >-
        A stable name of the cause: V(no_wheelhouse), V(unreadable), V(damaged), V(unwritable) or V(no_space).
      type: str
    cause:
      description:
        - What it is blamed on, V(release), V(drain), V(host) or V(unknown).
        - Always V(unknown) with the code V(crashed), a fault of the collection itself, which any call can meet.
      type: str
    message:
      description: The cause, and the option that mends it.
      type: str
    details:
      description: More about it.
      type: dict
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.solver.fleet.plugins.module_utils._errors import Json
from ansible_collections.solver.fleet.plugins.module_utils._job import attempt, leave
from ansible_collections.solver.fleet.plugins.module_utils._wheelhouse_copy import missing_in, place


def bring(dest: str, digests: dict[str, str], bundle: str | None) -> Json:
    missing = missing_in(dest, digests)
    if bundle:
        place(bundle, dest, {file: digests[file] for file in missing})
    there = sorted(set(digests) - set(missing))
    return {
        "changed": bool(missing),
        "directory": dest,
        "missing": missing,
        "diff": {
            "before_header": dest,
            "after_header": dest,
            "before": "".join(f"{file}\n" for file in there),
            "after": "".join(f"{file}\n" for file in sorted(digests)),
        },
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "src": {"type": "path", "required": True},
            "dest": {"type": "path", "required": True},
            "release": {"type": "str"},
            "wheels": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "file": {"type": "str", "required": True},
                    "sha256": {"type": "str", "required": True},
                },
            },
            "bundle": {"type": "path"},
        },
        supports_check_mode=True,
    )
    given = module.params
    dest = os.path.abspath(given["dest"])
    digests = {wheel["file"]: wheel["sha256"] for wheel in given["wheels"]}
    leave(module, attempt(lambda: bring(dest, digests, None if module.check_mode else given["bundle"])))


if __name__ == "__main__":
    main()
