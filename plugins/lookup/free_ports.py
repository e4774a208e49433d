# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Free TCP ports on the controller's loopback."""

from __future__ import annotations

DOCUMENTATION = r"""
name: free_ports
short_description: Find free TCP ports on loopback
version_added: "1.0.0"
author:
  - solver.fleet contributors (@solver-fleet)
description:
  - Asks the kernel for TCP ports that nothing on the controller's loopback uses now.
  - Nothing reserves them; use them soon.
options:
  _terms:
    description: How many ports; one number.
    type: list
    elements: int
    required: true
"""

EXAMPLES = r"""
- name: Show five ports that are free now
  ansible.builtin.debug:
    msg: "{{ query('solver.fleet.free_ports', 5) }}"
"""

RETURN = r"""
_list:
  description: The ports.
  type: list
  elements: int
"""


import socket
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase


class LookupModule(LookupBase):  # type: ignore[misc]
    """All sockets stay open until all are bound, so that no port comes twice."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[int]:
        self.set_options(var_options=variables, direct=kwargs)
        try:
            count = int(terms[0])
        except (IndexError, TypeError, ValueError):
            raise AnsibleLookupError(f"free_ports takes one number, how many ports; it got {terms!r}") from None
        sockets = [socket.socket() for _unused in range(count)]
        try:
            for each in sockets:
                each.bind(("127.0.0.1", 0))
            return [each.getsockname()[1] for each in sockets]
        except OSError as error:
            raise AnsibleLookupError(f"finding {count} free ports on loopback: {error}") from error
        finally:
            for each in sockets:
                each.close()
