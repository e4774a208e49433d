# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""The strategies: each makes the stages of a plan, says what it cannot do, and what it will do in words.

A new one is a C(Strategy) in C(STRATEGIES), a choice of solver_strategy, and a playbook of two lines. Pure functions of
plain data.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.solver.fleet.plugins.plugin_utils._converge import rollout_of
from ansible_collections.solver.fleet.plugins.plugin_utils._gate import TOGETHER, moved
from ansible_collections.solver.fleet.plugins.plugin_utils._names import natural
from ansible_collections.solver.fleet.plugins.plugin_utils._plan_lines import minutes
from ansible_collections.solver.fleet.plugins.plugin_utils._roster import Fleet
from ansible_collections.solver.fleet.plugins.plugin_utils._settings_read import stage_sizes
from ansible_collections.solver.fleet.plugins.plugin_utils._types import (
    BakePlan,
    Baseline,
    Judgement,
    PlannedWorker,
    Stage,
)


class Going(NamedTuple):
    """What a strategy plans with: TODO in order, and of each worker its stratum and its tasks of some seconds."""

    rollout_id: str
    todo: Sequence[str]
    workers: Mapping[str, PlannedWorker]
    fleet: Fleet
    settings: Mapping[str, Any]
    tolerated: int
    strata: Mapping[str, str]
    measured: Mapping[str, tuple[int, float]]
    forks: int


class Shape(NamedTuple):
    """What a strategy makes of it; C(window) only where it is another than the operator's: the floor follows.

    C(joins) are at the target already, and have a turn all the same.
    """

    stages: list[Stage]
    refused: Sequence[str] = ()
    bake: BakePlan | None = None
    window: int | None = None
    surge: int | None = None
    joins: Sequence[str] = ()


Strategy = Callable[[Going], Shape]


# What a rollout with one of these has begun is still to be decided.
OPEN = ("awaiting_promotion", "inconclusive")


def strategy_of(fleet: Fleet, settings: Mapping[str, Any], kind: str, rollout_id: str) -> tuple[str, list[str]]:
    """Return the strategy of the rollout, and why not where another one was asked for.

    A rollout that is not over goes on as it began: what its stages have proven so far is of that strategy. Which one
    that was most of its records say. Where it left nothing, as one that aborted and went back, each may be asked for.
    A rollback rolls, unless it is asked to take all together.
    """
    asked = str(settings["solver_strategy"])
    if kind == "recover" or (kind == "rollback" and asked != TOGETHER):
        asked = "rolling"
    if kind == "recover":
        return asked, []
    known = [facts.get("census") or {} for facts in fleet.values()]
    own = [rollout_of(census) for census in known if rollout_of(census).get("id") == rollout_id]
    votes = Counter(str(each.get("strategy") or "rolling") for each in own if each.get("verdict") != "completed")
    left = (any(str(each.get("verdict")) in OPEN for each in own)
            or any(_left_by(rollout_id, census) for census in known))
    begun = votes.most_common(1)[0][0] if votes and left else asked
    if begun == asked:
        return asked, []
    return asked, [f"rollout {rollout_id} began with solver_strategy {begun} and is not over, but {asked} is asked "
                   f"for; go on with solver_strategy: {begun}, or end it with "
                   f"{'rollback.yml' if kind == 'update' else 'recover.yml'}"]


def stands_by(census: Mapping[str, Any], release: Any) -> bool:
    """Whether a standby of RELEASE is there already, as the old one is after a blue-green update."""
    found = (census.get("standby") or {}).get("worker") or {}
    return bool(release) and found.get("state") == "standby" and found["instance"]["release"] == release


def _left_by(rollout_id: str, census: Mapping[str, Any]) -> bool:
    """Whether a rollout left its drain or its release at a worker, there or beside it; or nobody knows."""
    if not census.get("worker") and not census.get("releases"):
        return True
    worker, own = census.get("worker") or {}, rollout_of(census)
    if (worker.get("drain") or {}).get("owner") == rollout_id:
        return True
    release = (own.get("to") or {}).get("release")
    if own.get("id") != rollout_id or not release:
        return False
    linked = ((census.get("releases") or {}).get("current") or {}).get("id")
    return release in (linked, (worker.get("instance") or {}).get("release")) or stands_by(census, release)


def shape(name: str, going: Going) -> Shape:
    """Return what the strategy makes of the rollout; a release that was judged as a canary is so under each."""
    made = STRATEGIES[name](going)
    judged = _failed_before(going)
    return made._replace(refused=[*judged, *made.refused])


# --- rolling ---


def rolling(going: Going) -> Shape:
    """All in one stage, or in the stages that the operator names."""
    out = [name for name in going.todo if going.workers[name]["together"] and not going.workers[name]["serving"]]
    if len(out) > int(going.settings["window"]) and len(out) == len(going.todo):
        # A recovery of workers that went together: all of them are out already.
        stage: Stage = {"workers": out, "there": [], "window": len(out), "tolerated": going.tolerated,
                        "after": "nothing"}
        return Shape([stage], window=len(out))
    return Shape(stages_of(going.todo, going))


def stages_of(todo: Sequence[str], going: Going) -> list[Stage]:
    """Return the stages: the next one begins when everybody of the last has ended its turn."""
    window = int(going.settings["window"])
    sizes = stage_sizes(going.settings["solver_stages"], len(going.fleet), len(todo))
    if going.settings["solver_window"] == "waves":
        sizes = [min(window, size - start) for size in sizes for start in range(0, size, window)]
    stages, start = list[Stage](), 0
    for size in sizes:
        stages.append({"workers": list(todo[start:start + size]), "there": [], "window": window,
                       "tolerated": going.tolerated, "after": "nothing"})
        start += size
    return stages


# --- canary ---

# From so many workers on one canary says little.
MANY, SHARE = 20, 0.05


def canary(going: Going) -> Shape:
    """A few first, none of which may fail; then their tasks are compared with those of the others."""
    names = canaries_of(going)
    first = [name for name in names if name in going.todo]
    rest = [name for name in going.todo if name not in names]
    if not going.todo:
        return Shape([])
    bake = _bake(going, names, rest, bool(first))
    stage: Stage = {"workers": first, "there": [name for name in names if name not in first],
                    "window": int(going.settings["window"]), "tolerated": 0, "after": "bake"}
    return Shape([stage, *stages_of(rest, going)], _bake_refusals(bake, going.settings), bake)


def canaries_of(going: Going) -> list[str]:
    """Return the canaries: one of each stratum, else one, or 5 % from 20 workers on.

    By name, but first those that an earlier run of this rollout began with, and last those that do not serve.
    """
    names = sorted((name for name in going.workers if _may_be_canary(going.workers[name])),
                   key=lambda name: (*_rank(going.workers[name]), natural(name)))
    if any(going.strata.values()):
        first: dict[str, str] = {}
        for name in names:
            first.setdefault(going.strata.get(name, ""), name)
        return sorted(first.values(), key=natural)
    many = len(going.fleet)
    return sorted(names[:max(1, int(many * SHARE)) if many >= MANY else 1], key=natural)


def _may_be_canary(worker: PlannedWorker) -> bool:
    return worker["action"] == "update" or (worker["action"] == "already" and worker["begins"])


def _rank(worker: PlannedWorker) -> tuple[bool, bool]:
    begun = worker["action"] == "already" or worker["steal"] or worker["on_expire"] is not None
    return not begun, not worker["serving"]


def _bake(going: Going, names: Sequence[str], rest: Sequence[str], fresh: bool) -> BakePlan:
    """FRESH says that a canary has a turn yet: its books from before that say nothing."""
    settings = going.settings
    control = [name for name in rest if going.workers[name]["serving"]]
    judged = judgement_of(going, same_rollout=True)
    if fresh or (judged and judged["word"] == "inconclusive") or settings["solver_force"]:
        judged = None
        known: dict[str, Baseline] = {}
    else:
        known = _baselines(going, names, control)
    needed = int(settings["solver_canary_min_tasks"])
    traffic = traffic_of(going.measured, (names, control), needed)
    return {"canaries": list(names), "control": control, "min_tasks": needed,
            "bake_s": float(settings["solver_canary_bake"]), "max_s": float(settings["solver_canary_bake_max"]),
            "needs_s": traffic.needs_s, "least_s": traffic.least_s, "traffic": traffic.words, "judged": judged,
            "baselines": known}


class Traffic(NamedTuple):
    """How long an arm needs for its tasks: about, and at least."""

    needs_s: float | None
    least_s: float | None
    words: str


def traffic_of(
    measured: Mapping[str, tuple[int, float]], arms: Sequence[Sequence[str]], needed: int,
) -> Traffic:
    """Return what the slower one of the ARMS needs, by the tasks that ended while its workers were MEASURED.

    That was seconds, so the number may be small by chance: at least twice its own uncertainty is granted.
    """
    unknown = Traffic(None, None, "how many tasks end there is not known")
    found = [_traffic(measured, names, needed) for names in arms]
    if None in found:
        return unknown
    return max((each for each in found if each), key=lambda each: each.least_s or 0.0, default=unknown)


def _traffic(measured: Mapping[str, tuple[int, float]], names: Sequence[str], needed: int) -> Traffic | None:
    seen = [measured[name] for name in names if name in measured and measured[name][1] >= 1.0]
    if not seen:
        return None
    tasks, seconds = sum(count for count, _time in seen), sum(time for _count, time in seen) / len(seen)
    least = needed * seconds / (tasks + 2 * math.sqrt(tasks) + 3)
    who = f"{len(seen)} worker{'s' if len(seen) > 1 else ''}" if len(seen) > 3 else ", ".join(names)
    words = f"{tasks} task{'s' if tasks != 1 else ''} ended on {who} in {seconds:.0f} s"
    return Traffic(needed * seconds / tasks if tasks else None, least, words)


def _baselines(going: Going, names: Sequence[str], control: Sequence[str]) -> dict[str, Baseline]:
    """Return what the records of this rollout say of a comparison that was under way."""
    found: dict[str, Baseline] = {}
    for arm, members in (("canary", names), ("control", control)):
        for name in members:
            own = _own_record(going, name)
            known = own.get("baseline")
            if known and own.get("id") == going.rollout_id and known["arm"] == arm:
                found[name] = known
    return found if any(own["arm"] == "canary" for own in found.values()) else {}


def _own_record(going: Going, name: str) -> Mapping[str, Any]:
    """Return the rollout in a worker's record, where it was to the very release that it is to have now."""
    own = rollout_of(going.fleet[name].get("census") or {})
    release = going.workers[name]["release"]
    return own if release and (own.get("to") or {}).get("release") == release else {}


def judgement_of(going: Going, same_rollout: bool) -> Judgement | None:
    """Return what the release was judged as, if more than half of the records that know it as one say the same.

    One record that says so is one worker's word. A judgement of which only some were told was none: nothing has
    followed from it, and it is made again from the same books.
    """
    own = [record for record in (_own_record(going, name) for name in going.workers) if record]
    own = [record for record in own if record.get("id") == going.rollout_id or not same_rollout]
    said = [record["judgement"] for record in own if record.get("judgement")]
    for word in ("fail", "promote", "inconclusive"):
        alike = [each for each in said if each["word"] == word]
        if 2 * len(alike) > len(own):
            first: Judgement = alike[0]
            return first
    return None


def _failed_before(going: Going) -> list[str]:
    """Say that the release has failed as a canary, where nothing of that is left to be undone."""
    judged = judgement_of(going, same_rollout=False)
    if not going.todo or going.settings["solver_force"] or not judged or judged["word"] != "fail":
        return []
    left = [name for name, worker in going.workers.items()
            if (worker["action"] == "already" and worker["begins"])
            or (worker["action"] == "update" and (worker["steal"] or not worker["serving"]))]
    return [] if left else [f"this release was judged as a canary and failed: {judged['reason']}; mend the release, or "
                            "set solver_force: true to try it again"]


def _bake_refusals(bake: BakePlan, settings: Mapping[str, Any]) -> list[str]:
    if settings["solver_promote"] == "now" or (bake["judged"] or {}).get("word") in ("promote", "fail"):
        return []
    if not bake["control"]:
        return [f"beside the canaries ({', '.join(bake['canaries']) or 'none'}) no worker serves the old release that "
                "they could be compared with; use solver_strategy: rolling, fewer strata (solver_strata), or "
                "solver_promote: now"]
    least = bake["least_s"]
    if least is not None and least > bake["max_s"]:
        return [f"the canaries cannot be judged in time: {bake['traffic']}, so {bake['min_tasks']} tasks "
                f"(solver_canary_min_tasks) take at least {minutes(least)}, longer than solver_canary_bake_max "
                f"({minutes(bake['max_s'])}); raise that, take more canaries (solver_strata), or use "
                "solver_strategy: rolling"]
    return []


# --- recreate ---


def recreate(going: Going) -> Shape:
    """All at once: drained, switched and verified, and in service again together; none may fail."""
    if not going.todo:
        return Shape([])
    joins = [name for name, worker in going.workers.items()
             if worker["action"] == "already" and worker["begins"] and moved(worker)]
    names = sorted([*joins, *going.todo], key=lambda name: _pilot_rank(going.workers[name]))
    stage: Stage = {"workers": names, "there": [], "window": len(going.fleet), "tolerated": 0, "after": "nothing"}
    return Shape([stage], _recreate_refusals(going, names), joins=joins)


def _pilot_rank(worker: PlannedWorker) -> tuple[bool, bool]:
    """The pilot is one that an earlier run has switched, else one that serves: it must not fail for its own sake."""
    return worker["from_release"] != worker["release"], not worker["serving"]


def _recreate_refusals(going: Going, names: Sequence[str]) -> list[str]:
    out = []
    if not going.settings["solver_accept_downtime"]:
        out.append("solver_strategy: recreate takes all workers out of service at once, so for a while no task is "
                   "taken; set solver_accept_downtime: true, or use solver_strategy: rolling")
    out += _too_few_forks(going, len(names), "recreate")
    left = [f"{name} ({worker['action']}: {worker['reason']})"
            for name, worker in going.workers.items() if _stays(worker)]
    if left:
        out.append(f"{', '.join(left)}: with solver_strategy: recreate no two versions may serve at once, and what has "
                   "no turn may keep another one; bring all of them in, or use solver_strategy: rolling")
    return out + _parted(going, names)


def _too_few_forks(going: Going, many: int, strategy: str) -> list[str]:
    """Refuse what would wait for ever: each turn that waits for the others is a process of the controller."""
    if going.forks >= many:
        return []
    return [f"forks is {going.forks}, but with solver_strategy: {strategy} the turns of {many} workers wait for each "
            f"other; use --forks {many}"]


def _parted(going: Going, names: Sequence[str]) -> list[str]:
    """Refuse where all that serve run one version, and to go back would bring another one back as well."""
    serve = {worker["from"] for worker in going.workers.values() if worker["serving"]}
    back = {going.workers[name]["back_version"] for name in names}
    if len(back) < 2 or len(serve) > 1:
        return []
    ways = ", ".join(f"{name} to {going.workers[name]['back_version']}" for name in names)
    return [f"if a worker fails, they would go back to several versions ({ways}), because an earlier rollout was "
            "interrupted; run recover.yml first"]


def _stays(worker: PlannedWorker) -> bool:
    """Whether a worker that has no turn may serve another release."""
    silent = worker["action"] in ("unreachable", "failed")
    out = worker["action"] == "excluded" and worker["from_release"] != worker["release"]
    return silent or out


# --- blue-green ---


def blue_green(going: Going) -> Shape:
    """A standby of the new release beside each worker; when all are verified, they take over."""
    if not going.todo:
        return Shape([])
    many = len(going.todo)
    stage: Stage = {"workers": list(going.todo), "there": [], "window": int(going.settings["flip"]),
                    "tolerated": going.tolerated, "after": "nothing", "barrier": True}
    return Shape([stage], _too_few_forks(going, many, "blue_green"), surge=many)


STRATEGIES: dict[str, Strategy] = {
    "rolling": rolling, "canary": canary, TOGETHER: recreate, "blue_green": blue_green}
