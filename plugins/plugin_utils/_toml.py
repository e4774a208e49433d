# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""Write the worker's configuration as TOML.

The standard library only reads TOML, and a library for this one flat document would be a dependency of every
controller; the whole of what is needed fits here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def dumps(sections: Mapping[str, Any]) -> str:
    """Return SECTIONS (a mapping of tables of plain values) as TOML, in a fixed order."""
    lines = ["# Written by solver.fleet; a change here is lost with the next release.", ""]
    lines += [f"{_key(key)} = {_value(key, value)}" for key, value in sections.items() if not _table(value)]
    for name, table in sections.items():
        if not _table(table):
            continue
        lines.append(f"[{_key(name)}]")
        lines += [f"{_key(key)} = {_value(f'{name}.{key}', value)}" for key, value in table.items()]
        lines.append("")
    return "\n".join(lines)


def _table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else _string(key)


def _string(text: str) -> str:
    # JSON's escapes are TOML's, but for the one control character that JSON leaves bare.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")


def _value(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, list):
        return "[" + ", ".join(_value(key, item) for item in value) + "]"
    raise ValueError(f"{key} is a {type(value).__name__}; a worker's setting is text, a number, true or false, "
                     "or a list of these (solver_worker_config)")
