# SPDX-License-Identifier: GPL-3.0-or-later
"""The report: what it says, whatever a worker says; how large it gets; and what a browser makes of it."""

from __future__ import annotations

import html
import itertools
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import report_kit as kit
from ansible_collections.solver.fleet.plugins.plugin_utils import _report
from ansible_collections.solver.fleet.plugins.plugin_utils._controller import _report_file
from ansible_collections.solver.fleet.plugins.plugin_utils._kept import kept_verdict

OLD = {  # as release 1.0.0 wrote it
    "schema": "solver.verdict/1", "verdict": "incomplete", "kind": "update", "rollout_id": "r1", "run_id": "run1",
    "target": "1.3.0", "started_at": "2026-11-23T23:25:09Z", "ended_at": "2026-11-23T23:26:41Z", "reasons": [],
    "warnings": [], "window": 1, "budget_percent": 25.0, "estimate_s": 96, "waves": [["w1"]],
    "settings": {"solver_on_abort": "rollback", "solver_drain_timeout": 60.0},
    "workers": [{"name": "w1", "from": "1.2.0", "to": "1.3.0", "release": "1.3.0-a", "outcome": "failed",
                 "cause": "drain", "reason": "drain: 2 tasks were still open", "open_at_drain": 19,
                 "timings": {"drain": 6.341}, "totals": {"before": {"accepted": 1}, "after": None}, "runs": "1.2.0",
                 "log": []}]}


class Page(HTMLParser):
    """The tags of a page, and its text without the style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._style = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._style else f"{data} "


def made(document: dict[str, Any]) -> Page:
    return Page(_report.page(document, kit.TEMPLATE))


def test_it_says_what_became_of_the_rollout() -> None:
    text = " ".join(made(kit.verdict(4, ("w3",), solver_drain_timeout=60.0)).text.split())
    for said in (
            "incomplete: update to 1.3.0", "Workers 3 of 4 at the target", "From 1.2.0 (4)", "By ada on deck",
            "Took 30 min", "Served at least 3, the floor was 3", "1 of 4 workers failed (w3), up to 1 might (25 %)",
            "w3: reverted, cause: release verify: its probe failed Try the release on one worker",
            "the window of 1 is full", "solver_drain_timeout 60 120", "At the beginning 4 on 1.2.0; at the end 1 on "
            "1.2.0, 3 on 1.3.0.", "4 served at the beginning, 3 at least, 4 at the end; the floor was 3.",
            "w3, reverted: drains 44 to 55 s; restarts 55 to 57 s; solves its probe 57 to 59 s, failed; drains to go"):
        assert said in text, text


def test_the_time_out_of_service_is_from_the_drain_to_the_return() -> None:
    def step(name: str, begin: float, end: float, ok: bool = True) -> dict[str, Any]:
        return {"step": name, "from_s": begin, "to_s": end, "ok": ok}

    turn = [step("drain", 10, 15), step("verify", 20, 25, ok=False), step("revert_drain", 40, 41),
            step("revert_resume", 42, 43)]
    assert _report._away_s(turn) == 33.0, "also while a reference was asked"
    again = [step("soak", 43, 50), step("back_drain", 60, 61), step("back_resume", 61, 62)]
    assert _report._away_s([*turn, *again]) == 35.0
    assert _report._away_s([step("drain", 10, 15), step("switch", 15, 30, ok=False)]) == 20.0
    assert _report._away_s([]) == 0.0


def test_how_to_do_it_again_is_a_command_of_a_shell() -> None:
    command = _report.command(kit.verdict(2, text="ada's reason; rm -rf /", solver_drain_timeout=60.0))
    shown = subprocess.run(["sh", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[:4] == ["ansible-playbook", "solver.fleet.rolling_update", "-i", "INVENTORY"]
    assert json.loads(shown.stdout.splitlines()[5]) == {
        "solver_reason": "ada's reason; rm -rf /", "solver_drain_timeout": 60.0, "solver_version": "1.3.0"}
    assert "solver.fleet.recover " in _report.command({"kind": "recover", "settings": {}})


@pytest.mark.parametrize("text", kit.HOSTILE)
def test_every_text_from_outside_is_text(text: str) -> None:
    plain = made(kit.verdict(2, ("w1",)))
    document = kit.verdict(2, ("w1",), text)
    document["reasons"] = document["warnings"] = [text]
    document.update(target=text, rollout_id=text, who={"user": text, "job": None, "host": text}, audit={text: 1})
    document["workers"][0].update({"from": text, "runs": text, "name": text})
    document["waits"][0].update(reason=text, worker=text)
    document["samples"][-1]["versions"] = {text: 2}
    hostile = made(document)
    names = {tag for tag, _attrs in plain.tags}
    assert {tag for tag, _attrs in hostile.tags} <= names | {"h2", "ul", "li", "tbody"}, "no tag came in"
    assert {name for _tag, attrs in hostile.tags for name in attrs} == {
        name for _tag, attrs in plain.tags for name in attrs}, "and no attribute"
    assert text.replace("\u202e", "\ufffd") in hostile.text
    assert "49" not in re.findall(r"<title>(.*?)</title>", _report.page(document, kit.TEMPLATE))[0]


def test_it_needs_nothing_else_and_runs_nothing() -> None:
    page = made(kit.verdict(4, ("w3",)))
    assert not {tag for tag, _attrs in page.tags} & {"script", "link", "img", "iframe", "object", "form"}
    assert [attrs["href"] for _tag, attrs in page.tags if "href" in attrs] == ["#workers"]
    assert not [name for _tag, attrs in page.tags for name in attrs if name in ("src", "style") or name[:2] == "on"]
    assert "default-src 'none'" in str(page.tags)
    assert "url(" not in kit.TEMPLATE
    assert "@import" not in kit.TEMPLATE


def test_it_can_be_read_without_eyes_and_without_a_mouse() -> None:
    page = made(kit.verdict(4, ("w3",)))
    tags = [tag for tag, _attrs in page.tags]
    assert tags.count("table") == tags.count("caption") >= 3
    headings = [int(tag[1]) for tag in tags if re.fullmatch(r"h\d", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(headings)), headings
    drawings = [attrs for tag, attrs in page.tags if tag == "svg" and "aria-hidden" not in attrs]
    assert len(drawings) == 3 + 4
    assert {attrs["role"] for attrs in drawings} == {"img"}
    ids = {attrs["id"] for _tag, attrs in page.tags if "id" in attrs}
    named = " ".join(str(attrs["aria-labelledby"]) for _tag, attrs in page.tags if "aria-labelledby" in attrs).split()
    assert set(named) <= ids
    scrolls = [attrs for tag, attrs in page.tags if attrs.get("class") == "scroll"]
    assert all((attrs.get("tabindex"), attrs.get("role")) == ("0", "region") for attrs in scrolls)
    assert ("html", {"lang": "en"}) in page.tags


@pytest.mark.parametrize(("failing", "text"), [(20, "the answer was wrong"), (1000, "<&'\"" * 250)])
def test_a_thousand_workers_are_below_three_megabytes(failing: int, text: str) -> None:
    document = kit.verdict(1000, tuple(f"w{number}" for number in range(1, failing + 1)), text, together=100)
    page = _report.page(document, kit.TEMPLATE)
    assert len(page.encode()) < 3_000_000
    assert page.count("<li><b>") == 1000


def test_a_verdict_of_the_first_schema_has_a_report_too() -> None:
    text = " ".join(made(kept_verdict(OLD)).text.split())
    assert "1 of 1 workers failed (w1), 25 % might" in text
    assert "No step has a time" in text
    assert "solver_drain_timeout 60 120" in text


@pytest.mark.parametrize("document", [
    {"verdict": "refused", "kind": "update", "target": None, "reasons": ["solver_version is not set"]},
    {"verdict": "interrupted", "workers": [], "settings": {}, "samples": [], "waits": []}])
def test_a_run_that_touched_nobody_has_a_report_too(document: dict[str, Any]) -> None:
    assert str(document["verdict"]) in made(kept_verdict({"schema": "solver.verdict/1", **document})).text


@pytest.mark.parametrize(("raw", "said"), [
    ([], "its schema is none"), ({}, "its schema is none"), ({"schema": "solver.verdict/9"}, "solver.verdict/9, not"),
    ({"schema": 5}, "its schema is none"), ({"schema": "solver.verdict/1"}, "damaged verdict: verdict is missing"),
    ({**OLD, "workers": [{"name": "w1"}]}, "workers[0].outcome is missing"),
    ({**OLD, "samples": [{"at_s": "x"}]}, "samples[0].at_s is text"), ({**OLD, "verdict": "<b>"}, "verdict is no word"),
    ({**OLD, "settings": {"a": {"b": 1}}}, "settings[a] is an object")])
def test_what_is_no_verdict_says_why(raw: Any, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        kept_verdict(raw)


def test_what_is_kept_comes_back_as_it_was() -> None:
    document = json.loads(json.dumps({**kit.verdict(4, ("w3",)), "audit": {"accepted": 900, "lost": None}}))
    assert kept_verdict(document) == document
    assert "lost unknown" in " ".join(made(document).text.split())


# -- the file ------------------------------------------------------------------------------------


def test_a_report_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    document = kit.verdict(2)
    for path, why in (("file/report.html", "File exists"), ("folder", "Is a directory")):
        (line,) = _report_file.write_report(str(tmp_path / path), document)
        assert line == f"there is no report: writing {tmp_path / path} (solver_report_file): {why}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"], "nothing half written is left"
    (line,) = _report_file.write_report(str(tmp_path / "r.html"), {"verdict": 5})
    assert line.startswith("there is no report: our own code failed")
    assert _report_file.write_report(str(tmp_path / "new" / "r.html"), document) == []


# -- in a browser --------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FRAMES = """<body>{frames}<pre id=said></pre><script>
onload = () => {{ said.textContent = JSON.stringify([...document.querySelectorAll("iframe")].map(frame => {{
  const page = frame.contentDocument, root = page.documentElement, small = page.querySelector(".rows svg");
  return {{width: frame.clientWidth, needs: root.scrollWidth, back: getComputedStyle(page.body).backgroundColor,
    ink: getComputedStyle(page.body).color, bar: small.getBoundingClientRect().width,
    strangers: page.querySelectorAll("script, img, b[onclick]").length}}; }})); }}
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.parametrize(("scheme", "dark"), [(0, True), (1, False)])
def test_it_fits_a_phone_and_a_desk_in_dark_and_light(tmp_path: Path, scheme: int, dark: bool) -> None:
    document = kit.verdict(6, ("w3",), " ".join(kit.HOSTILE))
    document["workers"][1]["reason"] = "x" * 3000
    document["workers"][3]["name"] = "worker-with-a-very-long-name." * 6
    (tmp_path / "report.html").write_text(_report.page(document, kit.TEMPLATE), encoding="utf-8")
    frames = "".join(f"<iframe src=report.html style='border:0;width:{width}px;height:900px'></iframe>"
                     for width in (390, 1280))
    (tmp_path / "frames.html").write_text(FRAMES.format(frames=frames), encoding="utf-8")
    shown = subprocess.run(
        [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
         f"--user-data-dir={tmp_path / 'profile'}", f"--blink-settings=preferredColorScheme={scheme}",
         "--window-size=1400,1000", "--dump-dom", f"file://{tmp_path}/frames.html"],
        capture_output=True, text=True, check=True, timeout=120)
    found = re.search(r'<pre id="said">(.*?)</pre>', shown.stdout)
    assert found is not None, shown.stdout + shown.stderr
    for own in json.loads(html.unescape(found.group(1))):
        assert own["needs"] <= own["width"], "nothing but a table scrolls sideways"
        assert own["bar"] > own["width"] / 2
        assert own["strangers"] == 0
        back, ink = (sum(map(int, re.findall(r"\d+", own[name])[:3])) for name in ("back", "ink"))
        assert (back < ink) is dark


def test_what_the_canaries_showed_is_there():
    document = {**kit.verdict(), "judgement": {"word": "fail", "reason": "<b>12 points worse"}}
    assert "The canaries: fail; <b>12 points worse" in made(document).text
