# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""What a release changes, shown once for all workers that change alike. Pure functions."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ansible_collections.solver.fleet.plugins.plugin_utils import _entry
from ansible_collections.solver.fleet.plugins.plugin_utils._names import in_order, listed

Json = dict[str, Any]

# So many different changes are shown; a fleet with more has one for each worker, and nobody reads them.
MOST = 10
# By these a worker's configuration differs from the others': its name, and what is made of it.
_OWN = re.compile(r'^(?:name|state_dir|socket|port) = "?([^"]+)"?$')


def alike(texts: Mapping[str, str], own: Mapping[str, Collection[str]]) -> list[list[str]]:
    """Return the names whose texts are the same but for what is each one's own, the largest group first."""
    groups: dict[str, list[str]] = {}
    for name in in_order(texts):
        groups.setdefault(_common(texts[name], own[name]), []).append(name)
    return sorted(groups.values(), key=lambda names: -len(names))


def _common(text: str, own: Collection[str]) -> str:
    """Return a text without what is its worker's own, the longest first: a path holds the name."""
    for value in sorted(filter(None, own), key=len, reverse=True):
        text = re.sub(rf"(?<![\w-]){re.escape(value)}(?![\w-])", "\0", text)
    return text


def changes(contents: Mapping[str, Mapping[str, Any]], wheels: Iterable[Mapping[str, Any]]) -> list[Json]:
    """Return diffs as Ansible shows them, of what each worker's host said of its releases.

    WHEELS is what a release that is not built yet would be made of.
    """
    coming = sorted(f"{wheel['name']} {wheel['version']}" for wheel in wheels)
    both = {name: (_text(own, "before", coming), _text(own, "after", coming)) for name, own in contents.items()}
    texts = {name: _diff(*both[name]) for name in both if both[name][0] != both[name][1]}
    groups = alike(texts, {name: _own(contents[name]) for name in texts})
    out: list[Json] = []
    for names in groups[:MOST]:
        before, after = both[names[0]]
        like = f", as {names[0]}" if len(names) > 1 else ""
        out.append({"before_header": f"{listed(names)} (current{like})", "after_header": f"{names[0]} (staged)",
                    "before": before, "after": after})
    rest = in_order(name for names in groups[MOST:] for name in names)
    return [*out, {"prepared": f"{listed(rest)}: other changes again\n"}] if rest else out


def changes_in(said: Mapping[str, Any], wheels: Iterable[Mapping[str, Any]], now: float) -> list[Json]:
    """Return the same of what worker_release answered for each worker; who said nothing that fits is left out."""
    contents = {name: _entry.contents(answer, now) for name, answer in said.items()}
    return changes({name: own for name, own in contents.items() if own}, wheels)


def _text(own: Mapping[str, Any], which: str, coming: list[str]) -> str:
    packages = own.get(f"packages_{which}")
    if packages is None:
        packages = coming if which == "after" else []
    return "\n".join([*(f"# package: {package}" for package in packages), *(own.get(which) or [])]) + "\n"


def _own(contents: Mapping[str, Any]) -> set[str]:
    return {match[1] for line in contents.get("after") or [] if (match := _OWN.match(line))}


def _diff(before: str, after: str) -> str:
    return "\n".join(difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm=""))
