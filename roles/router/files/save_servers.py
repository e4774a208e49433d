# SPDX-License-Identifier: GPL-3.0-or-later
"""Write what HAProxy knows of its servers to a file, for the process that a reload starts."""

import contextlib
import os
import socket
import sys
from pathlib import Path


def main(stats_socket: str, path: str) -> None:
    found = b""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as line:
        line.settimeout(5)
        line.connect(stats_socket)
        line.sendall(b"show servers state\n")
        while data := line.recv(65536):
            found += data
    temporary = Path(path + ".new")
    with temporary.open("wb") as stream:
        stream.write(found)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
