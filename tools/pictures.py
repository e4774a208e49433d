# SPDX-License-Identifier: GPL-3.0-or-later
"""`make pictures`: the pictures of the README, of a real rollout of light workers: the terminal, and its report.

Needs tmux and Chromium (Debian: tmux, chromium). What would be of this machine alone is told as of another.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
MOST_BYTES = 200_000
COLUMNS, LINES = 100, 40
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome") or ""
TYPED = "$ ansible-playbook -i inventory.yml solver.fleet.rolling_update -e solver_version=1.3.0"
ROLLOUT: dict[str, Any] = {"solver_version": "1.3.0", "solver_stages": "1,50%,100%", "solver_max_unavailable": 2,
                           "solver_reason": "weekly release", "solver_max_fail_percentage": 20}
PAGE = """<!doctype html><meta charset=utf-8><style>body {{ margin: 0; background: #101418; color: #d7dde3 }}
pre {{ margin: 0; padding: 14px 18px; font: 13px/1.4 "DejaVu Sans Mono", monospace }}</style><pre>{code}</pre>"""


def main() -> int:
    missing = [name for name, found in (("tmux", shutil.which("tmux")), ("chromium", CHROMIUM)) if not found]
    if missing:
        print(f"making the pictures: {' and '.join(missing)} is not installed")
        return 1
    sys.path[:0] = [str(ROOT / folder) for folder in (
        ".collections", "tests/light", "tests/integration", "roles/worker/files/solver-worker/src",
        "roles/worker/files/solver-worker/tests")]
    PICTURES.mkdir(exist_ok=True)
    fleet = importlib.import_module("lightfleet").LightFleet(ROOT / ".cache" / "light" / "pictures")
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as folder:
        try:
            fleet.up(8, drain_s=(13.0, 20.0), load=14, solver_drain_timeout=40, solver_progress_deadline=200)
            fleet.set_fault("w5", version="1.3.0", probe="release")
            _terminal(fleet, Path(folder))
            _report(fleet, Path(folder))
        finally:
            fleet.down()
    sizes = {path.name: path.stat().st_size for path in sorted(PICTURES.glob("*.png"))}
    print("\n".join(f"{PICTURES / name}: {size / 1000:.0f} kB" for name, size in sizes.items()))
    return 0 if max(sizes.values()) < MOST_BYTES else 1


def _terminal(fleet: Any, folder: Path) -> None:
    """Run the rollout in a real terminal; the picture is of the moment when two workers are left."""
    command = ["env", f"ANSIBLE_CONFIG={ROOT / 'ansible.cfg'}", "TERM=xterm-256color",
               str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(fleet.inventory),
               "solver.fleet.rolling_update", "-e", json.dumps(ROLLOUT)]
    tmux = ["tmux", "-S", str(folder / "s"), "-f", "/dev/null"]
    shown = folder / "run.sh"
    typed = f"printf '%s\\n' {shlex.quote(TYPED)}"
    shown.write_text(f"cd {shlex.quote(str(ROOT))}\n{typed}\n{shlex.join(command)}\nread x\n", encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "NO_COLOR", "TMUX")}
    subprocess.run([*tmux, "new-session", "-d", "-x", str(COLUMNS), "-y", str(LINES), f"sh {shown}"], check=True,
                   env=environment)

    def screen() -> str:
        return subprocess.run([*tmux, "capture-pane", "-p", "-e"], check=True, capture_output=True, text=True).stdout
    try:
        half = _wait(screen, lambda text: re.search(r"[56]/8 done \|.*\n  w7 .*tasks open, .*\n  w8 ", text))
        _wait(lambda: fleet.verdict()["verdict"] if (fleet.dir / "verdict.json").exists() else "",
              lambda word: word not in ("", "interrupted"))
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)
    # Ansible's own warning about max_fail_percentage is of no interest; what is "default" is the page's.
    half = re.sub(r"(?s)\x1b[^\n]*\[WARNING\]: Using max_fail_percentage.*?on each host\n", "", half).rstrip()
    text = Text.from_ansi(re.sub(r"\x1b\[[34]9m", "\x1b[0m", half))
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(text, soft_wrap=True)
    (folder / "terminal.html").write_text(
        PAGE.format(code=console.export_html(inline_styles=True, code_format="{code}").strip("\n")), encoding="utf-8")
    _picture(folder / "terminal.html", "terminal", 830, 30 + 18 * len(half.splitlines()))


def _report(fleet: Any, folder: Path) -> None:
    from ansible_collections.solver.fleet.plugins.plugin_utils._controller._report_file import (  # noqa: PLC0415
        write_report,
    )
    document = fleet.verdict()
    document["who"] = {"user": "ada", "job": None, "host": "deck"}
    document["settings"] = {name: value for name, value in document["settings"].items()
                            if name in ROLLOUT or name == "solver_on_abort"}
    wrong = write_report(str(folder / "report.html"), document)
    if wrong:
        raise SystemExit(wrong[0])
    _picture(folder / "report.html", "report", 1280, 1400)


def _wait(ask: Callable[[], str], enough: Callable[[str], Any], within: float = 300.0) -> str:
    ends = time.monotonic() + within
    while not enough(said := ask()):
        if time.monotonic() > ends:
            raise SystemExit(f"making the pictures: the rollout did not come so far in {within:.0f} s:\n{said}")
        time.sleep(0.1)
    return said


def _picture(page: Path, name: str, width: int, height: int) -> None:
    subprocess.run(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         f"--user-data-dir={page.parent / 'profile'}", "--blink-settings=preferredColorScheme=1",
         f"--window-size={width},{height}", f"--screenshot={PICTURES / name}.png", page.as_uri()],
        check=True, capture_output=True, timeout=120)


if __name__ == "__main__":
    sys.exit(main())
