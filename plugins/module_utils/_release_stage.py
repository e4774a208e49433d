# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""Staging: build a release beside the running one and try it, without touching what serves."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import re
import shutil
import tempfile
import time
from datetime import datetime, timezone
from typing import Iterator, NamedTuple

from ansible_collections.solver.fleet.plugins.module_utils._errors import Json, StepError, one_line, remedy
from ansible_collections.solver.fleet.plugins.module_utils._files import (
    TEMPORARY,
    as_user,
    clean_environment,
    existing_parent,
    free_mb,
    fsync_dir,
    locked,
    make_dirs,
    mask,
    read_json,
    read_plain,
    remove_file,
    remove_tree,
    run_command,
    sha256_file,
    switch_link,
    tail,
    user_ids,
    write_file,
    write_json,
)
from ansible_collections.solver.fleet.plugins.module_utils._json import plain_json
from ansible_collections.solver.fleet.plugins.module_utils._release import (
    MARKER,
    PROGRAM,
    SCHEMA,
    STANDBY_UNIT,
    Base,
    Content,
    Package,
    built_for,
    config_digest,
    data_address,
    interpreter_version,
    needed_releases,
    prune,
    read_links,
    release_id,
    release_name,
    standby_unit,
)
from ansible_collections.solver.fleet.plugins.module_utils._service_systemd import hands_credentials_over
from ansible_collections.solver.fleet.plugins.module_utils._wheels import (
    IndexOptions,
    Pip,
    Wheel,
    find_in_wheelhouse,
    find_python,
    normalize,
    read_wheel,
    split_file_name,
    split_requirement,
)

# The name of a release's unit among the drop-ins, before any that an operator adds.
DROP_IN = "00-release.conf"
CHECK_TIMEOUT_S = 60.0
MIN_FREE_MB = 200
LENT = ".credentials-"
# In the packages of one version of Python once they are all installed.
WHOLE = ".whole"
SECRET_BYTES = 65536
PYTHON_SETTING = "solver_worker_python (python)"
_SECRET_FILE = re.compile(r"""^\s*\w+_file\s*=\s*["']([^"']+)["']""", re.MULTILINE)


class Target(NamedTuple):
    """What shall be staged, and where."""

    worker_name: str
    worker_dir: str
    base_dir: str
    config: str = ""
    package: str | None = None
    version: str | None = None
    sha256: str | None = None
    wheelhouse: str | None = None
    where: IndexOptions = IndexOptions()
    python: str | None = None
    rollout_id: str | None = None
    keep: int = 5
    min_free_mb: int = MIN_FREE_MB
    timeout: float = 300.0
    worker_dirs: str | None = None
    unit: tuple[str, str] | None = None
    credentials: tuple[tuple[str, str], ...] = ()
    run_as: str | None = None

    def all_worker_dirs(self) -> list[str]:
        pattern = self.worker_dirs or os.path.join(glob.escape(os.path.abspath(self.base_dir)), "workers", "*")
        return sorted({os.path.abspath(p) for p in [*glob.glob(pattern), self.worker_dir]})


# --- which package ---


def _check_digest(path: str, wanted: str | None) -> str:
    found = sha256_file(path)
    if wanted and found != wanted.lower():
        raise StepError(
            "wrong_digest",
            f"reading '{path}': its sha256 is {found}, not {wanted.lower()}; correct sha256 or package",
            {"expected": wanted.lower(), "found": found, "option": "sha256"},
        )
    return found


def _check_version(wheel: Wheel, wanted: str | None) -> None:
    if wanted and wheel.version != wanted:
        raise StepError(
            "version_mismatch",
            f"reading '{wheel.path}': it is version {wheel.version}, not {wanted}; correct version or package",
            {"expected": wanted, "found": wheel.version, "option": "version"},
        )


class Packages:
    """Finds the wheel that an option names."""

    def __init__(
        self, target: Target, base: Base, scratch: str, pip_timeout: float, pip_home: str | None = None
    ) -> None:
        """PIP_HOME is where a pip for the environments is kept; None if nothing may be written there."""
        self.target = target
        self.base = base
        self.scratch = scratch
        self.pip_timeout = pip_timeout
        self.pip_home = pip_home

    def find(self) -> Package:
        target = self.target
        if target.package is None and target.version is None:
            return self._of_current()
        named = target.package or f"{PROGRAM}=={target.version}"
        path = named if "/" in named or named.endswith(".whl") else self._of_requirement(named)
        wheel = read_wheel(path, "package")
        _check_version(wheel, target.version)
        return Package(wheel.version, _check_digest(path, target.sha256), path)

    def _of_current(self) -> Package:
        """Without a package and a version the worker keeps the package that it has."""
        current = release_name(read_links(self.target.worker_dir).current)
        found = self.base.metadata(current) if current else None
        if found is None:
            raise StepError(
                "no_version",
                f"staging a release of {self.target.worker_name}: it has no release yet whose package it could "
                "keep; set solver_version, or package",
                {"option": "package"},
            )
        return Package(str(found["version"]), str(found["package_digest"]))

    def _of_requirement(self, text: str) -> str:
        split = split_requirement(text)
        if split is None:
            raise StepError(
                "bad_requirement",
                f"reading package '{mask(text)}': it is neither the path of a wheel nor a requirement such as "
                f"{PROGRAM}==1.3.0; correct package",
                {"option": "package"},
            )
        name, version = split[0], split[1] or self.target.version
        if version is None:
            raise StepError(
                "no_version",
                f"reading package '{text}': it names no version; set solver_version, or write {text}==1.3.0",
                {"option": "version"},
            )
        if self.target.wheelhouse:
            return self._in_wheelhouse(self.target.wheelhouse, name, version)
        return self._from_index(name, version)

    def _in_wheelhouse(self, folder: str, name: str, version: str) -> str:
        paths, versions = find_in_wheelhouse(folder, name, version)
        if len(paths) != 1:
            there = ", ".join(versions) or "none"
            cause = f"it has more than one wheel of it ({len(paths)})" if paths else f"it has {there}"
            raise StepError(
                "unknown_version" if not paths else "ambiguous_package",
                f"looking for {name} {version} in the wheelhouse '{folder}': {cause}; "
                "set solver_version to one of these, or add it to the wheelhouse",
                {"wanted": version, "available": versions, "option": "package"},
            )
        return paths[0]

    def _from_index(self, name: str, version: str) -> str:
        kept = os.path.join(self.base.path, "wheels")
        if os.path.isdir(kept):
            for path in find_in_wheelhouse(kept, normalize(name), version)[0]:
                return path
        out = os.path.join(self.scratch, "download")
        os.mkdir(out)
        pip = Pip(find_python(self.target.python, "python"), self.pip_timeout, self.scratch, self.target.where)
        if self.pip_home:
            pip.settle(self.pip_home)
        pip.run(
            "download",
            ["--no-deps", "--only-binary", ":all:", "--dest", out, f"{name}=={version}"],
            f"fetching {name} {version}",
            "package, index_url or wheelhouse",
        )
        (file,) = [f for f in os.listdir(out) if split_file_name(f)]
        return os.path.join(out, file)


# --- trying it ---


def _secrets_of(config: str) -> list[str]:
    """Contents of the secret files that a configuration names, to blank them wherever they turn up."""
    found = [os.environ.get("CAPTCHAAI_API_KEY", "")]
    for path in _SECRET_FILE.findall(config):
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as stream:
            found.append(stream.read(4096).strip())
    return found


@contextlib.contextmanager
def _lent(base: str, credentials: tuple[tuple[str, bytes], ...], user: str | None) -> Iterator[dict[str, str]]:
    """The secrets in a folder that this user alone may read, as systemd would hand them over.

    It is locked while somebody needs it: one without that was left by a process that was killed.
    """
    if not credentials:
        yield {}
        return
    owner = user_ids(user) if user and os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix=LENT, dir=base) as folder:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            write_secrets(folder, credentials, owner)
            yield {"CREDENTIALS_DIRECTORY": folder}
        finally:
            os.close(handle)


def sweep_lent(base: str) -> None:
    """Remove the secrets that were lent by processes which were killed meanwhile."""
    for path in glob.glob(os.path.join(glob.escape(base), LENT + "*")):
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
            finally:
                os.close(handle)


def write_secrets(
    folder: str, credentials: tuple[tuple[str, bytes], ...], owner: tuple[int, int] | None
) -> None:
    """Fill an existing folder with secrets; nobody but the owner may look into it."""
    for name, value in credentials:
        path = os.path.join(folder, name)
        write_file(path, value, 0o400)
        if owner:
            os.chown(path, *owner)
    os.chmod(folder, 0o700)
    if owner:
        os.chown(folder, *owner)


def read_secret_files(paths: tuple[tuple[str, str], ...], check_mode: bool) -> tuple[tuple[str, bytes], ...]:
    """The secrets of a release; a plan for a fresh host goes on without those that are not there yet."""
    there = [(name, path) for name, path in paths if not check_mode or os.path.lexists(path)]
    return tuple((name, _read_secret(name, path)) for name, path in there)


def _read_secret(name: str, path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read(SECRET_BYTES)
    except OSError as error:
        raise StepError(
            "bad_credential",
            f"reading the {name} '{path}': {error.strerror}; correct solver_{name}_file, or let provision.yml "
            f"bring it (solver_{name})",
            {"path": path, "option": "credentials"},
        ) from error


def check_unit(content: Content, worker_dir: str, trial: str, timeout: float) -> None:
    """Have systemd read the unit before it is anywhere near to be used; C(current) is the release that is tried.

    As provisioning puts it on the host, a drop-in of a unit that says nothing: beside another one of the same unit it
    would be read twice, and instead of one of the same name it is not.
    """
    if content.unit is None:
        return
    name, text = content.unit
    text = text.replace(os.path.join(worker_dir, "current") + os.sep, trial + os.sep)
    with tempfile.TemporaryDirectory(prefix="solver-unit-") as folder:
        path = os.path.join(folder, name)
        os.mkdir(path + ".d")
        write_file(os.path.join(path + ".d", DROP_IN), text.encode("utf-8"))
        write_file(path, b"[Unit]\n")
        try:
            command = ["systemd-analyze", "verify", "--man=no", path]
            status, out, err = run_command(command, min(timeout, CHECK_TIMEOUT_S))
        except OSError as error:
            raise StepError(
                "no_systemd",
                f"checking the unit {name}: systemd-analyze does not start ({error.strerror}); "
                "set solver_service_backend to what this host has",
                {"option": "solver_service_backend"},
            ) from error
    if status != 0:
        lines = tail(out + "\n" + err)
        raise StepError(
            "unit_refused",
            f"checking the unit {name}: systemd refuses it: {(lines or ['no output'])[-1]}; correct solver_unit",
            {"status": status, "output": lines, "option": "unit"},
        )


def try_release(path: str, version: str, content: Content, timeout: float, run_as: str | None = None) -> Json:
    """Run the staged program on its configuration and the worker's journal; it only reads.

    It runs as the worker's own user, who may not read the release's secrets: it is given a copy for so long.
    """
    program = os.path.join(path, "env", "bin", PROGRAM)
    doing = f"running the staged release {version}"
    command = [program, "check", "--config", os.path.join(path, "config.toml"), "--journal", "--json"]
    try:
        with _lent(os.path.dirname(os.path.dirname(path)), content.credentials, run_as) as extra:
            status, out, err = run_command(
                [*as_user(run_as), *command], min(timeout, CHECK_TIMEOUT_S), clean_environment(extra)
            )
    except OSError as error:
        raise StepError(
            "release_invalid",
            f"{doing}: its program '{PROGRAM}' does not start ({error.strerror}); correct package",
            {"option": "package"},
        ) from error
    secrets = _secrets_of(content.config)
    secrets += [value.decode("utf-8", "replace").strip() for _name, value in content.credentials]
    return read_check(status, mask(out, secrets), mask(err, secrets), version)


def read_check(status: int | None, out: str, err: str, version: str) -> Json:
    """What the staged program said of itself: its answer, or the reason not to go on."""
    doing = f"running the staged release {version}"
    try:
        answer = plain_json(out.encode("utf-8"))
    except ValueError:
        answer = None
    if status is None or not isinstance(answer, dict) or not isinstance(answer.get("ok"), bool):
        ended = "did not end in time" if status is None else f"ended with status {status}"
        lines = tail(out + "\n" + err)
        # A program that refuses its configuration says why on stderr.
        code, option = ("config_refused", "config") if status == 2 else ("release_invalid", "package")
        raise StepError(
            code,
            f"{doing}: 'check' {ended}: {(lines or ['no output'])[-1]}; correct {option}",
            {"status": status, "output": lines, "option": option},
        )
    if answer.get("version") != version:
        raise StepError(
            "version_mismatch",
            f"{doing}: the program says version {answer.get('version')}; correct package",
            {"expected": version, "found": answer.get("version"), "option": "package"},
        )
    if not answer["ok"] or status != 0:
        given = answer.get("problems")
        problems = [one_line(problem, 400) for problem in (given if isinstance(given, list) else [])][:10]
        raise StepError(
            "config_refused",
            f"{doing}: 'check' refuses: {'; '.join(problems) or f'status {status}'}; correct config",
            {"status": status, "problems": problems, "journal": answer.get("journal"), "option": "config"},
        )
    return answer


# --- building it ---


class Stage:
    """One staging: find the package, build what is missing, try it."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.base = Base(target.base_dir)
        self.deadline = time.monotonic() + target.timeout
        self.content = Content("")
        # What was done so far; a failure returns it too.
        self.result: Json = {"changed": False, "staged": False}

    def left(self) -> float:
        return max(0.001, self.deadline - time.monotonic())

    def run(self, check_mode: bool) -> Json:
        secrets = read_secret_files(self.target.credentials, check_mode)
        self.content = Content(self.target.config, self.target.unit, secrets)
        if check_mode:
            with tempfile.TemporaryDirectory() as scratch:
                self._predict(scratch)
            return self.result
        self._check_space()
        with _writing(self.base.path):
            for folder in (self.base.path, self.base.envs, self.base.releases, self.base.pip):
                make_dirs(folder, "base_dir")
            with locked(self.base.lock, self.target.timeout, "deploy_timeout") as lock:
                self._sweep()
                self._stage(lock)
        return self.result

    def packages(self) -> tuple[list[str], list[str] | None]:
        """What is installed in the current release, and in this one; None where its environment is not built yet."""
        current = read_links(self.target.worker_dir).current
        known = self.result["release"]
        env = self.base.env(Package(str(known["version"]), str(known["package_digest"])))
        there = os.path.isfile(os.path.join(env, MARKER))
        return installed(os.path.join(current, "env")) if current else [], installed(env) if there else None

    def _sweep(self) -> None:
        """Remove what killed runs left; the lock says that nobody works there."""
        sweep_lent(self.base.path)
        # The base may be anybody's: what a removal of pip has left there has this name alone.
        remove_tree(os.path.join(self.base.path, f"{TEMPORARY}gone-pip"))
        for name in os.listdir(self.base.releases):
            if name.startswith(TEMPORARY):
                remove_tree(os.path.join(self.base.releases, name))

    def _describe(self, package: Package) -> str:
        """Fill in what is known about the release; give its id."""
        name = release_id(package, self.content)
        links = read_links(self.target.worker_dir)
        metadata = self.base.metadata(name)
        self.result.update(
            release=metadata or self._metadata(package, name),
            current=release_name(links.current),
            previous=release_name(links.previous),
            at_target=release_name(links.current) == name,
        )
        return name

    def _metadata(self, package: Package, name: str) -> Json:
        return {
            "schema": SCHEMA,
            "id": name,
            "version": package.version,
            "package_digest": package.digest,
            "config_digest": config_digest(self.content.config),
            "data_address": data_address(self.content.config),
            "created_at": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "rollout_id": self.target.rollout_id,
            "from": release_name(read_links(self.target.worker_dir).current),
            "worker": self.target.worker_name,
        }

    def _predict(self, scratch: str) -> None:
        package = self._foresee(Packages(self.target, self.base, scratch, self.left()))
        name = self._describe(package)
        complete = self.base.is_runnable(name) and self.base.env_is_complete(package)
        if not complete:
            self._check_space()
            if package.path or not self.target.sha256:
                self._check_env_possible(package)
            if not self.base.env_is_complete(package):
                find_python(self.target.python, PYTHON_SETTING)
        else:
            self.result["check"] = self._try(self.base.release(name), package.version)
        self.result["changed"] = not complete

    def _foresee(self, packages: Packages) -> Package:
        """In check mode nobody brings the wheels to this host: version and digest say which one it would be."""
        try:
            return packages.find()
        except StepError as error:
            if error.code not in ("no_wheelhouse", "unknown_version"):
                raise
            if not (self.target.version and self.target.sha256):
                raise
            return Package(self.target.version, self.target.sha256.lower())

    def _check_space(self) -> None:
        if self.target.min_free_mb <= 0:
            return
        free = free_mb(self.base.path)
        if free < self.target.min_free_mb:
            raise StepError(
                "no_space",
                f"staging a release: {free} MB are free at '{existing_parent(self.base.path)}', "
                f"{self.target.min_free_mb} MB are needed; make room, or lower min_free_mb (solver_base_dir)",
                {"free_mb": free, "needed_mb": self.target.min_free_mb, "option": "min_free_mb"},
            )

    def _check_env_possible(self, package: Package) -> None:
        if package.path is None and not self.base.env_is_complete(package):
            raise StepError(
                "no_package",
                f"staging a release with version {package.version}: its environment is gone; "
                "set package (solver_package) to its wheel",
                {"option": "package"},
            )

    def _stage(self, lock: int) -> None:
        scratch = tempfile.mkdtemp(prefix=TEMPORARY, dir=self.base.releases)
        try:
            package = Packages(self.target, self.base, scratch, self.left(), self.base.pip).find()
            name = self._describe(package)
            if not (self.base.is_runnable(name) and self.base.env_is_complete(package)):
                self._build(package, name, scratch, lock)
            else:
                self.result["check"] = self._try(self.base.release(name), package.version)
            self.result["staged"] = True
            self._mark(name)
            self.result["pruned"] = prune(
                self.base, self.target.worker_name, self.target.keep, self.target.all_worker_dirs(), name
            )
            self.result["changed"] = self.result["changed"] or any(self.result["pruned"].values())
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _mark(self, name: str) -> None:
        """A release that waits to be switched to has a link, so that anybody can see that it does."""
        link = os.path.join(self.target.worker_dir, "staged")
        links = read_links(self.target.worker_dir)
        wanted = None if release_name(links.current) == name else self.base.release(name)
        if wanted == links.staged or not os.path.isdir(self.target.worker_dir):
            return
        self.result["changed"] = True
        if wanted:
            switch_link(link, wanted)
        else:
            os.unlink(link)

    def _build(self, package: Package, name: str, scratch: str, lock: int) -> None:
        self._check_env_possible(package)
        if not self.base.env_is_complete(package):
            self._build_env(package, scratch, lock)
        # One level below releases/, because the link to the environment is relative; its name is no id yet.
        trial = os.path.join(self.base.releases, f"{TEMPORARY}{os.getpid()}-{name}")
        try:
            metadata = self._write_release(trial, package, name)
            self.result["check"] = self._try(trial, package.version)
            goal = self.base.release(name)
            # What lies there does not run (its interpreter went, or its metadata): it is replaced.
            remove_tree(goal)
            os.rename(trial, goal)
        finally:
            remove_tree(trial)
        fsync_dir(self.base.releases)
        self.result.update(changed=True, release=metadata)

    def _write_release(self, folder: str, package: Package, name: str) -> Json:
        os.mkdir(folder, 0o755)
        os.symlink(os.path.join("..", "..", "envs", package.env_name), os.path.join(folder, "env"))
        write_file(os.path.join(folder, "config.toml"), self.content.config.encode("utf-8"))
        if self.content.unit:
            write_file(os.path.join(folder, self.content.unit[0]), self.content.unit[1].encode("utf-8"))
            standby = standby_unit(self.content.unit[1], self.target.worker_dir)
            if standby:
                write_file(os.path.join(folder, STANDBY_UNIT), standby.encode("utf-8"))
        if self.content.credentials:
            secrets = os.path.join(folder, "credentials")
            os.mkdir(secrets, 0o700)
            write_secrets(secrets, self.content.credentials, self._owner_of_secrets())
        metadata = self._metadata(package, name)
        write_json(os.path.join(folder, "release.json"), metadata)
        return metadata

    def _owner_of_secrets(self) -> tuple[int, int] | None:
        """Where systemd cannot hand secrets over, the worker's user must be able to read them itself."""
        if not self.target.run_as or os.geteuid() != 0 or not self.content.unit or hands_credentials_over():
            return None
        return user_ids(self.target.run_as)

    def _try(self, path: str, version: str) -> Json:
        check_unit(self.content, self.target.worker_dir, path, self.left())
        return try_release(path, version, self.content, self.left(), self.target.run_as)

    def _build_env(self, package: Package, scratch: str, lock: int) -> None:
        env = self.base.env(package)
        python = find_python(self.target.python, PYTHON_SETTING)
        version = interpreter_version(python)
        if version is None:
            raise StepError(
                "no_python", f"asking '{python}' for its version: it does not answer; correct {PYTHON_SETTING}",
                {"option": PYTHON_SETTING})
        where = self.target.where
        if self.target.wheelhouse:
            where = IndexOptions(find_links=(os.path.abspath(self.target.wheelhouse),), no_index=True)
        pip = Pip(python, self.left(), None, where, keep_open=[lock])
        # What may fail or take long comes before anything that is there is touched.
        pip.settle(self.base.pip)
        marked, lib = os.path.isfile(os.path.join(env, MARKER)), os.path.join(env, "lib", f"python{version}")
        kept = self._make_room(env, lib, marked)
        try:
            pip.execute([python, "-m", "venv", "--without-pip", env], f"making the environment '{env}'", "python")
            arguments = ["--no-warn-script-location", os.path.abspath(package.path or "")]
            doing = f"installing {os.path.basename(package.path or '')}"
            # From a wheelhouse nothing else may leak in, whatever pip is configured for.
            isolated = bool(self.target.wheelhouse)
            pip.run("install", arguments, doing, "wheelhouse or index_url", isolated=isolated, env=env)
            self._keep_wheel(package, scratch)
            write_file(os.path.join(lib, WHOLE), b"")
            write_json(os.path.join(env, MARKER), {"package_digest": package.digest, "python": python})
        except BaseException:
            if lib not in kept:
                shutil.rmtree(lib if kept else env, ignore_errors=True)
            if kept and marked:
                write_json(os.path.join(env, MARKER), {"package_digest": package.digest})
            raise
        self.result.update(changed=True, env=env)

    @staticmethod
    def _make_room(env: str, lib: str, marked: bool) -> list[str]:
        """Make room in an environment for the packages in LIB, of one version of Python; return whose packages stay.

        Those of other versions do, and those in LIB where they are whole, whatever was killed in here since: processes
        that run still load modules from them. An environment that is MARKED vouches for all that is in it.
        """
        folders = [os.path.join(env, "lib", f"python{version}") for version in built_for(env)]
        for folder in folders if marked else ():
            write_file(os.path.join(folder, WHOLE), b"")
        kept = [folder for folder in folders if folder != lib or os.path.isfile(os.path.join(folder, WHOLE))]
        if not kept:
            remove_tree(env)
            return []
        remove_file(os.path.join(env, MARKER))
        if lib not in kept:
            remove_tree(lib)
        for link in glob.glob(os.path.join(glob.escape(env), "bin", "python*")):
            os.unlink(link)
        return kept

    def _keep_wheel(self, package: Package, scratch: str) -> None:
        """A downloaded wheel is kept, so that the next staging needs no index and finds the same digest."""
        path = package.path or ""
        if os.path.dirname(path) != os.path.join(scratch, "download"):
            return
        kept = os.path.join(self.base.path, "wheels")
        make_dirs(kept, "base_dir")
        with open(path, "rb") as stream:
            write_file(os.path.join(kept, os.path.basename(path)), stream.read())


@contextlib.contextmanager
def _writing(path: str) -> Iterator[None]:
    """Errors of the file system name the option that mends them."""
    try:
        yield
    except OSError as error:
        raise StepError(
            "unwritable",
            f"writing '{error.filename or path}': {error.strerror or error}; " + remedy(
                error, "set base_dir (solver_base_dir) to a directory that this user may write, with enough room"),
            {"path": error.filename or path, "option": "base_dir"},
        ) from error


def current_content(worker_dir: str, unit: str | None) -> tuple[str, Content]:
    """Version, configuration and unit of the release that a worker links, for the diff; never its secrets."""
    current = read_links(worker_dir).current
    if current is None:
        return "", Content("")
    version = str((read_json(os.path.join(current, "release.json")) or {}).get("version") or "")
    text = _read_text(os.path.join(current, unit)) if unit else ""
    return version, Content(_read_text(os.path.join(current, "config.toml")), (unit, text) if unit and text else None)


def installed(env: str) -> list[str]:
    """The packages of an environment, each with its version."""
    pattern = os.path.join(glob.escape(env), "lib", "python*", "site-packages", "*.dist-info")
    named = {os.path.basename(path)[: -len(".dist-info")].partition("-")[::2] for path in glob.glob(pattern)}
    return sorted(f"{normalize(name)} {version}" for name, version in named)


def _read_text(path: str) -> str:
    try:
        return read_plain(path).decode("utf-8", "replace")
    except OSError:
        return ""


def remove_release(target: Target, name: str | None, check_mode: bool) -> Json:
    """Remove one release that nobody links, and prune."""
    base = Base(target.base_dir)
    links = read_links(target.worker_dir)
    result: Json = {
        "changed": False,
        "current": release_name(links.current),
        "previous": release_name(links.previous),
    }
    if name is not None and name in needed_releases(target.all_worker_dirs()):
        raise StepError(
            "release_linked",
            f"removing release '{name}': a worker links it; switch that worker to another release first",
            {"release": name},
        )
    there = name is not None and os.path.lexists(base.release(name))
    if check_mode or not os.path.isdir(base.path):
        return {**result, "changed": there}
    with _writing(base.path), locked(base.lock, target.timeout, "deploy_timeout"):
        if there and name is not None:
            if name in needed_releases(target.all_worker_dirs()):
                raise StepError("release_linked", f"removing release '{name}': a worker just linked it")
            if release_name(links.staged) == name:
                os.unlink(os.path.join(target.worker_dir, "staged"))
            remove_tree(base.release(name))
        pruned = prune(base, target.worker_name, target.keep, target.all_worker_dirs())
    return {**result, "pruned": pruned, "changed": there or any(pruned.values())}
