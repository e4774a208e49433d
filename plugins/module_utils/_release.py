# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""Releases on a worker's host: where they lie, what they are called, which are linked, which may go.

<base>/envs/<version>-<package digest>/                     an environment, shared by all releases of a package
<base>/pip/<digest of an interpreter's path>/              pip for the environments of that interpreter
<base>/releases/<id>/{env, config.toml, release.json}    a package and a worker's configuration
<base>/releases/<id>/{<unit>, credentials/}                under systemd also its unit and its secrets
<worker_dir>/{current, previous, staged, standby}        links to release directories

What a worker runs with is one thing: its unit and its secrets go forward and back with its package.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any, Iterable, NamedTuple, Sequence

from ansible_collections.solver.fleet.plugins.module_utils._errors import Json, StepError
from ansible_collections.solver.fleet.plugins.module_utils._files import (
    read_json,
    read_link,
    remove_tree,
    run_command,
    sha256_bytes,
)

SCHEMA = "solver.release/1"
MARKER = ".complete"
PROGRAM = "solver-worker"
# The slot's unit, in the release; and how the orders end that make a standby of what a service starts.
STANDBY_UNIT = "standby.conf"
HOME_ORDER, SLOT_ORDER = "-current.order", "-standby.order"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*\Z")


class Package(NamedTuple):
    """A package as a release names it; the path is None if only its environment is left of it."""

    version: str
    digest: str
    path: str | None = None

    @property
    def env_name(self) -> str:
        return f"{self.version}-{self.digest[:12]}"


class Content(NamedTuple):
    """All of a release but its package. The unit is a name and a text; the secrets have names."""

    config: str
    unit: tuple[str, str] | None = None
    credentials: tuple[tuple[str, bytes], ...] = ()

    @property
    def digest(self) -> str:
        if not self.unit and not self.credentials:
            return config_digest(self.config)
        secrets = [[name, sha256_bytes(value)] for name, value in sorted(self.credentials)]
        return sha256_bytes(json.dumps([self.config, self.unit, secrets]).encode("utf-8"))


class Links(NamedTuple):
    """Where a worker's links point; a dangling link still points."""

    current: str | None
    previous: str | None
    staged: str | None = None
    standby: str | None = None


def config_digest(config: str) -> str:
    return sha256_bytes(config.encode("utf-8"))


def data_address(config: str) -> str | None:
    """Return HOST:PORT of the data API, of a configuration that this collection wrote: not every target reads TOML."""
    section = re.search(r"^\[data\]\n(.*?)(?=^\[|\Z)", config, re.MULTILINE | re.DOTALL)
    host, port = (re.search(pattern, section.group(1) if section else "", re.MULTILINE)
                  for pattern in (r'^host = "([^"]+)"$', r"^port = ([0-9]+)$"))
    return f"{host.group(1)}:{port.group(1)}" if host and port else None


def release_id(package: Package, content: Content) -> str:
    """Version and both digests: equal ids mean equal content.

    Of the secrets' digest no more than these 32 bits, mixed with all the rest, is ever written down.
    """
    return f"{package.version}-{package.digest[:8]}-{content.digest[:8]}"


def standby_unit(unit: str, worker_dir: str) -> str | None:
    """The unit of the slot, which runs what the link C(standby) names; None where the worker's own knows no standby."""
    if HOME_ORDER not in unit:
        return None
    current, standby = (os.path.join(worker_dir, link) + os.sep for link in ("current", "standby"))
    for own, others in ((current, standby), (HOME_ORDER, SLOT_ORDER), ("solver-worker-%i", "solver-standby-%i"),
                        ("Description=Solver worker", "Description=Standby of solver worker")):
        unit = unit.replace(own, others)
    return unit


def release_name(path: str | None) -> str | None:
    return os.path.basename(path) if path else None


class Base:
    """The shared directory of a machine."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self.envs = os.path.join(self.path, "envs")
        self.releases = os.path.join(self.path, "releases")
        self.pip = os.path.join(self.path, "pip")
        self.lock = os.path.join(self.path, "lock")

    def env(self, package: Package) -> str:
        return os.path.join(self.envs, package.env_name)

    def release(self, name: str) -> str:
        if not _ID.match(name):
            raise StepError(
                "no_release",
                f"looking for release '{name}': it is no release id; correct release",
                {"release": name},
            )
        return os.path.join(self.releases, name)

    def env_is_complete(self, package: Package) -> bool:
        """Built to the end, and its interpreter is still there, of the version that it was built for."""
        env = self.env(package)
        return os.path.isfile(os.path.join(env, MARKER)) and env_defect(env) is None

    def metadata(self, name: str) -> Json | None:
        """What release.json says; None for a release that is not complete."""
        found = read_json(os.path.join(self.release(name), "release.json"))
        return found if found and found.get("schema") == SCHEMA and found.get("id") == name else None

    def release_names(self) -> list[str]:
        names = os.listdir(self.releases) if os.path.isdir(self.releases) else []
        return sorted(name for name in names if _ID.match(name))

    def is_runnable(self, name: str) -> bool:
        return self.metadata(name) is not None and env_defect(os.path.join(self.release(name), "env")) is None


def env_defect(env: str) -> str | None:
    """Why no program of an environment can be started any more; None if nothing speaks against it.

    An interpreter that goes from 3.11 to 3.13 under the same name finds nothing of what was installed for 3.11.
    """
    python = os.path.join(env, "bin", "python")
    if not os.path.exists(python):
        return f"its interpreter '{os.path.realpath(python)}' is gone"
    built = built_for(env)
    now = interpreter_version(python) if built else None
    if now is None or now in built:
        return None
    return f"it was built for Python {', '.join(built)}, and its interpreter '{os.path.realpath(python)}' is {now} now"


def built_for(env: str) -> list[str]:
    """The versions of Python for which an environment has packages, as 3.11."""
    try:
        names = os.listdir(os.path.join(env, "lib"))
    except OSError:
        return []
    return sorted(name[len("python"):] for name in names if re.match(r"python[0-9]+\.[0-9]+\Z", name))


def interpreter_version(python: str) -> str | None:
    """The version of an interpreter as 3.11, by its name where that says it; None if nothing does."""
    named = re.match(r"python([0-9]+\.[0-9]+)\Z", os.path.basename(os.path.realpath(python)))
    if named:
        return named.group(1)
    try:
        status, out, _err = run_command([python, "-IS", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], 10)
    except OSError:
        return None
    return out.strip() if status == 0 else None


def restart_defect(worker_dir: str) -> str | None:
    """Why the worker's current release could not be started again; None if nothing speaks against it."""
    current = read_links(worker_dir).current
    if current is None:
        return None
    if not os.path.isdir(current):
        return f"its release '{release_name(current)}' is gone"
    return env_defect(os.path.join(current, "env"))


def read_links(worker_dir: str) -> Links:
    return Links(*(read_link(os.path.join(worker_dir, name)) for name in Links._fields))


def linked_releases(worker_dirs: Iterable[str]) -> set[str]:
    """Every release that some worker links, dangling links included."""
    found = [path for folder in worker_dirs for path in read_links(folder) if path]
    return {os.path.basename(path) for path in found}


def needed_releases(worker_dirs: Iterable[str]) -> set[str]:
    """Every release that some worker runs, may go back to or has standing by; one that only waits is not needed."""
    links = [read_links(folder) for folder in worker_dirs]
    found = [path for own in links for path in (own.current, own.previous, own.standby) if path]
    return {os.path.basename(path) for path in found}


# --- what may go: pure ---


class Known(NamedTuple):
    """A release as pruning sees it."""

    name: str
    worker: str | None
    created_at: str
    env: str | None


def releases_to_prune(
    known: Sequence[Known], worker: str, keep: int, linked: set[str], staged: str | None = None
) -> list[str]:
    """This worker's oldest releases beyond C(keep); never a linked one, never the one just staged."""
    own = sorted((k for k in known if k.worker == worker), key=lambda k: (k.created_at, k.name), reverse=True)
    return [k.name for k in own[max(0, keep) :] if k.name not in linked and k.name != staged]


def envs_to_prune(envs: Sequence[str], left: Sequence[Known]) -> list[str]:
    """Environments that no release uses any more."""
    used = {k.env for k in left}
    return [env for env in envs if env not in used]


def read_known(base: Base) -> list[Known]:
    found = []
    for name in base.release_names():
        metadata: dict[str, Any] = base.metadata(name) or {}
        env = release_name(read_link(os.path.join(base.release(name), "env")))
        found.append(Known(name, metadata.get("worker"), str(metadata.get("created_at") or ""), env))
    return found


def prune(base: Base, worker: str, keep: int, worker_dirs: Sequence[str], staged: str | None = None) -> Json:
    """Remove what nobody needs; the caller holds the lock."""
    known = read_known(base)
    gone = releases_to_prune(known, worker, keep, linked_releases(worker_dirs), staged)
    for name in gone:
        remove_tree(base.release(name))
    left = [k for k in known if k.name not in gone]
    envs = envs_to_prune(sorted(os.listdir(base.envs)) if os.path.isdir(base.envs) else [], left)
    for env in envs:
        remove_tree(os.path.join(base.envs, env))
    if envs and not os.listdir(base.envs):
        remove_tree(base.pip)
    return {"releases": gone, "envs": envs}
