"""Gives snapshots to members that need one, and gets one when this node does. Wires server, puller and state machine."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from raft.membership import Member
from raft.messages import Message, SnapshotMessage, SnapshotRequest
from raft.state_machine import Prepared

from .puller import Sink, SnapshotPuller
from .server import OpenSnapshot, SnapshotServer

logger = logging.getLogger(__name__)

UNUSABLE_RETRY_S: Final = 1.0
UNUSABLE_RETRY_MAX_S: Final = 30.0
"""After a snapshot that cannot be used none is fetched for so long, seconds, each time twice as long: the leader may have
nothing better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotPorts:
    """What snapshots are made of and become. Work that blocks is done in a thread, its end told on the loop's thread."""

    create: Callable[[Callable[[OpenSnapshot | BaseException], None]], None]
    """Make a snapshot of what is durable now."""
    open_sink: Callable[[], Sink]
    """A place for one that is being fetched."""
    prepare: Callable[[Path, Callable[[Prepared | BaseException], None]], None]
    """Check and load a fetched one."""
    install: Callable[[Prepared], None]
    """Make it the state, at once."""


class SnapshotExchange:
    """Both sides of one node."""

    def __init__(
        self,
        ports: SnapshotPorts,
        *,
        send: Callable[[Member, Message], None],
        clock: Callable[[], float],
        install: Callable[[Prepared], None],
    ) -> None:
        self.ports = ports
        self._install = install
        self._clock = clock
        self._is_preparing = False
        self._not_before = 0.0
        self._pause_s = UNUSABLE_RETRY_S
        self._is_closed = False
        self._server = SnapshotServer(create=ports.create, send=send, clock=clock)
        self._puller = SnapshotPuller(open_sink=ports.open_sink, send=send, clock=clock, complete=self._complete)

    def need(self, leader: Member, at_least: int) -> None:
        """Fetch a snapshot that reaches at least entry `at_least` from `leader`, unless one is being fetched from it."""
        if not self._is_preparing and self._clock() >= self._not_before:
            self._puller.start(leader, at_least=at_least)

    def handle(self, member: Member, message: SnapshotMessage) -> None:
        """A message of another node."""
        if isinstance(message, SnapshotRequest):
            self._server.handle(member, message)
        else:
            self._puller.handle(member, message)

    def lowest_index(self) -> int | None:
        """The log must keep what is behind this, as somebody fetches a snapshot up to it."""
        return self._server.lowest_index()

    def log_begins_behind(self, index: int) -> None:
        """A snapshot that ends before this leads nowhere."""
        self._server.renew_below(index)

    def next_deadline(self) -> float:
        """Clock time at which `tick` has something to do; infinity if never."""
        deadlines = (self._server.next_deadline(), self._puller.next_deadline())
        return min((one for one in deadlines if one is not None), default=math.inf)

    def tick(self) -> None:
        """Ask again for what did not come; let go of what nobody fetches."""
        self._server.tick()
        self._puller.tick()

    def close(self) -> None:
        """Give and get nothing any more."""
        self._is_closed = True
        self._puller.close()
        self._server.close()

    def _complete(self, directory: Path, index: int, term: int) -> None:
        logger.debug("snapshot fetched index=%d term=%d", index, term)
        self._is_preparing = True
        self.ports.prepare(directory, self._prepared)

    def _prepared(self, result: Prepared | BaseException) -> None:
        self._is_preparing = False
        if isinstance(result, BaseException):
            logger.error("a fetched snapshot cannot be used; another one is fetched later: %s", result)
            self._not_before = self._clock() + self._pause_s
            self._pause_s = min(2 * self._pause_s, UNUSABLE_RETRY_MAX_S)
        elif self._is_closed:
            result.discard()
        else:
            self._pause_s = UNUSABLE_RETRY_S
            self._install(result)
