"""The hot loop against protobuf: same records, same PubAcks, same windows, however the bytes are cut."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server import hot, windows
from server.errors import ProtocolError, RequestError
from server.protocol import responses
from server.protocol.stan_pb2 import Ack, MsgProto, PubAck, PubMsg
from store import block

NOW = 1_700_000_000_123_456_789
PREFIX = b"_STAN.pub.c."


class Gate:
    """Accepts every channel but those named `no…`."""

    def __init__(self, first_seq: int = 1) -> None:
        self.first_seq = first_seq
        self.channels: dict[str, windows.Channel] = {}
        self.calls = 0
        self.messages: list[hot.Message] = []

    def admit(self, message: PubMsg, subject: bytes) -> windows.Channel:
        self.calls += 1
        if message.subject.startswith("no") or subject != PREFIX + message.subject.encode():
            raise RequestError(responses.INVALID_PUBLISH, field="subject", value=message.subject)
        channel = self.channels.get(message.subject)
        if channel is None:
            channel = windows.Channel(message.subject, len(self.channels) + 1, self.first_seq - 1)
            self.channels[message.subject] = channel
        return channel


def core_and_gate(first_seq: int = 1, max_payload: int = 1024 * 1024) -> tuple[hot.Core, Gate]:
    gate = Gate(first_seq)
    core = hot.Core(gate.admit, gate.messages.append, max_payload)
    core.publish_sid = 1
    core.ack_sid = 2
    return core, gate


def msg(subject: bytes, sid: int, reply: bytes, payload: bytes) -> bytes:
    middle = b" " + reply if reply else b""
    return b"MSG %b %d%b %d\r\n%b\r\n" % (subject, sid, middle, len(payload), payload)


def publish(message: PubMsg, reply: bytes = b"_STAN.acks.x") -> bytes:
    return msg(PREFIX + message.subject.encode(), 1, reply, message.SerializeToString())


def pub_acks(parts: list[bytes]) -> list[tuple[bytes, PubAck]]:
    data = b"".join(parts)
    found = []
    while data:
        line, data = data.split(b"\r\n", 1)
        _, subject, size = line.split(b" ")
        found.append((subject, PubAck.FromString(data[: int(size)])))
        assert data[int(size) : int(size) + 2] == b"\r\n"
        data = data[int(size) + 2 :]
    return found


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces, pos, turn = [], 0, 0
    while pos < len(data):
        size = sizes[turn % len(sizes)] if sizes else len(data)
        pieces.append(data[pos : pos + size])
        pos += size
        turn += 1
    return pieces


datas = st.one_of(
    st.binary(max_size=8),
    st.sampled_from([b"", b"x" * 127, b"x" * 128, b"x" * 129, b"y" * 16383, b"y" * 16384, b"\r\nMSG a 1 2\r\n"]),
    st.binary(min_size=100, max_size=300),
)
messages = st.builds(
    PubMsg,
    clientID=st.sampled_from(["", "a", "client-b"]),
    guid=st.one_of(st.sampled_from(["g", "é" * 11]), st.integers(0, 10**21).map(lambda n: f"{n:022d}")),
    subject=st.sampled_from(["foo", "bar.baz", "no.such"]),
    reply=st.sampled_from(["", "", "", "re.ply"]),
    data=datas,
    connID=st.sampled_from([b"", b"c" * 22]),
    sha256=st.sampled_from([b"", b"", b"", b"s" * 32]),
)
repeated = st.lists(st.tuples(messages, st.integers(1, 6)), max_size=12)


@settings(max_examples=150, deadline=None)
@given(repeated, st.lists(st.integers(1, 4000), max_size=5), st.sampled_from([1, 120, 16380, 2**21 - 3, 2**42]))
def test_records_and_acks_equal_protobuf(runs, sizes, first_seq):
    """B98, B99, B203: any mix of publishes, cut anywhere, gives what protobuf gives, byte for byte."""
    core, gate = core_and_gate(first_seq)
    stream, expected, accepted, refused = [], {}, [], []
    for message, count in runs:
        for turn in range(count):
            one = PubMsg()
            one.CopyFrom(message)
            if len(one.guid) == 22 and one.guid.isascii():
                one.guid = f"{int(one.guid) % 10**12 + turn:022d}"
            stream.append(publish(one))
            if one.subject == "no.such":
                refused.append(one.guid)
                continue
            accepted.append(one.guid)
            expected.setdefault(one.subject, []).append(one)
    for piece in cut(b"".join(stream), sizes):
        core.feed(piece, NOW)
    for name, published in expected.items():
        wanted = [
            MsgProto(
                sequence=first_seq + i, subject=name, reply=m.reply, data=m.data, timestamp=NOW
            ).SerializeToString()
            for i, m in enumerate(published)
        ]
        assert gate.channels[name].records == wanted
        assert gate.channels[name].seq == first_seq + len(published) - 1
    assert [ack.guid for _, ack in pub_acks(core.acks)] == accepted
    assert {(ack.guid, ack.error) for _, ack in pub_acks(core.replies)} == {
        (g, responses.INVALID_PUBLISH) for g in refused
    }
    assert core.batch_count == core.publish_count == len(accepted)
    assert [c.name for c in core.dirty] == list(expected)


def test_equal_publishes_take_the_template_path():
    """The general path runs once per publisher and channel, not per message."""
    core, gate = core_and_gate()
    for size in (10, 10, 10, 200, 200, 30000):
        core.feed(
            publish(PubMsg(clientID="a", guid=f"{size:022d}", subject="foo", data=b"z" * size, connID=b"c" * 22)), NOW
        )
    assert core.general_count == gate.calls == 1
    assert core.publish_count == 6


def test_forgotten_lines_are_checked_again():
    """B345: after a client came or went every publisher is checked anew."""
    core, gate = core_and_gate()
    one = publish(PubMsg(clientID="a", guid="g" * 22, subject="foo", data=b"z", connID=b"c" * 22))
    core.feed(one + one, NOW)
    core.forget_lines()
    core.feed(one + one, NOW)
    assert gate.calls == 2


@pytest.mark.parametrize(
    "suffix",
    [
        b"\x0a\x01b",
        b"\x12\x01h",
        b"\x1a\x03bar",
        b"\x2a\x01y",
        b"\x30\x01",
        b"\x32\x01d",
        b"\x52\x01s",
        b"\x78\x01",
        b"\x2a\x81\x00y",
    ],
    ids=lambda value: value.hex(),
)
def test_template_never_accepts_appended_fields(suffix):
    """A message that decodes to something else than its template says goes the general way, and comes out as protobuf reads it."""
    core, gate = core_and_gate()
    base = PubMsg(clientID="a", guid="g" * 22, subject="foo", data=b"z" * 5, connID=b"c" * 22)
    odd = base.SerializeToString() + suffix
    core.feed(publish(base), NOW)
    core.feed(msg(PREFIX + b"foo", 1, b"r", odd), NOW)
    core.feed(msg(PREFIX + b"foo", 1, b"_STAN.acks.x", odd), NOW)
    try:
        parsed = PubMsg.FromString(odd)
    except Exception:  # noqa: BLE001  only "does it decode" matters here
        parsed = PubMsg()
    stored = [MsgProto.FromString(record) for record in gate.channels["foo"].records]
    if parsed.subject == "foo":
        assert [one.data for one in stored] == [b"z" * 5, parsed.data, parsed.data]
        assert [ack.guid for _, ack in pub_acks(core.acks)] == [base.guid, parsed.guid, parsed.guid]
    else:
        assert len(stored) == 1
        assert len(pub_acks(core.replies)) == 2


def test_padded_length_takes_the_general_path():
    """A data length in more bytes than needed decodes, but is not copied into the stored message."""
    core, gate = core_and_gate()
    base = PubMsg(clientID="a", guid="g" * 22, subject="foo", data=b"z" * 5, connID=b"c" * 22)
    core.feed(publish(base), NOW)
    core.feed(
        msg(PREFIX + b"foo", 1, b"_STAN.acks.x", base.SerializeToString().replace(b"\x2a\x05", b"\x2a\x85\x00")), NOW
    )
    stored = gate.channels["foo"].records
    assert len(stored) == 2
    assert stored[1] == MsgProto(sequence=2, subject="foo", data=b"z" * 5, timestamp=NOW).SerializeToString()


def test_publish_without_reply_is_stored():
    """B18: no reply subject, no answer, but the message is stored."""
    core, gate = core_and_gate()
    core.feed(publish(PubMsg(clientID="a", guid="g", subject="foo", data=b"z"), reply=b"") * 3, NOW)
    assert len(gate.channels["foo"].records) == 3
    assert core.acks == []


def test_undecodable_publish_is_answered():
    """B25: garbage gets the publish error, with no guid, and the next publish is served."""
    core, gate = core_and_gate()
    core.feed(msg(PREFIX + b"foo", 1, b"r", b"dummy") + publish(PubMsg(guid="g", subject="foo", data=b"1")), NOW)
    assert pub_acks(core.replies) == [(b"r", PubAck(error=responses.INVALID_PUBLISH))]
    assert len(gate.channels["foo"].records) == 1


@pytest.mark.parametrize("size", [900, 1000, 1020, 1100])
def test_large_publish_is_checked_each_time(size):
    """B97: whoever comes near the max payload is decided on by the gate, not by a template."""
    core, gate = core_and_gate(max_payload=1024)
    small = PubMsg(guid="g", subject="foo", data=b"z", connID=b"c")
    large = PubMsg(guid="g", subject="foo", data=b"z" * size, connID=b"c")
    core.feed(publish(small) + publish(large), NOW)
    assert gate.calls == (1 if size == 900 else 2)


@given(st.text(max_size=5), st.binary(max_size=200), st.sampled_from([1, 127, 128, 2**40]))
def test_stored_size_is_exact(reply, data, seq):
    """B97: the size with the largest redelivery count and a timestamp of our time."""
    message = PubMsg(subject="foo", reply=reply, data=data)
    stored = MsgProto(
        sequence=seq, subject="foo", reply=reply, data=data, timestamp=NOW, redelivered=True, redeliveryCount=2**32 - 1
    )
    assert hot.stored_bytes(message, seq) == stored.ByteSize()


def test_requests_keep_their_place():
    """B127: a request between publishes sees what came before it, and nothing of what comes after."""
    seen: list[int] = []
    gate = Gate()
    core = hot.Core(gate.admit, lambda _message: seen.append(gate.channels["foo"].seq), 1024)
    core.publish_sid = 1
    one = publish(PubMsg(clientID="a", guid="g" * 22, subject="foo", data=b"z", connID=b"c" * 22))
    core.feed(one * 3 + msg(b"_STAN.sub.c", 5, b"r", b"body") + one * 2 + msg(b"_STAN.sub.c", 5, b"r", b"body"), NOW)
    assert seen == [3, 5]


def test_timestamps_never_go_back():
    """B203: a clock that steps back repeats the previous value."""
    core, gate = core_and_gate()
    for now in (NOW, NOW - 10**9, NOW + 5):
        core.feed(publish(PubMsg(guid="g", subject="foo", data=b"z")), now)
    stamps = [MsgProto.FromString(record).timestamp for record in gate.channels["foo"].records]
    assert stamps == [NOW, NOW, NOW + 5]


def test_control_lines_and_requests_are_handed_on():
    """What is neither publish nor ack comes out in order, headers apart."""
    core, gate = core_and_gate()
    status = b"HMSG _INBOX.t.1 7 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"
    core.feed(
        b'INFO {"a": 1}\r\nPING\r\n'
        + msg(b"_STAN.sub.c", 5, b"r", b"body")
        + status
        + b"-ERR 'x y'\r\nPONG\r\n+OK\r\n",
        NOW,
    )
    assert core.control == [b'INFO {"a": 1}', b"PING", b"-ERR 'x y'", b"PONG", b"+OK"]
    assert [(m.sid, m.subject, m.reply, m.headers, m.payload) for m in gate.messages] == [
        (5, b"_STAN.sub.c", b"r", b"", b"body"),
        (7, b"_INBOX.t.1", b"", b"NATS/1.0 503\r\n\r\n", b""),
    ]


def test_headers_of_publishes_and_acks_are_stripped():
    """A layer that adds NATS headers, for tracing say, changes nothing: STAN has no headers."""
    core, gate = core_and_gate()
    sub = subscription(core, 1, 3)
    headers = b"NATS/1.0\r\na: b\r\n\r\n"

    def with_headers(subject, sid, reply, payload):
        size = len(headers) + len(payload)
        return b"HMSG %b %d%b %d %d\r\n%b%b\r\n" % (subject, sid, reply, len(headers), size, headers, payload)

    one = PubMsg(clientID="a", guid="g" * 22, subject="foo", data=b"z", connID=b"c" * 22).SerializeToString()
    for _ in range(3):
        core.feed(with_headers(PREFIX + b"foo", 1, b" r", one), NOW)
    core.feed(with_headers(b"_INBOX.a.s", 2, b"", Ack(subject="foo", sequence=2).SerializeToString()), NOW)
    assert [MsgProto.FromString(record).data for record in gate.channels["foo"].records] == [b"z"] * 3
    assert [ack.guid for _, ack in pub_acks(core.acks)] == ["g" * 22] * 3
    assert sub.pending(1, 3) == [1, 3]


@pytest.mark.parametrize(
    "line",
    [
        b"MSG a 1\r\n",
        b"MSG a x 3\r\n",
        b"MSG a 1 r s 3\r\n",
        b"MSG a 5 -3\r\n",
        b"MSG a 5 99999999999\r\n",
        b"HMSG a 1 9 3\r\nabc\r\n",
        b"x" * 70000,
    ],
    ids=["short", "sid", "long", "negative", "huge", "headers", "endless"],
)
def test_broken_protocol_raises(line):
    """A line that is not NATS's protocol makes the connection unusable: no waiting for ever."""
    core, _ = core_and_gate()
    with pytest.raises(ProtocolError):
        core.feed(line, NOW)


def test_large_message_in_many_reads_is_joined_once():
    """A message over many reads is collected, not re-joined per read."""
    core, gate = core_and_gate(max_payload=64 * 1024 * 1024)
    data = random.Random(5).randbytes(3_000_000)
    for piece in cut(publish(PubMsg(guid="g", subject="foo", data=data)), [65536]):
        core.feed(piece, NOW)
    assert MsgProto.FromString(gate.channels["foo"].records[0]).data == data


# ---- acks


def subscription(core: hot.Core, next_seq: int = 1, sent: int = 0) -> windows.Subscription:
    channel = windows.Channel("foo", 1, next_seq + sent - 1)
    sub = windows.Subscription(channel, 9, b"_INBOX.s", 1024, next_seq)
    sub.sent_to(next_seq + sent)
    core.ack_subjects[b"_INBOX.a.s"] = sub
    return sub


def ack(seq: int, channel: str = "foo") -> bytes:
    return msg(b"_INBOX.a.s", 2, b"", Ack(subject=channel, sequence=seq).SerializeToString())


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([1, 100, 120, 16380, 2**21 - 4, 2**28 - 3, 2**35]),
    st.integers(0, 40),
    st.lists(st.integers(-3, 45), max_size=60),
    st.lists(st.integers(1, 60), max_size=4),
)
def test_window_equals_a_plain_set(first, sent, offsets, sizes):
    """B245, B246: any order of acks, duplicates and strangers leave exactly what a set would."""
    core, _ = core_and_gate()
    sub = subscription(core, first, sent)
    pending = set(range(first, first + sent))
    stream = b"".join(ack(first + offset) for offset in offsets if first + offset >= 0)
    for piece in cut(stream, sizes):
        core.feed(piece, NOW)
    pending -= {first + offset for offset in offsets}
    assert sub.pending(first, first + sent) == sorted(pending)
    assert sub.pending_count() == len(pending)
    assert sub.floor == (min(pending) if pending else first + sent)
    assert core.touched in ([], [sub])
    assert core.touched or len(pending) == sent  # whatever moved is reported
    assert all(sub.is_pending(seq) == (seq in pending) for seq in range(first, first + sent + 3))


def test_ack_of_another_channel_or_inbox_is_ignored():
    """B110, B111: the ack must name the channel of the subscription whose inbox it came on."""
    core, gate = core_and_gate()
    sub = subscription(core, 1, 3)
    core.feed(ack(1, "bar") + msg(b"_INBOX.a.other", 2, b"", Ack(subject="foo", sequence=1).SerializeToString()), NOW)
    core.feed(msg(b"_INBOX.a.s", 2, b"", b"dummy") + msg(b"_INBOX.a.s", 2, b"", b""), NOW)
    assert sub.pending(1, 3) == [1, 2, 3]
    assert gate.messages == []


def test_ack_in_unusual_encoding_counts():
    """Fields in another order, or unknown ones, are still an ack."""
    core, _ = core_and_gate()
    sub = subscription(core, 1, 3)
    core.feed(msg(b"_INBOX.a.s", 2, b"", b"\x10\x02\x0a\x03foo"), NOW)
    core.feed(msg(b"_INBOX.a.s", 2, b"", b"\x0a\x03foo\x10\x01\x78\x01"), NOW)
    assert sub.pending(1, 3) == [3]


def test_skipped_sequences_are_not_pending():
    """B235: what a limit removed before it was sent is passed over, with and without pending messages before it."""
    core, _ = core_and_gate()
    sub = subscription(core, 1, 2)
    sub.skip_to(10)
    sub.sent_to(12)
    assert sub.pending(1, 20) == [1, 2, 10, 11]
    core.feed(ack(2) + ack(1), NOW)
    assert sub.floor == 10
    assert sub.pending_count() == 2
    core.feed(ack(10) + ack(11), NOW)
    sub.skip_to(50)
    assert (sub.floor, sub.next_seq, sub.pending_count()) == (50, 50, 0)


def test_window_is_trimmed():
    """One byte per sequence between floor and last sent, not for the whole life of the subscription."""
    core, _ = core_and_gate()
    sub = subscription(core, 1, 20000)
    core.feed(b"".join(ack(seq) for seq in range(1, 15001)), NOW)
    sub.trim()
    assert len(sub.window) == 5000
    assert sub.pending(1, 20000) == list(range(15001, 20001))


# ---- frames and blocks


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=9), st.booleans())
def test_delivery_frames(payloads, equal):
    """B9: one PUB frame per message."""
    if equal:
        payloads = [payloads[0]] * len(payloads)
    out: list[bytes] = []
    hot.delivery_frames(b"PUB _INBOX.s ", payloads, out)
    assert b"".join(out) == b"".join(b"PUB _INBOX.s %d\r\n%b\r\n" % (len(p), p) for p in payloads)


@given(st.lists(st.integers(0, 70000), min_size=1, max_size=30))
def test_blocks_are_bounded_and_complete(sizes):
    """Blocks hold every message once, in order, more than one only up to the bound with their lengths, and no fewer than fit."""
    records = [bytes([i]) + bytes(size) for i, size in enumerate(sizes)]
    runs = hot.split_blocks(records)
    assert [record for run in runs for record in run] == records
    assert all(len(run) == 1 or len(block.encode(run)) <= hot.BLOCK_MAX_BYTES for run in runs)
    assert all(len(block.encode([*one, other[0]])) > hot.BLOCK_MAX_BYTES for one, other in pairwise(runs))
