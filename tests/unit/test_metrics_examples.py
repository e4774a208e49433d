# SPDX-License-Identifier: GPL-3.0-or-later
"""The dashboard and the alert rules under docs/examples/metrics ask only for what a worker or a rollout really says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "examples" / "metrics"
WORKER = ROOT / "roles/worker/files/solver-worker"
sys.path[:0] = [str(ROOT / ".collections"), str(WORKER / "src"), str(WORKER / "tests")]

from ansible_collections.solver.fleet.plugins.plugin_utils import _metrics  # noqa: E402

TOOL = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
NAME = re.compile(r"\bsolver_(?:worker|rollout)_[a-z_]+")
LABELS = re.compile(r'(\bsolver_[a-z_]+)\{([^}]*)\}')
# What Prometheus itself adds.
TARGET = {"job", "instance"}


def told() -> str:
    """All that a worker and a rollout say."""
    from metrics_kit import STATUS
    from solver_worker import metrics
    rollout = {"verdict": "completed", "kind": "update", "strategy": "rolling", "rollout_id": "r", "target": "1.3.0",
               "started_at": "2026-11-23T23:25:09Z", "ended_at": "2026-11-23T23:26:41Z", "workers": []}
    return str(metrics.text(STATUS).decode()) + _metrics.metrics(rollout, 0.0, running=False)


def expressions() -> list[str]:
    dashboard = json.loads((EXAMPLES / "dashboard.json").read_text(encoding="utf-8"))
    rules = yaml.safe_load((EXAMPLES / "alerts.yml").read_text(encoding="utf-8"))
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    return found + [rule["expr"] for group in rules["groups"] for rule in group["rules"]]


@pytest.fixture(scope="module")
def samples() -> dict[str, list[dict[str, str]]]:
    """The labels of each sample, by its name."""
    out: dict[str, list[dict[str, str]]] = {}
    for line in told().splitlines():
        if not line.startswith("#"):
            name, _unused, rest = line.partition("{")
            labels = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', rest)
            out.setdefault(name.split(" ")[0], []).append(dict(labels))
    return out


@pytest.mark.parametrize("expression", expressions())
def test_every_name_and_label_is_one_that_is_written(samples: dict[str, list[dict[str, str]]], expression: str) -> None:
    names = NAME.findall(expression)
    assert names
    assert set(names) <= set(samples), expression
    for name, inside in LABELS.findall(expression):
        for label, sign, value in re.findall(r'(\w+)(=~?)"([^"]*)"', inside):
            if label not in TARGET:
                assert sign == "="
                assert value in {labels.get(label) for labels in samples[name]}, (name, label)
    grouped = {label.strip() for group in re.findall(r"\bby \(([^)]*)\)", expression) for label in group.split(",")}
    assert grouped <= TARGET | {label for name in names for labels in samples[name] for label in labels}, expression


def test_the_pages_list_every_name_that_is_written(samples: dict[str, list[dict[str, str]]]) -> None:
    for page, prefix in (("data-api.md", "solver_worker_"), ("verdict.md", "solver_rollout_")):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        part = text[text.index(f"name, after `{prefix}`"):].partition("\n\n")[0]
        listed = {name for line in part.splitlines()[2:] for name in re.findall("`([a-z_]+)`", line.split("|")[1])}
        assert {prefix + name for name in listed} == {
            re.sub("_bucket$", "", name) for name in samples if name.startswith(prefix)}


def test_the_dashboard_has_its_panels_side_by_side() -> None:
    dashboard = json.loads((EXAMPLES / "dashboard.json").read_text(encoding="utf-8"))
    places: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not own & places, panel["title"]
        assert max(x for x, _unused in own) < 24
        places |= own
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def promtool(*arguments: str) -> str:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@TOOL
def test_prometheus_takes_the_rules(tmp_path: Path) -> None:
    assert "3 rules found" in promtool("check", "rules", str(EXAMPLES / "alerts.yml"))
    # A dashboard's own expressions as rules, without the variables that Grafana fills in.
    rules = [{"record": f"r{number}", "expr": text.replace("$job", ".*")} for number, text in enumerate(expressions())]
    (tmp_path / "all.yml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    promtool("check", "rules", "--lint=none", str(tmp_path / "all.yml"))


@TOOL
def test_an_alert_fires_for_its_case_alone(tmp_path: Path) -> None:
    def series(name: str, instance: str, values: str, **labels: str) -> dict[str, str]:
        inside = "".join(f', {label}="{value}"' for label, value in labels.items())
        return {"series": f'solver_worker_{name}{{job="s", instance="{instance}"{inside}}}', "values": values}

    uncertain = {"outcome": "uncertain", "class": ""}
    given = [
        series("drain_owner_present", "w1", "1x90"), series("drain_lease_end_time_seconds", "w1", "60x90"),
        series("drain_owner_present", "w2", "1x90"), series("drain_lease_end_time_seconds", "w2", "900+60x90"),
        series("info", "w1", "1x90", version="1.2.0"), series("info", "w2", "1x30", version="1.2.0"),
        series("info", "w2", "_x30 1x60", version="1.3.0"),
        series("final_tasks_total", "w1", "3x90", **uncertain),
        series("final_tasks_total", "w2", "0x70 1x20", **uncertain)]

    def fires(alert: str, minute: int, *labels: dict[str, str]) -> dict[str, Any]:
        return {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": [
            {"exp_labels": {"severity": "warning", "job": "s", **own}} for own in labels]}

    cases = [
        fires("SolverWorkerDrainedTooLong", 5), fires("SolverWorkerDrainedTooLong", 15, {"instance": "w1"}),
        fires("SolverVersionsMixed", 80), fires("SolverVersionsMixed", 91, {}),
        fires("SolverTasksUncertain", 60), fires("SolverTasksUncertain", 75, {"instance": "w2"})]
    rules = yaml.safe_load((EXAMPLES / "alerts.yml").read_text(encoding="utf-8"))
    for rule in rules["groups"][0]["rules"]:
        rule.pop("annotations")  # words, which promtool would compare
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules))
    (tmp_path / "test.yml").write_text(yaml.safe_dump({
        "rule_files": ["rules.yml"], "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": given, "alert_rule_test": cases}]}))
    promtool("test", "rules", str(tmp_path / "test.yml"))
