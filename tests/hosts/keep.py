# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep test hosts and their sandbox provider for the molecule scenarios.

``up`` comes back when the inventory is written; a process in the background then runs the provider, and ``down`` ends
it and removes the hosts. Three workers on two hosts, and a router on a third.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "integration")]
from fleetlib import wait_for  # noqa: E402
from hostlib import HostFleet  # noqa: E402
from lab import ROOT, Lab  # noqa: E402

FOLDER = ROOT / ".cache" / "molecule-hosts"


def lab() -> Lab:
    return Lab(FOLDER / "lab", hosts=2, routers=1)


def keeper() -> int | None:
    """The process in the background, if it is still ours."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((FOLDER / "keeper.pid").read_text())
        if str(Path(__file__).name) in Path(f"/proc/{pid}/cmdline").read_text():
            return pid
    return None


def up() -> int:
    if keeper() is not None:
        return 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    log = FOLDER / "keeper.log"
    with log.open("wb") as stream:
        child = subprocess.Popen([sys.executable, __file__, "hold"], stdin=subprocess.DEVNULL, stdout=stream,
                                 stderr=stream, start_new_session=True)
    wait_for(lambda: keeper() == child.pid or child.poll() is not None, "the test hosts", 600)
    if child.poll() is not None:
        print(log.read_text(), file=sys.stderr)
        return 1
    return 0


def hold() -> int:
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    made = lab()
    made.down()
    made.up()
    folder = FOLDER / "fleet"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    fleet = HostFleet(folder, made)
    try:
        fleet.place(w1="h1", w2="h2", w3="h1")
        fleet.route("r1")
        (FOLDER / "keeper.pid").write_text(str(os.getpid()))
        signal.pause()
    finally:
        fleet.close()


def down() -> int:
    pid = keeper()
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: keeper() is None, "the keeper to end", 60)
    lab().down()
    shutil.rmtree(FOLDER, ignore_errors=True)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["up", "hold", "down"])
    return {"up": up, "hold": hold, "down": down}[parser.parse_args().command]()


if __name__ == "__main__":
    sys.exit(main())
