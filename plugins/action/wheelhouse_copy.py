# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ask a host once which wheels it lacks, and bring those in one transfer."""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Sequence
from typing import Any

from ansible import constants
from ansible.plugins.action import ActionBase

from ansible_collections.solver.fleet.plugins.module_utils._files import sha256_file
from ansible_collections.solver.fleet.plugins.module_utils._wheelhouse_copy import travelling

MODULE = "solver.fleet.wheelhouse_copy"
# The host's own options are for it to read: a path there is nothing that the controller may expand.
OPTIONS = {"src": {"type": "path", "required": True}, "dest": {"type": "str", "required": True},
           "release": {"type": "str"}}


class ActionModule(ActionBase):  # type: ignore[misc]
    # A folder for what is on its way is made when something is.
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _unused, args = self.validate_argument_spec(OPTIONS)
        src = os.path.abspath(args["src"])
        try:
            files = travelling(os.listdir(src), args["release"])
            wheels = [{"file": file, "sha256": sha256_file(os.path.join(src, file))} for file in files]
        except OSError as error:
            return result | _failed("no_wheelhouse", f"reading '{src}': {error.strerror}; set src to a directory of "
                                                     "wheels on the controller")
        wanted = {**args, "wheels": wheels}
        asked: dict[str, Any] = self._execute_module(MODULE, wanted, task_vars=task_vars)
        if not asked.get("missing") or asked.get("failed") or self._task.check_mode:
            return result | asked
        try:
            wanted["bundle"] = self._bring(src, asked["missing"])
        except OSError as error:
            return result | _failed("unreadable", f"packing the wheels of '{src}': {error.strerror}; it needs room in "
                                                  f"{constants.DEFAULT_LOCAL_TMP} (local_tmp of Ansible)")
        placed: dict[str, Any] = self._execute_module(MODULE, wanted, task_vars=task_vars)
        return result | placed

    def _bring(self, src: str, files: Sequence[str]) -> str:
        """Return where the files are on the host, in one archive."""
        shell = self._connection._shell
        if shell.tmpdir is None:
            self._make_tmp_path()
        with tempfile.NamedTemporaryFile(dir=constants.DEFAULT_LOCAL_TMP, suffix=".tar") as packed:
            # A wheel is compressed already.
            with tarfile.open(fileobj=packed, mode="w") as archive:
                for file in files:
                    archive.add(os.path.join(src, file), arcname=file)
            packed.flush()
            remote = str(self._transfer_file(packed.name, shell.join_path(shell.tmpdir, "wheels.tar")))
        self._fixup_perms2((shell.tmpdir, remote))
        return remote


def _failed(code: str, message: str) -> dict[str, Any]:
    return {"failed": True, "msg": message, "failure": {"code": code, "message": message, "details": {}}}
