# SPDX-License-Identifier: GPL-3.0-or-later
"""What the pages under docs/ promise is checked against the code where a program can."""

from __future__ import annotations

import ast
import copy
import json
import re
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
sys.path.insert(0, str(ROOT / ".collections"))

from ansible_collections.solver.fleet.plugins.plugin_utils import (  # noqa: E402
    _converge,
    _gate,
    _kept,
    _plan,
    _settings,
    _settings_read,
    _settings_rules,
    _step,
    _verdict,
)

SCHEMA = json.loads((DOCS / "schemas" / "verdict-1.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
PAGES = sorted(path for path in [*DOCS.rglob("*.md"), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"])

RELEASE = {"id": "1.3.0-aaaaaaaa-bbbbbbbb", "version": "1.3.0"}
DRAINED = {"done": True, "open_at_drain": 19, "elapsed_s": 6.3}
FEATURES = [*_converge.MANDATORY, "handover"]
SWITCHED = {"switched": True, "restarted": True}
GOOD = {"drain": DRAINED, "switch": SWITCHED, "verify": {"done": True, "elapsed_s": 2.1}, "resume": {"done": True},
        "soak": {"done": True}}
FAILED = {"failed": True, "msg": "its service is restarting",
          "failure": {"code": "service_failed", "details": {"log": ["line 1", "line 2"]}}}
REVERTED = {"revert": {"switched": True}, "revert_verify": {"done": True, "elapsed_s": 0.1},
            "revert_resume": {"done": True, "elapsed_s": 0.0}}
STEPS = {
    "updated": GOOD,
    "failed": {"drain": {"failed": True, "gave_back": True, "msg": "2 tasks were still open"}},
    "reverted": {"drain": DRAINED, "switch": {**FAILED, "switched": True}, **REVERTED},
    "quarantined": {"drain": DRAINED, "switch": {**FAILED, "switched": True}, "revert": FAILED},
    "unreachable": {"drain": {"unreachable": True, "msg": "no route to host"}},
}


def plan_of(size: int, budget: float = 25.0, exclude: tuple[str, ...] = (), there: bool = False) -> dict[str, Any]:
    version, release = ("1.3.0", RELEASE["id"]) if there else ("1.2.0", "1.2.0-aaaaaaaa-bbbbbbbb")
    census = {"finding": "answering", "worker": {"state": "running", "drain": None, "api": {"features": FEATURES},
                                                 "instance": {"version": version, "release": release}}}
    fleet = {f"w{number}": {"census": census, "staged": {"release": RELEASE, "at_target": there}}
             for number in range(1, size + 1)}
    settings = {**{name: own.default for name, own in _settings.SETTINGS.items()}, "solver_exclude": list(exclude),
                "solver_version": "1.3.0", "window": 1, "surge": 1, "soaking": 1, "solver_max_fail_percentage": budget}
    run = {"kind": "update", "run_id": "run-1", "new_id": "rollout-1", "forks": 5, "dead_runs": [],
           "now": 1_795_500_000.0,
           "machines": dict.fromkeys(fleet, "m1"), "routers": {}}
    return _plan.make_plan(fleet, settings, run)


def verdict(plan: dict[str, Any], outcomes: dict[str, Any], **more: Any) -> dict[str, Any]:
    there = {"finding": "answering", "worker": {"state": "running", "drain": None, "instance": {
        "version": "1.3.0", "release": RELEASE["id"]}}}
    return _verdict.verdict(plan, outcomes, dict.fromkeys(plan["workers"], there), **more)


def defects(document: Any) -> list[str]:
    # Through JSON, because that is what is written.
    return [error.message for error in VALIDATOR.iter_errors(json.loads(json.dumps(document)))]


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(("outcome", "word"), [
    ("updated", "incomplete"), ("failed", "incomplete"), ("reverted", "incomplete"), ("quarantined", "incomplete"),
    ("unreachable", "incomplete")])
def test_a_verdict_with_each_outcome_fits_the_schema(outcome, word):
    plan = plan_of(4)
    made = _step.outcome(plan["workers"]["w1"], STEPS[outcome])
    assert made["outcome"] == outcome
    document = verdict(plan, {"w1": made})
    assert document["verdict"] == word
    assert defects(document) == []


def test_each_verdict_word_fits_the_schema():
    plan = plan_of(4)
    good = _step.outcome(plan["workers"]["w1"], GOOD)
    bad = _step.outcome(plan["workers"]["w1"], STEPS["reverted"])
    names = list(plan["workers"])
    documents = [
        verdict(plan, dict.fromkeys(names, good)),
        verdict(plan_of(4, there=True), {}),
        verdict(plan_of(4, exclude=("w1",)), {}),
        verdict(plan, {"w1": bad, "w2": bad}),
        verdict(plan, {"w1": {"outcome": "unknown", "cause": "unknown", "reason": "interrupted"}}),
        verdict(plan, {}, check_mode=True),
        verdict(plan, {"w1": good}, gate={"cause": "paused", "reason": "lunch"}),
        verdict(plan, {"w1": good}, gate={"cause": _gate.AWAITS, "reason": "solver_promote is manual"},
                judgement={"word": "promote", "reason": "as good"}),
        verdict(plan, {"w1": good}, gate={"cause": _gate.UNJUDGED, "reason": "too few tasks"}),
        verdict(plan, {"w1": {"outcome": "returned", "cause": "unknown", "reason": "the provider"}}),
        verdict(plan, {"w1": bad, "w2": bad, "w3": good}, backs={"w3": good}),
        verdict(plan, {"w1": bad, "w2": bad, "w3": good}, backs={"w3": bad}),
        _verdict.document("refused", {"target": ""}, reasons=["solver_version is not set"]),
        _verdict.document("refused", plan, reasons=["w1: it is not a wheel"]),
        _verdict.document("interrupted", plan),
    ]
    assert [defects(document) for document in documents] == [[]] * len(documents)
    words = {document["verdict"] for document in documents}
    assert words == set(SCHEMA["properties"]["verdict"]["enum"])


FIRST_VERSION = ("schema", "verdict", "kind", "rollout_id", "run_id", "target", "started_at", "ended_at", "reasons",
                 "warnings", "window", "budget_percent", "estimate_s", "waves", "settings", "workers")


def test_readers_of_the_first_version_go_on_working():
    """Who knows 1.0 finds all of it in what is written now, and what was written then still fits the schema."""
    plan = plan_of(4)
    document = verdict(plan, {"w1": _step.outcome(plan["workers"]["w1"], GOOD)})
    assert document["schema"] == "solver.verdict/1"
    assert tuple(SCHEMA["required"]) == FIRST_VERSION
    old = {name: document[name] for name in FIRST_VERSION}
    old["workers"] = [{name: own[name] for name in SCHEMA["$defs"]["worker"]["required"]} for own in old["workers"]]
    assert "steps" not in old["workers"][0]
    assert defects(old) == []
    assert _kept.kept_verdict(old)["workers"][0]["name"] == "w1"


@pytest.mark.parametrize("change", [
    {"verdict": "fine"}, {"schema": "solver.verdict/2"}, {"workers": []}, {"budget_percent": 101},
    {"waves": [["w1"], []]},
    {"rollout_id": None}, {"reasons": [1]}, {"audit": {"accepted": 1}}])
def test_the_schema_refuses_what_is_wrong(change):
    plan = plan_of(2)
    document = verdict(plan, {})
    assert defects({**document, **change}) != []


def test_a_completed_verdict_has_no_failed_worker():
    plan = plan_of(2)
    document = verdict(plan, dict.fromkeys(plan["workers"], _step.outcome(plan["workers"]["w1"], GOOD)))
    assert defects(document) == []
    broken = copy.deepcopy(document)
    broken["workers"][1].update(outcome="reverted", cause="release")
    assert defects(broken) != []


def test_the_page_of_the_verdict_names_every_field_and_word():
    text = (DOCS / "verdict.md").read_text(encoding="utf-8")
    worker = SCHEMA["$defs"]["worker"]["properties"]
    words = [*SCHEMA["properties"], *worker, *SCHEMA["properties"]["verdict"]["enum"], *worker["outcome"]["enum"]]
    assert [word for word in words if f"| `{word}` |" not in text] == []


NAMED = r"`([\w./-]+\.py)::(test_\w+)`"


@pytest.mark.parametrize(("page", "least"), [
    ("what-happens-when.md", 30), ("ansible-traps.md", 20), ("security.md", 20)])
def test_every_named_test_exists(page, least):
    """A row that promises a test which is gone is worse than no row."""
    named = re.findall(NAMED, (DOCS / page).read_text(encoding="utf-8"))
    assert len(named) >= least
    folders = (ROOT / "tests", ROOT / "roles/worker/files/solver-worker/tests")
    missing = []
    for file, test in named:
        found = [path for folder in folders for path in folder.rglob(Path(file).name) if str(path).endswith(f"/{file}")]
        if not any(test in _functions(path) for path in found):
            missing.append(f"{file}::{test}")
    assert missing == []


def test_the_traps_that_run_on_both_cores_are_those_that_are_marked():
    named = set(re.findall(r"\[both\] " + NAMED, (DOCS / "ansible-traps.md").read_text(encoding="utf-8")))
    files = [path for folder in ("integration", "faults", "light")
             for path in (ROOT / "tests" / folder).glob("test_*.py")]
    marked = {(path.name, test) for path in files for test in _traps(path)}
    assert named == marked


def _traps(path: Path) -> set[str]:
    """The tests with the mark, their own, their module's, or that of some of their parameters."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tests = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    whole = any(isinstance(node, ast.Assign) and "mark.trap" in ast.unparse(node) for node in tree.body)
    by_parameter = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node not in tests
                    and "mark.trap" in ast.unparse(node)}
    words = {"mark.trap", *(f"{name}(" for name in by_parameter)}
    return {node.name for node in tests
            if whole or any(word in ast.unparse(own) for own in node.decorator_list for word in words)}


def _functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


def test_the_inventory_of_the_guide_is_accepted():
    text = (DOCS / "rolling-update.md").read_text(encoding="utf-8")
    block = re.search(r"```yaml\n(solver_workers:.*?)```", text, re.DOTALL)
    assert block is not None
    group = yaml.safe_load(block.group(1))["solver_workers"]
    resolved = _settings_rules.resolve({name: {**group["vars"], **own, "solver_version": "1.3.0"}
                                        for name, own in group["hosts"].items()})
    assert resolved.errors == []
    assert resolved.warnings == []


@pytest.mark.parametrize("name", ["rolling-update.md"])
def test_the_numbers_of_the_guide_are_the_codes(name):
    text = (DOCS / name).read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (\d+)[^|]* \| (\d+) \| (\d+) \|$", text, re.MULTILINE)
    assert [[int(size), *(_settings_read.window_size(raw, int(size)) for raw in (None, "20%", "50%"))]
            for size, *_unused in rows] == [[int(cell) for cell in row] for row in rows]
    budgets = re.findall(r"^\| (\d+) \| (\d+) \| (\d+) \|$", text, re.MULTILINE)
    assert len(rows) >= 4
    assert [size for size, *_unused in budgets] == ["3", "4", "10"]
    assert all(_plan.tolerated(int(size), 25) == int(bears) == int(stops) - 1 for size, bears, stops in budgets)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    gone = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert gone == []
    settings = set(re.findall(r"\bsolver_[a-z][a-z_]*[a-z]\b", page.read_text(encoding="utf-8")))
    known = {*_settings.SETTINGS, *_settings.ROUTER, *_settings.LOCAL_FLEET, *_settings.AWX, *_settings.SECRETS,
             *_settings.INTERNAL, "solver_workers", "solver_worker", "solver_routers"}
    assert sorted(settings - known) == []


def test_the_pictures_of_the_readme_are_there_and_small() -> None:
    """`make pictures` makes them."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[[^\]]+\]\((docs/pictures/[a-z]+\.png)\)", text)
    assert sorted(shown) == [str(path.relative_to(ROOT)) for path in sorted((DOCS / "pictures").iterdir())]
    for path in shown:
        data = (ROOT / path).read_bytes()
        assert data.startswith(b"\x89PNG")
        assert len(data) < 200_000, path
