"""Holds messages back until what they assert is on stable storage; what follows to the same member waits behind. Pure.

Rule (Raft paper, section 5.1; R8): votes, vote requests and answers to appends leave only when the journal has synced every
record made before them. Appends and questions assert nothing about this node's disk, so the leader's disk and those of its
followers work at the same time.
"""

from collections import deque
from collections.abc import Callable

from raft.membership import Member
from raft.messages import AppendResponse, Message, VoteRequest, VoteResponse

GATED = (AppendResponse, VoteRequest, VoteResponse)


class Outbox:
    """Messages on their way out, in order per member."""

    def __init__(self, *, send: Callable[[Member, Message], None], synced: Callable[[], int]) -> None:
        """`synced` counts the journal's records on stable storage."""
        self._send = send
        self._synced = synced
        self._waiting: dict[Member, deque[tuple[int, Message]]] = {}

    def put(self, member: Member, message: Message, lsn: int) -> bool:
        """Send `message`, once the journal's first `lsn` records are synced if it asserts them; whether it has left."""
        gate = lsn if isinstance(message, GATED) else 0
        waiting = self._waiting.get(member)
        if waiting is None and gate <= self._synced():
            self._send(member, message)
            return True
        if waiting is None:
            waiting = self._waiting[member] = deque()
        waiting.append((gate, message))
        return False

    def flush(self) -> None:
        """The journal has synced more."""
        synced = self._synced()
        for member in list(self._waiting):
            waiting = self._waiting[member]
            while waiting and waiting[0][0] <= synced:
                self._send(member, waiting.popleft()[1])
            if not waiting:
                del self._waiting[member]

    def drop(self, member: Member) -> None:
        """The link to a member is gone: what waited for it would be meant for another time."""
        self._waiting.pop(member, None)
