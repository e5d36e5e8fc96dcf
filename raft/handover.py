"""Hands leadership over in order: to a member that has everything, asked once (Raft dissertation, section 3.10)."""

import asyncio
import logging
from collections.abc import Callable

from raft.core import Core
from raft.membership import Member
from raft.messages import Message, TimeoutNow

logger = logging.getLogger(__name__)


class HandOver:
    """One attempt. The leader takes no proposals meanwhile."""

    def __init__(self, core: Core, *, is_up: Callable[[Member], bool], send: Callable[[Member, Message], None]) -> None:
        self._core = core
        self._is_up = is_up
        self._send = send
        self._is_asked = False
        self._is_over = asyncio.Event()

    def advance(self) -> None:
        """A member has answered: ask it, if it has the whole log now."""
        sender, configuration = self._core.sender, self._core.configuration
        if self._is_asked or sender is None or configuration is None:
            return
        last = self._core.consensus.last_index
        for progress in sender.progress():
            member = progress.member
            if member in configuration.members and progress.match_index == last and self._is_up(member):
                self._is_asked = True
                self._send(member, TimeoutNow(self._core.consensus.term))
                return

    def over(self) -> None:
        """This node leads no more."""
        self._is_over.set()

    @property
    def has_heirs(self) -> bool:
        """Whether anybody can be reached who could take over."""
        configuration = self._core.configuration
        return configuration is not None and any(map(self._is_up, configuration.members))

    async def wait(self, timeout_s: float) -> None:
        """Return when it is over, when there is nobody, or after `timeout_s`."""
        if not self.has_heirs:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._is_over.wait()
        except TimeoutError:
            logger.warning("leadership was not handed over in time seconds=%.1f", timeout_s)
