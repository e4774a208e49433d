# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""Wheels and pip: reading a package, finding an interpreter, running pip bounded and without secrets."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
import zipfile
from email.parser import HeaderParser
from typing import Iterable, NamedTuple, Sequence

from ansible_collections.solver.fleet.plugins.module_utils._errors import Json, StepError
from ansible_collections.solver.fleet.plugins.module_utils._files import (
    TEMPORARY,
    clean_environment,
    mask,
    read_json,
    remove_tree,
    run_command,
    sha256_bytes,
    sha256_file,
    tail,
    write_json,
)

MINIMUM_PYTHON = (3, 11)
_METADATA_BYTES = 1 << 20
# Spelt so that the text in a file name, in METADATA and in an option compare equal.
VERSION = re.compile(
    r"[0-9]+(\.[0-9]+)*((a|b|rc)[0-9]+)?(\.post[0-9]+)?(\.dev[0-9]+)?(\+[a-z0-9]+(\.[a-z0-9]+)*)?\Z"
)
_PINNED = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:==\s*([^\s=,;*]+)\s*)?\Z")
_RUNS_VENV = "import sys, venv, ensurepip; print('%d %d' % sys.version_info[:2])"
_DESCRIBE = "import sys, ensurepip; print('%d.%d.%d' % sys.version_info[:3], ensurepip.version())"
_PIP_MARKER = "pip.json"


class Wheel(NamedTuple):
    """What a wheel says of itself."""

    path: str
    name: str
    version: str
    requires: tuple[str, ...]

    @property
    def file(self) -> str:
        return os.path.basename(self.path)

    def record(self) -> dict[str, str]:
        return {
            "file": self.file,
            "name": self.name,
            "version": self.version,
            "sha256": sha256_file(self.path),
        }


def normalize(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def split_file_name(file: str) -> tuple[str, str] | None:
    """Name and version in the name of a wheel file; None if it is not one."""
    parts = file[:-4].split("-") if file.endswith(".whl") else []
    return (normalize(parts[0]), parts[1]) if len(parts) in (5, 6) else None


def split_requirement(text: str) -> tuple[str, str | None] | None:
    """Name and version of C(name) or C(name==version); None for a requirement that says more."""
    found = _PINNED.match(text)
    return (normalize(found.group(1)), found.group(2)) if found else None


def _not_a_wheel(path: str, option: str, cause: str) -> StepError:
    return StepError(
        "not_a_wheel",
        f"reading '{path}': it is not a wheel, {cause}; give {option} a .whl file",
        {"path": path, "option": option},
    )


def _read_metadata(path: str, option: str) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
            names = [n for n in archive.namelist() if re.match(r"[^/]+\.dist-info/METADATA\Z", n)]
            if broken is not None:
                raise _not_a_wheel(path, option, f"'{broken}' in it is damaged")
            if len(names) != 1:
                raise _not_a_wheel(path, option, "it has no METADATA")
            with archive.open(names[0]) as stream:
                return stream.read(_METADATA_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        raise StepError(
            "no_package",
            f"reading '{path}': there is no such file; set {option} to a wheel that exists",
            {"path": path, "option": option},
        ) from None
    except OSError as error:
        raise StepError(
            "unreadable", f"reading '{path}' ({option}): {error.strerror}", {"path": path, "option": option}
        ) from error
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        ValueError,
        EOFError,
        RuntimeError,
        NotImplementedError,
    ) as error:
        raise _not_a_wheel(path, option, f"its archive is damaged or of another kind ({error})") from error
    except Exception as error:  # zlib and lzma errors have no common base
        if isinstance(error, StepError):
            raise
        raise _not_a_wheel(path, option, f"its content does not unpack ({error})") from error


def read_wheel(path: str, option: str) -> Wheel:
    """Read a wheel's name, version and requirements; every byte of it is checked on the way."""
    metadata = HeaderParser().parsestr(_read_metadata(path, option))
    name, version = metadata.get("Name"), metadata.get("Version")
    if not name or not version:
        raise _not_a_wheel(path, option, "its METADATA names no package and version")
    if split_file_name(os.path.basename(path)) != (normalize(name), version):
        raise _not_a_wheel(path, option, f"its file name is not that of {name} {version}")
    requires = tuple(sorted(r.strip() for r in metadata.get_all("Requires-Dist") or ()))
    return Wheel(path, normalize(name), version, requires)


def find_in_wheelhouse(folder: str, name: str, version: str | None) -> tuple[list[str], list[str]]:
    """Files of a package in a directory (of one version, if named), and the versions that there are."""
    try:
        files = sorted(os.listdir(folder))
    except OSError as error:
        raise StepError(
            "no_wheelhouse",
            f"reading the wheelhouse '{folder}': {error.strerror}; set wheelhouse (solver_wheelhouse) to a "
            "directory of wheels",
            {"path": folder, "option": "wheelhouse"},
        ) from error
    found = [
        (file, split[1])
        for file, split in ((f, split_file_name(f)) for f in files)
        if split and split[0] == name
    ]
    paths = [os.path.join(folder, file) for file, is_version in found if version in (None, is_version)]
    return paths, sorted({is_version for _file, is_version in found})


# --- interpreters ---


def _version_of(python: str) -> tuple[int, int] | None:
    """Which version this interpreter is, if it runs and can make environments."""
    try:
        status, out, _err = run_command([python, "-I", "-c", _RUNS_VENV], 20)
        major, minor = out.split()[:2] if status == 0 else ("0", "0")
        return (int(major), int(minor)) if status == 0 else None
    except (OSError, ValueError):
        return None


def _candidates() -> Iterable[str]:
    yield sys.executable
    for name in ("python3.13", "python3.12", "python3.11", "python3"):
        path = shutil.which(name)
        if path:
            yield path


def find_python(wanted: str | None, setting: str) -> str:
    """An interpreter that can make environments and is new enough: the wanted one, or the first that fits."""
    tried = []
    for python in [wanted] if wanted else _candidates():
        version = _version_of(python)
        if version is not None and version >= MINIMUM_PYTHON:
            return python
        tried.append(python)
    raise StepError(
        "no_python",
        f"looking for a Python of at least {MINIMUM_PYTHON[0]}.{MINIMUM_PYTHON[1]} with its venv module: "
        "none in "
        f"{', '.join(tried)}; install one (on Debian with its package python3-venv) and name it in {setting}",
        {"tried": tried, "option": setting},
    )


# --- pip ---


class IndexOptions(NamedTuple):
    """Where pip may look."""

    index_url: str | None = None
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False

    def arguments(self) -> list[str]:
        found = ["--no-index"] if self.no_index else []
        for place in self.find_links:
            if "://" not in place:
                found += ["--find-links", place]
        return found

    def environment(self) -> dict[str, str]:
        """Addresses may carry credentials, and everybody may read the arguments of a process."""
        found = {"PIP_INDEX_URL": self.index_url} if self.index_url else {}
        if self.extra_index_urls:
            found["PIP_EXTRA_INDEX_URL"] = " ".join(self.extra_index_urls)
        pages = [place for place in self.find_links if "://" in place]
        if pages:
            found["PIP_FIND_LINKS"] = " ".join(pages)
        return found

    def options(self) -> str:
        return "wheelhouse or find_links" if self.no_index else "index_url, extra_index_urls or find_links"


class Pip:
    """The pip of one interpreter, bounded by one deadline over all its runs."""

    def __init__(
        self,
        python: str,
        timeout: float,
        scratch: str | None = None,
        index: IndexOptions | None = None,
        keep_open: Sequence[int] = (),
    ) -> None:
        self.python = python
        self.index = index or IndexOptions()
        self.deadline = time.monotonic() + timeout
        self.scratch = scratch
        self.keep_open = keep_open
        self._ready = False

    def left(self) -> float:
        return max(0.001, self.deadline - time.monotonic())

    def settle(self, home: str) -> None:
        """Take pip from an environment of its own in HOME, made once for each interpreter.

        To make one takes several times as long as to install a release. HOME is the caller's alone: locked, or scratch.
        """
        path = os.path.realpath(shutil.which(self.python) or self.python)
        folder = os.path.join(home, sha256_bytes(path.encode("utf-8"))[:12])
        out = self.execute([self.python, "-I", "-c", _DESCRIBE], f"asking {self.python} for its pip", "python")
        made_of: Json = dict(zip(("python", "pip"), out.split()))
        python = os.path.join(folder, "bin", "python")
        _forget_pips(home)
        if read_json(os.path.join(folder, _PIP_MARKER)) != made_of:
            remove_tree(folder)
            try:
                doing = f"making an environment with pip, '{folder}'"
                self.execute([self.python, "-m", "venv", folder], doing, "python")
                # Last, because it says that the environment is whole.
                write_json(os.path.join(folder, _PIP_MARKER), made_of)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        self.python, self._ready = python, True

    def _prepare(self) -> None:
        """An interpreter without pip lends an environment that has it."""
        if self._ready:
            return
        if self.scratch and run_command([self.python, "-m", "pip", "--version"], 60)[0] != 0:
            self.settle(os.path.join(self.scratch, "pip"))
        self._ready = True

    def execute(
        self, arguments: Sequence[str], doing: str, option: str, extra: dict[str, str] | None = None
    ) -> str:
        env = clean_environment({"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", **(extra or {})})
        try:
            status, out, err = run_command(arguments, self.left(), env, keep_open=self.keep_open)
        except OSError as error:
            raise StepError(
                "command_failed",
                f"{doing}: '{arguments[0]}' does not run ({error.strerror}); check {option}",
                {"option": option},
            ) from error
        if status == 0:
            return out
        lines = tail(mask(out + "\n" + err))
        if status is None:
            raise StepError(
                "timeout",
                f"{doing}: it did not end in time; raise timeout or deploy_timeout",
                {"output": lines},
            )
        told = [line for line in lines if line.lstrip().startswith("ERROR")]
        cause = told[-1].lstrip() if told else (lines[-1] if lines else "no output")
        raise StepError(
            "pip_failed",
            f"{doing}: {cause} (exit status {status}); check {option}",
            {"status": status, "output": lines, "option": option},
        )

    def run(
        self,
        command: str,
        arguments: Sequence[str],
        doing: str,
        option: str,
        *,
        isolated: bool = False,
        env: str | None = None,
    ) -> str:
        """Run one of pip's commands, for this interpreter or for the environment ENV, which needs no pip."""
        self._prepare()
        flags = ["-I", "-m", "pip"] + (["--isolated"] if isolated else [])
        flags += ["--python", os.path.join(env, "bin", "python")] if env else []
        # The same source makes the same wheel, byte for byte, so that its digest stays.
        extra = {"SOURCE_DATE_EPOCH": "1577836800", **self.index.environment()}
        full = [self.python, *flags, command, "--progress-bar", "off", *self.index.arguments(), *arguments]
        return self.execute(full, doing, option, extra)


def _forget_pips(home: str) -> None:
    """An interpreter that was removed needs no pip any more."""
    for name in os.listdir(home) if os.path.isdir(home) else []:
        if name.startswith(TEMPORARY) or not os.path.exists(os.path.join(home, name, "bin", "python")):
            remove_tree(os.path.join(home, name))
