"""Lets another node lead when this one cannot read a message: the others have it on disks of their own (B238)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from raft.node import RaftNode

logger = logging.getLogger(__name__)

PAUSE_S: Final = 60.0
PAUSE_MAX_S: Final = 3600.0
"""Least time from one attempt of a node to its next, seconds, doubled with each: if all lack the message, leadership must not go
round all the time."""

HAND_OVER_MAX_S: Final = 2.0
"""How long another node has to take over, seconds; then this one leads no more in any case."""


class GivingWay:
    """Of one node, leadership after leadership."""

    def __init__(
        self,
        node: RaftNode,
        loop: asyncio.AbstractEventLoop,
        *,
        end_leadership: Callable[[], Awaitable[None]],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        """`end_leadership` finishes in order what is under way for clients."""
        self._node = node
        self._loop = loop
        self._end_leadership = end_leadership
        self._on_fatal = on_fatal
        self._task: asyncio.Task[None] | None = None
        self._next_s = float("-inf")
        self._pause_s = PAUSE_S

    def begin(self) -> None:
        """A message could not be read by this leader. Does nothing when no other member is there, or it was tried lately."""
        now = self._loop.time()
        if now < self._next_s or not self._has_heir():
            return
        self._next_s = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, PAUSE_MAX_S)
        logger.warning("another node is to lead, as this one cannot read a message")
        self._task = self._loop.create_task(self._run())

    async def stop(self) -> None:
        """The node ends."""
        self._next_s = float("inf")
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def _has_heir(self) -> bool:
        statistics = self._node.statistics()
        return any(peer.is_up and peer.node_id in statistics.members for peer in statistics.peers)

    async def _run(self) -> None:
        term = self._node.term
        try:
            await self._end_leadership()
            if self._node.term == term:  # else it is over, and another one must not be ended for it
                await self._node.transfer(HAND_OVER_MAX_S, stays=True)
        except Exception as error:  # noqa: BLE001  the top of the task: the node ends, with the reason
            self._on_fatal(error)
