# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration file: TOML, every key known, every message naming the key."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .errors import ConfigError

# sun_path holds 108 bytes, the last of them zero.
SOCKET_PATH_BYTES = 107
KEY_VARIABLE = "CAPTCHAAI_API_KEY"
# A secret that systemd hands over (LoadCredential=), or that lies beside the configuration where it cannot.
CREDENTIAL = "credential:"
CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"
_REQUIRED: Any = object()

Check = Callable[[Any], Any]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")
    return value


def _absolute(value: Any) -> str:
    if not _text(value).startswith("/"):
        raise ValueError("must be an absolute path")
    return str(value)


def _secret_file(value: Any) -> str:
    """A file, or C(credential:NAME), which lies where the service manager puts credentials."""
    if value == "" or re.fullmatch(CREDENTIAL + r"[A-Za-z0-9_.-]{1,64}", _text(value)):
        return str(value)
    return _absolute(value)


def socket_path(value: Any) -> str:
    size = len(os.fsencode(_absolute(value)))
    if size > SOCKET_PATH_BYTES:
        raise ValueError(f"is {size} bytes long, a socket path ends at {SOCKET_PATH_BYTES}; choose a shorter directory")
    return str(value)


def _name(value: Any) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", _text(value)):
        raise ValueError("must be 1 to 63 of a-z, 0-9 and '-', beginning with a letter or digit")
    return str(value)


def _url(value: Any) -> str:
    parts = urlsplit(_text(value))
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http or https address")
    if parts.username or parts.query or parts.fragment:
        raise ValueError("must hold neither credentials nor a query")
    return str(value).rstrip("/")


def _whole(low: int, high: int) -> Check:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return value

    return check


def _seconds(low: float, high: float) -> Check:
    def check(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise ValueError(f"must be a number of seconds from {low:g} to {high:g}")
        return float(value)

    return check


def _one_of(*choices: str) -> Check:
    def check(value: Any) -> str:
        if value not in choices:
            raise ValueError("must be one of: " + ", ".join(choices))
        return str(value)

    return check


def _by(check: Check) -> dict[str, Check]:
    return {"check": check}


@dataclass(frozen=True)
class WorkerSection:
    name: str = field(default=_REQUIRED, metadata=_by(_name))
    state_dir: str = field(default=_REQUIRED, metadata=_by(_absolute))


@dataclass(frozen=True)
class ControlSection:
    socket: str = field(default=_REQUIRED, metadata=_by(socket_path))


@dataclass(frozen=True)
class DataSection:
    port: int = field(default=_REQUIRED, metadata=_by(_whole(1, 65535)))
    host: str = field(default="127.0.0.1", metadata=_by(_text))
    token_file: str = field(default="", metadata=_by(_secret_file))
    max_connections: int = field(default=3000, metadata=_by(_whole(16, 60_000)))
    max_open_tasks: int = field(default=2000, metadata=_by(_whole(1, 100_000)))
    max_body_bytes: int = field(default=262_144, metadata=_by(_whole(1024, 64 * 1024 * 1024)))


@dataclass(frozen=True)
class ProviderSection:
    url: str = field(default="https://ocr.captchaai.com", metadata=_by(_url))
    api_key_file: str = field(default="", metadata=_by(_secret_file))
    dialect: str = field(default="captchaai", metadata=_by(_one_of("captchaai", "2captcha")))
    submit_timeout_s: float = field(default=30.0, metadata=_by(_seconds(0.1, 300)))
    first_poll_image_s: float = field(default=5.0, metadata=_by(_seconds(0.01, 600)))
    first_poll_s: float = field(default=20.0, metadata=_by(_seconds(0.01, 600)))
    poll_interval_s: float = field(default=5.0, metadata=_by(_seconds(0.01, 600)))
    balance_interval_s: float = field(default=60.0, metadata=_by(_seconds(1, 86_400)))


@dataclass(frozen=True)
class TasksSection:
    on_uncertain: str = field(default="park", metadata=_by(_one_of("park", "resubmit")))
    time_limit_s: float = field(default=300.0, metadata=_by(_seconds(1, 86_400)))
    token_life_s: float = field(default=120.0, metadata=_by(_seconds(1, 86_400)))
    result_ttl_s: float = field(default=3600.0, metadata=_by(_seconds(1, 30 * 86_400)))
    key_ttl_s: float = field(default=86_400.0, metadata=_by(_seconds(1, 365 * 86_400)))


@dataclass(frozen=True)
class LifecycleSection:
    stop_s: float = field(default=30.0, metadata=_by(_seconds(0.1, 3600)))


@dataclass(frozen=True)
class LogSection:
    level: str = field(default="info", metadata=_by(_one_of("debug", "info", "warning", "error")))


_SECTIONS: dict[str, type[Any]] = {
    "worker": WorkerSection,
    "control": ControlSection,
    "data": DataSection,
    "provider": ProviderSection,
    "tasks": TasksSection,
    "lifecycle": LifecycleSection,
    "log": LogSection,
}


@dataclass(frozen=True)
class Config:
    worker: WorkerSection
    control: ControlSection
    data: DataSection
    provider: ProviderSection
    tasks: TasksSection
    lifecycle: LifecycleSection
    log: LogSection

    @property
    def state_dir(self) -> Path:
        return Path(self.worker.state_dir)

    @property
    def journal_path(self) -> Path:
        return self.state_dir / "journal.sqlite3"


def parse(document: Mapping[str, Any]) -> tuple[Config | None, list[str]]:
    """All problems at once: a person mends a file in one go."""
    problems = [
        f"section [{name}] is unknown; known: " + ", ".join(_SECTIONS) for name in document if name not in _SECTIONS
    ]
    sections: dict[str, Any] = {}
    for name, kind in _SECTIONS.items():
        values, found = _parse_section(name, kind, document.get(name, {}))
        problems += found
        if values is not None:
            sections[name] = kind(**values)
    if problems:
        return None, problems
    config = Config(**sections)
    problems = _across(config)
    return (None if problems else config), problems


def _parse_section(name: str, kind: type[Any], given: Any) -> tuple[dict[str, Any] | None, list[str]]:
    if not isinstance(given, Mapping):
        return None, [f"{name} must be a section: write [{name}]"]
    known = {item.name: item for item in fields(kind)}
    problems = [
        f"{name}.{key} is unknown; [{name}] knows: " + ", ".join(sorted(known)) for key in given if key not in known
    ]
    values: dict[str, Any] = {}
    for key, item in known.items():
        if key not in given:
            if item.default is _REQUIRED:
                problems.append(f"{name}.{key} is missing; add it to section [{name}]")
            continue
        try:
            values[key] = item.metadata["check"](given[key])
        except ValueError as exc:
            problems.append(f"{name}.{key} {exc}")
    return (None if problems else values), problems


def _across(config: Config) -> list[str]:
    if not _is_loopback(config.data.host) and not config.data.token_file:
        return [f"data.token_file is missing; it is required because data.host {config.data.host} is not loopback"]
    return []


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read(path: Path) -> tuple[Config | None, list[str]]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        return None, [f"reading the configuration {path}: {exc.strerror}; check --config"]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        return None, [f"reading the configuration {path}: not TOML: {exc}"]
    settings, problems = parse(document)
    return (None if settings is None else _locate_secrets(settings, path)), problems


def _locate_secrets(settings: Config, path: Path) -> Config:
    folder = Path(os.environ.get(CREDENTIALS_VARIABLE) or path.parent / "credentials")

    def located(value: str) -> str:
        return str(folder / value.removeprefix(CREDENTIAL)) if value.startswith(CREDENTIAL) else value

    return replace(
        settings,
        provider=replace(settings.provider, api_key_file=located(settings.provider.api_key_file)),
        data=replace(settings.data, token_file=located(settings.data.token_file)),
    )


def load(path: Path) -> Config:
    config, problems = read(path)
    if config is None:
        raise ConfigError("\n".join(problems))
    return config


def read_secret(path: str, setting: str) -> str:
    """The content of a secret's file; the message names the setting and the file, never the content."""
    try:
        value = Path(path).read_text(encoding="utf-8").strip()
    except OSError as exc:
        raise ConfigError(f"reading {setting} {path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"reading {setting} {path}: not UTF-8 text") from exc
    if not value or any(char.isspace() for char in value):
        raise ConfigError(f"reading {setting} {path}: must hold one word and nothing else")
    return value


def api_key(config: Config, environ: Mapping[str, str]) -> str:
    if config.provider.api_key_file:
        return read_secret(config.provider.api_key_file, "provider.api_key_file")
    value = environ.get(KEY_VARIABLE, "").strip()
    if not value:
        raise ConfigError(f"provider.api_key_file is not set, nor is the environment variable {KEY_VARIABLE}; set one")
    return value


def data_token(config: Config) -> str | None:
    if not config.data.token_file:
        return None
    return read_secret(config.data.token_file, "data.token_file")


def release_id(path: Path, version: str) -> str:
    """The release that the configuration lies in; without a description of one, the version."""
    try:
        document = json.loads((path.resolve().parent / "release.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return version
    value = document.get("id") if isinstance(document, dict) else None
    return value if isinstance(value, str) and value else version
