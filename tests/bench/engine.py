# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the engine: what a turn costs, how well the window slides, and what a large fleet costs.

  python tests/bench/engine.py turn [--before COMMIT]   time per worker beyond what is needed, four real workers
  python tests/bench/engine.py window                   24 light workers, window 4: sliding, waves, and the bounds
  python tests/bench/engine.py sizes [100 300 1000]     seconds, processor time and memory per worker, window 10 %
  python tests/bench/engine.py switch                   drains of 30 s: in place, handed over, by standbys
  python tests/bench/engine.py plain                    the same work by a playbook of builtin modules, staged before

Machines differ, and shared ones differ from minute to minute: compare figures of one run, not of two.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / part) for part in ("tests/light", "tests/integration", "tests/faults", ".collections")]

from faultlib import Sampler  # noqa: E402
from fleetlib import SANDBOX, Fleet  # noqa: E402
from lightfleet import LightFleet  # noqa: E402

WORK = ROOT / ".cache" / "bench"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["turn", "window", "sizes", "switch", "plain"])
    parser.add_argument("values", nargs="*", type=int, help="sizes of fleets")
    parser.add_argument("--before", default="", help="turn: also this commit, in the same run")
    args = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} before")
    {"turn": lambda: turn(args.before), "window": window, "sizes": lambda: sizes(args.values or [100, 300]),
     "switch": switch, "plain": plain}[args.what]()
    return 0


# -- what a switch costs ------------------------------------------------------------------------------

# A process needs a second until it answers, and a probe three: what a real one takes.
PROCESS = {"start_s": 1.0, "probe_s": 3.0}
WAYS: dict[str, dict[str, Any]] = {
    "in place, complete": {}, "in place, handover": {"solver_drain_mode": "handover"},
    "standby": {"solver_switch": "standby"}, "standby, all raised at once": {
        "solver_switch": "standby", "solver_surge": "100%"},
    "blue-green": {"solver_strategy": "blue_green", "solver_blue_keep": 0}}


def switch() -> None:
    """Roll four workers one by one to a good release, and to one whose probe fails; say how long who was out."""
    fleet = LightFleet(WORK / "switch")
    for name, settings in WAYS.items():
        for release, fault in (("good", {}), ("bad", {"probe": "release"})):
            fleet.up(4, drain_s=30, load=3, solver_drain_timeout=60, solver_progress_deadline=300)
            fleet.set_fault(**PROCESS)
            fleet.set_fault(version="1.3.0", **PROCESS, **fault)
            began = time.monotonic()
            done = fleet.roll("1.3.0", solver_max_fail_percentage=0, **settings)
            took = time.monotonic() - began
            assert (done.returncode == 0) == (release == "good"), done.stdout
            print(f"{name:<28} {release:<5} {took:6.1f} s, {out_s(fleet.events()):6.1f} worker-seconds out of service")
    fleet.down()


def out_s(events: Sequence[dict[str, Any]]) -> float:
    """Return for how long workers took no task, from when each served first, added up."""
    since: dict[str, float] = {}
    served, total = set[str](), 0.0
    for event in events:
        if "state" not in event:
            continue
        name, at = event["worker"], float(event["at"])
        if event["accepting"]:
            total += at - since.pop(name, at)
            served.add(name)
        elif name in served:
            since.setdefault(name, at)
    return total


# -- what a turn costs -------------------------------------------------------------------------------


def turn(before: str) -> None:
    """Roll four real workers one by one; needed are the drain, the restart and the verification."""
    engines = {"now": ROOT, **({before[:12]: checkout(before)} if before else {})}
    with fleet_of_four() as fleet:
        for round_, (name, tree) in enumerate([*engines.items()] * 2):
            version = "1.3.0" if round_ % 2 == 0 else "1.2.0"
            period, needed = rolled(fleet, tree, version)
            print(f"{name:<14} to {version}: {period:.2f} s a worker, {needed:.2f} s of it needed, "
                  f"{period - needed:.2f} s beyond")


@contextlib.contextmanager
def fleet_of_four() -> Iterator[Fleet]:
    fleet = Fleet(WORK / "four")
    fleet.dir.mkdir(exist_ok=True)
    fleet.up(4, solver_local_fleet_sandbox=SANDBOX)
    try:
        yield fleet
    finally:
        fleet.down()


def checkout(commit: str) -> Path:
    """Return a tree of COMMIT that Ansible finds as the collection."""
    tree = WORK / f"tree-{commit[:12]}"
    shutil.rmtree(tree, ignore_errors=True)
    (tree / ".collections/ansible_collections/solver").mkdir(parents=True)
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x"], cwd=tree, input=archive, check=True)
    (tree / ".collections/ansible_collections/solver/fleet").symlink_to("../../..")
    return tree


def rolled(fleet: Fleet, tree: Path, version: str) -> tuple[float, float]:
    """Return the seconds from one worker's drain to the next one's, and how many of them were needed."""
    seen = Sampler(fleet)
    thread = threading.Thread(target=seen.run, daemon=True)
    thread.start()
    try:
        env = {"ANSIBLE_CONFIG": str(tree / "ansible.cfg"), "ANSIBLE_COLLECTIONS_PATH": str(tree / ".collections")}
        done = fleet.playbook("rolling_update", env=env, solver_version=version, solver_min_healthy_time=0)
    finally:
        seen.stop.set()
        thread.join()
    assert done.returncode == 0, done.stdout
    begins = sorted(first_drain(seen, name) for name in fleet.hosts())
    period = (begins[-1] - begins[0]) / (len(begins) - 1)
    timings = [worker["timings"] for worker in fleet.verdict()["workers"]]
    waits = statistics.mean(own["drain"] + own["verify"] for own in timings)
    return period, waits + statistics.mean(gap(seen, name) for name in fleet.hosts())


def first_drain(seen: Sampler, name: str) -> float:
    return next(sample.at for sample in seen.samples if (sample.workers.get(name) or {}).get("drain"))


def gap(seen: Sampler, name: str) -> float:
    """How long nobody answered at the worker's socket: its restart."""
    silent = [sample.at for sample in seen.samples if sample.workers.get(name) is None]
    return silent[-1] - silent[0] if silent else 0.0


# -- how well the window slides ----------------------------------------------------------------------


def window() -> None:
    """Three seeds; the bounds are of the turns as they were measured in the sliding run, and of the drains alone."""
    for seed in (1, 2, 3):
        sliding = light_roll(24, (1.5, 4.5), 4, seed=seed)
        waves = light_roll(24, (1.5, 4.5), 4, seed=seed, solver_window="waves")
        bound, drains = listed(sliding["turns"], 4), listed(sliding["drains"], 4)
        print(f"seed {seed}: sliding {sliding['makespan']:.1f} s, waves {waves['makespan']:.1f} s; bound of the turns "
              f"{bound:.1f} s (ratio {sliding['makespan'] / bound:.2f}), of the drains alone {drains:.1f} s; "
              f"most out at once {sliding['most_out']}, {waves['most_out']}")


def listed(times: Sequence[float], places: int) -> float:
    """Return the makespan of list scheduling, longest first."""
    free = [0.0] * places
    for seconds in sorted(times, reverse=True):
        heapq.heappush(free, heapq.heappop(free) + seconds)
    return max(free)


def light_roll(size: int, drain_s: float | tuple[float, float], places: int, seed: int = 1,
               forks: int = 0, **settings: Any) -> dict[str, Any]:
    fleet = LightFleet(WORK / "light")
    events = WORK / "events"
    shutil.rmtree(events, ignore_errors=True)
    fleet.up(size, drain_s=drain_s, seed=seed)
    memory = Memory()
    try:
        began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        run = fleet.start_playbook("rolling_update", "--forks", str(forks or places + 2), solver_version="1.3.0",
                                   solver_max_unavailable=places, solver_events_dir=str(events), **settings)
        memory.watch(run.pid)
        try:
            out, _none = run.communicate()
        finally:
            run.kill()  # where somebody ends the bench: it would go on for an hour
        seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run.returncode == 0, out
        most_out = fleet.most_out_at_once()
    finally:
        memory.stop()
        fleet.down()
    lines = [json.loads(line) for line in next(events.iterdir()).read_text(encoding="utf-8").splitlines()]
    begun = {line["worker"]: line["clock"] for line in lines if line["event"] == "admitted"}
    ended = {line["worker"]: line for line in lines if line["event"] == "outcome"}
    return {"seconds": seconds, "cpu": cpu(after) - cpu(before), "most_out": most_out,
            "own_mb": memory.own_kb / 1024, "peak_mb": memory.peak_kb / 1024,
            "makespan": max(line["clock"] for line in ended.values()) - min(begun.values()),
            "turns": [ended[name]["clock"] - at for name, at in begun.items()],
            "drains": [line["timings"]["drain"] for line in ended.values()]}


def cpu(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime


class Memory:
    """The controller's share of the memory (PSS): its own processes, and with the modules, which run here too."""

    def __init__(self) -> None:
        self.own_kb = self.peak_kb = 0
        self._stop = threading.Event()

    def watch(self, pid: int) -> None:
        threading.Thread(target=self._run, args=(pid,), daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def _run(self, top: int) -> None:
        while not self._stop.wait(2):
            pids = below(top)
            self.own_kb = max(self.own_kb, sum(pss(pid) for pid in pids if "ansible-playbook" in command(pid)))
            self.peak_kb = max(self.peak_kb, sum(map(pss, pids)))


def below(top: int) -> list[int]:
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = {top}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)


def command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    return ""


def pss(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, StopIteration):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        return int(next(line.split()[1] for line in text.splitlines() if line.startswith("Pss:")))
    return 0


# -- what a large fleet costs ------------------------------------------------------------------------


# Each fork costs memory, and two processors have never kept many more turns than this at work.
MOST_FORKS = 12


def sizes(counts: Sequence[int]) -> None:
    for size in counts:
        places = max(1, size // 10)
        forks = min(places + 2, MOST_FORKS)
        made = light_roll(size, 0.2, places, forks=forks)
        each, work = made["seconds"] / size, made["cpu"] / size
        print(f"{size:>5} workers, {forks} forks: {made['seconds']:.0f} s, {each:.2f} s and {work:.2f} s of processor "
              f"time a worker, peak {made['own_mb']:.0f} MB, {made['peak_mb']:.0f} MB with the modules, most out at "
              f"once {made['most_out']} of {places}", flush=True)


# -- a rival -----------------------------------------------------------------------------------------

PLAIN = """
- hosts: solver_workers
  gather_facts: false
  serial: 1
  tasks:
    - {name: Drain, ansible.builtin.uri: {url: http://localhost/v1/drain, unix_socket: "{{ solver_control_socket }}",
       method: PUT, body_format: json, body: {owner: plain, grace_s: 0}, status_code: [200, 202]}}
    - {name: Wait, ansible.builtin.uri: {url: http://localhost/v1/status, unix_socket: "{{ solver_control_socket }}"},
       register: said, until: said.json.safe_to_stop, retries: 600, delay: 0.2}
    - {name: Look, ansible.builtin.stat: {path: "{{ current }}"}}
    - {name: Link, ansible.builtin.file: {src: "{{ target }}", dest: "{{ current }}", state: link, force: true}}
    - {name: Stop, ansible.builtin.command: {argv: "{{ solver_service.stop }}"}}
    - {name: Start, ansible.builtin.command: {argv: "{{ solver_service.start }}"}}
    - {name: Answer, ansible.builtin.uri: {url: http://localhost/v1/status, unix_socket: "{{ solver_control_socket }}"},
       register: told, until: told is succeeded, retries: 100, delay: 0.2}
    - {name: Probe, ansible.builtin.uri: {url: http://localhost/v1/probe, unix_socket: "{{ solver_control_socket }}",
       method: POST, body_format: json, body: {request_id: "plain {{ 99999 | random }}", timeout_s: 5}, timeout: 20}}
    - {name: Resume, ansible.builtin.uri: {url: "http://localhost/v1/drain?owner=plain",
       unix_socket: "{{ solver_control_socket }}", method: DELETE, status_code: [200, 204]}}
"""


def plain() -> None:
    """Four light workers: ours, and nine tasks of builtin modules that check next to nothing."""
    ours = light_roll(4, 0.2, 1)
    fleet = LightFleet(WORK / "light").up(4, drain_s=0.2)
    try:
        assert fleet.roll("1.3.0").returncode == 0  # stages it
        releases = {name: f"{fleet.base.path}/workers/{name}" for name in fleet.hosts()}
        inventory = fleet.write_inventory("plain.yml", **{
            name: {"current": f"{path}/current", "target": str((Path(path) / "previous").resolve())}
            for name, path in releases.items()})
        play = fleet.dir / "plain.yml.play.yml"
        play.write_text(PLAIN, encoding="utf-8")
        began = time.monotonic()
        done = subprocess.run([str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(inventory), str(play)],
                              cwd=ROOT, check=False, capture_output=True, text=True)
        seconds = time.monotonic() - began
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        fleet.down()
    turns = statistics.mean(ours["turns"])
    print(f"ours {ours['makespan'] / 4:.2f} s a worker ({turns:.2f} s in its turn), nine builtin tasks "
          f"{seconds / 4:.2f} s")


if __name__ == "__main__":
    sys.exit(main())
