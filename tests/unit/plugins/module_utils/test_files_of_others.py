# SPDX-License-Identifier: GPL-3.0-or-later
"""Files and documents that another user, or a stranger, may have written: what is read of them, and what is not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from ansible_collections.solver.fleet.plugins.module_utils._drain_clock import DrainClock
from ansible_collections.solver.fleet.plugins.module_utils._errors import one_line, printable
from ansible_collections.solver.fleet.plugins.module_utils._files import open_checked, read_json, tail
from ansible_collections.solver.fleet.plugins.module_utils._json import plain_json
from ansible_collections.solver.fleet.plugins.module_utils._record import defect
from ansible_collections.solver.fleet.plugins.module_utils._record_file import RecordFile
from ansible_collections.solver.fleet.plugins.module_utils._release_stage import StepError, read_check
from ansible_collections.solver.fleet.plugins.module_utils._service_base import read_log_end


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    path = tmp_path / "logs/w1.log"
    path.write_text("one\n\x1b[2Jtwo\u202e\n")
    return path


def as_another(monkeypatch: pytest.MonkeyPatch, link: Path) -> None:
    """Have LINK belong to another user: root gives it away, whoever is not root is somebody else now."""
    if os.geteuid() == 0:
        os.lchown(link, 12345, 12345)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)


def test_a_log_is_read_and_shown_as_lines(log: Path) -> None:
    assert read_log_end(str(log), 20) == ["one", " [2Jtwo "]
    assert read_log_end(str(log / "w1"), 20) == [f"{log}/w1 is not shown: Not a directory"]
    assert read_log_end(str(log.parent / "none"), 20) == []


def test_a_link_of_ours_is_followed(log: Path) -> None:
    (log.parent / "link").symlink_to("w1.log")
    (log.parent.parent / "folder").symlink_to(log.parent)
    (log.parent / "up").symlink_to("../folder/link")
    for path in (log.parent / "link", log.parent.parent / "folder/w1.log", log.parent / "up"):
        assert "one" in read_log_end(str(path), 20)


@pytest.mark.parametrize("target", ["secret", "../secret", "{tmp}/secret"])
def test_a_link_of_the_worker_is_not(
    log: Path, tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (tmp_path, log.parent):
        (folder / "secret").write_text("root:hash")
    log.unlink()
    log.symlink_to(target.format(tmp=tmp_path))
    as_another(monkeypatch, log)
    assert read_log_end(str(log), 20) == [f"{log} is not shown: it leads through a link of another user"]


def test_nor_is_one_in_the_place_of_its_folder(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/w1.log").write_text("root:hash")
    (tmp_path / "logs").rename(tmp_path / "old")
    (tmp_path / "logs").symlink_to("elsewhere")
    as_another(monkeypatch, tmp_path / "logs")
    assert "hash" not in str(read_log_end(str(log), 20))


def test_what_is_no_file_is_not_waited_for(log: Path) -> None:
    log.unlink()
    os.mkfifo(log)
    assert read_log_end(str(log), 20) == [f"{log} is not shown: it is no regular file"]
    with pytest.raises(OSError, match="it is no regular file"):
        open_checked(str(log.parent))
    (log.parent / "round").symlink_to("round")
    with pytest.raises(OSError, match="too many links"):
        open_checked(str(log.parent / "round"))


def test_a_document_is_no_link_and_no_pipe(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("{}")
    (tmp_path / "link").symlink_to("secret")
    os.mkfifo(tmp_path / "pipe")
    assert [read_json(str(tmp_path / name)) for name in ("secret", "link", "pipe")] == [{}, None, None]
    (tmp_path / "rollout").mkdir()
    (tmp_path / "rollout/record.json").symlink_to("../secret")
    with pytest.raises(StepError, match="reading the rollout's record"):
        RecordFile(str(tmp_path)).read()
    (tmp_path / "rollout/lock").symlink_to("../secret")
    with pytest.raises(StepError), RecordFile(str(tmp_path)).guarded(exclusive=True):
        pass


@pytest.mark.parametrize("data", [
    b"", b"\xff", b"NaN", b"[1e999]", b"[-Infinity]", b"9" * 400, b"[" * 1000 + b"]" * 1000, b"[" * 21 + b"]" * 21,
    b'{"a":' * 30 + b"1" + b"}" * 30, b'"\\ud800"', b'{"\\udfff": 1}', b"[" * 100_000])
def test_what_no_encoder_would_take_is_no_document(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        plain_json(data)


def test_what_all_take_is_one() -> None:
    document = {"a": [1, 1.5, None, True, "\x1b \U0001f600", {"b": []}], "c": -(1 << 52)}
    assert plain_json(json.dumps(document).encode()) == document


def good_record() -> dict[str, object]:
    return {"schema": "solver.rollout/1", "seq": 1, "roster": [], "superseded": [], "rollout": {"id": "r"},
            "lock": {"run_id": "x", "rollout_id": "r", "ttl_s": 5, "renewed_at": "2026-01-01T00:00:00Z"}}


@pytest.mark.parametrize(("part", "name", "value"), [
    ("rollout", "from", "1.2.0"), ("rollout", "to", [1]), ("lock", "found", "x"), ("lock", "found", {"lock": None}),
    ("lock", "found", {"rollout": "x"}), ("lock", "found", {"superseded": [{}]}), ("lock", "ttl_s", 10**400)])
def test_a_record_that_would_break_its_next_reader_is_none(part: str, name: str, value: object) -> None:
    assert defect(good_record()) is None
    record = good_record()
    record[part] = {**record[part], name: value}  # type: ignore[dict-item]
    assert defect(record)


def test_a_note_of_a_drain_that_is_none_is_missed(tmp_path: Path) -> None:
    (tmp_path / "rollout").mkdir()
    drain = {"owner": "o", "requested_at": "t"}
    (tmp_path / "rollout/drain.json").write_text(json.dumps({**drain, "clock": "soon"}))
    assert DrainClock(str(tmp_path)).elapsed(drain) is None


@pytest.mark.parametrize("problems", ["5", '"x"', '{"a": 1}', '["\\u001b[2J"]'])
def test_a_program_that_says_anything_of_itself_is_refused(problems: str) -> None:
    out = f'{{"ok": false, "version": "1", "problems": {problems}}}'
    with pytest.raises(StepError) as caught:
        read_check(1, out, "", "1")
    assert caught.value.message.isprintable()


def test_lines_for_people() -> None:
    assert printable("  a\tb\x1b\n") == "  a b  "
    assert one_line("  a\tb\n c ") == "a b c"
    assert (one_line(None), one_line(0)) == ("", "0")
    assert tail("  x\n\n\x1b[31my\n", 5) == ["  x", " [31my"]
