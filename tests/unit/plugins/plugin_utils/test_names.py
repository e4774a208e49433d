# SPDX-License-Identifier: GPL-3.0-or-later
"""Names in the order in which people count."""

from __future__ import annotations

import random

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils._names import natural
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.text(st.sampled_from("ab-.019²٣"), max_size=6)


@pytest.mark.parametrize("ordered", [
    ["w1", "w2", "w9", "w10", "w11", "w100"],
    ["", "1", "2", "10", "a", "a1"],
    ["2w", "10w", "w", "w2", "w2a", "w2b", "w10"],
    ["eu-1-w2", "eu-1-w10", "eu-2-w1", "eu-10-w1", "us-1-w1"],
    ["w001", "w01", "w1", "w002", "w2"],
    ["w1.example.net", "w2.example.net", "w10.example.net"],
    ["w" + "9" * 5000, "w1" + "0" * 5000],
])
def test_numbers_count_as_numbers(ordered):
    for seed in range(5):
        mixed = random.Random(seed).sample(ordered, len(ordered))
        assert sorted(mixed, key=natural) == ordered


@given(NAMES, NAMES)
def test_every_two_names_can_be_compared_and_only_the_same_are_equal(one, other):
    first, second = natural(one), natural(other)
    assert (first < second) + (second < first) + (first == second) == 1
    assert (first == second) == (one == other)


@given(st.text("w-", min_size=1, max_size=3), st.integers(0, 10**30), st.integers(0, 10**30))
def test_the_number_behind_a_text_decides(text, one, other):
    assert (natural(f"{text}{one}") < natural(f"{text}{other}")) == (one < other)
