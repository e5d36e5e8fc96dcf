"""Disks that fail and data that is damaged: a clear end with the reason, and nothing acked is lost (R1, R8, O533, O534, O556)."""

import asyncio
import json
import shutil
import sys
from pathlib import Path

import google_crc32c
import pytest

from server.protocol import stan_pb2 as pb
from tests.conformance.steps import Clients, payloads, publish_numbered
from tests.conformance.test_start_and_stop import fatal_line, refused_start
from tests.support.raw_client import RawClient
from tests.support.raw_nats import ConnectionLostError, NoRespondersError
from tests.support.server_process import ServerProcess

MESSAGES = 40


async def filled(directory: Path) -> None:
    """A data directory with MESSAGES acked messages in `c`, left by kill -9."""
    with ServerProcess(directory=directory) as server:
        async with Clients(server.url) as clients:
            client = await clients.connect()
            for number in range(1, MESSAGES + 1):  # one by one: each is a frame of the journal
                await publish_numbered(client, "c", 1, first=number)
        server.kill()


async def stored_payloads(server: ServerProcess, count: int) -> list[bytes]:
    """What a new subscriber reads from `c`."""
    async with Clients(server.url) as clients:
        client = await clients.connect()
        subscription = await client.subscribe("c", start=pb.First)
        await subscription.wait_count(count)
        return payloads(subscription.received)


def flip(file: Path, offset: int) -> None:
    """Change one bit."""
    with file.open("r+b") as data:
        data.seek(offset)
        byte = data.read(1)[0]
        data.seek(offset)
        data.write(bytes([byte ^ 1]))


@pytest.mark.asyncio
async def test_damaged_middle_of_the_journal(tmp_path: Path) -> None:
    """O556: frames that were synced and acked are never cut off as if they were a torn tail: file and offset are named."""
    await filled(tmp_path)
    (segment,) = sorted((tmp_path / "journal").glob("*.segment"))
    flip(segment, 512 * 4 + 100)
    reason = fatal_line(refused_start(ServerProcess(directory=tmp_path)))
    assert str(segment) in reason
    assert "2048" in reason
    flip(segment, 512 * 4 + 100)
    with ServerProcess(directory=tmp_path) as server:
        assert await stored_payloads(server, MESSAGES) == [b"%d" % number for number in range(1, MESSAGES + 1)]


@pytest.mark.asyncio
async def test_torn_end_of_the_journal(tmp_path: Path) -> None:
    """A frame that was being written when the process died was never acked: it is cut, the rest is there."""
    await filled(tmp_path)
    (segment,) = sorted((tmp_path / "journal").glob("*.segment"))
    end = len(segment.read_bytes().rstrip(b"\0"))
    with segment.open("r+b") as data:
        data.seek(-(-end // 512) * 512)
        data.write(segment.read_bytes()[:300])
    with ServerProcess(directory=tmp_path) as server:
        assert await stored_payloads(server, MESSAGES) == [b"%d" % number for number in range(1, MESSAGES + 1)]


@pytest.mark.asyncio
async def test_damaged_store(tmp_path: Path) -> None:
    """O534: a store whose pages are rubbish is named, not read."""
    await filled(tmp_path)
    data = tmp_path / "store" / "data.mdb"
    with data.open("r+b") as file:
        file.write(b"\xff" * 8192)
    assert str(data) in fatal_line(refused_start(ServerProcess(directory=tmp_path)))


@pytest.mark.asyncio
async def test_store_without_its_journal(tmp_path: Path) -> None:
    """Half of the data is not enough: the journal may hold acked messages that the store lacks."""
    await filled(tmp_path)
    shutil.rmtree(tmp_path / "journal")
    reason = fatal_line(refused_start(ServerProcess(directory=tmp_path)))
    assert str(tmp_path) in reason
    assert "journal" in reason


@pytest.mark.asyncio
async def test_journal_without_its_store(tmp_path: Path) -> None:
    """The journal is trimmed behind the store: without it entries are missing, and the text says which."""
    with ServerProcess(directory=tmp_path) as server:
        async with Clients(server.url) as clients:
            client = await clients.connect()
            for _ in range(500):  # many turns of the store's writer
                await publish_numbered(client, "c", 1)
    shutil.rmtree(tmp_path / "store")
    reason = fatal_line(refused_start(ServerProcess(directory=tmp_path)))
    assert reason.startswith("the journal begins with entry ")
    assert "the store ends with entry 0: entries between them are missing" in reason


@pytest.mark.asyncio
async def test_journal_of_a_newer_version(tmp_path: Path) -> None:
    """O533: both versions are named."""
    await filled(tmp_path)
    identity = tmp_path / "journal" / "identity.json"
    fields = json.loads(identity.read_bytes().splitlines()[0])
    fields["format_version"] = 99
    line = json.dumps(fields).encode()
    identity.write_bytes(b"%b\n%08x\n" % (line, google_crc32c.value(line)))
    reason = fatal_line(refused_start(ServerProcess(directory=tmp_path)))
    assert str(identity) in reason
    assert "99" in reason
    assert "reads version 2 only" in reason


async def publish_until_refused(client: RawClient) -> list[int]:
    """Publishes numbers one by one until the server is gone; those that were acked."""
    acked: list[int] = []
    for number in range(1, 2_000):
        try:
            answer = await client.publish("c", b"%d" % number, timeout_s=2)
        except (TimeoutError, ConnectionLostError, NoRespondersError):
            break
        if answer.error == "leadership lost while committing log":  # B402: it was proposed, and nobody knows more
            break
        assert answer.error == ""
        acked.append(number)
    return acked


@pytest.mark.asyncio
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(
    ("call", "when", "error"),
    [("pwritev,pwritev2", 60, "EIO"), ("pwritev,pwritev2", 90, "ENOSPC"), ("fdatasync", 4, "EIO")],
)
async def test_failed_write_ends_the_process(tmp_path: Path, call: str, when: int, error: str) -> None:
    """R8, O196: after a failed write or sync nothing is acked any more; the reason is logged; a restart finds what was acked."""
    trace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
    inject = ["-e", f"inject={call}:error={error}:when={when}+"]
    server = ServerProcess(directory=tmp_path, command=[*trace, *inject, sys.executable, "-m", "server"])
    server.start()
    try:
        async with Clients(server.url) as clients:
            acked = await publish_until_refused(await clients.connect())
            line = await asyncio.to_thread(server.wait_for_log, "[FTL]")
            clients.forget()
    finally:
        status = server.stop()
    assert status == 1
    assert {"EIO": "Input/output error", "ENOSPC": "No space left on device"}[error] in line
    with ServerProcess(directory=tmp_path) as server:
        found = await stored_payloads(server, len(acked))
    assert found[: len(acked)] == [b"%d" % number for number in acked]
