# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""A wheelhouse: a directory of wheels that hosts install from, and a stamp that says what made them."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import shutil
import tempfile
from typing import Any, Callable, Iterator, Mapping, NamedTuple, Sequence

from ansible_collections.solver.fleet.plugins.module_utils._errors import Json, StepError
from ansible_collections.solver.fleet.plugins.module_utils._files import (
    TEMPORARY,
    fsync_dir,
    locked,
    make_dirs,
    mask,
    read_json,
    remove_file,
    remove_tree,
    sha256_bytes,
    sha256_file,
    write_json,
)
from ansible_collections.solver.fleet.plugins.module_utils._wheels import (
    VERSION,
    IndexOptions,
    Pip,
    Wheel,
    find_python,
    read_wheel,
)

STAMP = ".wheelhouse.json"
SCHEMA = "solver.wheelhouse/1"
_NOT_SOURCE = (
    ".git",
    ".venv",
    "__pycache__",
    "*.pyc",
    ".*_cache",
    ".hypothesis",
    "*.egg-info",
    ".tox",
    ".nox",
)
_NOT_SOURCE_ON_TOP = ("build", "dist")
_VERSION_LINE = re.compile(r"^(__version__\s*=\s*)[\"'][^\"'\n]*[\"']", re.MULTILINE)


class Item(NamedTuple):
    """One thing to have in the wheelhouse; the digest covers everything it is made from."""

    key: str
    digest: str
    kind: str
    subject: str


class Wishes(NamedTuple):
    """What a wheelhouse shall hold."""

    path: str
    requirements: tuple[str, ...] = ()
    source: str | None = None
    versions: tuple[str, ...] = ()
    version_file: str = "src/solver_worker/_version.py"
    overlays: Mapping[str, str] = {}
    dependencies: bool = True
    python: str | None = None
    where: IndexOptions = IndexOptions()
    timeout: float = 600.0


# --- what it is made from ---


def _left_out(names: Sequence[str], on_top: bool) -> set[str]:
    patterns = _NOT_SOURCE + (_NOT_SOURCE_ON_TOP if on_top else ())
    return {name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)}


def _tree_files(root: str) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        left_out = _left_out(folders + files, folder == root)
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        folders[:] = sorted(set(folders) - left_out - set(links))
        for name in sorted(set(files + links) - left_out):
            yield os.path.join(folder, name)


def tree_digest(root: str) -> str:
    """One digest over names and contents of a source tree, caches left out."""
    digest = hashlib.sha256()
    for path in _tree_files(root):
        content = "-> " + os.readlink(path) if os.path.islink(path) else sha256_file(path)
        digest.update((f"{os.path.relpath(path, root)}\0{content}\0").encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _digest(*parts: Any) -> str:
    return sha256_bytes(repr(parts).encode("utf-8"))


def _check_directory(path: str, option: str) -> None:
    if not os.path.isdir(path):
        raise StepError(
            "no_source",
            f"building from '{path}': there is no such directory; set {option} to one that exists",
            {"path": path, "option": option},
        )


def _check_requirements(wishes: Wishes) -> None:
    for requirement in wishes.requirements:
        # pip would read these as its own options.
        if not requirement.strip() or requirement.lstrip().startswith("-") or "\n" in requirement:
            raise StepError(
                "bad_requirement",
                f"reading '{mask(requirement)}': it is no requirement such as solver-worker==1.3.0; "
                "correct it in requirements",
                {"option": "requirements"},
            )
    if wishes.source is None and (wishes.versions or not wishes.requirements):
        raise StepError(
            "no_source",
            "filling the wheelhouse: there is nothing to build from; set source or requirements",
            {"option": "source"},
        )


def _check_versions(wishes: Wishes) -> None:
    for version in wishes.versions:
        if not VERSION.match(version):
            raise StepError(
                "bad_version",
                f"building version '{version}': it is no version in its normal spelling, such as 1.3.0 or "
                "1.3.0rc1; correct it in versions",
                {"version": version, "option": "versions"},
            )
    for version, folder in wishes.overlays.items():
        if version not in wishes.versions:
            raise StepError(
                "bad_overlay",
                f"building version '{version}': overlays names it, versions does not; add it there or "
                "remove the overlay",
                {"version": version, "option": "overlays"},
            )
        _check_directory(folder, "overlays")


def check_wishes(wishes: Wishes) -> None:
    """Refuse what cannot be meant, before anything is touched."""
    _check_requirements(wishes)
    if wishes.source is not None:
        _check_directory(wishes.source, "source")
    _check_versions(wishes)


def wanted_items(wishes: Wishes) -> list[Item]:
    """Everything to have, but for the dependencies of built wheels: these are known when the wheels are."""
    python = os.path.realpath(wishes.python) if wishes.python else ""
    where = _digest(python, wishes.where, wishes.dependencies)
    # A key is written into the stamp: an address in a requirement may carry credentials.
    items = [Item("requirement:" + mask(r), _digest(where, r), "requirement", r) for r in wishes.requirements]
    if wishes.source is None:
        return items
    tree = tree_digest(wishes.source)
    # What is built depends on the tree alone, so a changed index rebuilds no wheel.
    for version in wishes.versions or ("",):
        overlay = wishes.overlays.get(version)
        over = tree_digest(overlay) if overlay else ""
        key = "build:{}@{}".format(os.path.basename(os.path.abspath(wishes.source)), version or "own")
        items.append(Item(key, _digest(tree, over, version, wishes.version_file), "build", version))
    return items


def dependency_items(wishes: Wishes, built: Sequence[Wheel]) -> list[Item]:
    """One item per set of requirements, whichever number of versions shares it."""
    found: dict[tuple[str, ...], Item] = {}
    python = os.path.realpath(wishes.python) if wishes.python else ""
    for wheel in built:
        if wheel.requires and wishes.dependencies:
            digest = _digest(python, wishes.where, wheel.requires)
            key = "dependencies:" + sha256_bytes("\n".join(wheel.requires).encode("utf-8"))[:12]
            found[wheel.requires] = Item(key, digest, "dependencies", wheel.path)
    return list(found.values())


# --- what is there ---


def read_stamp(path: str) -> Json:
    document = read_json(os.path.join(path, STAMP))
    if document is None or document.get("schema") != SCHEMA or not isinstance(document.get("items"), dict):
        return {"schema": SCHEMA, "items": {}}
    return document


def is_current(path: str, stamp: Json, item: Item) -> bool:
    """Whether an item is there as it was built: same inputs, and the files are those that were placed."""
    entry = stamp["items"].get(item.key)
    if not isinstance(entry, dict) or entry.get("digest") != item.digest or not entry.get("wheels"):
        return False
    try:
        return all(sha256_file(os.path.join(path, w["file"])) == w["sha256"] for w in entry["wheels"])
    except (OSError, KeyError, TypeError):
        return False


def recorded_wheels(stamp: Json, items: Sequence[Item]) -> list[dict[str, str]]:
    found = {w["file"]: w for item in items for w in stamp["items"].get(item.key, {}).get("wheels", [])}
    return [found[file] for file in sorted(found)]


# --- building ---


class House:
    """Builds into a directory; what exists only half never gets a wheel's name there."""

    def __init__(self, wishes: Wishes) -> None:
        self.wishes = wishes
        self.path = wishes.path
        self.stamp = read_stamp(wishes.path)
        self.built_items: list[Item] = []

    def is_current(self, item: Item) -> bool:
        return is_current(self.path, self.stamp, item)

    def _built_wheels(self, items: Sequence[Item]) -> list[Wheel]:
        files = [
            w["file"] for item in items if item.kind == "build" for w in recorded_wheels(self.stamp, [item])
        ]
        return [read_wheel(os.path.join(self.path, file), "path") for file in files]

    def predict(self) -> tuple[list[Item], bool]:
        """Items and whether anything would be built; reads only."""
        items = wanted_items(self.wishes)
        if not all(self.is_current(item) for item in items):
            return items, True
        items += dependency_items(self.wishes, self._built_wheels(items))
        return items, not all(self.is_current(item) for item in items)

    def build(self, lock: int) -> list[Item]:
        scratch = tempfile.mkdtemp(prefix=".build-", dir=self.path)
        try:
            python = find_python(self.wishes.python, "python")
            pip = Pip(python, self.wishes.timeout, scratch, self.wishes.where, keep_open=[lock])
            items = wanted_items(self.wishes)
            self._build_missing(pip, scratch, items)
            more = dependency_items(self.wishes, self._built_wheels(items))
            self._build_missing(pip, scratch, more)
            return items + more
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _build_missing(self, pip: Pip, scratch: str, items: Sequence[Item]) -> None:
        make: dict[str, Callable[[Pip, str, str, Item], None]] = {
            "build": self._make_from_source,
            "requirement": self._make_from_requirement,
            "dependencies": self._make_dependencies,
        }
        for item in items:
            if self.is_current(item):
                continue
            folder = tempfile.mkdtemp(dir=scratch)
            out = os.path.join(folder, "out")
            os.mkdir(out)
            make[item.kind](pip, folder, out, item)
            self._place(out, item)

    def _place(self, out: str, item: Item) -> None:
        wheels = [read_wheel(os.path.join(out, file), "path") for file in sorted(os.listdir(out))]
        if item.kind == "build":
            self._check_built(wheels, item)
        records = [wheel.record() for wheel in wheels]
        for wheel in wheels:
            os.chmod(wheel.path, 0o644)
            os.replace(wheel.path, os.path.join(self.path, wheel.file))
        fsync_dir(self.path)
        # After each item, so that a failure of the next does not build this one again.
        self.stamp["items"][item.key] = {"digest": item.digest, "wheels": records}
        write_json(os.path.join(self.path, STAMP), self.stamp)
        self.built_items.append(item)

    def _check_built(self, wheels: Sequence[Wheel], item: Item) -> None:
        versions = [wheel.version for wheel in wheels]
        if len(wheels) != 1 or (item.subject and versions != [item.subject]):
            raise StepError(
                "version_mismatch",
                f"building version {item.subject or 'of the source'}: the wheel says "
                f"{', '.join(versions) or 'nothing'}; set version_file to the file that the project "
                "takes its version from",
                {"expected": item.subject, "found": versions, "option": "version_file"},
            )

    def _make_from_source(self, pip: Pip, folder: str, out: str, item: Item) -> None:
        source = self.wishes.source or ""
        tree = os.path.join(folder, "tree")
        shutil.copytree(
            source,
            tree,
            symlinks=True,
            ignore=lambda where, names: _left_out(names, os.path.abspath(where) == os.path.abspath(source)),
        )
        overlay = self.wishes.overlays.get(item.subject)
        if overlay:
            for path in _tree_files(overlay):
                goal = os.path.join(tree, os.path.relpath(path, overlay))
                os.makedirs(os.path.dirname(goal), exist_ok=True)
                shutil.copy2(path, goal)
        if item.subject:
            stamp_version(os.path.join(tree, self.wishes.version_file), item.subject)
        doing = "building {} {}".format(os.path.basename(os.path.abspath(source)), item.subject or "as it is")
        arguments = ["--no-deps", "--wheel-dir", out, tree]
        pip.run("wheel", arguments, doing, "source, or " + self.wishes.where.options())

    def _make_from_requirement(self, pip: Pip, folder: str, out: str, item: Item) -> None:
        arguments = ["--wheel-dir", out]
        if not self.wishes.dependencies:
            arguments.append("--no-deps")
        doing = f"fetching the requirement '{mask(item.subject)}'"
        # The file form, because a requirement may never be read as an option of pip.
        listing = os.path.join(folder, "requirements.txt")
        with open(listing, "w", encoding="utf-8") as stream:
            stream.write(item.subject + "\n")
        pip.run(
            "wheel", [*arguments, "-r", listing], doing, "requirements, or " + self.wishes.where.options()
        )

    def _make_dependencies(self, pip: Pip, _folder: str, out: str, item: Item) -> None:
        own = os.path.basename(item.subject)
        arguments = ["--wheel-dir", out, "--find-links", self.path, item.subject]
        pip.run("wheel", arguments, f"fetching the dependencies of {own}", self.wishes.where.options())
        # pip gives the package itself back; it is here already.
        remove_file(os.path.join(out, own))


def stamp_version(path: str, version: str) -> None:
    """Write a version into the one line of a project that says it."""
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
    except OSError as error:
        raise StepError(
            "no_version_file",
            f"stamping version {version}: '{path}' cannot be read ({error.strerror}); set version_file",
            {"option": "version_file"},
        ) from error
    stamped, count = _VERSION_LINE.subn(lambda found: f'{found.group(1)}"{version}"', text)
    if count != 1:
        raise StepError(
            "no_version_line",
            f"stamping version {version}: version_file must have one line "
            f"'__version__ = \"...\"', it has {count}",
            {"option": "version_file"},
        )
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(stamped)


def _sweep(path: str) -> None:
    """Remove what a killed run left; the lock says that nobody works there."""
    for name in os.listdir(path):
        if name.startswith((".build-", TEMPORARY)):
            remove_tree(os.path.join(path, name))


def furnish(wishes: Wishes, check_mode: bool) -> Json:
    """Have everything that is wished for; the result of the module."""
    check_wishes(wishes)
    house = House(wishes)
    items, changed = house.predict()
    if changed and not check_mode:
        make_dirs(wishes.path, "path")
        try:
            with locked(os.path.join(wishes.path, ".lock"), wishes.timeout, "timeout") as lock:
                _sweep(wishes.path)
                # Another run may have built it while this one waited.
                house = House(wishes)
                items = house.build(lock)
        except OSError as error:
            raise StepError(
                "unwritable",
                f"writing '{error.filename or wishes.path}': {error.strerror}; "
                "set path (solver_wheelhouse) to a directory that this user may write",
                {"path": wishes.path, "option": "path"},
            ) from error
        changed = bool(house.built_items)
    return {
        "changed": changed,
        "directory": wishes.path,
        "wheels": recorded_wheels(house.stamp, items),
        "built": [item.key for item in (house.built_items if not check_mode else [])],
    }
