# SPDX-License-Identifier: GPL-3.0-or-later
"""Small wheels with a `solver-worker` program, and a way to run a module as a real process."""

from __future__ import annotations

import base64
import fcntl
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from ansible_collections.solver.fleet.plugins.module_utils._wheels import Pip, find_python

ROOT = Path(__file__).resolve().parents[4]

# `check` as a worker's program answers it; PROBLEM and the like are put in by the tests.
PROGRAM = """
import json, sys
VERSION = {version!r}
def main():
    path = sys.argv[sys.argv.index("--config") + 1]
    text = open(path).read()
    {body}
    print(json.dumps({{"ok": True, "version": VERSION, "problems": [], "journal": None}}))
"""


def make_wheel(folder: Path, version: str, body: str = "pass", says: str | None = None) -> Path:
    """A wheel named solver-worker; C(body) runs at the start of its program."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"solver_worker-{version}.dist-info"
    files = {
        "solver_worker/__init__.py": "",
        "solver_worker/cli.py": PROGRAM.format(version=says or version, body=body),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: solver-worker\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nsolver-worker = solver_worker.cli:main\n",
    }
    record = []
    path = folder / f"solver_worker-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(text.encode())}")
            archive.writestr(zipfile.ZipInfo(name), text)
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD"), "\n".join([*record, f"{info}/RECORD,,"]) + "\n")
    return path


@functools.cache
def own_pip() -> Path:
    """The pip that staging makes for the environments of a base directory, made once for the tests of all processes."""
    home = ROOT / ".cache" / "pip"
    home.mkdir(parents=True, exist_ok=True)
    made = Pip(find_python(None, "python"), 120)
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made.settle(str(home))
    return Path(made.python).parents[1]


def lend_pip(base: Path) -> None:
    """Let BASE have it: to make one takes longer than most tests that stage a release."""
    shutil.copytree(own_pip(), base / "pip" / own_pip().name, symlinks=True)


def start_module(name: str, arguments: dict[str, Any], check_mode: bool = False) -> subprocess.Popen[str]:
    document = {"ANSIBLE_MODULE_ARGS": {**arguments, "_ansible_check_mode": check_mode, "_ansible_diff": True}}
    process = subprocess.Popen(
        [sys.executable, "-m", f"ansible_collections.solver.fleet.plugins.modules.{name}"],
        env={**os.environ, "PYTHONPATH": str(ROOT / ".collections")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    process.stdin.write(json.dumps(document))
    process.stdin.close()
    process.stdin = None
    return process


def end_module(process: subprocess.Popen[str], timeout: float = 120) -> dict[str, Any]:
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert out.lstrip().startswith("{"), err
    result: dict[str, Any] = json.loads(out)
    assert "Traceback" not in err, err
    return result


def run_module(name: str, arguments: dict[str, Any], check_mode: bool = False) -> dict[str, Any]:
    return end_module(start_module(name, arguments, check_mode))


def tree(folder: Path) -> dict[str, str]:
    """Names and contents, to see that nothing changed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        content = str(path.readlink()) if path.is_symlink() else path.read_bytes().hex() if path.is_file() else ""
        found[str(path.relative_to(folder))] = content
    return found
