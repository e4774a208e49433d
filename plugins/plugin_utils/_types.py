# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""The data of a rollout by name: what the workers say, what is planned, and what became of it.

What comes from a worker's host has been through C(_entry), which checks exactly the fields that stand here.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

# --- what a worker says, docs/control-api.md ---


class Totals(TypedDict):
    """The books of a journal."""

    accepted: int
    succeeded: int
    failed: int
    uncertain: int
    expired: int
    probes: int
    provider_submits: int
    refused: int


class Tasks(TypedDict):
    """Tasks that depend on the process."""

    open: int
    accepted: int
    submitting: int
    polling: int
    unfetched: int
    oldest_age_s: float | None


class Instance(TypedDict):
    """The process that answers."""

    name: str
    version: str
    release: str
    boot_id: str
    pid: int
    started_at: str
    restarts: int


class Api(TypedDict):
    """What the worker can do."""

    versions: list[str]
    features: list[str]


class Drain(TypedDict, total=False):
    """A drain as the worker describes it; C(open_at_start) may be missing."""

    owner: str
    reason: str
    mode: str
    on_deadline: str
    on_expire: str
    version: str
    requested_at: str
    grace_until: str
    deadline_at: str | None
    lease_expires_at: str
    open_at_start: int | None
    expired: bool


class SolveTimes(TypedDict):
    """How long the worker's last solves took."""

    count: int
    p50_s: float
    p99_s: float


class Books(TypedDict):
    """What of a journal's books a canary is judged by; C(apart) are failures that no release can help."""

    succeeded: int
    failed: int
    uncertain: int
    expired: int
    apart: int
    times: list[int]


class Baseline(TypedDict, total=False):
    """A worker's books when the comparison of its arm began, and how often the judge has looked since."""

    arm: str
    at: str
    journal: str
    books: Books
    looks: int


class Judgement(TypedDict, total=False):
    """What the judge of a canary said: C(word) is promote, fail or inconclusive."""

    word: str
    at: str
    reason: str


ProviderError = TypedDict("ProviderError", {"code": str, "class": str, "at": str})


class Provider(TypedDict):
    """What the worker remembers of its provider."""

    ok: bool | None
    last_ok_at: str | None
    balance: str | None
    balance_at: str | None
    last_error: ProviderError | None


class Journal(TypedDict):
    """The file in which the worker keeps its tasks."""

    id: str
    schema: int
    min_reader: int
    writable: bool


class Cause(TypedDict):
    """Why a worker is C(failed), or in service and takes no new task."""

    code: str
    message: str


class Status(TypedDict):
    """The status document."""

    schema: str
    api: Api
    instance: Instance
    state: str
    since: str
    seq: int
    accepting: bool
    refusal: NotRequired[Cause | None]
    safe_to_stop: bool
    idle: bool
    drain: Drain | None
    tasks: Tasks | None
    totals: Totals | None
    solve_times: SolveTimes | None
    solve_histogram: NotRequired[list[int] | None]
    failures: NotRequired[dict[str, int] | None]
    provider: Provider | None
    journal: Journal | None
    failure: Cause | None


# --- what lies beside a worker on its host ---

Release = TypedDict("Release", {
    "id": str, "version": str | None, "package_digest": str | None, "config_digest": str | None,
    "data_address": str | None, "created_at": str | None, "rollout_id": str | None, "from": str | None,
    "worker": str | None}, total=False)


class Releases(TypedDict, total=False):
    """What the links of a worker point to."""

    current: Release | None
    previous: Release | None
    staged: Release | None


class Clock(TypedDict):
    """A reading of a host's clock that is never stepped."""

    host_boot_id: str
    uptime_s: float


class Controller(TypedDict, total=False):
    """The process that runs a rollout, by which its death can be proven."""

    host: str | None
    machine_id: str | None
    boot_id: str | None
    pid: int | None
    pid_started: int | None
    pid_ns: int | None
    url: str | None  # of its job in AWX


class Lock(TypedDict, total=False):
    """Who holds a worker."""

    run_id: str
    rollout_id: str | None
    user: str | None
    job: str | None
    reason: str | None
    controller: Controller | None
    acquired_at: str | None
    renewed_at: str
    renewed_clock: Clock | None
    ttl_s: float


class Version(TypedDict, total=False):
    """One end of a worker's way in a rollout."""

    version: str | None
    release: str | None


Rollout = TypedDict("Rollout", {
    "id": str, "kind": str | None, "target": str | None, "reason": str | None, "from": Version | None,
    "to": Version | None, "started_at": str | None, "ended_at": str | None, "verdict": str | None,
    "outcome": str | None, "cause": str | None, "outcome_reason": str | None, "strategy": str | None,
    "stage": int | None, "stages": int | None,
    "baseline": Baseline | None, "judgement": Judgement | None}, total=False)


class Request(TypedDict, total=False):
    """What somebody asks of the run that holds the lock."""

    what: str
    by: str | None
    reason: str | None
    at: str | None


class Superseded(TypedDict, total=False):
    """A rollout that was not over when another one replaced it."""

    id: str
    target: str | None
    at: str | None
    by: str | None


class Record(TypedDict, total=False):
    """The rollout's record on a worker."""

    seq: int
    roster: list[str] | None
    rollout: Rollout | None
    lock: Lock | None
    request: Request | None
    superseded: list[Superseded] | None


class Who(TypedDict, total=False):
    """Who ran a rollout, and where."""

    user: str | None
    job: str | None
    host: str | None


Head = TypedDict("Head", {
    # the head of a verdict that a worker keeps
    "rollout_id": str, "run_id": str, "kind": str | None, "target": str | None, "verdict": str | None,
    "started_at": str | None, "ended_at": str | None, "reasons": list[str] | None, "reason": str | None,
    "from": list[str] | None, "who": Who | None}, total=False)


# --- what the modules answer ---

ProbeError = TypedDict("ProbeError", {"code": str | None, "class": str | None, "message": str | None}, total=False)


class Probe(TypedDict, total=False):
    """The last answer to a probe."""

    request_id: str | None
    outcome: str | None
    elapsed_s: float | None
    error: ProbeError | None
    version: str | None
    boot_id: str | None


class Details(TypedDict, total=False):
    """More about a failure."""

    fault: str | None
    checking: str | None
    attempts: int | None
    errors: list[ProbeError] | None
    probe: Probe | None
    log: list[str] | None
    holder: Lock | None
    remaining: Tasks | None


class Failure(TypedDict, total=False):
    """A failure for programs; C(cause) says whose it is."""

    code: str | None
    cause: str | None
    message: str
    details: Details | None


class Answer(TypedDict, total=False):
    """What every answer may hold; C(wrong) names the field of one that does not fit, of which nothing else is used."""

    failed: bool
    unreachable: bool
    skipped: bool
    changed: bool
    msg: str
    failure: Failure | None
    wrong: str


class FoundStandby(TypedDict, total=False):
    """What answers in a worker's slot."""

    finding: str
    worker: Status | None


class Census(Answer, total=False):
    """What is known of one worker: the answer of worker_info, or C(census) in that of rollout_lock."""

    finding: str
    worker: Status | None
    message: str | None
    rollout: Record | None
    lock_state: str | None
    record_problem: str | None
    service_problem: str | None
    standby_problem: str | None
    standby_memory: dict[str, int] | None
    in_slot: bool | None
    release_problem: str | None
    standby: FoundStandby | None
    releases: Releases | None
    history: list[Head] | None
    host_clock: Clock | None


class LockAnswer(Answer, total=False):
    """The answer of rollout_lock."""

    record: Record | None
    ours: bool
    holder: Lock | None
    superseded: str | None
    census: Census


class Staged(Answer, total=False):
    """The answer of worker_release for C(state=staged)."""

    release: Release | None
    staged: bool | None
    at_target: bool | None
    current: str | None
    previous: str | None
    running_release: str | None


StepResult = TypedDict("StepResult", {
    # of every step
    "failed": bool, "unreachable": bool, "skipped": bool, "changed": bool, "msg": str, "failure": Failure | None,
    "wrong": str, "done": bool, "elapsed_s": float | None, "took_s": float | None, "worker": Status | None,
    "host_clock": Clock | None, "finding": str | None, "pending": str | None,
    # of a drain
    "began": bool | None, "forced": bool | None, "fallback": bool | None, "gave_back": bool | None,
    "open_at_drain": int | None, "remaining": Tasks | None, "drain": Drain | None,
    # of a switch
    "switched": bool | None, "restarted": bool | None, "at_target": bool | None, "release": Release | None,
    "from": str | None, "to": str | None, "current": str | None, "previous": str | None,
    "running_release": str | None, "totals_before": Totals | None, "journal_id": str | None, "boot_id": str | None,
    "boot_id_before": str | None, "pid": int | None, "pid_before": int | None, "state_before": str | None,
    "worker_state": str | None,
    # of a check
    "passed": list[str] | None, "skipped_checks": list[str] | None, "attempts": int | None, "probe": Probe | None,
    "balance": str | None, "solve_s": float | None,
    # of the record
    "record": Record | None, "ours": bool | None, "holder": Lock | None}, total=False)


class StepResults(Answer, total=False):
    """The answer of worker_steps."""

    done_steps: dict[str, StepResult]
    host_clock: Clock | None
    elapsed_s: float | None


class Server(TypedDict, total=False):
    """A worker as a router sees it."""

    serving: bool
    status: str | None
    check: str | None
    address: str | None
    sessions: int | None


class Router(Answer, total=False):
    """The answer of router_info; without C(servers) the router could not be asked."""

    servers: dict[str, Server]
    version: str | None
    uptime_s: int | None


# --- what is planned ---

PlannedWorker = TypedDict("PlannedWorker", {
    "kind": str, "rollout_id": str, "from": str | None, "from_release": str | None, "to": str | None,
    "release": str | None, "finding": str | None, "serving": bool, "lacks": list[str],
    "on_drain_timeout": str, "p50_s": float | None, "p99_s": float | None, "totals": Totals | None,
    "journal": str | None, "record_seq": int, "forced": bool, "steal": bool, "probe": bool, "back_to": str | None,
    "back_version": str | None, "switch": str, "owner": str, "on_expire": str | None, "begins": bool, "action": str,
    "reason": str,
    # it goes together with others, so a lost lease may not let it serve the new release
    "together": bool,
    # out of service with what others do not serve: nothing gives it back but its own verification
    "stays_held": bool,
    # solver_only or solver_exclude leaves it as it is
    "left_out": bool})


class Stage(TypedDict):
    """Workers in order; C(window) of them may be out at once, C(tolerated) may fail, C(after) follows on the last.

    C(there) are those of the stage that an earlier run has brought to the target: they have no turn, and they count. So
    a stage may have no worker to begin, and what follows on it is still to come. C(after) is C(nothing), C(bake), or
    C(promotion), and it is waited for at the gate of the next stage's first worker.
    """

    workers: list[str]
    there: list[str]
    window: int
    tolerated: int
    after: str
    barrier: NotRequired[bool]  # nobody takes over before all standbys are verified


class LockPlan(TypedDict):
    """Whom to lock, the C(leader) before all others."""

    workers: list[str]
    leader: str | None
    needed: int
    dead_runs: dict[str, list[str]]
    roster: list[str]
    unsure: list[str]  # lost while they were locked: given back with the others, and not counted on


class BakePlan(TypedDict):
    """How the canaries will be compared with the others, and what is known already from a run that was killed."""

    canaries: list[str]
    control: list[str]
    min_tasks: int
    bake_s: float
    max_s: float
    needs_s: float | None
    least_s: float | None
    traffic: str
    judged: Judgement | None
    baselines: dict[str, Baseline]


class Plan(TypedDict, total=False):
    """What a rollout will do."""

    kind: str
    strategy: str
    bake: BakePlan | None
    promote: str
    on_inconclusive: str
    rollout_id: str
    run_id: str
    continued: bool
    way_back: bool
    undoes: bool
    target: str
    asked: str
    fleet: int
    window: int
    max_soaking: int
    surge: int
    blue_keep: float
    floor: int
    budget_percent: float
    tolerated: int
    order: list[str]
    stages: list[Stage]
    estimate_s: float
    stop_s: float | None
    probes: int
    workers: dict[str, PlannedWorker]
    lock: LockPlan
    refused: list[str]
    locked: list[str]
    warnings: list[str]
    started_at: str
    ended_at: str
    settings: dict[str, Any]
    who: dict[str, Any]


# --- what the gate goes by ---


class Said(TypedDict):
    """Of a status document, whether the worker takes tasks."""

    state: str | None
    drain: bool
    accepting: NotRequired[bool]


class SaidCensus(TypedDict):
    """Where a live look keeps it."""

    worker: Said | None


class SeenRecord(TypedDict, total=False):
    """Of a record, what somebody asks of the run."""

    request: Request


class Seen(TypedDict, total=False):
    """What one worker said last, and C(at) what time of the controller's own clock; C(_view) keeps it."""

    at: float
    looked: float
    surprised: float
    silent: int
    unreachable: bool
    msg: str
    census: SaidCensus
    failure: Failure
    record: SeenRecord
    routers: dict[str, bool]
    silent_routers: dict[str, str]


# --- what became of it ---

Outcome = TypedDict("Outcome", {
    "outcome": str, "cause": str | None, "reason": str, "step": str | None, "from": str | None, "to": str | None,
    "open_at_drain": int | None, "timings": dict[str, float], "totals_before": Totals | None, "log": list[str]},
    total=False)


class Closed(TypedDict, total=False):
    """The gate's last word, once it has closed."""

    cause: str
    reason: str


class HookFailure(TypedDict, total=False):
    """A task of the user's own that failed; C(stops) says whether it keeps from the update: its worker, or
    everybody further where it has none."""

    hook: str
    worker: str | None
    task: str | None
    reason: str
    stops: bool


class Fell(TypedDict):
    """Because of whom everybody goes back, and why."""

    worker: str
    reason: str


class Together(TypedDict):
    """How far turns are that wait for each other: where each is, and which places were passed."""

    at: dict[str, str]
    passed: list[str]
    fell: Fell | None


class State(TypedDict):
    """One part of a rollout under way: who is where (C(_admit) says in which phases), and what became of whom."""

    phase: dict[str, str]
    brief: dict[str, Outcome]
    begun: list[int]
    ended: list[int]
    closed: Closed
    healthy_at: float
    probes: list[StepResult]
    hooks: list[HookFailure]
    judgement: NotRequired[dict[str, Any]]
    together: Together
