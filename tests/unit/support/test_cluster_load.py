"""Clients of a round keep their place over lost connections, and what they record passes the reference on a whole server."""

import asyncio
import random
import time
from collections.abc import Iterator

import pytest

from server.protocol import stan_pb2 as pb
from tests.support.cluster import delivery_check
from tests.support.cluster.calm import Calm
from tests.support.cluster.client_loop import ClientLoop
from tests.support.cluster.delivery_check import Acked, Ended, Kind, Opened, Received, Recording
from tests.support.cluster.load import Load, LoadSettings
from tests.support.cluster.publishers import Publisher
from tests.support.cluster.receivers import SECOND_NS, Member
from tests.support.cluster.sessions import Session
from tests.support.history import History, Outcome, check
from tests.support.nats_process import NatsProcess
from tests.support.raw_nats import NatsMessage, RawNats
from tests.support.server_process import ServerProcess

CLUSTER_ID = "test-cluster"
TIMEOUT_S = 30.0


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """One standalone server with its own nats-server."""
    with ServerProcess(store="FILE") as process:
        yield process


@pytest.fixture
def loop() -> Iterator[ClientLoop]:
    """On the host."""
    made = ClientLoop("")
    yield made
    made.close()


async def open_session(server: ServerProcess, name: str) -> Session:
    """A session that knows one NATS server, twice."""
    session = Session([server.url, server.url], name, CLUSTER_ID, random.Random(1))
    await session.open()
    return session


def recording_of(channel: str, kind: Kind = Kind.PLAIN) -> Recording:
    """Nothing in it yet."""
    return Recording("sub", channel, kind, 100, 2 * SECOND_NS)


async def until(recording: Recording, count: int) -> None:
    """Returns when that many different sequences have come."""
    while len(recording.seen) < count:
        await asyncio.sleep(0.01)


async def publish(session: Session, channel: str, count: int) -> History:
    """Publishes and awaits every answer."""
    history = History()
    publisher = Publisher(session, [channel], 16, 10_000, history)
    publishing = asyncio.create_task(publisher.run())
    while publisher.number < count:
        await asyncio.sleep(0.01)
    publisher.stop()
    await publishing
    await publisher.finish()
    return history


def test_whole_load_on_a_whole_server_breaks_nothing(server: ServerProcess, loop: ClientLoop) -> None:
    """R1 to R5 and R9 to R16 hold for a server that nobody disturbs, and everybody got everything."""
    load = Load([server.url], CLUSTER_ID, "seed", LoadSettings(publishers=((64, 200), (1, 50))))
    loop.call(load.start(), timeout_s=TIMEOUT_S)
    loop.call(load.wait_acked(time.monotonic_ns()), timeout_s=TIMEOUT_S)
    loop.call(load.finish_publishing(), timeout_s=TIMEOUT_S)
    read = loop.call(load.read_back(), timeout_s=TIMEOUT_S)
    last = {channel: len(pairs) for channel, pairs in read.items()}
    loop.call(load.drain(last), timeout_s=TIMEOUT_S)
    loop.call(load.close(), timeout_s=TIMEOUT_S)
    found = check(load.history, read)
    for recording in load.recordings:
        found += delivery_check.check(recording, last[recording.channel], Calm(), holds_back=False)
    assert found == []
    assert load.history.count(Outcome.OK) > 0
    assert len(load.recordings) == 5
    assert all(recording.seen for recording in load.recordings)


def test_session_outlives_its_connection(server: ServerProcess, loop: ClientLoop) -> None:
    """Same client, same inbox: a subscription made before the loss gets what is published after it."""
    recording = recording_of("outlives")

    async def work() -> Session:
        session = await open_session(server, "outlives")
        await Member(session, recording, 0, random.Random(1)).open()
        session.drop_connection()
        while session.connections < 2:
            await asyncio.sleep(0.01)
        await publish(session, "outlives", 10)
        await until(recording, 10)
        await session.close()
        return session

    session = loop.call(work(), timeout_s=TIMEOUT_S)
    assert len(session.interruptions) == 1
    assert [type(event) for event in recording.events][:1] == [Opened]
    assert len({event.member for event in recording.events}) == 1


def test_durable_resumes_under_a_new_name_and_acks_what_comes_again(server: ServerProcess, loop: ClientLoop) -> None:
    """B284: what was withheld comes again at once, flagged, to the new member, and is acked then."""
    recording = recording_of("resumes", Kind.DURABLE)

    async def work() -> None:
        session = await open_session(server, "resumes")
        member = Member(session, recording, 1.0, random.Random(1), durable_name="kept")
        await member.open()
        history = await publish(session, "resumes", 5)
        await until(recording, len(history.publishes))
        await member.end()
        await member.open()
        while sum(isinstance(event, Acked) for event in recording.events) < len(history.publishes):
            await asyncio.sleep(0.01)
        await member.end(unsubscribe=True)
        await session.close()

    loop.call(work(), timeout_s=TIMEOUT_S)
    again = [event for event in recording.events if isinstance(event, Received) and event.redelivered]
    assert {event.sequence for event in again} == recording.seen
    assert len({event.member for event in recording.events}) == 2
    assert sum(isinstance(event, Ended) for event in recording.events) == 2


def test_end_of_unknown_outcome_is_asked_for_again(server: ServerProcess, loop: ClientLoop) -> None:
    """B402: an error of a leader that lost its role ends nothing; that there is no such subscription (B6) does."""
    recording = recording_of("ends")
    answers = ["leadership lost while committing log", "stan: invalid subscription"]

    async def work() -> list[str]:
        session = await open_session(server, "ends")
        member = Member(session, recording, 0, random.Random(1))
        await member.open()
        session.client.subjects.subCloseRequests = "ends.close"
        responder = await RawNats.connect(server.url)

        def answer(message: NatsMessage) -> None:
            response = pb.SubscriptionResponse(error=answers.pop(0))
            responder.publish(message.reply, response.SerializeToString())

        responder.subscribe("ends.close", answer)
        await responder.flush()
        await member.end()
        await responder.close()
        await session.crash()
        return member.refusals

    assert loop.call(work(), timeout_s=TIMEOUT_S) == ["leadership lost while committing log"]
    assert answers == []
    assert sum(isinstance(event, Ended) for event in recording.events) == 1


def test_publish_without_answer_is_unknown_and_frees_its_place(
    loop: ClientLoop, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B214: when nobody answers, the window does not stay full; what comes after has other ids."""
    monkeypatch.setattr("tests.support.cluster.publishers.PUBLISH_TIMEOUT_S", 0.1)

    async def work() -> tuple[History, int]:
        session = await open_session(server, "unanswered")
        session.client.subjects.pubPrefix = "nobody.listens"
        history = History()
        publisher = Publisher(session, ["unanswered"], 4, 10_000, history)
        publishing = asyncio.create_task(publisher.run())
        while publisher.number < 12:
            await asyncio.sleep(0.01)
        publisher.stop()
        await publishing
        await publisher.finish()
        await session.close()
        return history, publisher.outstanding

    history, outstanding = loop.call(work(), timeout_s=TIMEOUT_S)
    assert history.count(Outcome.UNKNOWN) == len(history.publishes) >= 12
    assert outstanding == 0


def test_session_waits_for_a_server_that_comes_later(loop: ClientLoop) -> None:
    """A NATS server without a streaming server, or none at all, is no failure of the client: the caller's bound decides."""
    with NatsProcess() as nats:
        session = Session([nats.url], "early", CLUSTER_ID, random.Random(1))
        with pytest.raises(TimeoutError):
            loop.call(session.open(), timeout_s=0.5)
        with ServerProcess(store="MEMORY", nats_url=nats.url):
            loop.call(session.open(), timeout_s=TIMEOUT_S)
            loop.call(session.close(), timeout_s=TIMEOUT_S)


def test_crashed_clients_leave_nothing_that_is_awaited(server: ServerProcess, loop: ClientLoop) -> None:
    """F15: clients that vanish, flood, or all reconnect disturb no other."""
    load = Load([server.url], CLUSTER_ID, "trouble", LoadSettings(publishers=((16, 100),)))

    async def work() -> None:
        await load.start()
        await load.crash_clients(2)
        await load.flood(300)
        await load.drop_all_connections()
        await load.wait_acked(time.monotonic_ns())
        await load.close()

    loop.call(work(), timeout_s=TIMEOUT_S)
    assert load.interruptions
    assert load.errors() == {}
