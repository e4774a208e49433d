# SPDX-License-Identifier: GPL-3.0-or-later
"""What the service manager is told, and when."""

import socket
from contextlib import closing

from harness import World, eventually
from solver_worker.notify import Notifier


async def test_ready_after_recovery_and_no_stopping_for_a_drain(world: World) -> None:
    path = world.home / "notify"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        manager.bind(str(path))
        manager.setblocking(False)
        heard: list[str] = []

        def hear() -> str:
            try:
                while True:
                    heard.append(manager.recv(4096).decode())
            except BlockingIOError:
                return "\n".join(heard)

        worker = await world.worker().start(NOTIFY_SOCKET=str(path), WATCHDOG_USEC="400000")
        assert hear().count("READY=1") == 1
        await worker.drain("rollout-1")
        await eventually(lambda: "STATUS=drained: 0 open, owner rollout-1" in hear())
        beats = hear().count("WATCHDOG=1")
        await eventually(lambda: hear().count("WATCHDOG=1") > beats + 1)
        assert "STOPPING=1" not in hear()
        await worker.term()
        assert hear().count("STOPPING=1") == 1


async def test_a_failed_worker_is_not_killed_for_being_late(world: World) -> None:
    first = await world.worker().start()
    path = world.home / "notify"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        manager.bind(str(path))
        manager.settimeout(10)
        second = world.worker("w2", data={"port": first.port})
        await second.start(until="failed", NOTIFY_SOCKET=str(path))
        assert manager.recv(4096).startswith(b"READY=1\nSTATUS=failed: ")


def test_a_manager_that_is_gone_is_no_error() -> None:
    Notifier({"NOTIFY_SOCKET": "/nowhere/notify"}).ready("running")
    assert Notifier({}).watchdog_s is None
    assert Notifier({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}).watchdog_s is None
