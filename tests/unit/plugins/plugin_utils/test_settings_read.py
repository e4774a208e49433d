# SPDX-License-Identifier: GPL-3.0-or-later
"""Each kind of setting is read as its type, or refused by a message that names the setting and the remedy."""

from __future__ import annotations

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils._settings import (
    AWX,
    LOCAL_FLEET,
    ROUTER,
    SETTINGS,
    setting_of,
)
from ansible_collections.solver.fleet.plugins.plugin_utils._settings_read import (
    SettingError,
    read,
    stage_sizes,
    window_size,
)
from hypothesis import given
from hypothesis import strategies as st

ALL = {**SETTINGS, **ROUTER, **LOCAL_FLEET, **AWX}
NUMBERS = ("count", "seconds", "percent", "window", "stages")
LINES = ("text", "path", "choice", "window", "names", "stages")
# A value of another type, by the kind that must refuse it.
WRONG = {"text": {}, "path": [], "choice": True, "count": "1.5", "seconds": "soon", "percent": 101, "window": "51 %%",
         "stages": {}, "flag": "maybe", "names": 5, "mapping": "x"}


def of_kind(*kinds: str) -> list[str]:
    return sorted(name for name, setting in ALL.items() if setting.kind in kinds)


def refusal(name: str, raw: object) -> str:
    with pytest.raises(SettingError) as caught:
        read(name, raw)
    assert name in str(caught.value)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_wrong_type_is_refused(name):
    refusal(name, WRONG[setting_of(name).kind])


@pytest.mark.parametrize("name", sorted(ALL))
def test_null_and_a_blank_field_of_a_survey_are_the_default(name):
    setting = setting_of(name)
    for blank in (None, "", "  "):
        value = read(name, blank)
        assert value == ("" if setting.blank and blank is not None else setting.default)
        if isinstance(value, (list, dict)):
            assert value is not setting.default, "a copy, or one run would change the next one's default"


def test_only_the_routers_package_may_be_empty_text():
    """Where an empty text means something else than the default, docs/settings.md must say what."""
    assert [name for name, setting in ALL.items() if setting.blank] == ["solver_router_package"]


@pytest.mark.parametrize("raw", ["nan", "-nan", "inf", "-inf", "Infinity", "1e400", float("nan"), float("inf"),
                                 float("-inf"), 10**400, -10**400])
@pytest.mark.parametrize("name", of_kind(*NUMBERS))
def test_a_number_that_is_not_finite_is_refused(name, raw):
    assert refusal(name, raw).endswith("it must be a finite number")


@pytest.mark.parametrize("raw", ["nan%", "inf%", "-inf%", "1e400%"])
@pytest.mark.parametrize("name", of_kind("percent", "window", "stages"))
def test_a_percentage_that_is_not_finite_is_refused(name, raw):
    assert refusal(name, raw).endswith("it must be a finite number")


@pytest.mark.parametrize("raw", ["a\nb", "a\rb", "a\x1b[2Kb", "a\x00b", "a\x85b", "a\u2028b", "a\u202eb", "a\ud800b"])
@pytest.mark.parametrize("name", of_kind(*LINES))
def test_what_would_forge_a_line_is_refused(name, raw):
    assert "printable characters" in refusal(name, raw)


def test_a_text_loses_what_stands_around_it():
    assert read("solver_reason", " night shift\n") == "night shift"


@pytest.mark.parametrize("name", sorted(name for name, setting in ALL.items() if setting.maximum is not None))
def test_the_maximum_is_the_last_that_is_accepted(name):
    setting = setting_of(name)
    most = int(setting.maximum)
    text = setting.kind in ("text", "path")
    assert read(name, "x" * most if text else most) == ("x" * most if text else most)
    assert f"at most {most}" in refusal(name, "x" * (most + 1) if text else most + 1)


@pytest.mark.parametrize("name", of_kind("seconds"))
def test_every_time_has_an_end(name):
    assert setting_of(name).maximum is not None


@pytest.mark.parametrize(("name", "raw", "part"), [
    ("solver_drain_mode", "quick", "solver_drain_mode is 'quick'; choose one of: complete, handover"),
    ("solver_drain_timeout", "soon", "solver_drain_timeout is 'soon'; it must be a number"),
    ("solver_drain_timeout", True, "it must be a number"),
    ("solver_max_fail_percentage", 101, "between 0 and 100"),
    ("solver_max_fail_percentage", "-1%", "between 0 and 100"),
    ("solver_offline", "maybe", "must be true or false"),
    ("solver_probe_task", "x", "must be a mapping"),
    ("solver_keep_releases", 1, "at least 2"),
    ("solver_keep_releases", 2.5, "must be a whole number"),
    ("solver_probe_timeout", 1000, "at most 900"),
    ("solver_reason", "two\nlines", "one line of at most 500 printable characters"),
    ("solver_rollout_id", "x" * 201, "at most 200 printable"),
    ("solver_exclude", [{"w1": 1}], "must be text"),
    ("solver_exclude", [None], "must be text"),
    ("solver_max_soaking", -1, "at least 0"),
])
def test_bad_value(name, raw, part):
    assert part in refusal(name, raw)


def test_a_long_value_does_not_fill_the_message():
    assert len(refusal("solver_exclude", {"w" * 10_000: 1})) < 400


def test_what_may_hold_a_password_is_not_repeated():
    secret = [name for name, setting in ALL.items() if setting.secret]
    assert secret == ["solver_index_url"]
    assert "hunter2" not in refusal("solver_index_url", "https://ada:hunter2@index.example.net/\x1b")
    assert "hunter2" not in refusal("solver_index_url", ["https://ada:hunter2@index.example.net/"])


@pytest.mark.parametrize(("name", "raw", "value"), [
    ("solver_exclude", "w1, w2,,", ["w1", "w2"]),
    ("solver_exclude", ["w1", " w2 ", ""], ["w1", "w2"]),
    ("solver_exclude", [1], ["1"]),
    ("solver_max_fail_percentage", "20 %", 20.0),
    ("solver_max_unavailable", 2.0, "2"),
    ("solver_max_unavailable", "12.5 %", "12.5%"),
    ("solver_stages", [1, "10%", "100 %"], [1, "10%", "100%"]),
    ("solver_stages", "1, 10%, 100%", [1, "10%", "100%"]),
    ("solver_stages", "50%", ["50%"]),
    ("solver_stages", 3, [3]),
    ("solver_stages", [2.0], [2]),
    ("solver_max_soaking", "0", 0),
    ("solver_offline", "Yes", True),
])
def test_good_value(name, raw, value):
    assert read(name, raw) == value


@pytest.mark.parametrize(("raw", "part"), [
    ([0], "solver_stages is 0; at least one worker must be allowed"),
    ([1, "0%"], "at least one worker must be allowed"),
    ([-1], "at least one worker must be allowed"),
    (["-5%"], "at least one worker must be allowed"),
    (["100.1%"], "a stage has at most the whole fleet, use 100% or less"),
    ([1.5], "solver_stages is 1.5; it must be a whole number of workers, or a percentage such as 20%"),
    (["1.5"], "whole number of workers"),
    (["many"], "solver_stages is 'many'; it must be a number"),
    (["%"], "must be a number"),
    (["10%%"], "must be a number"),
    ([True], "must be text"),
    (True, "must be text"),
    ([None], "must be text"),
    ([[1]], "must be text"),
    ({"first": 1}, "must be a list, or counts and percentages with commas between"),
])
def test_bad_stages(raw, part):
    assert part in refusal("solver_stages", raw)


@pytest.mark.parametrize(("stages", "fleet", "todo", "sizes"), [
    ([], 4, 4, [4]),
    ([], 4, 0, []),
    ([1], 3, 3, [1, 1, 1]),
    ([1, "10%", "100%"], 100, 100, [1, 10, 89]),
    ([1, 2], 10, 6, [1, 2, 2, 1]),
    (["10%"], 25, 7, [2, 2, 2, 1]),
    (["1%"], 4, 2, [1, 1]),
    (["100%"], 4, 4, [4]),
    ([9], 4, 4, [4]),
    (["50%"], 10, 3, [3]),
    (["18.4%", "100%"], 375, 375, [69, 306]),
    (["0.1%", "100%"], 3000, 3000, [3, 2997]),
])
def test_sizes_of_stages(stages, fleet, todo, sizes):
    assert stage_sizes(stages, fleet, todo) == sizes


STAGE = st.one_of(st.integers(1, 600), st.integers(1, 1000).map(lambda tenth: f"{tenth / 10:g}%"))


@given(st.lists(STAGE, max_size=5), st.integers(1, 500), st.data())
def test_the_stages_hold_each_worker_once(stages, fleet, data):
    todo = data.draw(st.integers(0, fleet))
    sizes = stage_sizes(read("solver_stages", stages), fleet, todo)
    assert sum(sizes) == todo
    assert all(size >= 1 for size in sizes)
    assert len(set(sizes[max(0, len(stages) - 1):-1])) <= 1, "the last size repeats"


@pytest.mark.parametrize("stages", [[0], ["0%"], [-1]])
def test_sizes_that_would_never_end_are_refused(stages):
    with pytest.raises(SettingError, match="at least one worker"):
        stage_sizes(stages, 4, 4)


@pytest.mark.parametrize(("raw", "size", "window"), [
    (None, 1, 1), (None, 9, 1), (None, 10, 1), (None, 19, 1), (None, 20, 2), (None, 100, 10),
    ("1", 1, 1), ("2", 4, 2), ("50%", 4, 2), ("10%", 4, 1), ("25%", 10, 2), ("50%", 1, 1), ("18.4%", 375, 69),
])
def test_window(raw, size, window):
    assert window_size(raw, size) == window


@given(st.integers(1, 500), st.one_of(st.integers(1, 500).map(str), st.integers(1, 100).map(lambda n: f"{n}%")))
def test_window_is_never_above_half_but_for_one_worker(size, raw):
    try:
        window = window_size(raw, size)
    except SettingError:
        return
    assert window == 1 or window * 2 <= size
