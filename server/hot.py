"""The hot loop: one pass from a socket read to numbered, encoded messages, PubAck frames and ack windows. Pure.

`Core.feed` parses the NATS protocol, decodes publishes by template, encodes them as MsgProto, builds their PubAck frames
and moves ack windows; whatever is rarer is handed on as values. No object, task, timer or protobuf message per message.

Templates: after the protobuf runtime parsed one publish of a publisher, and encoding it canonically gave the identical
bytes, the bytes around guid and data are remembered. A later publish matches when all those bytes are equal and the
lengths agree; guid and data are then two slices. Anything else takes the general path. Proof by property test against
protobuf (tests/unit/server/test_hot.py).

Written so that mypyc can compile it: typed, no monkeypatching, sentinels instead of None in hot fields.
"""

from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from typing import Final

from google.protobuf.message import DecodeError

from server.errors import ProtocolError, RequestError
from server.protocol import responses
from server.protocol.stan_pb2 import Ack, PubAck, PubMsg
from server.windows import NO_CHANNEL, NO_SUBSCRIPTION, Channel, Subscription, varint
from store.block import encoded_bytes
from store.constants import BLOCK_MAX_BYTES

CRLF: Final = b"\r\n"

CONTROL_LINE_MAX_BYTES: Final = 64 * 1024
"""Longest control line, bytes. INFO with many cluster URLs is the longest that is legal; NATS itself sends 4 KiB."""

LINE_CACHE_MAX: Final = 16384
"""Remembered control lines (publisher and channel, or subscription); all are forgotten when there would be more."""

ENCODING_MARGIN_BYTES: Final = 40
"""A MsgProto with redelivery fields is at most this much longer than its PubMsg: sequence, timestamp, fields 6 and 7."""

TIMESTAMP_FIELD_BYTES: Final = 10
"""MsgProto field 5: a tag and nine bytes until the year 2262."""

REDELIVERY_FIELDS_BYTES: Final = 8
"""MsgProto fields 6 and 7 at their largest: a flag and a uint32."""

SID_DIGITS_MAX: Final = 20
"""Digits of a 64 bit number, which a subscription id is."""

KIND_OTHER: Final = 0
KIND_PUBLISH: Final = 1
KIND_ACK: Final = 2
KIND_IGNORED: Final = 3


_SIZES: Final[dict[bytes, int]] = {b"%d" % i: i for i in range(4096)}
_LENGTHS: Final[list[bytes]] = [b"%d\r\n" % i for i in range(4096)]


class Template:
    """The constant bytes of one publisher's publishes to one channel."""

    def __init__(
        self,
        prefix: bytes,
        guid_bytes: int,
        middle: bytes,
        suffix: bytes,
        channel: Channel,
        head: bytes,
        ack_head: bytes,
    ) -> None:
        self.prefix: bytes = prefix
        self.guid_end: int = len(prefix) + guid_bytes
        self.middle: bytes = middle
        self.suffix: bytes = suffix
        self.channel: Channel = channel
        self.head: bytes = head
        self.ack_head: bytes = ack_head


NO_TEMPLATE: Final = Template(b"", 0, b"", b"", NO_CHANNEL, b"", b"")


class Line:
    """A parsed control line, without the size at its end."""

    def __init__(self, kind: int, subject: bytes, sid: int, reply: bytes, header_bytes: int) -> None:
        self.kind: int = kind
        self.subject: bytes = subject
        self.sid: int = sid
        self.reply: bytes = reply
        self.header_bytes: int = header_bytes
        self.template: Template = NO_TEMPLATE
        self.subscription: Subscription = NO_SUBSCRIPTION


class Message:
    """A message that is neither publish nor ack: a request, an answer to a request of ours, or a status of NATS."""

    def __init__(self, sid: int, subject: bytes, reply: bytes, headers: bytes, payload: bytes) -> None:
        self.sid: int = sid
        self.subject: bytes = subject
        self.reply: bytes = reply
        self.headers: bytes = headers
        self.payload: bytes = payload


class Observer:
    """Is told about every publish and ack that takes the general path; with tracing that is all of them."""

    def published(self, message: PubMsg) -> None:
        """A publish was decoded."""

    def acked(self, subscription_id: int, channel: str, seq: int) -> None:
        """An ack was decoded."""


class Core:
    """Parser state, the open batch of publishes, and what the last `feed` found."""

    def __init__(
        self, admit: Callable[[PubMsg, bytes], Channel], handle: Callable[[Message], None], max_payload: int
    ) -> None:
        """`admit(message, subject)` decides on a publish: its channel, or RequestError. `max_payload` in bytes.

        `handle` is called for every other message in its place between publishes and acks (B127); it must not raise.
        """
        self.admit: Callable[[PubMsg, bytes], Channel] = admit
        self.handle: Callable[[Message], None] = handle
        self.max_payload: int = max_payload
        self.observer: Observer = Observer()
        self.is_traced: bool = False
        self.publish_sid: int = -1
        self.ack_sid: int = -1
        self.ack_subjects: dict[bytes, Subscription] = {}
        self.lines: dict[bytes, Line] = {}
        self.rest: bytes = b""
        self.chunks: list[bytes] = []
        self.missing_bytes: int = 0
        self.last_timestamp_ns: int = 0
        self.timestamp_field: bytes = b""
        # the open batch
        self.dirty: list[Channel] = []
        self.acks: list[bytes] = []
        self.batch_count: int = 0
        self.batch_bytes: int = 0
        # what the last feed found
        self.control: list[bytes] = []
        self.replies: list[bytes] = []
        self.touched: list[Subscription] = []
        self.publish_count: int = 0
        self.general_count: int = 0

    def trace(self, observer: Observer) -> None:
        """From now on every publish and ack goes the general path, and `observer` is told."""
        self.observer = observer
        self.is_traced = True

    def reset_connection(self) -> None:
        """Forget a half-read message: the connection is a new one."""
        self.rest = b""
        self.chunks = []
        self.missing_bytes = 0

    def reset_leadership(self, admit: Callable[[PubMsg, bytes], Channel], handle: Callable[[Message], None]) -> None:
        """Drop everything that belongs to a leadership; the functions are the next one's. A half-read message stays."""
        self.admit = admit
        self.handle = handle
        self.publish_sid = -1
        self.ack_sid = -1
        self.ack_subjects = {}
        self.lines = {}
        self.dirty = []
        self.acks = []
        self.batch_count = 0
        self.batch_bytes = 0
        self.replies = []
        self.touched = []

    def forget_lines(self) -> None:
        """Templates vouch for client and channel: drop them whenever one of these comes or goes."""
        self.lines.clear()

    def feed(self, data: bytes, now_ns: int) -> None:
        """Take one socket read. `now_ns`: wall clock, Unix ns; timestamps never go back (B203).

        Raises:
            ProtocolError: the NATS server sent something that is not its protocol; the connection is unusable.

        """
        if self.missing_bytes:
            self.chunks.append(data)
            self.missing_bytes -= len(data)
            if self.missing_bytes > 0:
                return
            data = b"".join(self.chunks)
            self.chunks = []
            self.missing_bytes = 0
        elif self.rest:
            data = self.rest + data
            self.rest = b""
        self.last_timestamp_ns = max(self.last_timestamp_ns, now_ns)
        self.timestamp_field = b"(" + varint(self.last_timestamp_ns)
        lines = self.lines
        pos = 0
        end = len(data)
        while pos < end:
            line_end = data.find(CRLF, pos)
            if line_end < 0:
                if end - pos > CONTROL_LINE_MAX_BYTES:
                    raise ProtocolError("control line without end", line=data[pos : pos + 64])
                self.rest = data[pos:]
                return
            blank = data.rfind(b" ", pos, line_end)
            key = data[pos:blank] if blank >= 0 else b""
            line = lines.get(key)
            if line is None:
                text = data[pos:line_end]
                if not text.startswith((b"MSG ", b"HMSG ")):
                    self.control.append(text)
                    pos = line_end + 2
                    continue
                line = self.parse_line(key, text)
            digits = data[blank + 1 : line_end]
            known = _SIZES.get(digits)
            size: int = known if known is not None else _parse_size(digits, data[pos:line_end])
            start = line_end + 2
            stop = start + size
            if stop + 2 > end:
                self.chunks = [data[pos:]]
                self.missing_bytes = stop + 2 - end
                return
            kind = line.kind
            if kind == KIND_PUBLISH and not line.header_bytes and not self.is_traced:
                pos = self.feed_publishes(data, pos, start, stop, line)
                continue
            if kind == KIND_ACK and not line.header_bytes and not self.is_traced:
                pos = self.feed_acks(data, pos, start, stop, line.subscription)
                continue
            pos = stop + 2
            body = start + line.header_bytes
            if kind == KIND_OTHER:
                self.handle(Message(line.sid, line.subject, line.reply, data[start:body], data[body:stop]))
            elif kind == KIND_PUBLISH:  # traced, or with headers, which STAN has no use for
                self.general_publish(line, data[body:stop])
            elif kind == KIND_ACK:
                self.general_ack(line.subscription, data[body:stop])

    def feed_publishes(self, data: bytes, pos: int, start: int, stop: int, line: Line) -> int:
        """Take the publish at `start..stop` and those behind it that look alike. Returns where they end."""
        template = line.template
        starts = data.startswith
        if (
            template is NO_TEMPLATE
            or stop - start > self.max_payload - ENCODING_MARGIN_BYTES
            or not starts(template.prefix, start)
        ):
            self.general_publish(line, data[start:stop])
            return stop + 2
        guid_end = start + template.guid_end
        middle = template.middle
        suffix = template.suffix
        body = guid_end + len(middle)
        if not starts(middle, guid_end) or body >= stop:
            self.general_publish(line, data[start:stop])
            return stop + 2
        length = data[body]
        at = body + 1
        if length > 127:
            more = data[at]
            at += 1
            length = (length & 127) | (more & 127) << 7
            if more > 127:
                more = data[at]
                at += 1
                length |= more << 14
            if not more or more > 127:  # padded varint, or 2 MiB and above: the general path
                length = 0
        body_end = at + length
        if not length or body_end + len(suffix) != stop or not starts(suffix, body_end):
            self.general_publish(line, data[start:stop])
            return stop + 2

        channel = template.channel
        records = channel.records
        if not records:
            self.dirty.append(channel)
        add = records.append
        join = b"".join
        seq = channel.seq + 1
        if not seq & 16383:
            channel.seq = seq
            channel.renumber()
        table = channel.table
        head = channel.high + template.head
        stamp = self.timestamp_field
        add(join((table[seq & 16383], head, data[body:body_end], stamp)))
        guids = [data[start + len(template.prefix) : guid_end]]
        next_pos = stop + 2
        line_text = data[pos:start]
        if starts(line_text, next_pos):
            # The same line again, size included: every offset is now fixed, three comparisons prove a match.
            lead = line_text + template.prefix
            lead_bytes = len(lead)
            guid_bytes = template.guid_end - len(template.prefix)
            to_guid_end = lead_bytes + guid_bytes
            fixed = middle + data[body:at]
            to_body = len(middle)
            body_bytes = body_end - body
            tail = suffix + CRLF
            tail_bytes = len(tail)
            add_guid = guids.append
            while starts(lead, next_pos):
                guid_end = next_pos + to_guid_end
                if not starts(fixed, guid_end):
                    break
                body = guid_end + to_body
                body_end = body + body_bytes
                if not starts(tail, body_end):
                    break
                seq += 1
                if not seq & 16383:
                    channel.seq = seq
                    channel.renumber()
                    table = channel.table
                    head = channel.high + template.head
                add(join((table[seq & 16383], head, data[body:body_end], stamp)))
                add_guid(data[next_pos + lead_bytes : guid_end])
                next_pos = body_end + tail_bytes
        channel.seq = seq
        count = len(guids)
        self.batch_count += count
        self.batch_bytes += next_pos - pos
        self.publish_count += count
        ack_head = template.ack_head
        acks = self.acks
        acks.append(ack_head)
        acks.append((CRLF + ack_head).join(guids))
        acks.append(CRLF)
        return next_pos

    def feed_acks(self, data: bytes, pos: int, start: int, stop: int, subscription: Subscription) -> int:
        """Take the ack at `start..stop` and those behind it that look alike. Returns where they end."""
        prefix = subscription.channel.ack_prefix
        starts = data.startswith
        if not starts(prefix, start):
            self.general_ack(subscription, data[start:stop])
            return stop + 2
        self.touch(subscription)
        end = len(data)
        at = start + len(prefix)
        size = stop - at
        step = size + 2
        lead = data[pos:at]
        lead_bytes = len(lead)
        plain = not subscription.ahead and not subscription.counts
        floor = subscription.floor
        limit = subscription.next_seq
        while True:
            seq = 0
            one = data[at]
            if size == 3:
                two = data[at + 1]
                three = data[at + 2]
                if one & two > 127 and three < 128:
                    seq = (one & 127) | (two & 127) << 7 | three << 14
            elif size == 2:
                two = data[at + 1]
                if one > 127 and two < 128:
                    seq = (one & 127) | two << 7
            elif size:
                seq = _read_varint(data, at, at + size)
            if not seq:
                subscription.floor = floor
                self.general_ack(subscription, data[at - len(prefix) : at + size])
                floor = subscription.floor
                plain = not subscription.ahead and not subscription.counts
            elif plain and seq == floor and floor < limit:
                floor += 1
            else:
                subscription.floor = floor
                subscription.ack(seq)
                floor = subscription.floor
                plain = not subscription.ahead and not subscription.counts
            pos = at + step
            at = pos + lead_bytes
            if at + step > end or not starts(lead, pos):
                subscription.floor = floor
                return pos

    def parse_line(self, key: bytes, text: bytes) -> Line:
        """Parse `MSG <subject> <sid> [reply] <size>` or `HMSG … <header size> <size>`; remember it where it repeats."""
        tokens = text.split(b" ")
        has_headers = tokens[0] == b"HMSG"
        fixed = 5 if has_headers else 4
        if len(tokens) not in (fixed, fixed + 1) or not tokens[2].isdigit() or len(tokens[2]) > SID_DIGITS_MAX:
            raise ProtocolError("malformed message line", line=text[:128])
        reply = tokens[3] if len(tokens) == fixed + 1 else b""
        header_bytes = _parse_size(tokens[-2], text) if has_headers else 0
        sid = int(tokens[2])
        line = Line(KIND_OTHER, tokens[1], sid, reply, header_bytes)
        if has_headers and header_bytes > _parse_size(tokens[-1], text):
            raise ProtocolError("header longer than message", line=text[:128])
        if sid == self.publish_sid:
            line.kind = KIND_PUBLISH
        elif sid == self.ack_sid:
            line.kind = KIND_IGNORED
            subscription = self.ack_subjects.get(tokens[1])
            if subscription is not None:
                line.kind = KIND_ACK
                line.subscription = subscription
        if line.kind != KIND_OTHER:
            if len(self.lines) >= LINE_CACHE_MAX:
                self.lines.clear()
            self.lines[key] = line
        return line

    def general_publish(self, line: Line, payload: bytes) -> None:
        """Any publish, by the protobuf runtime; learns a template when the bytes are canonical."""
        self.general_count += 1
        try:
            message = PubMsg.FromString(payload)
        except DecodeError:
            self.reply_error(line.reply, "", responses.INVALID_PUBLISH)
            return
        guid = message.guid
        self.observer.published(message)
        try:
            channel = self.admit(message, line.subject)
        except RequestError as error:
            self.reply_error(line.reply, guid, error.wire_text)
            return
        head = channel.subject_field
        if message.reply:
            reply = message.reply.encode()
            head += b"\x1a" + varint(len(reply)) + reply
        body = b""
        if message.data:
            head += b'"'
            body = varint(len(message.data)) + message.data
        if not channel.records:
            self.dirty.append(channel)
        channel.add(head, body, self.timestamp_field)
        self.batch_count += 1
        self.batch_bytes += len(payload) + 64
        self.publish_count += 1
        if line.reply:
            encoded = guid.encode()
            ack_head = b"PUB %b %d\r\n\n%b" % (
                line.reply,
                len(encoded) + 1 + len(varint(len(encoded))),
                varint(len(encoded)),
            )
            self.acks += (ack_head, encoded, CRLF)
            line.template = _learn(message, encoded, payload, channel, head, ack_head)

    def reply_error(self, reply: bytes, guid: str, text: str) -> None:
        """Answer a refused publish at once (B90): it is in no batch.

        A guid so large that NATS would not carry the answer gets none: sending it would end our connection.
        """
        payload = PubAck(guid=guid, error=text).SerializeToString()
        if reply and len(payload) <= self.max_payload:
            self.replies.append(b"PUB %b %d\r\n%b\r\n" % (reply, len(payload), payload))

    def general_ack(self, subscription: Subscription, payload: bytes) -> None:
        """Any ack; dropped when it does not decode or names another channel (B110, B111)."""
        try:
            ack = Ack.FromString(payload)
        except DecodeError:
            return
        self.observer.acked(subscription.subscription_id, ack.subject, ack.sequence)
        if ack.subject == subscription.channel.name and subscription.ack(ack.sequence):
            self.touch(subscription)

    def touch(self, subscription: Subscription) -> None:
        """Remember that acks came for this subscription."""
        if not subscription.is_touched:
            subscription.is_touched = True
            self.touched.append(subscription)


def stored_bytes(message: PubMsg, seq: int) -> int:
    """Size of `message` as a MsgProto with full-size redelivery fields: what must fit NATS's max payload (B97)."""
    size = 1 + len(varint(seq)) + TIMESTAMP_FIELD_BYTES + REDELIVERY_FIELDS_BYTES
    for encoded in (message.subject.encode(), message.reply.encode(), message.data):
        if encoded:
            size += 1 + len(varint(len(encoded))) + len(encoded)
    return size


def _learn(message: PubMsg, guid: bytes, payload: bytes, channel: Channel, head: bytes, ack_head: bytes) -> Template:
    """Template of a publish, if its canonical encoding is byte for byte what was received."""
    if not message.data or not guid:
        return NO_TEMPLATE
    prefix = b""
    if message.clientID:
        client_id = message.clientID.encode()
        prefix = b"\n" + varint(len(client_id)) + client_id
    prefix += b"\x12" + varint(len(guid))
    subject = message.subject.encode()
    middle = b"\x1a" + varint(len(subject)) + subject
    if message.reply:
        reply = message.reply.encode()
        middle += b'"' + varint(len(reply)) + reply
    middle += b"*"
    suffix = b""
    if message.connID:
        suffix = b"2" + varint(len(message.connID)) + message.connID
    if payload != b"".join((prefix, guid, middle, varint(len(message.data)), message.data, suffix)):
        return NO_TEMPLATE
    return Template(prefix, len(guid), middle, suffix, channel, head, ack_head)


def delivery_frames(head: bytes, messages: list[bytes], out: list[bytes]) -> None:
    """Append the NATS frames that deliver `messages` to `out`. `head`: `PUB <inbox> `."""
    size = len(messages[0])
    if len(messages) > 2 and size == len(messages[-1]) and len(set(map(len, messages))) == 1:
        lead = head + b"%d\r\n" % size
        out += (lead, (CRLF + lead).join(messages), CRLF)
        return
    for message in messages:
        size = len(message)
        out += (head, _LENGTHS[size] if size < 4096 else b"%d\r\n" % size, message, CRLF)


def delivery_frames_to(heads: list[bytes], messages: list[bytes], out: list[bytes]) -> None:
    """Append the NATS frames that deliver each of `messages` to its own receiver. `heads`: `PUB <inbox> ` for each."""
    parts = [CRLF] * (4 * len(messages))
    parts[0::4] = heads
    parts[1::4] = [_LENGTHS[size] if size < 4096 else b"%d\r\n" % size for size in map(len, messages)]
    parts[2::4] = messages
    out += parts


def split_blocks(records: list[bytes]) -> list[list[bytes]]:
    """Cut a batch of one channel into runs whose blocks have at most BLOCK_MAX_BYTES; a larger message is a run of its own."""
    if len(records) == 1:
        return [records]
    ends = list(accumulate(map(len, records), initial=0))
    runs: list[list[bytes]] = []
    first = 0
    while first < len(records):
        stop = first + _fitting(ends, first)
        runs.append(records[first:stop])
        first = stop
    return runs


def _fitting(ends: list[int], first: int) -> int:
    """How many messages from number `first` on are a run; found by halving, not by a look at each."""
    left = range(1, len(ends) - first)
    return max(1, bisect_right(left, BLOCK_MAX_BYTES, key=lambda n: encoded_bytes(n, ends[first + n] - ends[first])))


def _parse_size(digits: bytes, line: bytes) -> int:
    if not digits.isdigit() or len(digits) > 10:
        raise ProtocolError("message size is not a number", line=line[:128])
    return int(digits)


def _read_varint(data: bytes, at: int, end: int) -> int:
    """Varint that must fill `at..end`; 0 (never a sequence) when it does not."""
    number = 0
    shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number if at == end else 0
        shift += 7
    return 0


def admit_nothing(message: PubMsg, _subject: bytes) -> Channel:
    """Of a core without a leadership: a publish that still arrives belongs to one that ended."""
    raise RequestError(responses.NOT_LEADER, field="subject", value=message.subject)


def handle_nothing(_message: Message) -> None:
    """As `admit_nothing`: no answer, because the true leader may have received it, too (B401)."""
