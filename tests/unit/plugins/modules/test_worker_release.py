# SPDX-License-Identifier: GPL-3.0-or-later
"""worker_release as real processes on a real file system, with small fixture wheels."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.module_utils import _release_stage
from process_kit import await_that, kill_tree
from release_kit import end_module, lend_pip, make_wheel, run_module, start_module, tree

pytestmark = pytest.mark.programs

CONFIG = '[worker]\nname = "{name}"\nport = {port}\n'


class Host:
    """One machine with a base directory, a wheelhouse and some workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = folder / "base"
        self.wheelhouse = folder / "wheelhouse"
        self.wheelhouse.mkdir(parents=True)

    def arguments(self, name: str = "w1", port: int = 1, **more: Any) -> dict[str, Any]:
        worker = self.base / "workers" / name
        worker.mkdir(parents=True, exist_ok=True)
        found = {
            "state": "staged",
            "worker_name": name,
            "worker_dir": str(worker),
            "base_dir": str(self.base),
            "control_socket": "/tmp/no-such-worker.sock",
            "wheelhouse": str(self.wheelhouse),
            "config": CONFIG.format(name=name, port=port),
            **more,
        }
        return {key: value for key, value in found.items() if value is not None}

    def run(self, check_mode: bool = False, **more: Any) -> dict[str, Any]:
        return run_module("worker_release", self.arguments(**more), check_mode)

    def activate(self, release: str | None = None, **more: Any) -> dict[str, Any]:
        return self.run(state="active", release=release, owner="r1", restart=False, **more)

    def releases(self) -> list[str]:
        return sorted(p.name for p in (self.base / "releases").iterdir())

    def envs(self) -> list[str]:
        return sorted(p.name for p in (self.base / "envs").iterdir())


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Host:
    """A host with two versions staged; only for tests that leave it as it is or clean up."""
    host = Host(tmp_path_factory.mktemp("host"))
    lend_pip(host.base)
    make_wheel(host.wheelhouse, "1.2.0")
    make_wheel(host.wheelhouse, "1.3.0")
    assert host.run(version="1.2.0")["changed"] is True
    return host


@pytest.fixture
def new_host(tmp_path: Path) -> Host:
    return Host(tmp_path / "host")


@pytest.fixture
def host(new_host: Host) -> Host:
    """One on which a release was staged before, so that its pip is there."""
    lend_pip(new_host.base)
    return new_host


def failed(result: dict[str, Any]) -> tuple[str, str]:
    assert result.get("failed"), result
    assert result["failure"]["message"] in result["msg"]
    return result["failure"]["code"], result["msg"]


# --- staged ---


def test_staging_makes_a_complete_release_once(shared: Host) -> None:
    again = shared.run(version="1.2.0")
    assert (again["changed"], again["staged"], again["at_target"]) == (False, True, False)
    assert again["check"]["version"] == "1.2.0"
    folder = shared.base / "releases" / again["release"]["id"]
    assert json.loads((folder / "release.json").read_text()) == again["release"]
    assert (folder / "config.toml").read_text() == CONFIG.format(name="w1", port=1)
    assert str((folder / "env").readlink()) == "../../envs/1.2.0-" + again["release"]["package_digest"][:12]
    assert again["release"]["id"] == "1.2.0-{package_digest:.8}-{config_digest:.8}".format(**again["release"])


def test_check_mode_predicts_the_id_and_writes_nothing(shared: Host) -> None:
    before = tree(shared.folder)
    predicted = shared.run(check_mode=True, version="1.2.0", port=7)
    assert tree(shared.folder) == before
    assert (predicted["changed"], predicted["staged"]) == (True, False)
    made = shared.run(version="1.2.0", port=7)
    assert made["release"]["id"] == predicted["release"]["id"]
    assert "env" not in made, "a changed configuration needs no new environment"
    assert shared.run(check_mode=True, version="1.2.0", port=7)["changed"] is False
    assert shared.run(state="absent", release=made["release"]["id"])["changed"] is True


def test_check_mode_on_an_empty_host(new_host: Host) -> None:
    make_wheel(new_host.wheelhouse, "1.2.0")
    arguments = new_host.arguments(version="1.2.0")
    shutil.rmtree(new_host.base)
    assert run_module("worker_release", arguments, True)["changed"] is True
    assert not new_host.base.exists()


def test_check_mode_misses_the_python_that_the_real_run_would_miss(host: Host) -> None:
    make_wheel(host.wheelhouse, "1.2.0")
    arguments = host.arguments(version="1.2.0", python="/nonexistent/python")
    code, said = failed(run_module("worker_release", arguments, True))
    assert code == "no_python"
    assert "name it in solver_worker_python" in said


def test_what_two_releases_hold_is_told_instead_of_a_diff(shared: Host) -> None:
    said = shared.run(check_mode=True, version="1.3.0", port=9, contents=True)
    assert "diff" not in said
    contents = said["contents"]
    assert contents["after"] == ["# version: 1.3.0", *CONFIG.format(name="w1", port=9).splitlines()]
    assert contents["packages_after"] is None or "solver-worker 1.3.0" in contents["packages_after"]


def test_the_diff_shows_version_and_configuration(shared: Host) -> None:
    diff = shared.run(check_mode=True, version="1.3.0", port=9)["diff"]
    assert diff["after"] == "# version: 1.3.0\n" + CONFIG.format(name="w1", port=9)


def test_a_release_that_waits_has_a_link_until_it_is_switched_to(pair: tuple[Host, str, str, str]) -> None:
    host, name, one, two = pair
    worker = Path(host.arguments(name=name)["worker_dir"])
    assert (worker / "staged").resolve().name == two
    host.activate(two, name=name)
    assert not (worker / "staged").is_symlink()
    waiting = host.run(name=name, version="1.2.0", port=99)
    assert (worker / "staged").resolve().name == waiting["release"]["id"]
    again = host.run(name=name, version="1.2.0", port=99)
    assert again["changed"] is False
    host.activate(one, name=name)
    assert not (worker / "staged").is_symlink(), "something else was chosen over it"


def test_a_secret_is_part_of_the_release_and_of_no_output(shared: Host, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("first-secret-of-this-test")
    given = {"name": "s1", "version": "1.2.0", "credentials": {"api_key": str(key)}}
    one = shared.run(**given)
    folder = shared.base / "releases" / one["release"]["id"] / "credentials"
    assert (folder / "api_key").read_text() == "first-secret-of-this-test"
    assert [path.stat().st_mode & 0o777 for path in (folder, folder / "api_key")] == [0o700, 0o400]
    assert shared.run(**given)["changed"] is False
    key.write_text("second-secret-of-this-test")
    two = shared.run(**given)
    assert two["release"]["id"] != one["release"]["id"], "a changed secret rolls like a version"
    assert (folder / "api_key").read_text() == "first-secret-of-this-test", "the way back keeps its own"
    assert "secret-of-this-test" not in json.dumps([one, two])
    key.unlink()
    code, text = failed(shared.run(**given))
    assert code == "bad_credential"
    assert "solver_api_key_file" in text
    for made in (one, two):
        shared.run(state="absent", name="s1", release=made["release"]["id"])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_a_unit_is_part_of_the_release_and_checked_by_systemd(shared: Host) -> None:
    worker = Path(shared.arguments(name="u1")["worker_dir"])
    text = f"[Service]\nExecStart={worker}/current/env/bin/solver-worker serve\n"
    unit = {"name": "solver-worker@u1.service", "content": text}
    one = shared.run(name="u1", version="1.2.0", unit=unit)
    assert (shared.base / "releases" / one["release"]["id"] / unit["name"]).read_text() == text
    assert "# unit: solver-worker@u1.service" in one["diff"]["after"]
    bad = {**unit, "content": "[Service]\nExecStart=/nonexistent/program\n"}
    code, said = failed(shared.run(name="u1", version="1.2.0", unit=bad))
    assert code == "unit_refused"
    assert "correct solver_unit" in said
    shared.run(state="absent", name="u1", release=one["release"]["id"])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_a_unit_is_checked_as_if_the_one_in_place_were_not_there(
    shared: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both are drop-ins of one unit: together they would have two programs, which systemd refuses."""
    worker = Path(shared.arguments(name="u2")["worker_dir"])
    text = f"[Service]\nExecStart={worker}/current/env/bin/solver-worker serve\n"
    (tmp_path / "solver-worker@u2.service.d").mkdir()
    (tmp_path / "solver-worker@u2.service").write_text("[Unit]\n")
    (tmp_path / "solver-worker@u2.service.d/00-release.conf").write_text("[Service]\nExecStart=/bin/true\n")
    monkeypatch.setenv("SYSTEMD_UNIT_PATH", f"{tmp_path}:")
    made = shared.run(name="u2", version="1.2.0", unit={"name": "solver-worker@u2.service", "content": text})
    assert made.get("msg") is None, made
    # What an operator adds to it counts.
    (tmp_path / "solver-worker@u2.service.d/50-own.conf").write_text("[Service]\nExecStart=/bin/true\n")
    code, _said = failed(shared.run(name="u2", version="1.3.0", unit={"name": "solver-worker@u2.service",
                                                                      "content": text}))
    assert code == "unit_refused"
    shared.run(state="absent", name="u2", release=made["release"]["id"])


@pytest.mark.slow
def test_two_workers_stage_at_once(new_host: Host) -> None:
    make_wheel(new_host.wheelhouse, "1.2.0")
    running = [
        start_module("worker_release", new_host.arguments(name=name, version="1.2.0")) for name in ("w1", "w2", "w3")
    ]
    results = [end_module(process) for process in running]
    assert [r.get("msg") for r in results] == [None] * 3
    assert sum("env" in r for r in results) == 1, "the environment is built once"
    assert len(new_host.envs()) == 1
    assert new_host.releases() == sorted(r["release"]["id"] for r in results)


@pytest.mark.slow
@pytest.mark.parametrize(("begun", "complete"), [
    ("pip/*/pyvenv.cfg", "pip/*/pip.json"), ("envs/*/pyvenv.cfg", "envs/*/.complete"),
])
def test_killed_while_it_builds_then_run_again(new_host: Host, begun: str, complete: str) -> None:
    make_wheel(new_host.wheelhouse, "1.2.0")
    process = start_module("worker_release", new_host.arguments(version="1.2.0"))
    deadline = time.monotonic() + 120
    while not list(new_host.base.glob(begun)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list(new_host.base.glob("envs/*/.complete")), "killed too late for this test"
    assert [n for n in new_host.releases() if not n.startswith(".tmp-")] == []
    result = new_host.run(version="1.2.0")
    assert result["staged"] is True
    assert result["env"]
    assert new_host.releases() == [result["release"]["id"]], "leftovers are swept"
    assert len(list(new_host.base.glob(complete))) == 1


def test_without_version_the_package_stays(shared: Host) -> None:
    first = shared.run(name="keeper", version="1.2.0")
    assert shared.activate(first["release"]["id"], name="keeper")["switched"] is True
    rolled = shared.run(name="keeper", port=5)
    assert rolled["release"]["version"] == "1.2.0"
    assert rolled["release"]["id"] != first["release"]["id"]
    assert rolled["release"]["from"] == first["release"]["id"]


BAD_PROGRAMS = [
    ("raise SystemExit('boom')", "release_invalid", "'check' ended with status 1: boom; correct package"),
    ("import no_such_module", "release_invalid", "No module named 'no_such_module'; correct package"),
    ("sys.stderr.write('config.port: must be even\\n'); sys.exit(2)", "config_refused", "must be even; correct config"),
    (
        "print(json.dumps({'ok': False, 'version': VERSION, 'problems': ['journal is newer']})); sys.exit(1)",
        "config_refused",
        "'check' refuses: journal is newer; correct config",
    ),
]


@pytest.mark.parametrize(("body", "code", "text"), BAD_PROGRAMS)
def test_a_program_that_fails_its_check_leaves_no_release(shared: Host, body: str, code: str, text: str) -> None:
    wheel = make_wheel(shared.folder / f"bad-{abs(hash(body))}", "1.4.0", body)
    before = shared.releases()
    result = shared.run(package=str(wheel))
    assert failed(result)[0] == code
    assert text in result["msg"]
    assert shared.releases() == before
    assert shared.run(check_mode=True, version="1.2.0").get("failed") is None, "the others are as they were"


def test_a_program_of_another_version_is_refused(shared: Host) -> None:
    wheel = make_wheel(shared.folder / "liar", "1.5.0", says="1.4.9")
    code, text = failed(shared.run(package=str(wheel)))
    assert code == "version_mismatch"
    assert text == "running the staged release 1.5.0: the program says version 1.4.9; correct package"


def test_secrets_do_not_leave_in_the_output(shared: Host) -> None:
    secret = "0123456789abcdef-the-key"
    (shared.folder / "key").write_text(secret + "\n")
    wheel = make_wheel(
        shared.folder / "talker", "1.6.0", f"sys.exit('key ' + open({str(shared.folder / 'key')!r}).read())"
    )
    config = f'api_key_file = "{shared.folder / "key"}"\n'
    result = shared.run(package=str(wheel), config=config)
    assert failed(result)[0] == "release_invalid"
    assert secret not in json.dumps(result)
    assert "********" in result["msg"]


# --- pip, once for each interpreter ---


def test_environments_share_one_pip_and_have_none_of_their_own(new_host: Host) -> None:
    for version, python in (("1.2.0", "python3"), ("1.3.0", shutil.which("python3"))):
        make_wheel(new_host.wheelhouse, version)
        assert new_host.run(version=version, python=python)["staged"] is True
        [marker] = new_host.base.glob("pip/*/pip.json")
        made = marker.stat().st_ino, marker.stat().st_mtime_ns
        if version == "1.2.0":
            first = made
    assert made == first, "the second release makes no pip anew"
    assert len(new_host.envs()) == 2
    assert len(list(new_host.base.glob("envs/*/bin/solver-worker"))) == 2
    assert not list(new_host.base.glob("envs/*/bin/pip*"))
    assert not list(new_host.base.glob("envs/*/lib/*/site-packages/pip"))


@pytest.mark.slow
def test_a_pip_that_no_longer_fits_its_interpreter_is_made_anew(host: Host) -> None:
    make_wheel(host.wheelhouse, "1.2.0")
    make_wheel(host.wheelhouse, "1.3.0")
    assert host.run(version="1.2.0")["staged"] is True
    [marker] = host.base.glob("pip/*/pip.json")
    fits = marker.read_text(encoding="utf-8")
    marker.write_text(json.dumps({**json.loads(fits), "python": "3.10.0"}), encoding="utf-8")
    for path in marker.parent.glob("lib/*/site-packages/pip"):
        shutil.rmtree(path)
    assert host.run(version="1.3.0")["staged"] is True
    assert marker.read_text(encoding="utf-8") == fits


@pytest.mark.slow
def test_the_pip_of_a_removed_interpreter_goes(new_host: Host) -> None:
    left = new_host.base / "pip" / "0123456789ab"
    (left / "bin").mkdir(parents=True)
    (left / "bin" / "python").symlink_to("/nowhere/python3.9")
    make_wheel(new_host.wheelhouse, "1.2.0")
    assert new_host.run(version="1.2.0")["staged"] is True
    assert not left.exists()
    assert len(list(new_host.base.glob("pip/*/pip.json"))) == 1


# --- bad packages: refused before anything is built ---


def test_no_version_at_all(host: Host) -> None:
    code, text = failed(host.run())
    assert code == "no_version"
    assert text == (
        "staging a release of w1: it has no release yet whose package it could keep; set solver_version, or package"
    )


def test_an_unknown_version_lists_what_there_is(shared: Host) -> None:
    code, text = failed(shared.run(version="9.9.9"))
    assert code == "unknown_version"
    assert "looking for solver-worker 9.9.9 in the wheelhouse" in text
    assert "it has 1.2.0, 1.3.0; set solver_version to one of these" in text


def _spoil(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "flipped":
        spot = data.index(b"VERSION =")
        path.write_bytes(data[:spot] + b"X" + data[spot + 1 :])
    else:
        path.write_bytes(b"\x7fELF this is no archive")


@pytest.mark.parametrize("how", ["truncated", "flipped", "other"])
@pytest.mark.parametrize("check_mode", [True, False])
def test_a_file_that_is_no_wheel(shared: Host, tmp_path: Path, how: str, check_mode: bool) -> None:
    wheel = make_wheel(tmp_path, "1.7.0")
    _spoil(wheel, how)
    before = tree(shared.base)
    code, text = failed(shared.run(check_mode=check_mode, package=str(wheel)))
    assert code == "not_a_wheel"
    assert text.startswith(f"reading '{wheel}': it is not a wheel, ")
    assert text.endswith("; give package a .whl file")
    assert tree(shared.base) == before


@pytest.mark.parametrize(
    ("more", "code", "text"),
    [
        ({"package": "{wheel}", "sha256": "0" * 64}, "wrong_digest", "not " + "0" * 64 + "; correct sha256 or package"),
        ({"package": "{wheel}", "version": "1.9.0"}, "version_mismatch", "it is version 1.3.0, not 1.9.0"),
        ({"package": "/no/such-1-py3-none-any.whl"}, "no_package", "there is no such file; set package"),
        ({"package": "solver-worker"}, "no_version", "it names no version; set solver_version"),
        ({"package": "solver-worker>=1"}, "bad_requirement", "neither the path of a wheel nor a requirement"),
        ({"package": "--index-url=evil"}, "bad_requirement", "neither the path of a wheel nor a requirement"),
        ({"version": "1.3.0", "wheelhouse": "/no/such"}, "no_wheelhouse", "set wheelhouse (solver_wheelhouse) to a"),
        ({"version": "1.3.0", "min_free_mb": 10**9}, "no_space", "or lower min_free_mb"),
        ({"version": "1.3.0", "python": "/bin/false"}, "no_python", "name it in solver_worker_python"),
    ],
)
def test_bad_input_names_the_option(shared: Host, more: dict[str, Any], code: str, text: str) -> None:
    wheel = str(shared.wheelhouse / "solver_worker-1.3.0-py3-none-any.whl")
    before = shared.releases(), shared.envs()
    found, message = failed(shared.run(**{k: wheel if v == "{wheel}" else v for k, v in more.items()}))
    assert (found, text in message) == (code, True), message
    assert (shared.releases(), shared.envs()) == before


def test_the_right_digest_passes(shared: Host) -> None:
    wheel = shared.wheelhouse / "solver_worker-1.2.0-py3-none-any.whl"
    digest = shared.run(version="1.2.0")["release"]["package_digest"]
    assert shared.run(package=str(wheel), sha256=digest.upper())["staged"] is True


def test_a_base_that_cannot_be_written(host: Host) -> None:
    make_wheel(host.wheelhouse, "1.2.0")
    arguments = host.arguments(version="1.2.0")
    (host.folder / "file").write_text("")
    code, text = failed(run_module("worker_release", {**arguments, "base_dir": str(host.folder / "file" / "base")}))
    assert code == "unwritable"
    assert "set base_dir (solver_base_dir) to a directory that this user may write" in text


# --- active, without a running worker ---


@pytest.fixture
def pair(shared: Host, request: pytest.FixtureRequest) -> tuple[Host, str, str, str]:
    """A worker of its own with two releases that share an environment."""
    name = "p" + str(abs(hash(request.node.name)) % 10**8)
    one = shared.run(name=name, version="1.2.0", port=1)["release"]["id"]
    two = shared.run(name=name, version="1.2.0", port=2)["release"]["id"]
    return shared, name, one, two


def test_switch_and_revert(pair: tuple[Host, str, str, str]) -> None:
    host, name, one, two = pair
    first = host.activate(one, name=name)
    assert (first["changed"], first["from"], first["current"], first["previous"]) == (True, None, one, None)
    assert failed(host.activate(None, name=name, previous=True))[0] == "no_previous"
    again = host.activate(one, name=name)
    assert (again["changed"], again["switched"]) == (False, False)
    assert host.activate(two, name=name, check_mode=True)["changed"] is True
    assert host.run(name=name, version="1.2.0", port=2)["at_target"] is False
    second = host.activate(two, name=name)
    assert (second["from"], second["to"], second["current"], second["previous"]) == (one, two, two, one)
    back = host.activate(None, name=name, previous=True)
    assert (back["from"], back["current"], back["previous"]) == (two, one, two)
    assert back["release"]["version"] == "1.2.0"
    link = Path(host.arguments(name=name)["worker_dir"]) / "current"
    assert (link / "config.toml").exists()


def test_a_release_that_is_not_there(pair: tuple[Host, str, str, str]) -> None:
    host, name, one, _two = pair
    code, text = failed(host.activate("1.9.9-aaaaaaaa-bbbbbbbb", name=name))
    assert code == "no_release"
    assert "stage it first" in text
    for bad in ("../../../etc", "", ".."):
        assert failed(host.activate(bad, name=name))[0] == "no_release"
    assert not os.path.lexists(Path(host.arguments(name=name)["worker_dir"]) / "current")
    assert one in host.releases()


def test_a_dangling_link_is_replaced(pair: tuple[Host, str, str, str]) -> None:
    host, name, one, _two = pair
    worker = Path(host.arguments(name=name)["worker_dir"])
    (worker / "current").symlink_to("/gone/releases/0.9.0-aaaaaaaa-bbbbbbbb")
    assert host.activate(one, name=name)["current"] == one
    assert failed(host.activate(None, name=name, previous=True))[0] == "no_release"
    assert str((worker / "current").readlink()).endswith(one)


def test_a_directory_where_the_link_should_be(pair: tuple[Host, str, str, str]) -> None:
    host, name, one, _two = pair
    worker = Path(host.arguments(name=name)["worker_dir"])
    (worker / "current").mkdir()
    code, text = failed(host.activate(one, name=name))
    assert code == "not_a_link"
    assert "it must be a link, or not exist" in text
    assert {path.name for path in worker.iterdir()} == {"current", "staged"}


@pytest.mark.slow
def test_a_release_whose_interpreter_went_is_built_again(host: Host) -> None:
    make_wheel(host.wheelhouse, "1.2.0")
    first = host.run(version="1.2.0")
    (Path(first["env"]) / "bin" / "python").unlink()
    assert failed(host.activate(first["release"]["id"]))[0] == "no_release"
    again = host.run(version="1.2.0")
    assert (again["changed"], again["env"]) == (True, first["env"])
    assert host.activate(first["release"]["id"])["switched"] is True


# --- absent ---


def test_a_linked_release_is_never_removed(pair: tuple[Host, str, str, str]) -> None:
    host, name, one, two = pair
    host.activate(one, name=name)
    # Another worker asks, but this one links it.
    code, text = failed(host.run(state="absent", release=one, name="other"))
    assert code == "release_linked"
    assert text == f"removing release '{one}': a worker links it; switch that worker to another release first"
    assert host.run(state="absent", release=two, name=name, check_mode=True)["changed"] is True
    assert two in host.releases()
    assert host.run(state="absent", release=two, name=name)["changed"] is True
    assert host.run(state="absent", release=two, name=name)["changed"] is False
    assert one in host.releases()


def test_pruning_keeps_what_is_linked_and_what_is_others(shared: Host) -> None:
    mine = [shared.run(name="pruner", version="1.2.0", port=p)["release"]["id"] for p in (1, 2, 3, 4)]
    other = shared.run(name="sibling", version="1.2.0", port=99)["release"]["id"]
    shared.activate(mine[0], name="pruner")
    result = shared.run(name="pruner", version="1.2.0", port=5, keep=2)
    assert result["pruned"]["releases"] == [mine[1], mine[2]] or set(result["pruned"]["releases"]) == set(mine[1:3])
    left = shared.releases()
    assert {mine[0], mine[3], result["release"]["id"], other} <= set(left)
    assert not {mine[1], mine[2]} & set(left)


@pytest.mark.slow
def test_an_environment_goes_with_its_last_release(host: Host) -> None:
    make_wheel(host.wheelhouse, "1.2.0")
    release = host.run(version="1.2.0")["release"]["id"]
    assert len(host.envs()) == 1
    gone = host.run(state="absent", release=release)
    assert len(gone["pruned"]["envs"]) == 1
    assert host.envs() == []
    assert not (host.base / "pip").exists(), "nor is its pip of use to anybody"


# --- files: what is made is its owner's, and nothing is followed ---


def writable_for_others(folder: Path) -> list[str]:
    return [str(path) for path in (folder, *folder.rglob("*"))
            if not path.is_symlink() and path.lstat().st_mode & 0o022]


def test_without_a_umask_nobody_else_can_write_what_is_made(new_host: Host) -> None:
    """A service manager or a hook may run with any umask; an environment is hundreds of files."""
    make_wheel(new_host.wheelhouse, "1.2.0")
    arguments = new_host.arguments(version="1.2.0")
    before = os.umask(0)
    try:
        staged = start_module("worker_release", arguments)
        locked = start_module("rollout_lock", {
            "worker_dir": arguments["worker_dir"], "rollout_id": "r1", "run_id": "run1"})
    finally:
        os.umask(before)
    assert end_module(staged)["staged"] is True
    assert end_module(locked)["ours"] is True
    assert writable_for_others(new_host.base) == []


@pytest.mark.parametrize("target", ["there", "nowhere"])
def test_a_link_in_the_place_of_the_lock_is_not_followed(host: Host, target: str) -> None:
    make_wheel(host.wheelhouse, "1.2.0")
    arguments = host.arguments(version="1.2.0")
    victim = host.folder / target
    if target == "there":
        victim.write_text("keep me")
    (host.base / "lock").symlink_to(victim)
    code, text = failed(run_module("worker_release", arguments))
    assert (code, "symbolic links" in text) == ("unwritable", True), text
    assert victim.exists() == (target == "there")
    folder = Path(arguments["worker_dir"], "rollout")
    folder.mkdir()
    (folder / "lock").symlink_to(victim)
    code, text = failed(run_module("rollout_lock", {
        "worker_dir": arguments["worker_dir"], "rollout_id": "r1", "run_id": "run1"}))
    assert (code, "symbolic links" in text) == ("unwritable", True), text
    assert victim.exists() == (target == "there")


def test_a_key_that_a_killed_check_left_is_removed_by_the_next_staging(host: Host) -> None:
    key = host.folder / "key"
    key.write_text("0123456789abcdef")
    body = f"import pathlib, time; pathlib.Path({str(host.folder / 'checks')!r}).touch(); time.sleep(600)"
    slow = make_wheel(host.folder / "slow", "1.4.0", body)
    process = start_module("worker_release", host.arguments(package=str(slow), credentials={"api_key": str(key)}))
    await_that((host.folder / "checks").exists)
    kill_tree(process.pid)
    process.communicate(timeout=60)
    [left] = host.base.glob(".credentials-*")
    assert (left / "api_key").read_text() == key.read_text()
    assert left.stat().st_mode & 0o077 == 0
    # What another one needs just now, it keeps: a folder that is locked.
    lent = host.base / ".credentials-busy"
    lent.mkdir()
    handle = os.open(lent, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    make_wheel(host.wheelhouse, "1.2.0")
    assert host.run(version="1.2.0")["staged"] is True
    assert list(host.base.glob(".credentials-*")) == [lent]
    os.close(handle)


# --- an interpreter that becomes another version under the same name ---


def another_python(base: Path) -> Path:
    """Have the one environment look as if it had been built for Python 3.7."""
    [env] = (base / "envs").iterdir()
    [lib] = env.glob("lib/python3.*")
    lib.rename(lib.with_name("python3.7"))
    return env


@pytest.mark.slow
def test_an_environment_for_another_python_is_built_anew_beside_what_still_runs(host: Host) -> None:
    make_wheel(host.wheelhouse, "1.2.0")
    staged = host.run(version="1.2.0")["release"]["id"]
    assert host.activate(staged)["current"] == staged
    env = another_python(host.base)
    # Nobody goes to it, status tells, and a staging that fails leaves it as it is.
    assert failed(host.activate(staged))[0] == "no_release"
    info = {"control_socket": "/tmp/no-such-worker.sock", "worker_dir": str(host.base / "workers/w1")}
    problem = run_module("worker_info", info)["release_problem"]
    assert problem.startswith("it was built for Python 3.7, and its interpreter")
    [pip] = host.base.glob("pip/*/bin/python")
    pip.rename(pip.with_name("kept"))
    pip.write_text("#!/bin/sh\nexit 1\n")
    pip.chmod(0o755)
    assert failed(host.run(version="1.2.0"))[0] == "pip_failed"
    pip.with_name("kept").rename(pip)
    assert run_module("worker_info", info)["release_problem"] == problem
    mended = host.run(version="1.2.0")
    assert (mended["changed"], mended["env"], mended["release"]["id"]) == (True, str(env), staged)
    assert run_module("worker_info", info)["release_problem"] is None
    assert (env / "lib" / "python3.7" / "site-packages" / "solver_worker").is_dir(), "what runs may still load from it"
    assert host.activate(staged)["at_target"] is True
    assert host.run(version="1.2.0")["changed"] is False


@pytest.mark.slow
def test_killed_while_it_rebuilds_for_another_python_what_still_runs_stays(host: Host) -> None:
    make_wheel(host.wheelhouse, "1.2.0")
    host.run(version="1.2.0")
    env = another_python(host.base)
    # As a call leaves it that is killed while it installs: its interpreter is there, and so is what it runs.
    (env / ".complete").unlink()
    lib = env / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    half = lib / "site-packages" / "half"
    half.mkdir(parents=True)
    assert host.run(version="1.2.0")["env"] == str(env)
    assert (env / "lib" / "python3.7" / "site-packages" / "solver_worker").is_dir()
    assert not half.exists()
    # And back to a version that is still there, after a call that was killed before it made anything.
    (env / ".complete").unlink()
    for link in env.glob("bin/python*"):
        link.unlink()
    runs = lib / "site-packages" / "solver_worker" / "__init__.py"
    before = runs.stat().st_ino
    assert host.run(version="1.2.0")["env"] == str(env)
    assert runs.stat().st_ino == before, "what runs is not touched"
    assert (env / ".complete").exists()


def test_what_is_whole_in_an_environment_stays_and_nothing_else(tmp_path: Path) -> None:
    env = tmp_path / "env"
    old, new = env / "lib/python3.11", env / "lib/python3.13"

    def room(lib: Path, marked: bool = False) -> list[str]:
        return [Path(path).name for path in _release_stage.Stage._make_room(str(env), str(lib), marked)]

    old.mkdir(parents=True)
    assert room(old) == [], "its first build was cut off"
    assert not env.exists()
    old.mkdir(parents=True)
    (env / ".complete").touch()
    assert room(new, marked=True) == ["python3.11"]
    assert not (env / ".complete").exists()
    new.mkdir()  # killed while it installs
    assert room(new) == ["python3.11"]
    assert not new.exists()
    new.mkdir()
    assert room(old) == ["python3.11", "python3.13"], "back to what still runs, after a call that was killed"


def test_an_environment_whose_interpreter_is_gone_is_told(tmp_path: Path) -> None:
    release = tmp_path / "releases" / "one"
    (release / "env" / "bin").mkdir(parents=True)
    (release / "env" / "bin" / "python").symlink_to("/nowhere/python3.9")
    worker = tmp_path / "w1"
    worker.mkdir()
    (worker / "current").symlink_to(release)
    found = run_module("worker_info", {"control_socket": "/tmp/no-such-worker.sock", "worker_dir": str(worker)})
    assert found["release_problem"] == "its interpreter '/nowhere/python3.9' is gone"
