"""The clients of a round: publishers, plain and durable subscribers and a queue group, that go on while things break.

Who comes and goes when is drawn from the seed; what the network makes of it is not repeatable, so the history is kept.
Everything here runs on the client loop.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from server.protocol import stan_pb2 as pb
from tests.support.cluster.delivery_check import Kind, Recording
from tests.support.cluster.publishers import Publisher
from tests.support.cluster.receivers import SECOND_NS, Member
from tests.support.cluster.sessions import FAILURES, REQUEST_TIMEOUT_S, Session
from tests.support.history import History, Outcome
from tests.support.load import read_channel
from tests.support.raw_client import RawClient
from tests.support.raw_nats import RawNats

CHANNELS: Final = ("faults.a", "faults.b", "faults.c")

ACK_WAIT_S: Final = 2
"""Of all subscriptions."""

DRAIN_S: Final = 2 * ACK_WAIT_S + 10
"""R10's bound: everything has arrived this long after all was healed."""

STRAY_S: Final = ACK_WAIT_S + 0.5
"""After the last end, time in which a forgotten redelivery timer would show."""

STAY_S: Final = (1.0, 6.0)
"""Bounds of the time a durable or a member of the group stays, and stays away a tenth of it."""

LOOK_PAUSE_S: Final = 0.05

GROUP: Final = "workers"
DURABLE: Final = "kept"


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """How much is published: (window, messages per second) of each publisher."""

    publishers: tuple[tuple[int, int], ...] = ((256, 250), (32, 150), (1, 50))
    withheld: float = 0.03
    """Share of messages that a subscriber with acks of its own acks only when they come again."""


class Load:
    """All clients of a round: `start`, then whatever happens, `finish_publishing`, `read_back`, `drain`, `close`."""

    def __init__(self, urls: Sequence[str], cluster_id: str, seed: str, settings: LoadSettings | None = None) -> None:
        self.history = History()
        self.recordings: list[Recording] = []
        """What every subscription got."""
        self._urls = urls
        self._cluster_id = cluster_id
        self._settings = settings or LoadSettings()
        self._chance = random.Random(seed)
        self._sessions: list[Session] = []
        self._publishers: list[Publisher] = []
        self._members: list[Member] = []
        self._coming_and_going: list[asyncio.Task[None]] = []
        self._publishing: list[asyncio.Task[None]] = []
        self._is_quiet = asyncio.Event()
        self._names: Counter[str] = Counter()

    @property
    def interruptions(self) -> list[tuple[int, int]]:
        """When any client was without a NATS connection, monotonic nanoseconds."""
        return [span for session in self._sessions for span in session.interruptions]

    def errors(self) -> Counter[str]:
        """Texts of refused publishes and subscribes, and how often."""
        found: Counter[str] = Counter()
        for publisher in self._publishers:
            found.update(publisher.errors)
        for member in self._members:
            found.update(member.refusals)
        return found

    # ---- the course of a round

    async def start(self) -> None:
        """Returns when everybody is connected and subscribed; publishing has begun."""
        for window, rate in self._settings.publishers:
            session = await self._open_session("publisher")
            publisher = Publisher(session, CHANNELS, window, rate, self.history)
            self._publishers.append(publisher)
        first, second = await self._open_session("subscriber"), await self._open_session("subscriber")
        await self._start_plain(first, second)
        await self._start_durable(first)
        await self._start_group(first, second)
        self._publishing = [asyncio.create_task(publisher.run()) for publisher in self._publishers]

    async def wait_acked(self, since_ns: int) -> None:
        """Returns when a publish sent after `since_ns` is acked (R19). The caller sets the bound."""
        while not any(
            publish.outcome is Outcome.OK and publish.invoked_ns >= since_ns
            for publish in reversed(list(self.history.publishes.values())[-2000:])
        ):
            await asyncio.sleep(LOOK_PAUSE_S)

    async def finish_publishing(self) -> None:
        """Returns when every publish was answered or given up, and every subscriber is there to stay."""
        for publisher in self._publishers:
            publisher.stop()
        await asyncio.gather(*self._publishing)
        for publisher in self._publishers:
            await publisher.finish()
        self._is_quiet.set()
        await asyncio.gather(*self._coming_and_going)
        for member in self._members:
            await member.close_forsaken()

    async def read_back(self) -> dict[str, list[tuple[int, str]]]:
        """Every channel from the first message on, by a fresh client."""
        name = self._new_name("reader")
        read = {}
        async with await RawClient.connect(self._urls[0], name, cluster_id=self._cluster_id) as reader:
            for channel in CHANNELS:
                marker = f"{name}-{channel}"
                read[channel] = await read_channel(reader, channel, self.history, marker, 1)
        return read

    async def drain(self, last_sequences: Mapping[str, int], timeout_s: float = DRAIN_S) -> None:
        """Returns when everything has arrived, or after `timeout_s`; every subscription has then ended (R15)."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and any(
            recording.missing(last_sequences[recording.channel]) for recording in self.recordings
        ):
            await asyncio.sleep(LOOK_PAUSE_S)
        for number, member in enumerate(self._members):
            if member.inbox is not None:
                await member.end(unsubscribe=number % 2 == 0)
        await asyncio.sleep(STRAY_S)

    async def close(self) -> None:
        """Ends every client."""
        for task in (*self._publishing, *self._coming_and_going):
            task.cancel()
        await asyncio.gather(*self._publishing, *self._coming_and_going, return_exceptions=True)
        await asyncio.gather(*(session.close() for session in self._sessions))

    # ---- faults of clients (F15), and administration (F14)

    async def drop_all_connections(self) -> None:
        """Every client loses its NATS connection at the same moment."""
        for session in self._sessions:
            session.drop_connection()

    async def crash_clients(self, count: int) -> None:
        """New clients connect, subscribe, publish and vanish without a word."""
        for _ in range(count):
            session = await self._open_session("crashing", is_kept=False)
            member = Member(
                session, self._recording("crashing", CHANNELS[0], Kind.PLAIN, is_checked=False), 0.5, self._chance
            )
            await member.open()
            publisher = Publisher(session, CHANNELS, 16, 1000, self.history)
            publishing = asyncio.create_task(publisher.run())
            await asyncio.sleep(LOOK_PAUSE_S)
            publisher.stop()
            await session.crash()
            await publishing
            member.abandon()

    async def flood(self, count: int) -> None:
        """A publisher sends this many messages as fast as it can, and goes when all were answered or given up."""
        session = await self._open_session("flooding", is_kept=False)
        publisher = Publisher(session, CHANNELS, 4096, 100_000, self.history)
        publishing = asyncio.create_task(publisher.run())
        while publisher.number < count:
            await asyncio.sleep(LOOK_PAUSE_S)
        publisher.stop()
        await publishing
        await publisher.finish()
        await session.close()

    async def request(self, subject: str, payload: bytes) -> bytes:
        """One plain NATS request to whoever answers; raises TimeoutError when nobody does in time."""
        last: Exception = TimeoutError("no NATS server")
        for url in self._urls:
            try:
                async with await RawNats.connect(url, timeout_s=REQUEST_TIMEOUT_S) as nats:
                    return (await nats.request(subject, payload)).data
            except FAILURES as error:
                last = error
        raise TimeoutError(f"{subject}: {last!r}") from last

    # ---- the subscribers

    async def _start_plain(self, first: Session, second: Session) -> None:
        """One that acks at once, one that takes one message at a time, and one that comes later from a sequence."""
        quick = Member(first, self._recording("plain", CHANNELS[0], Kind.PLAIN), 0, self._chance)
        single = Member(
            second, self._recording("one by one", CHANNELS[2], Kind.PLAIN, max_in_flight=1), 0, self._chance
        )
        self._members += [quick, single]
        await quick.open()
        await single.open()
        self._come_and_go(self._come_later(second, self._chance.uniform(*STAY_S)))

    async def _come_later(self, session: Session, wait_s: float) -> None:
        """A sequence that exists: as many as were acked do."""
        await self._stay(wait_s)
        channel = CHANNELS[1]
        acked = sum(p.outcome is Outcome.OK and p.channel == channel for p in self.history.publishes.values())
        recording = self._recording("late", channel, Kind.PLAIN, start_sequence=max(1, acked // 2))
        member = Member(session, recording, self._settings.withheld, self._chance, start=pb.SequenceStart)
        self._members.append(member)
        await member.open()

    async def _start_durable(self, session: Session) -> None:
        recording = self._recording("durable", CHANNELS[0], Kind.DURABLE, max_in_flight=128)
        member = Member(session, recording, self._settings.withheld, self._chance, durable_name=DURABLE)
        await self._add_guest(member)

    async def _start_group(self, first: Session, second: Session) -> None:
        """A durable queue group: one member stays, two come and go."""
        recording = self._recording("group", CHANNELS[1], Kind.GROUP, max_in_flight=64)
        for session, is_guest in ((first, False), (second, True), (second, True)):
            member = Member(
                session, recording, self._settings.withheld, self._chance, durable_name=DURABLE, queue_group=GROUP
            )
            if is_guest:
                await self._add_guest(member)
            else:
                self._members.append(member)
                await member.open()

    async def _add_guest(self, member: Member) -> None:
        """Opens it; from then on it comes and goes."""
        self._members.append(member)
        await member.open()
        self._come_and_go(self._visit(member, random.Random(self._chance.random())))

    async def _visit(self, member: Member, chance: random.Random) -> None:
        """Closes and resumes until the round is quiet."""
        while not self._is_quiet.is_set():
            stay_s = chance.uniform(*STAY_S)
            await self._stay(stay_s)
            if not self._is_quiet.is_set():
                await member.end()
                await self._stay(stay_s / 10)
                await member.open()

    async def _stay(self, seconds: float) -> None:
        """Ends early when the round gets quiet."""
        try:
            async with asyncio.timeout(seconds):
                await self._is_quiet.wait()
        except TimeoutError:
            return

    def _come_and_go(self, work: Coroutine[object, object, None]) -> None:
        self._coming_and_going.append(asyncio.create_task(work))

    # ---- names and parts

    async def _open_session(self, role: str, *, is_kept: bool = True) -> Session:
        session = Session(self._urls, self._new_name(role), self._cluster_id, self._chance)
        await session.open()
        if is_kept:
            self._sessions.append(session)
        return session

    def _new_name(self, role: str) -> str:
        self._names[role] += 1
        return f"{role}-{self._names[role]}"

    def _recording(
        self,
        name: str,
        channel: str,
        kind: Kind,
        *,
        max_in_flight: int = 1024,
        start_sequence: int = 1,
        is_checked: bool = True,
    ) -> Recording:
        recording = Recording(name, channel, kind, max_in_flight, ACK_WAIT_S * SECOND_NS, start_sequence)
        if is_checked:
            self.recordings.append(recording)
        return recording
