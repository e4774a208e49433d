# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""Read one setting as its type, and the sizes that two of them mean for a fleet. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.solver.fleet.plugins.plugin_utils._settings import Setting, setting_of


class SettingError(ValueError):
    """A setting that cannot be used; the message names it and the remedy."""


def read(name: str, raw: Any) -> Any:
    """Return the value of setting NAME as its type, or raise SettingError.

    Nothing, or the empty text that a blank field of a survey sends, is the default.
    """
    setting = setting_of(name)
    if raw is None or (isinstance(raw, str) and not raw.strip() and not setting.blank):
        return setting.default.copy() if isinstance(setting.default, (list, dict)) else setting.default
    value = _READERS[setting.kind](name, raw)
    if setting.choices and value not in setting.choices:
        raise _wrong(name, raw, f"choose one of: {', '.join(setting.choices)}")
    if not isinstance(value, str):
        _check_range(name, setting, raw, value)
    return value


def _check_range(name: str, setting: Setting, raw: Any, value: Any) -> None:
    """Refuse what the modules and the worker would refuse only after the first drain."""
    if setting.minimum is not None and value < setting.minimum:
        raise _wrong(name, raw, f"it must be at least {setting.minimum:g}")
    if setting.maximum is not None and value > setting.maximum:
        raise _wrong(name, raw, f"it must be at most {setting.maximum:.15g}")


def _wrong(name: str, raw: Any, remedy: str) -> SettingError:
    if setting_of(name).secret:
        return SettingError(f"{name}: {remedy}")
    said = repr(raw)
    return SettingError(f"{name} is {said if len(said) <= 200 else said[:200] + '...'}; {remedy}")


def _text(name: str, raw: Any) -> str:
    """One line: nearly every text ends up in a message, and a line break or an escape sequence would forge another."""
    if raw is None or isinstance(raw, (Mapping, list, tuple, bool)):
        raise _wrong(name, raw, "it must be text")
    text = str(raw).strip()
    most = setting_of(name).maximum
    if not text.isprintable() or (most is not None and len(text) > most):
        limit = "" if most is None else f"at most {most:g} "
        raise _wrong(name, raw, f"it must be one line of {limit}printable characters")
    return text


def _number(name: str, raw: Any) -> float:
    return _float(name, raw, raw)


def _float(name: str, raw: Any, digits: Any) -> float:
    """Return DIGITS, which stand in RAW, as a number. No comparison holds for nan, and no deadline comes after inf."""
    if isinstance(raw, bool):
        raise _wrong(name, raw, "it must be a number")
    try:
        number = float(digits)
    except OverflowError:
        number = math.inf
    except (TypeError, ValueError):
        raise _wrong(name, raw, "it must be a number") from None
    if not math.isfinite(number):
        raise _wrong(name, raw, "it must be a finite number")
    return number


def _count(name: str, raw: Any) -> int:
    number = _number(name, raw)
    if not number.is_integer():
        raise _wrong(name, raw, "it must be a whole number")
    return int(number)


def _percent(name: str, raw: Any) -> float:
    number = _float(name, raw, raw.strip().removesuffix("%") if isinstance(raw, str) else raw)
    if not 0 <= number <= 100:
        raise _wrong(name, raw, "it must lie between 0 and 100 (percent of the fleet)")
    return number


def _flag(name: str, raw: Any) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    key = str(raw).strip().lower()
    if key not in words:
        raise _wrong(name, raw, "it must be true or false")
    return words[key]


def _names(name: str, raw: Any) -> list[str]:
    return [part for part in (_text(name, item) for item in _listed(name, raw, "names")) if part]


def _listed(name: str, raw: Any, what: str) -> Sequence[Any]:
    if isinstance(raw, str):
        return raw.split(",")
    if isinstance(raw, (list, tuple)):
        return raw
    raise _wrong(name, raw, f"it must be a list, or {what} with commas between")


def _mapping(name: str, raw: Any) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        raise _wrong(name, raw, "it must be a mapping")
    return dict(raw)


def _amount(name: str, raw: Any) -> int | str:
    """Return a number of workers, or a percentage of the fleet as text with its sign."""
    text = _text(name, raw)
    number = _float(name, raw, text.removesuffix("%"))
    if number <= 0:
        raise _wrong(name, raw, "at least one worker must be allowed, use 1 or more")
    if text.endswith("%"):
        return f"{number:.15g}%"
    if not number.is_integer():
        raise _wrong(name, raw, "it must be a whole number of workers, or a percentage such as 20%")
    return int(number)


def _window(name: str, raw: Any) -> str:
    return str(_amount(name, raw))


def _stages(name: str, raw: Any) -> list[int | str]:
    parts = [raw] if isinstance(raw, (int, float)) else _listed(name, raw, "counts and percentages")
    stages = [_amount(name, part) for part in parts if part != ""]
    for stage in stages:
        if isinstance(stage, str) and _percentage(stage) > 100:
            raise _wrong(name, stage, "a stage has at most the whole fleet, use 100% or less")
    return stages


_READERS: dict[str, Callable[[str, Any], Any]] = {
    "text": _text, "path": _text, "choice": _text, "count": _count, "seconds": _number, "percent": _percent,
    "window": _window, "stages": _stages, "flag": _flag, "names": _names, "mapping": _mapping,
}


def window_size(raw: str | None, fleet: int) -> int:
    """Return how many of FLEET workers may be out of service at once; above half is refused, one never is.

    Default 1 below 10 workers and 10 % from there: percentages say little of a small fleet.
    """
    name = "solver_max_unavailable"
    if raw is None:
        return 1 if fleet < 10 else max(1, fleet // 10)
    amount = _amount(name, raw)
    count = _workers(amount, fleet)
    if isinstance(amount, str) and _percentage(amount) > 50:
        raise SettingError(
            f"{name} is {raw}; more than half of the fleet may never be out of service, use 50% or less")
    if count > 1 and count * 2 > fleet:
        raise SettingError(
            f"{name} is {count} of {fleet} workers; more than half of the fleet may never be out "
            f"of service, use {max(1, fleet // 2)} or less")
    return count


def share_of(name: str, raw: str | None, fleet: int, otherwise: int) -> int:
    """Return how many of FLEET workers a setting allows, of which all may be allowed."""
    return otherwise if raw is None else min(fleet, _workers(_amount(name, raw), fleet))


def stage_sizes(stages: Sequence[str | int], fleet: int, todo: int) -> list[int]:
    """Return how many workers each stage has, when TODO of the FLEET have a turn.

    The last size repeats until every worker has had its turn, as that of Ansible's C(serial) does; without sizes all
    are one stage.
    """
    sizes: list[int] = []
    wanted = [_workers(amount, fleet) for amount in _stages("solver_stages", stages)] or [max(1, todo)]
    while todo > 0:
        size = min(todo, wanted[min(len(sizes), len(wanted) - 1)])
        sizes.append(size)
        todo -= size
    return sizes


def _workers(amount: int | str, fleet: int) -> int:
    if isinstance(amount, int):
        return amount
    # Rounded first: 18.4 % of 375 is 69, though the product of floats is a little less.
    return max(1, math.floor(round(fleet * _percentage(amount) / 100, 6)))


def _percentage(amount: str) -> float:
    return float(amount.removesuffix("%"))
