# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs as AWX runs them: a private data directory for ansible-runner, with AWX's own variables and its own callback.

What ends a job in AWX is a signal to the runner, which then kills the playbook; here there is no container whose end
takes the rest with it, so Job.cancel() sees to that.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from fleetlib import ROOT, ansible_bin, signal_tree, tree, wait_for
from lightfleet import LightFleet

ADDRESS = "https://awx.example.com"
EXAMPLE = ROOT / "examples/awx_project"
# As AWX 24.6.1 sets them.
ENVIRONMENT = {
    "ANSIBLE_FORCE_COLOR": "True", "ANSIBLE_HOST_KEY_CHECKING": "False", "ANSIBLE_INVENTORY_UNPARSED_FAILED": "True",
    "ANSIBLE_PARAMIKO_RECORD_HOST_KEYS": "False", "ANSIBLE_RETRY_FILES_ENABLED": "False", "MAX_EVENT_RES": "700000",
    "AWX_HOST": ADDRESS}
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Job:
    """One job, and what is known of it when it has ended."""

    def __init__(self, number: int, folder: Path, process: subprocess.Popen[str], told: Path) -> None:
        self.number, self.folder, self.process, self._told = number, folder, process, told

    def wait(self, timeout: float = 200) -> Job:
        try:
            out, _none = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"job {self.number} did not end within {timeout} s:\n{self.stdout}") from None
        self.said = out or ""
        return self

    def cancel(self) -> Job:
        """End it as AWX does: the runner is told, and kills the playbook; a container takes all the rest with it."""
        below = tree(self.process.pid)
        self.process.send_signal(signal.SIGTERM)
        self.wait(60)
        end(below)
        return self

    def kill(self) -> None:
        if self.process.poll() is None:
            signal_tree(self.process.pid, signal.SIGKILL)
            self.process.wait()

    @property
    def status(self) -> str:
        return self._artifact("status")

    @property
    def rc(self) -> int:
        return int(self._artifact("rc"))

    @property
    def stdout(self) -> str:
        """What AWX shows, in one line, without colours."""
        with contextlib.suppress(OSError):
            return " ".join(COLOURS.sub("", self._artifact("stdout")).split())
        return ""

    def _artifact(self, name: str) -> str:
        return (self._told / "artifacts" / str(self.number) / name).read_text(encoding="utf-8")

    def events(self) -> list[dict[str, Any]]:
        folder = self._told / "artifacts" / str(self.number) / "job_events"
        found = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*-*.json")]
        return sorted(found, key=lambda event: int(event["counter"]))

    def artifacts(self) -> dict[str, Any]:
        """What set_stats left; a job that was killed leaves nothing."""
        return next((dict(event["event_data"].get("artifact_data") or {}) for event in self.events()
                     if event["event"] == "playbook_on_stats"), {})


def end(processes: Mapping[int, str]) -> None:
    """Kill those that are still the same processes as when they were seen, with all that they started."""
    for pid, started in processes.items():
        found = tree(pid)
        if found.get(pid) == started:
            for one in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)


class Controller:
    """Launches jobs over one fleet."""

    def __init__(self, fleet: LightFleet, groups: Mapping[str, Iterable[str]] | None = None) -> None:
        self.fleet = fleet
        self.groups = {name: list(hosts) for name, hosts in (groups or {"solver_workers": fleet.hosts()}).items()}
        self.folder = fleet.dir / "awx"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.jobs: list[Job] = []

    def launch(self, playbook: str, *, limit: str = "", slice_of: Iterable[str] | None = None, check: bool = False,
               timeout: int = 0, streamed: bool = False, project: Path = EXAMPLE, **variables: Any) -> Job:
        """Start a job with what its survey, its template and its node give it.

        SLICE_OF are the hosts of a slice. STREAMED, it goes through transmit, worker and process, as in receptor.
        """
        number = 41 + len(self.jobs)
        data = self._data(number, limit, slice_of, check, timeout, project, variables)
        words = [str(data), "-p", playbook, "--ident", str(number)]
        if not streamed:
            job = Job(number, data, self._start("ansible-runner", "run", *words), data)
        else:
            told = self.folder / f"{number}-told"
            work = self.folder / f"{number}-work"
            with (data / "sent").open("wb") as sent:
                subprocess.run([ansible_bin() / "ansible-runner", "transmit", *words], stdout=sent, check=True,
                               env=self._env(), timeout=100)
            job = Job(number, data, self._start("ansible-runner", "worker", "--private-data-dir", str(work),
                                                stdin=data / "sent", stdout=data / "back"), told)
        self.jobs.append(job)
        return job

    def until(self, what: str, condition: Callable[[], Any], job: Job, timeout: float = 120) -> None:
        """Wait for what a test waits for; the job must still be at work."""
        def found() -> bool:
            if condition():
                return True
            if job.process.poll() is not None:
                job.wait()
                raise AssertionError(f"job {job.number} ended before {what}: {self.process(job).stdout or job.said}")
            return False

        wait_for(found, what, timeout)

    def process(self, job: Job) -> Job:
        """Read what the worker of a streamed job sent back, as AWX does meanwhile."""
        if job._told == job.folder:
            return job
        with (job.folder / "back").open("rb") as back:
            subprocess.run([ansible_bin() / "ansible-runner", "process", str(job._told), "--ident", str(job.number)],
                           stdin=back, stdout=subprocess.DEVNULL, check=False, env=self._env(), timeout=100)
        return job

    def run(self, playbook: str, **given: Any) -> Job:
        return self.launch(playbook, **given).wait()

    def end(self) -> None:
        for job in self.jobs:
            job.kill()

    def _start(self, *words: str, stdin: Path | None = None, stdout: Path | None = None) -> subprocess.Popen[str]:
        with (stdin or Path(os.devnull)).open("rb") as given, (stdout or Path(os.devnull)).open("wb") as told:
            return subprocess.Popen([str(ansible_bin() / words[0]), *words[1:]], stdin=given,
                                    stdout=told if stdout else subprocess.PIPE,
                                    stderr=subprocess.STDOUT if not stdout else None, text=True,
                                    start_new_session=True, env=self._env())

    def _env(self) -> dict[str, str]:
        """Nothing of what surrounds the tests: a job's environment comes from its directory."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        return {**clean, "PATH": f"{ansible_bin()}:{os.environ['PATH']}"}

    def _data(self, number: int, limit: str, slice_of: Iterable[str] | None, check: bool, timeout: int, project: Path,
              variables: Mapping[str, Any]) -> Path:
        data = self.folder / str(number)
        for part in ("env", "inventory"):
            (data / part).mkdir(parents=True)
        if project == EXAMPLE:
            shutil.copytree(EXAMPLE, data / "project")
        else:
            (data / "project").symlink_to(project)
        env = {**ENVIRONMENT, "JOB_ID": str(number), "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections")}
        facts = {"job_id": number, "job_launch_type": "manual", "user_name": "ada", "job_template_name": "Solver | x",
                 "inventory_name": "Solver | fleet", "project_revision": "0" * 40}
        of_awx = {f"{prefix}_{name}": value for name, value in facts.items() for prefix in ("awx", "tower")}
        words = ["--forks", "10", *(["--limit", limit] if limit else []), *(["--check", "--diff"] if check else [])]
        for name, content in (("envvars", env), ("extravars", {**of_awx, **variables}),
                              ("settings", {"job_timeout": timeout, "idle_timeout": 0})):
            (data / "env" / name).write_text(yaml.safe_dump(content), encoding="utf-8")
        (data / "env/cmdline").write_text(" ".join(words), encoding="utf-8")
        self._write_inventory(data / "inventory/hosts", slice_of)
        return data

    def _write_inventory(self, path: Path, slice_of: Iterable[str] | None) -> None:
        """A script, as AWX has it."""
        wanted = set(self.fleet.hosts() if slice_of is None else slice_of)
        document: dict[str, Any] = {name: {"hosts": [host for host in hosts if host in wanted]}
                                    for name, hosts in self.groups.items()}
        document["_meta"] = {"hostvars": {host: own for host, own in self.fleet.hosts().items() if host in wanted}}
        path.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(document)}\nEND\n", encoding="utf-8")
        path.chmod(0o755)
