"""Watches a leader's lease with a timer, and tells when it ends and when it is there again (B401)."""

import logging
import math
from collections.abc import Callable
from typing import Final

from raft.core import Core
from raft.engine import Timing
from raft.wakeup import Scheduler, Wakeup

logger = logging.getLogger(__name__)

RENEWED_BELOW: Final = 0.95
"""Share of its length that is left when an answer prolongs the lease: not every one of thousands a second needs to."""

DELIVERED_S: Final = 5.0
"""So long behind a leadership may what it decided to deliver still wait to leave, seconds."""


class LeaseKeeper:
    """The lease of one node, leadership after leadership."""

    def __init__(
        self, core: Core, loop: Scheduler, timing: Timing, held: Callable[[], None], released: Callable[[], None]
    ) -> None:
        """Between `held` and `released` the leader must keep silent."""
        self._core = core
        self._loop = loop
        self._renewed_below_s = RENEWED_BELOW * timing.lease_s
        self._held = held
        self._released = released
        self._wakeup = Wakeup(loop, self.update)
        self._is_open = False
        self._is_given_up = False
        self._until_s = -math.inf
        self.is_held = False
        self._ended_s = -math.inf

    @property
    def is_long_over(self) -> bool:
        """Whether nothing of a leadership of this node can be on its way any more."""
        return not self._is_open and self._loop.time() > self._ended_s + DELIVERED_S

    @property
    def is_confirmed(self) -> bool:
        """Whether no other node can have been elected by now. Cheap."""
        return not self.is_held and self._loop.time() < self._until_s

    def begin(self) -> None:
        """This node begins to serve; `update` must follow when that was told."""
        self._is_open = True
        self._until_s = self._core.lease_until_s

    def end(self) -> None:
        """It serves no more."""
        if self._is_open:
            self._ended_s = self._loop.time()
        self._is_open = self._is_given_up = self.is_held = False
        self._until_s = -math.inf
        self._wakeup.set(None)

    def give_up(self) -> None:
        """Another was asked to take over and may be elected at any moment: silent for the rest of this leadership."""
        self._is_given_up = True
        self.update()

    def answered(self) -> None:
        """An answer has come: it prolongs the lease, or gives it back."""
        if self.is_held or self._until_s - self._loop.time() < self._renewed_below_s:
            self.update()

    def update(self) -> None:
        """Find out how long the lease is now."""
        if not self._is_open:
            return
        self._until_s = -math.inf if self._is_given_up else self._core.lease_until_s
        is_confirmed = self._loop.time() < self._until_s
        self._wakeup.set(self._until_s if is_confirmed and self._until_s != math.inf else None)
        if is_confirmed is not self.is_held:
            return
        self.is_held = not is_confirmed
        if self._is_given_up:
            self._held()
        elif self.is_held:
            logger.warning("no majority confirms this leader: it keeps silent until one does")
            self._held()
        else:
            logger.info("a majority confirms this leader again")
            self._released()
