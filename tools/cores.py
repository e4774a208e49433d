# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the playbooks on the oldest supported and on the newest ansible-core that can be installed here.

Each core gets an environment of its own under .cache/cores, made with the newest Python that the core supports among
those on this machine. A core that no Python here can run is said so; it never counts as passed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".cache" / "cores"
# Controller Pythons of each supported core; source: the support matrix in ansible-core's documentation.
CORES: dict[str, tuple[str, ...]] = {
    "2.18": ("3.13", "3.12", "3.11"),
    "2.19": ("3.13", "3.12", "3.11"),
    "2.20": ("3.14", "3.13", "3.12"),
    "2.21": ("3.14", "3.13", "3.12"),
}
# A short proof on each core, with light workers; --real has real ones, and `make traps` takes longest.
TESTS = ("tests/light/test_rollout_smoke.py",)
REAL = ("tests/integration/test_rolling_update.py", "-k", "good_release or one_failure")
# Every trap of Ansible that docs/ansible-traps.md lists, as far as it needs no test host.
TRAPS = ("tests/integration", "tests/faults", "tests/light")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="every supported core, not only the oldest and newest")
    parser.add_argument("--core", choices=CORES, help="this one alone")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--real", action="store_true", help="two rollouts of real workers under traffic instead")
    kind.add_argument("--traps", action="store_true", help="the tests marked as traps instead; takes long")
    args = parser.parse_args()
    found = possible()
    chosen = found if args.all else ends(found)
    if args.core:
        chosen = {core: found[core] for core in found if core == args.core}
    if not chosen:
        print("no supported ansible-core can run on the Pythons of this machine", file=sys.stderr)
        return 1
    print("cores: " + ", ".join(f"{core} on Python {python}" for core, (python, _path) in chosen.items()), flush=True)
    # Each process of the tests sets up a fleet of its own, which takes longer than two tests of it.
    words = [*TRAPS, "-m", "trap", "-n", "2"] if args.traps else REAL if args.real else TESTS
    # The short ones side by side, each told when it has ended; what takes long is watched.
    if not (args.real or args.traps):
        with ThreadPoolExecutor(max_workers=2) as both:
            codes = [*both.map(lambda core: run(core, chosen[core][1], words, whole=True), chosen)]
    else:
        codes = [run(core, path, words) for core, (_python, path) in chosen.items()]
    return int(any(codes))


def possible() -> dict[str, tuple[str, str]]:
    """Return for each core that can run here its Python: (version, path)."""
    found: dict[str, tuple[str, str]] = {}
    for core, pythons in CORES.items():
        for python in pythons:
            path = interpreter(python)
            if path:
                found[core] = (python, path)
                break
    return found


def ends(cores: dict[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    names = list(cores)
    return {name: cores[name] for name in dict.fromkeys((names[0], names[-1]))} if names else {}


def interpreter(version: str) -> str | None:
    """Return a working interpreter of this version; a pyenv shim in the path may not be one."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = pyenv.glob(f"{version}.*/bin/python3") if os.access(pyenv, os.R_OK | os.X_OK) else ()
    candidates = [shutil.which(f"python{version}"), *(str(path) for path in found)]
    for candidate in filter(None, candidates):
        probe = [candidate, "-c", "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(probe, capture_output=True, text=True, check=False, timeout=30)
        if done.returncode == 0 and done.stdout.strip() == version:
            return candidate
    return None


def install(core: str, python: str, name: str = "") -> Path:
    """Make the environment of a core unless it is there; return the folder of its programs."""
    programs = HOME / (name or core) / "bin"
    if not (programs / "ansible-playbook").exists():
        subprocess.run([python, "-m", "venv", "--clear", str(programs.parent)], check=True)
        subprocess.run([str(programs / "python"), "-m", "pip", "install", "--quiet", f"ansible-core~={core}.0"],
                       check=True)
    return programs


def run(core: str, python: str, words: Sequence[str], *, whole: bool = False) -> int:
    """Run the tests on a core; WHOLE says all that they print when they have ended."""
    programs = install(core, python)
    command = [sys.executable, "-m", "pytest", *words, f"--junit-xml={ROOT}/.cache/results/core-{core}.xml"]
    version = subprocess.run([str(programs / "ansible-playbook"), "--version"], capture_output=True, text=True,
                             check=True).stdout.splitlines()[0]
    if not whole:
        print(f"--- {version}", flush=True)
    done = subprocess.run(command, cwd=ROOT, check=False, env={**os.environ, "SOLVER_ANSIBLE_BIN": str(programs)},
                          stdout=subprocess.PIPE if whole else None, stderr=subprocess.STDOUT if whole else None)
    if whole:
        print(f"--- {version}\n{done.stdout.decode(errors='replace')}", flush=True)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
