"""Finds subscriptions that should receive and do not: capacity left, messages waiting, nothing on its way.

There must be none: each one found is a fault of this server, is logged as an error, counted, and made to go on. Looks at a
bounded number of streams at a time, so that its cost does not grow with the number of subscriptions.
"""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Final

from server.delivery.engine import Engine

logger = logging.getLogger(__name__)

SILENT_TEXT: Final = "Subscription is silent although it has room and messages wait"
"""How the log line begins; every test run looks for it."""

INTERVAL_S: Final = 1.0
"""Pause between two looks, seconds: longer than anything a healthy stream waits for without saying so."""

LOOK_MAX: Final = 2000
"""Streams seen in one look."""


@dataclass(slots=True)
class Watchdog:
    """Runs while this node leads."""

    engine: Engine
    loop: asyncio.AbstractEventLoop
    found: int = 0
    """Silent streams found so far."""
    _timer: asyncio.TimerHandle | None = None
    _keys: list[int] = field(default_factory=list)
    """Streams still to be seen in this round."""
    _suspects: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Streams that were silent at the last look, and how far they were."""

    def start(self) -> None:
        """Look from now on."""
        self._timer = self.loop.call_later(INTERVAL_S, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self.start()
        self.engine.context.port.confirm()
        streams = self.engine.streams
        suspects, self._suspects = self._suspects, {}
        if not self._keys:
            self._keys = list(streams)
        seen, self._keys = self._keys[:LOOK_MAX], self._keys[LOOK_MAX:]
        for key in {*suspects, *seen}:
            stream = streams.get(key)
            if stream is None or not stream.is_silent():
                continue
            place = (stream.next_seq, stream.resent)
            if suspects.get(key) == place:
                self.found += 1
                logger.error(
                    "%s: channel=%s id=%d seq=%d last=%d", SILENT_TEXT,
                    stream.channel.name, key, stream.next_seq, stream.channel.last_seq,
                )  # fmt: skip
                stream.serve()
            else:
                self._suspects[key] = place
