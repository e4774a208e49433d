# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""Files, links, locks and bounded commands: what placing a release needs from the operating system."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from typing import Any, BinaryIO, Callable, Iterator, Mapping, Sequence

from ansible_collections.solver.fleet.plugins.module_utils._errors import Json, StepError, printable, remedy
from ansible_collections.solver.fleet.plugins.module_utils._json import plain_json

# Of a command's output this much is ever read, and this many lines are shown.
OUTPUT_BYTES = 65536
TAIL_LINES = 15
# No document that is kept beside a worker is longer.
MOST_BYTES = 1 << 20
# What begins like this is on its way in or out, and nobody's when its maker is gone.
TEMPORARY = ".tmp-"
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# To look at what is there without opening it needs no right to read it; where a system lacks that, links are refused.
_LOOK = getattr(os, "O_PATH", os.O_RDONLY | os.O_NONBLOCK) | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 20
# What a system says when no more can be written: a full disk, a used-up quota, a limit on the size of files.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_USERINFO = re.compile(r"(?<=://)[^/\s@'\"]+@")
# They would make an environment's interpreter import what is not in it.
_LEAKING_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "__PYVENV_LAUNCHER__", "VIRTUAL_ENV")


def mask(text: str, secrets: Sequence[str] = ()) -> str:
    """Blank credentials of URLs, and the given secrets, out of a text."""
    for secret in secrets:
        if len(secret) >= 4:
            text = text.replace(secret, "********")
    return _USERINFO.sub("********@", text)


def hide_credentials(hide: Callable[[str], Any], urls: Sequence[str | None]) -> None:
    """Have a module blank the passwords of these addresses in all that it returns, its arguments included."""
    for url in urls:
        for found in _USERINFO.findall(url or ""):
            hide(found[:-1])
            hide(found[:-1].split(":", 1)[-1])


def tail(text: str, lines: int = TAIL_LINES, width: int = 400) -> list[str]:
    """The last lines that say something, none longer than C(width), and fit to be shown."""
    found = [line.rstrip() for line in text.splitlines() if line.strip()]
    return [printable(line, width) for line in found[-lines:]]


# --- digests ---


def sha256_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


# --- writing ---


def narrow_umask() -> None:
    """What is made from here on belongs to its owner, whatever umask this process was given: others cannot write it."""
    os.umask(os.umask(0o077) | 0o022)


def fsync_dir(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_file(path: str, data: bytes, mode: int = 0o644) -> None:
    """Replace a file in one step; after a crash it holds the old content or the new one."""
    folder = os.path.dirname(path)
    handle, temporary = tempfile.mkstemp(prefix=TEMPORARY, dir=folder)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    fsync_dir(folder)


def write_json(path: str, document: Json) -> None:
    write_file(path, (json.dumps(document, indent=2, sort_keys=True) + "\n").encode("utf-8"))


def read_plain(path: str, most: int = MOST_BYTES) -> bytes:
    """The beginning of a regular file. What is read here may be another user's to replace: a link of that name is not
    followed, and what is no file is not waited for."""
    handle = os.open(path, _READ)
    with os.fdopen(handle, "rb") as stream:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", path)
        return stream.read(most)


def open_checked(path: str) -> BinaryIO:
    """Open a regular file through no link but root's and our own: another's may lead to what only we may read."""
    return os.fdopen(_descend(path), "rb")


def _descend(path: str) -> int:
    """One component at a time, each by what was looked at, so that nothing can be exchanged in between."""
    parts = [part for part in os.path.abspath(path).split("/") if part][::-1]
    folder, links = os.open("/", _LOOK), 0
    try:
        while parts:
            name = parts.pop()
            found = os.open(name, _LOOK, dir_fd=folder)
            about = os.fstat(found)
            if stat.S_ISLNK(about.st_mode):
                target = _target(found, about, path)
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, "it leads through too many links", path)
                parts += [part for part in target.split("/") if part][::-1]
                found = os.open("/" if target.startswith("/") else ".", _LOOK, dir_fd=folder)
            elif not parts:
                return _opened(name, folder, found, path)
            os.close(folder)
            folder = found
        raise OSError(errno.EISDIR, "it is no regular file", path)
    finally:
        os.close(folder)


def _target(link: int, about: os.stat_result, path: str) -> str:
    try:
        if about.st_uid not in (0, os.geteuid()):
            raise OSError(errno.ELOOP, "it leads through a link of another user", path)
        return os.readlink("", dir_fd=link)
    finally:
        os.close(link)


def _opened(name: str, folder: int, looked_at: int, path: str) -> int:
    os.close(looked_at)
    handle = os.open(name, _READ, dir_fd=folder)
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise OSError(errno.EINVAL, "it is no regular file", path)


def read_json(path: str, most: int = MOST_BYTES) -> Json | None:
    """The JSON object in a file; None if there is no such file or it holds something else."""
    try:
        document = plain_json(read_plain(path, most))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


# By which an operator of the playbooks sets the option.
_SETTING_OF = {"base_dir": "solver_base_dir", "dest": "solver_base_dir", "path": "solver_wheelhouse"}


def make_dirs(path: str, option: str) -> None:
    try:
        os.makedirs(path, mode=0o755, exist_ok=True)
    except OSError as error:
        raise StepError(
            "unwritable",
            f"creating '{path}': {error.strerror}; "
            + remedy(error, f"set {option} ({_SETTING_OF[option]}) to a directory that this user may write"),
            {"path": path, "option": option},
        ) from error


def remove_tree(path: str) -> None:
    """Remove a directory or a link; gone already is fine, a part that stays is an error.

    A directory gets another name first: of one whose removal is killed nobody may take what is left for the whole.
    """
    if os.path.islink(path) or os.path.isfile(path):
        os.unlink(path)
    elif os.path.isdir(path):
        folder, name = os.path.split(os.path.abspath(path))
        if not name.startswith(TEMPORARY):
            aside = os.path.join(folder, f"{TEMPORARY}gone-{name}")
            if os.path.isdir(aside):
                shutil.rmtree(aside)
            try:
                os.rename(path, aside)
                path = aside
            except OSError as error:
                # Of a lower layer of an overlay, as in a container's image: it can only be removed where it is.
                if error.errno != errno.EXDEV:
                    raise
        shutil.rmtree(path)


def read_link(path: str) -> str | None:
    """Where a symbolic link points, absolute and not followed further; None if there is no link."""
    try:
        target = os.readlink(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL, errno.ENOTDIR):
            return None
        raise
    return os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(path)), target))


def remove_file(path: str) -> None:
    """Remove a file or a link, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def switch_link(path: str, target: str) -> None:
    """Point a link elsewhere in one step: whoever looks sees the old target or the new one."""
    folder = os.path.dirname(os.path.abspath(path))
    temporary = os.path.join(folder, f".{os.path.basename(path)}.{os.getpid()}")
    remove_file(temporary)
    os.symlink(target, temporary)
    try:
        os.replace(temporary, path)
    except OSError as error:
        os.unlink(temporary)
        raise StepError(
            "not_a_link",
            f"pointing '{path}' to '{target}': {error.strerror}; it must be a link, or not exist",
            {"path": path},
        ) from error
    fsync_dir(folder)


def existing_parent(path: str) -> str:
    path = os.path.abspath(path)
    while not os.path.isdir(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


def free_mb(path: str) -> int:
    found = os.statvfs(existing_parent(path))
    return found.f_bavail * found.f_frsize // (1024 * 1024)


# --- locks ---


def open_lock(path: str, create: bool, mode: int = 0o644) -> int:
    """Open a file only to lock it. A link in its place is somebody's trap: it is not followed."""
    flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, mode)


@contextlib.contextmanager
def locked(path: str, timeout: float, option: str) -> Iterator[int]:
    """Hold the lock on a file. Pass the yielded descriptor on to children that must not outlive the lock."""
    deadline = time.monotonic() + timeout
    handle = open_lock(path, create=True)
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise StepError(
                        "locked",
                        f"locking '{path}': another process held it for {timeout:g} s; "
                        f"wait for it or raise {option}",
                        {"path": path, "option": option},
                    ) from None
                time.sleep(0.05)
        yield handle
    finally:
        os.close(handle)


# --- commands ---


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    found = {name: value for name, value in os.environ.items() if name not in _LEAKING_VARIABLES}
    found.update(extra or {})
    return found


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read_end(stream: Any) -> str:
    stream.seek(0, os.SEEK_END)
    stream.seek(max(0, stream.tell() - OUTPUT_BYTES))
    return str(stream.read().decode("utf-8", "replace"))


def user_ids(user: str) -> tuple[int, int]:
    """The ids of a user and of its group."""
    try:
        found = pwd.getpwnam(user)
    except KeyError as error:
        raise StepError(
            "no_user",
            f"looking for the user '{user}': this host does not have it; create it (provision.yml does), or correct "
            "the user that the worker runs as",
            {"user": user},
        ) from error
    return found.pw_uid, found.pw_gid


def as_user(user: str | None) -> list[str]:
    """What stands before a command so that root runs it as that user. Who is not root stays who it is."""
    if not user or os.geteuid() != 0:
        return []
    user_ids(user)
    program = shutil.which("setpriv")
    if program is None:
        raise StepError(
            "no_setpriv",
            f"running a program as '{user}': this host has no setpriv; install util-linux",
            {"user": user},
        )
    return [program, "--reuid", user, "--regid", user, "--init-groups", "--"]


def run_command(
    arguments: Sequence[str],
    timeout: float,
    env: Mapping[str, str] | None = None,
    keep_open: Sequence[int] = (),
) -> tuple[int | None, str, str]:
    """Run a command, bounded: its status (None after the time-out) and the ends of stdout and stderr."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            list(arguments),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=clean_environment() if env is None else dict(env),
            start_new_session=True,
            pass_fds=tuple(keep_open),
        )
        status: int | None = None
        try:
            status = process.wait(timeout=max(timeout, 0.001))
        except subprocess.TimeoutExpired:
            pass
        finally:
            # Nothing that the command started may go on behind our back.
            if process.returncode is None:
                _end_group(process)
        return status, _read_end(out), _read_end(err)
