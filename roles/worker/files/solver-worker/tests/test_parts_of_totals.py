# SPDX-License-Identifier: GPL-3.0-or-later
"""What the status document says beside the totals: whose fault failures were, and how long solves took."""

from pathlib import Path

from solver_worker import histogram
from solver_worker.journal import CLASSES, Final, Journal, digest_of


def end(journal: Journal, name: str, final: Final, solve_s: float | None = None) -> None:
    document = {"method": "x"}
    journal.accept(task_id=name, key=name, digest=digest_of(document), method="x", payload="{}", at=1.0)
    journal.submitting(name)
    journal.polling(name, name, 2.0)
    journal.finish(name, final, solve_s)


def test_failures_by_class_and_solves_by_time_are_parts_of_the_totals(tmp_path: Path) -> None:
    """They are in the journal, so they go on in the next process."""
    path = tmp_path / "journal.sqlite3"
    journal = Journal(path)
    assert journal.books().failures == dict.fromkeys(CLASSES, 0)
    end(journal, "a", Final("succeeded", 3.0, "s"), 0.05)
    end(journal, "b", Final("succeeded", 3.0, "s"), 31.0)
    end(journal, "c", Final("failed", 3.0, error_code="TIMEOUT", error_class="provider"))
    end(journal, "d", Final("failed", 3.0, error_code="OTHER", error_class="worker"))
    end(journal, "e", Final("uncertain", 3.0, error_code="SUBMIT_UNKNOWN", error_class="network"))
    journal.close()
    journal = Journal(path)
    books = journal.books()
    journal.close()
    assert books.failures == {"worker": 1, "account": 0, "provider": 1, "task": 0, "network": 0}
    assert sum(books.failures.values()) == books.totals["failed"]
    assert sum(books.histogram) == books.totals["succeeded"]
    assert (books.histogram[0], books.histogram[histogram.bucket(31.0)]) == (1, 1)
