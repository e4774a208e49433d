# SPDX-License-Identifier: GPL-3.0-or-later
"""What awx_configure.yml writes into AWX, against the options of the real modules, and what it refuses before that."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.solver.fleet.plugins.plugin_utils import _awx
from ansible_collections.solver.fleet.plugins.plugin_utils._settings import AWX, INTERNAL, SETTINGS
from ansible_collections.solver.fleet.plugins.plugin_utils._settings_read import read
from awxlib import MODULES, Written, configure, leads, of, stand_in

pytestmark = pytest.mark.programs

ROOT = Path(__file__).resolve().parents[2]
URL = "https://git.example.com/fleet.git"
GIVEN = {"solver_awx_project_url": URL, "solver_awx_image": "registry.example.com/ee:1", "solver_awx_report_dir": "/r",
         "solver_awx_names": {"update": "Captcha | roll"}}
REGIONS = {"solver_awx_regions": ["solver_eu", "solver_us", "solver_ap"], "solver_awx_regions_at_once": 2,
           "solver_awx_regions_budget": 1, "solver_awx_instance_groups": {"solver_us": "us"}}


@pytest.fixture(scope="module")
def awx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A stand-in of the collection, and one that answers the ping."""
    with stand_in(tmp_path_factory.mktemp("awx")) as there:
        yield there


@pytest.fixture(scope="module", params=[{}, REGIONS], ids=["one fleet", "regions"])
def written(awx: dict[str, Any], request: pytest.FixtureRequest) -> Written:
    done, notes = configure(awx, {**GIVEN, "solver_awx_collection": "ansible.controller", **request.param})
    assert done.returncode == 0, done.stdout + done.stderr
    return notes


def has_regions(written: Written) -> bool:
    return of(written, "workflow_job_template")["Solver | region by region"]["state"] == "present"


def spec_of(options: dict[str, Any]) -> dict[str, Any]:
    return {name: {**{key: value for key, value in own.items() if key != "options"},
                   **({"options": spec_of(own["options"])} if "options" in own else {})}
            for name, own in options.items()}


def test_every_object_fits_the_options_of_its_module(written):
    assert {name for name, _args in written} == set(MODULES)
    wrong = {f"{module} {args['name']}": found.error_messages for module, args in written
             if (found := ArgumentSpecValidator(spec_of(MODULES[module])).validate(args)).error_messages}
    assert wrong == {}


def test_what_the_validator_would_find(written):
    template = {**next(iter(of(written, "job_template").values())), "job_type": "dry", "slices": 1}
    errors = ArgumentSpecValidator(spec_of(MODULES["job_template"])).validate(template).error_messages
    assert len(errors) == 2, errors


def test_objects_are_written_before_those_that_name_them(written):
    order = list(dict.fromkeys(module for module, _args in written))
    assert order == ["credential_type", "credential", "execution_environment", "project", "inventory",
                     "inventory_source", "job_template", "workflow_job_template", "schedule"]
    known = {kind: set(of(written, kind)) for kind in MODULES}
    for template in of(written, "job_template").values():
        assert template["project"] in known["project"]
        assert template["inventory"] in known["inventory"]
        assert template["execution_environment"] in known["execution_environment"]
        assert set(template["credentials"]) <= known["credential"]


def test_a_template_is_neither_sliced_nor_limited_nor_run_twice(written):
    together = {name for name, template in of(written, "job_template").items() if template["allow_simultaneous"]}
    assert together == ({"Captcha | roll", "Solver | recover"} if has_regions(written) else set()), (
        "each region has a lock of its own")
    for template in of(written, "job_template").values():
        assert template["job_slice_count"] == 1
        asked = {name: value for name, value in template.items() if name.startswith("ask_")}
        assert {"ask_limit_on_launch", "ask_job_slice_count_on_launch", "ask_variables_on_launch"} <= set(asked)
        assert {name for name, value in asked.items() if value} == (
            {"ask_instance_groups_on_launch"} if has_regions(written) else set())
        assert template["timeout"] >= 3600
    assert of(written, "job_template")["Solver | plan"]["job_type"] == "check"
    assert of(written, "job_template")["Solver | plan"]["diff_mode"] is True
    assert of(written, "job_template")["Captcha | roll"]["timeout"] == AWX["solver_awx_job_timeout"].default
    for name in ("Captcha | roll", "Solver | plan", "Solver | recover", "Solver | rollback"):
        told = of(written, "job_template")[name]["extra_vars"]
        assert told == {"solver_awx_job_timeout": AWX["solver_awx_job_timeout"].default}


def test_a_secret_goes_only_where_it_is_needed(written):
    with_secrets = [name for name, own in of(written, "job_template").items()
                    if "Solver | secrets" in own["credentials"]]
    assert with_secrets == ["Solver | provision"]
    kind, = of(written, "credential_type").values()
    assert kind["injectors"] == {"env": {"SOLVER_API_KEY": "{{ api_key }}", "SOLVER_DATA_TOKEN": "{{ data_token }}"}}
    assert [field["secret"] for field in kind["inputs"]["fields"]] == [True, True]
    assert {(own["state"], own["update_secrets"]) for own in of(written, "credential").values()} == {("exists", False)}


TYPES = {"text", "textarea", "password", "multiplechoice", "multiselect", "integer", "float"}


def test_surveys_keep_the_rules_of_awx_and_ask_for_settings(written):
    surveys = [own["survey_spec"] for module in ("job_template", "workflow_job_template")
               for own in of(written, module).values() if own["survey_enabled"]]
    assert len(surveys) >= 6
    # An empty one is refused by AWX.
    assert all(own["survey_spec"]["spec"] for own in of(written, "job_template").values() if "survey_spec" in own)
    for survey in surveys:
        assert set(survey) == {"name", "description", "spec"}
        variables = [question["variable"] for question in survey["spec"]]
        assert len(variables) == len(set(variables))
        for question in survey["spec"]:
            assert question["type"] in TYPES
            assert question["required"] is False
            assert isinstance(question["default"], str)
            if question["variable"] == "solver_awx_gate":
                assert (question["type"], question["default"]) == ("integer", "")
                continue
            read(question["variable"], question["default"])
            if question["variable"] == "solver_hosts":
                assert question["choices"] == REGIONS["solver_awx_regions"]
                assert question["default"] == "solver_eu", "the canary"
            elif question["type"] == "multiplechoice":
                own = SETTINGS[question["variable"]]
                assert tuple(question["choices"]) == (own.choices or ("false", "true"))
                assert read(question["variable"], question["default"]) == own.default
            else:
                assert question["default"] == ""
                assert question["min"] == 0
                assert question["max"] <= (SETTINGS[question["variable"]].maximum or 1024)


def nodes_of(written: Written, workflow: str = "Solver | staged update") -> dict[str, dict[str, Any]]:
    found = of(written, "workflow_job_template")[workflow]["workflow_nodes"]
    return {node["identifier"]: node for node in found}


def test_the_workflow_goes_on_after_an_approval_and_each_failure_ends_as_one(written):
    nodes = nodes_of(written)
    path, here = [], ["plan"]
    while here:
        path += here
        here = leads(nodes[here[0]], "success_nodes")
    assert path == ["plan", "canary", "approval", "rest"]
    assert [leads(nodes[name], "failure_nodes") for name in path] == [["recover"]] * 4
    assert leads(nodes["recover"], "always_nodes") == ["verdict"]
    assert "related" not in nodes["verdict"], "with a way to go on AWX would call the workflow successful"
    canary, rest = nodes["canary"], nodes["rest"]
    assert canary["unified_job_template"] == rest["unified_job_template"]
    assert canary["extra_data"] == {"solver_strategy": "canary", "solver_promote": "manual"}
    assert rest["extra_data"] == {"solver_strategy": "canary", "solver_promote": "now"}
    for name in ("canary", "rest"):
        for variable, value in nodes[name]["extra_data"].items():
            read(variable, value)


def test_what_the_workflow_asks_reaches_the_templates(written):
    """AWX drops what a template does not ask for."""
    templates = of(written, "job_template")
    for workflow in of(written, "workflow_job_template").values():
        asked = {question["variable"] for question in workflow["survey_spec"]["spec"]}
        assert "solver_version" in asked
        for node in workflow["workflow_nodes"]:
            name = node["unified_job_template"]["name"]
            if name not in templates:
                assert node["unified_job_template"]["type"] == "workflow_approval"
                continue
            taken = {question["variable"] for question in templates[name].get("survey_spec", {}).get("spec", ())}
            wanted = asked if templates[name]["playbook"].endswith("rolling_update.yml") else asked & {"solver_hosts"}
            assert wanted | set(node.get("extra_data", {})) <= taken, (name, node["identifier"])


def test_a_recovery_is_scheduled(written):
    if has_regions(written):
        found = of(written, "schedule").values()
        assert [(own["extra_data"], own["rrule"], own.get("instance_groups")) for own in found] == [
            ({"solver_hosts": name}, f"DTSTART:20260101T00{minute}00Z RRULE:FREQ=MINUTELY;INTERVAL=15", mesh)
            for name, minute, mesh in (("solver_eu", "00", None), ("solver_us", "01", ["us"]),
                                       ("solver_ap", "02", None))]
    else:
        schedule, = of(written, "schedule").values()
        assert schedule["rrule"] == "DTSTART:20260101T000000Z RRULE:FREQ=MINUTELY;INTERVAL=15"
    assert {(own["enabled"], own["unified_job_template"]) for own in of(written, "schedule").values()} == {
        (True, "Solver | recover")}


def test_the_regions_follow_one_another_with_gates_between(written):
    if not has_regions(written):
        assert of(written, "workflow_job_template")["Solver | region by region"]["workflow_nodes"] == []
        assert of(written, "job_template")["Solver | gate"]["state"] == "absent"
        return
    nodes = nodes_of(written, "Solver | region by region")
    assert {name: [leads(node, link) for link in ("success_nodes", "failure_nodes", "always_nodes")]
            for name, node in nodes.items()} == {
        "solver_eu": [["gate 1"], ["recover solver_eu"], []], "recover solver_eu": [[], [], ["gate 1"]],
        "gate 1": [["solver_us", "solver_ap"], [], []],
        "solver_us": [["gate 3"], ["recover solver_us"], []], "recover solver_us": [[], [], ["gate 3"]],
        "solver_ap": [["gate 3"], ["recover solver_ap"], []], "recover solver_ap": [[], [], ["gate 3"]],
        "gate 3": [[], [], []]}
    assert nodes["recover solver_us"]["related"]["instance_groups"] == [{"name": "us"}]
    gate = of(written, "job_template")["Solver | gate"]
    assert gate["extra_vars"]["solver_hosts"] == "solver_eu", "the canary, whose workers it looks at"
    assert gate["timeout"] > gate["extra_vars"]["solver_awx_bake_minutes"] * 60


@pytest.fixture(scope="module")
def example() -> Path:
    return ROOT / "examples" / "awx_project"


def test_the_example_has_the_playbook_of_each_template(written, example):
    for template in of(written, "job_template").values():
        wrapper, = yaml.safe_load((example / template["playbook"]).read_text(encoding="utf-8"))
        imported = wrapper["ansible.builtin.import_playbook"]
        assert imported == f"solver.fleet.{Path(template['playbook']).stem}"
        assert (ROOT / template["playbook"]).exists(), "the collection itself is a project as well"


def test_the_example_pins_the_collection_and_shows_progress(example):
    pinned, = yaml.safe_load((example / "collections/requirements.yml").read_text(encoding="utf-8"))["collections"]
    version = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))["version"]
    assert pinned["version"] == version
    config = (example / "ansible.cfg").read_text(encoding="utf-8")
    assert "callbacks_enabled = solver.fleet.progress" in config
    assert "stdout_callback" not in config
    inventory = yaml.safe_load((example / "inventory.yml").read_text(encoding="utf-8"))["solver_workers"]
    assert [name for name in inventory["vars"] if name.startswith("solver_") and name not in SETTINGS
            and name not in ("solver_api_key", "solver_data_token")] == []
    settings = (example / "awx.yml").read_text(encoding="utf-8")
    assert len(settings.splitlines()) <= 20
    assert _awx.settings(yaml.safe_load(settings))[1] == []


def test_the_repository_installs_itself_and_keeps_that_out_of_the_tarball():
    own, = yaml.safe_load((ROOT / "collections/requirements.yml").read_text(encoding="utf-8"))["collections"]
    assert own == {"name": ".", "type": "dir"}
    ignored = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))["build_ignore"]
    assert {"collections", "ansible.cfg", "examples", "execution-environment.yml"} <= set(ignored)
    assert "meta" not in ignored
    tracked = subprocess.run(["git", "check-ignore", "collections/requirements.yml"], cwd=ROOT, capture_output=True,
                             check=False, timeout=20)
    assert tracked.returncode == 1, "git leaves it out"


@pytest.mark.slow
def test_a_fresh_checkout_installs_itself_and_the_example_finds_it(tmp_path, example):
    """As the synchronisation of a project does it, and a job after it."""
    checkout, installed = tmp_path / "checkout", tmp_path / "installed"
    names = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                           capture_output=True, text=True, check=True, timeout=60).stdout.split("\0")
    for name in filter(None, names):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, checkout / name)
    env = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    env.update(HOME=str(tmp_path), ANSIBLE_NOCOLOR="1", ANSIBLE_COLLECTIONS_PATH=str(installed))
    bin_ = Path(sys.executable).parent
    for words, where in (
            (["ansible-galaxy", "collection", "install", "-r", "collections/requirements.yml", "-p", str(installed)],
             checkout),
            (["ansible-playbook", "-i", "inventory.yml", "playbooks/rolling_update.yml", "--list-hosts"], example)):
        done = subprocess.run([str(bin_ / words[0]), *words[1:]], cwd=where, env=env, capture_output=True, text=True,
                              check=False, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "hosts (3)" in done.stdout
    tree = installed / "ansible_collections/solver/fleet"
    assert (tree / "playbooks/vars/awx/templates.yml").exists()
    assert (tree / "meta/execution-environment.yml").exists()
    gone = ("examples", "collections", "ansible.cfg", "execution-environment.yml", "tests")
    assert [name for name in gone if (tree / name).exists()] == []


def test_an_environment_needs_nothing_for_this_collection():
    needs = yaml.safe_load((ROOT / "meta/execution-environment.yml").read_text(encoding="utf-8"))
    assert needs == {"version": 3, "dependencies": {}}
    built = yaml.safe_load((ROOT / "execution-environment.yml").read_text(encoding="utf-8"))
    assert built["version"] == 3


def builder(*words: str) -> str:
    done = subprocess.run([str(Path(sys.executable).parent / "ansible-builder"), *words], capture_output=True,
                          text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_ansible_builder_makes_a_context_of_our_environment(tmp_path):
    builder("create", "--file", str(ROOT / "execution-environment.yml"), "--context", str(tmp_path / "context"),
            "--output-filename", "Containerfile")
    made = (tmp_path / "context/Containerfile").read_text(encoding="utf-8")
    assert "fedora:42" in made
    assert "ansible-core>=2.18" in made
    assert "requests" not in made


def test_ansible_builder_finds_that_the_collection_needs_nothing(tmp_path):
    """And would find it if it needed something."""
    collection = tmp_path / "ansible_collections/solver/fleet"
    shutil.copytree(ROOT / "meta", collection / "meta")
    (collection / "MANIFEST.json").write_text("{}", encoding="utf-8")
    found = yaml.safe_load(builder("introspect", str(tmp_path)))
    assert found == {"python": [], "system": []}
    (collection / "meta/needs.txt").write_text("requests\n", encoding="utf-8")
    (collection / "meta/execution-environment.yml").write_text(
        "version: 3\ndependencies: {python: meta/needs.txt}\n", encoding="utf-8")
    found = yaml.safe_load(builder("introspect", str(tmp_path)))
    assert [line for line in found["python"] if line.startswith("requests")], found


@pytest.mark.parametrize(("estimate", "given", "said"), [
    (7200, None, []), (7200, "", []), (7200, "28800", []),
    (7200, 7200, ["this takes about 120 min, and AWX kills the job"]),
    (7200, "soon", ["solver_awx_job_timeout is 'soon'; it must be a number"])])
def test_a_plan_that_takes_longer_than_its_job_may_says_so(estimate, given, said):
    found = _awx.job_warnings(estimate, given)
    assert [line[:len(start)] for line, start in zip(found, said, strict=True)] == said


@pytest.mark.parametrize(("base", "job", "address"), [
    ("https://awx.example.com", "7", "https://awx.example.com/#/jobs/playbook/7"),
    ("https://awx.example.com/", "7", "https://awx.example.com/#/jobs/playbook/7"),
    ("https://towerhost", "7", None), ("https://platformhost", "7", None), ("", "7", None),
    ("awx.example.com", "7", None), ("https://", "7", None), ("https://a\nb", "7", None),
    ("https://awx.example.com", None, None)])
def test_the_address_of_a_job_is_told_where_awx_knows_its_own(base, job, address):
    assert _awx.job_address(base, job) == address


# -- what is refused before anything is changed ----------------------------------------------------


@pytest.mark.parametrize(("change", "said"), [
    ({"solver_awx_projct_url": URL}, "solver_awx_projct_url is not known; did you mean solver_awx_project_url?"),
    ({"solver_awx_names": {"updaet": "x"}}, "solver_awx_names: updaet is not known; did you mean update?"),
    ({"solver_awx_names": {"plan": "x", "update": "x"}}, "two templates are called x"),
    ({"solver_awx_names": {"plan": 3}}, "plan must be text in one line"),
    ({"solver_awx_collection": "awx"}, "choose one of: awx.awx, ansible.controller"),
    ({"solver_awx_job_timeout": 60}, "it must be at least 3600"),
    ({"solver_awx_project_url": ""}, "solver_awx_project_url is not set"),
    ({"solver_awx_regions": ["eu-1", "us"]}, "eu-1 cannot be a group of the inventory"),
    ({"solver_awx_regions": ["us", "us"]}, "us stands there twice"),
    ({"solver_awx_regions": ["us"]}, "has one region; name two or more"),
    ({"solver_awx_regions": ["solver_workers", "us"]}, "solver_workers is the group of a fleet that is one"),
    ({"solver_awx_regions": ["eu", "us"], "solver_awx_regions_budget": 2}, "less than the number of regions, 2"),
    ({"solver_awx_regions": ["eu", "us"], "solver_awx_instance_groups": {"ap": "x"}}, "ap is none of"),
    ({"solver_awx_regions": ["eu", "us"], "solver_awx_instance_groups": {"us": ""}}, "us must be the name"),
    ({"solver_awx_instance_groups": {"us": "x"}}, "solver_awx_instance_groups is for solver_awx_regions")])
def test_a_mistake_in_the_settings_is_named(change, said):
    _settings, problems = _awx.settings({**GIVEN, **change})
    assert any(said in problem for problem in problems), problems


def test_good_settings_have_no_problem_and_are_complete():
    settings, problems = _awx.settings(GIVEN)
    assert problems == []
    assert settings.keys() == {name.removeprefix("solver_awx_") for name in AWX}
    assert settings["names"].keys() == _awx.NAMES.keys()
    assert settings["names"]["update"] == "Captcha | roll"


def test_a_workflow_that_points_nowhere_is_named():
    node = {"identifier": "a", "unified_job_template": {"name": "updaet", "type": "job_template"},
            "related": {"success_nodes": [{"identifier": "b"}]}}
    takes_nothing = {"identifier": "c", "unified_job_template": {"name": "update", "type": "job_template"},
                     "extra_data": {"solver_version": "1"}}
    found = _awx.misfits([{"name": "update"}], [{"name": "W", "workflow_nodes": [node, takes_nothing]}],
                         [{"name": "S", "unified_job_template": "recovr"},
                          {"name": "T", "unified_job_template": "update", "extra_data": {"solver_hosts": "a"}}])
    assert found == ["S runs recovr, which is no template", "T: update does not ask for solver_hosts",
                     "W, node a: it leads to b, which is no node", "W, node a: it runs updaet, which is no template",
                     "W, node c: update does not ask for solver_version"]


def test_a_misspelt_setting_ends_the_playbook_first(awx):
    done, notes = configure(awx, {**GIVEN, "solver_awx_imge": "x"})
    assert done.returncode == 2
    assert "solver_awx_imge is not known; did you mean solver_awx_image?" in done.stdout + done.stderr
    assert notes == []


def test_a_missing_collection_is_named(awx, tmp_path):
    done, _notes = configure({**awx, "root": tmp_path}, GIVEN)
    assert done.returncode == 2
    assert "The collection awx.awx is not installed" in done.stdout + done.stderr


def test_a_wrong_address_is_named(awx):
    done, notes = configure(awx, GIVEN, CONTROLLER_HOST=f"{awx['url']}/elsewhere")
    assert done.returncode == 2
    assert "/elsewhere/api/v2/ping/ is no AWX" in done.stdout + done.stderr
    assert notes == []


def test_the_last_node_fails_and_says_what_it_was_handed(example):
    handed = {"solver_last_verdict": "rolled_back", "solver_last_rollout_id": "awx-7",
              "solver_last_reason": "w1 failed"}
    assert set(handed) <= INTERNAL
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(example / "inventory.yml"),
         "playbooks/awx_verdict.yml", "-e", json.dumps(handed)], cwd=ROOT, capture_output=True, text=True, check=False,
        timeout=120, env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"})
    assert done.returncode == 2
    assert "ended as rolled_back, rollout awx-7: w1 failed" in " ".join((done.stdout + done.stderr).split())
