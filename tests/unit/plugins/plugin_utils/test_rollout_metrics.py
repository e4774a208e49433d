# SPDX-License-Identifier: GPL-3.0-or-later
"""The file that the node exporter reads of a rollout."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils import _metrics
from rollout_kit import fleet, plan

ROOT = Path(__file__).resolve().parents[4]
BEGAN = "2026-11-23T23:25:09Z"
ENDED = "2026-11-23T23:26:41Z"


def found(text: str) -> dict[str, float]:
    """Each sample by how it is written."""
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    assert len({name for name, _unused, _value in lines}) == len(lines)
    return {name.removeprefix("solver_rollout_"): float(value) for name, _unused, value in lines}


def document(**more):
    rows = [{"outcome": "updated", "from": "1.10.0"}, {"outcome": "already", "from": "1.3.0"},
            {"outcome": "reverted", "from": "1.2.0"}, {"outcome": "excluded", "from": None}]
    return {"verdict": "incomplete", "kind": "update", "strategy": "rolling", "rollout_id": "rollout-7f3c",
            "target": "1.3.0", "started_at": BEGAN, "ended_at": ENDED, "workers": rows, **more}


def test_a_verdict_as_numbers():
    samples = found(_metrics.metrics(document(), 0.0, running=False))
    assert samples["running"] == 0
    assert samples['info{rollout_id="rollout-7f3c",kind="update",strategy="rolling",from="1.2.0,1.3.0,1.10.0",'
                   'to="1.3.0"}'] == 1
    assert samples['workers{outcome="reverted"}'] == 1
    assert samples['workers{outcome="quarantined"}'] == 0
    assert sum(value for name, value in samples.items() if name.startswith("workers")) == 4
    assert (samples["at_target_workers"], samples["duration_seconds"]) == (2, 92)
    assert [name for name, value in samples.items() if name.startswith("last_verdict{") and value] == [
        'last_verdict{verdict="incomplete"}']
    assert samples["last_verdict_time_seconds"] == samples["start_time_seconds"] + 92


def test_a_run_under_way_is_interrupted_until_there_is_another_word():
    made = {**plan(fleet(3)), "started_at": BEGAN}
    roll = {"w1": {"outcome": "updated"}, "w2": {"outcome": "reverted", "cause": "release"}}
    began = found(_metrics.metrics(document(), 0.0, running=False))["start_time_seconds"]
    samples = found(_metrics.metrics(_metrics.under_way(made, roll, {}), began + 5.5, running=True))
    assert (samples["running"], samples['last_verdict{verdict="interrupted"}'], samples["duration_seconds"]) == (
        1, 1, 5.5)
    assert [samples[f'workers{{outcome="{word}"}}'] for word in ("updated", "reverted", "not_attempted")] == [1, 1, 1]
    back = found(_metrics.metrics(
        _metrics.under_way(made, roll, {"w1": {"outcome": "updated"}}), began, running=True))
    assert (back['workers{outcome="rolled_back"}'], back["at_target_workers"]) == (1, 0)


def test_no_text_of_a_worker_or_an_operator_breaks_a_line():
    text = _metrics.metrics(document(target='1.3"\\\n# x 1', strategy=None, rollout_id="\x1b[2J"), 0.0, running=False)
    line, = [line for line in text.splitlines() if line.startswith("solver_rollout_info")]
    assert r'to="1.3\"\\' in line
    assert line.endswith('"} 1')
    assert "\x1b" not in text
    assert 'strategy=""' in line


def test_the_words_are_those_of_the_verdict():
    schema = json.loads((ROOT / "docs/schemas/verdict-1.json").read_text("utf-8"))
    assert set(_metrics.VERDICTS) | {"planned", "refused"} == set(schema["properties"]["verdict"]["enum"])
    assert set(_metrics.OUTCOMES) == set(schema["$defs"]["worker"]["properties"]["outcome"]["enum"])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_has_nothing_to_say():
    text = _metrics.metrics(document(), 0.0, running=False)
    done = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True, timeout=30,
                          check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
