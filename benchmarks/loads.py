"""Runs one load of publishers and subscribers against a server and measures rate and CPU.

CPU is that of the server's process, and of the NATS server's, from the start of the load until the server is quiet again:
what it writes behind is in.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.processes import Generator, cpu_s, settle
from tests.support.nats_process import NatsProcess

WINDOW: Final = 16384
"""Publishes that one publisher has outstanding."""

MAX_IN_FLIGHT: Final = 1024

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Load:
    """Publishers and subscribers of one channel, or publishers that take several channels in turn.

    Every subscription gets every message, but those of a group share them.
    """

    size: int
    """Bytes of a message."""
    publishers: int = 1
    subscribers: int = 0
    """Processes with one NATS connection and client each."""
    subscriptions: int = 1
    """Of each subscriber."""
    group: str = ""
    channels: int = 1

    def __post_init__(self) -> None:
        assert not (self.group and self.subscribers > 1), "a subscriber counts the messages of its own members only"
        assert not (self.channels > 1 and self.subscribers), "subscribers have one channel"

    @property
    def copies(self) -> int:
        """Deliveries per message."""
        return self.subscribers * (1 if self.group else self.subscriptions)


@dataclass(frozen=True, slots=True)
class Target:
    """A server under load: its NATS server, its process (None for the responder) and its cluster id."""

    nats: NatsProcess
    pid: int | None
    cluster_id: str


def run_load(target: Target, load: Load, channel: str, count: int) -> Row:
    """Publishes about `count` messages and waits for every ack and delivery; figures per published message.

    The names of the clients follow from `channel`: loads at the same time need different ones.
    """
    per_publisher = count // load.publishers
    total = per_publisher * load.publishers
    shared = {"port": target.nats.port, "cluster": target.cluster_id, "channel": channel}
    subscribing: dict[str, object] = {"max_in_flight": MAX_IN_FLIGHT, "subscriptions": load.subscriptions}
    if load.group:
        subscribing["group"] = load.group
    subscribers = [
        Generator("sub", **shared, client=f"sub-{channel}-{i}".replace(".", "-"), count=total, **subscribing)
        for i in range(load.subscribers)
    ]
    publishers = [
        Generator(
            "pub",
            **shared,
            client=f"pub-{channel}-{i}".replace(".", "-"),
            channels=load.channels,
            count=per_publisher,
            size=load.size,
            window=WINDOW,
        )
        for i in range(load.publishers)
    ]
    pids = [target.nats.pid] + ([target.pid] if target.pid is not None else [])
    before = [cpu_s(pid) for pid in pids]
    for generator in [*subscribers, *publishers]:
        generator.go()
    published = [generator.result() for generator in publishers]
    received = [generator.result() for generator in subscribers]
    if target.pid is not None:
        settle(target.pid)
    used = [cpu_s(pid) - start for pid, start in zip(pids, before, strict=True)]
    row = _counted(published, received, total)
    row["nats_us_per_message"] = used[0] / total * 1e6
    if target.pid is not None:
        row |= _accounted(row, used[1], used[0], total * load.copies)
    return row


def _counted(published: list[Row], received: list[Row], total: int) -> Row:
    """What the generators saw; `messages_per_s` ends with the last ack of a message or delivery."""
    results = published + received
    errors: Counter[str] = Counter()
    for result in results:
        errors.update(result["errors"])
    seconds = _span_s(results)
    return {
        "messages": total,
        "seconds": seconds,
        "messages_per_s": total / seconds,
        "published_per_s": total / _span_s(published),
        "received": sum(r["received"] for r in received),
        "received_least": min((r["least"] for r in received), default=0),
        "received_most": max((r["most"] for r in received), default=0),
        "redelivered": sum(r["redelivered"] for r in received),
        "errors": dict(errors),
        "failed": sum(r["status"] != 0 for r in results),
        "generator_cores": sum(r["cpu_seconds"] for r in results) / seconds,
    }


def _accounted(row: Row, our_s: float, nats_s: float, deliveries: int) -> Row:
    """CPU of the server, by message and by delivery."""
    accounted: Row = {
        "our_us_per_message": our_s / row["messages"] * 1e6,
        "our_to_nats_cpu": our_s / nats_s if nats_s else None,
        "messages_per_cpu_s": row["messages"] / our_s if our_s else None,
        "our_cores": our_s / row["seconds"],
    }
    if deliveries > row["messages"]:
        accounted["deliveries_per_s"] = deliveries / row["seconds"]
        accounted["our_us_per_delivery"] = our_s / deliveries * 1e6
        accounted["nats_us_per_delivery"] = nats_s / deliveries * 1e6
    return accounted


def _span_s(results: Iterable[Row]) -> float:
    """From the first start to the last end; all generators read one monotonic clock."""
    results = list(results)
    return float(max(r["end_ns"] for r in results) - min(r["start_ns"] for r in results)) / 1e9
