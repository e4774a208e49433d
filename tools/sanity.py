# SPDX-License-Identifier: GPL-3.0-or-later
"""Run `ansible-test sanity` in a plain virtual environment, without containers.

ansible-test wants the checkout at .../ansible_collections/solver/fleet, so the tracked files are copied there. It also
bootstraps pip with a script from the network, once per environment; where that cannot be had, the pip that comes with
Python does the same, so a stand-in is put into ansible-test's own cache.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".cache" / "sanity"

BOOTSTRAP = '''\
import subprocess, sys
subprocess.run([sys.executable, "-m", "ensurepip"], check=True)
words = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
sys.exit(subprocess.run([sys.executable, "-m", "pip", "install", *words]).returncode)
'''


def main() -> int:
    home, tree = WORK / "home", WORK / "ansible_collections" / "solver" / "fleet"
    _copy_tracked(tree)
    cache = home / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    for name in _bootstrap_names():
        (cache / name).write_text(BOOTSTRAP, encoding="utf-8")
    _keep_pip_settings(home)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = [str(Path(sys.executable).parent / "ansible-test"), "sanity", "--venv", "--python", version,
               "--color", "no", *sys.argv[1:]]
    return subprocess.run(command, cwd=tree, env={**os.environ, "HOME": str(home)}, check=False).returncode


def _copy_tracked(tree: Path) -> None:
    """The files that git knows or would take, and nothing that a build left lying about."""
    output = tree / "tests" / "output"
    keep = WORK / "output"
    if output.exists():
        shutil.rmtree(keep, ignore_errors=True)
        output.rename(keep)
    shutil.rmtree(tree, ignore_errors=True)
    names = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                           check=True, capture_output=True).stdout.decode().split("\0")
    for name in filter(None, names):
        source = ROOT / name
        if source.is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, tree / name)
    # ansible-test asks git which files there are; in an ignored folder the answer would be none.
    subprocess.run(["git", "init", "--quiet"], cwd=tree, check=True)
    subprocess.run(["git", "add", "--all"], cwd=tree, check=True)
    if keep.exists():
        (tree / "tests").mkdir(exist_ok=True)
        keep.rename(output)


def _bootstrap_names() -> list[str]:
    """The names under which ansible-test looks for its bootstrap script; they differ between releases."""
    import ansible_test._internal.python_requirements as requirements  # noqa: PLC0415

    text = Path(requirements.__file__).read_text(encoding="utf-8")
    versions = {word.strip("'\"") for word in text.replace(",", " ").replace(")", " ").split()
                if word.strip("'\"").replace(".", "").isdigit() and "." in word}
    versions |= {"20.3.4", "21.3.1", "24.2", "25.2"}
    return sorted(f"get_pip_{version.replace('.', '_')}.py" for version in versions)


def _keep_pip_settings(home: Path) -> None:
    """ansible-test scrubs pip's variables, and HOME is another one here: carry the settings over as a file."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True)
    settings = [line.split("=", 1) for line in listed.stdout.splitlines() if "=" in line]
    lines = ["[global]"]
    for name, value in settings:
        text = value.strip("'\"").replace("\\n", "\n    ")
        lines.append(f"{name.split('.', 1)[1]} = {text}")
    path = home / ".config" / "pip" / "pip.conf"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(dict.fromkeys(lines)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
