# SPDX-License-Identifier: GPL-3.0-or-later
"""Reference solves after a failed probe: a real turn, real workers, and a sandbox that fails when it is told to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils import _admit
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._ledger import Ledger
from ansible_collections.solver.fleet.plugins.plugin_utils._settings_rules import resolve
from fleetlib import ROOT, ansible_bin, control, wait_for
from test_worker_modules import CONFIG, SOURCE, end, free_port

PLAY = Path(__file__).parent / "suspect" / "turn.yml"
OLD, NEW = "1.3.0", "1.9.9"


class Bench:
    """Three workers of one provider: the suspect, whose way to it a test can break, and two that can be asked."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.dir, self.stack = folder, stack
        (folder / "key").write_text("k" * 32)
        sandbox = self.spawn("sandbox", "--solve", "base64=0.2:0.4")
        assert sandbox.stdout is not None
        self.url = json.loads(sandbox.stdout.readline())["url"]
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self.requests = 0
        for name in ("near", "far"):
            self.start(name)

    def source(self, version: str) -> Path:
        """The worker's own source, as another version of it."""
        folder = self.dir / version
        if not folder.exists():
            shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns("__pycache__"))
            (folder / "solver_worker/_version.py").write_text(f'__version__ = "{version}"\n')
        return folder

    def spawn(self, *args: str, source: Path = SOURCE) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "solver_worker", *args], env={**os.environ, "PYTHONPATH": str(source)},
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.stack.callback(end, process)
        return process

    def socket(self, name: str) -> str:
        return str(self.dir / name / "r" / "w1.sock")

    def start(self, name: str, url: str | None = None, version: str = "") -> None:
        folder = self.dir / name
        folder.mkdir(exist_ok=True)
        shutil.copy(self.dir / "key", folder / "key")
        (folder / "w.toml").write_text(CONFIG.format(dir=folder, port=free_port(), url=url or self.url))
        source = self.source(version or (NEW if name == "suspect" else OLD))
        self.processes[name] = self.spawn("serve", "--config", str(folder / "w.toml"), source=source)
        wait_for(lambda: Path(self.socket(name)).exists() and self.state(name) == "running", name)

    def state(self, name: str) -> Any:
        try:
            return control(self.socket(name))[1]["state"]
        except OSError:
            return None

    def fault(self, *faults: dict[str, Any]) -> None:
        request = urllib.request.Request(self.url + "/__faults", json.dumps(faults).encode(),
                                         {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=10).close()

    def submits(self) -> int:
        with urllib.request.urlopen(self.url + "/__ledger", timeout=10) as answer:
            return int(json.load(answer)["totals"]["submits"])

    def judge(self, *others: str, key: bool = True, hosts: str = "", **change: Any) -> dict[str, Any]:
        """Take the suspect through its turn; OTHERS can be asked for a reference solve, the first one first."""
        self.requests += 1
        (self.dir / "hosts").write_text("[all:vars]\nansible_connection=local\n[all]\nsuspect\nnear\nfar\n" + hosts)
        result, ledger = self.dir / f"result-{self.requests}.json", Ledger(str(self.dir / f"ledger-{self.requests}"))
        self._begin(ledger, others, key, change)
        values = {"ledger": str(ledger.folder), "result_file": str(result),
                  "ansible_python_interpreter": sys.executable}
        done = subprocess.run(
            [ansible_bin() / "ansible-playbook", "-i", str(self.dir / "hosts"), str(PLAY), "-e", json.dumps(values)],
            cwd=ROOT, env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
            capture_output=True, text=True, timeout=200, check=False)
        assert (done.returncode, "the host goes on" in done.stdout) == (0, True), done.stdout + done.stderr
        made = json.loads(result.read_text())
        assert isinstance(made, dict)
        made["says"] = (made["outcome"]["outcome"], made["outcome"]["cause"])
        return made

    def _begin(self, ledger: Ledger, others: Sequence[str], key: bool, change: dict[str, Any]) -> None:
        """Write down a rollout to NEW in which it is the suspect's turn, and OTHERS serve."""
        names = ["suspect", *others]
        variables = {name: {"solver_control_socket": self.socket(name), "solver_data_port": 20_000 + number,
                            "solver_provider_url": self.url,
                            **({"solver_api_key_file": str(self.dir / "key")} if key else {})}
                     for number, name in enumerate(names)}
        found = resolve(variables, need_version=False, rolls=False)
        assert not found.errors, found.errors
        for own in found.workers.values():
            own["service"] = None  # its processes are the test's own
            own["provider"] = own["provider"] if key else {}
        settings = {**found.settings, "solver_probe_timeout": 10, "solver_probe_retries": 1, "solver_probe_interval": 0,
                    "solver_healthy_deadline": 60, **change}
        # Who is last in the plan is asked first: nothing has changed there for the longest.
        order = ["suspect", *reversed(others)]
        ledger.begin(os.getpid(), {"settings": settings, "hosts": order, "lanes": {}, "routers": {},
                                   "kind": "update", "wait_until": 0}, found.workers)
        ledger.keep("plan", {
            "kind": "update", "run_id": f"run-{self.requests}", "rollout_id": "rollout-1", "target": NEW,
            "way_back": False, "strategy": "rolling", "blue_keep": 0.0, "order": order, "window": 1, "max_soaking": 1,
            "fleet": len(order),
            "stages": [{"workers": order, "there": [], "window": 1, "tolerated": 0, "after": "nothing"}],
            "workers": {name: {
                "action": "update", "from": OLD, "from_release": OLD, "to": NEW, "release": NEW, "back_to": OLD,
                "back_version": OLD, "serving": True, "steal": False, "on_expire": None, "switch": "in_place",
                "together": False, "on_drain_timeout": "handover", "forced": False,
                "probe": True, "owner": "rollout-1"} for name in order}})
        ledger.keep("roll", {**_admit.begin(0.0), "phase": {"suspect": "turn"}})


RELEASE, NOBODY = ("reverted", "release"), ("returned", "unknown")
ALWAYS = {"times": None}


@pytest.fixture
def bench() -> Iterator[Bench]:
    folder = Path(tempfile.mkdtemp(prefix="sf-", dir="/tmp"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield Bench(folder, stack)


@pytest.mark.parametrize(("fault", "whose"), [
    # CaptchaAI says the same of an account that is full: the worker waits for a place until the probe's time is over
    ([{"on": "in", "fault": "no_balance", **ALWAYS}, {"on": "balance", "fault": "no_balance", **ALWAYS}], "provider"),
    ([{"on": "in", "fault": "ERROR_WRONG_USER_KEY", **ALWAYS}], "account"),
    ([{"on": "in", "fault": "ERROR_NO_SLOT_AVAILABLE", **ALWAYS}], "provider"),
    ([{"fault": "down", "seconds": 600}], "network"),
    ([{"on": "res", "fault": "CAPCHA_NOT_READY", **ALWAYS}], "provider"),  # solves for ever
])
def test_a_fault_of_the_provider_is_nobodys(bench: Bench, fault: list[dict[str, Any]], whose: str) -> None:
    bench.start("suspect")
    bench.fault(*fault)
    made = bench.judge("near", solver_probe_timeout=4)
    assert made["verify"]["failure"]["code"] == "probe_failed", made["verify"]
    assert made["worker"]["failure"]["details"]["fault"] == whose, made["worker"]
    assert made["says"] == NOBODY, made["outcome"]
    assert made["provider"] == {}, "one reference solve is enough"


@pytest.mark.quick
def test_a_solve_that_passes_elsewhere_blames_the_release_though_it_blames_the_network(bench: Bench) -> None:
    bench.start("suspect", url=f"http://127.0.0.1:{free_port()}")
    before = bench.submits()
    made = bench.judge("near")
    assert made["verify"]["failure"]["details"]["fault"] == "network"
    assert made["says"] == RELEASE
    assert "the same solve passed at another worker" in made["outcome"]["reason"]
    assert bench.submits() - before == 1, "a reference solve costs one solve"


def test_a_probe_cut_off_by_the_deadline_has_a_reference_solve_too(bench: Bench) -> None:
    bench.start("suspect")
    bench.fault({"on": "res", "fault": "CAPCHA_NOT_READY", **ALWAYS})
    made = bench.judge("near", solver_probe_timeout=4, solver_probe_retries=9, solver_healthy_deadline=10)
    failure = made["verify"]["failure"]
    assert (failure["code"], failure["details"]["checking"]) == ("deadline", "probe")
    assert made["says"] == NOBODY, made["outcome"]


def test_a_worker_that_cannot_be_reached_gives_way_to_the_next(bench: Bench) -> None:
    bench.start("suspect", url=f"http://127.0.0.1:{free_port()}")
    gone = f"gone ansible_connection=ssh ansible_host=127.0.0.1 ansible_port={free_port()}\n"
    made = bench.judge("gone", "far", hosts=gone)
    assert made["says"] == RELEASE
    assert made["worker"]["passed"] == ["worker", "probe"]


def test_where_no_worker_can_be_asked_the_provider_is(bench: Bench) -> None:
    bench.start("suspect", url=f"http://127.0.0.1:{free_port()}")
    for name in ("near", "far"):
        end(bench.processes[name])
    made = bench.judge("near", "far")
    assert made["provider"]["passed"] == ["balance", "provider"]
    assert made["says"] == RELEASE
    bench.fault({"on": "in", "fault": "no_balance", **ALWAYS})
    made = bench.judge()
    assert made["provider"]["failure"]["details"]["fault"] == "account"
    assert made["says"] == NOBODY
    # neither worker nor key: by its own word
    made = bench.judge(key=False)
    assert (made["worker"], made["provider"]) == ({}, {})
    assert made["says"] == NOBODY
    assert "no reference solve was possible" in made["outcome"]["reason"]
    # a key that cannot be read says nothing either
    (bench.dir / "key").unlink()
    made = bench.judge()
    assert made["provider"]["failure"]["code"] == "bad_api_key_file"
    assert made["says"] == NOBODY


def test_the_version_in_doubt_is_not_its_own_witness(bench: Bench) -> None:
    """The workers that can be asked were updated before, and fail as well: the provider decides."""
    for name in ("near", "far"):
        end(bench.processes[name])
    nowhere = f"http://127.0.0.1:{free_port()}"
    shutil.rmtree(bench.dir / "near" / "state")  # else it would hold until it is verified, and has no provider for it
    bench.start("near", url=nowhere, version=NEW)
    bench.start("suspect", url=nowhere)
    made = bench.judge("near")
    assert made["worker"]["failure"]["details"]["fault"] == "network"
    assert made["provider"]["passed"] == ["balance", "provider"]
    assert made["says"] == RELEASE


def test_two_in_flight_may_ask_the_same_worker_at_once(bench: Bench) -> None:
    """It solves one probe at a time; the second waits, and that is no failed solve."""
    bench.start("suspect", url=f"http://127.0.0.1:{free_port()}")
    bench.fault({"on": "res", "fault": "CAPCHA_NOT_READY", "times": 20})
    other = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.path.insert(0, sys.argv[1]); import fleetlib; "
         "print(fleetlib.control(sys.argv[2], 'POST', '/v1/probe', {'request_id': 'x', 'timeout_s': 8}))",
         str(Path(__file__).parent), bench.socket("near")], stdout=subprocess.DEVNULL)
    try:
        made = bench.judge("near", key=False)
    finally:
        other.wait(20)
    assert made["says"] == RELEASE, made["worker"]
