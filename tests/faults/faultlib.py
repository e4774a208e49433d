# SPDX-License-Identifier: GPL-3.0-or-later
"""What the fault suite shares: broken releases, a sampler of the workers' states, and the invariants."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleetlib import Fleet, broken_releases, control, overlay, signal_tree, tree, wait_for

CRASHES, FAILS_ITS_PROBE, HANGS, STARTS_SLOWLY, LIES, DIES_LATER = "1.4.0", "1.4.1", "1.4.2", "1.4.3", "1.4.4", "1.4.5"
# Good, but a resume takes seconds, so that a scenario can meet what a revert does in hundredths of one.
RESUMES_SLOWLY = "1.4.6"
# Two good releases that see another wall clock: off by the seconds in the file `off` of the worker's directory.
OTHER_CLOCK = ("1.5.0", "1.5.1")
# The shortest lease that is allowed, with phases that fit into it.
LEASES = {"solver_drain_lease": 60, "solver_drain_timeout": 30, "solver_deploy_timeout": 40,
          "solver_healthy_deadline": 40}
VERSIONS = ["1.2.0", "1.3.0", CRASHES, FAILS_ITS_PROBE, HANGS, STARTS_SLOWLY, LIES, DIES_LATER, RESUMES_SLOWLY,
            *OTHER_CLOCK]
_TRY = "    try:\n        held = take_locks"


def all_broken_releases(folder: Path) -> dict[str, str]:
    """Return version -> overlay: the reference worker's own source with one thing broken."""
    made = broken_releases(folder)
    wait = "    import time\n    time.sleep({})\n" + _TRY
    made[HANGS] = overlay(folder / "hangs", serve=(_TRY, wait.format(600)))
    made[STARTS_SLOWLY] = overlay(folder / "slow", serve=(_TRY, wait.format(5)))
    made[LIES] = overlay(folder / "lies", status=('"version": worker.version,', '"version": "9.9.9",'))
    made[DIES_LATER] = overlay(folder / "later", serve=(
        _TRY, "    import threading\n    threading.Timer(10, os._exit, (3,)).start()\n" + _TRY))
    resume = "        outcome = worker.delete_drain"
    made[RESUMES_SLOWLY] = overlay(folder / "resume", control=(
        resume, '        await __import__("asyncio").sleep(3)\n' + resume))
    off = 'float((Path(__import__("sys").argv[-1]).parents[1] / "off").read_text())'
    made.update(dict.fromkeys(OTHER_CLOCK, overlay(folder / "clock", clock=("time.time()", f"time.time() + {off}"))))
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    return made


@dataclass
class Sample:
    """One look at all workers."""

    at: float
    workers: dict[str, dict[str, Any] | None]

    def out(self) -> list[str]:
        return [name for name, status in self.workers.items() if not status or not status["accepting"]]


@dataclass
class Sampler:
    """Asks every worker every 50 ms how it is, all the time that a scenario runs."""

    fleet: Fleet
    samples: list[Sample] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        sockets = {name: self.fleet.socket(name) for name in self.fleet.hosts()}
        while not self.stop.is_set():
            found = {name: ask(path) for name, path in sockets.items()}
            self.samples.append(Sample(time.monotonic(), found))
            for name in [name for name, status in found.items() if status is None]:
                # A host that was booted anew is seen through another window.
                with contextlib.suppress(Exception):
                    sockets[name] = self.fleet.socket(name)
            self.stop.wait(0.05)

    def last(self, name: str) -> dict[str, Any]:
        return (self.samples[-1].workers.get(name) or {}) if self.samples else {}


def ask(path: str) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError, Exception):
        code, status = control(path)
        return dict(status) if code == 200 else None
    return None


@contextlib.contextmanager
def watched(fleet: Fleet, window: int = 1, never_accepts: tuple[str, ...] = (), killed: int = 0) -> Iterator[Sampler]:
    """Sample the workers during a scenario, then check the invariants by what they said.

    KILLED workers may be out beside the window: the scenario killed them itself.
    """
    sampler = Sampler(fleet)
    thread = threading.Thread(target=sampler.run, daemon=True)
    thread.start()
    try:
        yield sampler
    finally:
        sampler.stop.set()
        thread.join(10)
    assert len(sampler.samples) > 5
    worst = max(sampler.samples, key=lambda sample: len(sample.out()))
    assert len(worst.out()) <= window + killed, (worst.out(), "out of service at once, the window is", window)
    for sample in sampler.samples:
        for name, status in sample.workers.items():
            if status and status["accepting"]:
                assert status["instance"]["release"].split("-")[0] not in never_accepts, (name, status["instance"])
    assert_totals_never_fall(sampler.samples)


def assert_totals_never_fall(samples: list[Sample]) -> None:
    last: dict[str, dict[str, int]] = {}
    for sample in samples:
        for name, status in sample.workers.items():
            totals = (status or {}).get("totals")
            if not totals:
                continue
            for key, value in last.get(name, {}).items():
                assert totals[key] >= value, (name, key, value, totals[key])
            last[name] = totals


def journal_states(fleet: Fleet, name: str) -> dict[str, int]:
    """Count the tasks of a worker by state, from its journal itself."""
    host = fleet.hosts()[name]
    path = f"{host['solver_base_dir']}/workers/{name}/state/journal.sqlite3"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return dict(db.execute("SELECT state, count(*) FROM tasks GROUP BY state").fetchall())


def record_of(fleet: Fleet, name: str) -> dict[str, Any]:
    host = fleet.hosts()[name]
    return dict(json.loads(Path(host["solver_base_dir"], "workers", name, "rollout/record.json").read_text("utf-8")))


class Lines:
    """Lines to the workers that can be cut while a rollout runs."""

    def __init__(self, fleet: Fleet) -> None:
        self.folder = fleet.dir / "cut"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.env = {"ANSIBLE_CONNECTION_PLUGINS": str(Path(__file__).parent / "connection_plugins"),
                    "SF_CUT_DIR": str(self.folder)}
        self.host = {"ansible_connection": "fragile"}

    def cut(self, name: str) -> None:
        (self.folder / f"{name}.cut").touch()

    def mend(self, name: str) -> None:
        (self.folder / f"{name}.cut").unlink()


def provider_faults(fleet: Fleet, faults: list[dict[str, Any]] | None) -> None:
    """Switch the sandbox's faults at run time; None clears them."""
    url = next(iter(fleet.hosts().values()))["solver_provider_url"] + "/__faults"
    data = json.dumps(faults).encode() if faults is not None else None
    request = urllib.request.Request(url, data=data, method="POST" if faults is not None else "DELETE",
                                     headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status in (200, 201, 204), answer.status


class Events:
    """What a run tells of itself while it goes on, by which a scenario meets it at any point."""

    def __init__(self, fleet: Fleet, name: str = "events") -> None:
        self.folder = fleet.dir / name
        shutil.rmtree(self.folder, ignore_errors=True)
        # For the one run that is to be watched.
        self.settings = {"solver_events_dir": str(self.folder)}

    def all(self) -> list[dict[str, Any]]:
        text = "".join(path.read_text(encoding="utf-8") for path in self.folder.glob("*.jsonl"))
        # The last line may be half written.
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def find(self, event: str, **facts: Any) -> list[dict[str, Any]]:
        return [own for own in self.all() if own["event"] == event
                and all(own.get(name) == value for name, value in facts.items())]


def begin_a_revert(fleet: Fleet, seen: Sampler) -> subprocess.Popen[str]:
    """Begin a rollout whose release fails its probe; return it when w1 runs its old release again, still held."""
    assert set(fleet.versions().values()) == {RESUMES_SLOWLY}
    events = Events(fleet)
    running = fleet.start_playbook("rolling_update", solver_version=FAILS_ITS_PROBE, solver_probe_retries=1,
                                   **events.settings)
    until("its old release, held", lambda: events.find("follow_up", action="revert")
          and seen.last("w1").get("drain") and seen.last("w1")["instance"]["version"] == RESUMES_SLOWLY, running)
    return running


class Held:
    """A hook that keeps each worker from its turn until the test lets it go, so that no test must be quick."""

    def __init__(self, fleet: Fleet) -> None:
        self.folder = fleet.dir / "held"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        hook = self.folder / "hook.yml"
        hook.write_text(
            "- name: Wait for the test\n  ansible.builtin.wait_for:\n"
            f"    path: '{self.folder}/{{{{ inventory_hostname }}}}'\n    timeout: 200\n", encoding="utf-8")
        self.settings = {"solver_hooks": {"before_worker": str(hook)}}

    def let_go(self, *names: str) -> None:
        for name in names:
            (self.folder / name).touch()


def kill_all(process: subprocess.Popen[str]) -> str:
    """End a controller with all that it started, modules at work included, without a word to any of them."""
    signal_tree(process.pid, signal.SIGKILL)
    return ended(process)


def kill_main(process: subprocess.Popen[str]) -> None:
    """End the main process alone, without a word; what it had started must stop by itself."""
    left = tree(process.pid)
    process.kill()
    process.wait(60)
    # What is at work on a worker ends with its slice, and a switch that has begun with its start.
    wait_for(lambda: not any(tree(pid).get(pid) == started for pid, started in left.items()),
             "the end of all that the dead controller had started", 60)


def ended(process: subprocess.Popen[str]) -> str:
    """Return what a run said that was ended from outside."""
    out, _none = process.communicate(timeout=60)
    assert process.returncode != 0, out
    return out


def until(what: str, condition: Callable[[], Any], process: subprocess.Popen[str], timeout: float = 120) -> None:
    """Wait for what the scenario waits for; the run must still be going."""
    deadline = time.monotonic() + timeout
    while not condition():
        if process.poll() is not None:
            raise AssertionError(f"the run ended before {what}:\n{process.communicate()[0]}")
        assert time.monotonic() < deadline, f"waited {timeout} s in vain for {what}"
        time.sleep(0.02)
