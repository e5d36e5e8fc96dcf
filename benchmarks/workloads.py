"""The rows with fixed meaning: throughput, latency, memory and restart.

Every publish row runs with the same generators against the trivial responder first; ratios are within one run.
"""

import asyncio
import time
from contextlib import suppress
from typing import Final

from benchmarks.loads import WINDOW, Load, Row, Target, run_load
from benchmarks.processes import Generator, Memory, memory, settle
from tests.support.nats_process import NatsProcess
from tests.support.raw_client import RawClient
from tests.support.raw_nats import NoRespondersError
from tests.support.server_process import ServerProcess

OUR_CLUSTER: Final = "bench"
YARDSTICK_CLUSTER: Final = "yardstick"
ACK_WAIT_NEVER_S: Final = 3600
FIRST_ACK_TIMEOUT_S: Final = 120.0
RETRY_S: Final = 0.02
"""Timeout of one attempt of the reconnecting publisher, seconds."""

THROUGHPUT: Final = {
    f"{'publish+deliver+ack' if subscribed else 'publish+ack'} {parties}x {size} B": Load(
        size, publishers=parties, subscribers=parties * subscribed
    )
    for subscribed in (False, True)
    for size in (128, 1024)
    for parties in (1, 4)
}


def throughput(ours: Target, yardstick: Target, name: str, count: int, tag: str) -> Row:
    """One throughput row; `responder_per_s` is the publish rate that the same publishers reach with the responder."""
    load = THROUGHPUT[name]
    responder = run_load(yardstick, Load(load.size, publishers=load.publishers), f"{tag}.yardstick", count)
    row = run_load(ours, load, tag, count)
    row["responder_per_s"] = responder["messages_per_s"]
    row["to_responder"] = row["messages_per_s"] / responder["messages_per_s"]
    return {"row": name, "size": load.size, "publishers": load.publishers, "subscribers": load.subscribers, **row}


def sync_publish(ours: Target, yardstick: Target, size: int, count: int, tag: str) -> Row:
    """Latency with one publish outstanding, microseconds, and its ratio to the responder's."""
    results = {}
    for name, target in (("responder", yardstick), ("ours", ours)):
        generator = Generator(
            "sync",
            port=target.nats.port,
            cluster=target.cluster_id,
            channel=tag,
            client=f"{tag}-{name}".replace(".", "-"),
            count=count,
            size=size,
        )
        generator.go()
        results[name] = generator.result()
    mine, other = results["ours"], results["responder"]
    return {
        "row": f"sync publish {size} B",
        "size": size,
        "messages": count,
        "messages_per_s": mine["per_second"],
        **{key: mine[key] for key in ("p50_us", "p90_us", "p99_us", "max_us", "errors")},
        "failed": int(mine["status"] != 0) + int(other["status"] != 0),
        "responder_p50_us": other["p50_us"],
        "responder_p99_us": other["p99_us"],
        "p50_to_responder": mine["p50_us"] / other["p50_us"],
    }


def fill(
    nats: NatsProcess, channel: str, count: int, *, cluster_id: str = OUR_CLUSTER, channels: int = 1, size: int = 128
) -> None:
    """Stores messages, with `channels` above 1 in channels `channel`.0 and so on; raises RuntimeError without its acks."""
    generator = Generator(
        "pub",
        port=nats.port,
        cluster=cluster_id,
        channel=channel,
        channels=channels,
        client="filler",
        count=count,
        size=size,
        window=WINDOW,
    )
    generator.go()
    result = generator.result()
    if result["status"]:
        raise RuntimeError(f"filling {channel} failed: {result}")


def _difference(after: Memory, before: Memory) -> Row:
    return {
        "resident_bytes": after.resident_bytes - before.resident_bytes,
        "anonymous_bytes": after.anonymous_bytes - before.anonymous_bytes,
    }


def stored_memory(server: ServerProcess, nats: NatsProcess, count: int) -> Row:
    """Resident memory of a fresh server before and after storing messages of 128 B in one channel."""
    before = memory(server.pid)
    fill(nats, "memory", count)
    settle(server.pid)
    after = memory(server.pid)
    grown = _difference(after, before)
    return {
        "row": f"memory, {count} messages stored",
        "messages": count,
        "empty_resident_bytes": before.resident_bytes,
        "resident_bytes": after.resident_bytes,
        "anonymous_bytes": after.anonymous_bytes,
        "bytes_per_message": grown["resident_bytes"] / count,
        "anonymous_bytes_per_message": grown["anonymous_bytes"] / count,
        "failed": 0,
    }


def delivered_memory(server: ServerProcess, nats: NatsProcess, count: int, *, acked: bool) -> Row:
    """Growth of a fresh server's memory by delivering stored messages to one subscriber, with or without its acks.

    The messages are stored before the first reading, so what storing costs is not in the difference. Taking the growth
    with acks off the growth without leaves what the unacked messages themselves cost.
    """
    fill(nats, "memory", count)
    settle(server.pid)
    before = memory(server.pid)
    options: dict[str, object] = {} if acked else {"no_ack": True}
    subscriber = Generator(
        "sub",
        port=nats.port,
        cluster=OUR_CLUSTER,
        channel="memory",
        client="reader",
        count=count,
        start="first",
        max_in_flight=count,
        ack_wait=ACK_WAIT_NEVER_S,
        **options,
    )
    subscriber.go()
    if acked:
        result = subscriber.result()
        settle(server.pid)
        after = memory(server.pid)
    else:
        subscriber.wait_ready()
        settle(server.pid)
        after = memory(server.pid)
        subscriber.go()
        result = subscriber.result()
    return {"failed": int(result["status"] != 0), **_difference(after, before)}


def unacked_row(count: int, unacked: Row, control: Row) -> Row:
    """The row of unacked messages out of the two runs of `delivered_memory`."""
    net = {key: unacked[key] - control[key] for key in ("resident_bytes", "anonymous_bytes")}
    return {
        "row": f"memory, {count} messages unacked",
        "messages": count,
        "growth_without_acks_bytes": unacked["resident_bytes"],
        "growth_with_acks_bytes": control["resident_bytes"],
        "bytes_per_message": net["resident_bytes"] / count,
        "anonymous_bytes_per_message": net["anonymous_bytes"] / count,
        "failed": unacked["failed"] + control["failed"],
    }


def restart_row(server: ServerProcess, count: int, *, orderly: bool) -> Row:
    """Seconds from the start of the process to the first PubAck of a publisher that reconnects as soon as it can."""
    if orderly:
        server.stop()
    else:
        server.kill()
    seconds = first_ack_s(server)
    return {
        "row": f"restart after {'stop' if orderly else 'kill -9'}, {count} messages",
        "messages": count,
        "seconds_to_first_ack": seconds,
        "failed": 0,
    }


def first_ack_s(server: ServerProcess) -> float:
    """Starts a server that was stopped; seconds from the start of its process to the first PubAck."""
    seconds = asyncio.run(_first_ack_s(server))
    server.wait_ready()
    return seconds


async def _first_ack_s(server: ServerProcess) -> float:
    start = time.monotonic()
    server.spawn()
    async with asyncio.timeout(FIRST_ACK_TIMEOUT_S):
        while True:
            attempt = time.monotonic()
            with suppress(TimeoutError, NoRespondersError, ConnectionRefusedError):
                client = await RawClient.connect(
                    server.url, "reconnecting", cluster_id=server.cluster_id, timeout_s=RETRY_S * 10
                )
                try:
                    answer = await client.publish("memory", b"after the restart", timeout_s=FIRST_ACK_TIMEOUT_S)
                finally:
                    await client.nats.close()
                if not answer.error:
                    return time.monotonic() - start
            await asyncio.sleep(max(0.0, attempt + RETRY_S - time.monotonic()))
