"""Lets another node lead when this one cannot read a message: the others have it on disks of their own (B238)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from raft.node import RaftNode

logger = logging.getLogger(__name__)

PAUSE_S: Final = 60.0
"""Least time from one attempt to the next, seconds: if every node lacks some message, leadership must not go round all the time."""

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

    def begin(self) -> None:
        """A message could not be read by this leader. Does nothing when there is nobody else, or it was tried just now."""
        now = self._loop.time()
        if now < self._next_s or not any(peer.is_up for peer in self._node.statistics().peers):
            return
        self._next_s = now + PAUSE_S
        logger.warning("another node is to lead, as this one cannot read a message")
        self._task = self._loop.create_task(self._run())

    async def stop(self) -> None:
        """The node ends."""
        self._next_s = float("inf")
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        try:
            await self._end_leadership()
            await self._node.transfer(HAND_OVER_MAX_S, stays=True)
        except Exception as error:  # noqa: BLE001  the top of the task: the node ends, with the reason
            self._on_fatal(error)
