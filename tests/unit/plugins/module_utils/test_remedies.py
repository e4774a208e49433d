# SPDX-License-Identifier: GPL-3.0-or-later
"""What messages tell an operator to do: by the names of settings, and nothing that destroys what is not broken."""

from __future__ import annotations

import ast
import errno
import json
import os
import re
from pathlib import Path

import pytest
from ansible_collections.solver.fleet.plugins.module_utils import _errors, _record_file, _service_base, _socket
from ansible_collections.solver.fleet.plugins.plugin_utils import _converge

FOLDER = Path(_errors.__file__).resolve().parent
# An option of a module that a message tells to change.
OPTION = re.compile(r"\b(?:set|correct|raise|lower) ((?:service\.)?[a-z]+_?[a-z_]*)(?:=| to | and |;|,|$)")
# Failures of which the controller itself names the settings, by their code.
BY_CODE = {*_converge._SETTINGS_OF_CODE, "config_refused"}
# Words that are no options; and options that no playbook leaves out, or has no setting for.
NONE = {"it", "that", "request_id", "version_file", "versions", "overlays", "source", "expect_state", "name", "release",
        "on_expire", "config", "service", "had"}


def said_in(node: ast.AST) -> str:
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "?" for part in parts)


def messages(path: Path) -> list[str]:
    """The texts, without descriptions, the pieces of a text, and failures of BY_CODE."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    apart = [inner for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args
             and said_in(node.args[0]) in BY_CODE for inner in ast.walk(node)]
    apart += [inner for node in ast.walk(tree) if isinstance(node, (ast.JoinedStr, ast.Expr)) and not isinstance(
        getattr(node, "value", None), ast.Call) for inner in ast.walk(node) if inner is not node]
    left_out = {id(node) for node in apart}
    return [said_in(node) for node in ast.walk(tree)
            if isinstance(node, (ast.JoinedStr, ast.Constant)) and id(node) not in left_out]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_a_message_that_names_an_option_names_the_setting_behind_it(path: Path) -> None:
    bad = [text for text in messages(path) if "solver_" not in text and set(OPTION.findall(text)) - NONE]
    assert bad == []


def refused(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_missing_rights_are_mended_by_rights(number: int) -> None:
    said = _errors.remedy(refused(number), "remove it")
    assert "solver_become: true" in said
    assert "remove" not in said
    assert _errors.remedy(refused(errno.ENOSPC), "make room") == "make room"
    assert "solver_become: true" in _socket.finding_of_os_error("/s", refused(number)).message


def test_nobody_who_may_not_read_the_record_is_told_to_remove_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    def denied(*_args: object, **_more: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    said = _record_file.look(str(tmp_path))["record_problem"]
    assert f"reading the rollout's record '{tmp_path}/rollout/record.json': Permission denied" in said
    assert "solver_become: true" in said
    assert "remove" not in said
    monkeypatch.setattr(os, "makedirs", denied)
    record = _record_file.RecordFile("/nowhere")
    with pytest.raises(_errors.StepError, match="solver_become: true"), record.guarded(True):
        pass


# -- the end of a log


OLD = {"at": "2026-11-29T04:00:00.000Z", "level": "info", "event": "stopped"}
NEW = {"at": "2026-11-29T04:00:05.120Z", "level": "error", "event": "cannot start", "port": 8081,
       "exception": "Traceback ...\n  File ...\nOSError: the port is taken"}
SINCE = 1795924802.0  # 04:00:02


def text(*lines: object) -> str:
    return "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n"


def test_log_lines_are_words_and_those_of_the_new_process() -> None:
    said = _service_base.log_lines(text("old noise", OLD, "more of it", OLD, "new noise", NEW), 20, SINCE)
    assert said == ["new noise", "2026-11-29T04:00:05.120Z error cannot start: port=8081 OSError: the port is taken"]


def test_without_a_time_all_lines_count_and_none_is_longer_than_people_read() -> None:
    long = {"event": "probe failed", "detail": json.dumps({"answer": "x" * 5000})}
    said = _service_base.log_lines(text(OLD, "plain", "{broken", "[1]", '{"event": 5}', long), 20)
    assert said[1:5] == ["plain", "{broken", "[1]", '{"event": 5}']
    assert said[5].startswith('probe failed: detail={"answer": "xxx')
    assert len(said[5]) == 400
    assert _service_base.log_lines(text(OLD), 20, SINCE) == []
    assert _service_base.log_lines(text({"event": "e", "at": 10**400}), 20, SINCE) != []


def test_the_log_file_is_read_from_the_start_of_the_process(tmp_path: Path) -> None:
    path = tmp_path / "w1.log"
    path.write_text(text(OLD, NEW), encoding="utf-8")
    assert len(_service_base.read_log_end(str(path), 20, SINCE)) == 1
    assert len(_service_base.read_log_end(str(path), 20)) == 2
    assert _service_base.read_log_end(str(tmp_path / "none"), 20, SINCE) == []
