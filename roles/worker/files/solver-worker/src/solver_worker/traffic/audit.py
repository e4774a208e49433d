# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit: three books in, one judgement out. Pure: no clock, no file, no network.

Every accepted task is in exactly one class:
``accepted == answered + failed + expired + uncertain + lost + wrong + open``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from .book import ClientBook, ClientTask
from .journals import Entry, JournalBook

SCHEMA = "solver.traffic.report/1"
CLASSES = (
    "accepted",
    "answered",
    "failed",
    "expired",
    "uncertain",
    "lost",
    "wrong",
    "billed_twice",
    "refused",
)
_EXAMPLES = 10


@dataclass
class Verdict:
    """`kind` is one of CLASSES, or open, unknown, rejected, unsent; `why` is None for the ordinary."""

    kind: str
    why: str | None = None


@dataclass
class _Books:
    client: ClientBook
    journals: Mapping[str, JournalBook]
    # Of each nonce, the provider's submits.
    submits: dict[str, list[Mapping[str, Any]]] | None

    def entries(self, task: ClientTask) -> dict[str, Entry]:
        """The task in the journals, by worker."""
        return {name: book.tasks[task.key] for name, book in self.journals.items() if task.key in book.tasks}

    def covers(self, task: ClientTask) -> bool:
        """Whether the journal is here of the worker that last had this task."""
        return task.worker in self.journals

    def uncovered(self) -> list[str]:
        return sorted({task.worker for task in self.client.tasks.values() if task.worker} - set(self.journals))


@dataclass
class _Tally:
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))

    def problem(self, kind: str, why: str, task: ClientTask | None = None, **more: Any) -> None:
        self.counts[kind] += 1
        if len(self.examples[kind]) < _EXAMPLES:
            named = {"key": task.key, "id": task.id, "worker": task.worker, "nonce": task.nonce} if task else {}
            self.examples[kind].append({"why": why, **named, **more})


def audit(
    client: ClientBook,
    journals: Mapping[str, JournalBook] | None = None,
    ledger: Mapping[str, Any] | None = None,
    missing: Sequence[str] = (),
) -> dict[str, Any]:
    """The report. `missing`: books that were asked for and could not be read, in words."""
    books = _Books(client, journals or {}, _all_submits(ledger))
    tally = _Tally()
    for task in client.tasks.values():
        _count(tally, task, _judge(task, books))
        _count_bills(tally, task, books)
        _compare(tally, task, books)
    for name, journal in sorted(books.journals.items()):
        if not journal.balanced():
            tally.problem("inconsistent", "the totals of the journal do not add up", worker=name)
    return _report(books, tally, list(missing))


def _all_submits(ledger: Mapping[str, Any] | None) -> dict[str, list[Mapping[str, Any]]] | None:
    if ledger is None:
        return None
    return {nonce: list(entry["submits"]) for nonce, entry in ledger["nonces"].items()}


# -- one task ------------------------------------------------------------------------------------


def _judge(task: ClientTask, books: _Books) -> Verdict:
    entry = next(iter(books.entries(task).values()), None)
    if task.accepted_at is None and entry is None:
        return _judge_not_accepted(task, books)
    if entry is None and books.covers(task):
        return Verdict("lost", "accepted, but not in its worker's journal")
    if task.state is not None:
        return _judge_final(task, books)
    return _judge_unread(task, entry, books)


def _judge_not_accepted(task: ClientTask, books: _Books) -> Verdict:
    """Nobody owes the client anything, unless the provider was paid for it."""
    if _solved_by(task, books) is not None:
        return Verdict("lost", "not accepted by any worker, but solved by the provider")
    if task.rejected is not None:
        return Verdict("rejected", f"a worker rejected it: {task.rejected}")
    if task.refused:
        return Verdict("refused", "no worker took it while the client was patient")
    if not task.worker:
        return Verdict("unsent")
    if books.covers(task) or not task.unsure:
        return Verdict("refused", "the client ended without an acceptance, and no journal has it")
    return Verdict("unknown", "the client never learnt the outcome, and the worker's journal was not given")


def _judge_final(task: ClientTask, books: _Books) -> Verdict:
    assert task.state is not None
    if task.state == "succeeded":
        return _judge_answer(task.solution, task)
    solved_at = _solved_by(task, books)
    if task.state == "failed" and solved_at is not None and task.read_at is not None and solved_at < task.read_at:
        return Verdict("lost", f"the provider solved it, the client was told failed: {task.error}")
    return Verdict(task.state)


def _judge_answer(solution: str | None, task: ClientTask) -> Verdict:
    if solution != task.expected:
        return Verdict("wrong", "the answer is not the one that belongs to this task")
    if task.expires_at is not None and task.read_at is not None and task.read_at > task.expires_at:
        return Verdict("lost", "the client could read the answer only after its expiry")
    return Verdict("answered")


def _judge_unread(task: ClientTask, entry: Entry | None, books: _Books) -> Verdict:
    """Accepted, and the client has read no final state."""
    if task.gone is not None:
        return Verdict("lost", task.gone)
    if books.client.ended:
        return Verdict("lost", "accepted, and no final state was read")
    # The client was killed before it could read; what the journal holds is still to be had.
    if entry is None:
        return Verdict("open", "the client ended early, and no journal was given")
    if entry.state not in ("succeeded", "failed", "expired", "uncertain"):
        return Verdict("open", "the client ended early; the worker is still at it")
    if entry.gone:
        return Verdict("lost", "its result is gone from the journal, and the client never read it")
    return _judge_answer(entry.solution, task) if entry.state == "succeeded" else Verdict(entry.state)


def _solved_by(task: ClientTask, books: _Books) -> float | None:
    """When the provider had an answer for it, if it had one."""
    submits = (books.submits or {}).get(task.nonce, [])
    times = [submit["solved_at"] for submit in submits if submit["state"] == "solved"]
    return min(times) if times else None


def _count(tally: _Tally, task: ClientTask, verdict: Verdict) -> None:
    if verdict.kind not in ("refused", "rejected", "unknown", "unsent"):
        tally.counts["accepted"] += 1
    if verdict.why is None:
        tally.counts[verdict.kind] += 1
    else:
        tally.problem(verdict.kind, verdict.why, task)


def _count_bills(tally: _Tally, task: ClientTask, books: _Books) -> None:
    """An unsolvable captcha is not charged, so submitting it once more is no second bill."""
    billed = [one for one in (books.submits or {}).get(task.nonce, []) if one["state"] != "unsolvable"]
    if len(billed) > 1:
        tally.problem("billed_twice", "billed more than once", task, provider_ids=[one["id"] for one in billed])


def _compare(tally: _Tally, task: ClientTask, books: _Books) -> None:
    """Finals never change: what the client was told is what the journal says."""
    entries = books.entries(task)
    if len(entries) > 1:
        tally.problem("inconsistent", f"accepted by more than one worker: {', '.join(sorted(entries))}", task)
    for entry in entries.values():
        if task.state is not None and entry.state != task.state:
            tally.problem("inconsistent", f"client read {task.state}, the journal says {entry.state}", task)


# -- the report ----------------------------------------------------------------------------------


def _report(books: _Books, tally: _Tally, missing: list[str]) -> dict[str, Any]:
    client, counts = books.client, tally.counts
    result: dict[str, int | None] = {name: counts[name] for name in CLASSES}
    if books.submits is None:
        result["billed_twice"] = None  # nobody can know without the provider's book
    bad = [name for name in ("lost", "wrong", "billed_twice", "inconsistent", "unknown", "open") if counts[name]]
    warnings = [f"missing book: {text}" for text in missing] + _warnings(books, counts)
    return {
        "schema": SCHEMA,
        "ok": not bad and not missing and counts["accepted"] > 0,
        "audit": result,
        "inconsistent": counts["inconsistent"],
        "unknown": counts["unknown"],
        "open": counts["open"],
        "latency_s": _latency(client.tasks.values()),
        "longest_gap_s": longest_gap([task.accepted_at for task in client.tasks.values() if task.accepted_at]),
        "client": {
            "tasks": len(client.tasks),
            "ended": client.ended,
            "cut_on_purpose": client.cut,
            "retries": client.retried,
            "declined": client.declined,
            "rejected": counts["rejected"],
        },
        "books": {
            "client": True,
            "journals": bool(books.journals) and not books.uncovered(),
            "ledger": books.submits is not None,
        },
        "warnings": warnings,
        "problems": {kind: found for kind, found in sorted(tally.examples.items()) if found},
    }


def _warnings(books: _Books, counts: Counter[str]) -> list[str]:
    checks = (
        (not counts["accepted"], "nothing was accepted: this audit proves nothing"),
        (not books.client.ended, "the client's book has no end: the client was killed"),
        (
            bool(books.uncovered()),
            f"no journal of {', '.join(books.uncovered())}: what they wrote was not compared",
        ),
        (books.submits is None, "no ledger given: double billing is unknown, not zero"),
    )
    return [text for holds, text in checks if holds]


def _latency(tasks: Any) -> dict[str, float | None]:
    """From the first request of a task to its answer in the client's hand."""
    times = sorted(task.read_at - task.sent_at for task in tasks if task.state == "succeeded")
    return {f"p{share}": percentile(times, share) for share in (50, 95, 99)}


def percentile(ordered: Sequence[float], share: int) -> float | None:
    """Nearest rank; None of nothing."""
    if not ordered:
        return None
    return round(ordered[max(0, -(-len(ordered) * share // 100) - 1)], 3)


def longest_gap(times: Sequence[float]) -> float | None:
    """The longest time in which no task was accepted, between the first and the last."""
    ordered = sorted(times)
    if len(ordered) < 2:
        return None
    return round(max(later - earlier for earlier, later in pairwise(ordered)), 3)


def table(report: Mapping[str, Any]) -> str:
    """For people."""
    rows = [(name.replace("_", " "), "unknown" if n is None else str(n)) for name, n in report["audit"].items()]
    rows += [(name, str(report[name])) for name in ("inconsistent", "unknown", "open") if report[name]]
    rows += [
        (f"latency {name}", "-" if value is None else f"{value:.2f} s") for name, value in report["latency_s"].items()
    ]
    gap = report["longest_gap_s"]
    rows.append(("longest gap", "-" if gap is None else f"{gap:.2f} s"))
    width = max(len(name) for name, _unused in rows)
    lines = [f"{name:<{width}}  {value:>9}" for name, value in rows]
    for kind, found in report["problems"].items():
        lines += [f"{kind}: {one.get('id') or one.get('key') or one.get('worker')}: {one['why']}" for one in found[:3]]
    lines += [f"note: {text}" for text in report["warnings"]]
    lines.append("books agree: nothing lost" if report["ok"] else "AUDIT FAILED")
    return "\n".join(lines)
