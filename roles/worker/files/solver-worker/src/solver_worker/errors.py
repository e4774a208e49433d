# SPDX-License-Identifier: GPL-3.0-or-later
"""What stops a worker, told apart by the exit code it deserves."""

from __future__ import annotations

import sqlite3


class ConfigError(Exception):
    """The configuration is wrong; the message names the key and the remedy (exit 2)."""


class LockHeldError(Exception):
    """Another process has this state directory or socket (exit 75)."""


class NotTakenOverError(Exception):
    """A take-over that came to nothing: the standby stands by as before."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class HandedOnError(Exception):
    """The journal went to a successor while a request was in hand."""


class JournalRefusedError(Exception):
    """The journal is not one that this release may open; it was left untouched."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class NotWrittenError(sqlite3.OperationalError):
    """The journal certainly does not hold what was to be written."""
