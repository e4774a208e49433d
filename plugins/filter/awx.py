# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This plugin file holds the filters of awx_configure.yml; each is documented in a file of its own.
"""Filters: thin names for the pure functions that decide."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.solver.fleet.plugins.plugin_utils import _awx
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._action import plain
from ansible_collections.solver.fleet.plugins.plugin_utils._regions import not_serving


def awx_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings, complete, and what is wrong with them."""
    settings, problems = _awx.settings(plain(given))
    return {"settings": settings, "problems": problems}


def awx_misfits(templates: Any, workflows: Any, schedules: Any) -> list[str]:
    """Say what points to what is not there."""
    return _awx.misfits(templates, workflows, schedules)


def awx_sent(items: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the objects without what was left empty; their texts stay what they are, templates or not."""
    return [_awx.sent(item) for item in items]


def awx_regions(awx: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of the objects follows from the regions."""
    return _awx.region_objects(plain(awx))


def awx_gate(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return whether the gate between two regions opens, and why not."""
    return _awx.gate(plain(given))


def awx_not_serving(document: Mapping[str, Any]) -> str:
    """Say who of a region does not serve."""
    return not_serving(document)


def collection_there(name: str) -> bool:
    """Say whether a collection can be used here."""
    try:
        return importlib.util.find_spec(f"ansible_collections.{name}") is not None
    except ModuleNotFoundError:
        return False


class FilterModule:
    """The filters that Ansible finds here."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"awx_settings": awx_settings, "awx_misfits": awx_misfits, "awx_sent": awx_sent,
                "awx_regions": awx_regions, "awx_gate": awx_gate, "awx_not_serving": awx_not_serving,
                "collection_there": collection_there}
