# SPDX-License-Identifier: GPL-3.0-or-later
"""Wheels brought by the real action over a connection that transfers files, and the host's part as a process."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.module_utils._files import StepError
from ansible_collections.solver.fleet.plugins.module_utils._wheelhouse_copy import place

sys.path.insert(0, str(Path(__file__).parents[1] / "modules"))
from release_kit import run_module, tree

pytestmark = pytest.mark.programs

ROOT = Path(__file__).resolve().parents[4]
OLD, NEW, NEEDED = (f"{name}-py3-none-any.whl" for name in ("solver_worker-1.2.0", "solver_worker-1.3.0", "other-2.0"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for name in (OLD, NEW, NEEDED, ".wheelhouse.json", ".lock", "notes.txt"):
        (folder / name).write_text(f"content of {name}")
    return folder


def bring(source: Path, dest: Path, *words: str, release: str | None = NEW, pipelining: bool = True) -> dict[str, Any]:
    """One ad hoc task; the local connection carries files as a remote one does."""
    out = source.parent / "out"
    args = {"src": str(source), "dest": str(dest), **({"release": release} if release else {})}
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible"), "-i", "w1,", "w1", "-c", "ansible.builtin.local",
         "-m", "solver.fleet.wheelhouse_copy", "-a", json.dumps(args),
         "-e", f"ansible_python_interpreter={sys.executable}",
         "--tree", str(out), *words],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_PIPELINING": str(pipelining)},
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    found: dict[str, Any] = json.loads((out / "w1").read_text())
    return {**found, "failed": done.returncode != 0, "shown": done.stdout}


@pytest.mark.parametrize("pipelining", [True, False])
def test_what_the_release_needs_is_brought_once(source: Path, tmp_path: Path, pipelining: bool) -> None:
    dest = tmp_path / "made" / "wheelhouse"
    first = bring(source, dest, pipelining=pipelining)
    assert (first["changed"], first["missing"]) == (True, [NEEDED, NEW])
    assert tree(dest) == {name: (source / name).read_bytes().hex() for name in (NEEDED, NEW)}
    assert (dest / NEW).stat().st_mode & 0o777 == 0o644
    again = bring(source, dest, pipelining=pipelining)
    assert (again["changed"], again["missing"]) == (False, [])


def test_only_what_is_missing_or_differs_is_brought(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "wheelhouse"
    assert bring(source, dest, release=OLD)["missing"] == [NEEDED, OLD]
    (dest / NEEDED).write_text("cut short")
    assert bring(source, dest)["missing"] == [NEEDED, NEW]
    assert (dest / NEEDED).read_text() == (source / NEEDED).read_text()
    assert (dest / OLD).exists(), "what the host alone has is left alone"


def test_without_a_release_all_wheels_are_brought(source: Path, tmp_path: Path) -> None:
    assert bring(source, tmp_path / "wheelhouse", release=None)["missing"] == [NEEDED, OLD, NEW]


def test_a_prediction_writes_nothing(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "wheelhouse"
    done = bring(source, dest, "--check", "--diff")
    assert (done["changed"], done["missing"]) == (True, [NEEDED, NEW])
    assert f"+{NEEDED}\n+{NEW}\n" in done["shown"]
    assert not dest.exists()


def test_a_missing_source_names_its_option(tmp_path: Path) -> None:
    done = bring(tmp_path / "nowhere", tmp_path / "wheelhouse")
    assert (done["failed"], done["failure"]["code"]) == (True, "no_wheelhouse")
    assert "set src" in done["msg"]


def test_a_place_that_cannot_be_written_names_its_option(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = bring(source, tmp_path / "file" / "wheelhouse")
    assert (done["failed"], done["failure"]["code"]) == (True, "unwritable")
    assert "set dest" in done["msg"]


def packed(folder: Path, **content: str) -> Path:
    for name, text in content.items():
        (folder / name).write_text(text)
    with tarfile.open(folder / "wheels.tar", "w") as archive:
        for name in content:
            archive.add(folder / name, arcname=f"{name}-1.0-py3-none-any.whl")
    return folder / "wheels.tar"


def placed(bundle: Path, dest: Path, check_mode: bool = False, **content: str) -> dict[str, Any]:
    wheels = [{"file": f"{name}-1.0-py3-none-any.whl", "sha256": hashlib.sha256(text.encode()).hexdigest()}
              for name, text in content.items()]
    return run_module("wheelhouse_copy", {"src": "/src", "dest": str(dest), "wheels": wheels, "bundle": str(bundle)},
                      check_mode)


def test_the_hosts_part_writes_nothing_in_check_mode(tmp_path: Path) -> None:
    done = placed(packed(tmp_path, a="one"), tmp_path / "wheelhouse", check_mode=True, a="one")
    assert (done["changed"], done["missing"]) == (True, ["a-1.0-py3-none-any.whl"])
    assert not (tmp_path / "wheelhouse").exists()


@pytest.mark.parametrize("expected", [{"a": "another"}, {"a": "one", "b": "two"}], ids=["digest", "lacks one"])
def test_what_arrives_damaged_gets_no_name(tmp_path: Path, expected: dict[str, str]) -> None:
    dest = tmp_path / "wheelhouse"
    done = placed(packed(tmp_path, a="one"), dest, **expected)
    assert (done["failed"], done["failure"]["code"]) == (True, "damaged")
    assert [path.read_text() for path in dest.iterdir()] == (["one"] if "b" in expected else [])


def test_a_full_disk_is_told_from_a_place_that_may_not_be_written(tmp_path: Path) -> None:
    """A limit on the size of files stands for it."""
    bundle, before = packed(tmp_path, a="one" * 9000), resource.getrlimit(resource.RLIMIT_FSIZE)
    digest = hashlib.sha256(b"one" * 9000).hexdigest()
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(StepError) as caught:
            place(str(bundle), str(tmp_path / "wheelhouse"), {"a-1.0-py3-none-any.whl": digest})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.code == "no_space"
    assert not list((tmp_path / "wheelhouse").iterdir())


def test_a_bundle_cut_short_is_damaged(tmp_path: Path) -> None:
    bundle = packed(tmp_path, a="one" * 9000)
    os.truncate(bundle, 5000)
    done = placed(bundle, tmp_path / "wheelhouse", a="one" * 9000)
    assert (done["failed"], done["failure"]["code"]) == (True, "damaged")
    assert not list((tmp_path / "wheelhouse").iterdir())


def test_a_bundle_that_vanished_does_not_blame_the_wheelhouse(tmp_path: Path) -> None:
    done = placed(tmp_path / "gone.tar", tmp_path / "wheelhouse", a="one")
    assert (done["failed"], done["failure"]["code"]) == (True, "unreadable")
    assert "gone.tar" in done["msg"]
    assert "dest" not in done["msg"]


@pytest.mark.parametrize("name", ["../a-1.0-py3-none-any.whl", "/tmp/a-1.0-py3-none-any.whl", "a.txt"])
def test_no_name_leads_elsewhere(tmp_path: Path, name: str) -> None:
    done = run_module("wheelhouse_copy", {"src": "/src", "dest": str(tmp_path / "wheelhouse"), "bundle": "/nowhere",
                                          "wheels": [{"file": name, "sha256": "0" * 64}]})
    assert (done["failed"], done["failure"]["code"]) == (True, "unreadable")
