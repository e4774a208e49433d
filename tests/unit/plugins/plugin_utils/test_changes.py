# SPDX-License-Identifier: GPL-3.0-or-later
"""What a release changes is one diff for all workers that change alike."""

from __future__ import annotations

from typing import Any

from ansible_collections.solver.fleet.plugins.plugin_utils import _changes, _entry

CONFIG = """# version: {version}
[worker]
name = "{name}"
state_dir = "/var/lib/solver/{name}"

[control]
socket = "/run/solver/{name}/control.sock"

[data]
port = {port}

[provider]
api_key_file = "/etc/solver/{name}.key"
{more}# unit: solver-worker@{name}.service
ExecStart=/opt/solver/workers/{name}/current/run
"""
NEW = {"version": "1.3.0", "more": "poll_interval_s = 4\n"}


def config(name: str, **more: Any) -> list[str]:
    port = 8100 + int(name.strip("w"))
    return CONFIG.format(**{"name": name, "port": port, "version": "1.2.0", "more": "", **more}).splitlines()


def worker(name: str, **more: Any) -> dict[str, Any]:
    return {"before": config(name), "after": config(name, **NEW), "packages_before": ["aiohttp 3.10"],
            "packages_after": ["aiohttp 3.11"], **more}


def test_a_thousand_workers_that_change_alike_are_one_diff() -> None:
    one, = _changes.changes({f"w{number}": worker(f"w{number}") for number in range(1, 1001)}, [])
    assert one["before_header"] == "w1, w2, w3, w4, w5, w6, w7, w8, w9, w10 and 990 more (current, as w1)"
    assert one["after_header"] == "w1 (staged)"
    assert one["before"].splitlines()[:2] == ["# package: aiohttp 3.10", "# version: 1.2.0"]
    assert "poll_interval_s = 4\n" in one["after"]


def test_fresh_workers_are_alike_too() -> None:
    """All that they get is new, and each has its own name in it."""
    one, = _changes.changes({name: worker(name, before=[], packages_before=[]) for name in ("w2", "w10")}, [])
    assert one["before_header"] == "w2, w10 (current, as w2)"


def test_who_changes_in_another_way_is_shown_for_itself() -> None:
    other = worker("w2", after=config("w2", **{**NEW, "more": "poll_interval_s = 9\n"}))
    moved = worker("w4", after=config("w4", **{**NEW, "port": 9999}))
    shown = _changes.changes({"w1": worker("w1"), "w2": other, "w3": worker("w3"), "w4": moved}, [])
    assert [one["before_header"] for one in shown] == ["w1, w3 (current, as w1)", "w2 (current)", "w4 (current)"]
    assert "poll_interval_s = 9" in shown[1]["after"]


def test_who_changes_nothing_is_not_shown() -> None:
    same = worker("w1", after=config("w1"), packages_after=["aiohttp 3.10"])
    assert _changes.changes({"w1": same}, []) == []
    packages, = _changes.changes({"w1": {**same, "packages_after": ["aiohttp 3.11"]}}, [])
    assert packages["before"] != packages["after"]


def test_packages_that_are_not_there_yet_are_those_of_the_wheels() -> None:
    wheels = [{"name": "solver-worker", "version": "1.3.0"}, {"name": "aiohttp", "version": "3.12"}]
    one, = _changes.changes({"w1": worker("w1", packages_after=None)}, wheels)
    assert one["after"].startswith("# package: aiohttp 3.12\n# package: solver-worker 1.3.0\n# version")


def test_a_fleet_in_which_each_changes_by_itself_is_not_endless() -> None:
    fleet = {f"w{number}": worker(f"w{number}", after=[f"x = {number}"]) for number in range(1, 41)}
    shown = _changes.changes(fleet, [])
    assert len(shown) == _changes.MOST + 1
    assert shown[-1]["prepared"].startswith("w11, w12, ")
    assert " and 20 more: other changes again" in shown[-1]["prepared"]


def test_a_name_that_is_part_of_another_word_is_none() -> None:
    texts = {"a": "data a\n", "b": "data b\n", "t": "dt t\n"}
    assert _changes.alike(texts, {name: [name] for name in texts}) == [["a", "b"], ["t"]]


def test_what_a_host_says_is_taken_in_at_the_door() -> None:
    """It is shown on a terminal, so it may not move the cursor; what is no list of lines says nothing."""
    said = _entry.contents({"contents": {"before": ["ok", "\x1b[2Jgone", 5], "after": ["x"] * 6000,
                                         "packages_before": None}}, 0.0)
    assert said["before"] == ["ok", "\ufffdgone"]
    assert len(said["after"]) == 5000
    for wrong in (None, {}, {"contents": None}, {"failed": True, "msg": "no"}):
        assert _entry.contents(wrong, 0.0) == {}
    assert "before" not in _entry.contents({"contents": {"before": "text"}}, 0.0)
    assert _changes.changes({"w1": _entry.contents({"contents": {"before": ["a"], "after": ["a"]}}, 0.0)}, []) == []
