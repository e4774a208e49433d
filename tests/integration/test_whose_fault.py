# SPDX-License-Identifier: GPL-3.0-or-later
"""The control of a failed probe, run by Ansible against real workers and a sandbox that fails when it is told to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fleetlib import ROOT, ansible_bin, control, wait_for
from test_worker_modules import CONFIG, SOURCE, end, free_port

# What the role does when its verify fails, without the drain and the switch before it.
PLAY = """
- hosts: suspect
  gather_facts: false
  vars_files: [{role}/defaults/main.yml, {role}/vars/main.yml]
  tasks:
    - ansible.builtin.set_fact:
        update_control_provider: {{}}
        update_control_worker: {{}}
    - block:
        - solver.fleet.solve_check:
            control_socket: "{{{{ socket }}}}"
            request_id: one-{{{{ request }}}}
            probe_timeout: "{{{{ update_probe_timeout }}}}"
            retries: "{{{{ tries }}}}"
            interval: 0
            deadline: "{{{{ deadline }}}}"
          register: update_verify
          until: update_verify is failed or update_verify.done
          retries: 9
          delay: 0
      rescue:
        - ansible.builtin.set_fact:
            needed: "{{{{ update_steps | solver.fleet.update_needs_control }}}}"
        - ansible.builtin.include_tasks: {role}/tasks/control.yml
          when: needed
        - ansible.builtin.copy:
            content: "{{{{ result | to_json }}}}"
            dest: "{{{{ result_file }}}}"
            mode: "0600"
          vars:
            result:
              needed: "{{{{ needed }}}}"
              verify: "{{{{ update_verify }}}}"
              worker: "{{{{ update_control_worker }}}}"
              provider: "{{{{ update_control_provider }}}}"
              outcome: "{{{{ update_steps | solver.fleet.update_outcome({{}}) }}}}"
    - ansible.builtin.debug:
        msg: the host goes on
"""
REVERTED = {"update_revert": {"changed": True}, "update_revert_verify": {"done": True}}


class Bench:
    """Three workers of one provider: the suspect, whose way to it a test can break, and two that can be asked."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.dir, self.stack = folder, stack
        (folder / "key").write_text("k" * 32)
        (folder / "play.yml").write_text(PLAY.format(role=ROOT / "roles" / "update"))
        sandbox = self.spawn("sandbox", "--solve", "base64=0.2:0.4")
        assert sandbox.stdout is not None
        self.url = json.loads(sandbox.stdout.readline())["url"]
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self.requests = 0
        for name in ("near", "far"):
            self.start(name)

    def spawn(self, *args: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "solver_worker", *args], env={**os.environ, "PYTHONPATH": str(SOURCE)},
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.stack.callback(end, process)
        return process

    def socket(self, name: str) -> str:
        return str(self.dir / name / "r" / "w1.sock")

    def start(self, name: str, url: str | None = None) -> None:
        folder = self.dir / name
        folder.mkdir(exist_ok=True)
        shutil.copy(self.dir / "key", folder / "key")
        (folder / "w.toml").write_text(CONFIG.format(dir=folder, port=free_port(), url=url or self.url))
        self.processes[name] = self.spawn("serve", "--config", str(folder / "w.toml"))
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

    def judge(self, *controls: str, key: bool = True, version: str = "", hosts: str = "",
              **change: Any) -> dict[str, Any]:
        """Probe the suspect, let CONTROLS decide, and return what the role makes of it."""
        self.requests += 1
        (self.dir / "hosts").write_text("[all:vars]\nansible_connection=local\n[all]\nsuspect\nnear\nfar\n" + hosts)
        result = self.dir / f"result-{self.requests}.json"
        values = {
            "socket": self.socket("suspect"), "request": self.requests, "result_file": str(result),
            "tries": 1, "deadline": 60, "update_probe_timeout": 10,
            "update_control_workers": [{"host": name, "control_socket": self.socket(name)} for name in controls],
            "update_provider": {"url": self.url, "api_key_file": str(self.dir / "key")} if key else {},
            "update_version": version, "update_drain": {"done": True}, "update_switch": {"switched": True},
            "update_resume": {}, "update_soak": {}, "update_give_back": {}, "update_revert_drain": {},
            "update_revert_resume": {"changed": True},
            "ansible_python_interpreter": sys.executable, **REVERTED, **change,
        }
        done = subprocess.run(
            [ansible_bin() / "ansible-playbook", "-i", str(self.dir / "hosts"), str(self.dir / "play.yml"),
             "-e", json.dumps(values)],
            cwd=ROOT, env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
            capture_output=True, text=True, timeout=200, check=False)
        assert (done.returncode, "the host goes on" in done.stdout) == (0, True), done.stdout + done.stderr
        made = json.loads(result.read_text())
        assert isinstance(made, dict)
        made["says"] = (made["outcome"]["outcome"], made["outcome"]["cause"])
        return made


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
    made = bench.judge("near", update_probe_timeout=4)
    assert made["needed"] is True
    assert made["verify"]["failure"]["code"] == "probe_failed", made["verify"]
    assert made["worker"]["failure"]["details"]["fault"] == whose, made["worker"]
    assert made["says"] == NOBODY, made["outcome"]
    assert "skipped" in made["provider"], "one control is enough"


def test_a_solve_that_passes_elsewhere_blames_the_release_though_it_blames_the_network(bench: Bench) -> None:
    bench.start("suspect", url=f"http://127.0.0.1:{free_port()}")
    before = bench.submits()
    made = bench.judge("near")
    assert made["verify"]["failure"]["details"]["fault"] == "network"
    assert made["says"] == RELEASE
    assert "the same solve passed at another worker" in made["outcome"]["reason"]
    assert bench.submits() - before == 1, "a control costs one solve"


def test_a_probe_cut_off_by_the_deadline_has_a_control_too(bench: Bench) -> None:
    bench.start("suspect")
    bench.fault({"on": "res", "fault": "CAPCHA_NOT_READY", **ALWAYS})
    made = bench.judge("near", update_probe_timeout=4, tries=9, deadline=10)
    failure = made["verify"]["failure"]
    assert (failure["code"], failure["details"]["checking"]) == ("deadline", "probe")
    assert made["says"] == NOBODY, made["outcome"]


def test_a_control_that_cannot_be_reached_gives_way_to_the_next(bench: Bench) -> None:
    bench.start("suspect", url=f"http://127.0.0.1:{free_port()}")
    gone = f"gone ansible_connection=ssh ansible_host=127.0.0.1 ansible_port={free_port()}\n"
    made = bench.judge("gone", "far", hosts=gone)
    assert made["says"] == RELEASE
    assert made["worker"]["passed"] == ["worker", "probe"]


@pytest.mark.long
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
    assert ("skipped" in made["worker"], "skipped" in made["provider"]) == (True, True)
    assert made["says"] == NOBODY
    assert "no control was possible" in made["outcome"]["reason"]
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
    bench.start("near", url=nowhere)
    bench.start("suspect", url=nowhere)
    version = control(bench.socket("near"))[1]["instance"]["version"]
    old = {"done": True, "worker": {"instance": {"version": "0.0.1"}}}
    made = bench.judge("near", version=version, update_drain=old)
    assert made["worker"]["failure"]["details"]["fault"] == "network"
    assert made["provider"]["passed"] == ["balance", "provider"]
    assert made["says"] == RELEASE


def test_two_of_a_wave_may_ask_the_same_worker_at_once(bench: Bench) -> None:
    """It solves one probe at a time; the second waits, and is no failed control."""
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
