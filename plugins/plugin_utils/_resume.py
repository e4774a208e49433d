# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""Which drains resume.yml may end, and what it says of the others. Pure functions of plain data."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from ansible_collections.solver.fleet.plugins.module_utils._errors import one_line
from ansible_collections.solver.fleet.plugins.module_utils._record import in_words
from ansible_collections.solver.fleet.plugins.plugin_utils._converge import (
    accepts,
    foreign_drain,
    rollout_of,
    serving,
)
from ansible_collections.solver.fleet.plugins.plugin_utils._names import in_order
from ansible_collections.solver.fleet.plugins.plugin_utils._plan_locks import holder_of

Json = Mapping[str, Any]

# In whose name remove.yml drains, with the id of its run. No process that it drained is to come back drained.
REMOVAL = re.compile(r"remove-[0-9a-f]{16}\Z")
# One that is at work renews its drain every five seconds, and a module's start.
RENEWS_WITHIN_S = 20.0
VERIFY_FIRST = "recover.yml verifies it, and puts it back into service or reverts it"


class Resume(NamedTuple):
    """What becomes of a worker: ``serves``, ``resume``, ``left`` or ``refused``."""

    action: str
    reason: str = ""
    owner: str = ""  # whose drain it is to end: one that somebody else has begun meanwhile stays


def resume(census: Json, settings: Json, dead_runs: Collection[str]) -> Resume:
    """Decide for one worker. DEAD_RUNS are the runs that are proven dead."""
    worker = census.get("worker") or {}
    if not (census.get("unreachable") or census.get("failed")) and serving(worker) and accepts(worker):
        return Resume("serves")
    drain = worker.get("drain") or {}
    why = _away(census, worker) or _at_work(census, dead_runs) or _kept(census, drain, settings)
    return Resume("refused", why) if why else Resume("resume", f"drained by '{drain['owner']}'", str(drain["owner"]))


def _at_work(census: Json, dead_runs: Collection[str]) -> str:
    holder = holder_of(census)
    if not holder or holder.get("run_id") in dead_runs:
        return ""
    return (f"{in_words(holder)}; wait for it, or end it with pause.yml. If its controller is dead, recover.yml with "
            "solver_lock_steal: true and a solver_reason ends it")


def _kept(census: Json, drain: Json, settings: Json) -> str:
    """Say why the drain of a worker must stay, or that there is none."""
    worker = census.get("worker") or {}
    if not drain:
        how = worker.get("state") if accepts(worker) else f"{worker.get('state')} and takes no tasks"
        return f"it is {how}, and no drain keeps it so; look into its log"
    owner = str(drain.get("owner"))
    if unverified(census):
        now = worker.get("instance") or {}
        return (f"it was drained by '{owner}' and runs {now.get('release') or now.get('version')} now, which nobody "
                f"has verified; {VERIFY_FIRST}")
    if not foreign_drain(census) or REMOVAL.match(owner) or settings["solver_resume_foreign"]:
        return ""
    return (f"it is drained by '{owner}' ({one_line(drain.get('reason')) or 'no reason given'}) until "
            f"{drain.get('lease_expires_at')}, and that is no rollout of ours; ask them, or set "
            "solver_resume_foreign: true with a solver_reason")


def _away(census: Json, worker: Json) -> str:
    """Say why no drain can be ended: nobody is there, or nobody that could serve."""
    if census.get("unreachable") or census.get("failed"):
        return f"it cannot be asked: {one_line(census.get('msg')) or 'no answer'}"
    if not worker:
        return (f"no process answers: {one_line(census.get('message')) or census.get('finding')}; recover.yml starts "
                "what a rollout has left, provision.yml what is stopped")
    if worker.get("state") == "failed":
        failure = worker.get("failure") or {}
        return f"it has failed: {one_line(failure.get('message') or failure.get('code')) or 'no cause given'}"
    return ""


def unverified(census: Json) -> bool:
    """Whether something else runs than what was drained, and no rollout has seen it serve."""
    worker = census.get("worker") or {}
    instance, drain = worker.get("instance") or {}, worker.get("drain") or {}
    if drain.get("version") and drain["version"] != instance.get("version"):
        return True
    own = rollout_of(census)
    moved = (own.get("from") or {}).get("release") not in (None, instance.get("release"))
    return moved and own.get("id") == drain.get("owner") and own.get("outcome") not in ("updated", "already")


def decisions(fleet: Mapping[str, Json], settings: Json, dead_runs: Iterable[str]) -> dict[str, Resume]:
    """Decide for each worker; only those that C(solver_only) names, where it names any."""
    only, dead = settings["solver_only"], set(dead_runs)
    return {name: Resume("left") if only and name not in only else resume(fleet[name], settings, dead)
            for name in in_order(fleet)}


def removals(decided: Mapping[str, Resume]) -> list[str]:
    """Return those whose drain is a removal's: one that died, or one that is at work."""
    return [name for name, own in decided.items() if own.action == "resume" and REMOVAL.match(own.owner)]


def at_work(before: Json, after: Json) -> bool:
    """Whether a removal went on between two looks at a worker: it renewed the drain, or the worker is going."""
    if after.get("unreachable"):
        return False  # that says nothing
    held, still = _drain(before), _drain(after)
    if still is None or held is None or still["owner"] != held["owner"]:
        return True
    # The worker computes the date anew each time, by two clocks.
    return abs(_seconds(still) - _seconds(held)) >= 1.0


def _seconds(drain: Json) -> float:
    return datetime.fromisoformat(str(drain["lease_expires_at"]).replace("Z", "+00:00")).timestamp()


def _drain(census: Json) -> Json | None:
    worker = census.get("worker") or {}
    return None if worker.get("state") == "stopping" else worker.get("drain")


def left_to_removal(decided: Mapping[str, Resume], going: Collection[str]) -> dict[str, Resume]:
    """Return the decisions without those of workers that remove.yml is taking away."""
    why = "remove.yml is taking it away now, as '{}'; wait for it, or end it and run this command again"
    return {name: Resume("refused", why.format(own.owner)) if name in going else own for name, own in decided.items()}


def outcomes(decided: Mapping[str, Resume], results: Mapping[str, Json]) -> dict[str, tuple[bool, str]]:
    """Return of each worker that was meant whether it serves, and a line about it, by the RESULTS of worker_drain."""
    out = {}
    for name, own in decided.items():
        result = results.get(name) or {}
        if own.action == "serves":
            out[name] = (True, f"{name}: serves")
        elif own.action == "refused":
            out[name] = (False, f"{name}: {own.reason}")
        elif result.get("done"):
            out[name] = (True, f"{name}: serves again, it was {own.reason}")
        elif own.action == "resume":
            why = one_line(result.get("msg")) or "no answer"
            out[name] = (False, f"{name}: {why}; run the same command again")
    return out
