"""Publishes unique messages at a steady rate and notes what became of each.

A publish without an answer within its time is given up: its outcome is unknown, its place in the window is free, and
what it carried is sent again under a new id, as applications do. An answer that comes later still counts as one.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from server.protocol import stan_pb2 as pb
from tests.support.cluster.sessions import Session
from tests.support.history import History, Outcome
from tests.support.load import payload_of

PUBLISH_TIMEOUT_S: Final = 3.0
TICK_S: Final = 0.02
"""Pause between two looks at the rate, seconds."""

UNKNOWN_CLIENT_TEXT: Final = "invalid publish request"
"""B47: the server does not know the client any more. No client is ever idle long enough for that."""


@dataclass(slots=True)
class Publisher:
    """Takes the channels in turn, with at most `window` publishes outstanding (1 = waits for each).

    Invariant: 0 <= outstanding <= window.
    """

    session: Session
    channels: Sequence[str]
    window: int
    rate_per_s: int
    history: History
    errors: Counter[str] = field(default_factory=Counter)
    """Texts of refusals, and how often."""
    outstanding: int = 0
    number: int = 0
    """Publishes so far."""
    _is_stopped: bool = False

    async def run(self) -> None:
        """Publishes until `stop`."""
        due = 0.0
        while not self._is_stopped:
            await self.session.wait_connected()
            due = min(due + self.rate_per_s * TICK_S, self.window + 1.0)
            while due >= 1 and self.outstanding < self.window and self.session.is_connected:
                self._publish_one()
                due -= 1
            await asyncio.sleep(TICK_S)

    def stop(self) -> None:
        """Ends `run`; answers to what is outstanding are still noted."""
        self._is_stopped = True

    async def finish(self) -> None:
        """Returns when every publish was answered or given up."""
        while self.outstanding:
            await asyncio.sleep(TICK_S)

    def _publish_one(self) -> None:
        session = self.session
        unique_id = f"{session.client_id}-{self.number}"
        channel = self.channels[self.number % len(self.channels)]
        self.number += 1
        self.outstanding += 1
        # Order is promised within one connection only (R5).
        worker = f"{session.client_id}@{session.connections}"
        self.history.invoke(worker, channel, unique_id, time.monotonic_ns())
        answer = session.client.publish_nowait(channel, payload_of(unique_id))
        place = _Place(self)
        asyncio.get_running_loop().call_later(PUBLISH_TIMEOUT_S, place.free)

        def done(future: asyncio.Future[pb.PubAck]) -> None:
            if future.cancelled():
                return
            error = future.result().error
            if error:
                self.errors[error] += 1
            self.history.returned(unique_id, Outcome.ERROR if error else Outcome.OK, time.monotonic_ns())
            place.free()

        answer.add_done_callback(done)


@dataclass(slots=True)
class _Place:
    """One place in the window: freed once, by the answer or by the time."""

    publisher: Publisher
    is_free: bool = False

    def free(self) -> None:
        if not self.is_free:
            self.is_free = True
            self.publisher.outstanding -= 1
