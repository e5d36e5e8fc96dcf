"""The benchmark's programs over a real NATS server: every answer counted, every error told, nobody left out."""

import asyncio
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.comparison import Side, compare, ratios
from benchmarks.loads import Load, Row, Target, run_load
from benchmarks.processes import Crowd, Generator, GeneratorError, Responder, build, cpu_s
from benchmarks.report import table
from benchmarks.run import BASE_CLUSTER, Benchmark, parse
from server.protocol import stan_pb2 as pb
from server.version import VERSION
from tests.support.nats_process import NatsProcess
from tests.support.raw_client import RawClient
from tests.support.raw_nats import NatsMessage, RawNats
from tests.support.server_process import REPOSITORY, ServerProcess

CLUSTER = "yardstick"


@pytest.fixture(scope="module")
def nats() -> Iterator[NatsProcess]:
    """A NATS server with the responder on it."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    build()
    with NatsProcess() as process:
        responder = Responder(process.port, CLUSTER)
        yield process
        responder.stop()


@pytest.fixture(scope="module")
def server(nats: NatsProcess) -> Iterator[ServerProcess]:
    """Our server on the same NATS server."""
    with ServerProcess(store="MEMORY", nats_url=nats.url) as process:
        yield process


@pytest.mark.parametrize(("size", "window"), [(0, 1), (1, 7), (128, 16384), (70_000, 64)])
def test_every_publish_is_acked_once(nats: NatsProcess, size: int, window: int) -> None:
    """The generator ends when each of its publishes has its own PubAck."""
    generator = Generator("pub", port=nats.port, cluster=CLUSTER, count=500, size=size, window=window)
    generator.go()
    result = generator.result()
    assert (result["status"], result["acked"], result["unexpected"], result["errors"]) == (0, 500, 0, {})


def test_sync_reports_percentiles(nats: NatsProcess) -> None:
    """With one outstanding, latencies are ordered by percentile and fill the measured time."""
    generator = Generator("sync", port=nats.port, cluster=CLUSTER, count=200, size=128)
    generator.go()
    result = generator.result()
    assert result["acked"] == 200
    assert 0 < result["p50_us"] <= result["p90_us"] <= result["p99_us"] <= result["max_us"]
    assert result["p50_us"] * 100 <= result["seconds"] * 1e6
    assert result["cpu_seconds"] > 0


def test_missing_server_is_an_error(nats: NatsProcess) -> None:
    """Without a server the generator says which request got no answer."""
    with pytest.raises(GeneratorError, match=r"_STAN\.discover\.nobody: no answer"):
        Generator("pub", port=nats.port, cluster="nobody", count=1, timeout=1)


@pytest.mark.parametrize(
    ("mode", "options", "text"),
    [
        ("pub", {"count": "many"}, "--count: a number of 0 or more is needed"),
        ("pub", {"channels": 0}, "counts at least 1"),
        ("sub", {"channels": 2}, "--channels: only of pub and sync"),
    ],
)
def test_wrong_option_is_refused(nats: NatsProcess, mode: str, options: dict[str, object], text: str) -> None:
    """An option that cannot be obeyed is named."""
    with pytest.raises(GeneratorError, match=text):
        Generator(mode, port=nats.port, **options)


def test_channels_are_taken_in_turn(nats: NatsProcess, server: ServerProcess) -> None:
    """Every channel gets its share of the publishes."""
    generator = Generator("pub", port=nats.port, channel="turn", channels=3, count=8, size=5)
    generator.go()
    assert generator.result()["status"] == 0

    async def counts() -> list[int]:
        found = []
        async with await RawClient.connect(server.url, "counting") as client:
            for channel in range(3):
                subscription = await client.subscribe(f"turn.{channel}", start=pb.LastReceived)
                found.append((await subscription.next()).sequence)
        return found

    assert asyncio.run(counts()) == [3, 3, 2]


def test_every_subscription_gets_all(nats: NatsProcess, server: ServerProcess) -> None:
    """Fan-out: deliveries are messages times subscriptions, each is acked, and its cost is that of the messages split up."""
    row = run_load(Target(nats, server.pid, server.cluster_id), Load(16, subscribers=2, subscriptions=3), "fan", 50)
    assert (row["failed"], row["received"], row["received_least"], row["received_most"]) == (0, 300, 50, 50)
    assert row["our_us_per_delivery"] == pytest.approx(row["our_us_per_message"] / 6)


def test_members_share_the_messages(nats: NatsProcess, server: ServerProcess) -> None:
    """A group gets each message once, whoever has it."""
    load = Load(16, subscribers=1, subscriptions=4, group="workers")
    row = run_load(Target(nats, server.pid, server.cluster_id), load, "shared", 400)
    assert (row["failed"], row["received"], row["redelivered"]) == (0, 400, 0)
    assert 0 < row["received_least"] <= 100 <= row["received_most"] < 400


def test_message_received_twice_counts_once(nats: NatsProcess) -> None:
    """A subscriber ends after so many different messages; what comes again is counted by itself."""

    async def run() -> Row:
        async with await RawNats.connect(nats.url) as fake:
            acks: list[int] = []
            received = asyncio.Event()

            def connect(request: NatsMessage) -> None:
                answer = pb.ConnectResponse(subRequests="twice.sub", closeRequests="twice.close")
                fake.publish(request.reply, answer.SerializeToString())

            def subscribe(request: NatsMessage) -> None:
                fake.publish(request.reply, pb.SubscriptionResponse(ackInbox="twice.ack").SerializeToString())
                inbox = pb.SubscriptionRequest.FromString(request.data).inbox
                for sequence, redelivered in ((7, False), (7, True), (8, False)):
                    message = pb.MsgProto(sequence=sequence, subject="c", redelivered=redelivered)
                    fake.publish(inbox, message.SerializeToString())

            def acked(message: NatsMessage) -> None:
                acks.append(pb.Ack.FromString(message.data).sequence)
                if len(acks) == 3:
                    received.set()

            fake.subscribe("_STAN.discover.twice", connect)
            fake.subscribe("twice.sub", subscribe)
            fake.subscribe("twice.ack", acked)
            fake.subscribe("twice.close", lambda request: fake.publish(request.reply))
            await fake.flush()
            generator = await asyncio.to_thread(
                Generator, "sub", port=nats.port, cluster="twice", channel="c", count=2, timeout=10
            )
            generator.go()
            result = await asyncio.to_thread(generator.result)
            async with asyncio.timeout(10):
                await received.wait()
            return {**result, "acks": acks}

    result = asyncio.run(run())
    assert (result["status"], result["received"], result["different"], result["redelivered"]) == (0, 3, 2, 1)
    assert result["acks"] == [7, 7, 8]


def test_crowd_is_registered_until_it_leaves(nats: NatsProcess, server: ServerProcess) -> None:
    """Its clients are there and answer heartbeats (a second one of the name is refused), and are gone afterwards."""

    async def connect() -> None:
        async with await RawClient.connect(server.url, "crowd-2"):
            pass

    with (
        Crowd(port=nats.port, clients=3, channels=2, subscriptions=9),
        pytest.raises(ConnectionRefusedError, match="clientID already registered"),
    ):
        asyncio.run(connect())
    asyncio.run(connect())


def test_durables_of_a_crowd_stay(nats: NatsProcess, server: ServerProcess) -> None:
    """Every client has its durable on every channel; offline, they keep what is published."""
    crowd = Crowd(port=nats.port, channel="kept", clients=2, channels=2, subscriptions=4, durable="durable")
    crowd.leave()

    async def resume(client_id: str, channel: str, name: str) -> bytes:
        async with await RawClient.connect(server.url, "news") as other:
            await other.publish(channel, name.encode())
        async with await RawClient.connect(server.url, client_id) as client:
            return (await (await client.subscribe(channel, durable_name=name)).next()).data

    for number in range(4):
        place = (f"crowd-{number % 2}", f"kept.{number // 2}", f"durable-{number}")
        assert asyncio.run(resume(*place)) == (b"durable-0" if number < 2 else b"durable-2")


def test_refused_crowd_is_an_error(nats: NatsProcess, server: ServerProcess) -> None:
    """A crowd with names that the server refuses does not pass for one that is there."""
    crowd = Crowd(port=nats.port, channel="refused..channel", subscriptions=3)
    with pytest.raises(GeneratorError, match=r"invalid subject': 3"):
        crowd.leave()


def test_comparison_alternates(nats: NatsProcess, server: ServerProcess) -> None:
    """A pair of runs per ratio; both sides do their own load."""
    target = Target(nats, server.pid, server.cluster_id)
    row = compare(
        "two", Side("a", target, Load(8)), Side("b", target, Load(8, subscribers=1)), count=200, pairs=2, tag="pairs"
    )
    assert (row["base"], row["other"], row["failed"], row["messages"]) == ("a", "b", 0, 400)
    assert (row["received_least"], row["received_most"]) == (200, 200)
    assert [len(row[key]) for key in ("rate_ratios", "cpu_ratios", "nats_ratios")] == [2, 2, 2]


def _run(rate: float, ours: float, nats_us: float, failed: int = 0) -> Row:
    return {
        "messages": 10,
        "redelivered": 0,
        "received_least": 0,
        "received_most": 0,
        "errors": {"no": 1} if failed else {},
        "failed": failed,
        "messages_per_s": rate,
        "our_us_per_message": ours,
        "nats_us_per_message": nats_us,
        "our_to_nats_cpu": ours / nats_us,
        "our_cores": 0.5,
    }


def test_ratios_are_of_pairs() -> None:
    """The n-th run of one side is divided by the n-th of the other; failures of both sides count."""
    row = ratios(
        [_run(100, 2, 4), _run(50, 4, 2), _run(10, 1, 1)],
        [_run(200, 1, 4), _run(25, 4, 1), _run(10, 3, 2, failed=1)],
    )
    assert (row["rate_ratios"], row["cpu_ratios"], row["nats_ratios"]) == ([2, 0.5, 1], [0.5, 1, 3], [1, 0.5, 2])
    assert (row["messages_per_s"], row["base_messages_per_s"]) == (25, 50)
    assert (row["failed"], row["errors"], row["messages"]) == (1, [{"no": 1}], 30)


def test_table_has_what_the_rows_have() -> None:
    """Repeats of a row become one line with medians and the range of ratios; columns without figures are left out."""
    text = table(
        [
            {"row": "one", "messages_per_s": 1000, "rate_ratios": [1.0, 1.5], "failed": 0},
            {"row": "one", "messages_per_s": 3000, "rate_ratios": [0.5], "failed": 2},
        ]
    )
    lines = [line.split() for line in text.splitlines()]
    assert lines == [["rate/base", "msgs/s", "failed"], ["one", "1.00", "(0.50-1.50)", "2,000", "2"]]


def test_cpu_is_that_of_the_process() -> None:
    """The clock of a process is the one it sees itself."""
    before = time.process_time()
    seen = cpu_s(os.getpid())
    assert before <= seen <= time.process_time()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--only", "groups,crowds"], r"\['crowds'\] unknown, allowed are throughput,"),
        (["--only", "durables", "--store", "MEMORY"], r"\['durables'\] need --store FILE"),
        (["--repeat", "0"], "at least 1, not 0"),
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every argument that cannot be obeyed is named."""
    with pytest.raises(SystemExit):
        parse(arguments)
    assert re.search(text, capsys.readouterr().err)


def test_memory_store_leaves_restarts_out() -> None:
    """Without files there is nothing to restart on."""
    only = parse(["--store", "MEMORY"]).only
    assert "throughput" in only
    assert not {"restart", "durables"} & set(only)


def test_other_checkout_needs_a_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder from which another server than its own would be run is refused."""
    with pytest.raises(SystemExit):
        parse(["--against", str(tmp_path)])
    assert "has no server package" in capsys.readouterr().err


def test_other_checkout_is_run(nats: NatsProcess, tmp_path: Path) -> None:
    """The server of the other checkout is started from its own code, whatever the current folder has."""
    for package in ("server", "raft", "store"):
        shutil.copytree(REPOSITORY / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    version = tmp_path / "server" / "version.py"
    version.write_text(version.read_text().replace('VERSION: Final = "', 'VERSION: Final = "9.'))
    options = parse(["--against", str(tmp_path), "--dir", str(tmp_path), "--store", "MEMORY"])
    assert options.only == []
    benchmark = Benchmark(options, nats)
    with benchmark.two_servers(checkout=options.against) as (old, new):
        assert f"[{BASE_CLUSTER}] version 9.{VERSION}" in old.log
        assert f"] version {VERSION}" in new.log
