# SPDX-License-Identifier: GPL-3.0-or-later
"""The block at the end of a terminal: drawn on a real pseudo-terminal, and never where nobody looks at one."""

from __future__ import annotations

import io
import os
import pty
import re
import select
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils._controller import _live

TERMINAL = {"TERM": "xterm"}


class Screen:
    """What a terminal shows after what was written to it; of the control sequences those that rich uses."""

    def __init__(self) -> None:
        self.lines, self.row = [""], 0

    def feed(self, text: str) -> None:
        for part in re.findall(r"\x1b\[\??[\d;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
            if part == "\n":
                self.row += 1
                self.lines += [""] * (self.row >= len(self.lines))
            elif part.endswith("A") and part[0] == "\x1b":
                self.row -= int(part[2:-1] or 1)
            elif part == "\x1b[2K":
                self.lines[self.row] = ""
            elif part[0] not in "\x1b\r":
                self.lines[self.row] += part


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    main, other = pty.openpty()
    with os.fdopen(other, "w", encoding="utf-8") as stream:
        def written() -> str:
            text = b""
            while select.select([main], [], [], 0)[0]:
                text += os.read(main, 65536)
            return text.decode()

        yield stream, written
    os.close(main)


def test_lines_that_stay_are_above_the_block_and_nothing_of_it_is_left(terminal: tuple[Any, Any]) -> None:
    stream, written = terminal
    block = _live.Block.on(stream, TERMINAL)
    assert block is not None
    display = type("Display", (), {"display": staticmethod(lambda text: print(text, file=stream))})()
    _live.write_above(display, block)  # as Ansible's one display: whoever writes by it makes room
    block.show(["1 of 4 done", "  w1 drains"])
    block.show(["1 of 4 done", "  w1 restarts"])
    display.display("w1 updated")
    block.show(["2 of 4 done"])
    stream.flush()
    screen = Screen()
    screen.feed(written())
    assert [line for line in screen.lines if line] == ["w1 updated", "2 of 4 done"]
    block.show([])
    display.display("completed")
    stream.flush()
    screen.feed(written())
    assert [line for line in screen.lines if line] == ["w1 updated", "completed"]


def test_text_of_a_worker_is_no_markup(terminal: tuple[Any, Any]) -> None:
    stream, written = terminal
    block = _live.Block.on(stream, TERMINAL)
    assert block is not None
    block.show(["w1 [red]drains[/red] :smile:"])
    stream.flush()
    assert "[red]drains[/red] :smile:" in written()
    block.show([])


@pytest.mark.parametrize("environ", [
    {"TERM": "dumb"}, {}, {"TERM": "xterm", "NO_COLOR": "1"}, {"TERM": "xterm", "CI": "true"}])
def test_there_is_none_where_it_would_be_in_the_way(terminal: tuple[Any, Any], environ: dict[str, str]) -> None:
    assert _live.Block.on(terminal[0], environ) is None


def test_there_is_none_in_a_pipe_or_without_rich(terminal: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert _live.Block.on(io.StringIO(), TERMINAL) is None
    monkeypatch.setattr(_live, "Console", None)
    assert _live.Block.on(terminal[0], TERMINAL) is None


def test_a_fork_of_ansible_has_no_block(terminal: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that some thread held when it was forked would never be free there."""
    block = _live.Block.on(terminal[0], TERMINAL)
    assert block is not None
    said: list[str] = []
    display = type("Display", (), {"display": staticmethod(said.append)})()
    _live.write_above(display, block)
    monkeypatch.setattr(_live.os, "getpid", lambda: -1)
    monkeypatch.setattr(block, "away", lambda: pytest.fail("it waited for the block"))
    display.display("w1 updated")
    assert said == ["w1 updated"]
