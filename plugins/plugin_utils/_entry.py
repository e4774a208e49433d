# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""The door through which the answers of the workers' hosts come in: checked once, and used by all that decide.

A host may be broken or taken over, so its answers are the data of a stranger. What does not fit makes that worker one
that C(answers wrongly), named with the field, and nothing else of the answer is used. Unknown fields are left out,
since newer workers may say more. Pure functions of plain data; NOW is the controller's time in seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from ansible_collections.solver.fleet.plugins.plugin_utils._shape import (
    Check,
    Misfit,
    choice,
    count,
    date,
    fields,
    flag,
    good_items,
    items,
    known,
    mapping,
    may,
    moment,
    name,
    names,
    need,
    number,
    tail,
    text,
    word,
    words,
)
from ansible_collections.solver.fleet.plugins.plugin_utils._types import (
    Census,
    LockAnswer,
    Router,
    Staged,
    StepResult,
    StepResults,
)

__all__ = [
    "STEP_NAMES", "census", "contents", "lock_answer", "router", "staged", "step_result", "step_results", "words"]

MESSAGE = 1000
REASON = 500
MOST_WORKERS = 10_000
# The longest time that anything here may have taken, in seconds.
LONGEST = 1e9
# The steps of all programs, and what else is known of a worker's turn by the name of a step.
STEP_NAMES = frozenset({
    "drain", "switch", "verify", "resume", "soak", "record", "give_back", "revert_drain", "revert", "revert_verify",
    "revert_resume", "raise", "serve", "settle", "keep", "drop", "hold", "renew", "reference_worker",
    "reference_provider"})
# In these a release speaks for itself.
_OF_RELEASE = frozenset({"verify", "resume", "serve", "soak"})
_FINDINGS = ("answering", "stopped", "dead", "denied", "hung", "foreign")
_CLASS_NAMES = ("worker", "account", "provider", "task", "network")
_CLASSES = choice(*_CLASS_NAMES)

# --- the status document: as docs/openapi/control-v1.yaml has it, where all that is mandatory must be there ---

_COUNT = count()
_SECONDS = number(LONGEST)
_TOTALS = fields({each: need(_COUNT) for each in (
    "accepted", "succeeded", "failed", "uncertain", "expired", "probes", "provider_submits", "refused")})
_TASKS = fields({
    **{each: need(_COUNT) for each in ("open", "accepted", "submitting", "polling", "unfetched")},
    "oldest_age_s": known(_SECONDS)})
# What a module says of the tasks that are left, it may have from a worker that says less.
_REMAINING = fields({each: may(_SECONDS) for each in (
    "open", "accepted", "submitting", "polling", "unfetched", "oldest_age_s")})
_DRAIN = fields({
    "owner": need(text(200)), "reason": need(text(REASON)), "mode": need(choice("complete", "handover")),
    "on_deadline": need(choice("wait", "handover")), "on_expire": need(choice("resume", "verify", "hold")),
    "version": need(text(200)), "requested_at": need(moment), "grace_until": need(moment),
    "deadline_at": known(moment), "lease_expires_at": need(moment), "open_at_start": may(_COUNT),
    "expired": need(flag)})
_HISTOGRAM = items(_COUNT, 100)
_STATUS = fields({
    "schema": need(choice("solver.worker.status/1")),
    "api": need(fields({"versions": need(items(name(60), 50)), "features": need(items(name(60), 200))})),
    "instance": need(fields({
        "name": need(name(253)), "version": need(text(200)), "release": need(name(200, least=0)),
        "boot_id": need(name()), "pid": need(count(low=1)), "started_at": need(moment), "restarts": need(_COUNT)})),
    "state": need(choice(
        "starting", "recovering", "running", "draining", "drained", "stopping", "failed", "standby")),
    "since": need(moment), "seq": need(_COUNT), "accepting": need(flag), "safe_to_stop": need(flag),
    "refusal": may(fields({"code": need(text(100)), "message": need(text(MESSAGE))})),
    "idle": need(flag), "drain": known(_DRAIN), "tasks": known(_TASKS), "totals": known(_TOTALS),
    "solve_histogram": may(_HISTOGRAM),
    "failures": may(fields({each: may(_COUNT) for each in _CLASS_NAMES})),
    "solve_times": known(fields({"count": need(_COUNT), "p50_s": need(_SECONDS), "p99_s": need(_SECONDS)})),
    "provider": known(fields({
        "ok": known(flag), "last_ok_at": known(moment), "balance": known(text(40)), "balance_at": known(moment),
        "last_error": known(fields({"code": need(text(100)), "class": need(_CLASSES), "at": need(moment)}))})),
    "journal": known(fields({
        "id": need(name()), "schema": need(count(low=1)), "min_reader": need(count(low=1)), "writable": need(flag)})),
    "failure": known(fields({"code": need(text(100)), "message": need(text(MESSAGE))}))})

# --- what lies beside the worker on its host ---

_CLOCK = fields({"host_boot_id": need(name(64, least=0)), "uptime_s": need(_SECONDS)})
_RELEASE = fields({
    "id": need(name()), "version": may(text(200)), "data_address": may(name(300, least=0)), "from": may(name()),
    **{each: may(text(200)) for each in ("package_digest", "config_digest", "created_at", "rollout_id", "worker")}})
_VERSION = fields({"version": may(text(200)), "release": may(name(200, least=0))})
_LOCK = fields({
    "run_id": need(name()), "rollout_id": may(name()), "user": may(text(200)), "job": may(text(200)),
    "reason": may(text(REASON)), "acquired_at": may(date), "renewed_at": need(date), "ttl_s": need(_SECONDS),
    "renewed_clock": may(fields({"host_boot_id": may(name(64, least=0)), "uptime_s": may(_SECONDS)})),
    "controller": may(fields({
        "host": may(text(253)), "url": may(text(300)), "machine_id": may(name(64, least=0)),
        "boot_id": may(name(64, least=0)), "pid": may(_COUNT), "pid_started": may(_COUNT), "pid_ns": may(_COUNT)}))})
_BASELINE = fields({
    "arm": need(choice("canary", "control")), "at": need(date), "journal": need(name()), "looks": need(count(100)),
    "books": need(fields({
        **{each: need(_COUNT) for each in ("succeeded", "failed", "uncertain", "expired", "apart")},
        "times": need(_HISTOGRAM)}))})
_JUDGEMENT = fields({
    "word": need(choice("promote", "fail", "inconclusive")), "at": need(date), "reason": need(text(MESSAGE))})
_RECORD = fields({
    "schema": need(choice("solver.rollout/1")), "seq": need(_COUNT), "roster": may(names(MOST_WORKERS)),
    "lock": may(_LOCK),
    "rollout": may(fields({
        "id": need(name()), "kind": may(word), "target": may(text(200)), "reason": may(text(REASON)),
        "from": may(_VERSION), "to": may(_VERSION), "started_at": may(date), "ended_at": may(date),
        "verdict": may(word), "outcome": may(word), "cause": may(word), "outcome_reason": may(text(MESSAGE)),
        "strategy": may(word), "stage": may(count(MOST_WORKERS)), "stages": may(count(MOST_WORKERS)),
        "baseline": may(_BASELINE), "judgement": may(_JUDGEMENT)})),
    "request": may(fields({
        "what": need(choice("pause", "abort")), "by": may(text(200)), "reason": may(text(REASON)), "at": may(date)})),
    "superseded": may(items(fields({
        "id": need(name()), "target": may(text(200)), "at": may(date), "by": may(name())}), 20))})
_HISTORY = good_items(fields({
    "rollout_id": need(name()), "run_id": need(name()), "kind": may(word), "target": may(text(200)),
    "verdict": may(word), "started_at": may(date), "ended_at": may(date),
    "reasons": may(items(text(REASON), 50)), "reason": may(text(REASON)), "from": may(items(text(200), 10)),
    "who": may(fields({each: may(text(253)) for each in ("user", "job", "host")}))}), 50)

# --- what the modules answer ---

_ERROR = {"code": may(text(100)), "class": may(_CLASSES)}
_PROBE = fields({
    "request_id": may(text(200)), "outcome": may(word), "elapsed_s": may(_SECONDS), "version": may(text(200)),
    "boot_id": may(text(200)), "error": may(fields({**_ERROR, "message": may(text(REASON))}))})
_FAILURE = fields({
    "code": need(word), "cause": may(word), "message": may(text(MESSAGE)),
    "details": may(fields({
        "fault": may(_CLASSES), "checking": may(word), "attempts": may(count(1000)),
        "errors": may(items(fields(_ERROR), 1000)), "probe": may(_PROBE), "holder": may(_LOCK),
        "remaining": may(_REMAINING), "log": may(tail(50, 2000, 16_000))}))})
_ANSWER = {
    "failed": may(flag), "skipped": may(flag), "changed": may(flag), "msg": may(text(MESSAGE)),
    "failure": may(_FAILURE)}

_CENSUS = fields({
    **_ANSWER, "finding": may(choice(*_FINDINGS)), "worker": may(_STATUS), "message": may(text(MESSAGE)),
    "rollout": may(_RECORD), "lock_state": may(choice("free", "held", "expired", "unknown")),
    **{each: may(text(MESSAGE))
       for each in ("record_problem", "service_problem", "standby_problem", "release_problem")},
    "in_slot": may(flag), "standby_memory": may(fields({each: need(count()) for each in ("needs", "spare")})),
    "standby": may(fields({"finding": may(choice(*_FINDINGS)), "worker": may(_STATUS)})),
    "history": may(_HISTORY), "host_clock": may(_CLOCK),
    "releases": may(fields({each: may(_RELEASE) for each in ("current", "previous", "staged")}))})
_LOCK_ANSWER = fields({
    **_ANSWER, "record": may(_RECORD), "ours": may(flag), "holder": may(_LOCK), "superseded": may(name())})
_STAGED = fields({
    **_ANSWER, "release": may(_RELEASE), "staged": may(flag), "at_target": may(flag),
    **{each: may(name(200, least=0)) for each in ("current", "previous", "running_release")}})
# Lines of files, for people alone.
_LINES = good_items(text(1000), 5000)
_CONTENTS = fields({each: may(_LINES) for each in ("before", "after", "packages_before", "packages_after")})
_STEP = fields({
    **_ANSWER, "worker": may(_STATUS), "drain": may(_DRAIN), "host_clock": may(_CLOCK), "finding": may(word),
    "pending": may(text(MESSAGE)), "remaining": may(_REMAINING), "release": may(_RELEASE),
    "totals_before": may(_TOTALS), "probe": may(_PROBE), "record": may(_RECORD), "holder": may(_LOCK),
    "balance": may(text(40)), "pid": may(_COUNT), "pid_before": may(_COUNT), "open_at_drain": may(_COUNT),
    "attempts": may(_COUNT), "elapsed_s": may(_SECONDS), "solve_s": may(_SECONDS), "took_s": may(_SECONDS),
    **{each: may(flag) for each in (
        "done", "began", "forced", "fallback", "gave_back", "switched", "restarted", "at_target", "ours")},
    **{each: may(name(200, least=0)) for each in (
        "from", "to", "current", "previous", "running_release", "journal_id", "boot_id", "boot_id_before")},
    **{each: may(word) for each in ("state_before", "worker_state")},
    **{each: may(items(word, 20)) for each in ("passed", "skipped_checks")}})
_STEPS = fields({**_ANSWER, "host_clock": may(_CLOCK), "elapsed_s": may(_SECONDS)})
_ROUTER = fields({
    **_ANSWER, "version": may(text(100)), "uptime_s": may(_SECONDS),
    "servers": may(mapping(fields({
        "serving": need(flag), "status": may(text(100)), "check": may(text(200)), "address": may(text(300)),
        "sessions": may(_COUNT)}), MOST_WORKERS), nullable=False)})

_NOTHING_KNOWN = {"worker": None, "rollout": None, "lock_state": "unknown", "releases": None}


def census(raw: Any, now: float) -> Census:
    """Return what worker_info, or C(census) in the answer of rollout_lock, says of a worker."""
    return cast(Census, _checked(raw, now, _whole_census, {**_NOTHING_KNOWN, "finding": "wrong"}))


def _whole_census(raw: Any, now: float) -> dict[str, Any]:
    try:
        out: dict[str, Any] = _CENSUS(raw, now)
    except Misfit as misfit:
        # The status document is what its reader knows by its fields.
        misfit.where = misfit.where.removeprefix("worker.")
        raise
    if not out.get("finding") and not out.get("failed"):
        raise Misfit("is missing", "finding")
    if (out.get("finding") == "answering") != bool(out.get("worker")):
        raise Misfit(f"does not fit to the finding {out.get('finding')}", "worker")
    return out


def lock_answer(raw: Any, now: float) -> LockAnswer:
    """Return the answer of rollout_lock. Lock and worker are two things: a wrong status document loses no lock."""
    out = _checked(raw, now, _LOCK_ANSWER, {"ours": False, "record": None, "holder": None})
    if isinstance(raw, dict) and raw.get("census") is not None and "wrong" not in out:
        out["census"] = census(raw["census"], now)
    return cast(LockAnswer, out)


def staged(raw: Any, now: float) -> Staged:
    """Return the answer of worker_release with C(state=staged)."""
    return cast(Staged, _checked(raw, now, _STAGED, {"release": None, "at_target": False}))


def contents(raw: Any, now: float) -> dict[str, Any]:
    """Return what worker_release says of what two releases hold; nothing where it said nothing that fits."""
    return _checked(raw.get("contents") if isinstance(raw, dict) else None, now, _CONTENTS, {})


def router(raw: Any, now: float) -> Router:
    """Return the answer of router_info."""
    return cast(Router, _checked(raw, now, _ROUTER, {}))


def step_results(raw: Any, now: float) -> StepResults:
    """Return the answer of worker_steps: each step that does not fit has failed, the others stand."""
    out = _checked(raw, now, _STEPS, {})
    answered = isinstance(raw, dict) and not {"wrong", "unreachable"} & set(out)
    given = (raw.get("done_steps") or {}) if answered else {}
    if not isinstance(given, dict):
        out.update(_wrong(Misfit("is no object", "done_steps")))
        given = {}
    out["done_steps"] = {each: step_result(given[each], now, each) for each in STEP_NAMES & set(given)}
    return cast(StepResults, out)


def step_result(raw: Any, now: float, step: str) -> StepResult:
    """Return the result of one STEP; a new release that cannot say how it is has failed by itself, and goes back."""
    out = _checked(raw, now, _STEP, {"done": False})
    if step in _OF_RELEASE and str(out.get("wrong", "")).startswith(("worker", "probe", "failure.details.probe")):
        out["failure"]["cause"] = "release"
    return cast(StepResult, out)


def _checked(raw: Any, now: float, shape: Check, empty: Mapping[str, Any]) -> dict[str, Any]:
    """Return RAW as its SHAPE has it, or EMPTY with what is wrong. Nothing was said where there is nothing."""
    if raw is None or raw == {}:
        return {}
    if isinstance(raw, dict) and raw.get("unreachable") is True:
        said = raw.get("msg")
        return {"unreachable": True, "msg": words(said, MESSAGE) if isinstance(said, str) else ""}
    try:
        return cast(dict[str, Any], shape(raw, now))
    except Misfit as misfit:
        return {**empty, **_wrong(misfit)}


def _wrong(misfit: Misfit) -> dict[str, Any]:
    where = misfit.where or "the answer"
    message = f"answers wrongly: {where} {misfit.why}"
    return {"failed": True, "wrong": where, "msg": message,
            "failure": {"code": "answers_wrongly", "cause": "host", "message": message, "details": {}}}
