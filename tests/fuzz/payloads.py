"""Makes the payloads of requests: honest ones, extreme ones, spoilt ones, and bytes that are no protobuf at all. Pure.

Names are drawn from those that exist in `tests.fuzz.world`, so that most requests get beyond the first check.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

from server.protocol import stan_pb2 as pb
from tests.conformance.hostile import ILL_FORMED, ILL_TYPED

CLIENT_IDS: Final = ("me", "me", "me", "you", "you", "old", "new", "ME")
"""`old` has no connection id, `new` and `ME` do not exist."""

CHANNELS: Final = ("foo", "foo", "foo", "bar", "foo.bar", "FOO", "other", "more", "x" * 255, "x" * 256)
"""`FOO` is refused for its case, those behind it do not exist, the last one is too long."""

INBOXES: Final = ("in.me", "in.me", "in.you", "in.old", "in.group", "in.new", "in.newer")
"""Those of subscriptions that exist, then new ones."""

DURABLES: Final = ("", "", "", "d", "d", "offline", "x:y", "x" * 255, "x" * 256)
GROUPS: Final = ("", "", "", "", "g", "g", "offline", "x:y", "x" * 255, "x" * 256)

BAD_NAMES: Final = (
    "", " ", ".", "..", "*", ">", "a..b", ".a", "a.", "a b", "a\tb", "a\r\nb", "abc\n", "a/b", "a*b", "a>b", "foo.*", "foo.>",
    "\x00", "\x7f", "é", "\u00a0", "\u2028", "\U0001f600", "x" * 256, "x" * 2000, "%s", "PUB a 0\r\n\r\n", "İ", "ß", "\ufeff",
)  # fmt: skip
"""Each breaks a rule of some name, or looks as if it did."""

INT32: Final = (0, -1, -(2**31), 2**31 - 1)
INT64: Final = (0, 1, 10**9, -1, -(2**63), 2**63 - 1)
UINT64: Final = (0, 1, 2, 3, 4, 5, 2**31, 2**63, 2**64 - 1)
CONNECTION_IDS: Final = (b"", b"", b"", b"conn-me", b"conn-me", b"conn-you", b"conn-new")

SPOILT_MAX_BYTES: Final = 200
"""Random payloads are at most so long, bytes."""

_M = TypeVar("_M", bound=Message)

texts = st.one_of(st.sampled_from(BAD_NAMES), st.text(max_size=20))
blobs = st.one_of(st.just(b""), st.binary(max_size=30), st.just(b"x" * 5000))
client_ids = st.sampled_from(CLIENT_IDS)
channels = st.sampled_from(CHANNELS)
inboxes = st.sampled_from(INBOXES)
connection_ids = st.sampled_from(CONNECTION_IDS)
int64s = st.one_of(st.sampled_from(INT64), st.integers(-(2**63), 2**63 - 1))
uint64s = st.one_of(st.sampled_from(UINT64), st.integers(0, 2**64 - 1))

connects = st.builds(
    pb.ConnectRequest,
    clientID=client_ids,
    heartbeatInbox=st.sampled_from(["hb.new", "hb.newer", "hb.me"]),
    protocol=st.integers(0, 2),
    connID=connection_ids,
    pingInterval=st.integers(0, 10),
    pingMaxOut=st.integers(0, 10),
)
pings = st.builds(pb.Ping, connID=connection_ids)
publishes = st.builds(
    pb.PubMsg,
    clientID=client_ids,
    guid=st.sampled_from(["g", "guid"]),
    subject=channels,
    reply=st.one_of(st.just(""), texts),
    data=blobs,
    connID=connection_ids,
)
subscribes = st.builds(
    pb.SubscriptionRequest,
    clientID=client_ids,
    subject=channels,
    qGroup=st.sampled_from(GROUPS),
    inbox=inboxes,
    maxInFlight=st.integers(1, 100),
    ackWaitInSecs=st.integers(1, 100),
    durableName=st.sampled_from(DURABLES),
    startPosition=st.integers(0, 4),
    startSequence=uint64s,
    startTimeDelta=int64s,
)
ends = st.one_of(
    st.sampled_from(
        [("me", "foo", "in.me"), ("you", "foo", "in.you"), ("me", "foo", "in.group"), ("old", "bar", "in.old")]
    ),
    st.tuples(st.sampled_from(["me", "you"]), st.sampled_from(["foo", "bar"]), st.sampled_from(INBOXES)),
    st.tuples(client_ids, channels, inboxes),
).map(lambda names: pb.UnsubscribeRequest(clientID=names[0], subject=names[1], inbox=names[2], durableName="ignored"))
closes = st.builds(pb.CloseRequest, clientID=client_ids)
acks = st.builds(pb.Ack, subject=channels, sequence=uint64s)


def encoded(messages: st.SearchStrategy[_M]) -> st.SearchStrategy[bytes]:
    """The bytes of one of `messages`."""
    return messages.map(lambda message: message.SerializeToString())


def payloads(messages: st.SearchStrategy[_M]) -> st.SearchStrategy[bytes]:
    """Bytes for a request: one of `messages`, the same with one extreme field, the same spoilt, or any bytes at all."""
    honest = encoded(messages)
    extreme = encoded(st.builds(_with_extreme, messages, st.integers(0, 15), texts, blobs, st.integers(0, 15)))
    spoilt = st.builds(_spoil, honest, st.sampled_from(_SPOILERS), st.integers(0, 2**32), st.binary(max_size=8))
    senseless = st.one_of(
        st.sampled_from(ILL_FORMED + ILL_TYPED), st.just(b"dummy"), st.binary(max_size=SPOILT_MAX_BYTES)
    )
    return st.sampled_from([honest, honest, honest, extreme, extreme, extreme, spoilt, senseless]).flatmap(
        lambda one: one
    )


def _with_extreme(message: _M, number: int, text: str, blob: bytes, choice: int) -> _M:
    """One field, by its number, holds something else."""
    changed = type(message)()
    changed.CopyFrom(message)
    fields = message.DESCRIPTOR.fields
    field = fields[number % len(fields)]
    values: dict[int, object] = {
        FieldDescriptor.TYPE_STRING: text,
        FieldDescriptor.TYPE_BYTES: blob,
        FieldDescriptor.TYPE_INT32: INT32[choice % len(INT32)],
        FieldDescriptor.TYPE_ENUM: (5, *INT32)[choice % (len(INT32) + 1)],
        FieldDescriptor.TYPE_INT64: INT64[choice % len(INT64)],
        FieldDescriptor.TYPE_UINT64: UINT64[choice % len(UINT64)],
    }
    setattr(changed, field.name, values[field.type])
    return changed


def _spoil(payload: bytes, how: Callable[[bytes, int, bytes], bytes], number: int, extra: bytes) -> bytes:
    return how(payload, number % (len(payload) + 1), extra)


def _flip(payload: bytes, at: int, extra: bytes) -> bytes:
    spoilt = bytearray(payload)
    if at < len(spoilt):
        spoilt[at] ^= 1 << (len(extra) % 8)
    return bytes(spoilt)


_SPOILERS: Final[tuple[Callable[[bytes, int, bytes], bytes], ...]] = (
    _flip,
    lambda payload, at, extra: payload[:at],
    lambda payload, at, extra: payload[at:],
    lambda payload, at, extra: payload[:at] + extra + payload[at:],
    lambda payload, at, extra: payload[:at] + extra + payload[at + len(extra) :],
    lambda payload, at, extra: payload + payload[at:],
    lambda payload, at, extra: payload + ILL_FORMED[at % len(ILL_FORMED)],
    lambda payload, at, extra: payload + ILL_TYPED[at % len(ILL_TYPED)],
)
"""How to spoil a payload: given the payload, a place in it, and some bytes."""
