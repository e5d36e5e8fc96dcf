"""What delivery needs of its surroundings."""

from typing import Protocol


class Port(Protocol):
    """Connection, outbox and the other roles, as delivery sees them."""

    @property
    def parts(self) -> list[bytes]:
        """Frames of this turn."""
        ...

    def is_open(self) -> bool:
        """True when messages handed over now reach NATS and its buffer has room, and this node may speak."""
        ...

    def confirm(self) -> bool:
        """Asked once where delivery begins to act by itself: whether this node may still speak (B401).

        After a no `is_open` says no, too, until there is a reason to go on.
        """
        ...

    def wake(self) -> None:
        """Flush `parts` at the end of this turn."""
        ...

    def flush(self) -> None:
        """Write `parts` now."""
        ...

    def is_failing(self, client_id: str) -> bool:
        """True when the client has at least one failed heartbeat in a row (B268)."""
        ...

    def want_progress(self, *, at_once: bool) -> None:
        """Progress is to be replicated soon; `at_once`: a subscription waits for it."""
        ...
