"""Who holds which sequence, against a dictionary."""

import struct
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from store import holders as holders_module
from store.holders import SLOT_MAX, Holders, slots_of

slot_numbers = st.one_of(st.integers(0, 3), st.integers(0, SLOT_MAX))


class HoldersMachine(RuleBasedStateMachine):
    """The dictionary has an item for each sequence above the floor."""

    def __init__(self):
        super().__init__()
        self.holders = Holders(5)
        self.floor, self.last = 5, 5
        self.slots: dict[int, int] = {}

    @rule(slots=st.lists(slot_numbers, max_size=30))
    def append(self, slots):
        self.holders.append(array("H", slots))
        self.slots |= dict(enumerate(slots, self.last + 1))
        self.last += len(slots)

    @initialize()
    def start(self):
        """Places are given up and back after a few."""
        self.patches = pytest.MonkeyPatch()
        for name, value in (("KEEP", 8), ("SHED_AT", 20), ("SCAN", 4), ("TRIM_MIN", 6)):
            self.patches.setattr(holders_module, name, value)

    def teardown(self):
        if hasattr(self, "patches"):
            self.patches.undo()

    @rule(count=st.integers(0, 30))
    def skip(self, count):
        self.holders.skip(self.last + count)
        self.slots |= dict.fromkeys(range(self.last + 1, self.last + count + 1), 0)
        self.last += count

    @precondition(lambda self: self.slots)
    @rule(data=st.data(), slot=slot_numbers)
    def put(self, data, slot):
        seq = data.draw(st.sampled_from(sorted(self.slots)))
        self.holders.put(seq, slot)
        self.slots[seq] = slot

    @rule(data=st.data())
    def advance(self, data):
        floor = data.draw(st.integers(0, self.last))
        self.holders.advance(floor)
        self.floor = max(floor, self.floor)
        while self.floor < self.last and not self.slots[self.floor + 1]:
            self.floor += 1
        self.slots = {seq: slot for seq, slot in self.slots.items() if seq > self.floor}

    @rule(slot=st.integers(1, SLOT_MAX))
    def give_all(self, slot):
        self.holders.give_all(slot)
        self.slots = {seq: slot if held else 0 for seq, held in self.slots.items()}

    @rule()
    def copy(self):
        """The floor of a copy is as far as it can be."""
        while self.floor < self.last and not self.slots[self.floor + 1]:
            self.floor += 1
        self.slots = {seq: slot for seq, slot in self.slots.items() if seq > self.floor}
        copied = self.holders.copy()
        assert copied == self.holders
        self.holders = copied

    @invariant()
    def agrees(self):
        holders = self.holders
        assert (holders.floor, holders.last) == (self.floor, self.last)
        held = {seq: slot for seq, slot in self.slots.items() if slot}
        assert holders.held() == list(held)
        assert {seq: holders.at(seq) for seq in range(self.last + 3) if holders.at(seq)} == held
        for slot in {1, 2, *held.values()}:
            mine = [seq for seq, one in held.items() if one == slot]
            assert holders.held_by(slot, 1, self.last) == mine
            assert holders.is_any_held_by(slot, 1, self.last) == bool(mine)
            assert holders.held_by(slot, self.floor + 3, self.last - 3) == [
                seq for seq in mine if self.floor + 3 <= seq <= self.last - 3
            ]
            assert holders.counts().get(slot, 0) == len(mine)
        seq = self.floor + 1 + (self.last - self.floor) // 2
        sent = slots_of(holders.slots_from(seq))
        assert [one for one in held if one >= seq] == [one for one, slot in enumerate(sent, seq) if slot]


TestHolders = HoldersMachine.TestCase


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20)), max_size=10))
def test_floor_in_steps(steps):
    """The floor stops at the first held sequence, wherever the steps of the scan end and whatever was given back."""
    holders, held = Holders(0), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(holders_module, "SCAN", 4)
        patch.setattr(holders_module, "TRIM_MIN", 8)
        patch.setattr(holders_module, "KEEP", 16)
        patch.setattr(holders_module, "SHED_AT", 40)
        for acked, pending in steps:
            holders.skip(holders.last + acked)
            held += range(holders.last + 1, holders.last + 1 + pending)
            holders.append(array("H", [1] * pending))
            for seq in held[: pending // 2 + 1]:
                holders.put(seq, 0)
            held = held[pending // 2 + 1 :]
            holders.advance()
            assert holders.floor == (held[0] - 1 if held else holders.last)
            assert holders.held() == held


def test_encoding():
    """Last sequence, older ones, then two bytes for each of the newest from the first that is held; little-endian."""
    holders = Holders(7)
    assert holders.encode() == bytes([7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    holders.append(array("H", [0, 1, 256, 0, 258, 0]))
    newest = bytes([1, 0, 0, 1, 0, 0, 2, 1, 0, 0])
    assert holders.encode() == bytes([13, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]) + newest
    assert holders.slots_from(10) == bytes([0, 1, 0, 0, 2, 1])
    holders.put(12, 256)
    assert holders.slots_from(12) == bytes([0, 1])
    for damaged in (b"abc", holders.encode()[:-1], bytes([7, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1])):
        with pytest.raises((ValueError, struct.error)):
            Holders.decode(damaged)


def test_one_message_that_is_never_acked_does_not_make_the_state_grow():
    """B394, B415: a group goes on for days beside it."""
    holders = Holders(0)
    sizes = []
    for first in range(1, 2_000_000, 10_000):
        holders.append(array("H", [1, 2] * 5_000))
        for seq in range(first + (first == 1), first + 10_000):
            holders.put(seq, 0)
        holders.advance()
        sizes.append(len(holders.encode()))
    assert (holders.floor, holders.held(), holders.at(1)) == (0, [1], 1)
    assert max(sizes) < 100
    assert holders.copy() == holders
    holders.put(1, 0)
    holders.advance()
    assert holders.floor == holders.last == 2_000_000


def test_hundred_thousand_unacked():
    """What a member with everything unacked costs on disk: ten bytes each."""
    holders = Holders(0)
    for _ in range(100):
        holders.append(array("H", [1]) * 1000)
    assert len(holders.encode()) < 1_000_000
    assert holders.held_by(1, 1, holders.last) == list(range(1, 100_001))
    assert holders.counts() == {1: 100_000}
