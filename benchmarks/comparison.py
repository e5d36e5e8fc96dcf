"""Runs two loads alternately, pair by pair, and gives the ratios of each pair: what the machine does meanwhile cancels out.

A ratio of one pair still has the noise of some seconds in it, so the row has all of them. `nats_ratios` are those of the
NATS server's CPU: where both sides give it the same to do, their spread is the noise.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.loads import Load, Row, Target, run_load


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: a load on a server. With `channel` it goes there, otherwise every run gets a new channel."""

    name: str
    target: Target
    load: Load
    channel: str = ""


def compare(name: str, base: Side, other: Side, *, count: int, pairs: int, tag: str) -> Row:
    """One row: figures of `other`, and its ratios to `base`. The order within a pair alternates."""
    runs: dict[str, list[Row]] = {base.name: [], other.name: []}
    for number in range(pairs):
        for side in (base, other) if number % 2 == 0 else (other, base):
            channel = side.channel or f"{tag}.{side.name}.{number}"
            runs[side.name].append(run_load(side.target, side.load, channel, count))
    return {"row": name, "base": base.name, "other": other.name, **ratios(runs[base.name], runs[other.name])}


def ratios(base: Sequence[Row], other: Sequence[Row]) -> Row:
    """Medians of `other` and of `base`, and the ratios of each pair of runs, other to base."""
    row: Row = {
        "messages": sum(run["messages"] for run in other),
        "redelivered": sum(run["redelivered"] for run in [*base, *other]),
        "received_least": min(run["received_least"] for run in other),
        "received_most": max(run["received_most"] for run in other),
        "errors": [run["errors"] for run in [*base, *other] if run["errors"]],
        "failed": sum(run["failed"] for run in [*base, *other]),
    }
    for key in ("messages_per_s", "our_us_per_message", "nats_us_per_message", "our_to_nats_cpu", "our_cores"):
        row[key] = statistics.median(run[key] for run in other)
        row[f"base_{key}"] = statistics.median(run[key] for run in base)
    for key, figure in (
        ("rate_ratios", "messages_per_s"),
        ("cpu_ratios", "our_us_per_message"),
        ("nats_ratios", "nats_us_per_message"),
    ):
        row[key] = [second[figure] / first[figure] for first, second in zip(base, other, strict=True)]
    return row
