"""Limits by count, bytes and age, against a naive model."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store import block, entry
from store.machine.apply import apply_entry
from store.machine.refusals import UNKNOWN_CHANNEL
from store.machine.state import Refusal, State
from store.operations import CreateChannel, Expire, Limits, SetLimits
from tests.unit.store.builders import UNLIMITED, Machine, append, log_entry, message, messages


class Model:
    """What a channel holds: sizes by sequence, removed one at a time."""

    def __init__(self, limits):
        self.limits = limits
        self.sizes = []
        self.first = 1

    def publish(self, sizes):
        self.sizes += sizes
        self.enforce()

    def enforce(self):
        while len(self.sizes) > 1 and self.is_over():
            self.sizes.pop(0)
            self.first += 1

    def is_over(self):
        counted = sum(self.sizes) + len(self.sizes) * self.limits.message_overhead
        return (0 < self.limits.max_msgs < len(self.sizes)) or (0 < self.limits.max_bytes < counted)

    def expire(self, first):
        while self.first < first:
            self.sizes.pop(0)
            self.first += 1


class DiskReader:
    """Blocks that are only on disk; counts how often each is read."""

    def __init__(self):
        self.blocks = []
        self.reads = []

    def block_at(self, channel_id, seq):
        (found,) = [one for one in self.blocks if one[0] <= seq < one[0] + block.count(one[1])]
        self.reads.append(found[0])
        return found


limits = st.builds(Limits, st.integers(0, 12), st.integers(0, 400), st.sampled_from([0, 40]))
steps = st.lists(
    st.one_of(
        st.lists(st.integers(0, 90), min_size=1, max_size=8).map(lambda sizes: ("publish", sizes)),
        limits.map(lambda value: ("limits", value)),
        st.integers(0, 8).map(lambda number: ("expire", number)),
    ),
    max_size=12,
)


@settings(max_examples=200)
@given(limits, steps, st.booleans())
def test_is_the_naive_model(first_limits, todo, is_on_disk):
    """Range, sizes and total are those of removing messages one by one, whether blocks are in memory or on disk (B326)."""
    state, reader, model, index = State(), DiskReader(), Model(first_limits), 0

    def apply(operation, blocks=()):
        nonlocal index
        index += 1
        (result,) = apply_entry(state, entry.decode(log_entry(index, [operation], blocks).data), index, reader)
        assert not isinstance(result, Refusal)

    apply(CreateChannel(1, "foo", first_limits))
    channel = state.channels["foo"]
    for kind, value in todo:
        if kind == "publish":
            content = [message(channel.last_seq + 1 + i, data=b"x" * size) for i, size in enumerate(value)]
            operation, data = append(1, channel.last_seq + 1, content)
            reader.blocks.append((operation.first_seq, data))
            apply(operation, [data])
            model.publish([len(one) for one in content])
        elif kind == "limits":
            apply(SetLimits(1, value))
            model.limits = value
            model.enforce()
        else:
            first = min(channel.first_seq + value, channel.last_seq + 1)
            apply(Expire(1, first))
            model.expire(first)
        assert (channel.first_seq, channel.count) == (model.first, len(model.sizes))
        assert channel.total_bytes == sum(model.sizes)
        assert all(one.last_seq >= channel.first_seq for one in channel.tail)
        if is_on_disk:
            state.tail.drop_all(channel.tail)
            channel.head = None


def test_newest_stays_even_if_too_big():
    """B326, O503: it alone may exceed max_bytes."""
    machine = Machine(CreateChannel(1, "foo", Limits(0, 100, 40)))
    machine.publish(1, messages(1, 3, size=10))
    machine.publish(1, messages(4, 1, size=500))
    channel = machine.state.channels["foo"]
    assert (channel.first_seq, channel.last_seq) == (4, 4)
    assert channel.total_bytes == len(messages(4, 1, size=500)[0])


def test_overhead_counts_for_each_message():
    """O511: FILE counts 40 bytes more per message than its encoding."""
    size = len(messages(1, 1)[0])
    for overhead, left in ((40, 2), (0, 4)):
        machine = Machine(CreateChannel(1, "foo", Limits(0, 2 * (size + 40), overhead)))
        for seq in range(1, 5):
            machine.publish(1, messages(seq, 1))
        channel = machine.state.channels["foo"]
        assert channel.count == left
        assert channel.counted_bytes == left * (size + overhead)


def test_other_limits_are_enforced_at_once_and_nothing_comes_back():
    """O508."""
    machine = Machine(CreateChannel(1, "foo", UNLIMITED))
    machine.publish(1, messages(1, 10))
    assert machine.one(SetLimits(1, Limits(4, 0, 0))) is None
    assert machine.one(SetLimits(1, UNLIMITED)) is None
    assert machine.state.channels["foo"].first_seq == 7
    assert machine.one(SetLimits(9, UNLIMITED)) is UNKNOWN_CHANNEL


def test_expiry_takes_the_newest_too():
    """B328, B202: all removed: first = last + 1, sequences go on (O510)."""
    machine = Machine(CreateChannel(1, "foo", UNLIMITED))
    machine.publish(1, messages(1, 4))
    channel = machine.state.channels["foo"]
    assert machine.one(Expire(1, 3)) is None
    assert (channel.first_seq, channel.total_bytes) == (3, sum(map(len, messages(3, 2))))
    assert machine.one(Expire(1, 2)) is None  # gone already
    assert channel.first_seq == 3
    assert machine.one(Expire(1, 5)) is None
    assert (channel.first_seq, channel.last_seq, channel.count, channel.total_bytes) == (5, 4, 0, 0)
    assert machine.publish(1, messages(5, 1)).first_seq == 5


@pytest.mark.parametrize(
    ("operation", "refusal"),
    [(Expire(1, 6), Refusal("messages below 6 expire, the channel ends with 4")), (Expire(9, 1), UNKNOWN_CHANNEL)],
)
def test_impossible_expiry_is_refused(operation, refusal):
    """Messages that do not exist yet cannot expire."""
    machine = Machine(CreateChannel(1, "foo", UNLIMITED))
    machine.publish(1, messages(1, 4))
    assert machine.one(operation) == refusal
    assert machine.state.channels["foo"].first_seq == 1


def test_each_old_block_is_read_once():
    """Removing messages one by one from blocks on disk reads each block once, not once per message."""
    state, reader = State(), DiskReader()
    apply_entry(state, entry.decode(log_entry(1, [CreateChannel(1, "foo", UNLIMITED)]).data), 1, reader)
    channel = state.channels["foo"]
    for index in range(2, 5):
        operation, data = append(1, channel.last_seq + 1, messages(channel.last_seq + 1, 20))
        reader.blocks.append((operation.first_seq, data))
        apply_entry(state, entry.decode(log_entry(index, [operation], [data]).data), index, reader)
    state.tail.drop_all(channel.tail)
    for seq in range(2, 51):
        apply_entry(state, entry.decode(log_entry(seq + 4, [Expire(1, seq)]).data), seq + 4, reader)
    assert reader.reads == [1, 21, 41]
