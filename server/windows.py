"""The leader's view of channels and subscriptions: what is numbered, sent and acked, applied or not. Pure.

Touched for every message by the hot loop (`server.hot`), and written like it: typed, sentinels instead of None.
"""

from typing import Final

from store.holders import Holders


def varint(number: int) -> bytes:
    """Protobuf encoding of a non-negative integer."""
    out: list[int] = []
    while number > 127:
        out.append((number & 127) | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


_SEQ_SMALL: Final[list[bytes]] = [b"\x08" + varint(i) for i in range(16384)]
"""MsgProto field 1 for sequences below 16384."""
_SEQ_LOW: Final[list[bytes]] = [bytes((8, (i & 127) | 128, (i >> 7) | 128)) for i in range(16384)]
"""MsgProto field 1 tag and the two low bytes of larger sequences; the channel caches the rest."""


class Channel:
    """The leader's view of a channel: what is numbered, including what is not applied yet.

    Invariant: records are the messages `seq - len(records) + 1 .. seq`, in order.
    """

    def __init__(self, name: str, channel_id: int, last_seq: int) -> None:
        encoded = name.encode()
        self.name: str = name
        self.channel_id: int = channel_id
        self.subject_field: bytes = b"\x12" + varint(len(encoded)) + encoded
        self.ack_prefix: bytes = b"\n" + varint(len(encoded)) + encoded + b"\x10"
        self.records: list[bytes] = []
        self.seq: int = last_seq
        self.table: list[bytes] = _SEQ_SMALL
        self.high: bytes = b""
        self.renumber()

    def renumber(self) -> None:
        """Recompute the cached high part; needed when `seq` crosses a multiple of 16384."""
        if self.seq >= 16384:
            self.table = _SEQ_LOW
            self.high = varint(self.seq >> 14)

    def add(self, head: bytes, body: bytes, timestamp_field: bytes) -> None:
        """Number and encode one message. `head`: subject, reply and data tag; `body`: data with its length, or empty."""
        seq = self.seq + 1
        self.seq = seq
        if not seq & 16383:
            self.renumber()
        self.records.append(b"".join((self.table[seq & 16383], self.high, head, body, timestamp_field)))


class Subscription:
    """The leader's volatile view of an online plain subscription: what was sent and what of it is acked.

    `floor`: every sequence below it is acked or was never this subscription's. `next_seq`: the next to send. `window[seq - base]` is 1
    for sequences at or above the floor that are acked out of order; `ahead` counts them.
    Invariant: base <= floor <= next_seq and len(window) == next_seq - base.
    """

    def __init__(self, channel: Channel, subscription_id: int, inbox: bytes, max_in_flight: int, next_seq: int) -> None:
        self.channel: Channel = channel
        self.subscription_id: int = subscription_id
        self.frame_head: bytes = b"PUB " + inbox + b" "
        self.max_in_flight: int = max_in_flight
        self.floor: int = next_seq
        self.next_seq: int = next_seq
        self.base: int = next_seq
        self.window: bytearray = bytearray()
        self.ahead: int = 0
        self.counts: dict[int, int] = {}
        self.acked_ahead: list[int] = []
        self.skipped: list[tuple[int, int]] = []
        self.is_touched: bool = False

    def pending_count(self) -> int:
        """Messages sent and not acked."""
        return self.next_seq - self.floor - self.ahead

    def is_pending(self, seq: int) -> bool:
        """True when `seq` was sent and is not acked."""
        return self.floor <= seq < self.next_seq and not self.window[seq - self.base]

    def sent_to(self, next_seq: int) -> None:
        """Everything below `next_seq` is now sent."""
        self.window.extend(bytes(next_seq - self.next_seq))
        self.next_seq = next_seq

    def skip_to(self, next_seq: int) -> None:
        """Pass over sequences that a limit removed before they were sent (B235): they count as acked."""
        skipped = next_seq - self.next_seq
        if self.floor == self.next_seq:
            self.floor = self.next_seq = self.base = next_seq
            self.window = bytearray()
            return
        self.window.extend(b"\x01" * skipped)
        self.ahead += skipped
        self.skipped.append((self.next_seq, next_seq - 1))
        self.next_seq = next_seq

    def recover_acked(self, first: int, last: int) -> None:
        """`first..last`, sent and above the floor, were acked out of order before this view was made."""
        self.window[first - self.base : last + 1 - self.base] = b"\x01" * (last + 1 - first)
        self.ahead += last + 1 - first

    def ack(self, seq: int) -> bool:
        """Take one ack; False when `seq` was not pending (B246)."""
        if seq < self.floor or seq >= self.next_seq or self.window[seq - self.base]:
            return False
        if self.counts:
            self.counts.pop(seq, None)
        if seq == self.floor:
            self.floor = seq + 1
            if self.ahead:
                self.skip_acked()
        else:
            self.window[seq - self.base] = 1
            self.ahead += 1
            self.acked_ahead.append(seq)
        return True

    def skip_acked(self) -> None:
        """Move the floor over what was acked out of order."""
        index = self.floor - self.base
        window = self.window
        end = len(window)
        while index < end and window[index]:
            index += 1
            self.ahead -= 1
        self.floor = self.base + index

    def trim(self) -> None:
        """Forget the dead front of the window once it is more than half of it."""
        dead = self.floor - self.base
        if dead > 4096 and dead * 2 > len(self.window):
            del self.window[:dead]
            self.base = self.floor

    def is_any_pending(self, first: int, last: int) -> bool:
        """True when `pending` would find something."""
        start = max(first, self.floor) - self.base
        return self.window.find(0, start, max(min(last + 1, self.next_seq) - self.base, 0)) >= 0

    def pending(self, first: int, last: int) -> list[int]:
        """Sequences in `first..last` that are sent and not acked, ascending."""
        start = max(first, self.floor) - self.base
        end = min(last + 1, self.next_seq) - self.base
        find = self.window.find
        found: list[int] = []
        while start < end:
            start = find(0, start, end)
            if start < 0:
                break
            found.append(self.base + start)
            start += 1
        return found


class Member(Subscription):
    """An online member of a queue group. What it was sent is in its group; its own window stays empty."""

    def __init__(
        self, channel: Channel, subscription_id: int, inbox: bytes, max_in_flight: int, group: "Group", slot: int
    ) -> None:
        super().__init__(channel, subscription_id, inbox, max_in_flight, 0)
        self.group: Group = group
        self.slot: int = slot
        self.pending_number: int = 0

    def pending_count(self) -> int:
        """Messages this member holds."""
        return self.pending_number

    def ack(self, seq: int) -> bool:
        """Take one ack; a message that another member holds meanwhile is acked there (B248)."""
        group = self.group
        holders = group.holders
        slot = holders.at(seq)
        if not slot:
            return False
        holders.put(seq, 0)
        if slot == self.slot:
            self.pending_number -= 1
        else:
            group.acked_elsewhere(slot)
        if group.counts:
            group.counts.pop(seq, None)
        if seq <= group.reported_last:
            group.acked.append(seq)
        return True


class Group:
    """The leader's volatile view of a queue group with online members: who holds which sequence, and what of it is not reported.

    Slots that are in `holders` but not in `members` belong to members whose end is not applied yet.
    """

    def __init__(self, channel: Channel, holders: Holders) -> None:
        self.channel: Channel = channel
        self.holders: Holders = holders
        self.members: dict[int, Member] = {}
        self.counts: dict[int, int] = {}
        self.reported_last: int = holders.last
        self.reported_floor: int = holders.floor
        self.acked: list[int] = []
        self.moved: set[int] = set()

    def acked_elsewhere(self, slot: int) -> None:
        """A message that `slot` held is acked, by another member or because it is gone."""
        holder = self.members.get(slot)
        if holder is not None:
            holder.pending_number -= 1

    def move(self, seq: int, member: Member) -> None:
        """`member` now holds `seq` (B310)."""
        self.acked_elsewhere(self.holders.at(seq))
        self.holders.put(seq, member.slot)
        member.pending_number += 1
        if seq <= self.reported_last:
            self.moved.add(seq)

    def gone(self, seq: int) -> None:
        """`seq`, which is held, counts as acked: a limit removed it (B267)."""
        self.acked_elsewhere(self.holders.at(seq))
        self.holders.put(seq, 0)
        self.counts.pop(seq, None)
        if seq <= self.reported_last:
            self.acked.append(seq)


NO_CHANNEL: Final = Channel("", 0, 0)
NO_SUBSCRIPTION: Final = Subscription(NO_CHANNEL, 0, b"", 0, 1)
