# SPDX-License-Identifier: GPL-3.0-or-later
"""The embedded fleet: repeatable, at home in deep folders, and gone when it is removed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fleetlib import ROOT, Fleet, lend_wheels, wait_for


def processes_of(folder: Path) -> list[str]:
    """Command lines of all processes that name the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if f"{folder}/" in line:
                found.append(line)
    return found


@pytest.fixture
def make_fleet(tmp_path_factory) -> Iterator[Callable[[int], Fleet]]:
    """These are about the setting up itself."""
    fleet = Fleet(tmp_path_factory.mktemp("fleet"))
    yield fleet.up
    assert fleet.down(purge=True).returncode == 0


def test_it_can_be_set_up_twice_and_leaves_nothing_running(make_fleet):
    fleet: Fleet = make_fleet(2)
    boots = {name: fleet.status(name)["instance"]["boot_id"] for name in fleet.hosts()}
    run_dir = Path(fleet.socket("w1")).parents[1]
    tools = (fleet.dir / "tools/pyvenv.cfg").stat().st_ino
    again = fleet.playbook("local_fleet", inventory=Path(os.devnull), solver_local_fleet_dir=str(fleet.dir),
                           solver_local_fleet_size=2)
    assert again.returncode == 0, again.stdout
    assert {name: fleet.status(name)["instance"]["boot_id"] for name in fleet.hosts()} == boots
    assert run_dir.stat().st_mode & 0o777 == 0o700
    assert (fleet.dir / "tools/pyvenv.cfg").stat().st_ino == tools, "supervisor runs from there: not made anew under it"
    done = fleet.down()
    assert done.returncode == 0, done.stdout
    assert processes_of(fleet.dir) == []
    assert not run_dir.exists()


def test_a_killed_supervisor_leaves_no_orphans(make_fleet):
    fleet: Fleet = make_fleet(2)
    run_dir = Path(fleet.socket("w1")).parents[1]
    os.kill(int((run_dir / "supervisord.pid").read_text(encoding="ascii")), signal.SIGKILL)
    assert processes_of(fleet.dir)  # the workers live on
    done = fleet.down()
    assert done.returncode == 0, done.stdout
    wait_for(lambda: not processes_of(fleet.dir), "the orphans to end")


def test_it_works_at_a_path_of_150_characters(tmp_path):
    deep = tmp_path / ("d" * (150 - len(str(tmp_path)) - 2))
    fleet = Fleet(deep)
    assert len(str(deep)) >= 149
    try:
        fleet.up(2)
        assert all(len(os.fsencode(fleet.socket(name))) <= 107 for name in fleet.hosts())
        done = fleet.roll("1.3.0")
        assert done.returncode == 0, done.stdout
        assert set(fleet.versions().values()) == {"1.3.0"}
    finally:
        assert fleet.down(purge=True).returncode == 0
    assert not deep.exists()


@pytest.fixture
def demo_folder(fleet_folder):
    """Of its own: the demo would end the fleet that other tests share, which takes a minute to set up again.

    The releases are there, as for whoever runs the demo a second time; that the fleet's playbook builds them is for
    the tests above, in the campaign.
    """
    folder = fleet_folder.with_name(f"{fleet_folder.name}.demo")
    Fleet(folder).down()
    lend_wheels(folder / "wheelhouse", ["1.2.0", "1.3.0"], {})
    return folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_can_be_interrupted_at_any_time(demo_folder, number):
    demo = subprocess.Popen([sys.executable, str(ROOT / "tools/demo.py"), "--dir", str(demo_folder), "--size", "2",
                             "--rate", "8"], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, start_new_session=True)
    book = demo_folder / "book.jsonl"
    book.unlink(missing_ok=True)
    try:
        wait_for(lambda: book.exists() and book.stat().st_size > 0, "traffic", timeout=120)
        os.kill(demo.pid, number)
        out, _none = demo.communicate(timeout=60)
    finally:
        if demo.poll() is None:
            os.killpg(demo.pid, signal.SIGKILL)
    assert demo.returncode == 130, out.decode()
    assert processes_of(demo_folder) == []
    assert not (demo_folder / "inventory.yml").exists()


@pytest.mark.quick
def test_the_demo_leaves_verdict_and_audit(demo_folder):
    done = subprocess.run([sys.executable, str(ROOT / "tools/demo.py"), "--dir", str(demo_folder), "--size", "2",
                           "--rate", "8"], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=480, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    verdict = json.loads((demo_folder / "verdict.json").read_text(encoding="utf-8"))
    assert verdict["verdict"] == "completed"
    assert [worker["outcome"] for worker in verdict["workers"]] == ["updated", "updated"]
    assert all(worker["open_at_drain"] >= 10 for worker in verdict["workers"])
    assert set(verdict["audit"]) == {"accepted", "answered", "failed", "expired", "uncertain", "lost", "wrong",
                                     "billed_twice", "refused"}
    assert verdict["audit"]["accepted"] == verdict["audit"]["answered"] > 0
    assert sum(verdict["audit"][name] for name in verdict["audit"] if name not in ("accepted", "answered")) == 0
    assert processes_of(demo_folder) == []
