# SPDX-License-Identifier: GPL-3.0-or-later
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from harness import World
from solver_worker import __version__, cli, config, locks, serve
from solver_worker.errors import ConfigError
from solver_worker.journal import Journal

GOOD = """
[worker]
name = "w1"
state_dir = "{home}/state"
[control]
socket = "{home}/c.sock"
[data]
port = 8080
[provider]
api_key_file = "{home}/key"
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "key").write_text("0123456789abcdef0123456789abcdef\n")
    return tmp_path


def write(home: Path, old: str = "", new: str = "") -> Path:
    path = home / "config.toml"
    text = GOOD.format(home="/short" if "c.sock" in old else home).replace("/short/state", f"{home}/state")
    assert old in text
    path.write_text(text.replace(old, new) if old else text)
    return path


def check(path: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, Any]:
    code = cli.main(["check", "--config", str(path), "--json", *more])
    return code, json.loads(capsys.readouterr().out)


def test_a_complete_configuration(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, result = check(write(home), capsys, "--journal")
    assert (code, result["ok"], result["version"]) == (0, True, __version__)
    assert result["journal"]["exists"] is False
    assert not (home / "state").exists(), "check only reads"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "w1"\n', "", "worker.name is missing; add it to section [worker]"),
        ('name = "w1"', 'name = "W 1"', "worker.name must be 1 to 63 of"),
        ("port = 8080", "port = 0", "data.port must be a whole number from 1 to 65535"),
        ("port = 8080", 'port = "8080"', "data.port must be a whole number"),
        ("port = 8080", "port = 8080\ncolour = 1", "data.colour is unknown"),
        ("port = 8080", 'port = 8080\nhost = "10.0.0.1"', "data.token_file is missing"),
        ('api_key_file = "', 'api_key_file = "credential:..', "provider.api_key_file must be an absolute path"),
        ("[data]", "[dota]\n[data]", "section [dota] is unknown"),
        ("[provider]", '[provider]\nurl = "ftp://x"', "provider.url must be an http or https address"),
        ("[provider]", '[tasks]\non_uncertain = "maybe"\n[provider]', "tasks.on_uncertain must be one of"),
        ('socket = "/short/c.sock"', f'socket = "/{"x" * 120}"', "control.socket is 121 bytes long"),
        ("/key", "/nokey", "reading provider.api_key_file"),
        ("[worker]", "[worker", "not TOML"),
    ],
)
def test_a_bad_configuration_names_its_key(
    home: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, message: str
) -> None:
    code, result = check(write(home, old, new), capsys)
    assert (code, result["ok"]) == (2, False)
    assert message in "\n".join(result["problems"])


def test_a_socket_path_of_107_bytes_is_the_longest() -> None:
    base = {"worker": {"name": "w", "state_dir": "/s"}, "data": {"port": 1}}
    for length, good in ((107, True), (108, False)):
        parsed, _unused = config.parse({**base, "control": {"socket": "/" + "x" * (length - 1)}})
        assert (parsed is not None) is good


def test_serve_without_a_key_names_both_ways(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(config.KEY_VARIABLE, raising=False)
    path = write(home, f'api_key_file = "{home}/key"', "")
    assert cli.main(["serve", "--config", str(path)]) == 2
    err = capsys.readouterr().err
    assert "provider.api_key_file" in err
    assert config.KEY_VARIABLE in err


@pytest.mark.parametrize("given", [True, False])
def test_a_credential_comes_from_the_service_manager_or_lies_beside_the_configuration(
    home: Path, given: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = home / ("from-systemd" if given else "credentials")
    folder.mkdir()
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    if given:
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    path = write(home, f'"{home}/key"', '"credential:api_key"')
    code, result = check(path, capsys)
    assert (code, result["ok"]) == (2, False)
    assert f"reading provider.api_key_file {folder}/api_key: No such file" in result["problems"][0]
    (folder / "api_key").write_text("k" * 32)
    assert check(path, capsys)[0] == 0
    assert config.api_key(config.load(path), {}) == "k" * 32


def test_the_release_is_told_by_the_file_beside_the_real_configuration(tmp_path: Path) -> None:
    release = tmp_path / "r1"
    release.mkdir()
    (release / "config.toml").write_text("")
    (tmp_path / "current").symlink_to(release)
    assert config.release_id(tmp_path / "current" / "config.toml", "1.3.0") == "1.3.0"
    (release / "release.json").write_text('{"id": "1.3.0-aa-bb"}')
    assert config.release_id(tmp_path / "current" / "config.toml", "1.3.0") == "1.3.0-aa-bb"


def test_check_tells_a_journal_it_could_not_open(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(home)
    state = home / "state"
    state.mkdir()
    journal = state / "journal.sqlite3"
    journal.write_bytes(b"not a database, but long enough to look like a file" * 20)
    code, result = check(path, capsys, "--journal")
    assert (code, result["journal"]) == (1, None)
    assert "opening the journal" in result["problems"][0]
    journal.unlink()
    Journal(journal).close()
    before = {item.name: item.stat().st_mtime_ns for item in state.iterdir()}
    code, result = check(path, capsys, "--journal")
    assert (code, result["journal"]["schema"], result["journal"]["migrates_to"]) == (0, 1, None)
    assert {item.name: item.stat().st_mtime_ns for item in state.iterdir()} == before


@pytest.mark.parametrize("command", ["serve", "check", "status", "drain", "resume", "probe", "sandbox"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    assert caught.value.code == 0
    assert "usage: solver-worker" in capsys.readouterr().out


async def test_the_command_line_drains_probes_and_resumes(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.sandbox("--solve", "default=0.1:0.1")
    worker = await world.worker().start()
    at = ["--socket", str(worker.socket)]
    assert await world.run(cli.main, ["drain", *at, "--owner", "me", "--wait", "5"]) == 0
    assert await world.run(cli.main, ["drain", *at, "--owner", "you"]) == 1
    assert "me drains this worker" in capsys.readouterr().err
    assert await world.run(cli.main, ["status", *at, "--wait", "0.2", "--until", "running"]) == 1
    assert await world.run(cli.main, ["probe", *at]) == 0
    assert await world.run(cli.main, ["probe", *at, "--expect", "no"]) == 1
    assert await world.run(cli.main, ["resume", *at, "--owner", "me"]) == 0
    assert await world.run(cli.main, ["status", *at, "--until", "running"]) == 0
    await worker.term()
    assert await world.run(cli.main, ["status", *at]) == 1


async def test_a_file_in_the_place_of_the_socket_is_left_alone(world: World) -> None:
    worker = world.worker()
    worker.socket.write_text("precious")
    await worker.start(until="")
    assert worker.process is not None
    assert await worker.process.wait() == 2
    assert worker.socket.read_text() == "precious"
    assert "is not a socket" in worker.log
    assert not stat.S_ISSOCK(worker.socket.stat().st_mode)


def test_without_a_umask_nobody_else_can_write_what_is_made(home: Path) -> None:
    path = write(home, f'"{home}/state"', f'"{home}/deep/er/state"')
    path.write_text(path.read_text().replace(f'"{home}/c.sock"', f'"{home}/so/cket/c.sock"'))
    before = os.umask(0)
    try:
        for handle in serve.take_locks(config.load(path)):
            os.close(handle)
    finally:
        os.umask(before)
    made = [found for top in ("deep", "so") for found in (home / top, *(home / top).rglob("*"))]
    assert len(made) == 7
    assert [str(found) for found in made if found.stat().st_mode & 0o022] == []


@pytest.mark.parametrize("target", ["there", "nowhere"])
def test_a_link_in_the_place_of_a_lock_is_not_followed(home: Path, target: str) -> None:
    victim = home / target
    if target == "there":
        victim.write_text("keep me")
    (home / "state").mkdir()
    (home / "state" / "lock").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        locks.take(home / "state" / "lock", "state directory")
    with pytest.raises(ConfigError, match=r"preparing worker\.state_dir and control\.socket: .*symbolic links"):
        serve.take_locks(config.load(write(home)))
    assert victim.exists() == (target == "there")
