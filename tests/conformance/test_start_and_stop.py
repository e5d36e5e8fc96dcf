"""Start, stop and what can go wrong around them (B92, B146, B211, B236, O20, O225, O241, O243, O255, O256, O459, O531)."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.protocol import stan_pb2 as pb
from tests.conformance.steps import (
    Clients,
    marks,
    payloads,
    publish_numbered,
    settle,
    until,
    wait_for_exit,
)
from tests.support.history import History, Outcome, check
from tests.support.log_reader import LogWaitError
from tests.support.nats_process import NatsProcess
from tests.support.ports import HOST, free_port
from tests.support.raw_client import RawSubscription
from tests.support.server_process import READY_TEXT, ServerProcess

LOW_SPACE = "stan: publish refused, disk space is low"
MIB = 1024 * 1024


def refused_start(process: ServerProcess) -> str:
    """Starts a server that must end by itself with status 1 (O233, O255), its NATS server too; its log."""
    process.spawn()
    try:
        process.wait_for_log(READY_TEXT)
    except LogWaitError as error:
        log = error.log
        if process.is_running:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        status = process.stop()
    else:
        process.stop()
        pytest.fail(f"the server started:\n{process.log}")
    finally:
        process.remove()
    assert (status, "Traceback" in log) == (1, False), log
    return log


def fatal_line(log: str) -> str:
    """The reason in the one line that says why the server did not start (O255)."""
    lines = [line for line in log.splitlines() if "[FTL] STREAM: " in line]
    assert len(lines) == 1, log
    return lines[0].partition("[FTL] STREAM: Failed to start: ")[2]


def exit_status(arguments: list[str]) -> tuple[int, str]:
    """Runs the server's command to its end; status and output."""
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.asyncio
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 0)])
async def test_every_acked_publish_survives_a_signal(number: signal.Signals, status: int, channel: str) -> None:
    """B92, B211, O225, O234: stopped in the middle of a stream of publishes, the server keeps what it acked."""
    history = History()
    with ServerProcess() as server:
        async with Clients(server.url) as clients:
            client = await clients.connect()
            acks: dict[str, asyncio.Future[pb.PubAck]] = {}
            enough = asyncio.Event()

            def acked(unique_id: str, ack: asyncio.Future[pb.PubAck]) -> None:
                outcome = Outcome.ERROR if ack.result().error else Outcome.OK
                history.returned(unique_id, outcome, time.monotonic_ns())
                if history.count(Outcome.OK) > 500:
                    enough.set()

            for index in range(3000):
                unique_id = f"m{index}"
                history.invoke("w", channel, unique_id, time.monotonic_ns())
                acks[unique_id] = client.publish_nowait(channel, unique_id.encode())
                acks[unique_id].add_done_callback(lambda ack, unique_id=unique_id: acked(unique_id, ack))
                if index % 100 == 99:
                    await asyncio.sleep(0)  # lets acks come in between
            async with asyncio.timeout(30):
                await enough.wait()
            os.kill(server.pid, number)
            await wait_for_exit(server.pid)
            assert server.stop() == status
            server.start()
            reader_client = await clients.connect()
            reader = await reader_client.subscribe(channel, start=pb.First)
            await settle(reader_client)
            read = [(message.sequence, message.data.decode()) for message in reader.received]
            assert history.count(Outcome.OK) > 500
            assert check(history, {channel: read}) == []


@pytest.mark.asyncio
async def test_second_signal_does_no_harm() -> None:
    """O234: a second SIGTERM during the shutdown changes nothing."""
    with ServerProcess() as server:
        async with Clients(server.url) as clients:
            await publish_numbered(await clients.connect(), "c", 100)
            os.kill(server.pid, signal.SIGTERM)
            os.kill(server.pid, signal.SIGTERM)
            await wait_for_exit(server.pid)
            assert server.stop() == 143


@pytest.mark.asyncio
async def test_second_server_with_the_cluster_id_refuses_to_start(nats_process: NatsProcess, channel: str) -> None:
    """B146, O256: the first one goes on and has no client left over from the probe."""
    with ServerProcess(nats_url=nats_process.url, cluster_id="alone") as first:
        async with Clients(first.url) as clients:
            client = await clients.connect(cluster_id="alone")
            log = refused_start(ServerProcess(nats_url=nats_process.url, cluster_id="alone"))
            await publish_numbered(client, channel, 1)
            probe_id = await clients.connect("alone", cluster_id="alone")
            assert probe_id.heartbeats == 0
            with ServerProcess(nats_url=nats_process.url, cluster_id="other"):
                await publish_numbered(client, channel, 1)
            assert fatal_line(log) == 'discovered another streaming server with cluster ID "alone"'


def test_port_in_use() -> None:
    """O255: the NATS server's port is taken: a clear error that names it, and nothing left running."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        process = ServerProcess()
        process.port = taken.getsockname()[1]
        assert str(process.port) in fatal_line(refused_start(process))


def test_no_nats_server_to_connect_to() -> None:
    """O241: with -ns the first connection must succeed."""
    log = refused_start(ServerProcess(nats_url=f"nats://{HOST}:{free_port()}"))
    assert fatal_line(log) == "nats: no servers available for connection"


def test_data_directory_in_use(tmp_path: Path) -> None:
    """O459: two servers on one directory would corrupt each other; the second refuses, the first lives."""
    with ServerProcess(directory=tmp_path) as first:
        log = refused_start(ServerProcess(directory=tmp_path))
        assert first.is_running
        assert fatal_line(log) == f'store "{tmp_path}" is in use by another process'


def test_directory_of_another_cluster(tmp_path: Path) -> None:
    """O20: a directory belongs to one cluster id; afterwards the right id still starts."""
    with ServerProcess(directory=tmp_path, cluster_id="mine"):
        pass
    log = refused_start(ServerProcess(directory=tmp_path, cluster_id="yours"))
    with ServerProcess(directory=tmp_path, cluster_id="mine") as server:
        assert server.is_running
    assert fatal_line(log) == 'cluster ID "yours" does not match recovered value of "mine"'


def test_directory_of_the_go_server(tmp_path: Path) -> None:
    """O531: never mixed, never deleted."""
    (tmp_path / "server.dat").write_bytes(b"data")
    (tmp_path / "clients.dat").write_bytes(b"more")
    log = refused_start(ServerProcess(directory=tmp_path))
    assert fatal_line(log) == f'"{tmp_path}" holds data of the Go server, which cannot be read; use an empty directory'
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clients.dat", "server.dat"]
    assert (tmp_path / "server.dat").read_bytes() == b"data"


def test_directory_is_a_file(tmp_path: Path) -> None:
    """O255: the text names the path."""
    (tmp_path / "file").write_bytes(b"")
    assert str(tmp_path / "file") in fatal_line(refused_start(ServerProcess(directory=tmp_path / "file")))


def mount_tmpfs(directory: Path, options: str) -> None:
    """Mounts a file system of its own, or skips the test where that is not allowed."""
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("mounting a small file system needs root")
    status, output = exit_status([mount, "-t", "tmpfs", "-o", options, "tmpfs", str(directory)])
    if status != 0:
        pytest.skip(f"mounting a small file system is not allowed here: {output.strip()}")


def remount(directory: Path, options: str) -> None:
    """Changes options of a mounted tmpfs."""
    status, output = exit_status(["mount", "-o", f"remount,{options}", str(directory)])
    assert status == 0, output


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with 800 MiB free whose size a test can change."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mount_tmpfs(directory, "size=800m")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


def test_unwritable_directory(small_disk: Path) -> None:
    """O255: a read-only file system; the text names the directory."""
    remount(small_disk, "ro")
    assert str(small_disk / "data") in fatal_line(refused_start(ServerProcess(directory=small_disk / "data")))


@pytest.mark.asyncio
async def test_low_disk_space(small_disk: Path, channel: str) -> None:
    """O532, B124: below 256 MiB free, publishes are refused in words; all else is served, and publishes again with room."""
    with ServerProcess(directory=small_disk / "data") as server:
        async with Clients(server.url) as clients:
            client = await clients.connect()
            subscription = await client.subscribe(channel, max_in_flight=1, auto_ack=False)
            await publish_numbered(client, channel, 3)
            used_mib = shutil.disk_usage(small_disk).used // MIB
            remount(small_disk, f"size={used_mib + 200}m")

            async def is_refused() -> bool:
                answer = await client.publish(channel, b"x")
                assert answer.error in ("", LOW_SPACE)
                return answer.error == LOW_SPACE

            await until(is_refused, "publishes are refused")
            assert (await client.ping()).error == ""
            subscription.ack(1)
            await subscription.wait_count(2)
            other = await clients.connect()
            durable = await other.subscribe(channel, durable_name="d", start=pb.First)
            await durable.wait_count(3)
            assert (await other.close_subscription(durable)).error == ""
            assert (await other.close()).error == ""
            assert server.is_running
            remount(small_disk, f"size={used_mib + 600}m")

            async def is_accepted() -> bool:
                return not (await client.publish(channel, b"x")).error

            await until(is_accepted, "publishes are accepted again")
            reader = await client.subscribe(channel, start=pb.First)
            await settle(client)
            assert reader.sequences == list(range(1, len(reader.received) + 1))


@pytest.mark.asyncio
@pytest.mark.parametrize("end", ["kill", "stop"])
async def test_nats_server_restarts(end: str, channel: str) -> None:
    """B236, O243: the server stays up and reconnects; clients go on, pending messages come again once per ack wait."""
    with NatsProcess() as nats, ServerProcess(nats_url=nats.url) as server:
        async with Clients(nats.url) as clients:
            client = await clients.connect()
            subscription = await client.subscribe(channel, ack_wait_s=1, auto_ack=False)
            durable = await client.subscribe(channel, durable_name="d")
            await publish_numbered(client, channel, 3)
            await subscription.wait_count(3)
            await durable.wait_count(3)
            await asyncio.to_thread(nats.kill if end == "kill" else nats.stop)
            server.wait_for_log("has been disconnected")
            nats.start()
            await asyncio.to_thread(server.wait_for_log, "reconnected to NATS Server")
            again = await clients.reconnected(client)
            pending = RawSubscription(again.nats, channel, subscription.inbox, auto_ack=False)
            pending.accepted(subscription.ack_inbox)
            resumed = RawSubscription(again.nats, channel, durable.inbox, auto_ack=True)
            resumed.accepted(durable.ack_inbox)
            await again.nats.flush()

            async def is_served() -> bool:
                return (await again.ping()).error == ""

            await until(is_served, "the server answers pings")
            await publish_numbered(again, channel, 1, first=4)
            await resumed.wait_until(lambda: b"4" in payloads(resumed.received))
            await pending.wait_until(lambda: pending.sequences.count(1) == 2)
            counts = [m.redeliveryCount for m in pending.received if m.sequence == 1]
            assert counts == sorted(set(counts))
            assert all(m.redelivered for m in pending.received if m.sequence < 4)
            assert next(mark for mark in marks(pending.received) if mark[0] == 4) == (4, False, 0)
            assert server.is_running


@pytest.mark.asyncio
async def test_messages_published_elsewhere_wait_for_nats(channel: str) -> None:
    """B215, B236: a backlog larger than a window is delivered completely although NATS went away in its middle."""
    with NatsProcess() as nats, ServerProcess(nats_url=nats.url) as server:
        async with Clients(nats.url) as clients:
            client = await clients.connect()
            await publish_numbered(client, channel, 2000)
            subscription = await client.subscribe(channel, start=pb.First, max_in_flight=50, ack_wait_s=1)
            await subscription.wait_count(200)
            await asyncio.to_thread(nats.kill)
            nats.start()
            await asyncio.to_thread(server.wait_for_log, "reconnected to NATS Server")
            again = await clients.reconnected(client)
            resumed = RawSubscription(again.nats, channel, subscription.inbox, auto_ack=True)
            resumed.accepted(subscription.ack_inbox)
            seen = set(subscription.sequences)
            await resumed.wait_until(lambda: len(seen | set(resumed.sequences)) == 2000, timeout_s=30)
