# SPDX-License-Identifier: GPL-3.0-or-later
"""`make demo`: four real workers go from 1.2.0 to 1.3.0 under steady traffic, and the books are audited.

The fleet, the traffic and the rolling update are what an operator runs by hand; this script only starts them in
order, and takes everything down again: at the end, on a failure, and on Ctrl-C. KEEP=1 leaves the fleet running.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OPEN_AT_DRAIN = 10  # the demo begins only when every worker has at least so many open tasks


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


def main() -> int:
    args = _arguments()
    signal.signal(signal.SIGTERM, _interrupt)
    demo = Demo(args)
    try:
        return demo.run()
    except KeyboardInterrupt:
        say("interrupted; taking the fleet down")
        return 130
    except DemoError as error:
        say(f"the demo failed: {error}")
        return 1
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave anything running
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        demo.down()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=ROOT / ".local-fleet", help="folder of the fleet (%(default)s)")
    parser.add_argument("--size", type=int, default=4, help="workers (%(default)s)")
    parser.add_argument("--rate", type=float, default=14.0, help="new tasks a second (%(default)s)")
    parser.add_argument("--from", dest="first", default="1.2.0", help="release to begin with (%(default)s)")
    parser.add_argument("--to", dest="target", default="1.3.0", help="release to roll out (%(default)s)")
    parser.add_argument("--keep", action="store_true", default=os.environ.get("KEEP") == "1",
                        help="leave the fleet running (KEEP=1 does the same)")
    return parser.parse_args()


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def say(text: str) -> None:
    print(f"\n=== {text}", flush=True)


class Demo:
    """The demo's steps, and the processes that it has started."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.dir: Path = args.dir.resolve()
        self.inventory = self.dir / "inventory.yml"
        self.stop_file = self.dir / "traffic.stop"
        self.report_file = self.dir / "audit.json"
        self.running: list[subprocess.Popen[bytes]] = []
        self.began = False

    def run(self) -> int:
        args, began = self.args, time.monotonic()
        say(f"a fleet of {args.size} workers on {args.first}, with a sandbox provider (solves take 2 to 5 s)")
        self.down(quiet=True)
        self.began = True
        print("building the two releases, starting supervisor, the provider and the workers ...", flush=True)
        self.playbook("local_fleet", "-i", "localhost,", "-e", json.dumps({
            "solver_local_fleet_dir": str(self.dir), "solver_local_fleet_size": args.size,
            "solver_local_fleet_version": args.first, "solver_local_fleet_versions": [args.first, args.target],
            "solver_local_fleet_sandbox": ["--solve", "userrecaptcha=2:5", "--solve", "base64=1:2",
                                           "--submit-latency", "0.15", "--seed", "7"]}), changes_only=True)
        say(f"steady traffic: {args.rate:g} tasks a second, some answers lost on purpose")
        traffic = self.start_traffic()
        self.wait_for_open_tasks(traffic)
        say(f"ansible-playbook solver.fleet.rolling_update -e solver_version={args.target}")
        rolled = self.playbook("rolling_update", "-i", str(self.inventory), "-e", f"solver_version={args.target}",
                               check=False)
        self.playbook("status", "-i", str(self.inventory))
        say("the traffic ends; waiting for the last answers, then auditing the books")
        self.stop_file.touch()
        audited = self.finish(traffic, timeout=120)
        self.merge_audit()
        self.playbook("report", "-i", str(self.inventory), "-e", f"solver_verdict_file={self.dir / 'verdict.json'}")
        say(f"verdict and audit: {self.dir / 'verdict.json'} ({time.monotonic() - began:.0f} s in all)")
        return rolled or audited

    def playbook(self, name: str, *words: str, check: bool = True, changes_only: bool = False) -> int:
        """Run one of the collection's playbooks by its name; its output is the demo's."""
        command = [str(Path(sys.executable).parent / "ansible-playbook"), f"solver.fleet.{name}", *words]
        code = self.finish(self.start(command, ANSIBLE_DISPLAY_OK_HOSTS=str(not changes_only),
                                      ANSIBLE_STDOUT_CALLBACK="solver.fleet.rollout"))
        if check and code:
            raise DemoError(f"{' '.join(command[:2])} ended with exit code {code}")
        return code

    def start(self, command: list[str], **environment: str) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C reaches this script alone, which then ends its children in order.
        process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdin=subprocess.DEVNULL,
                                   env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), **environment})
        self.running.append(process)
        return process

    def finish(self, process: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise DemoError(f"{process.args!r} did not end within {timeout} s") from None
        self.running.remove(process)
        return code

    def workers(self) -> dict[str, dict[str, Any]]:
        ansible_inventory = str(Path(sys.executable).parent / "ansible-inventory")
        out = subprocess.run([ansible_inventory, "-i", str(self.inventory), "--list"], cwd=ROOT, check=True,
                             capture_output=True, stdin=subprocess.DEVNULL)
        hosts: dict[str, dict[str, Any]] = json.loads(out.stdout)["_meta"]["hostvars"]
        return hosts

    def start_traffic(self) -> subprocess.Popen[bytes]:
        for left in (self.stop_file, self.report_file, self.dir / "book.jsonl"):
            left.unlink(missing_ok=True)
        command = [str(self.dir / "tools/bin/solver-worker"), "traffic", "run", "--rate", str(self.args.rate),
                   "--duration", "300", "--until-file", str(self.stop_file), "--lost-answers", "0.02", "--seed", "7",
                   "--mix", "userrecaptcha=1", "--book", str(self.dir / "book.jsonl"),
                   "--report", str(self.report_file), "--ledger-file", str(self.dir / "ledger.jsonl")]
        for name, host in self.workers().items():
            command += ["--worker", f"{name}=http://127.0.0.1:{host['solver_data_port']}",
                        "--journal", f"{name}={host['solver_base_dir']}/workers/{name}/state/journal.sqlite3"]
        return self.start(command)

    def wait_for_open_tasks(self, traffic: subprocess.Popen[bytes]) -> None:
        sockets = {name: host["solver_control_socket"] for name, host in self.workers().items()}
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            counts = {name: self.open_tasks(socket) for name, socket in sockets.items()}
            if all(count >= OPEN_AT_DRAIN for count in counts.values()):
                print("open tasks:", ", ".join(f"{name} {count}" for name, count in counts.items()), flush=True)
                return
            if traffic.poll() is not None:
                raise DemoError(f"the traffic ended early, with exit code {traffic.returncode}")
            time.sleep(0.3)
        raise DemoError(f"the workers never had {OPEN_AT_DRAIN} open tasks each: {counts}")

    def open_tasks(self, socket: str) -> int:
        out = subprocess.run([str(self.dir / "tools/bin/solver-worker"), "status", "--socket", socket, "--json"],
                             capture_output=True, check=False, stdin=subprocess.DEVNULL)
        return int(json.loads(out.stdout)["tasks"]["open"]) if out.returncode == 0 else 0

    def merge_audit(self) -> None:
        """The verdict of the rollout and the audit of the books belong into one document."""
        path = self.dir / "verdict.json"
        verdict = json.loads(path.read_text(encoding="utf-8"))
        report = json.loads(self.report_file.read_text(encoding="utf-8"))
        verdict["audit"] = report.get("audit", report)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(verdict, indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)

    def down(self, quiet: bool = False) -> None:
        """End what was started; take the fleet down, unless it shall be kept."""
        for process in list(self.running):
            _end(process)
        self.running.clear()
        if not quiet and not self.began:
            return
        if not quiet and self.args.keep and sys.exc_info()[0] is None:
            say(f"the fleet is left running (KEEP=1); its inventory is {self.inventory}\n"
                "    look:   ansible-playbook playbooks/status.yml\n"
                "    remove: make fleet-down")
            return
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "solver.fleet.local_fleet",
                   "-i", "localhost,",
                   "-e", json.dumps({"solver_local_fleet_dir": str(self.dir), "solver_local_fleet_state": "absent"})]
        done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, stdin=subprocess.DEVNULL,
                              env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}, start_new_session=True)
        if done.returncode:
            say(f"taking the fleet down failed:\n{done.stdout.decode()[-3000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it has started; each of them has a session of its own."""
    for number, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
            return
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


if __name__ == "__main__":
    sys.exit(main())
