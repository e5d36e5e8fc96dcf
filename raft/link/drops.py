"""Counts what the link drops, by reason, and logs it without flooding the log. Pure, but for the log.

The first of a reason is logged at once, then at most one per `QUIET_S`, with the number of those in between. What healthy
nodes cause, too, when a connection is made anew is logged for debugging only.
"""

import logging
from collections.abc import Callable
from enum import StrEnum
from typing import Final

QUIET_S: Final = 10.0
"""Least time between two lines of one reason, seconds."""

logger = logging.getLogger(__name__)


class DropReason(StrEnum):
    """Why a frame or a message was dropped."""

    MALFORMED = "malformed"
    """It is not what our release sends."""
    UNAUTHENTICATED = "unauthenticated"
    """It was not made with the cluster's secret."""
    MISADDRESSED = "misaddressed"
    """It is for another node."""
    OWN_NODE_ID = "own_node_id"
    """It is of another process that has our node id."""
    TOO_MANY_PEERS = "too_many_peers"
    """Its node is unknown, and there is no room for one more."""
    OLD_SESSION = "old_session"
    """Its node has begun a later session."""
    RIVAL = "rival"
    """Another process of its node id is a member, and alive."""
    NO_HELLO = "no_hello"
    """Its session has not said hello."""
    OTHER_DESTINATION = "other_destination"
    """It was meant for another session of ours."""
    REPEATED = "repeated"
    """It, or one sent after it, was already taken."""
    NOT_UP = "not_up"
    """Its node has not yet said that it hears us."""
    FRAGMENT = "fragment"
    """It is a slice that does not follow the one before, or the beginning of a message whose end never came."""
    OVERSIZED = "oversized"
    """The slices make a message that is too large."""
    UNREACHABLE = "unreachable"
    """To be sent to a member that is not up."""
    CARRIER_LIMIT = "carrier_limit"
    """To be sent over a carrier whose messages are too small."""


_LEVELS: Final = {
    DropReason.MALFORMED: logging.WARNING,
    DropReason.UNAUTHENTICATED: logging.WARNING,
    DropReason.MISADDRESSED: logging.WARNING,
    DropReason.OWN_NODE_ID: logging.ERROR,
    DropReason.TOO_MANY_PEERS: logging.WARNING,
    DropReason.FRAGMENT: logging.WARNING,
    DropReason.OVERSIZED: logging.WARNING,
    DropReason.CARRIER_LIMIT: logging.ERROR,
}


class Drops:
    """What one link has dropped since it was made."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` tells seconds and never goes back."""
        self._clock = clock
        self._counts: dict[DropReason, int] = {}
        self._logged: dict[DropReason, tuple[float, int]] = {}  # when a line was written, dropped since

    def note(self, reason: DropReason, text: str) -> None:
        """Count one; `text` says what it was, as a sentence without payload."""
        self._counts[reason] = self._counts.get(reason, 0) + 1
        now = self._clock()
        logged_s, suppressed = self._logged.get(reason, (float("-inf"), 0))
        if now - logged_s < QUIET_S:
            self._logged[reason] = (logged_s, suppressed + 1)
            return
        self._logged[reason] = (now, 0)
        logger.log(_LEVELS.get(reason, logging.DEBUG), "%s reason=%s suppressed=%d", text, reason, suppressed)

    def counts(self) -> dict[str, int]:
        """How many of each reason that occurred, by name."""
        return {str(reason): self._counts[reason] for reason in sorted(self._counts)}
