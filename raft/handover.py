"""Hands leadership over in order: to a member that has everything, asked once (Raft dissertation, section 3.10)."""

import asyncio
import logging
from collections.abc import Callable

from raft.core import Core
from raft.membership import Member

logger = logging.getLogger(__name__)


class HandOver:
    """One attempt. The leader takes no proposals meanwhile."""

    def __init__(self, core: Core, *, is_up: Callable[[Member], bool]) -> None:
        self._core = core
        self._is_up = is_up
        self._is_over = asyncio.Event()
        self.is_asked = False
        """Another may be elected at any moment, without regard to this leader: its lease has ended."""

    def heir(self) -> Member | None:
        """Who is to be asked now: a member that has the whole log, when all of it is committed."""
        sender, configuration, consensus = self._core.sender, self._core.configuration, self._core.consensus
        if self.is_asked or sender is None or configuration is None or consensus.commit_index < consensus.last_index:
            return None
        for progress in sender.progress():
            member = progress.member
            if member in configuration.members and progress.match_index == consensus.last_index and self._is_up(member):
                return member
        return None

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
