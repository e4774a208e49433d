# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of the settings: each row is sound, and who may see a setting stands there alone."""

from __future__ import annotations

import re

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils._settings import (
    HOOKS,
    LOCAL_FLEET,
    ROUTER,
    SECRETS,
    SETTINGS,
    Setting,
    setting_of,
    shown_settings,
)
from ansible_collections.solver.fleet.plugins.plugin_utils._settings_read import read
from ansible_collections.solver.fleet.plugins.plugin_utils._settings_rules import resolve
from ansible_collections.solver.fleet.plugins.plugin_utils._verdict import settings_shown

ALL = {**SETTINGS, **ROUTER, **LOCAL_FLEET}


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_row_is_sound(name):
    setting = setting_of(name)
    if setting.default is not None:
        assert read(name, setting.default) == setting.default
    assert setting.doc.endswith(".")
    assert bool(setting.choices) == (setting.kind == "choice")


def test_a_name_stands_in_one_part_of_the_table():
    assert len(ALL) == len(SETTINGS) + len(ROUTER) + len(LOCAL_FLEET)
    assert not set(ALL) & set(SECRETS)


def test_the_texts_name_settings_that_exist():
    named = {word for setting in ALL.values() for word in re.findall(r"solver_[a-z_]+[a-z]", setting.doc)}
    assert named - set(ALL) - set(SECRETS) == set()


def test_the_verdict_holds_what_the_table_shows():
    resolved = resolve({"w1": {"solver_version": "1.3.0", "solver_reason": "night shift", "solver_stages": "1, 50%",
                               "solver_index_url": "https://ada:hunter2@index.example.net"}})
    document = settings_shown(resolved.settings)
    assert document["solver_reason"] == "night shift"
    assert document["solver_stages"] == [1, "50%"]
    assert list(document) == ["solver_version", *shown_settings()], "and what else was changed"
    assert "hunter2" not in str(document)
    assert "hunter2" not in str(resolved)


@pytest.mark.parametrize("name", [
    "solver_max_unavailable", "solver_window", "solver_stages", "solver_order", "solver_max_soaking",
    "solver_max_fail_percentage", "solver_on_abort", "solver_drain_mode", "solver_drain_timeout",
    "solver_on_drain_timeout", "solver_drain_lease", "solver_healthy_deadline", "solver_min_healthy_time",
    "solver_progress_deadline", "solver_reason", "solver_exclude", "solver_allow_partial"])
def test_what_decides_about_a_rollout_is_in_the_verdict(name):
    assert name in shown_settings()


@pytest.mark.parametrize("hidden", [{"secret": True}, {"per_worker": True}])
def test_the_verdict_cannot_show_a_secret_nor_one_workers_own(hidden):
    with pytest.raises(ValueError, match="none that may hold a password"):
        Setting("text", "", "Text.", shown=True, **hidden)


def test_the_points_of_the_hooks_are_in_the_text():
    assert ", ".join(HOOKS) in SETTINGS["solver_hooks"].doc
