"""What a batch holds, and how blocks are grouped."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import block
from store.constants import BLOCK_MAX_BYTES
from store.lmdb import layout
from store.lmdb.batch import REMOVED, collect, runs
from store.operations import CloseClient, CreateChannel, DeleteChannel, Expire, Progress, Unsubscribe
from tests.unit.store.builders import SETUP, UNLIMITED, Machine, messages, subscribe


def keys(batch, name):
    return {key: record != REMOVED for key, record in batch.records[name]}


def ids(*numbers, there=True):
    return {layout.ID_KEY.pack(number): there for number in numbers}


def test_only_what_changed_is_collected():
    """Each change is in one batch, as the state is then; last applied is in all."""
    machine = Machine(*SETUP, CreateChannel(2, "bar", UNLIMITED), subscribe(1), subscribe(2))
    batch = collect(machine.state, 1, 1)
    assert (batch.index, batch.term) == (1, 1)
    assert set(keys(batch, layout.META)) == {layout.APPLIED_KEY, layout.CLUSTER_KEY}
    assert keys(batch, layout.CHANNELS) == ids(1, 2)
    assert keys(batch, layout.CLIENTS) == ids(1)
    assert keys(batch, layout.SUBSCRIPTIONS) == keys(batch, layout.PROGRESS) == ids(1, 2)
    machine.publish(1, messages(1, 3))
    machine.apply(Progress(1, 3, 1, ()))
    batch = collect(machine.state, 3, 2)
    assert set(keys(batch, layout.META)) == {layout.APPLIED_KEY}
    assert keys(batch, layout.CHANNELS) == ids(1)
    assert keys(batch, layout.SUBSCRIPTIONS) == keys(batch, layout.CLIENTS) == {}
    assert keys(batch, layout.PROGRESS) == ids(1)
    assert [first for first, _ in batch.blocks[1]] == [1]
    batch = collect(machine.state, 4, 2)
    assert [len(items) for items in batch.records.values()] == [1, 0, 0, 0, 0, 0, 0]
    assert (batch.blocks, batch.block_bytes) == ({}, 0)


def test_what_is_gone_is_deleted():
    """Removed records are deletions, also when they came in the same batch."""
    machine = Machine(*SETUP, subscribe(1))
    collect(machine.state, 1, 1)
    machine.publish(1, messages(1, 3))
    machine.apply(subscribe(2), Unsubscribe(1), DeleteChannel(1), CloseClient("me"))
    batch = collect(machine.state, 3, 1)
    assert keys(batch, layout.CHANNELS) == keys(batch, layout.CLIENTS) == ids(1, there=False)
    assert keys(batch, layout.SUBSCRIPTIONS) == keys(batch, layout.PROGRESS) == ids(1, 2, there=False)
    assert (batch.deleted_channels, batch.first_seqs, batch.blocks) == ([1], [], {})
    assert batch.block_bytes > 0  # they count as pending until this batch is written


def test_dead_blocks_are_not_written():
    """A block that is dead when the batch is made is left out; one that is partly alive is not."""
    machine = Machine(*SETUP)
    for first in (1, 4, 7):
        machine.publish(1, messages(first, 3))
    machine.apply(Expire(1, 6))
    batch = collect(machine.state, 5, 1)
    assert [first for first, _ in batch.blocks[1]] == [4, 7]
    assert batch.first_seqs == [(1, 6)]


@given(st.lists(st.integers(1, 30_000), min_size=1, max_size=20))
def test_runs_keep_order_and_bound(sizes):
    """Groups are consecutive, complete, within the bound unless single, and no two neighbours would fit together."""
    stored, seq = [], 1
    for size in sizes:
        content = [b"x" * size, b"y"]
        stored.append((seq, block.encode(content)))
        seq += len(content)
    found = list(runs(stored))
    assert [data for _, run in found for data in run] == [data for _, data in stored]
    expected = 1
    merged = []
    for first_seq, run in found:
        assert first_seq == expected
        merged.append(block.merge(run))
        expected += block.count(merged[-1])
        assert len(run) == 1 or len(merged[-1]) <= BLOCK_MAX_BYTES
    for (_, run), following in zip(found, merged[1:], strict=False):
        assert len(block.merge([*run, following])) > BLOCK_MAX_BYTES or len(following) > len(run[0])


def test_large_block_stays_alone():
    """A single message may be larger than the bound."""
    blocks = [(1, block.encode([b"a"])), (2, block.encode([b"b" * BLOCK_MAX_BYTES])), (3, block.encode([b"c"]))]
    assert [len(run) for _, run in runs(blocks)] == [1, 1, 1]


@pytest.mark.parametrize(("extra", "groups"), [(0, 1), (1, 2)])
def test_bound_is_exact(extra, groups):
    """A group may be as large as the bound, not larger."""
    rest = BLOCK_MAX_BYTES - block.encoded_bytes(2, 10)
    blocks = [(1, block.encode([b"a" * 10])), (2, block.encode([b"b" * (rest + extra)]))]
    assert len(list(runs(blocks))) == groups
