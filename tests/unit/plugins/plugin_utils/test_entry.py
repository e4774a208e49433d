# SPDX-License-Identifier: GPL-3.0-or-later
"""What a worker's host says is checked where it comes in; tests/fuzz goes through what is not thought of here."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path

import entry_kit as kit
import pytest
import yaml
from ansible_collections.solver.fleet.plugins.plugin_utils import _entry, _shape
from ansible_collections.solver.fleet.plugins.plugin_utils._controller import _process
from entry_kit import GONE, NOW, changed
from hypothesis import given
from hypothesis import strategies as st

OPENAPI = Path(__file__).parents[4] / "docs/openapi/control-v1.yaml"
KINDS = {"census": kit.census, "lock_answer": kit.lock_answer, "staged": kit.staged, "router": kit.router,
         "step_results": kit.steps}
LATER = "2026-11-26T00:00:00Z"


def census_with(way, value):
    return _entry.census(changed(kit.census(dict(kit.LOCK)), way, value), NOW)


# --- good answers ---


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_answer_comes_through_as_it_is(kind):
    raw = KINDS[kind]()
    assert without_schemas(getattr(_entry, kind)(raw, NOW)) == without_schemas(raw)


def without_schemas(value):
    """Return VALUE without the names of formats, which are checked and then left out of releases."""
    if isinstance(value, dict):
        return {key: without_schemas(one) for key, one in value.items() if key != "schema"}
    return [without_schemas(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_known_is_left_out(kind):
    raw = KINDS[kind]()
    more = copy.deepcopy(raw)
    for way in [(), *kit.places(raw)]:
        at = more
        for key in way:
            at = at[key]
        # A map of names has no fields.
        if isinstance(at, dict) and way[-1:] not in [("servers",), ("done_steps",)]:
            at["of_tomorrow"] = {"a": [float("nan")]}
    assert getattr(_entry, kind)(more, NOW) == getattr(_entry, kind)(raw, NOW)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_said_is_nothing_known(kind):
    assert not getattr(_entry, kind)(None, NOW).get("wrong")
    assert "worker" not in getattr(_entry, kind)({}, NOW)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unreachable_host_is_told_in_words(kind):
    found = getattr(_entry, kind)({"unreachable": True, "msg": "no route\nto host", "worker": 5}, NOW)
    assert (found["unreachable"], found["msg"]) == (True, "no route to host")
    assert not {"worker", "wrong", "failed"} & set(found)


def test_a_silent_worker():
    raw = {"finding": "stopped", "message": "there is no socket", "worker": None, "host_clock": kit.CLOCK}
    assert _entry.census(raw, NOW) == raw


def test_an_option_that_is_wrong():
    raw = {"failed": True, "msg": "Asking: no", "failure": {"code": "bad_control_socket", "message": "no"}}
    assert _entry.census(raw, NOW) == raw


# --- what does not fit ---


def test_a_wrong_answer_is_named_and_not_used():
    found = census_with(("worker", "journal"), "x")
    said = "answers wrongly: journal is text where an object belongs"
    assert found == {
        "finding": "wrong", "wrong": "journal", "failed": True, "msg": said, "worker": None, "rollout": None,
        "lock_state": "unknown", "releases": None,
        "failure": {"code": "answers_wrongly", "cause": "host", "message": said, "details": {}}}


@pytest.mark.parametrize(("way", "value", "wrong"), [
    (("worker", "api", "features"), 5, "api.features is a number where a list belongs"),
    (("worker", "api", "features"), ["probe", None], "api.features[1] is null where text belongs"),
    (("worker", "api"), GONE, "api is missing"),
    (("worker", "state"), "asleep", "state is none of"),
    (("worker", "state"), [], "state is a list where text belongs"),
    (("worker", "seq"), True, "seq is a truth value where a number belongs"),
    (("worker", "seq"), 1.5, "seq is no integer"),
    (("worker", "idle"), 0, "idle is a number where a truth value belongs"),
    (("worker", "since"), "yesterday", "since is no date"),
    (("worker", "refusal"), "full", "refusal is text where an object belongs"),
    (("worker", "refusal"), {"code": "disk_full"}, "refusal.message is missing"),
    (("worker", "totals", "accepted"), 10**400, "totals.accepted is no number from 0 to 1e+15"),
    (("worker", "totals", "accepted"), -1, "totals.accepted is no number"),
    (("worker", "solve_times", "p99_s"), float("nan"), "solve_times.p99_s is no number"),
    (("worker", "solve_times", "p99_s"), float("inf"), "solve_times.p99_s is no number"),
    (("worker", "solve_histogram"), [0] * 101, "solve_histogram has 101 entries where at most 100 belong"),
    (("worker", "solve_histogram"), [0.5], "solve_histogram[0] is no integer"),
    (("worker", "failures", "provider"), -1, "failures.provider is no number"),
    (("rollout", "rollout", "judgement", "word"), "perfect", "rollout.rollout.judgement.word is none of"),
    (("rollout", "rollout", "baseline", "at"), "2126-11-24T01:00:00Z", "rollout.rollout.baseline.at is a date that"),
    (("rollout", "rollout", "baseline", "books", "failed"), True, "rollout.rollout.baseline.books.failed is a truth"),
    (("worker", "solve_times", "p99_s"), "fast", "solve_times.p99_s is text where a number belongs"),
    (("worker", "instance", "release"), "a\nb", "instance.release holds characters that cannot be printed"),
    (("worker", "instance", "release"), "\ud800", "instance.release holds characters that cannot be printed"),
    (("worker", "instance", "boot_id"), "x" * 201, "instance.boot_id is longer than 200 characters"),
    (("worker",), None, "worker does not fit to the finding answering"),
    (("finding",), "hung", "worker does not fit to the finding hung"),
    (("finding",), GONE, "finding is missing"),
    (("rollout", "seq"), "3", "rollout.seq is text"),
    (("rollout", "roster"), ["w"] * 10_001, "rollout.roster has 10001 entries where at most 10000 belong"),
    (("rollout", "roster", 1), "w" * 254, "rollout.roster[1] is longer than 253 characters"),
    (("rollout", "roster", 1), "w\x1b[2J", "rollout.roster[1] holds characters"),
    (("rollout", "roster", 1), "", "rollout.roster[1] is empty"),
    (("rollout", "roster", 1), 7, "rollout.roster[1] is a number where text belongs"),
    (("rollout", "rollout", "id"), "r" * 250, "rollout.rollout.id is longer than 200 characters"),
    (("rollout", "rollout", "started_at"), "9999-12-31T23:59:59Z", "rollout.rollout.started_at is a date that is yet"),
    (("rollout", "rollout", "started_at"), "2026-02-30T00:00:00Z", "rollout.rollout.started_at is no date"),
    (("rollout", "rollout", "cause"), "\x1b[1m", "rollout.rollout.cause is no word"),
    (("rollout", "lock", "ttl_s"), 10**400, "rollout.lock.ttl_s is no number from 0 to 1e+09"),
    (("rollout", "lock", "renewed_at"), LATER, "rollout.lock.renewed_at is a date that is yet to come"),
    (("rollout", "lock", "controller", "pid"), "7", "rollout.lock.controller.pid is text"),
    (("rollout", "request", "what"), "stop", "rollout.request.what is none of pause, abort"),
    (("rollout", "superseded"), [{"id": "r"}] * 21, "rollout.superseded has 21 entries"),
    (("releases", "current"), {}, "releases.current.id is missing"),
    (("lock_state",), 5, "lock_state is a number"),
    (("history",), "x", "history is text where a list belongs"),
    (("failed",), "no", "failed is text where a truth value belongs"),
])
def test_the_field_is_named(way, value, wrong):
    found = census_with(way, value)
    assert found["msg"].startswith(f"answers wrongly: {wrong}")
    assert found["worker"] is None
    assert wrong.startswith(found["wrong"])


@pytest.mark.parametrize("raw", ["text", [1], 5, True, float("nan")])
@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_is_no_object(kind, raw):
    assert getattr(_entry, kind)(raw, NOW)["wrong"] == "the answer"


def mandatory(schemas, schema, way=()):
    """Yield the way to each field that the OpenAPI file demands of a status document."""
    for part in [schema, *schema.get("oneOf", [])]:
        found = schemas[part["$ref"].rpartition("/")[2]] if "$ref" in part else part
        for key in found.get("required", []):
            yield (*way, key)
            inner = found.get("properties", {}).get(key) or {}
            yield from mandatory(schemas, inner, (*way, key))


def test_all_that_the_api_demands_must_be_there():
    schemas = yaml.safe_load(OPENAPI.read_text())["components"]["schemas"]
    ways = sorted(set(mandatory(schemas, schemas["Status"])))
    assert len(ways) > 60
    good = {**kit.census(drain=dict(kit.DRAIN), failure={"code": "port_taken", "message": "no"})}
    assert "wrong" not in _entry.census(good, NOW)
    for way in ways:
        assert _entry.census(changed(good, ("worker", *way), GONE), NOW)["wrong"] == ".".join(way)


def test_only_the_optional_may_be_missing_or_null():
    for way in (("worker", "drain"), ("worker", "tasks"), ("worker", "totals"), ("worker", "provider"),
                ("worker", "journal"), ("worker", "solve_times"), ("worker", "tasks", "oldest_age_s")):
        assert "wrong" not in census_with(way, None)
    assert "wrong" not in _entry.census(changed(kit.census(drain=dict(kit.DRAIN)),
                                                ("worker", "drain", "open_at_start"), GONE), NOW)


def test_a_damaged_head_of_the_history_is_left_out():
    found = census_with(("history",), [{}, kit.head(), "x", {**kit.head(), "started_at": 5}, None])
    assert found["history"] == [kit.head()]
    assert len(census_with(("history",), [kit.head()] * 500)["history"]) == 50


# --- text for people ---


@pytest.mark.parametrize(("value", "shown"), [
    ("plain Grüße 漢字", "plain Grüße 漢字"),
    ("a\r\nok: w3 updated", "a  ok: w3 updated"),
    ("\x1b[31mred\x1b[0m", "\ufffdred\ufffd"),
    ("\x1b]0;title\x07after", "\ufffdafter"),
    ("\x9b2Jx", "\ufffdx"),
    ("end\x1b", "end\ufffd"),
    ("a\u202egnp.exe", "a\ufffdgnp.exe"),
    ("a\u2028b\u200bc", "a b\ufffdc"),
    ("\x00\x01\x02", "\ufffd"),
    ("\ud800x", "\ufffdx"),
    ("tab\there", "tab here"),
    ("x" * 50, "x" * 19 + "…"),
    ("\x1b" * 500, "\ufffd…"),
])
def test_words(value, shown):
    assert _entry.words(value, 20) == shown


@given(st.text(st.characters(codec=None), max_size=200), st.integers(2, 50))
def test_words_are_one_short_line(value, limit):
    shown = _entry.words(value, limit)
    assert shown.isprintable()
    assert len(shown) <= limit
    assert _entry.words(shown, limit) == shown


def test_text_is_mended_and_never_a_reason_to_refuse():
    found = census_with(("worker", "instance", "version"), "1.3.0\n\x1b[2Jw3 updated" + "x" * 500)
    assert found["worker"]["instance"]["version"].startswith("1.3.0 \ufffdw3 updatedx")
    assert len(found["worker"]["instance"]["version"]) == 200


# --- the other answers ---


def test_a_wrong_status_document_loses_no_lock():
    found = _entry.lock_answer(changed(kit.lock_answer(), ("census", "worker", "journal"), "x"), NOW)
    assert found["ours"] is True
    assert found["census"]["wrong"] == "journal"


def test_a_wrong_record_proves_no_lock():
    found = _entry.lock_answer(changed(kit.lock_answer(), ("record", "lock", "ttl_s"), "x"), NOW)
    assert (found["wrong"], found["ours"], found["record"], found["holder"]) == ("record.lock.ttl_s", False, None, None)


@pytest.mark.parametrize(("step", "way", "value", "cause"), [
    ("verify", ("probe", "elapsed_s"), "fast", "release"),
    ("verify", ("failure", "details", "probe", "elapsed_s"), "fast", "release"),
    ("verify", ("worker", "journal"), "x", "release"),
    ("verify", ("elapsed_s",), "x", "host"),
    ("verify", ("failure", "details", "attempts"), 10**9, "host"),
    ("drain", ("worker", "journal"), "x", "host"),
    ("switch", ("switched",), "no", "host"),
])
def test_a_step_that_answers_wrongly_has_failed_and_the_others_stand(step, way, value, cause):
    raw = kit.steps()
    found = _entry.step_results(changed(raw, ("done_steps", step, *way), value), NOW)
    own = found["done_steps"].pop(step)
    assert (own["failed"], own["done"], own["failure"]["code"]) == (True, False, "answers_wrongly")
    assert own["failure"]["cause"] == cause
    assert "unreachable" not in own
    good = _entry.step_results(raw, NOW)
    del good["done_steps"][step]
    assert found == good


def test_steps_that_nobody_knows_are_left_out():
    assert set(_entry.step_results({"done_steps": {"drain": {}, "reboot": {}}}, NOW)["done_steps"]) == {"drain"}
    assert _entry.step_results({"done_steps": [1]}, NOW)["wrong"] == "done_steps"
    gone = {"unreachable": True, "msg": "gone", "done_steps": {"drain": {}}}
    assert _entry.step_results(gone, NOW)["done_steps"] == {}


def test_a_log_is_cut_to_its_end():
    def log(lines):
        raw = changed(kit.steps(), ("done_steps", "verify", "failure", "details", "log"), lines)
        return _entry.step_results(raw, NOW)["done_steps"]["verify"]["failure"]["details"]["log"]

    assert log([str(number) for number in range(100)]) == [str(number) for number in range(50, 100)]
    assert log(["x" * 5000]) == ["x" * 1999 + "…"]
    wide = log(["漢" * 1000] * 50)
    assert 0 < len("".join(wide).encode()) <= 16_000


def test_a_router_that_answers_wrongly_could_not_be_asked():
    found = _entry.router(changed(kit.router(), ("servers", "w2", "serving"), "yes"), NOW)
    assert (found["wrong"], "servers" in found) == ("servers[w2].serving", False)


def test_a_lock_keeps_what_proves_a_controller_dead():
    own = _process.here()
    raw = changed(kit.census(dict(kit.LOCK)), ("rollout", "lock", "controller"), own)
    assert _entry.census(raw, NOW)["rollout"]["lock"] == {**kit.LOCK, "controller": own}


def test_a_thousand_answers_are_no_work():
    roster = [f"w{number}" for number in range(1000)]
    raws = [changed(kit.census(dict(kit.LOCK)), ("rollout", "roster"), roster) for _one in range(100)]
    began = time.process_time()
    for raw in raws:
        assert "wrong" not in _entry.census(raw, NOW)
    # 0.04 s; the limit is for slow machines.
    assert time.process_time() - began < 0.5


def test_what_comes_out_is_json():
    for kind, good in KINDS.items():
        json.dumps(getattr(_entry, kind)(good(), NOW), allow_nan=False).encode("utf-8")


def test_a_key_that_cannot_be_printed_is_shown_in_words():
    check = _shape.mapping(_shape.flag, 3)
    with pytest.raises(_shape.Misfit) as caught:
        check({"a\x1b[2J": True}, NOW)
    assert caught.value.where == "[a\ufffd]"
