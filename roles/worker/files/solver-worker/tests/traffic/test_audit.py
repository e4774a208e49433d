# SPDX-License-Identifier: GPL-3.0-or-later
"""Each class of the audit is reachable, and every accepted task is in exactly one."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from solver_worker.traffic import book
from solver_worker.traffic.audit import CLASSES, audit, longest_gap, percentile, table
from solver_worker.traffic.book import ClientBook
from solver_worker.traffic.journals import Entry, JournalBook


def client(*events: Mapping[str, Any], ended: bool = True) -> ClientBook:
    lines = [json.dumps({"at": 10.0, "key": "k", "worker": "w1", "id": "w1-1", **event}) for event in events]
    return book.read([*lines, *(['{"event": "end", "at": 99}'] if ended else [])])


TASK = {"event": "task", "nonce": "nonce-1", "expected": "solved:nonce-1"}
SEND = {"event": "send"}
ACCEPTED = {"event": "accepted", "at": 11.0}
ANSWERED = {"event": "final", "state": "succeeded", "solution": "solved:nonce-1", "at": 15.0}


def journal(
    state: str | None = "succeeded", gone: bool = False, solution: str | None = "solved:nonce-1"
) -> JournalBook:
    if state is None:
        return JournalBook()
    is_open = state in ("accepted", "submitting", "polling")
    totals = {"accepted": 1} if is_open else {"accepted": 1, state: 1}
    return JournalBook({"k": Entry("k", state, solution, gone)}, totals, int(is_open))


def ledger(*states: str, solved_at: float = 14.0) -> dict[str, Any]:
    submits = [{"id": str(n), "state": state, "solved_at": solved_at} for n, state in enumerate(states)]
    return {"nonces": {"nonce-1": {"submits": submits}}}


GOOD = (TASK, SEND, ACCEPTED, ANSWERED)
FAILED = {"event": "final", "state": "failed", "error": "TIMEOUT", "at": 15.0}


@pytest.mark.parametrize(
    ("kind", "events", "workers_book", "providers_book"),
    [
        ("answered", GOOD, journal(), ledger("solved")),
        ("failed", (TASK, SEND, ACCEPTED, FAILED), journal("failed"), ledger("solving")),
        # Solved, but only after the client had been told that it failed.
        ("failed", (TASK, SEND, ACCEPTED, FAILED), journal("failed"), ledger("solved", solved_at=16)),
        ("expired", (TASK, SEND, ACCEPTED, {**ANSWERED, "state": "expired"}), journal("expired"), ledger("solved")),
        (
            "uncertain",
            (TASK, SEND, ACCEPTED, {**ANSWERED, "state": "uncertain"}),
            journal("uncertain"),
            ledger("solved"),
        ),
        ("wrong", (TASK, SEND, ACCEPTED, {**ANSWERED, "solution": "x"}), journal(), ledger("solved")),
        ("refused", (TASK, {"event": "refused"}), journal(None), {"nonces": {}}),
        # Cut off, and the journal says that it never arrived.
        ("refused", (TASK, SEND), journal(None), {"nonces": {}}),
        # Lost in every way.
        ("lost", (TASK, SEND, ACCEPTED), journal("polling"), ledger("solved")),
        ("lost", (TASK, SEND, ACCEPTED), journal(), ledger("solved")),
        ("lost", (TASK, SEND, ACCEPTED, {"event": "gone", "why": "read answered 404"}), journal(None), ledger()),
        ("lost", GOOD, journal(None), ledger("solved")),
        ("lost", (TASK, SEND, ACCEPTED, {**ANSWERED, "expires_at": 14.9}), journal(), ledger("solved")),
        ("lost", (TASK, SEND, ACCEPTED, FAILED), journal("failed"), ledger("solved")),
        ("lost", (TASK, SEND), journal("polling"), ledger("solving")),
        ("lost", (TASK, {"event": "refused"}), journal(None), ledger("solved")),
    ],
)
def test_each_task_is_in_one_class(
    kind: str, events: tuple[Mapping[str, Any], ...], workers_book: JournalBook, providers_book: dict[str, Any]
) -> None:
    report = audit(client(*events), {"w1": workers_book}, providers_book)
    counted = {name: count for name, count in report["audit"].items() if count}
    assert counted == ({kind: 1} if kind == "refused" else {"accepted": 1, kind: 1})
    assert report["ok"] is (kind in ("answered", "failed", "expired", "uncertain"))
    assert report["inconsistent"] == 0


def test_two_bills_are_told_with_the_providers_ids() -> None:
    report = audit(client(*GOOD), {"w1": journal()}, ledger("solved", "solving"))
    assert report["audit"]["billed_twice"] == 1
    assert report["problems"]["billed_twice"][0]["provider_ids"] == ["0", "1"]
    assert not report["ok"]


def test_an_unsolvable_one_may_be_submitted_again() -> None:
    report = audit(client(*GOOD), {"w1": journal()}, ledger("unsolvable", "solved"))
    assert (report["audit"]["billed_twice"], report["ok"]) == (0, True)


def test_two_workers_with_one_key_and_a_changed_final_are_inconsistent() -> None:
    report = audit(client(*GOOD), {"w1": journal(), "w2": journal("failed")}, ledger("solved"))
    assert report["inconsistent"] == 2
    assert not report["ok"]


def test_a_journal_that_does_not_add_up_is_inconsistent() -> None:
    bad = journal()
    bad.totals["accepted"] = 2
    report = audit(client(*GOOD), {"w1": bad}, ledger("solved"))
    assert report["problems"]["inconsistent"] == [{"why": "the totals of the journal do not add up", "worker": "w1"}]


def test_a_rejected_task_is_not_a_refused_one() -> None:
    report = audit(
        client(TASK, SEND, {"event": "rejected", "why": "422 key_reused"}, *()), {"w1": journal(None)}, {"nonces": {}}
    )
    assert (report["audit"]["refused"], report["client"]["rejected"], report["ok"]) == (0, 1, False)


def test_missing_books_are_said_and_never_green_by_silence() -> None:
    report = audit(client(*GOOD))
    assert report["books"] == {"client": True, "journals": False, "ledger": False}
    assert report["audit"]["billed_twice"] is None
    assert "no journal of w1: what they wrote was not compared" in report["warnings"]
    assert "no ledger given: double billing is unknown, not zero" in report["warnings"]
    assert "billed twice    unknown" in table(report)


def test_a_journal_of_only_some_workers_is_said() -> None:
    report = audit(client(*GOOD), {"w2": JournalBook()}, ledger("solved"))
    assert (report["audit"]["answered"], report["books"]["journals"]) == (1, False)


def test_a_book_that_was_asked_for_and_is_not_there_fails_the_audit() -> None:
    report = audit(client(*GOOD), {"w1": journal()}, None, ["ledger: no such file"])
    assert not report["ok"]
    assert "missing book: ledger: no such file" in report["warnings"]


def test_nothing_accepted_proves_nothing() -> None:
    report = audit(client(), {}, {"nonces": {}})
    assert not report["ok"]
    assert "nothing was accepted: this audit proves nothing" in report["warnings"]


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        (journal(), "answered"),
        (journal(solution="x"), "wrong"),
        (journal("failed"), "failed"),
        (journal("polling"), "open"),
        (journal(gone=True), "lost"),
    ],
)
def test_after_a_killed_client_the_journal_speaks(entry: JournalBook, kind: str) -> None:
    report = audit(client(TASK, SEND, ACCEPTED, ended=False), {"w1": entry}, ledger("solved"))
    counts = {**report["audit"], "open": report["open"]}
    assert counts["accepted"] == counts[kind] == 1
    assert report["ok"] is (kind in ("answered", "failed"))


def test_a_doubtful_submit_without_a_journal_stays_unknown() -> None:
    report = audit(client(TASK, SEND), None, {"nonces": {}})
    assert (report["unknown"], report["audit"]["refused"], report["ok"]) == (1, 0, False)


def test_the_classes_add_up() -> None:
    events: list[Mapping[str, Any]] = []
    for number, state in enumerate(["succeeded", "failed", "expired", "uncertain", None, "succeeded"]):
        mine = {"key": str(number), "nonce": f"nonce-{number}", "expected": "good", "id": f"w1-{number}"}
        events += [{**TASK, **mine}, {**SEND, **mine}, {**ACCEPTED, **mine}]
        if state:
            events.append({**ANSWERED, **mine, "state": state, "solution": "bad" if number == 5 else "good"})
    counts = audit(client(*events))["audit"]
    assert counts == {
        **dict.fromkeys(CLASSES, 1),
        "accepted": 6,
        "billed_twice": None,
        "refused": 0,
    }


def test_percentiles_and_gaps() -> None:
    assert percentile([], 50) is None
    assert [percentile([float(n) for n in range(1, 101)], share) for share in (50, 95, 99)] == [50, 95, 99]
    assert percentile([3.0], 99) == 3.0
    assert longest_gap([5.0]) is None
    assert longest_gap([1.0, 9.0, 2.0]) == 7.0


def test_a_torn_last_line_is_left_out() -> None:
    lines = [json.dumps({"at": 1.0, "key": "k", **TASK}), '{"event": "send", "ke']
    assert book.read(lines).tasks["k"].worker == ""
