"""Gives delivery the connection, the outbox and the other roles, as its port asks for them."""

from collections.abc import Callable

from server.lease_gate import LeaseGate
from server.nats.connection import NatsConnection
from server.outbox import Outbox
from server.proposals.proposer import Proposer


class DeliveryPort:
    """The engine's view of connection, outbox and the other roles."""

    __slots__ = ("_connection", "_lease", "_outbox", "_proposer", "confirm", "is_failing")

    def __init__(
        self,
        connection: NatsConnection,
        outbox: Outbox,
        proposer: Proposer,
        lease: LeaseGate,
        is_failing: Callable[[str], bool],
    ) -> None:
        self._connection = connection
        self._lease = lease
        self.confirm = lease.confirm
        self._outbox = outbox
        self._proposer = proposer
        self.is_failing = is_failing

    @property
    def parts(self) -> list[bytes]:
        """Frames of this turn."""
        return self._outbox.parts

    def is_open(self) -> bool:
        """True when the connection is up, its buffer has room, and this node may speak."""
        return self._lease.is_open and self._connection.is_connected and self._connection.is_writable

    def wake(self) -> None:
        """Flush at the end of this turn."""
        self._outbox.wake()

    def flush(self) -> None:
        """Write now."""
        self._outbox.flush()

    def want_progress(self, *, at_once: bool) -> None:
        """Progress goes into the next entry, or into one within the interval."""
        self._proposer.want_progress(at_once=at_once)
