# SPDX-License-Identifier: GPL-3.0-or-later
"""wheelhouse as a real process, building a small project."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from release_kit import end_module, make_wheel, run_module, start_module, tree

pytestmark = pytest.mark.programs

PROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
# A build backend of a few lines, so that no test needs an index.
BACKEND = """\
import pathlib, re, zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    if pathlib.Path("broken").exists():
        raise SystemExit("the build broke at https://user:sesame@index.invalid/simple")
    version = re.search('"(.*)"', pathlib.Path("src/solver_worker/_version.py").read_text()).group(1)
    info = f"solver_worker-{version}.dist-info"
    extra = pathlib.Path("extra").read_text() if pathlib.Path("extra").exists() else ""
    needs = "Requires-Dist: tiny-dependency\\n" if pathlib.Path("needs").exists() else ""
    name = f"solver_worker-{version}-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder) / name, "w") as archive:
        for path, text in {
            "solver_worker/__init__.py": extra,
            f"{info}/METADATA": f"Metadata-Version: 2.1\\nName: solver-worker\\nVersion: {version}\\n{needs}",
            f"{info}/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
            f"{info}/RECORD": "",
        }.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return name
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "src" / "solver_worker").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "backend.py").write_text(BACKEND)
    (folder / "src" / "solver_worker" / "_version.py").write_text('__version__ = "1.3.0"\n')
    return folder


@pytest.fixture
def wishes(project: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "path": str(tmp_path / "wheels"),
        "source": str(project),
        "versions": ["1.2.0", "1.3.0"],
        "no_index": True,
    }


def failed(result: dict[str, Any]) -> tuple[str, str]:
    assert result.get("failed"), result
    return result["failure"]["code"], result["msg"]


def test_builds_once_and_then_calls_nothing(wishes: dict[str, Any], project: Path) -> None:
    predicted = run_module("wheelhouse", wishes, check_mode=True)
    assert predicted["changed"] is True
    assert not Path(wishes["path"]).exists()
    first = run_module("wheelhouse", wishes)
    assert first["changed"] is True
    assert [w["version"] for w in first["wheels"]] == ["1.2.0", "1.3.0"]
    assert (project / "src" / "solver_worker" / "_version.py").read_text() == '__version__ = "1.3.0"\n'
    before = tree(Path(wishes["path"]))
    # An interpreter that cannot work shows that none is called.
    again = run_module("wheelhouse", {**wishes, "python": "/bin/false"})
    assert (again["changed"], again["built"], again["wheels"]) == (False, [], first["wheels"])
    assert run_module("wheelhouse", wishes, check_mode=True)["changed"] is False
    assert tree(Path(wishes["path"])) == before
    assert sorted(p.name for p in Path(wishes["path"]).iterdir())[:2] == [".lock", ".wheelhouse.json"]


def test_a_second_run_is_fast(wishes: dict[str, Any]) -> None:
    run_module("wheelhouse", wishes)
    began = time.monotonic()
    run_module("wheelhouse", wishes)
    assert time.monotonic() - began < 2


def test_the_same_source_gives_the_same_bytes(wishes: dict[str, Any]) -> None:
    first = run_module("wheelhouse", wishes)
    shutil.rmtree(wishes["path"])
    assert run_module("wheelhouse", wishes)["wheels"] == first["wheels"]


def test_what_changed_is_built_again_and_nothing_else(wishes: dict[str, Any], project: Path, tmp_path: Path) -> None:
    first = run_module("wheelhouse", wishes)
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    (overlay / "extra").write_text("x = 1\n")
    over = run_module("wheelhouse", {**wishes, "overlays": {"1.2.0": str(overlay)}})
    assert over["built"] == ["build:project@1.2.0"]
    assert over["wheels"][0]["sha256"] != first["wheels"][0]["sha256"]
    assert over["wheels"][1] == first["wheels"][1]
    (project / "extra").write_text("y = 2\n")
    assert len(run_module("wheelhouse", wishes)["built"]) == 2
    (project / "__pycache__").mkdir()
    (project / "__pycache__" / "x.pyc").write_text("")
    assert run_module("wheelhouse", wishes)["changed"] is False


def test_a_wheel_that_went_or_was_spoilt_comes_back(wishes: dict[str, Any]) -> None:
    first = run_module("wheelhouse", wishes)
    (Path(wishes["path"]) / first["wheels"][0]["file"]).unlink()
    (Path(wishes["path"]) / first["wheels"][1]["file"]).write_text("spoilt")
    assert run_module("wheelhouse", wishes)["wheels"] == first["wheels"]


def test_dependencies_come_from_the_links(wishes: dict[str, Any], project: Path, tmp_path: Path) -> None:
    (project / "needs").write_text("")
    links = tmp_path / "links"
    code, text = failed(run_module("wheelhouse", wishes))
    assert code == "pip_failed"
    assert "tiny-dependency" in text
    wheel = make_wheel(links, "7.0")
    wheel.unlink()
    import zipfile

    with zipfile.ZipFile(links / "tiny_dependency-7.0-py3-none-any.whl", "w") as archive:
        info = "tiny_dependency-7.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-dependency\nVersion: 7.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    result = run_module("wheelhouse", {**wishes, "find_links": [str(links)]})
    assert [w["file"].split("-")[0] for w in result["wheels"]] == ["solver_worker", "solver_worker", "tiny_dependency"]
    assert len(result["built"]) == 1, "what was built before the failure is kept"
    assert run_module("wheelhouse", {**wishes, "dependencies": False})["changed"] is False


def test_two_at_once_build_it_once(wishes: dict[str, Any]) -> None:
    running = [start_module("wheelhouse", wishes) for _number in range(2)]
    results = [end_module(process) for process in running]
    assert sorted(len(r["built"]) for r in results) == [0, 2]
    assert results[0]["wheels"] == results[1]["wheels"]


def test_a_requirement_is_fetched_once(tmp_path: Path) -> None:
    make_wheel(tmp_path / "links", "1.3.0")
    wishes = {
        "path": str(tmp_path / "wheels"),
        "requirements": ["solver-worker==1.3.0"],
        "find_links": [str(tmp_path / "links")],
        "no_index": True,
    }
    assert run_module("wheelhouse", wishes)["built"] == ["requirement:solver-worker==1.3.0"]
    assert run_module("wheelhouse", wishes)["changed"] is False
    code, text = failed(run_module("wheelhouse", {**wishes, "requirements": ["solver-worker==9.9"]}))
    assert code == "pip_failed"
    assert text.startswith("fetching the requirement 'solver-worker==9.9': ERROR: No matching distribution found")
    assert text.endswith("check requirements, or wheelhouse or find_links")


def test_a_build_that_breaks_shows_the_end_without_secrets(wishes: dict[str, Any], project: Path) -> None:
    (project / "broken").write_text("")
    address = "https://user:sesame@index.invalid/simple"
    result = run_module("wheelhouse", {**wishes, "extra_index_urls": [address]})
    assert failed(result)[0] == "pip_failed"
    shown = json.dumps(result)
    assert "the build broke at https://********@index.invalid" in shown
    assert "sesame" not in shown
    assert list(Path(wishes["path"]).glob(".build*")) == []


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"versions": ["one"]}, "bad_version", "building version 'one': it is no version in its normal spelling"),
        ({"overlays": {"9.9": "/tmp"}}, "bad_overlay", "overlays names it, versions does not"),
        ({"overlays": {"1.2.0": "/no/such"}}, "no_source", "set overlays to one that exists"),
        ({"source": "/no/such"}, "no_source", "set source to one that exists"),
        ({"source": None}, "no_source", "set source or requirements"),
        ({"requirements": ["--index-url=x"]}, "bad_requirement", "correct it in requirements"),
        ({"version_file": "no/such.py"}, "no_version_file", "set version_file"),
        ({"version_file": "pyproject.toml"}, "no_version_line", "must have one line '__version__"),
        ({"python": "/bin/false"}, "no_python", "name it in python"),
        ({"path": "/dev/null/wheels"}, "unwritable", "set path"),
    ],
)
def test_bad_input_names_the_option(wishes: dict[str, Any], change: dict[str, Any], code: str, text: str) -> None:
    wishes = {k: v for k, v in {**wishes, **change}.items() if v is not None}
    found, message = failed(run_module("wheelhouse", wishes))
    assert (found, text in message) == (code, True), message


def test_a_version_file_that_is_not_the_source_of_the_version(wishes: dict[str, Any], project: Path) -> None:
    (project / "other.py").write_text('__version__ = "0"\n')
    code, text = failed(run_module("wheelhouse", {**wishes, "version_file": "other.py"}))
    assert code == "version_mismatch"
    assert "building version 1.2.0: the wheel says 1.3.0; set version_file" in text
