# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""The one view of the fleet that the gate decides by: what each worker said last, and when. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ansible_collections.solver.fleet.plugins.module_utils._errors import one_line
from ansible_collections.solver.fleet.plugins.plugin_utils._types import Said, Seen

View = Mapping[str, Seen]

# An answer is asked for again when it is so old, or so old where the worker keeps others waiting.
FRESH_S = 10.0
SOON_S = 2.0
# A look costs the controller the start of a process. So a large fleet is asked at a steady pace, one look a second,
# until one of it is a surprise: then everybody whose answer is from before it is asked at once.
CALM_S = 1.0
# A look also renews the run's lock, so nobody is left alone for longer than this.
CALM_MOST_S = 600.0
# A request stands in every record, and two of them prove it. So two looks that are not older than this have seen it;
# the next ones are taken when they are half as old.
NEWS_S = 6.0
PROOFS = 2
# The gate decides by answers that are at most so old. Where a look at everybody takes longer than a third of it,
# because the fleet is large or its controller small, the bound is three such looks.
OLDEST_S = 30.0
NEVER = -1e9
# A line may be slow: who is silent once is not lost yet.
LOST_AFTER = 2


def seen(answer: Mapping[str, Any], at: float, before: Seen | None = None) -> Seen:
    """Return the small part of a worker's answer (of rollout_lock, or a census) that the gate needs.

    What a worker says in its turn tells nothing of its record: what was seen there last is kept.
    """
    if answer.get("unreachable"):
        silent = int((before or {}).get("silent") or 0) + 1
        gone: Seen = {"at": at, "unreachable": True, "silent": silent, "msg": one_line(answer.get("msg"))}
        gone.update(_surprise(gone, before or {}, at))
        return gone
    looked = "record" in answer
    failure, known = answer.get("failure") or {}, (answer if looked else before) or {}
    request = (known.get("record") or {}).get("request")
    out: Seen = {"at": at, "looked": at if looked else known.get("looked", NEVER),
                           "census": {"worker": said((answer.get("census") or {}).get("worker"))}}
    if failure:
        out["failure"] = {"code": failure.get("code"), "message": one_line(failure.get("message"))}
    if request:
        out["record"] = {"request": {"what": one_line(request.get("what")), "by": one_line(request.get("by")),
                                     "reason": one_line(request.get("reason"))}}
    out.update(_surprise(out, before or {}, at))
    return out


def _surprise(now: Seen, before: Seen, at: float) -> Seen:
    """Return when a worker stopped taking tasks without a drain, or was lost; who drains does so for somebody."""
    worker = _worker_of(now)
    drains = worker is not None and worker["drain"]
    stopped = "census" in now and not drains and not _takes(worker) and _takes(_worker_of(before))
    if stopped or now.get("silent") == LOST_AFTER:
        return {"surprised": at}
    return {"surprised": before["surprised"]} if "surprised" in before else {}


def _worker_of(seen: Seen) -> Said | None:
    return seen["census"]["worker"] if "census" in seen else None


def _takes(worker: Said | None) -> bool:
    return worker is not None and worker["state"] == "running" and worker.get("accepting", True)


def said(status: Mapping[str, Any] | None) -> Said | None:
    """Return what of a status document says whether the worker takes tasks."""
    if not status:
        return None
    out: Said = {"state": status.get("state"), "drain": bool(status.get("drain"))}
    return {**out, "accepting": False} if status.get("accepting") is False else out


def lost(view: View) -> set[str]:
    """Return who did not answer, and not only once."""
    return {name for name, own in view.items() if own.get("silent", 0) >= LOST_AFTER}


def dead(view: View) -> set[str]:
    """Return whose host said last that no process answers there."""
    return {name for name, own in view.items() if "census" in own and own["census"]["worker"] is None}


def to_ask(view: View, names: Iterable[str], now: float, soon: Collection[str] = ()) -> list[str]:
    """Return whom to ask again, the oldest answer first; sooner those who keep the gate waiting."""
    ages = {name: age_of(view, name, now) for name in names}
    last = max((own.get("surprised", NEVER) for own in view.values()), default=NEVER)
    fresh = max(FRESH_S, min(_round_s(len(ages)), now - last))
    old = [name for name, age in ages.items()
           if age > (SOON_S if name in soon or _silent_once(view, name) else fresh)]
    looks = _looks(view, names, now)
    if not old and _news_age(looks) > NEWS_S / 2:
        return sorted(looks, key=lambda name: -looks[name])[:PROOFS]
    return sorted(old, key=lambda name: -ages[name])


def _round_s(count: int) -> float:
    """Return in what time everybody is asked once, where nobody is a surprise."""
    return min(CALM_S * count, CALM_MOST_S)


def age_of(view: View, name: str, now: float) -> float:
    """Return how many seconds ago a worker said something; one that never did is very old."""
    return now - float((view.get(name) or {}).get("at", NEVER))


def _looks(view: View, names: Iterable[str], now: float) -> dict[str, float]:
    """Return how long ago somebody looked at the record of each worker that can be asked."""
    return {name: now - float(view[name].get("looked", NEVER)) for name in names
            if name in view and not view[name].get("unreachable")}


def _news_age(looks: Mapping[str, float]) -> float:
    """Return how old the looks are by which a request would be known; where nobody can be asked none will be."""
    return max(sorted(looks.values())[:PROOFS], default=0.0)


def _silent_once(view: View, name: str) -> bool:
    return 0 < int((view.get(name) or {}).get("silent") or 0) < LOST_AFTER


def is_stale(view: View, names: Collection[str], now: float, look_s: float, parallel: int) -> bool:
    """Whether the view is too old to decide by, may lack a request, or a worker has been silent just once."""
    bound = max(OLDEST_S, 3.0 * max(_round_s(len(names)), len(names) * look_s / max(1, parallel)))
    if _news_age(_looks(view, names, now)) > max(NEWS_S, 3.0 * look_s):
        return True
    return any(age_of(view, name, now) > bound or _silent_once(view, name) for name in names)
