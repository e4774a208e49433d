# SPDX-License-Identifier: GPL-3.0-or-later
"""solver.fleet.rollout: diffs of our own tasks are shown once for all hosts that change alike."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.callback import rollout

OURS = Path(rollout.__file__).resolve().parents[2] / "roles/worker/tasks/stage.yml"


class Shown(rollout.CallbackModule):  # type: ignore[misc]
    """A callback that writes into a list."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._display = SimpleNamespace(verbosity=0, display=lambda text, **_more: self.lines.append(text))


@pytest.fixture
def screen() -> Shown:
    return Shown()


def told(host: str, path: Path = OURS, run_once: bool = False, **result: Any) -> Any:
    task = SimpleNamespace(get_path=lambda: f"{path}:3", get_name=lambda: "worker : Make it", run_once=run_once,
                           loop=result.get("results"), _uuid="1")
    return SimpleNamespace(_task=task, _host=SimpleNamespace(name=host), _result=result, task=task, result=result)


def mode(path: str, **more: Any) -> dict[str, Any]:
    before, after = ({"path": path, "mode": bits} for bits in ("0755", "0750"))
    return {"changed": True, "diff": {"before": before, "after": after}, **more}


def test_hosts_that_change_alike_are_one_diff(screen: Shown) -> None:
    for host in ("w10", "w2", "w1"):
        screen.v2_on_file_diff(told(host, **mode(f"/opt/workers/{host}")))
    screen.v2_on_file_diff(told("w3", **mode("/elsewhere")))
    assert screen.lines == []
    screen._show_diffs()
    first, second = screen.lines
    assert first.startswith("Make it: w1, w2, w10\n--- before")
    assert '/opt/workers/w1"' in first
    assert second.startswith("Make it: w3\n")
    screen._show_diffs()
    assert len(screen.lines) == 2


def test_what_runs_once_says_itself_whose_it_is_and_what_did_not_change_is_not_shown(screen: Shown) -> None:
    text = {"before_header": "w1, w2", "before": "a\n", "after": "b\x1b[2J\n"}
    screen.v2_on_file_diff(told("w1", run_once=True, results=[
        {"changed": True, "diff": [text]}, mode("/x", changed=False)]))
    screen._show_diffs()
    line, = screen.lines
    assert line.startswith("Make it\n--- before: w1, w2\n")
    assert "/x" not in line
    assert "\x1b[2J" not in line


def test_a_play_of_ours_is_known_to_the_tasks_of_a_hook(screen: Shown) -> None:
    """The default callback asks the play how to name the task; without one Ansible warned of us at each hook."""
    play = SimpleNamespace(get_path=lambda: f"{OURS}:1", strategy="host_pinned")
    screen.v2_playbook_on_play_start(play)
    assert (screen._play, screen.lines) == (play, [])
