"""Decides which frames of one node are taken, and puts messages together. Pure.

A session begins with every start of a process and whenever its connection is made anew; its number is higher than all
before. Every frame takes the next sequence of its sender's session, hellos included, so that the hello behind a lost message
shows the loss.

- A hello of a higher session replaces the one known: everything before is forgotten. One of a lower session does so only if it
  answers to our current session, and was never replaced itself: that node's clock was set back before it started. One that
  was replaced comes back only when the node was not heard for very long.
- Data is taken only from the known session, for our current one, and with a higher sequence than the last: nothing that
  was recorded or delayed from before a restart on either side comes through, and nothing comes twice or out of order.
- A jump in the sequence is a gap. It is told once, the message it tore is dropped, and the stream goes on.
- A message is cut into slices with consecutive sequences. Any other order is dropped, and is a gap, too.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from raft.membership import Member
from raft.wire import MESSAGE_MAX_BYTES

from .drops import DropReason
from .frame import Frame, Header

REPLACED_KEPT: Final = 16
"""Sessions of one node that are remembered as replaced: their delayed hellos must not bring them back."""


@dataclass(frozen=True, slots=True)
class Opening:
    """A hello that was taken. `is_new`: it began a session; `is_gap`: something before it was lost."""

    is_new: bool
    is_gap: bool


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a slice that was taken has brought: a whole message, news of a loss, what had to be dropped."""

    message: bytes | memoryview | None
    is_gap: bool
    dropped: DropReason | None


@dataclass(slots=True)
class Session:
    """Both directions of the link to one node id. `member` and `session` are the known ones, 0 and None at first."""

    member: Member | None = None
    session: int = 0
    last_sequence: int = 0
    sequence_out: int = 0
    _replaced: deque[int] = field(default_factory=lambda: deque(maxlen=REPLACED_KEPT))
    _buffer: bytearray = field(default_factory=bytearray, init=False)
    _slices: int = field(default=0, init=False)  # of the message being put together; 0: none is
    _next_slice: int = field(default=0, init=False)
    _is_torn: bool = field(default=False, init=False)  # a loss was told, and no message has begun since

    def next_sequence(self) -> int:
        """The sequence of our next frame to this node."""
        self.sequence_out += 1
        return self.sequence_out

    def restarted(self) -> None:
        """We have begun a new session: our frames count from 1, and what was being put together is void."""
        self.sequence_out = 0
        self._forget_slices()

    def take_hello(self, header: Header, *, own_session: int, is_forgotten: bool) -> Opening | DropReason:
        """Take a hello, or say why not. `is_forgotten`: the node was not heard for very long."""
        is_known = header.source == self.member and header.source_session == self.session
        if is_known:
            if header.sequence <= self.last_sequence:
                return DropReason.REPEATED
        elif header.source_session > self.session or (
            header.destination_session == own_session and (is_forgotten or header.source_session not in self._replaced)
        ):
            self._replaced.append(self.session)
            self.member, self.session = header.source, header.source_session
        else:
            return DropReason.OLD_SESSION
        is_gap = is_known and (header.sequence != self.last_sequence + 1 or self._slices > 0)
        self.last_sequence = header.sequence
        self._forget_slices()
        self._is_torn = is_gap
        return Opening(is_new=not is_known, is_gap=is_gap)

    def refusal(self, header: Header, own_session: int) -> DropReason | None:
        """Why a frame with data is not to be taken, if so."""
        if header.source != self.member or header.source_session != self.session:
            return DropReason.OLD_SESSION if header.source_session <= self.session else DropReason.NO_HELLO
        if header.destination_session != own_session:
            return DropReason.OTHER_DESTINATION
        return DropReason.REPEATED if header.sequence <= self.last_sequence else None

    def take(self, frame: Frame) -> Arrival:
        """Take a frame with data that there is no `refusal` of."""
        header, body = frame.header, frame.body
        assert header.sequence > self.last_sequence
        is_gap = header.sequence != self.last_sequence + 1
        self.last_sequence = header.sequence
        if is_gap:
            self._forget_slices()
            self._is_torn = True
        if header.fragment_number == 0:
            return self._begin(header, body, is_gap=is_gap)
        if header.fragment_number != self._next_slice or header.fragment_count != self._slices:
            return self._tear(DropReason.FRAGMENT, is_gap=is_gap or not self._is_torn)
        if len(self._buffer) + len(body) > MESSAGE_MAX_BYTES:
            return self._tear(DropReason.OVERSIZED, is_gap=True)
        self._buffer += body
        self._next_slice += 1
        if self._next_slice < self._slices:
            return Arrival(None, is_gap=False, dropped=None)
        message = memoryview(self._buffer)
        self._forget_slices()
        return Arrival(message, is_gap=False, dropped=None)

    def _begin(self, header: Header, body: bytes, *, is_gap: bool) -> Arrival:
        """The first slice of a message, which may be all of it."""
        is_unfinished = self._slices > 0
        dropped = DropReason.FRAGMENT if is_unfinished else None
        self._forget_slices()
        self._is_torn = False
        if header.fragment_count == 1:
            return Arrival(body, is_gap=is_gap or is_unfinished, dropped=dropped)
        self._buffer += body
        self._slices, self._next_slice = header.fragment_count, 1
        return Arrival(None, is_gap=is_gap or is_unfinished, dropped=dropped)

    def _tear(self, reason: DropReason, *, is_gap: bool) -> Arrival:
        self._forget_slices()
        self._is_torn = True
        return Arrival(None, is_gap=is_gap, dropped=reason)

    def _forget_slices(self) -> None:
        self._buffer = bytearray()
        self._slices = self._next_slice = 0
