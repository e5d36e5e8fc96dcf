"""Who holds which sequence of a queue group: the slot of a member for each message that was sent and is not acked. Pure.

Every sequence up to `last` is either acked or held by exactly one slot: none can be lost (B394). The newest ones have a place
each, two bytes, 0 = acked. Older ones that are still held are few, and kept apart: one message that is never acked must
not make the state grow with the channel. The leader's own view and the replicated one are both of this class.
"""

import struct
import sys
from array import array
from collections import Counter
from collections.abc import Iterator
from itertools import compress, count
from typing import Final

SLOT_MAX: Final = 65535
"""Largest slot number: a slot takes two bytes for each sequence."""

KEEP: Final = 8192
"""Newest sequences that have places."""

SHED_AT: Final = 4 * KEEP
"""Places at which all but the newest are given up."""

SCAN: Final = 512
"""Places looked at together while the floor moves."""

TRIM_MIN: Final = 4096
"""Acked places at the front before they are given back."""

HEAD: Final = struct.Struct("<QI")
"""Last sequence, number of older ones that are held."""


class Holders:
    """Slots of the sequences up to `last`. Up to `floor` all are acked.

    Invariant: a sequence before `_base` is held if and only if it is in `_old`, and all in `_old` are at least KEEP before
    `last`; `_slots[seq - _base]` belongs to `seq`.
    """

    __slots__ = ("_base", "_old", "_slots", "floor")

    def __init__(self, floor: int) -> None:
        self.floor = floor
        self._base = floor + 1
        self._slots = array("H")
        self._old: dict[int, int] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Holders) and self.encode() == other.encode()

    __hash__ = None  # type: ignore[assignment]  # it changes

    @property
    def last(self) -> int:
        """The last sequence that was sent."""
        return self._base + len(self._slots) - 1

    def at(self, seq: int) -> int:
        """The slot that holds `seq`; 0 when it is acked or was not sent."""
        index = seq - self._base
        if index < 0:
            return self._old.get(seq, 0)
        return self._slots[index] if index < len(self._slots) else 0

    def put(self, seq: int, slot: int) -> None:
        """`seq`, which is above the floor and not above `last`, is now held by `slot`, or acked (0)."""
        if seq >= self._base:
            self._slots[seq - self._base] = slot
        elif slot:
            self._old[seq] = slot
        else:
            self._old.pop(seq, None)

    def append(self, slots: "array[int]") -> None:
        """The sequences behind `last` were sent to `slots`."""
        self._slots.extend(slots)
        if len(self._slots) > SHED_AT:
            self._shed(len(self._slots) - KEEP)

    def skip(self, last: int) -> None:
        """The sequences behind `last` up to `last` count as sent and acked."""
        number = last - self.last
        if number >= KEEP:
            self._shed(len(self._slots))
            self._base = last + 1
        else:
            self.append(array("H", bytes(2 * number)))

    def _shed(self, number: int) -> None:
        """Give up the oldest places; what is held there is kept apart."""
        self._old.update((self._base + index, slot) for index, slot in enumerate(self._slots[:number]) if slot)
        del self._slots[:number]
        self._base += number

    def advance(self, floor: int = 0) -> None:
        """Everything up to `floor` is acked; then the floor moves over what is acked behind it."""
        slots = self._slots
        end = len(slots)
        index = min(max(floor + 1 - self._base, 0), end)
        if floor > self.floor:
            self._old = {seq: slot for seq, slot in self._old.items() if seq > floor}
            slots[:index] = array("H", bytes(2 * index))
        while index < end and not slots[index]:
            index += 1
            while index + SCAN <= end and not any(slots[index : index + SCAN]):
                index += SCAN
        if index == end or index > TRIM_MIN:
            del slots[:index]
            self._base += index
            index = 0
        if not self._old:
            self.floor = self._base + index - 1
        elif self.floor + 1 not in self._old:
            self.floor = min(self._old) - 1

    def is_any_held_by(self, slot: int, first: int, last: int) -> bool:
        """True when `held_by` would find something."""
        return slot in self._places(first, last) or any(True for _ in self._old_of(slot, first, last))

    def held_by(self, slot: int, first: int, last: int) -> list[int]:
        """Sequences in `first..last` that `slot` holds, ascending."""
        found = sorted(self._old_of(slot, first, last))
        places = self._places(first, last)
        if slot in places:
            found += compress(count(max(first, self._base)), map(slot.__eq__, places))
        return found

    def _places(self, first: int, last: int) -> "array[int]":
        return self._slots[max(first - self._base, 0) : max(last + 1 - self._base, 0)]

    def _old_of(self, slot: int, first: int, last: int) -> Iterator[int]:
        if first < self._base:
            yield from (seq for seq, held in self._old.items() if held == slot and first <= seq <= last)

    def held(self) -> list[int]:
        """All sequences that are held, ascending."""
        return [*sorted(self._old), *compress(count(self._base), self._slots)]

    def counts(self) -> dict[int, int]:
        """How many sequences each slot holds."""
        counts = Counter(self._slots)
        counts.update(self._old.values())
        del counts[0]
        return counts

    def give_all(self, slot: int) -> None:
        """Everything that is held is now held by `slot`."""
        self._old = dict.fromkeys(self._old, slot)
        self._slots = array("H", [slot if held else 0 for held in self._slots])

    def slots_from(self, seq: int) -> bytes:
        """The slots of `seq`, which is above the floor, to the last sequence that is held; 2 bytes each, little-endian."""
        older = array("H", [self._old.get(one, 0) for one in range(seq, self._base)])
        data = _to_bytes(older + self._places(seq, self.last)).rstrip(b"\0")
        return data + bytes(len(data) % 2)

    def copy(self) -> "Holders":
        """The same content, independent."""
        return Holders.decode(self.encode())

    def encode(self) -> bytes:
        """The same bytes for the same content, however it came about: older ones, then the places of the newest."""
        start = max(self.last - KEEP + 1 - self._base, 0)
        old = sorted(self._old.items())
        old += [(self._base + index, slot) for index, slot in enumerate(self._slots[:start]) if slot]
        newest = self._slots[start:]
        leading = next((index for index, slot in enumerate(newest) if slot), len(newest))
        seqs = array("Q", [seq for seq, _ in old])
        slots = array("H", [slot for _, slot in old])
        return HEAD.pack(self.last, len(old)) + _to_bytes(seqs) + _to_bytes(slots + newest[leading:])

    @classmethod
    def decode(cls, data: bytes) -> "Holders":
        """What `encode` wrote; raises ValueError or struct.error for anything else."""
        last, number = HEAD.unpack_from(data)
        end = HEAD.size + number * array("Q").itemsize
        seqs = array("Q")
        seqs.frombytes(data[HEAD.size : end])
        if sys.byteorder == "big":
            seqs.byteswap()
        slots = slots_of(data[end:])
        if len(seqs) != number or len(slots) < number:
            raise ValueError(f"{len(data)} bytes are no holders of sequences: {number} older ones are announced")
        holders = cls(last - (len(slots) - number))
        holders._old = dict(zip(seqs, slots, strict=False))
        holders.append(slots[number:])
        holders.advance()
        return holders


def slots_of(data: bytes) -> "array[int]":
    """Slot numbers of 2 bytes each, little-endian; raises ValueError when the last one is incomplete."""
    slots = array("H")
    slots.frombytes(data)
    if sys.byteorder == "big":
        slots.byteswap()
    return slots


def _to_bytes(numbers: "array[int]") -> bytes:
    if sys.byteorder == "big":
        numbers = array(numbers.typecode, numbers)
        numbers.byteswap()
    return numbers.tobytes()
