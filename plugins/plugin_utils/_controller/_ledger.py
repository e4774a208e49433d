# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""The ledger of one run: a private folder on the controller in which its processes tell each other what is going on.

It is a work file. The truth is on the workers: a later run plans from their records and begins a ledger of its own.
What decides is written under a lock that the kernel takes back when a process ends, however it ends. Events are for
people; nothing is decided by them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, UTC
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ansible_collections.solver.fleet.plugins.plugin_utils._controller._process import here, provably_dead

NAME = "solver.fleet"
# A run that writes more than this has gone wrong; its events are worth no full disk.
MAX_EVENTS = 64 << 20


def document_of(kind: str, name: str) -> str:
    """Return the name under which the ledger keeps what is of one worker; an inventory name may hold anything."""
    return f"{kind}-{quote(name, safe='')}"


class Ledger:
    """One folder, by its path."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    # -- the run's beginning ---------------------------------------------------------------------

    @classmethod
    def under(cls, local_tmp: str) -> Ledger:
        """The ledger of the run whose private temporary folder this is; Ansible removes that folder at its end."""
        return cls(str(Path(local_tmp) / NAME))

    def begin(self, main: int, document: Mapping[str, Any], workers: Mapping[str, Mapping[str, Any]]) -> None:
        """Open the ledger of the run whose main process is MAIN. One run has one."""
        self.folder.mkdir(mode=0o700)
        self.keep("owner", here(main))
        for name, own in workers.items():
            self.keep(document_of("worker", name), own)
        self.keep("rollout", document)

    @property
    def _screen(self) -> Path:
        return self.folder.parent / f"{NAME}.screen"

    def has_screen(self) -> bool:
        """Whether a callback shows the events, so that the actions need not."""
        return self._screen.exists()

    def show(self) -> None:
        """Note that a callback shows the events of this run, which need not have begun."""
        with contextlib.suppress(OSError):
            self._screen.touch(mode=0o600)

    @property
    def _document(self) -> Path:
        return self.folder.parent / f"{NAME}.document"

    def has_document(self) -> bool:
        """Whether an action shows a document that a program reads, so that nothing else may be written beside it."""
        return self._document.exists()

    def show_document(self) -> None:
        with contextlib.suppress(OSError):
            self._document.touch(mode=0o600)

    def exists(self) -> bool:
        return (self.folder / "rollout.json").exists()

    def sweep(self) -> None:
        """Remove what runs left that were killed; Ansible does not. Containers and machines may share this folder."""
        for owner in self.folder.parent.parent.glob(f"*/{NAME}/owner.json"):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                if provably_dead(json.loads(owner.read_text(encoding="utf-8")), here()):
                    shutil.rmtree(owner.parent)

    # -- documents -------------------------------------------------------------------------------

    def keep(self, name: str, document: Mapping[str, Any]) -> None:
        """Write a document, whole or not at all."""
        handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=".new-")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(document, stream)
        os.replace(temporary, self._path(name))

    def read(self, name: str) -> Any:
        """Return a document, a dict that the reader knows the type of; an empty one where there is none yet."""
        try:
            return dict(json.loads(self._path(name).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {}

    def version(self, name: str) -> tuple[int, ...]:
        """Return what differs after each change, without reading the document."""
        try:
            found = self._path(name).stat()
        except FileNotFoundError:
            return ()
        return found.st_ino, found.st_mtime_ns, found.st_size

    @contextlib.contextmanager
    def edit(self, name: str) -> Iterator[Any]:
        """Change a document while nobody else does. An error on the way changes nothing."""
        with (self.folder / f"{name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            document = self.read(name)
            before = json.dumps(document)
            yield document
            if json.dumps(document) != before:
                self.keep(name, document)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    # -- events ----------------------------------------------------------------------------------

    def emit(self, event: str, **facts: Any) -> None:
        """Add one line to the events; what cannot be written is no reason to stop."""
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        line = json.dumps({"at": at, "clock": round(time.monotonic(), 3), "event": event, **facts}) + "\n"
        with contextlib.suppress(OSError):
            handle = os.open(self.events, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if os.fstat(handle).st_size < MAX_EVENTS:
                    os.write(handle, line.encode("utf-8"))
            finally:
                os.close(handle)

    def told(self) -> Iterator[Any]:
        """Yield the events of the run so far; a line that was cut short says nothing."""
        with contextlib.suppress(OSError), open(self.events, encoding="utf-8") as stream:
            for line in stream:
                with contextlib.suppress(ValueError):
                    yield json.loads(line)

    @property
    def events(self) -> str:
        """Where the events go; a link where the operator keeps them."""
        return str(self.folder / "events.jsonl")

    def keep_events(self, path: str) -> None:
        """Write the events to a file of the operator's choice instead, which outlives the run."""
        Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        (self.folder / "events.jsonl").symlink_to(path)
