# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input ends with a message that names the setting, before anything is drained: no worker's seq rises."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def fleet(pool):
    # One fleet serves all cases, because none of them may change it.
    yield pool.get(2)
    pool.rest()


def not_a_wheel(folder):
    path = folder / "solver_worker-1.3.0-py3-none-any.whl"
    path.write_text("this is not a zip file", encoding="utf-8")
    return str(path)


def runs_once(folder):
    path = folder / "hook.yml"
    path.write_text("- block:\n    - ansible.builtin.ping:\n      run_once: true\n", encoding="utf-8")
    return {"before_worker": str(path)}


CASES = {
    "no version": ({}, "solver_version is not set; name the version to roll out"),
    "unknown version": ({"solver_version": "9.9.9"}, "holds solver-worker 1.2.0, 1.3.0"),
    "not a wheel": ({"solver_version": "1.3.0", "solver_package": not_a_wheel}, "[solver_version, solver_package"),
    "wrong digest": ({"solver_version": "1.3.0", "solver_package_sha256": "0" * 64}, "[solver_package_sha256"),
    "unknown key": ({"solver_version": "1.3.0", "solver_worker_config": {"provider": {"speed": 1}}},
                    "provider.speed is unknown"),
    "missing key": ({"solver_version": "1.3.0", "solver_worker_config": {"control": {"socket": ""}}},
                    "[solver_control_socket"),
    "unreadable key file": ({"solver_version": "1.3.0", "solver_api_key_file": "/nonexistent/key"},
                            "[solver_api_key_file"),
    "window of 0": ({"solver_version": "1.3.0", "solver_max_unavailable": 0}, "solver_max_unavailable is 0; at least"),
    "window above half": ({"solver_version": "1.3.0", "solver_max_unavailable": "51%"}, "use 50% or less"),
    "window not a number": ({"solver_version": "1.3.0", "solver_max_unavailable": "few"}, "it must be a number"),
    "misspelt setting": ({"solver_version": "1.3.0", "solver_drain_timout": 5}, "did you mean solver_drain_timeout?"),
    "hook at no point": ({"solver_version": "1.3.0", "solver_hooks": {"before_workers": "/x.yml"}},
                         "did you mean before_worker?"),
    "hook that is missing": ({"solver_version": "1.3.0", "solver_hooks": {"on_failure": "/nonexistent/hook.yml"}},
                             "solver_hooks.on_failure: /nonexistent/hook.yml cannot be read"),
    "hook that is no list": ({"solver_version": "1.3.0", "solver_hooks": {"on_failure": "/proc/self/comm"}},
                             "must hold a list of tasks"),
    "hook that runs once": ({"solver_version": "1.3.0", "solver_hooks": runs_once},
                            "has a task with run_once"),
    "long socket path": ({"solver_version": "1.3.0", "solver_control_socket": "/run/" + "x" * 103},
                         "solver_control_socket is 108 bytes long"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused_and_nothing_is_touched(fleet, case, tmp_path):
    variables, message = CASES[case]
    variables = {name: value(tmp_path) if callable(value) else value for name, value in variables.items()}
    before = {name: fleet.status(name)["seq"] for name in fleet.hosts()}
    done = fleet.playbook("rolling_update", **variables)
    assert done.returncode != 0, done.stdout
    assert message in " ".join(done.stdout.split()), done.stdout
    assert {name: fleet.status(name)["seq"] for name in fleet.hosts()} == before
    assert fleet.verdict()["verdict"] == "refused"
    assert set(fleet.versions().values()) == {"1.2.0"}


def test_a_release_that_cannot_start_is_refused_before_the_first_drain(fleet, fleet_folder):
    """The staged program is run before anything is switched."""
    from fleetlib import overlay

    folder = overlay(fleet_folder.with_suffix(".dead"), cli=(
        "from __future__ import annotations\n",
        "from __future__ import annotations\n\nimport a_module_that_is_not_there\n"))
    fleet.up(2, solver_local_fleet_versions=["1.2.0", "1.3.0", "1.5.0"],
             solver_local_fleet_overlays={"1.5.0": folder})
    before = {name: fleet.status(name)["seq"] for name in fleet.hosts()}
    done = fleet.roll("1.5.0")
    assert done.returncode != 0
    assert "a_module_that_is_not_there" in done.stdout
    assert "nothing was drained" in done.stdout
    assert {name: fleet.status(name)["seq"] for name in fleet.hosts()} == before


def test_an_empty_inventory_is_an_error_not_a_success(fleet, tmp_path):
    inventory = tmp_path / "empty.yml"
    inventory.write_text("other:\n  hosts:\n    x:\n", encoding="utf-8")
    # A limit skips the play of localhost that says so, and no other play has a host.
    for limit in ((), ("--limit", "x")):
        done = fleet.playbook("rolling_update", *limit, inventory=inventory, solver_version="1.3.0")
        assert done.returncode != 0, done.stdout
        assert "the inventory has no workers" in " ".join(done.stdout.split()).lower()
