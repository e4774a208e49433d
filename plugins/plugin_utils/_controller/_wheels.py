# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""Ask a host once which wheels it lacks, and bring those in one transfer, by an action that has its connection."""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from ansible import constants
from ansible.plugins.action import ActionBase

from ansible_collections.solver.fleet.plugins.module_utils._files import sha256_file
from ansible_collections.solver.fleet.plugins.module_utils._wheelhouse_copy import travelling

Json = dict[str, Any]
MODULE = "solver.fleet.wheelhouse_copy"


def bring(action: ActionBase, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> Json:
    """Bring what the host lacks: from C(src) on the controller, to C(dest) on the host, for C(release) or for all."""
    src = os.path.abspath(options["src"])
    try:
        wheels = [{"file": file, "sha256": sha256_file(os.path.join(src, file))}
                  for file in travelling(os.listdir(src), options.get("release"))]
    except OSError as error:
        return _failed("no_wheelhouse", f"reading '{src}': {error.strerror}; set src to a directory of wheels on the "
                                        "controller")
    wanted = {**options, "wheels": wheels}
    asked: Json = action._execute_module(MODULE, wanted, task_vars=task_vars)
    if not asked.get("missing") or asked.get("failed") or action._task.check_mode:
        return asked
    try:
        wanted["bundle"] = _transfer(action, src, asked["missing"])
    except OSError as error:
        return _failed("unreadable", f"packing the wheels of '{src}': {error.strerror}; it needs room in "
                                     f"{constants.DEFAULT_LOCAL_TMP} (local_tmp of Ansible)")
    return dict(action._execute_module(MODULE, wanted, task_vars=task_vars))


def _transfer(action: ActionBase, src: str, files: Sequence[str]) -> str:
    """Return where the files are on the host, in one archive."""
    shell = action._connection._shell
    if shell.tmpdir is None:
        action._make_tmp_path()
    with tempfile.NamedTemporaryFile(dir=constants.DEFAULT_LOCAL_TMP, suffix=".tar") as packed:
        # A wheel is compressed already.
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for file in files:
                archive.add(os.path.join(src, file), arcname=file)
        packed.flush()
        remote = str(action._transfer_file(packed.name, shell.join_path(shell.tmpdir, "wheels.tar")))
    action._fixup_perms2((shell.tmpdir, remote))
    return remote


def _failed(code: str, message: str) -> Json:
    return {"failed": True, "msg": message, "failure": {"code": code, "message": message, "details": {}}}
