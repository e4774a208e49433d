# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""A block of lines at the end of a terminal that is drawn anew, by the package rich where it is installed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, TextIO

try:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text
except ImportError:  # it is optional
    Console = None  # type: ignore[assignment,misc]


class Block:
    """Nothing else may write to the terminal but between C(away)."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False)
        self._live: Live | None = None
        self._lines: list[str] = []
        # Reentrant: what is written in between may itself be something that asks for room.
        self._lock = threading.RLock()

    @classmethod
    def on(cls, stream: TextIO, environ: Mapping[str, str]) -> Block | None:
        """Return one where somebody looks at a terminal that can be drawn on, and does not mind."""
        plain = environ.get("TERM", "dumb") in ("dumb", "unknown") or environ.get("NO_COLOR") or environ.get("CI")
        return cls(stream) if Console is not None and stream.isatty() and not plain else None

    def size(self) -> tuple[int, int]:
        """Return how many columns and lines there are."""
        return self._console.size.width, self._console.size.height

    def show(self, lines: Sequence[str]) -> None:
        with self._lock:
            if list(lines) == self._lines:
                return
            self._clear()
            self._lines = list(lines)
            if lines:
                # No refreshing thread of its own: Ansible forks, and this process has a thread already.
                self._live = Live(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"), console=self._console,
                                  auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)
                self._live.start(refresh=True)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Make room for lines that stay."""
        with self._lock:
            self._clear()
            yield

    def _clear(self) -> None:
        self._lines = []
        if self._live is not None:
            self._live.stop()
            self._live = None


# What writes to the terminal, of Ansible's one display of a process.
_SHOW = ("display", "banner", "warning", "deprecated", "error", "verbose")


def write_above(display: Any, block: Block) -> None:
    """Have whatever anybody shows in this process written above the block; Ansible's forks have no block."""
    pid = os.getpid()
    for name in _SHOW:
        real = getattr(display, name, None)
        if real is not None:
            setattr(display, name, _above(real, block, pid))


def _above(real: Callable[..., Any], block: Block, pid: int) -> Callable[..., Any]:
    @wraps(real)
    def show(*args: Any, **named: Any) -> Any:
        if os.getpid() != pid:
            return real(*args, **named)
        with block.away():
            return real(*args, **named)

    return show
