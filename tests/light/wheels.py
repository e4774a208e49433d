# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases to stage: wheels written by hand, whose program is one line of shell that answers `check`."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
import zipfile
from pathlib import Path
from typing import Any

_METADATA = "Metadata-Version: 2.1\nName: solver-worker\nVersion: {}\n"
_WHEEL = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def write_wheel(folder: Path, version: str, **answer: Any) -> Path:
    """Write solver_worker-VERSION; its `check` says ANSWER. The same wishes make the same wheel, byte for byte."""
    said = json.dumps({"ok": True, "version": version, "problems": [], "journal": None, **answer})
    info = f"solver_worker-{version}.dist-info"
    files = {
        f"solver_worker-{version}.data/scripts/solver-worker": f"#!/bin/sh\necho {shlex.quote(said)}\n",
        f"{info}/METADATA": _METADATA.format(version),
        f"{info}/WHEEL": _WHEEL,
    }
    record = f"{info}/RECORD"
    files[record] = "".join(f"{name},{_digest(text)},{len(text)}\n" for name, text in files.items()) + f"{record},,\n"
    path = folder / f"solver_worker-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name)  # dated 1980, so that the digest stays
            entry.external_attr = (0o100755 if "/scripts/" in name else 0o100644) << 16
            archive.writestr(entry, text)
    return path


def _digest(text: str) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
