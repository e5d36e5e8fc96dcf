"""Keeps the links to all other nodes: who is up, hellos, and messages in order at most once. Pure; the clock is given.

Rules:
- A node is up when both directions are proven: its hello names our current session as the one it hears. It is down when it
  was silent for `SILENCE_S`, when it says that it does not hear us, and when it or we begin a new session.
- Hellos go every `HELLO_S` to the targets and to whoever is heard. Another goes at once when what it says to a node has
  changed, which is the case once per session and side: hellos never chase one another.
- Of two processes with one node id the one with the newer session is heard; the other one is complained about, not followed.
- The regular hello goes to our own node id as well: that is how another process that was given it hears of us.
- A message to a member that is not up is dropped: who sends has to begin anew when it comes up, and probe after a gap.
All methods run on one thread. The order of everything depends on the calls alone.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from raft.constants import MEMBERS_MAX
from raft.errors import WireError
from raft.membership import Member
from raft.messages import Message
from raft.wire import MESSAGE_MAX_BYTES, decode, encode

from .drops import DropReason, Drops
from .frame import (
    SLICE_MIN_BYTES,
    Frame,
    FrameKind,
    Header,
    NodeInfo,
    authenticate,
    cut,
    decode_frame,
    decode_info,
    encode_frame,
    encode_info,
    key_of,
    slice_max,
)
from .session import Opening, Session

HELLO_S: Final = 0.25
"""Time between two hellos to one node, seconds."""

SILENCE_S: Final = 2.0
"""A node that was not heard for so long is down, seconds."""

FORGET_S: Final = 30.0
"""A node that was not heard for so long may come back with a lower session, seconds: its clock was set back meanwhile."""

PEERS_MAX: Final = 4 * MEMBERS_MAX
"""Most nodes that are remembered. One more takes the place of the one silent for longest that is no target, or is refused."""

OWN_SESSIONS_KEPT: Final = 16
"""How many of our sessions are remembered, to know late frames of ours."""

TWINS_MAX: Final = 64
"""How many pairs of incarnations of one node id are remembered as complained about."""

assert HELLO_S * 4 <= SILENCE_S <= FORGET_S

logger = logging.getLogger(__name__)


class Carrier(Protocol):
    """Brings frames to nodes, each as one message, or loses them."""

    def send(self, node_id: str, parts: Sequence[bytes | memoryview]) -> None:
        """Send the concatenation of `parts` and do not wait."""

    @property
    def max_bytes(self) -> int:
        """The largest message that can be sent now, bytes."""


class LinkEvents(Protocol):
    """What is told of the links. Callbacks may send, and set targets and info."""

    def on_up(self, member: Member, info: NodeInfo) -> None:
        """The link works in both directions."""

    def on_down(self, member: Member, reason: str) -> None:
        """The link does not work any more, or began anew."""

    def on_info(self, member: Member, info: NodeInfo) -> None:
        """A member that is up says something else about itself than before."""

    def on_gap(self, member: Member) -> None:
        """Something that a member that is up has sent was lost."""

    def on_part(self, member: Member) -> None:
        """A slice of a message of a member that is up, whose end is still to come."""

    def on_message(self, member: Member, message: Message) -> None:
        """A message of a member that is up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerLinkStatistics:
    """One node: the member heard last, its session, frames sent and taken, gaps told."""

    node_id: str
    incarnation: str
    is_up: bool
    session: int
    sent_frames: int
    received_frames: int
    gaps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LinksStatistics:
    """All links of a node: our session, the nodes by id, and what was dropped by reason."""

    session: int
    peers: tuple[PeerLinkStatistics, ...]
    dropped: Mapping[str, int]


@dataclass(slots=True)
class _Peer:
    node_id: str
    session: Session = field(default_factory=Session)
    info: NodeInfo = field(default_factory=NodeInfo)
    is_up: bool = False
    is_heard: bool = False  # within the last `SILENCE_S`, and since our session began
    heard_s: float = float("-inf")
    sent_frames: int = 0
    received_frames: int = 0
    gaps: int = 0

    @property
    def heard_session(self) -> int:
        """What our hello to this node says."""
        return self.session.session if self.is_heard else 0


class Links:
    """The links of one member to all other nodes."""

    def __init__(
        self,
        *,
        cluster_id: str,
        me: Member,
        secret: bytes | None,
        carrier: Carrier,
        clock: Callable[[], float],
        new_session: Callable[[], int],
        events: LinkEvents,
    ) -> None:
        """`clock` tells seconds and never goes back; `new_session` numbers that grow, over restarts too. No secret: None."""
        self._me = me
        self._key = None if secret is None else key_of(secret, cluster_id)
        self._carrier = carrier
        self._clock = clock
        self._new_session = new_session
        self._events = events
        self._session = new_session()
        self._own_sessions = deque([self._session], maxlen=OWN_SESSIONS_KEPT)
        self._info = NodeInfo()
        self._targets: tuple[str, ...] = ()  # ascending, without ourselves
        self._members: dict[str, Member] = {}
        self._hello_heard_s: dict[Member, float] = {}  # of whoever said hello lately
        self._peers: dict[str, _Peer] = {}
        self._sequence_floor = 0  # of frames to nodes that were forgotten
        self._self = _Peer(me.node_id)
        self._hello_s = clock()
        self._drops = Drops(clock)
        self._twins: dict[tuple[str, str, str], None] = {}

    def set_info(self, info: NodeInfo) -> None:
        """What our hellos say from now on; when that is new, they go at once."""
        if info != self._info:
            self._info = info
            for peer in self._recipients():
                self._send_hello(peer)

    def set_targets(self, node_ids: Iterable[str]) -> None:
        """The nodes that get hellos, whether heard or not; new ones at once."""
        known = set(self._targets)
        self._targets = tuple(sorted(set(node_ids) - {self._me.node_id}))
        for node_id in self._targets:
            if node_id not in self._peers:
                self._add(node_id)
            if node_id not in known:
                self._send_hello(self._peers[node_id])
        for node_id in sorted(known.difference(self._targets)):
            if self._peers[node_id].session.member is None:
                self._forget(node_id)

    def set_members(self, members: Iterable[Member]) -> None:
        """Of two processes with one node id the one among these is heard, as long as it lives."""
        self._members = {member.node_id: member for member in members}

    def is_alive(self, member: Member) -> bool:
        """Whether that very member has said hello lately, taken or not."""
        return self._hello_heard_s.get(member, float("-inf")) + SILENCE_S > self._clock()

    def restart(self) -> None:
        """Our connection was lost or made anew: a new session begins, and everyone is down until heard."""
        self._session = max(self._new_session(), self._session + 1)
        self._own_sessions.append(self._session)
        lost = self.up_members()
        for peer in (*self._peers.values(), self._self):
            peer.is_up = peer.is_heard = False
            peer.session.restarted()
        for member in lost:
            self._events.on_down(member, "our connection was made anew")
        self._hello_all()

    def send(self, member: Member, message: Message) -> None:
        """Send `message` if that very member is up."""
        if not self.is_up(member):
            self._drops.note(DropReason.UNREACHABLE, f"message to {member.key!r}, which is not up")
            return
        peer = self._peers[member.node_id]
        parts = encode(message)
        size = sum(map(len, parts))
        assert size <= MESSAGE_MAX_BYTES, size
        room = self._room(peer)
        if room is None:
            return
        count = -(-size // room)
        for number, pieces in enumerate(cut(parts, room)):
            self._send_frame(peer, FrameKind.DATA, pieces, number=number, count=count)

    def is_up(self, member: Member) -> bool:
        """Whether that very member can be reached."""
        peer = self._peers.get(member.node_id)
        return peer is not None and peer.is_up and peer.session.member == member

    def up_members(self) -> list[Member]:
        """The members that can be reached, by node id."""
        peers = [self._peers[node_id] for node_id in sorted(self._peers)]
        return [peer.session.member for peer in peers if peer.is_up and peer.session.member is not None]

    def info_of(self, member: Member) -> NodeInfo | None:
        """What a member says about itself; None unless it is up."""
        return self._peers[member.node_id].info if self.is_up(member) else None

    def receive(self, data: bytes | memoryview) -> None:
        """Take one message of the carrier. What is wrong with it is counted and logged, never raised."""
        if self._key is not None:
            try:
                data = authenticate(data, self._key)
            except WireError as error:
                self._drops.note(DropReason.UNAUTHENTICATED, str(error))
                return
        try:
            frame = decode_frame(data)
            info = decode_info(frame.body) if frame.header.kind is FrameKind.HELLO else None
        except WireError as error:
            self._drops.note(DropReason.MALFORMED, str(error))
            return
        header = frame.header
        if header.destination != self._me.node_id:
            self._drop(DropReason.MISADDRESSED, header)
        elif header.source.node_id == self._me.node_id:
            self._receive_own(header)
        elif info is not None:
            self._receive_hello(header, info)
        else:
            self._receive_data(frame)

    def tick(self) -> None:
        """Say hello and notice silence, as far as that is due."""
        now = self._clock()
        for peer in [self._peers[node_id] for node_id in sorted(self._peers)]:
            if peer.is_heard and peer.heard_s + SILENCE_S <= now:
                peer.is_heard = False
                self._down(peer, f"silent for {SILENCE_S} s")
        if self._hello_s <= now:
            self._hello_all()

    def next_deadline(self) -> float:
        """When `tick` is due, on the clock given."""
        silences = (peer.heard_s + SILENCE_S for peer in self._peers.values() if peer.is_heard)
        return min((self._hello_s, *silences))

    def statistics(self) -> LinksStatistics:
        """All links at this moment."""
        peers = [self._peers[node_id] for node_id in sorted(self._peers)]
        return LinksStatistics(
            session=self._session,
            peers=tuple(
                PeerLinkStatistics(
                    node_id=peer.node_id,
                    incarnation="" if peer.session.member is None else peer.session.member.incarnation,
                    is_up=peer.is_up,
                    session=peer.session.session,
                    sent_frames=peer.sent_frames,
                    received_frames=peer.received_frames,
                    gaps=peer.gaps,
                )
                for peer in peers
            ),
            dropped=self._drops.counts(),
        )

    # ---- what comes in

    def _receive_own(self, header: Header) -> None:
        """A frame with our node id: of ourselves, or of another process that must not have it."""
        if header.source == self._me and header.source_session in self._own_sessions:
            return
        self._drops.note(
            DropReason.OWN_NODE_ID,
            f"another running node has our node id {self._me.node_id!r}: its incarnation is {header.source.incarnation}"
            f" with session {header.source_session}, ours {self._me.incarnation} with session {self._session};"
            " give every node an id and a journal of its own",
        )

    def _receive_hello(self, header: Header, info: NodeInfo) -> None:
        peer = self._peer(header.source.node_id)
        if peer is None:
            self._drop(DropReason.TOO_MANY_PEERS, header)
            return
        now = self._clock()
        self._note_hello(header.source, now)
        member = self._members.get(header.source.node_id)
        if self._is_rival(header, member):
            return
        before, was_heard, said = peer.session.member, peer.is_heard, peer.heard_session
        is_reclaimed = header.source == member and before != member
        opening = peer.session.take_hello(
            header, own_session=self._session, is_forgotten=is_reclaimed or peer.heard_s + FORGET_S <= now
        )
        twin = before if before != header.source else None
        if twin is not None and (was_heard or not isinstance(opening, Opening)):
            self._complain_of_twins(header, twin)
        if not isinstance(opening, Opening):
            self._drop(opening, header)
            return
        peer.received_frames += 1
        peer.is_heard, peer.heard_s = True, now
        if opening.is_new:
            self._down(peer, "another incarnation runs" if twin else "it has begun a new session", before)
        elif header.destination_session != self._session:
            self._down(peer, "it does not hear us")
        if peer.heard_session != said:
            self._send_hello(peer)
        if peer.is_up and opening.is_gap:
            self._gap(peer, header.source)
        self._take_info(peer, header, info)

    def _take_info(self, peer: _Peer, header: Header, info: NodeInfo) -> None:
        """A hello was taken: the link is up if it hears us, and what it says may be new."""
        is_new, peer.info = info != peer.info, info
        if header.destination_session == self._session and not peer.is_up:
            peer.is_up = True
            self._events.on_up(header.source, info)
        elif peer.is_up and is_new:
            self._events.on_info(header.source, info)

    def _is_rival(self, header: Header, member: Member | None) -> bool:
        """Whether the hello is of another process than the living `member` of that node id; then it is dropped."""
        is_rival = member is not None and member != header.source and self.is_alive(member)
        if is_rival and member is not None:
            self._complain_of_twins(header, member)
            self._drop(DropReason.RIVAL, header)
        return is_rival

    def _note_hello(self, member: Member, now: float) -> None:
        if member not in self._hello_heard_s and len(self._hello_heard_s) >= PEERS_MAX:
            living = {one: heard_s for one, heard_s in self._hello_heard_s.items() if heard_s + SILENCE_S > now}
            self._hello_heard_s = living if len(living) < PEERS_MAX else {}
        self._hello_heard_s[member] = now

    def _receive_data(self, frame: Frame) -> None:
        header = frame.header
        peer = self._peers.get(header.source.node_id)
        if peer is None:
            self._drop(DropReason.NO_HELLO, header)
            return
        refusal = peer.session.refusal(header, self._session)
        if refusal is not None or not peer.is_up:
            self._drop(refusal or DropReason.NOT_UP, header)
            return
        arrival = peer.session.take(frame)
        peer.received_frames += 1
        peer.heard_s = self._clock()
        if arrival.dropped is not None:
            self._drop(arrival.dropped, header)
        if arrival.is_gap:
            self._gap(peer, header.source)
        if arrival.message is None:
            if arrival.dropped is None:
                self._events.on_part(header.source)
            return
        try:
            message = decode(arrival.message)
        except WireError as error:
            self._drops.note(DropReason.MALFORMED, f"message of {header.source.key!r}: {error}")
            return
        self._events.on_message(header.source, message)

    def _peer(self, node_id: str) -> _Peer | None:
        """What is known of a node; None if there is no room for one more."""
        peer = self._peers.get(node_id)
        if peer is None:
            if len(self._peers) >= PEERS_MAX:
                silent = [one for one in self._peers.values() if not one.is_heard and one.node_id not in self._targets]
                if not silent:
                    return None
                self._forget(min(silent, key=lambda one: (one.heard_s, one.node_id)).node_id)
            peer = self._add(node_id)
        return peer

    def _add(self, node_id: str) -> _Peer:
        """A node that is not known, or was forgotten: it may have heard this session of ours, so its sequence goes on."""
        peer = self._peers[node_id] = _Peer(node_id, Session(sequence_out=self._sequence_floor))
        return peer

    def _forget(self, node_id: str) -> None:
        self._sequence_floor = max(self._sequence_floor, self._peers.pop(node_id).session.sequence_out)

    def _gap(self, peer: _Peer, member: Member) -> None:
        peer.gaps += 1
        self._events.on_gap(member)

    def _down(self, peer: _Peer, reason: str, member: Member | None = None) -> None:
        """The node is down; `member` is the one that was up, if it is not the known one."""
        if peer.is_up:
            peer.is_up = False
            member = member or peer.session.member
            assert member is not None
            self._events.on_down(member, reason)

    def _drop(self, reason: DropReason, header: Header) -> None:
        self._drops.note(
            reason,
            f"{header.kind.name.lower()} frame dropped from={header.source.key!r} session={header.source_session}"
            f" to={header.destination!r} session={header.destination_session} sequence={header.sequence}",
        )

    def _complain_of_twins(self, header: Header, other: Member) -> None:
        first, second = sorted((header.source.incarnation, other.incarnation))
        pair = (header.source.node_id, first, second)
        if pair in self._twins:
            return
        if len(self._twins) >= TWINS_MAX:
            del self._twins[next(iter(self._twins))]
        self._twins[pair] = None
        logger.warning(
            "two processes seem to run with node id %r: incarnations %s and %s; the one that is a member, or"
            " began last, is heard, the other one must be stopped",
            *pair,
        )

    # ---- what goes out

    def _recipients(self) -> list[_Peer]:
        heard = [peer.node_id for peer in self._peers.values() if peer.is_heard]
        return [self._peers[node_id] for node_id in sorted({*self._targets, *heard})]

    def _hello_all(self) -> None:
        self._hello_s = self._clock() + HELLO_S
        for peer in (*self._recipients(), self._self):
            self._send_hello(peer)

    def _send_hello(self, peer: _Peer) -> None:
        body = encode_info(self._info)
        assert len(body) <= SLICE_MIN_BYTES
        if self._room(peer) is not None:
            self._send_frame(peer, FrameKind.HELLO, [body])

    def _room(self, peer: _Peer) -> int | None:
        """The largest body of a frame to this node, bytes; None, noted as a drop, when it would be too small."""
        max_bytes = self._carrier.max_bytes
        room = slice_max(max_bytes, self._me, peer.node_id, is_authenticated=self._key is not None)
        if room >= SLICE_MIN_BYTES:
            return room
        self._drops.note(
            DropReason.CARRIER_LIMIT,
            f"the largest message that can be carried has {max_bytes} bytes; allowed: at least"
            f" {max_bytes - room + SLICE_MIN_BYTES}, or node {peer.node_id!r} cannot be reached",
        )
        return None

    def _send_frame(
        self, peer: _Peer, kind: FrameKind, body: Sequence[bytes], *, number: int = 0, count: int = 1
    ) -> None:
        header = Header(
            kind=kind,
            source=self._me,
            source_session=self._session,
            destination=peer.node_id,
            destination_session=peer.heard_session,
            sequence=peer.session.next_sequence(),
            fragment_number=number,
            fragment_count=count,
        )
        peer.sent_frames += 1
        self._carrier.send(peer.node_id, encode_frame(header, body, self._key))
