# SPDX-License-Identifier: GPL-3.0-or-later
"""Real local fleets for the tests: set up, played with, put under traffic, audited and taken down."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jsonschema

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "roles/worker/files/solver-worker"
SANDBOX = ["--solve", "userrecaptcha=1:2.5", "--solve", "base64=0.2:0.5", "--submit-latency", "0.05", "--seed", "11"]
# What docs/verdict.md promises: 0 where everything is as it was asked for, else 2, as Ansible has it for a failed host.
EXIT_CODES = {"completed": 0, "planned": 0, "awaiting_promotion": 0, **dict.fromkeys(
    ("incomplete", "aborted", "rolled_back", "rollback_failed", "inconclusive", "paused", "refused"), 2)}
VERDICTS = ROOT / ".cache" / "results" / "verdicts.jsonl"
ROLLOUTS = ("rolling_update", "canary_update", "recreate_update", "blue_green_update", "rollback", "recover")
VERDICT = jsonschema.Draft202012Validator(json.loads((ROOT / "docs/schemas/verdict-1.json").read_text("utf-8")))

# What a shell runs in the background ignores this signal, and so would the controllers that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def ansible_bin() -> Path:
    """The ansible-core under test: SOLVER_ANSIBLE_BIN, or the one beside this interpreter."""
    return Path(os.environ.get("SOLVER_ANSIBLE_BIN") or Path(sys.executable).parent)


def wait_for(condition: Callable[[], Any], what: str, timeout: float = 30.0) -> Any:
    """Wait for a condition, not for a time."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited {timeout} s in vain for {what}")


class UnixConnection(http.client.HTTPConnection):
    """The tests' own way to a control socket; the collection's client is what is under test."""

    def __init__(self, path: str, timeout: float = 10.0) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def control(path: str, method: str = "GET", url: str = "/v1/status", body: Any = None) -> tuple[int, Any]:
    try:
        return _asked(path, method, url, body)
    except ConnectionResetError:
        # As docs/control-api.md has it: who is cut off asks again.
        if method != "GET":
            raise
        return _asked(path, method, url, body)


def _asked(path: str, method: str, url: str, body: Any) -> tuple[int, Any]:
    connection = UnixConnection(path)
    try:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, url, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None
    finally:
        connection.close()


class Fleet:
    """One embedded local fleet in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.dir = folder
        self.inventory = folder / "inventory.yml"
        self.traffic: subprocess.Popen[bytes] | None = None
        self.runs: list[subprocess.Popen[str]] = []

    # -- playbooks ---------------------------------------------------------------------------

    def playbook(self, name: str, *words: str, inventory: Path | None = None, timeout: float = 300,
                 env: dict[str, str] | None = None, prefix: tuple[str, ...] = (),
                 **variables: Any) -> subprocess.CompletedProcess[str]:
        before = self._verdict_file()
        process = self.start_playbook(name, *words, inventory=inventory, env=env, prefix=prefix, **variables)
        try:
            out, _none = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            signal_tree(process.pid, signal.SIGKILL)
            out, _none = process.communicate()
            raise AssertionError(f"{name} did not end within {timeout} s:\n{out}") from None
        if name in ROLLOUTS and self._verdict_file() != before:
            word = self.verdict()["verdict"]
            seen_verdict(word, process.returncode)
            assert process.returncode == EXIT_CODES[word], f"exit code {process.returncode} with {word}:\n{out}"
        return subprocess.CompletedProcess(process.args, process.returncode, out, "")

    def _verdict_file(self) -> tuple[int, int] | None:
        with contextlib.suppress(FileNotFoundError):
            found = (self.dir / "verdict.json").stat()
            return found.st_ino, found.st_mtime_ns
        return None

    def start_playbook(self, name: str, *words: str, inventory: Path | None = None,
                       env: dict[str, str] | None = None, prefix: tuple[str, ...] = (),
                       **variables: Any) -> subprocess.Popen[str]:
        command = [*prefix, str(ansible_bin() / "ansible-playbook"), f"solver.fleet.{name}",
                   "-i", str(inventory or self.inventory), *words]
        if variables:
            command += ["-e", json.dumps(variables)]
        run = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, start_new_session=True,
                               env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                                    "ANSIBLE_NOCOLOR": "1", **(env or {})})
        self.runs.append(run)
        return run

    def module(self, host: str, name: str, *words: str, **values: Any) -> dict[str, Any]:
        """Run one module on a host and return its result."""
        done = subprocess.run(
            [str(ansible_bin() / "ansible"), host, "-i", str(self.inventory), "-m", name, *words,
             *(["-a", json.dumps(values)] if values else [])],
            cwd=ROOT, env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1",
                           "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
                           "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.minimal"},
            capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return dict(json.loads(done.stdout.split("=>", 1)[1]))

    def up(self, size: int = 4, **variables: Any) -> Fleet:
        settings = {"solver_local_fleet_dir": str(self.dir), "solver_local_fleet_size": size,
                    "solver_local_fleet_sandbox": SANDBOX, **variables}
        # Whatever is not built yet is built now.
        done = self.playbook("local_fleet", inventory=Path(os.devnull), timeout=900, **settings)
        assert done.returncode == 0, done.stdout
        return self

    def down(self, purge: bool = False) -> subprocess.CompletedProcess[str]:
        self.end_traffic_process()
        if not purge and not (self.dir / "ports.json").exists():
            return subprocess.CompletedProcess([], 0, "there is no fleet", "")
        return self.playbook("local_fleet", inventory=Path(os.devnull), solver_local_fleet_dir=str(self.dir),
                             solver_local_fleet_state="absent", solver_local_fleet_purge=purge)

    def end_runs(self) -> None:
        """End what a test that failed has left running: it would hold the lock of the next one's fleet."""
        for run in self.runs:
            _kill(run)
        self.runs.clear()

    def end_traffic_process(self) -> None:
        if self.traffic is not None:
            _kill(self.traffic)
            self.traffic = None

    def roll(self, version: str, *words: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        return self.playbook("rolling_update", *words, solver_version=version, **variables)

    # -- facts, asked of the workers themselves ----------------------------------------------

    def hosts(self) -> dict[str, dict[str, Any]]:
        hosts: dict[str, dict[str, Any]] = {}
        for line in self.inventory.read_text(encoding="utf-8").splitlines():
            name, _colon, rest = line.strip().partition(": ")
            if rest.startswith("{"):
                hosts[name] = json.loads(rest)
        return hosts

    def write_inventory(self, name: str, **changes: dict[str, Any]) -> Path:
        """Write an inventory beside the fleet's own, with some variables of some workers changed."""
        lines = ["solver_workers:", "  hosts:"]
        for host, own in self.hosts().items():
            lines.append(f"    {host}: {json.dumps({**own, **changes.get(host, {})})}")
        path = self.dir / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    def socket(self, worker: str) -> str:
        return str(self.hosts()[worker]["solver_control_socket"])

    def status(self, worker: str) -> dict[str, Any]:
        code, document = control(self.socket(worker))
        assert code == 200, document
        return dict(document)

    def versions(self) -> dict[str, str]:
        return {name: self.status(name)["instance"]["version"] for name in self.hosts()}

    def assert_all_serve(self) -> None:
        for name in self.hosts():
            status = self.status(name)
            assert status["state"] == "running", (name, status)
            assert status["drain"] is None, (name, status["drain"])
            totals, tasks = status["totals"], status["tasks"]
            assert totals["accepted"] == (totals["succeeded"] + totals["failed"] + totals["uncertain"]
                                          + totals["expired"] + tasks["open"]), (name, totals, tasks)

    def verdict(self) -> dict[str, Any]:
        """The verdict of the last run, which must be what the published schema says."""
        document = json.loads((self.dir / "verdict.json").read_text(encoding="utf-8"))
        VERDICT.validate(document)
        return dict(document)

    def outcomes(self) -> dict[str, str]:
        return {worker["name"]: worker["outcome"] for worker in self.verdict()["workers"]}

    # -- traffic ------------------------------------------------------------------------------

    def start_traffic(self, rate: float = 10.0, at_least_open: int = 3) -> None:
        for left in ("traffic.stop", "audit.json", "book.jsonl"):
            (self.dir / left).unlink(missing_ok=True)
        command = [str(self.dir / "tools/bin/solver-worker"), "traffic", "run", "--rate", str(rate), "--duration",
                   "240", "--until-file", str(self.dir / "traffic.stop"), "--lost-answers", "0.02", "--seed", "5",
                   "--mix", "userrecaptcha=1", "--book", str(self.dir / "book.jsonl"),
                   "--report", str(self.dir / "audit.json"), "--ledger-file", str(self.dir / "ledger.jsonl")]
        for name, host in self.hosts().items():
            command += ["--worker", f"{name}=http://127.0.0.1:{host['solver_data_port']}",
                        "--journal", f"{name}={host['solver_base_dir']}/workers/{name}/state/journal.sqlite3"]
        log = (self.dir / "traffic.log").open("wb")
        self.traffic = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                        start_new_session=True)
        wait_for(lambda: all(self.status(name)["tasks"]["open"] >= at_least_open for name in self.hosts()),
                 f"{at_least_open} open tasks on every worker")

    def end_traffic(self) -> dict[str, Any]:
        assert self.traffic is not None
        (self.dir / "traffic.stop").touch()
        code = self.traffic.wait(120)
        self.traffic = None
        report = json.loads((self.dir / "audit.json").read_text(encoding="utf-8"))
        audit: dict[str, Any] = report.get("audit", report)
        print(json.dumps(audit, indent=1))
        assert code == (1 if audit["lost"] or audit["wrong"] or audit["billed_twice"] else 0), audit
        return audit


def events_of(folder: Path) -> list[dict[str, Any]]:
    """Every event of the one run that wrote into FOLDER (solver_events_dir)."""
    (path,) = folder.iterdir()
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def seen_verdict(word: str, code: int) -> None:
    """Note which exit code came with a verdict, for the table at the end of the fault suite."""
    VERDICTS.parent.mkdir(parents=True, exist_ok=True)
    with VERDICTS.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"verdict": word, "code": code}) + "\n")


def assert_nothing_lost(audit: dict[str, Any], at_least: int = 20) -> None:
    """Invariants 1 and 2 of a rollout without kill -9, by three independent books."""
    assert audit["accepted"] >= at_least, audit
    assert audit["answered"] == audit["accepted"], audit
    for name in ("lost", "wrong", "billed_twice", "uncertain", "expired", "failed", "refused"):
        assert audit[name] == 0, (name, audit)


def _kill(process: subprocess.Popen[Any]) -> None:
    if process.poll() is None:
        signal_tree(process.pid, signal.SIGKILL)
        process.wait()


def tree(pid: int) -> dict[int, str]:
    """A process and all that it started, in whatever session, each with what tells it from a later one of its number.

    Since ansible-core 2.19 each fork of a playbook has a session of its own, so a signal to its group misses them.
    """
    parents, started = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            if fields[0] != "Z":
                parents[int(stat.parent.name)], started[int(stat.parent.name)] = int(fields[1]), fields[19]
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return {one: started[one] for one in found if one in started}


def signal_tree(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process and to all that it started; each is stopped before, so that none starts another."""
    seen: dict[int, str] = {}
    while found := [one for one in tree(pid) if one not in seen]:
        for one in found:
            _signal(one, signal.SIGSTOP)
        seen.update(dict.fromkeys(found, ""))
    for one in seen:
        _signal(one, number)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


# -- fixture releases: the reference worker's own source with one thing broken -----------------


def overlay(folder: Path, **patches: tuple[str, str]) -> str:
    """Write a copy of a source file with one text replaced; a patch that no longer fits is an error."""
    for module, (old, new) in patches.items():
        source = SOURCE / "src/solver_worker" / f"{module}.py"
        text = source.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{module}.py has changed: {text.count(old)} times {old!r}"
        target = folder / "src/solver_worker" / f"{module}.py"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text.replace(old, new), encoding="utf-8")
    return str(folder)


def broken_releases(folder: Path) -> dict[str, str]:
    """Return version -> overlay: what each version does wrong."""
    shutil.rmtree(folder, ignore_errors=True)
    return {
        # dies at once, although `check` is content
        "1.4.0": overlay(folder / "crash", serve=("    try:\n        held = take_locks", "    os._exit(3)\n    try:\n"
                                                  "        held = take_locks")),
        # serves, but does not know the right answer of its probe
        "1.4.1": overlay(folder / "probe", probe=('IMAGE_TEXT = "W7Q4K"', 'IMAGE_TEXT = "WRONG"')),
    }


def lend_wheels(folder: Path, versions: Sequence[str], overlays: dict[str, str]) -> None:
    """Have them in FOLDER too, with what says of what they were made: what was made of the same is not built again."""
    built_just_now = shutil.ignore_patterns(".lock", ".build-*", ".tmp-*")  # by another process
    shutil.copytree(built_wheels(versions, overlays), folder, dirs_exist_ok=True, ignore=built_just_now)


def built_wheels(versions: Sequence[str], overlays: dict[str, str]) -> Path:
    """Return the releases and all that they need as wheels, built once for the fleets of all test processes."""
    # Per ansible-core, because what is built fits the Python that it was built with.
    folder = ROOT / ".cache" / "wheels" / ansible_bin().parent.name.strip(".")
    python = str(ansible_bin() / "python")
    values = {"path": str(folder), "source": str(SOURCE), "versions": list(versions), "overlays": overlays,
              "requirements": ["supervisor"], "python": python}
    done = subprocess.run(
        [str(ansible_bin() / "ansible"), "localhost", "-m", "solver.fleet.wheelhouse", "-a", json.dumps(values),
         "-e", f"ansible_python_interpreter={python}"],
        cwd=ROOT, env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}, capture_output=True, text=True,
        check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder
