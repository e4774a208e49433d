# SPDX-License-Identifier: GPL-3.0-or-later
"""One task that asks every host at once: real workers, and hosts that cannot answer in all the ways there are."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fleetlib import ROOT, ansible_bin, wait_for

PLAY = Path(__file__).parent / "fanout" / "ask.yml"
LOCAL = {"ansible_connection": "local"}
# Long beyond the test's own time: it is not ssh that gives up.
SSH = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_ssh_timeout": 120, "ansible_user": "nobody"}
Ask = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    def run(hosts: dict[str, Any], module: str, each: dict[str, Any], *, timeout: float = 60,
            words: tuple[str, ...] = (), **environment: str) -> dict[str, dict[str, Any]]:
        inventory = tmp_path / "inventory.json"
        inventory.write_text(json.dumps({"all": {"hosts": hosts}}))
        variables = {"ask_from": next(iter(hosts)), "ask_module": module, "ask_each": each, "ask_timeout": timeout,
                     "ask_parallel": 10, "ask_write": str(tmp_path / "answers.json"),
                     "ask_remote_tmp": str(tmp_path / "remote")}
        command = [str(ansible_bin() / "ansible-playbook"), str(PLAY), "-i", str(inventory), *words,
                   "-e", json.dumps(variables)]
        done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False,
                              stderr=subprocess.STDOUT, text=True, timeout=100, env={
                                  **os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), **environment})
        assert done.returncode == 0, done.stdout
        return dict(json.loads((tmp_path / "answers.json").read_text()))

    return run


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a host that takes the connection and then never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def running(mark: str) -> list[str]:
    """Return the command lines, of ours and of what we left behind, that contain MARK."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if mark in line and "ansible-playbook" not in line:
            found.append(line)
    return found


def test_a_live_census_beside_hosts_that_do_not_answer(make_fleet, ask: Ask, silent: int) -> None:
    fleet = make_fleet(3)
    workers = fleet.hosts()
    control = {name: own["solver_control_socket"] for name, own in workers.items()}
    dumb = {"closed": {**SSH, "ansible_port": closed_port()}, "silent": {**SSH, "ansible_port": silent},
            "vague": {**LOCAL, "ansible_become": "{{ no_such_variable }}"}}
    each = {name: {"control_socket": path} for name, path in control.items()}
    each |= {name: {"control_socket": "/nowhere.sock"} for name in dumb} | {"stranger": {"control_socket": "/x.sock"}}
    answers = ask({**workers, **dumb}, "solver.fleet.worker_info", each, timeout=15)

    assert list(answers) == list(each)
    for name in workers:
        assert answers[name]["finding"] == "answering", answers[name]
        assert answers[name]["worker"]["instance"]["name"] == name
    assert all(answers[name]["unreachable"] is True for name in [*dumb, "stranger"]), answers
    # Where ssh closes its input a moment before it ends, Ansible reports that moment instead of what ssh said.
    assert any(words in answers["closed"]["msg"] for words in ("refused", "could not be sent")), answers["closed"]
    assert answers["silent"]["msg"] == "no answer within 15 s"
    assert "no_such_variable" in answers["vague"]["msg"]
    assert answers["stranger"]["msg"] == "stranger is not in the inventory"
    assert running(f"Port={silent}") == []


@pytest.mark.quick
def test_each_host_has_its_own_settings_and_the_play_those_of_all(ask: Ask, tmp_path: Path) -> None:
    """The python is templated for each host, through hostvars, in a variable of the play."""
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho this is not python >&2\nexit 3\n")
    broken.chmod(0o755)
    hosts = {"a": LOCAL, "b": LOCAL, "c": {**LOCAL, "own_python": str(broken)}}
    answers = ask(hosts, "ansible.builtin.command", {name: {"argv": ["echo", name]} for name in hosts})
    assert [answers[name].get("stdout") for name in ("a", "b")] == ["a", "b"], answers
    assert not any("invocation" in own for own in answers.values()), "what was asked of all is known, and may be large"
    # No module answered there: the host ended it, or its python is none. That says nothing about a worker.
    assert (answers["c"]["failed"], answers["c"]["unreachable"]) == (True, True)
    assert "this is not python" in answers["c"]["module_stderr"]


@pytest.mark.quick
@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user unasked")
@pytest.mark.parametrize("first", ["plain", "setting"])
def test_only_the_host_that_says_so_becomes_somebody_else(ask: Ask, tmp_path: Path, first: str) -> None:
    """Whichever of them the task of all was made for."""
    other = {**LOCAL, "own_python": "/usr/bin/python3", "ansible_become_method": "su", "ansible_become_user": "nobody",
             "ansible_become_flags": "-s /bin/sh"}
    every = {"plain": other, "variable": {**other, "ansible_become": True}, "setting": {**other, "solver_become": True}}
    hosts = {first: every[first], **every}
    answers = ask(hosts, "ansible.builtin.command", {name: {"argv": ["id", "-un"]} for name in hosts},
                  ANSIBLE_PIPELINING="1")
    assert {name: own.get("stdout") for name, own in answers.items()} == {
        "plain": "root", "variable": "nobody", "setting": "nobody"}, answers


@pytest.mark.quick
def test_nothing_is_left_of_a_look_that_was_late(ask: Ask) -> None:
    """Its command may have a session of its own."""
    mark = f"300.{os.getpid()}"
    answers = ask({"a": LOCAL, "b": LOCAL}, "ansible.builtin.command", {
        "a": {"argv": ["sleep", mark]}, "b": {"argv": ["setsid", "sleep", mark]}}, timeout=6)
    assert {own["msg"] for own in answers.values()} == {"no answer within 6 s"}, answers
    wait_for(lambda: not running(f"sleep {mark}"), "the end of the late commands", 5)


@pytest.mark.quick
@pytest.mark.parametrize("pipelining", ["0", "1"])
def test_nothing_is_left_in_the_remote_tmp(ask: Ask, tmp_path: Path, pipelining: str) -> None:
    answers = ask({"a": LOCAL, "b": LOCAL}, "ansible.builtin.command", {
        "a": {"argv": ["true"]}, "b": {"argv": ["false"]}}, ANSIBLE_PIPELINING=pipelining)
    assert [answers[name]["rc"] for name in ("a", "b")] == [0, 1], answers
    assert list((tmp_path / "remote").glob("ansible-tmp-*")) == []
    assert (tmp_path / "remote").exists() == (pipelining == "0")


@pytest.mark.quick
def test_check_mode_reaches_the_module(ask: Ask, tmp_path: Path) -> None:
    made = {name: {"path": str(tmp_path / f"made-by-{name}"), "state": "directory"} for name in ("a", "b")}
    answers = ask({"a": LOCAL, "b": LOCAL}, "ansible.builtin.file", made, words=("--check",))
    assert all(own["changed"] is True for own in answers.values()), answers
    assert list(tmp_path.glob("made-by-*")) == []
