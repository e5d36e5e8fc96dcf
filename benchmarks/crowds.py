"""Rows about what a server pays for idle subscriptions, clients and channels, and for offline durables.

Two servers run on one NATS server at the same time, an empty one and one with the crowd, and get the same load in turn.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from benchmarks.comparison import Side, compare
from benchmarks.loads import Load, Row, Target
from benchmarks.processes import Crowd, cpu_s, memory, settle
from benchmarks.workloads import fill, first_ack_s
from tests.support.nats_process import NatsProcess
from tests.support.server_process import ServerProcess

LOAD: Final = Load(128, publishers=1, subscribers=1)
CROWD_CHANNELS: Final = 100
CROWD_CHANNEL: Final = "crowd"
HEARTBEAT_S: Final = 30.0
"""How long idleness is watched, seconds: every client gets one heartbeat in it (--hb_interval)."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of the load each run has, and how many pairs of runs."""

    count: int
    pairs: int
    watch_s: float = HEARTBEAT_S
    """How long idleness is watched, seconds; 0: not at all."""


def _target(nats: NatsProcess, server: ServerProcess) -> Target:
    return Target(nats, server.pid, server.cluster_id)


@contextmanager
def crowd_of(kind: str, number: int, nats: NatsProcess, server: ServerProcess) -> Iterator[None]:
    """`number` idle subscriptions (of 100 clients, on 100 channels), clients or channels (of one message) at `server`."""
    options: dict[str, object] = {"port": nats.port, "cluster": server.cluster_id, "channel": CROWD_CHANNEL}
    with ExitStack() as stack:
        match kind:
            case "subscriptions":
                stack.enter_context(Crowd(**options, clients=100, channels=CROWD_CHANNELS, subscriptions=number))
            case "clients":
                stack.enter_context(Crowd(**options, clients=number))
            case "channels":
                fill(nats, CROWD_CHANNEL, number, cluster_id=server.cluster_id, channels=number)
            case _:
                raise ValueError(f"kind {kind!r}: subscriptions, clients or channels")
        yield


def idle_row(
    kind: str, number: int, nats: NatsProcess, empty: ServerProcess, crowded: ServerProcess, scale: Scale
) -> Row:
    """The load with `number` idle things at `crowded`, against the same load at `empty`; `crowded` is fresh."""
    before = memory(crowded.pid)
    with crowd_of(kind, number, nats, crowded):
        settle(crowded.pid)
        grown = memory(crowded.pid).resident_bytes - before.resident_bytes
        row = compare(
            f"{number} idle {kind}",
            Side("empty", _target(nats, empty), LOAD),
            Side("crowded", _target(nats, crowded), LOAD),
            count=scale.count,
            pairs=scale.pairs,
            tag=f"{kind}{number}",
        )
        if scale.watch_s:
            row |= _watched(empty, crowded, scale.watch_s)
    return {**row, "number": number, "bytes_each": grown / number}


def _watched(empty: ServerProcess, crowded: ServerProcess, seconds: float) -> Row:
    """CPU that both use while nothing happens, microseconds per second."""
    before = [cpu_s(server.pid) for server in (empty, crowded)]
    time.sleep(seconds)
    used = [cpu_s(server.pid) - start for server, start in zip((empty, crowded), before, strict=True)]
    return {"empty_idle_us_per_s": used[0] / seconds * 1e6, "idle_us_per_s": used[1] / seconds * 1e6}


def durable_rows(
    number: int, clients: int, nats: NatsProcess, empty: ServerProcess, crowded: ServerProcess, scale: Scale
) -> Iterator[Row]:
    """Memory, throughput and start-up with `number` offline durables at `crowded`; both servers are fresh."""
    for server in (empty, crowded):
        fill(nats, CROWD_CHANNEL, CROWD_CHANNELS, cluster_id=server.cluster_id, channels=CROWD_CHANNELS)
        settle(server.pid)
    before = memory(crowded.pid)
    crowd = Crowd(
        port=nats.port,
        cluster=crowded.cluster_id,
        channel=CROWD_CHANNEL,
        channels=CROWD_CHANNELS,
        clients=clients,
        subscriptions=number,
        durable="durable",
    )
    registered = crowd.leave()
    settle(crowded.pid)
    after = memory(crowded.pid)
    yield {
        "row": f"{number} durables, memory",
        "number": number,
        "seconds_to_register": registered["seconds"],
        "bytes_each": (after.resident_bytes - before.resident_bytes) / number,
        "anonymous_bytes_each": (after.anonymous_bytes - before.anonymous_bytes) / number,
        "failed": 0,
    }
    for place, channel in (("", ""), (" of the same channel", f"{CROWD_CHANNEL}.0")):
        yield compare(
            f"{number} durables, load{place}",
            Side("empty", _target(nats, empty), LOAD, channel),
            Side("crowded", _target(nats, crowded), LOAD, channel),
            count=scale.count,
            pairs=scale.pairs,
            tag=f"durables{number}",
        )
    for orderly in (True, False):
        seconds = {}
        for name, server in (("empty", empty), ("crowded", crowded)):
            if orderly:
                server.stop()
            else:
                server.kill()
            seconds[name] = first_ack_s(server)
        yield {
            "row": f"{number} durables, restart after {'stop' if orderly else 'kill -9'}",
            "number": number,
            "seconds_to_first_ack": seconds["crowded"],
            "base_seconds_to_first_ack": seconds["empty"],
            "start_us_each": (seconds["crowded"] - seconds["empty"]) / number * 1e6,
            "resident_bytes_each": (memory(crowded.pid).resident_bytes - memory(empty.pid).resident_bytes) / number,
            "failed": 0,
        }
