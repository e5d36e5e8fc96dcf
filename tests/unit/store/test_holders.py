"""Who holds which sequence, against a dictionary."""

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

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
    """Two bytes for each sequence above the floor, little-endian; trailing zeros of what was sent are left out."""
    holders = Holders(7)
    holders.append(array("H", [1, 256, 0, 258, 0]))
    assert holders.encode() == bytes([1, 0, 0, 1, 0, 0, 2, 1, 0, 0])
    assert holders.slots_from(9) == bytes([0, 1, 0, 0, 2, 1])
    holders.advance(8)
    assert holders.encode() == bytes([0, 1, 0, 0, 2, 1, 0, 0])
    holders.put(11, 256)
    assert holders.slots_from(11) == bytes([0, 1])
    with pytest.raises(ValueError, match="bytes"):
        Holders.decode(7, b"abc")


def test_hundred_thousand_cost_two_bytes_each():
    """What a member with everything unacked costs."""
    holders = Holders(0)
    holders.append(array("H", [1]) * 100_000)
    assert len(holders.encode()) == 200_000
