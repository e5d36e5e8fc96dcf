"""The parts put in place of PySyncObj's own: node, transport, poller and snapshot serializer."""

from collections.abc import Callable
from zlib import crc32

from pysyncobj.node import Node
from pysyncobj.transport import Transport

from raft.errors import InvariantError
from raft.membership import Member

from .ports import StockMessage


class PeerNode(Node):  # type: ignore[misc]  # pysyncobj has no types
    """A member, known by its key. The hash is the key's alone, so the order of sets is the same in every process."""

    def __init__(self, member: Member) -> None:
        super().__init__(member.key)
        self.member = member
        self._hash = crc32(member.key.encode())

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PeerNode) and bool(self._id == other._id)


class PortTransport(Transport):  # type: ignore[misc]  # pysyncobj has no types
    """Hands outgoing messages on. It is always ready: connections are the link's business."""

    ready = True

    def __init__(self, send: Callable[[Member, StockMessage], None]) -> None:
        super().__init__(None, None, None)
        self._send = send

    def send(self, node: PeerNode, message: StockMessage) -> bool:
        """Pass the message on; delivery is nobody's promise."""
        self._send(node.member, message)
        return True

    def destroy(self) -> None:
        """Nothing is open."""


class NullPoller:
    """Polls nothing: the driver owns all sockets and timers."""

    def poll(self, timeout_s: float) -> None:
        """Return at once."""


class RefusingSerializer:
    """Stands where PySyncObj keeps pickled dump files. No snapshot ever goes through it."""

    def __getattr__(self, name: str) -> object:
        raise InvariantError(f"the engine reached for stock snapshots ({name}); allowed: none")
