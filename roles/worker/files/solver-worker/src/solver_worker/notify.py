# SPDX-License-Identifier: GPL-3.0-or-later
"""The sd_notify protocol; without NOTIFY_SOCKET every call does nothing."""

from __future__ import annotations

import os
import socket


class Notifier:
    """STOPPING=1 is sent only when the process really ends: for systemd it is final."""

    def __init__(self, environ: dict[str, str] | None = None) -> None:
        env = dict(os.environ) if environ is None else environ
        address = env.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        own = env.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = env.get("WATCHDOG_USEC", "") if own else ""
        self.watchdog_s = int(usec) / 2_000_000 if usec.isdigit() else None

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, text: str) -> None:
        self._send(f"STATUS={text}")

    def watchdog(self) -> None:
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        self._send("STOPPING=1\nSTATUS=handing over")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(message.replace("\r", " ").encode(), self._address)
        except OSError:
            # A service manager that does not listen is no reason to stop solving.
            return
