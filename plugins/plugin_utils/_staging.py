# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""What staging a release asks of a worker's host. Pure functions of plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jinja2

from ansible_collections.solver.fleet.plugins.plugin_utils import _toml
from ansible_collections.solver.fleet.plugins.plugin_utils._program import given

Json = dict[str, Any]


class WrongVersionError(Exception):
    """The wheel says another version than solver_version; the text says what mends it."""


def release_wheel(wheels: Iterable[Mapping[str, Any]], package: str, version: str) -> Json:
    """Return the wheel of the release, as the module wheelhouse describes it; nothing where there is none.

    What arrives at a worker must be what the controller has. To pip v1.3.0 and 1.3 are 1.3.0, and no worker will ever
    say "v1.3.0"; a plan builds nothing, so nobody else would see it.
    """
    wheel = next((dict(one) for one in wheels if one["name"] == package), {})
    if wheel and wheel["version"] != version:
        raise WrongVersionError(f"solver_version is {version}, but the wheel that fits it is {wheel['file']}, of "
                                f"version {wheel['version']}; set solver_version to that")
    return wheel


def release_args(rollout: Mapping[str, Any], own: Mapping[str, Any], wheel: Mapping[str, Any], unit: str) -> Json:
    """Return the options of worker_release that stage the release of ROLLOUT beside what the worker runs.

    OWN are the worker's settings, UNIT is the template of its systemd unit.
    """
    settings = rollout["settings"]
    systemd = own["service"]["backend"] == "systemd"
    return given(
        state="staged", control_socket=own["control_socket"], worker_name=own["name"], worker_dir=own["worker_dir"],
        base_dir=own["base_dir"], package=rollout["package_on_worker"], version=settings["solver_version"] or None,
        sha256=settings["solver_package_sha256"] or wheel.get("sha256"), wheelhouse=own["wheelhouse"] or None,
        config=_toml.dumps(own["config"]), credentials=own["credentials"], run_as=own["user"] or None,
        unit={"name": f"{own['service']['name']}.service", "content": unit_text(unit, own)} if systemd else None,
        python=own["python"] or None, rollout_id=rollout["new_id"], keep=settings["solver_keep_releases"],
        deploy_timeout=int(settings["solver_deploy_timeout"]))


def unit_text(template: str, own: Mapping[str, Any]) -> str:
    """Return the unit of a worker, as the role gets it from the same template by a lookup."""
    # As Ansible does it: null is nothing, with which systemd begins a list anew.
    made = jinja2.Environment(  # noqa: S701  a unit is no HTML
        undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True,
        finalize=lambda value: "" if value is None else value)
    return made.from_string(template).render(
        worker_dir=own["worker_dir"], worker_standby=own["service"].get("standby") or {}, worker_user=own["user"],
        worker_credentials=own["credentials"], worker_unit=own["unit"])
