"""Publishes unique messages and keeps their history; reads channels back. For runs that kill the server underneath."""

import asyncio
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from server.protocol import stan_pb2 as pb
from tests.support.history import History, Outcome
from tests.support.raw_client import RawClient

PADDING_MAX = 1024
"""Payloads are up to this many bytes longer than their id."""

READ_TIMEOUT_S = 60.0
READ_MAX_IN_FLIGHT = 4096


def payload_of(unique_id: str) -> bytes:
    """The only right payload for an id: the id, a bar, and padding whose length and letter follow from the id."""
    checksum = zlib.crc32(unique_id.encode())
    return f"{unique_id}|".encode() + bytes([97 + checksum % 26]) * (checksum % PADDING_MAX)


def id_of(payload: bytes) -> str:
    """The id in a payload; for one that is not byte-equal to what was published, an id that nobody published."""
    text = payload.partition(b"|")[0].decode(errors="replace")
    return text if payload == payload_of(text) else f"damaged payload of {text!r}"


@dataclass(slots=True)
class Worker:
    """One publisher: takes the channels in turn, with up to `window` publishes outstanding (1 = waits for each).

    Invariant: outstanding <= window.
    """

    name: str
    channels: Sequence[str]
    window: int
    history: History
    refusals: list[str] = field(default_factory=list)
    outstanding: int = 0
    _number: int = 0
    _stopped: bool = False
    _runs: int = 0
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, client: RawClient) -> None:
        """Publishes until `stop`; what is outstanding then stays unknown unless its answer still comes."""
        self._stopped = False
        self._runs += 1
        self.outstanding = 0
        while not self._stopped:
            while self.outstanding < self.window:
                self._publish_one(client)
            self._wake.clear()
            await self._wake.wait()

    def stop(self) -> None:
        """Ends `run`."""
        self._stopped = True
        self._wake.set()

    def _publish_one(self, client: RawClient) -> None:
        unique_id = f"{self.name}-{self._number}"
        channel = self.channels[self._number % len(self.channels)]
        self._number += 1
        self.outstanding += 1
        self.history.invoke(self.name, channel, unique_id, time.monotonic_ns())
        run = self._runs

        def done(future: asyncio.Future[pb.PubAck]) -> None:
            if future.cancelled():
                return
            error = future.result().error
            if error:
                self.refusals.append(error)
            self.history.returned(unique_id, Outcome.ERROR if error else Outcome.OK, time.monotonic_ns())
            if run == self._runs:  # an answer of an earlier run frees no place in this one
                self.outstanding -= 1
                self._wake.set()

        client.publish_nowait(channel, payload_of(unique_id)).add_done_callback(done)


async def read_channel(
    client: RawClient, channel: str, history: History, marker: str, start: int
) -> list[tuple[int, str]]:
    """(sequence, id) of every message from sequence `start` to a marker published now, as a fresh subscriber gets them.

    Args:
        client: A connected client that publishes the marker and reads.
        channel: The channel to read.
        history: Gets the marker's publish.
        marker: An id not used before.
        start: First sequence to read, from 1.
    """
    history.invoke(client.identity.client_id, channel, marker, time.monotonic_ns())
    answer = await client.publish(channel, payload_of(marker))
    history.returned(marker, Outcome.ERROR if answer.error else Outcome.OK, time.monotonic_ns())
    if answer.error:
        raise RuntimeError(f"{channel}: the marker was refused: {answer.error}")
    subscription = await client.subscribe(
        channel, start=pb.SequenceStart, start_sequence=start, max_in_flight=READ_MAX_IN_FLIGHT
    )
    if subscription.error:
        raise RuntimeError(f"{channel}: the reader was refused: {subscription.error}")
    expected = payload_of(marker)
    await subscription.wait_until(
        lambda: bool(subscription.received) and subscription.received[-1].data == expected, timeout_s=READ_TIMEOUT_S
    )
    await client.unsubscribe(subscription)
    return [(message.sequence, id_of(message.data)) for message in subscription.received]
