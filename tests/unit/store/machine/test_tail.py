"""The tail: finding, eviction and its bound."""

from store.machine.tail import BLOCK_OVERHEAD_BYTES, COMPACT_MIN, Block, ChannelTail, Tail

SIZE = 1000
COST = SIZE + BLOCK_OVERHEAD_BYTES


def new(first, count=1, *, index=0, channel_id=1, size=SIZE):
    return Block(channel_id, first, count, size, b"", [b"m"] * count, index)


def filled(tail, channel, number, *, per_block=2):
    for position in range(number):
        tail.add(channel, new(1 + position * per_block, per_block, index=position + 1))


def test_finds_the_block_of_a_sequence():
    """Every sequence in the tail is found in its block; others are not, also after blocks left."""
    tail, channel = Tail(), ChannelTail()
    assert channel.find(1) is None
    filled(tail, channel, 4 * COMPACT_MIN)
    last = 8 * COMPACT_MIN
    for first in (1, 2, 3, COMPACT_MIN, 5 * COMPACT_MIN, last):
        tail.drop_dead(channel, first)
        for seq in range(last + 3):
            found = channel.find(seq)
            is_there = (first - 1) // 2 * 2 < seq <= last
            assert (found is not None and found.first_seq <= seq <= found.last_seq) == is_there
        assert [block.first_seq for block in channel] == list(range((first - 1) // 2 * 2 + 1, last, 2))


def test_bound_holds_over_all_channels():
    """Above the bound the oldest blocks leave, of whatever channel, but only those that are durable."""
    tail, one, two = Tail(max_bytes=3 * COST), ChannelTail(), ChannelTail()
    for index in range(1, 7):
        tail.add(one if index % 2 else two, new((index + 1) // 2, index=index))
    tail.evict(0)
    assert tail.used_bytes == 6 * COST
    tail.evict(2)
    assert tail.used_bytes == 4 * COST
    assert (one.oldest().first_seq, two.oldest().first_seq) == (2, 2)
    tail.evict(6)
    assert tail.used_bytes == 3 * COST
    assert (one.oldest().first_seq, two.oldest().first_seq) == (3, 2)


def test_dead_blocks_do_not_count():
    """Removed and deleted blocks give their room back at once."""
    tail, one, two = Tail(max_bytes=COST), ChannelTail(), ChannelTail()
    filled(tail, one, 3)
    filled(tail, two, 2)
    tail.drop_dead(one, 4)  # half of the second block lives
    assert (len(one), tail.used_bytes) == (2, 4 * COST)
    tail.drop_all(one)
    assert (len(one), one.oldest(), tail.used_bytes) == (0, None, 2 * COST)
    tail.evict(9)
    assert (two.oldest().first_seq, tail.used_bytes) == (3, COST)


def test_only_the_most_recent_blocks_keep_their_messages_split():
    """Messages kept beside the bytes are bounded as well."""
    tail, channel = Tail(), ChannelTail()
    big = 3 * 1024 * 1024
    blocks = [new(seq, size=big) for seq in (1, 2, 3)]
    for block in blocks:
        tail.add(channel, block)
    assert [block.messages is not None for block in blocks] == [False, True, True]
