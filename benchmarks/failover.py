"""Measures how long clients of three nodes get no PubAck when the leader dies, or is stopped in order.

A client publishes every 10 ms, whatever became of the publishes before. The outage lasts from the signal to the first
PubAck of the next leader, which is the first one behind its log line that it became leader: until it hands over, a leader
that stops in order still answers. The silence is the longest time without any PubAck from just before the signal on.
"""

import asyncio
import math
import os
import signal
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from benchmarks.cluster import CLUSTER_ID, OPENED_TEXT, ThreeNodes
from benchmarks.loads import Row
from tests.support.raw_client import RawClient
from tests.support.server_process import ServerProcess

CHANNEL: Final = "failover"
INTERVAL_S: Final = 0.01
PUBLISH_TIMEOUT_S: Final = 5.0
"""How long one publish waits for its PubAck, seconds: others go on meanwhile."""

OUTAGE_MAX_S: Final = 60.0


class SteadyPublisher:
    """Publishes on a beat. `acked` has the moments of PubAcks without error, seconds of the monotonic clock."""

    def __init__(self, client: RawClient) -> None:
        self._client = client
        self._open: set[asyncio.Task[None]] = set()
        self._number = 0
        self.acked: list[float] = []
        self.newest_acked_sent_s = 0.0
        """When the last published one of the acked publishes left."""
        self.unanswered = 0
        self.errors: list[str] = []

    async def run(self) -> None:
        """Until cancelled."""
        due = time.monotonic()
        while True:
            task = asyncio.create_task(self._publish())
            self._open.add(task)
            task.add_done_callback(self._open.discard)
            due += INTERVAL_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def finish(self) -> None:
        """Waits for what is still open."""
        await asyncio.gather(*self._open)

    async def _publish(self) -> None:
        self._number += 1
        sent_s = time.monotonic()
        try:
            answer = await self._client.publish(CHANNEL, b"%d" % self._number, timeout_s=PUBLISH_TIMEOUT_S)
        except TimeoutError:
            self.unanswered += 1
            return
        if answer.error:
            self.errors.append(answer.error)
            return
        self.acked.append(time.monotonic())
        self.newest_acked_sent_s = max(self.newest_acked_sent_s, sent_s)


@dataclass(frozen=True, slots=True)
class Outage:
    """What clients notice of one signal, seconds."""

    outage_s: float
    silence_s: float


def outage_of(signal_s: float, leader_s: float, acked: Sequence[float]) -> Outage:
    """The outage by the moments of the signal, of the next leader's beginning, and of the PubAcks, which are in order."""
    first, next_acked = bisect_left(acked, leader_s), bisect_left(acked, signal_s)
    moments = [acked[next_acked - 1] if next_acked else signal_s, *acked[next_acked : first + 1]]
    return Outage(acked[first] - signal_s, max(later - earlier for earlier, later in pairwise(moments)))


async def _one_outage(nodes: ThreeNodes, publisher: SteadyPublisher, number: signal.Signals) -> Outage:
    """Ends the leader and measures. Returns when that node is back and has caught up."""
    leader = nodes.leader()
    server = nodes.nodes[leader]
    signal_s = time.monotonic()
    os.kill(server.pid, number)
    async with asyncio.timeout(OUTAGE_MAX_S):
        await asyncio.to_thread(server.kill if number is signal.SIGKILL else server.stop)
        successor = await asyncio.to_thread(nodes.leader, other_than=leader)
        led_s = time.monotonic()
        while publisher.newest_acked_sent_s <= led_s:
            await asyncio.sleep(INTERVAL_S)
    outage = outage_of(signal_s, nodes.leads_since_s(successor), publisher.acked)
    await asyncio.to_thread(_bring_back, nodes, leader, server)
    return outage


def _bring_back(nodes: ThreeNodes, name: str, server: ServerProcess) -> None:
    """Starts a node that has ended, and waits until it has what the leader has now."""
    server.spawn()
    server.wait_for_log(OPENED_TEXT)
    nodes.wait_caught_up(name, nodes.durable_index(nodes.leader()))


async def outages(nodes: ThreeNodes, number: signal.Signals, count: int) -> tuple[list[Outage], SteadyPublisher]:
    """As many outages."""
    async with await RawClient.connect(nodes.nats.port, f"beat-{number.name}", cluster_id=CLUSTER_ID) as client:
        publisher = SteadyPublisher(client)
        beating = asyncio.create_task(publisher.run())
        try:
            await client.publish(CHANNEL, b"first", timeout_s=OUTAGE_MAX_S)
            found = [await _one_outage(nodes, publisher, number) for _ in range(count)]
        finally:
            beating.cancel()
        await publisher.finish()
    return found, publisher


def failover_row(nodes: ThreeNodes, number: signal.Signals, count: int) -> Row:
    """Outages by a signal to the leader, as often as `count`."""
    found, publisher = asyncio.run(outages(nodes, number, count))
    row: Row = {"row": f"failover, {number.name}", "signals": count}
    for name, values in (
        ("outage", [one.outage_s for one in found]),
        ("silence", [one.silence_s for one in found]),
    ):
        ordered = sorted(values)
        row |= {
            f"{name}_p50_s": percentile(ordered, 0.5),
            f"{name}_p99_s": percentile(ordered, 0.99),
            f"{name}_max_s": ordered[-1],
            f"{name}_all_s": values,
        }
    return {
        **row,
        "acked": len(publisher.acked),
        "unanswered": publisher.unanswered,
        "errors": publisher.errors,
        "failed": 0,
    }


def percentile(ordered: list[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]
