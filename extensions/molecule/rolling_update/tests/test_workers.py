# SPDX-License-Identifier: GPL-3.0-or-later
"""Each worker as it is after the rollout, seen from its host."""

from __future__ import annotations


def test_it_serves_the_new_release(status):
    assert status["instance"]["version"] == "1.3.0"
    assert status["state"] == "running"
    assert status["drain"] is None


def test_its_books_balance(status):
    totals = status["totals"]
    done = sum(totals[name] for name in ("succeeded", "failed", "uncertain", "expired"))
    assert totals["accepted"] == done + status["tasks"]["open"]
    assert totals["probes"] >= 1


def test_its_links_name_the_release_and_the_one_before(host, own, status):
    folder = f"{own['solver_base_dir']}/workers/{status['instance']['name']}"
    current, previous = (host.file(f"{folder}/{name}") for name in ("current", "previous"))
    assert current.is_symlink
    assert current.linked_to.endswith(f"/releases/{status['instance']['release']}")
    assert "/releases/1.2.0-" in previous.linked_to


def test_its_socket_and_journal_are_private(host, own, status):
    control = host.file(own["solver_control_socket"])
    assert control.is_socket
    assert control.mode == 0o660
    state = host.file(f"{own['solver_base_dir']}/workers/{status['instance']['name']}/state")
    assert state.mode == 0o700
    assert host.file(f"{state.path}/journal.sqlite3").mode == 0o600


def test_it_listens_on_loopback_alone(host, own):
    # From the kernel's table, because a host need not have ss or netstat; 0A is LISTEN.
    rows = [line.split() for table in ("tcp", "tcp6")
            for line in host.file(f"/proc/net/{table}").content_string.splitlines()[1:]]
    port = f"{own['solver_data_port']:04X}"
    assert [row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{port}")] == [f"0100007F:{port}"]


def test_the_key_is_in_no_log_and_no_journal(host, own, status):
    key = host.file(own["solver_api_key_file"]).content_string.strip()
    assert len(key) == 32
    folder = f"{own['solver_base_dir']}/workers/{status['instance']['name']}/state"
    done = host.run("grep --recursive --text --files-with-matches %s %s %s", key, folder,
                    own["solver_service"]["log_file"])
    assert done.rc == 1, done
