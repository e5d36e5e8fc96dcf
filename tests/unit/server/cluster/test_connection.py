"""Covers server/cluster/connection.py with a real NATS server."""

import asyncio

import pytest

from server.cluster.connection import FLUSH_BYTES, PAYLOAD_RESERVE_BYTES
from tests.support.nats_process import NatsProcess
from tests.support.raw_nats import RawNats
from tests.unit.server.cluster.peers import barrier, connected, until


@pytest.mark.asyncio
async def test_frames_go_to_their_node_in_order(nats: NatsProcess, cluster_id: str) -> None:
    """What is sent leaves with a flush, each as one message made of its parts, to that node only."""
    received: dict[str, list[bytes]] = {"a": [], "b": []}
    async with (
        connected(nats.url, cluster_id, "a", on_payloads=received["a"].extend) as a,
        connected(nats.url, cluster_id, "b", on_payloads=received["b"].extend),
    ):
        a.send("b", [b"one", memoryview(b" two")])
        a.send("b", [b""])
        a.send("a", [b"\r\nPUB x 1\r\n"])
        assert received == {"a": [], "b": []}
        a.flush()
        await until(lambda: len(received["b"]) == 2 and received["a"])
    assert received == {"a": [b"\r\nPUB x 1\r\n"], "b": [b"one two", b""]}


@pytest.mark.asyncio
async def test_much_is_sent_without_a_flush(nats: NatsProcess, cluster_id: str) -> None:
    """What waits is bounded."""
    received: list[bytes] = []
    async with connected(nats.url, cluster_id, "a", on_payloads=received.extend) as a:
        assert a.max_bytes == 1024 * 1024 - PAYLOAD_RESERVE_BYTES
        part = bytes(a.max_bytes)
        for _ in range(-(-FLUSH_BYTES // a.max_bytes)):
            a.send("a", [part])
        await until(lambda: received == [part, part])


@pytest.mark.asyncio
async def test_close_writes_what_waits(nats: NatsProcess, cluster_id: str) -> None:
    """An orderly end loses nothing."""
    received: list[bytes] = []
    async with connected(nats.url, cluster_id, "b", on_payloads=received.extend):
        async with connected(nats.url, cluster_id, "a") as a:
            a.send("b", [b"last"])
        await until(lambda: received == [b"last"])


@pytest.mark.asyncio
async def test_requests(nats: NatsProcess, cluster_id: str) -> None:
    """The first answer counts; nobody there, or silent, is None, soon or in time; a late answer disturbs nobody."""
    subject = f"asked.{cluster_id}"
    async with connected(nats.url, cluster_id, "a") as a, connected(nats.url, cluster_id, "b") as b:
        replies: list[bytes] = []

        def answer(payload: bytes, reply: bytes) -> None:
            replies.append(reply)
            if payload != b"silence":
                b.publish(reply, payload.upper())
                b.publish(reply, b"another one")

        sid = b.listen(subject, answer)
        assert await b.request(subject, b"own", 10) == b"OWN"
        assert await a.request(subject, b"question", 10) == b"QUESTION"
        assert await a.request(subject, b"", 10) == b""
        numbers = [b"%d" % number for number in range(50)]
        assert await asyncio.gather(*(a.request(subject, number, 10) for number in numbers)) == numbers
        assert await a.request(subject, b"silence", 0.05) is None
        b.publish(replies[-1], b"late")
        b.unlisten(sid)
        assert await asyncio.wait_for(b.request(subject, b"?", 600), 20) is None
        assert await asyncio.wait_for(a.request(subject, b"?", 600), 20) is None


@pytest.mark.asyncio
async def test_publish_without_subject_does_nothing(nats: NatsProcess, cluster_id: str) -> None:
    """A request without reply subject has nobody to be answered."""
    async with connected(nats.url, cluster_id, "a") as a:
        heard: list[tuple[bytes, bytes]] = []
        subject = f"heard.{cluster_id}"
        a.listen(subject, lambda payload, reply: heard.append((payload, reply)))
        a.publish(b"", b"nothing")
        a.publish(subject, b"text")
        a.publish(subject.encode(), b"bytes")
        await until(lambda: len(heard) == 2)
    assert heard == [(b"text", b""), (b"bytes", b"")]


@pytest.mark.asyncio
async def test_new_connection_is_told_and_begins_empty(cluster_id: str) -> None:
    """What waited for a lost connection is lost; after it everything is heard as before."""
    received: list[bytes] = []
    restarts: list[int] = []
    heard: list[bytes] = []
    with NatsProcess() as process:
        async with connected(
            process.url, cluster_id, "a", on_payloads=received.extend, on_restart=lambda: restarts.append(1)
        ) as a:
            a.listen("heard", lambda payload, _reply: heard.append(payload))
            count = len(restarts)
            a.send("a", [b"lost"])
            process.kill()
            await until(lambda: len(restarts) > count)
            a.send("a", [b"lost, too"])
            a.flush()
            count = len(restarts)
            process.start()
            await until(lambda: len(restarts) > count)
            await barrier(a)
            a.send("a", [b"kept"])
            a.flush()
            a.publish("heard", b"heard")
            await until(lambda: received and heard)
    assert (received, heard) == ([b"kept"], [b"heard"])


@pytest.mark.asyncio
async def test_foreign_messages_on_own_subjects(nats: NatsProcess, cluster_id: str) -> None:
    """Anybody may send anything, with headers or without: the payload is handed on."""
    received: list[bytes] = []
    async with (
        connected(nats.url, cluster_id, "a", on_payloads=received.extend) as a,
        await RawNats.connect(nats.url) as raw,
    ):
        subject = a.subjects.node("a")
        raw.publish(subject, b"plain", reply="x")
        head = b"NATS/1.0\r\nKey: value\r\n\r\n"
        raw.write(b"HPUB %b %d %d\r\n%bbody\r\n" % (subject.encode(), len(head), len(head) + 4, head))
        await until(lambda: len(received) == 2)
    assert received == [b"plain", b"body"]
