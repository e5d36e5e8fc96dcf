"""Who holds which sequence of a queue group: one slot number per sequence above the floor. Pure.

0 = acked, any other number = the slot of the member it was sent to. Up to the floor everything is acked. So every sequence up to
`last` is either acked or held by exactly one slot: none can be lost (B394). The leader's own view and the replicated
one are both of this class.
"""

import sys
from array import array
from collections import Counter
from itertools import compress, count
from typing import Final

SLOT_MAX: Final = 65535
"""Largest slot number: a slot takes two bytes for each sequence."""

SCAN: Final = 512
"""Sequences looked at together while the floor moves."""

TRIM_MIN: Final = 4096
"""Dead places at the front before they are given back."""


class Holders:
    """Slots of `floor + 1` to `last`.

    Invariant: `_slots[seq - _base]` belongs to `seq`; places before `floor + 1` are dead; `_base <= floor + 1`.
    """

    __slots__ = ("_base", "_slots", "floor")

    def __init__(self, floor: int) -> None:
        self.floor = floor
        self._base = floor + 1
        self._slots = array("H")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Holders) and self.encode() == other.encode() and self.floor == other.floor

    __hash__ = None  # type: ignore[assignment]  # it changes

    @property
    def last(self) -> int:
        """The last sequence that was sent."""
        return self._base + len(self._slots) - 1

    def at(self, seq: int) -> int:
        """The slot that holds `seq`; 0 when it is acked or was not sent."""
        index = seq - self._base
        return self._slots[index] if seq > self.floor and index < len(self._slots) else 0

    def put(self, seq: int, slot: int) -> None:
        """`seq`, which is above the floor and not above `last`, is now held by `slot`, or acked (0)."""
        self._slots[seq - self._base] = slot

    def append(self, slots: "array[int]") -> None:
        """The sequences behind `last` were sent to `slots`."""
        self._slots.extend(slots)

    def skip(self, last: int) -> None:
        """The sequences behind `last` up to `last` count as sent and acked."""
        self._slots.frombytes(bytes(2 * (last - self.last)))

    def advance(self, floor: int = 0) -> None:
        """Everything up to `floor` is acked; then the floor moves over what is acked behind it."""
        slots = self._slots
        end = len(slots)
        index = max(floor, self.floor) + 1 - self._base
        while index < end and not slots[index]:
            index += 1
            while index + SCAN <= end and not any(slots[index : index + SCAN]):
                index += SCAN
        self.floor = self._base + index - 1
        if index > TRIM_MIN and index * 2 > end:
            del slots[:index]
            self._base += index

    def is_any_held_by(self, slot: int, first: int, last: int) -> bool:
        """True when `held_by` would find something."""
        first = max(first, self.floor + 1)
        return slot in self._slots[first - self._base : max(last + 1 - self._base, 0)]

    def held_by(self, slot: int, first: int, last: int) -> list[int]:
        """Sequences in `first..last` that `slot` holds, ascending."""
        if not self.is_any_held_by(slot, first, last):
            return []
        first = max(first, self.floor + 1)
        slots = self._slots[first - self._base : max(last + 1 - self._base, 0)]
        return list(compress(count(first), map(slot.__eq__, slots)))

    def held(self) -> list[int]:
        """All sequences that are held, ascending."""
        first = self.floor + 1
        return list(compress(count(first), self._slots[first - self._base :]))

    def counts(self) -> dict[int, int]:
        """How many sequences each slot holds."""
        counts = Counter(self._slots[self.floor + 1 - self._base :])
        del counts[0]
        return counts

    def give_all(self, slot: int) -> None:
        """Everything that is held is now held by `slot`."""
        first = self.floor + 1 - self._base
        self._slots[first:] = array("H", [slot if held else 0 for held in self._slots[first:]])

    def slots_from(self, seq: int) -> bytes:
        """The slots of `seq`, which is above the floor, to the last sequence that is held; 2 bytes each, little-endian."""
        data = _to_bytes(self._slots[seq - self._base :]).rstrip(b"\0")
        return data + bytes(len(data) % 2)

    def copy(self) -> "Holders":
        """The same content, independent."""
        return Holders.decode(self.floor, self.encode())

    def encode(self) -> bytes:
        """The slots of all sequences above the floor, 2 bytes each, little-endian."""
        return _to_bytes(self._slots[self.floor + 1 - self._base :])

    @classmethod
    def decode(cls, floor: int, data: bytes) -> "Holders":
        """What `encode` wrote; raises ValueError for anything else."""
        holders = cls(floor)
        holders.append(slots_of(data))
        return holders


def slots_of(data: bytes) -> "array[int]":
    """Slot numbers of 2 bytes each, little-endian; raises ValueError when the last one is incomplete."""
    slots = array("H")
    slots.frombytes(data)
    if sys.byteorder == "big":
        slots.byteswap()
    return slots


def _to_bytes(slots: "array[int]") -> bytes:
    if sys.byteorder == "big":
        slots = array("H", slots)
        slots.byteswap()
    return slots.tobytes()
