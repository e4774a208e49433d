# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""Bringing wheels to a host: which ones travel, which ones are missing, and putting them in place."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tarfile
import tempfile
from typing import IO, Mapping, Sequence

from ansible_collections.solver.fleet.plugins.module_utils._errors import StepError, remedy
from ansible_collections.solver.fleet.plugins.module_utils._files import (
    FULL,
    TEMPORARY,
    fsync_dir,
    make_dirs,
    sha256_file,
)
from ansible_collections.solver.fleet.plugins.module_utils._wheels import split_file_name

_BLOCK = 1 << 20


def travelling(files: Sequence[str], release: str | None) -> list[str]:
    """The wheels among these files, without other versions of the package of RELEASE."""
    own = split_file_name(release or "")
    found = {file: split_file_name(file) for file in files}
    return sorted(
        file for file, said in found.items() if said and (own is None or said[0] != own[0] or said[1] == own[1])
    )


def missing_in(folder: str, digests: Mapping[str, str]) -> list[str]:
    """The files that are not there, or there with another content."""
    for file in digests:
        if os.path.basename(file) != file or split_file_name(file) is None:
            raise StepError("unreadable", f"reading wheels: '{file}' is no name of a wheel; correct it in src")
    return [file for file in sorted(digests) if _digest(os.path.join(folder, file)) != digests[file]]


def _digest(path: str) -> str:
    try:
        return sha256_file(path)
    except OSError:
        return ""


def place(bundle: str, folder: str, digests: Mapping[str, str]) -> None:
    """Put these files of a tar archive into a folder, each in one step and only with the right digest."""
    make_dirs(folder, "dest")
    try:
        with _opened(bundle) as archive:
            for file, digest in digests.items():
                _place_one(archive, file, folder, digest)
        fsync_dir(folder)
    except (KeyError, tarfile.TarError, EOFError) as error:
        raise StepError("damaged", f"unpacking wheels in '{folder}': what arrived is damaged ({error})") from error
    except OSError as error:
        raise StepError(
            "no_space" if error.errno in FULL else "unwritable",
            f"writing wheels to '{folder}': {error.strerror}; " + remedy(
                error, "set dest (solver_base_dir) to a directory that this user may write, with enough room"),
            {"path": folder, "option": "dest"},
        ) from error


def _opened(bundle: str) -> tarfile.TarFile:
    try:
        return tarfile.open(bundle)
    except OSError as error:
        raise StepError(
            "unreadable",
            f"reading '{bundle}', which was brought a moment ago: {error.strerror}; "
            "nothing else may clean Ansible's remote_tmp meanwhile",
            {"path": bundle},
        ) from error


def _place_one(archive: tarfile.TarFile, file: str, folder: str, digest: str) -> None:
    # Only as a stream: neither the names nor the links in the archive are followed.
    stream = archive.extractfile(file)
    if stream is None:
        raise KeyError(file)
    handle, temporary = tempfile.mkstemp(prefix=TEMPORARY, dir=folder)
    try:
        with os.fdopen(handle, "wb") as out:
            found = _copy(stream, out)
            out.flush()
            os.fchmod(out.fileno(), 0o644)
            os.fsync(out.fileno())
        if found != digest:
            raise StepError(
                "damaged",
                f"bringing '{file}': what arrived has not the controller's digest; "
                "run it again when nothing else writes to src",
                {"file": file, "expected": digest, "found": found},
            )
        os.replace(temporary, os.path.join(folder, file))
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _copy(source: IO[bytes], target: IO[bytes]) -> str:
    digest = hashlib.sha256()
    for block in iter(lambda: source.read(_BLOCK), b""):
        digest.update(block)
        target.write(block)
    return digest.hexdigest()
