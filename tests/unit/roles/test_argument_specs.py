# SPDX-License-Identifier: GPL-3.0-or-later
"""What a role says of an option agrees with its own defaults, and with the setting that the playbooks pass on to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.solver.fleet.plugins.plugin_utils._settings import LOCAL_FLEET, ROUTER, SETTINGS, Setting

ROLES = Path(__file__).parents[3] / "roles"
ALL = {**SETTINGS, **ROUTER, **LOCAL_FLEET}
# Where the setting of an option may stand.
PREFIXES = {"worker": ("solver_", "solver_worker_"), "router": ("solver_router_",),
            "local_fleet": ("solver_local_fleet_",)}
TYPES = {"text": "str", "path": "path", "choice": "str", "count": "int", "seconds": "float", "percent": "float",
         "flag": "bool", "names": "list", "mapping": "dict"}
# Options that no setting of their name stands behind.
OWN = {
    "worker_contents": "for --diff, which shows it once for all workers",
    "worker_credentials": "made of solver_api_key_file and solver_data_token_file",
    "worker_remove_journal": "remove.yml goes by solver_remove_everything",
    "worker_secrets": "made of solver_api_key and solver_data_token",
    "worker_start_timeout": "the playbooks pass solver_healthy_deadline on",
    "worker_state": "the playbook decides it: provision.yml or remove.yml",
    "worker_unit_dir": "systemd's own, not to be changed by a playbook",
    "router_config_file": "the playbooks keep the role's",
    "router_state": "the playbooks only put routers in front",
    "router_user": "the playbooks keep the role's",
    "router_workers": "made of the workers' addresses",
}
# Options whose default is another than their setting's.
OTHER_DEFAULT = {
    "worker_package": "the playbooks make it of solver_version",
    "worker_rollout_id": "who uses the role alone runs no rollout",
    "worker_user": "empty where another manager than systemd runs the worker",
    "worker_wheelhouse": "the setting is the controller's directory, this one the host's",
    "local_fleet_python": "a template, the interpreter that runs the playbook; a specification holds plain values",
}


def spec_of(role: str, entry: str = "main") -> dict[str, dict[str, Any]]:
    text = (ROLES / role / "meta/argument_specs.yml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text)["argument_specs"][entry]["options"])


def defaults_of(role: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROLES / role / "defaults/main.yml").read_text(encoding="utf-8")))


def setting_behind(role: str, option: str) -> Setting | None:
    rest = option.removeprefix(f"{role}_")
    return next((ALL[prefix + rest] for prefix in PREFIXES[role] if prefix + rest in ALL), None)


OPTIONS = [(role, option) for role in PREFIXES for option in spec_of(role)]
MIRRORS = [(role, option) for role, option in OPTIONS if setting_behind(role, option)]


def same(one: Any, other: Any) -> bool:
    """Whether both are the same plain value; true is not 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def test_every_option_has_a_setting_or_a_reason():
    assert sorted(option for role, option in OPTIONS if not setting_behind(role, option)) == sorted(OWN)
    assert set(OTHER_DEFAULT) <= {option for _role, option in MIRRORS}


@pytest.mark.parametrize(("role", "option"), MIRRORS)
def test_type_and_choices_are_those_of_the_setting(role, option):
    setting, spec = setting_behind(role, option), spec_of(role)[option]
    assert spec["type"] == TYPES[setting.kind]
    assert tuple(spec.get("choices", ())) == setting.choices
    assert spec.get("elements") == ("str" if setting.kind == "names" else None)


@pytest.mark.parametrize(("role", "option"), MIRRORS)
def test_the_default_is_that_of_the_setting(role, option):
    spec = spec_of(role)[option]
    if not spec.get("required"):
        agrees = same(spec.get("default"), setting_behind(role, option).default)
        assert agrees != (option in OTHER_DEFAULT), OTHER_DEFAULT.get(option)


@pytest.mark.parametrize("role", PREFIXES)
def test_the_defaults_are_those_of_the_specification(role):
    defaults, options = defaults_of(role), spec_of(role)
    assert sorted(defaults) == sorted(option for option, spec in options.items() if not spec.get("required"))
    assert [option for option, value in defaults.items()
            if "default" in options[option] and not same(value, options[option]["default"])] == []
    assert [option for option in defaults if "default" not in options[option]] == [
        option for option in defaults if option == "local_fleet_python"]


def test_both_ways_into_the_workers_role_say_the_same():
    whole, stage = spec_of("worker"), spec_of("worker", "stage")
    assert stage == {option: whole[option] for option in stage}
