#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: wheelhouse
short_description: Build a directory of wheels for hosts that reach no index
version_added: "1.0.0"
author:
  - solver.fleet contributors (@solver-fleet)
description:
  - Fills a directory with wheels, from requirements and from a Python project in a directory,
    so that M(solver.fleet.worker_release) on the hosts needs no package index.
  - It usually runs once, on the controller, delegated to V(localhost).
  - What is there already and was made from the same inputs is left alone, without calling pip. The file
    C(.wheelhouse.json) in the directory says what each wheel was made from.
  - A wheel gets its name in the directory only when it is complete.
options:
  path:
    description: The directory. It is created if it does not exist, and extended if it does.
    type: path
    required: true
  requirements:
    description:
      - Requirements to have in the directory, such as V(solver-worker==1.3.0).
      - One without a version is resolved once; to get a newer one name its version.
    type: list
    elements: str
    default: []
  source:
    description: Directory of a Python project to build a wheel from.
    type: path
  versions:
    description:
      - Build O(source) once for each of these versions, written into a copy of O(version_file).
      - Without it, the project is built once as it is.
    type: list
    elements: str
    default: []
  version_file:
    description: >-
      The file in O(source) whose line C(__version__ = "...") the project takes its version from.
    type: str
    default: src/solver_worker/_version.py
  overlays:
    description: >-
      For a version of O(versions), a directory whose files are laid over the copy of O(source) before it
      is built.
    type: dict
    default: {}
  dependencies:
    description:
      - Whether the dependencies shall be in the directory too.
      - They are chosen for the platform of O(python).
    type: bool
    default: true
  python:
    description:
      - The interpreter whose pip is used; it needs its C(venv) module, and gets a temporary environment if it
        has no pip.
      - By default the one that runs this module if it is new enough, else the newest in the search path.
    type: path
  index_url:
    description: The package index, instead of the one that pip is configured for.
    type: str
  extra_index_urls:
    description: Further package indexes.
    type: list
    elements: str
    default: []
  find_links:
    description: Directories or pages with further wheels.
    type: list
    elements: str
    default: []
  no_index:
    description: Use O(find_links) alone.
    type: bool
    default: false
  timeout:
    description: Seconds that everything may take, and seconds to wait for another run in the same directory.
    type: int
    default: 600
extends_documentation_fragment:
  - solver.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
  platform:
    support: full
    platforms: posix
notes:
  - Credentials in an index address are blanked in everything that this module returns. Better still, keep
    them in C(~/.netrc), where pip finds them.
seealso:
  - module: solver.fleet.worker_release
"""

EXAMPLES = r"""
- name: Build two releases of the worker and fetch what they depend on
  solver.fleet.wheelhouse:
    path: "{{ playbook_dir }}/../.local-fleet/wheelhouse"
    source: "{{ role_path }}/files/solver-worker"
    versions:
      - 1.2.0
      - 1.3.0
  delegate_to: localhost
  run_once: true

- name: Fetch a published release from an index of our own
  solver.fleet.wheelhouse:
    path: /var/lib/solver/wheelhouse
    requirements:
      - solver-worker==1.3.0
    index_url: https://packages.example.com/simple
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
directory:
  description: The directory, as an absolute path.
  type: str
  returned: success
wheels:
  description: The wheels of everything that was asked for.
  type: list
  elements: dict
  returned: success
  contains:
    file:
      description: Name of the file in RV(directory).
      type: str
    name:
      description: The package.
      type: str
    version:
      description: Its version.
      type: str
    sha256:
      description: Digest of the file.
      type: str
  sample:
    - file: solver_worker-1.3.0-py3-none-any.whl
      name: solver-worker
      version: 1.3.0
      sha256: 0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0
built:
  description: What was built or fetched this time.
  type: list
  elements: str
  returned: success
  sample: ["build:solver-worker@1.3.0"]
failure:
  description: Why it failed.
  type: dict
  returned: failure
  contains:
    code:
      description: >-
        A stable name of the cause, such as V(bad_version), V(no_source), V(pip_failed), V(version_mismatch),
        V(not_a_wheel), V(no_python), V(locked), V(timeout) or V(unwritable).
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
      description: More about it, such as RV(ignore:output), the end of what pip printed.
      type: dict
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.solver.fleet.plugins.module_utils._errors import Json
from ansible_collections.solver.fleet.plugins.module_utils._files import hide_credentials
from ansible_collections.solver.fleet.plugins.module_utils._job import attempt, leave
from ansible_collections.solver.fleet.plugins.module_utils._wheels import IndexOptions
from ansible_collections.solver.fleet.plugins.module_utils._wheelhouse_build import Wishes, furnish


def wishes_of(given: Json) -> Wishes:
    return Wishes(
        path=os.path.abspath(given["path"]),
        requirements=tuple(given["requirements"]),
        source=os.path.abspath(given["source"]) if given["source"] else None,
        versions=tuple(given["versions"]),
        version_file=given["version_file"],
        overlays={version: os.path.abspath(folder) for version, folder in given["overlays"].items()},
        dependencies=given["dependencies"],
        python=given["python"],
        where=IndexOptions(
            given["index_url"],
            tuple(given["extra_index_urls"]),
            tuple(given["find_links"]),
            given["no_index"],
        ),
        timeout=given["timeout"],
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "requirements": {"type": "list", "elements": "str", "default": []},
            "source": {"type": "path"},
            "versions": {"type": "list", "elements": "str", "default": []},
            "version_file": {"type": "str", "default": "src/solver_worker/_version.py"},
            "overlays": {"type": "dict", "default": {}},
            "dependencies": {"type": "bool", "default": True},
            "python": {"type": "path"},
            "index_url": {"type": "str"},
            "extra_index_urls": {"type": "list", "elements": "str", "default": []},
            "find_links": {"type": "list", "elements": "str", "default": []},
            "no_index": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    given = module.params
    hide_credentials(module.no_log_values.add, [given["index_url"], *given["extra_index_urls"], *given["find_links"]])
    leave(module, attempt(lambda: furnish(wishes_of(given), module.check_mode)))


if __name__ == "__main__":
    main()
