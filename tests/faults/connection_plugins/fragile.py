# SPDX-License-Identifier: GPL-3.0-or-later
"""A local connection that a test can cut at any moment: a file named after the host means that it is gone."""

from __future__ import annotations

DOCUMENTATION = """
name: fragile
short_description: A local connection that can be cut
description: For the fault suite alone.
author: solver.fleet contributors
extends_documentation_fragment: [connection_pipelining]
options:
  cut_dir:
    description: Where the files lie.
    type: path
    env: [{name: SF_CUT_DIR}]
    required: true
  host:
    description: The inventory name.
    type: str
    vars: [{name: inventory_hostname}]
"""

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.local import Connection as LocalConnection


class Connection(LocalConnection):  # type: ignore[misc]
    """Fails every command while the host is cut off."""

    transport = "fragile"

    def _check(self) -> None:
        if Path(self.get_option("cut_dir"), f"{self.get_option('host')}.cut").exists():
            raise AnsibleConnectionFailure("the line is cut")

    def _connect(self) -> Any:
        self._check()
        return super()._connect()

    def exec_command(self, *args: Any, **kwargs: Any) -> Any:
        self._check()
        done = super().exec_command(*args, **kwargs)
        self._check()
        return done

    def put_file(self, *args: Any, **kwargs: Any) -> Any:
        self._check()
        return super().put_file(*args, **kwargs)
