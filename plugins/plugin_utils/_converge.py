# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""What to do with one worker, from all that is known of it; never from its version alone. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ansible_collections.solver.fleet.plugins.module_utils._errors import one_line

Json = Mapping[str, Any]

# What every worker must offer; the control API names them as mandatory.
MANDATORY = ("drain.lease", "drain.persist", "probe")

MIXED = "the fleet runs mixed versions"

# Which settings of the playbooks stand behind the option that a module complained about.
_PACKAGE = "solver_version, solver_package, solver_wheelhouse"
_SETTINGS_OF_CODE = {
    "pip_failed": _PACKAGE, "command_failed": _PACKAGE, "no_version": _PACKAGE, "no_package": _PACKAGE,
    "bad_requirement": _PACKAGE, "not_a_wheel": _PACKAGE, "ambiguous_package": _PACKAGE, "version_mismatch": _PACKAGE,
    "download": _PACKAGE, "no_wheelhouse": "solver_wheelhouse", "wrong_digest": "solver_package_sha256, solver_package",
    "release_invalid": "solver_version", "no_python": "solver_worker_python", "timeout": "solver_deploy_timeout",
    "no_space": "solver_base_dir, solver_keep_releases", "unwritable": "solver_base_dir",
}
_SETTINGS_OF_KEY = {
    "provider.api_key_file": "solver_api_key_file", "provider.url": "solver_provider_url",
    "data.host": "solver_data_host", "data.port": "solver_data_port", "data.token_file": "solver_data_token_file",
    "control.socket": "solver_control_socket", "worker.name": "solver_worker_name",
}


class Decision(NamedTuple):
    """What becomes of a worker: ``update``, ``already``, ``excluded``, ``unreachable``, ``failed`` or ``refuse``."""

    action: str
    reason: str = ""
    steal: bool = False  # its drain was left by another rollout, which holds no lock any more
    probe: bool = True  # what never changed needs no solve to be trusted
    left_out: bool = False  # the operator named it so


def settings_behind(result: Json) -> str:
    """Return the solver_ settings that mend a module's failure, or nothing."""
    code = str((result.get("failure") or {}).get("code"))
    if code != "config_refused":
        return _SETTINGS_OF_CODE.get(code, "")
    message = str(result.get("msg"))
    named = [setting for key, setting in _SETTINGS_OF_KEY.items() if key in message]
    return ", ".join([*named, "solver_worker_config"])


def lacking(worker: Json | None, settings: Json, switch: str = "in_place") -> list[str]:
    """Return the features that this rollout needs of a worker and that it does not have; none of a silent one."""
    if not worker:
        return []
    needed = {*MANDATORY, *(["handover"] if settings.get("solver_drain_mode") == "handover" else []),
              *(["standby"] if switch == "standby" else [])}
    return sorted(needed - set((worker.get("api") or {}).get("features") or []))


def mixed_warning(versions: Iterable[Any]) -> list[str]:
    """Say that not all run the same."""
    known = sorted({str(version) for version in versions if version})
    return [f"{MIXED}: {', '.join(known)}"] if len(known) > 1 else []


def on_drain_timeout(worker: Json | None, settings: Json) -> str:
    """A worker that cannot hand over is put back into service instead."""
    wanted = str(settings.get("solver_on_drain_timeout", "handover"))
    features = ((worker or {}).get("api") or {}).get("features") or []
    return "return_to_service" if wanted == "handover" and worker and "handover" not in features else wanted


def serving(worker: Json | None) -> bool:
    """Whether a status document says that the worker is in service."""
    return bool(worker) and worker.get("state") == "running" and not worker.get("drain")  # type: ignore[union-attr]


# The way out where a process takes no drain.
BY_FORCE = "rollback.yml with solver_only and its name ends what hangs by force"


def takes_no_drain(census: Json) -> bool:
    """Whether a process is there that takes no drain: it hangs, or is starting or stopping."""
    return census.get("finding") == "hung" or (census.get("worker") or {}).get("state") in ("starting", "stopping")


def accepts(worker: Json | None) -> bool:
    """Whether a worker in service can take tasks: one whose disk is full cannot, and no update mends that."""
    return bool(worker) and worker.get("accepting") is not False  # type: ignore[union-attr]


def rollout_of(census: Json) -> dict[str, Any]:
    """Return what the worker's record says of its last rollout, or nothing."""
    return dict((census.get("rollout") or {}).get("rollout") or {})


def known_rollouts(census: Json) -> set[str]:
    """Return the ids of all rollouts that the worker's record names: their drains may be taken over."""
    record = census.get("rollout") or {}
    ids = {rollout_of(census).get("id"), (record.get("lock") or {}).get("rollout_id")}
    ids |= {old.get("id") for old in record.get("superseded") or []}
    return {str(own) for own in ids if own}


def foreign_drain(census: Json, rollout_id: str = "") -> dict[str, Any] | None:
    """Return a live drain that is neither this rollout's nor of another one that the record knows."""
    drain = (census.get("worker") or {}).get("drain")
    if not drain or drain.get("expired") or drain.get("owner") in {rollout_id, *known_rollouts(census)}:
        return None
    return dict(drain)


def linked(census: Json) -> str | None:
    """Return the id of the release that the next start runs."""
    release = ((census.get("releases") or {}).get("current") or {}).get("id")
    return str(release) if release else None


def converge(census: Json, staged: Json, planned: Json, settings: Json) -> Decision:
    """Decide from running and linked release, state, drain, lease and record; the same again after anything."""
    refusal = _refusal(census, staged, planned, settings)
    if refusal:
        return Decision("refuse", refusal)
    drain = foreign_drain(census, planned["rollout_id"])
    if drain:
        text = (f"it is drained by '{drain.get('owner')}' ({one_line(drain.get('reason')) or 'no reason given'}) until "
                f"{drain.get('lease_expires_at')}")
        if settings.get("solver_foreign_drain") == "exclude":
            return Decision("excluded", text)
        return Decision("refuse", f"{text}; wait for that owner, or set solver_foreign_drain: exclude to go on without")
    if planned["from_release"] == planned["release"] and _linked_to(census, staged, planned) and planned["serving"]:
        return Decision("already", f"runs {planned['to']}")
    return _kept(census, planned, settings) or Decision(
        "update", _why(census, planned), steal=bool((census.get("worker") or {}).get("drain")))


def _kept(census: Json, planned: Json, settings: Json) -> Decision | None:
    """Why a worker that is to have another release keeps the one that it has, or nothing."""
    if census.get("service_problem"):
        return Decision("refuse", "its host could not start it again once it is stopped, whatever the release: "
                                  f"{one_line(census['service_problem'])}")
    refused = standby_refusal(census) if planned["switch"] == "standby" else ""
    if refused:
        return Decision("refuse", refused)
    before = failed_before(census, planned)
    if before and not settings.get("solver_force"):
        force = f"; {BY_FORCE}" if takes_no_drain(census) else ""
        return Decision("failed", f"{planned['release']} failed on it before: {before}; mend the release, or set "
                                  f"solver_force: true to try it again{force}")
    return None


def _linked_to(census: Json, staged: Json, planned: Json) -> bool:
    return bool(staged.get("at_target")) or linked(census) == planned["release"]


def _why(census: Json, planned: Json) -> str:
    if planned["serving"]:
        return ""
    if planned["forced"]:
        return ("it takes no drain, so its process is ended by force, goes first; a task whose submission was on the "
                "wire may be billed without an answer")
    drain = (census.get("worker") or {}).get("drain")
    why = f"left in the drain of {drain.get('owner')}, goes first" if drain else "not serving, goes first"
    return f"{why}; if it takes no drain, {BY_FORCE}" if takes_no_drain(census) else why


def failed_before(census: Json, planned: Json) -> str:
    """Return why this very release failed on this worker the last time, or nothing."""
    own = rollout_of(census)
    if (own.get("to") or {}).get("release") != planned["release"] or own.get("cause") != "release":
        return ""
    if own.get("outcome") not in ("failed", "reverted", "quarantined"):
        return ""
    return one_line(own.get("outcome_reason")) or str(own["outcome"])


def _refusal(census: Json, staged: Json, planned: Json, settings: Json) -> str:
    """Return why the whole rollout must not begin because of this worker, or nothing."""
    problem = census.get("record_problem") or (planned["finding"] in ("denied", "foreign") and census.get("message"))
    if problem:
        return one_line(problem)
    if planned["lacks"]:
        return (f"the worker lacks {', '.join(planned['lacks'])}, which this update needs; "
                f"update its software, {_without_standby(planned)}or name it in solver_exclude")
    for result in (staged, census):
        if result.get("failed"):
            behind = settings_behind(result)
            return one_line(result.get("msg")) + (f" [{behind}]" if behind else "")
    if planned["release"]:
        return ""
    if settings.get("solver_version"):
        return "no release was staged for it"
    return "it has no release to return to; name one with solver_version, or the worker in solver_exclude"


def _without_standby(planned: Json) -> str:
    return "set solver_switch: in_place, " if planned["switch"] == "standby" else ""


NO_SLOT = "it has no slot for a standby; set solver_standby: true and run provision.yml"


def standby_refusal(census: Json) -> str:
    """Return why no standby can be raised beside a worker, as far as its host knows; or nothing."""
    problem = census.get("standby_problem", NO_SLOT)
    return f"{one_line(problem)}; or set solver_switch: in_place" if problem else ""


def return_target(census: Json, kind: str, end: str = "") -> dict[str, Any]:
    """Return the release that a rollback, or a recovery, leads this worker to: ``id`` and ``version``.

    END is the end of its rollout to which a recovery brings all of that one, where they went together.
    """
    own = rollout_of(census)
    if kind == "recover" and end:
        return _release(own.get(end)) or _recover_target(census, own)
    if kind == "recover":
        return _recover_target(census, own)
    if own.get("kind") == "rollback":
        return _release(own.get("to"))  # again: it is there already, and never forward to what was left
    if own.get("kind") == "update" and (own.get("from") or {}).get("release"):
        return _release(own["from"])
    return dict((census.get("releases") or {}).get("previous") or {})


def _release(known: Json | None) -> dict[str, Any]:
    known = known or {}
    return {"id": known.get("release"), "version": known.get("version")} if known.get("release") else {}


def _recover_target(census: Json, own: Json) -> dict[str, Any]:
    """A process that answers keeps its release; one that does not returns to where its rollout found it."""
    instance = (census.get("worker") or {}).get("instance") or {}
    if instance.get("release") and (census.get("worker") or {}).get("state") != "failed":
        return {"id": instance["release"], "version": instance.get("version")}
    return _release(own.get("from")) or dict((census.get("releases") or {}).get("current") or {})


def recover(census: Json, planned: Json) -> Decision:
    """Decide whether a dead rollout left this worker behind, and how it comes back."""
    if census.get("failed") or census.get("record_problem"):
        return Decision("refuse", one_line(census.get("msg") or census["record_problem"]))
    worker = census.get("worker") or {}
    drain = worker.get("drain")
    if drain and foreign_drain(census):
        return Decision("excluded", f"drained by '{drain.get('owner')}', which is no rollout; resume.yml with "
                                    "solver_resume_foreign: true ends that")
    if planned["serving"] and (not planned["from_release"] or linked(census) in (None, planned["from_release"])):
        left = left_beside(census)
        return Decision("update", left, steal=True, probe=False) if left else Decision("already", "serves")
    own = rollout_of(census)
    if not drain and not worker.get("drain") and not (own and not own.get("ended_at")) and not planned["serving"]:
        return Decision("excluded", _not_left_by_a_run(census, own))
    if not planned["release"]:
        return Decision("excluded", "it has no release to return to; update it with rolling_update.yml")
    never_changed = bool(worker) and (drain or {}).get("version") == planned["from"] and _verified(own, planned)
    # All of them go back to what has served, whatever the provider says today.
    goes_back = planned["together"] and planned["release"] == (own.get("from") or {}).get("release")
    why = f"left in the drain of {drain.get('owner')}" if drain else "left without service"
    return Decision("update", why, steal=True, probe=not (never_changed or goes_back))


def left_beside(census: Json) -> str:
    """Return what a dead rollout left beside a worker that serves, in words; or nothing.

    What a rollout that has ended keeps as a standby is no leftover.
    """
    if census.get("in_slot"):
        return "left in the slot of its standby"
    stands = ((census.get("standby") or {}).get("worker") or {}).get("state") == "standby"
    return "a standby was left beside it" if stands and not rollout_of(census).get("ended_at") else ""


def _not_left_by_a_run(census: Json, own: Json) -> str:
    """Say why a worker does not serve that no interrupted run has left, and what brings it back."""
    worker = census.get("worker") or {}
    state = str(worker.get("state") or census.get("finding"))
    if own.get("outcome") in ("quarantined", "failed", "reverted", "unreachable", "rollback_failed", "unknown"):
        why = one_line(own.get("outcome_reason")) or "no reason given"
        force = ", by force where it hangs" if takes_no_drain(census) else ""
        return (f"{state}; rollout {own.get('id')} left it {own['outcome']} ({why}); rollback.yml with solver_only "
                f"brings it back to the release that it came from{force}")
    if takes_no_drain(census):
        return (f"{state}, and no rollout of ours left it so; look into its log; {BY_FORCE}, with solver_version where "
                "it is to keep its version")
    return f"{state}, and no rollout of ours left it so; look into its log, provision.yml starts what is stopped"


def _verified(own: Json, planned: Json) -> bool:
    """Whether the running release is the one that the rollout found: it has served before."""
    return (own.get("from") or {}).get("release") in (None, planned["from_release"])
