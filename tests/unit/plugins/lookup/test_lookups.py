# SPDX-License-Identifier: GPL-3.0-or-later
"""Who a play is for: the fleet, or an error where a play would silently do nothing; and the stages of the plan."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible import constants, context
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.utils.context_objects import CLIArgs
from ansible_collections.solver.fleet.plugins.lookup import fleet, stages
from ansible_collections.solver.fleet.plugins.plugin_utils import _admit, _gate
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._ledger import Ledger

sys.path.insert(0, str(Path(__file__).parents[1] / "plugin_utils"))
import rollout_kit

GROUPS = {"all": ["w1", "w2", "r1"], "solver_workers": ["w1", "w2"], "solver_routers": ["r1"], "empty": []}


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Any:
    def look(
        kind: Any, *terms: Any, groups: Any = None, limit: str = "", options: Any = None, **words: Any,
    ) -> list[Any]:
        monkeypatch.setattr(context, "CLIARGS", CLIArgs(words))
        lookup = kind.LookupModule(loader=DataLoader(), templar=None)
        lookup._load_name = f"solver.fleet.{kind.__name__.rpartition('.')[2]}"
        made: list[Any] = []
        monkeypatch.setattr(lookup, "set_options", lambda **given: made.append(given["direct"]))
        default = {"limited": False, "part": "roll"}
        monkeypatch.setattr(lookup, "get_option", lambda name: {**default, **made[0]}[name])
        return list(lookup.run(list(terms), {"groups": groups or GROUPS, "ansible_limit": limit}, **(options or {})))

    return look


@pytest.mark.parametrize("blank", [(), ("",), (None,)])
def test_what_is_blank_is_the_group_of_the_workers(ask, blank):
    assert ask(fleet, *blank) == ["solver_workers"]


def test_another_pattern_is_that_one(ask):
    assert ask(fleet, "solver_workers:!w2") == ["solver_workers:!w2"]


@pytest.mark.parametrize(("pattern", "groups"), [("", {"all": ["x"]}), ("nobody", GROUPS), ("empty", GROUPS)])
def test_an_inventory_without_workers_is_an_error(ask, pattern, groups):
    with pytest.raises(AnsibleError, match=r"the inventory has no workers: nothing matches .*solver_hosts"):
        ask(fleet, pattern, groups=groups)


def test_a_limit_may_be_a_file_of_hosts(ask, tmp_path):
    (tmp_path / "site.retry").write_text("w2\nr1\n")
    assert ask(fleet, limit=f"@{tmp_path}/site.retry") == ["solver_workers"]
    (tmp_path / "site.retry").write_text("r1\n")
    with pytest.raises(AnsibleError, match="leaves no worker of the fleet"):
        ask(fleet, limit=f"@{tmp_path}/site.retry")


def test_a_limit_that_leaves_nobody_is_an_error(ask):
    with pytest.raises(AnsibleError, match="leaves no worker of the fleet"):
        ask(fleet, limit="r1")
    assert ask(fleet, limit="w2") == ["solver_workers"]
    assert ask(fleet, limit="w*:!w1") == ["solver_workers"]
    assert ask(fleet, limit="r1", options={"limited": True}) == ["solver_workers"], "the playbook is for routers too"


def test_a_run_that_leaves_out_its_beginning_is_an_error(ask):
    with pytest.raises(AnsibleError, match="--start-at-task leaves out"):
        ask(fleet, start_at_task="Give the verdict")


def test_a_check_of_the_syntax_needs_no_inventory(ask):
    assert ask(fleet, groups={"all": []}, syntax=True) == ["solver_workers"]


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))
    return Ledger.under(str(tmp_path))


def both(ask: Any, part: str) -> tuple[list[Any], list[Any]]:
    return ask(stages, "hosts", options={"part": part}), ask(stages, "sizes", options={"part": part})


NOBODY = (["localhost:!localhost"], [1])


def test_without_a_plan_that_is_followed_there_is_nobody(ask, ledger):
    assert both(ask, "roll") == NOBODY
    ledger.begin(os.getpid(), {}, {})
    ledger.keep("plan", rollout_kit.plan(rollout_kit.fleet(3)))
    assert both(ask, "roll") == NOBODY, "it was refused, or it is check mode: nobody holds the lock"
    assert both(ask, "back") == NOBODY


def test_the_stages_are_hosts_in_order_and_sizes(ask, ledger):
    made = rollout_kit.plan(rollout_kit.fleet(11), solver_stages=[1, "50%"])
    ledger.begin(os.getpid(), {}, {})
    ledger.keep("plan", made)
    ledger.keep("roll", _admit.begin(0.0))
    assert both(ask, "roll") == (made["order"], [1, 5, 5])
    assert both(ask, "back") == NOBODY
    back = _gate.back_plan(made, {"w1": {"outcome": "updated"}, "w2": {"outcome": "updated"}} | {
        name: {"outcome": "reverted", "cause": "release"} for name in ("w3", "w4", "w5")}, "budget", "rollback")
    ledger.keep("plan-back", back)
    ledger.keep("back", _admit.begin(0.0))
    assert both(ask, "back") == (["w2", "w1"], [2])


def test_a_plan_with_nothing_to_do_is_for_nobody(ask, ledger):
    ledger.begin(os.getpid(), {}, {})
    ledger.keep("plan", rollout_kit.plan({"w1": rollout_kit.updated()}))
    ledger.keep("roll", _admit.begin(0.0))
    assert both(ask, "roll") == NOBODY
