"""Bytes of the NATS protocol, cut anywhere and damaged anywhere, into the parser of a server that serves.

Target `splits`: legal bytes mean the same whole, byte by byte and in any pieces. Target `damage`: damaged bytes raise
ProtocolError or nothing, and after the new connection that follows the server serves as before.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from hypothesis import strategies as st

from server.config.model import Limits
from server.errors import ProtocolError
from server.nats import control
from server.protocol import stan_pb2 as pb
from tests.fuzz import payloads
from tests.fuzz.requests import HEADERS
from tests.fuzz.world import PUBLISH_PREFIX, SUBJECTS, World, world
from tests.support.leader_harness import Frame

CONTROL_LINES: Final = (
    b"PING",
    b"PONG",
    b"+OK",
    b"INFO {}",
    b'INFO {"max_payload":1048576,"connect_urls":["127.0.0.1:4223"]}',
    b"INFO {",
    b"INFO []",
    b"-ERR 'Permissions Violation for Publish to \"a\"'",
    b"-ERR 'Stale Connection'",
    b"-ERR",
    b"",
    b"MSGX a 1 0",
)
"""What else a NATS server sends, and what it does not."""

UNKNOWN_SID: Final = 999
DATA: Final = (b"", b"x", b"\r\n", b"MSG a 1 0\r\n\r\n", b"x" * 127, b"x" * 128, b"x" * 16384)
GUIDS: Final = ("g", "h", "longer", "\r\n")


@dataclass(frozen=True)
class Publishes:
    """A run of publishes of one client to one channel, whose lines are equal when their sizes are."""

    channel: str
    guids: tuple[str, ...]
    data: bytes
    has_conn_id: bool
    has_reply: bool
    headers: bytes


@dataclass(frozen=True)
class Acks:
    """A run of acks on the ack inbox of the subscription with `inbox`."""

    inbox: str
    channel: str
    seqs: tuple[int, ...]
    headers: bytes


@dataclass(frozen=True)
class Request:
    """A request with any payload, or a message for nobody."""

    kind: str
    payload: bytes
    headers: bytes


Item = Publishes | Acks | Request | bytes
"""Bytes: a control line."""

headers = st.sampled_from(HEADERS)
items: st.SearchStrategy[Item] = st.one_of(
    st.builds(
        Publishes,
        channel=st.sampled_from(["foo", "bar", "new"]),
        guids=st.lists(st.sampled_from(GUIDS), min_size=1, max_size=6).map(tuple),
        data=st.one_of(st.sampled_from(DATA), st.binary(max_size=20)),
        has_conn_id=st.booleans(),
        has_reply=st.sampled_from([True, True, False]),
        headers=headers,
    ),
    st.builds(
        Acks,
        inbox=st.sampled_from(["in.me", "in.you", "in.old", "in.group"]),
        channel=st.sampled_from(["foo", "foo", "bar"]),
        seqs=st.lists(st.one_of(st.integers(1, 9), payloads.uint64s), min_size=1, max_size=6).map(tuple),
        headers=headers,
    ),
    st.builds(
        Request,
        kind=st.sampled_from([*SUBJECTS, "nobody"]),
        payload=st.one_of(
            payloads.encoded(payloads.subscribes),
            payloads.encoded(payloads.ends),
            payloads.encoded(payloads.pings),
            st.binary(max_size=30),
        ),
        headers=headers,
    ),
    st.sampled_from(CONTROL_LINES[:5]),
)
cuts = st.lists(st.floats(0, 1), max_size=8)
"""Where to cut, in parts of the length."""

split_inputs = st.tuples(st.lists(items, min_size=1, max_size=8), cuts)


def check_splits(drawn: tuple[list[Item], list[float]]) -> None:
    """The same bytes in three ways, to three servers that are alike: whole, in pieces, byte by byte."""
    sent, places = drawn
    seen = []
    for cut in (lambda data: [data], lambda data: _pieces(data, places), _bytes):
        with world(Limits()) as served:
            control_lines = _feed_one_turn(served, cut(_encoded(served, sent)))
            frames = served.take()
            contents = {channel: served.contents(channel) for channel in served.leader.store.state.channels}
            pending = [served.pending(one.ack_inbox) for one in served.online() if not one.queue_group]
            subscriptions = [(one.inbox, one.is_online) for one in served.leader.store.state.subscriptions.values()]
            seen.append((control_lines, _comparable(frames), contents, pending, subscriptions))
            _check_publish_acks(frames, contents)
            served.check_serving()
    assert seen[0] == seen[1]
    assert seen[0] == seen[2]


def _feed_one_turn(served: World, pieces: Iterable[bytes]) -> list[bytes]:
    """All pieces, then what follows from them; returns the control lines."""
    leader = served.leader
    for piece in pieces:
        leader.core.feed(piece, leader.wall_ns())
    leader.leadership.take_turn()
    leader.loop.run()
    assert (leader.core.rest, leader.core.chunks, leader.core.missing_bytes) == (b"", [], 0)
    lines, leader.core.control = leader.core.control, []
    return lines


def _comparable(frames: list[Frame]) -> dict[str, list[bytes]]:
    """By subject; ack inboxes are chance."""
    found: dict[str, list[bytes]] = defaultdict(list)
    for frame in frames:
        payload = frame.payload
        if frame.subject == "reply.subscribe":
            answer = pb.SubscriptionResponse.FromString(payload)
            answer.ackInbox = answer.ackInbox and "an ack inbox"
            payload = answer.SerializeToString()
        found[frame.subject].append(payload)
    return found


def _check_publish_acks(frames: list[Frame], contents: dict[str, list[tuple[bytes, str]]]) -> None:
    """B211: what was acked is stored. Answers name the channel."""
    for channel, stored in contents.items():
        answers = [pb.PubAck.FromString(one.payload) for one in frames if one.subject == f"acks.{channel}"]
        assert sum(not one.error for one in answers) <= len(stored)
        assert all(one.guid in GUIDS for one in answers)


# ---- damage


@dataclass(frozen=True)
class Damage:
    """`how` at a place, in parts of the length."""

    place: float
    how: str
    extra: bytes


damages = st.builds(
    Damage,
    place=st.floats(0, 1),
    how=st.sampled_from(["flip", "insert", "delete", "repeat"]),
    extra=st.one_of(st.binary(min_size=1, max_size=12), st.sampled_from([b"\r\n", b" ", b"9", b"-1", b"99999999999"])),
)
damage_inputs = st.tuples(
    st.lists(items, min_size=1, max_size=8),
    st.lists(damages, max_size=4),
    cuts,
    st.sampled_from(CONTROL_LINES),
)


def check_damage(drawn: tuple[list[Item], list[Damage], list[float], bytes]) -> None:
    """Damaged bytes in pieces, as the application feeds them: at a ProtocolError the connection is made anew."""
    sent, harm, places, line = drawn
    with world(Limits()) as served:
        leader = served.leader
        data = _encoded(served, [*sent, line, *sent[:2]])
        for one in harm:
            data = _damaged(data, one)
        try:
            for piece in _pieces(data, places):
                leader.core.feed(piece, leader.wall_ns())
                _take_control(served)
                leader.leadership.take_turn()
                leader.loop.run()
        except ProtocolError:
            pass
        leader.core.reset_connection()
        leader.core.forget_lines()
        leader.leadership.on_connected()
        leader.leadership.take_turn()
        leader.loop.run()
        leader.nats.writes.clear()  # a NATS server never sends such subjects, so answers to them may be as bad
        for channel in list(leader.store.state.channels):
            served.stored[channel] = served.contents(channel)
        served.check_serving()
        served.check_kept(is_on_disk=False)


def _take_control(served: World) -> None:
    """Control lines, to what reads them."""
    lines, served.leader.core.control = served.leader.core.control, []
    for line in lines:
        match control.verb(line):
            case control.Verb.INFO:
                control.info(line)
            case control.Verb.ERROR:
                control.fault(line)


def _damaged(data: bytes, damage: Damage) -> bytes:
    at = int(damage.place * len(data))
    how: dict[str, Callable[[], bytes]] = {
        "flip": lambda: data[:at] + bytes(one ^ damage.extra[0] for one in data[at : at + 1]) + data[at + 1 :],
        "insert": lambda: data[:at] + damage.extra + data[at:],
        "delete": lambda: data[:at] + data[at + len(damage.extra) :],
        "repeat": lambda: data[:at] + data[max(0, at - 40) :],
    }
    return how[damage.how]()


# ---- bytes


def _pieces(data: bytes, places: list[float]) -> list[bytes]:
    edges = sorted({0, len(data), *(int(place * len(data)) for place in places)})
    return [data[start:stop] for start, stop in pairwise(edges)]


def _bytes(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def _encoded(served: World, sent: list[Item]) -> bytes:
    return b"".join(_item_bytes(served, one) for one in sent)


def _item_bytes(served: World, item: Item) -> bytes:
    match item:
        case Publishes():
            subject = PUBLISH_PREFIX + item.channel
            conn_id = b"conn-me" if item.has_conn_id else b""
            messages = [
                pb.PubMsg(clientID="me", guid=guid, subject=item.channel, data=item.data, connID=conn_id)
                for guid in item.guids
            ]
            reply = f"acks.{item.channel}" if item.has_reply else ""
            return b"".join(served.message(subject, one.SerializeToString(), reply, item.headers) for one in messages)
        case Acks():
            (inbox,) = [one.ack_inbox for one in served.online() if one.inbox == item.inbox]
            acks = [pb.Ack(subject=item.channel, sequence=seq) for seq in item.seqs]
            return b"".join(served.message(inbox, one.SerializeToString(), "", item.headers) for one in acks)
        case Request(kind="nobody"):
            return served.message("nobody", item.payload, "reply", item.headers, sid=UNKNOWN_SID)
        case Request():
            return served.message(SUBJECTS[item.kind], item.payload, f"reply.{item.kind.split()[0]}", item.headers)
        case _:
            return item + b"\r\n"
