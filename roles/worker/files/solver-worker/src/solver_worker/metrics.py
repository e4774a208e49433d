# SPDX-License-Identifier: GPL-3.0-or-later
"""The status document in Prometheus' text format. A number that is not known is left out: unknown is not 0.

Labels are words that this file lists, and the worker's name, version and release: nothing of a client, a key or a task.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from . import histogram
from .journal import CLASSES, FINALS, OPEN

# Understood by every Prometheus; newer ones ask for more, and take it.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STATES = ("starting", "recovering", "running", "draining", "drained", "stopping", "failed")
UNKNOWN_CLASS = "unknown"  # of a failure that a release without classes booked


class _Once:
    def __init__(self, status: Mapping[str, Any]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        yield from _instance(self._status)
        yield from _drain(self._status["drain"])
        yield from _open(self._status["tasks"])
        if self._status["totals"] is not None:
            yield from _totals(self._status["totals"], self._status["failures"])
            yield _solves(self._status["solve_histogram"])
        if self._status["provider"] is not None:
            yield from _provider(self._status["provider"])


def text(status: Mapping[str, Any]) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Once(status))
    return generate_latest(registry)


def _gauge(name: str, help_text: str, value: float | None) -> Iterator[Metric]:
    if value is not None:
        yield GaugeMetricFamily(f"solver_worker_{name}", help_text, value=float(value))


def _counter(name: str, help_text: str, value: int) -> Metric:
    return CounterMetricFamily(f"solver_worker_{name}", help_text, value=value)


def _instance(status: Mapping[str, Any]) -> Iterator[Metric]:
    instance = status["instance"]
    info = GaugeMetricFamily("solver_worker_info", "1; who this is.", labels=["worker", "version", "release"])
    info.add_metric([instance["name"], instance["version"], instance["release"]], 1)
    yield info
    state = GaugeMetricFamily("solver_worker_state", "1 for the state that the worker is in.", labels=["state"])
    for name in STATES:
        state.add_metric([name], float(status["state"] == name))
    yield state
    yield from _gauge("accepting", "1 if a new task would be taken now.", status["accepting"])
    yield from _gauge("start_time_seconds", "When this process began.", _instant(instance["started_at"]))


def _drain(drain: Mapping[str, Any] | None) -> Iterator[Metric]:
    yield from _gauge("drain_owner_present", "1 if somebody holds the worker out of service.", drain is not None)
    if drain is not None:
        ends = _instant(drain["lease_expires_at"])
        yield from _gauge("drain_lease_end_time_seconds", "When the holder's lease ends, or ended.", ends)


def _open(tasks: Mapping[str, Any] | None) -> Iterator[Metric]:
    if tasks is None:
        return
    family = GaugeMetricFamily("solver_worker_open_tasks", "Tasks accepted and not final.", labels=["state"])
    for name in OPEN:
        family.add_metric([name], tasks[name])
    yield family
    yield from _gauge("oldest_open_task_age_seconds", "Age of the oldest of them.", tasks["oldest_age_s"] or 0)
    yield from _gauge("unfetched_results", "Results that no client has fetched yet.", tasks["unfetched"])


def _totals(totals: Mapping[str, int], failures: Mapping[str, int]) -> Iterator[Metric]:
    yield _counter("accepted_tasks", "Tasks accepted, by the journal.", totals["accepted"])
    yield _counter("refused_tasks", "Tasks refused.", totals["refused"])
    yield _counter("probes", "Probes, which are real solves.", totals["probes"])
    yield _counter("provider_submits", "Tasks and probes given to the provider.", totals["provider_submits"])
    final = CounterMetricFamily(
        "solver_worker_final_tasks", "Tasks that are final; only failed ones have a class.", labels=["outcome", "class"]
    )
    for outcome in FINALS:
        if outcome != "failed":
            final.add_metric([outcome, ""], totals[outcome])
    for name in CLASSES:
        final.add_metric(["failed", name], failures[name])
    final.add_metric(["failed", UNKNOWN_CLASS], max(totals["failed"] - sum(failures.values()), 0))
    yield final


def _solves(counts: list[int]) -> Metric:
    """Without a sum, which the journal does not keep."""
    buckets: list[tuple[str, float]] = []
    so_far = 0
    for number, count in enumerate(counts):
        so_far += count
        bound = f"{histogram.FIRST_S * histogram.RATIO**number:.4g}"
        buckets.append(("+Inf" if number == histogram.BUCKETS - 1 else bound, so_far))
    return HistogramMetricFamily(
        "solver_worker_solve_seconds", "How long successful solves took.", buckets=buckets, sum_value=None
    )


def _provider(provider: Mapping[str, Any]) -> Iterator[Metric]:
    yield from _gauge("provider_ok", "1 if the provider answered the last call.", provider["ok"])
    balance = None if provider["balance"] is None else float(provider["balance"])
    yield from _gauge("provider_balance", "The account's balance when last asked for.", balance)
    yield from _gauge("provider_balance_time_seconds", "When that was.", _instant(provider["balance_at"]))


def _instant(date: str | None) -> float | None:
    return None if date is None else datetime.fromisoformat(date).timestamp()
