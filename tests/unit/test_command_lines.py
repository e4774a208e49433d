# SPDX-License-Identifier: GPL-3.0-or-later
"""Every command line of the pages, and of the playbooks' own words, taken apart by a real shell and Ansible."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.splitter import parse_kv
from ansible_collections.solver.fleet.plugins.plugin_utils._settings import SETTINGS
from ansible_collections.solver.fleet.plugins.plugin_utils._settings_read import read
from ansible_collections.solver.fleet.plugins.plugin_utils._settings_rules import unknown_names

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "roles/worker/files/solver-worker/src"))
from solver_worker import cli  # noqa: E402

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAMS = ("ansible-playbook", "ansible", "make", "solver-worker")
# Options of the programs that come with a value.
VALUED = {"-i", "-e", "-m", "-a", "-l", "--limit", "--forks", "--tags", "--start-at-task"}


def lines_of(page: Path) -> Iterator[str]:
    """The command lines in the blocks and in the running text of a page, or in the comments of a playbook."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".yml":
        yield from (line.lstrip("# ") for line in text.splitlines() if line.startswith("#   "))
        return
    fence = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
    for language, block in fence.findall(text):
        if language in ("", "console", "sh", "bash", "text"):
            yield from (line.removeprefix("$ ") for line in block.replace("\\\n", " ").splitlines())
        yield from (line.partition("for: ")[2] for line in block.splitlines() if line.startswith("# "))
    yield from re.findall(r"`((?:ansible-playbook|make) [^`]+)`", fence.sub("", text))


def program_of(line: str) -> str:
    return next((word for word in line.split() if "=" not in word), "").rpartition("/")[2]


def words_of(line: str) -> list[str]:
    """What the program would get."""
    script = "".join(f'{program}() {{ printf "%s\\0" "$@"; }}; ' for program in PROGRAMS)
    bare = re.sub(r"(^|\s)(\.venv|~/solver-tools|\.local-fleet/tools)/bin/", r"\1", line).rstrip("& ")
    done = subprocess.run(["bash", "-c", script + bare], cwd=ROOT, capture_output=True, text=True, check=False,
                          timeout=20)
    assert (done.returncode, done.stderr) == (0, ""), line
    return done.stdout.split("\0")[:-1]


def options_of(words: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """The words that belong to no option, and the options with their values."""
    alone, options = [], []
    rest = iter(words)
    for word in rest:
        if word in VALUED:
            options.append((word, next(rest)))
        elif not word.startswith("-"):
            alone.append(word)
    return alone, options


def variables(given: str) -> dict[str, Any]:
    if given.startswith("@"):
        return {}
    return dict(json.loads(given)) if given.startswith("{") else dict(parse_kv(given))


PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))
LINES = [(page, line.strip()) for page in [*PAGES, *PLAYBOOKS] for line in lines_of(page)
         if program_of(line) in PROGRAMS]


def of(program: str) -> list[Any]:
    return [pytest.param(line, id=f"{page.stem}: {line[:70]}") for page, line in LINES if program_of(line) == program]


def test_they_are_found() -> None:
    found = {program: len(of(program)) for program in PROGRAMS}
    assert found["ansible-playbook"] >= 40, found
    assert found["ansible"] >= 2, found
    assert found["make"] >= 10, found
    assert found["solver-worker"] >= 8, found


@pytest.mark.parametrize("line", of("ansible-playbook"))
def test_a_playbook_exists_and_each_variable_is_what_was_meant(line: str) -> None:
    # An optional part of a usage line is given.
    alone, options = options_of(words_of(re.sub(r"\[(-e .*)\]", r"\1", line)))
    for name in alone:
        if name.startswith(("solver.fleet.", "playbooks/")):
            stem = name.removeprefix("solver.fleet.").removeprefix("playbooks/").removesuffix(".yml")
            assert (ROOT / "playbooks" / f"{stem}.yml").exists(), line
    given = [variables(value) for option, value in options if option == "-e"]
    assert [own["_raw_params"] for own in given if "_raw_params" in own] == [], line
    for own in given:
        assert unknown_names(own) == [], line
        for name in SETTINGS.keys() & own.keys():
            read(name, own[name])


@pytest.mark.parametrize("line", of("ansible"))
def test_a_module_has_the_options_that_it_gets(line: str) -> None:
    _alone, options = options_of(words_of(line))
    module, args = dict(options)["-m"], parse_kv(dict(options)["-a"])
    if module.startswith("solver.fleet."):
        text = (ROOT / "plugins" / "modules" / f"{module.rpartition('.')[2]}.py").read_text(encoding="utf-8")
        known = yaml.safe_load(text.split('r"""')[1].split('"""')[0])["options"]
        assert set(args) <= set(known), line


@pytest.mark.parametrize("line", of("make"))
def test_a_target_exists(line: str) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {word for word in words_of(line) if "=" not in word and not word.startswith("-")}
    assert named <= targets, line


@pytest.mark.parametrize("line", of("solver-worker"))
def test_a_command_of_the_worker_is_one(line: str) -> None:
    words = [word for word in words_of(line.replace("$SOCKET", "/s").replace("…", "x")) if word]
    with contextlib.suppress(SystemExit):  # --help
        cli._parser(words[0]).parse_args(words)
        return
    pytest.fail(line)


def test_a_blank_in_a_value_is_what_this_would_find() -> None:
    words = words_of('ansible-playbook solver.fleet.pause -e solver_reason="on the phone"')
    assert variables(words[-1])["_raw_params"] == "the phone"
    words = words_of("ansible-playbook solver.fleet.pause -e \"solver_reason='on the phone'\"")
    assert variables(words[-1]) == {"solver_reason": "on the phone"}
