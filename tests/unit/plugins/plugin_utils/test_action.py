# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller-side actions share."""

from __future__ import annotations

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._action import plain, reached


@pytest.mark.parametrize("result", [
    {"failed": True, "timedout": {"frame": "x", "period": 5}, "msg": "timed out", "changed": False},
    # What ansible-core 2.18 registers when the line is lost while it removes its temporary files.
    {"failed": True, "msg": "the line is cut", "changed": False},
    {"failed": True, "msg": "the line is cut", "changed": False, "attempts": 2, "exception": "(traceback)"},
    # A module that was killed, or whose files were removed, because its host shuts down.
    {"failed": True, "msg": "MODULE FAILURE", "module_stdout": "", "module_stderr": "Traceback", "rc": 1},
])
def test_a_result_without_a_word_of_the_host_is_unreachable(result):
    assert reached(plain(result))["unreachable"] is True


@pytest.mark.parametrize("result", [
    {"failed": True, "msg": "no", "changed": False, "failure": {"code": "hung"}},
    {"failed": False, "msg": "well", "changed": False},
    {"msg": "well"},
    {"unreachable": False, "msg": "well"},
])
def test_a_result_with_a_word_stays_as_it_is(result):
    assert reached(plain(result)) == result


def test_plain_data_has_no_types_of_its_own_and_decides_nothing():
    class Text(str):
        pass

    made = plain({Text("a"): (Text("b"), {"c": [1, None, 1.5, True]})})
    assert made == {"a": ["b", {"c": [1, None, 1.5, True]}]}
    assert type(made["a"][0]) is type(next(iter(made))) is str
    wordless = {"failed": True, "msg": "the line is cut"}
    assert plain({"drain": wordless}) == {"drain": wordless}
