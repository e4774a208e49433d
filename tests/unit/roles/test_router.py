# SPDX-License-Identifier: GPL-3.0-or-later
"""What the router's configuration and its reload are made of, without HAProxy."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import jinja2
import pytest

ROLE = Path(__file__).parents[3] / "roles" / "router"
# HAProxy's own limits for a line of its configuration: MAX_LINE_ARGS and LINESIZE of its defaults.h.
WORDS, CHARACTERS = 64, 2048

STATE = """1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_port srvrecord
3 solver 11 w1 10.0.0.1 2 8081 -
3 solver 12 w2 10.0.0.2 0 8081 -
4 owner_w1 11 w1 10.0.0.1 2 8081 -

"""


@pytest.fixture(scope="module")
def process() -> ModuleType:
    spec = importlib.util.spec_from_file_location("router_process", ROLE / "files" / "router_process.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def config(w1: str = "10.0.0.1:8081", w2: str = "10.0.0.2:8081") -> str:
    return (f"backend solver\n    server w1 {w1} id 11 check\n    server w2 {w2} id 12 check\n"
            f"backend owner_w1\n    server w1 {w1} id 11\nbackend next\n    server next unix@/run/next.sock\n")


@pytest.mark.parametrize(("text", "kept"), [
    (config(), ["solver w1", "solver w2", "owner_w1 w1"]),
    (config(w1="10.0.0.1:8099"), ["solver w2"]),
    (config(w1="10.0.0.9:8081"), ["solver w2"]),
    (config(w2="w2.example.net:8081"), ["solver w1", "solver w2", "owner_w1 w1"]),
    (config(w2="w2.example.net:8082"), ["solver w1", "owner_w1 w1"]),
    (config().replace("    server w2 10.0.0.2:8081 id 12 check\n", ""), ["solver w1", "owner_w1 w1"]),
])
def test_what_was_known_of_another_address_is_left_out(process: ModuleType, text: str, kept: list[str]) -> None:
    lines = process.still_true(STATE, text).splitlines()
    assert lines[:2] == STATE.splitlines()[:2]
    assert [" ".join([line.split()[1], line.split()[3]]) for line in lines[2:]] == kept


def test_addresses_of_ip_6_are_compared_as_such(process: ModuleType) -> None:
    assert process.same_address(process.addresses("backend b\n server a [2001:db8::1]:80")["b", "a"],
                                ("2001:db8:0::1", "80"))


@pytest.mark.parametrize(("peers", "finished"), [
    # As HAProxy 2.6.12 and 3.0.11 say it.
    ("0x55: [28/Nov/2026:12:35:55] id=solver_peers disabled=0 flags=0x11 resync_timeout=4s task_calls=9", False),
    ("0x55: [28/Nov/2026:12:35:55] id=solver_peers disabled=0 flags=0x33 resync_timeout=<PAST> task_calls=9", True),
    ("0x56: [28/Nov/2026:12:36:22] id=solver_peers disabled=0 flags=0x1103 resync_timeout=4s task_calls=3", True),
    ("0x7f: [28/Nov/2026:12:36:22] id=solver_peers disabled=0 flags=0x300003 resync_timeout=4s task_calls=4", True),
    ("", False),
])
def test_whether_the_keys_have_come(process: ModuleType, peers: str, finished: bool) -> None:
    assert process.resync_finished(peers) is finished


def test_what_has_started_is_kept(tmp_path: Path) -> None:
    (tmp_path / "router.cfg").write_text("global\n")
    done = subprocess.run([sys.executable, str(ROLE / "files" / "router_process.py"), "started",
                           str(tmp_path / "router.cfg"), str(tmp_path)], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "loaded.cfg").read_text() == "global\n"


def test_a_fleet_of_500_fits_into_the_lines_of_a_configuration() -> None:
    workers = {f"worker-{number:03}": f"10.0.{number // 250}.{number % 250}:8081" for number in range(500)}
    template = jinja2.Template((ROLE / "templates" / "haproxy.cfg.j2").read_text(), trim_blocks=True)
    text = template.render(router_workers=workers, router_ids=dict.fromkeys(workers, 268435455), router_bind=["::1:1"],
                           router_max_connections="2000")
    assert text.count("server worker-") == 1500
    for line in text.splitlines():
        # A text in quotes is one word.
        words = len(line.split("'")[0].split()) + sum(map(len, map(str.split, line.split("'")[2::2])))
        assert (words <= WORDS, len(line) < CHARACTERS) == (True, True), line


@pytest.mark.parametrize(("connections", "size"), [("10", 10000), ("2000", 10000), ("500000", 1000000)])
def test_more_new_keys_fit_than_can_be_in_hand(connections: str, size: int) -> None:
    """A key in hand is never pushed out; of all others this is the bound, and a reload carries that many over."""
    text = jinja2.Template((ROLE / "templates" / "haproxy.cfg.j2").read_text(), trim_blocks=True).render(
        router_workers={"w1": "10.0.0.1:8081"}, router_ids={"w1": 2}, router_bind=["::1:1"],
        router_max_connections=connections)
    assert f"backend solver_new_keys\n    stick-table type binary len 32 size {size} " in text
