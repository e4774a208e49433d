# SPDX-License-Identifier: GPL-3.0-or-later
"""Reload HAProxy: the next process is to know what this one knows, and to be there when this script says so.

router_process.py started CONFIG RUN_DIR            what the process runs that has just started
router_process.py reload CONFIG RUN_DIR STATE PID   PID is HAProxy's master, STATE the file for the servers' states
"""

import contextlib
import ipaddress
import os
import signal
import socket
import sys
import time
from pathlib import Path

# HAProxy hands its keys over only once it has ended its own attempt to get some; alone, that takes 5 s.
SYNC_S = 15.0
# Reading the configuration may ask for names.
NEXT_S = 30.0
RESYNC_FINISHED = 3


def addresses(config: str) -> dict[tuple[str, str], tuple[str, str]]:
    """Return host and port of each server, by its backend and name."""
    found, backend = {}, ""
    for words in map(str.split, config.splitlines()):
        if words[:1] == ["backend"]:
            backend = words[1]
        elif words[:1] == ["server"]:
            host, _colon, port = words[2].rpartition(":")
            found[backend, words[1]] = (host.strip("[]"), port)
    return found


def same_address(wanted: tuple[str, str], known: tuple[str, str]) -> bool:
    """Say whether the address is still this one; of a name, only the port can be compared."""
    try:
        return wanted[1] == known[1] and ipaddress.ip_address(wanted[0]) == ipaddress.ip_address(known[0])
    except ValueError:
        return wanted[1] == known[1]


def still_true(state: str, config: str) -> str:
    """Leave out what was known of servers that have another address now.

    HAProxy would take the port from the state, not from its configuration.
    """
    wanted = addresses(config)
    version, header, *lines = state.strip().splitlines()
    column = {name: number for number, name in enumerate(header.removeprefix("# ").split())}
    kept = [version, header]
    for line in lines:
        row = line.split()
        address = wanted.get((row[column["be_name"]], row[column["srv_name"]]))
        if address and same_address(address, (row[column["srv_addr"]], row[column["srv_port"]])):
            kept.append(line)
    return "\n".join(kept) + "\n"


def resync_finished(peers: str) -> bool:
    """Say whether HAProxy has all keys that it will get from another process, by its answer to C(show peers)."""
    flags = [word for word in peers.split() if word.startswith("flags=")]
    return bool(flags) and int(flags[0].removeprefix("flags="), 16) & RESYNC_FINISHED == RESYNC_FINISHED


def ask(path: str, command: str) -> str:
    """Ask HAProxy, and return all that it says."""
    found = b""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as line:
        line.settimeout(5)
        line.connect(path)
        line.sendall(command.encode() + b"\n")
        while data := line.recv(65536):
            found += data
    return found.decode(errors="replace")


def answer_of(path: str, command: str) -> str:
    """Ask HAProxy; nothing while no process answers, as for a moment between two."""
    with contextlib.suppress(OSError):
        return ask(path, command)
    return ""


def pid_of(path: str) -> str:
    """Return the process that answers, or nothing while none does."""
    pids = [line for line in answer_of(path, "show info").splitlines() if line.startswith("Pid: ")]
    return pids[0].removeprefix("Pid: ") if pids else ""


def wait_for_keys(path: str) -> None:
    """Wait until the process that answers has its keys."""
    deadline = time.monotonic() + SYNC_S
    while not resync_finished(answer_of(path, "show peers")):
        if time.monotonic() > deadline:
            print(f"the keys did not come within {SYNC_S:g} s; known keys may be in doubt now", file=sys.stderr)
            return
        time.sleep(0.1)


def write(path: Path, text: str) -> None:
    """Write it whole, or not at all."""
    temporary = path.with_name(path.name + ".new")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def reload(config: Path, run_dir: Path, state: Path, master: int) -> str:
    """Return what went wrong, if anything did."""
    own = str(run_dir / "reload.sock")
    text = config.read_text(encoding="utf-8")
    wait_for_keys(own)
    write(state, still_true(ask(own, "show servers state"), text))
    before = pid_of(own)
    os.kill(master, signal.SIGUSR2)
    deadline = time.monotonic() + NEXT_S
    while pid_of(own) in ("", before):
        if time.monotonic() > deadline:
            return (f"no new process within {NEXT_S:g} s, the one before goes on; HAProxy's lines above say what it "
                    "lacks: an address to listen on that this host has not, or that is in use?")
        time.sleep(0.05)
    # Before anything that may fail: from now on this is what runs.
    write(run_dir / "loaded.cfg", text)
    wait_for_keys(own)
    return ""


def main(verb: str, config: str, run_dir: str, *more: str) -> str:
    """Do it, and return what went wrong, if anything did."""
    if verb == "started":
        write(Path(run_dir) / "loaded.cfg", Path(config).read_text(encoding="utf-8"))
        return ""
    return reload(Path(config), Path(run_dir), Path(more[0]), int(more[1]))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) or 0)
