"""The store: applying, writing behind, reading over the boundary, failing, closing."""

import threading
from pathlib import Path

import pytest

from store import entry
from store.constants import SPLIT_MAX_BYTES
from store.directory import DataDirectory
from store.errors import CorruptionError, DirectoryInUseError, IdentityError, InvariantError, StoreError, WriteError
from store.lmdb import environment, layout
from store.machine.state import Block
from store.operations import (
    BeginLeadership,
    CleanStop,
    CloseClient,
    CloseSubscription,
    CreateChannel,
    DeleteChannel,
    Expire,
    InitCluster,
    Limits,
    Progress,
    SetLimits,
    Unsubscribe,
)
from store.store import open_store
from tests.support.store_digest import digest
from tests.unit.store.builders import (
    IDENTITY,
    SETUP,
    START_NS,
    UNLIMITED,
    Host,
    append,
    configuration,
    connect,
    fill,
    log_entry,
    messages,
    no_op,
    opened,
    subscribe,
)

kinds = pytest.mark.parametrize("kind", ["FILE", "MEMORY"])


def directory_for(kind, tmp_path):
    return tmp_path / "data" if kind == "FILE" else None


def setup(store, *more):
    store.apply([log_entry(1, [*SETUP, *more])])
    return store.state.channels["foo"]


@kinds
def test_applied_becomes_durable(kind, tmp_path):
    """The owner is told, on its own thread and never from inside a method."""
    with opened(directory_for(kind, tmp_path)) as (store, host):
        assert (store.last_applied(), store.durable_index()) == ((0, 0), 0)
        setup(store)
        assert (store.last_applied(), store.durable_index(), host.durable) == ((1, 1), 0, [])
        host.run_until(lambda: host.durable == [1])
        assert store.durable_index() == 1
        store.apply([no_op(2, term=4)])
        assert store.last_applied() == (2, 4)
        host.run_until(lambda: host.durable == [1, 2])
        store.apply([no_op(3, term=4)])
        store.flush()
        assert (store.durable_index(), host.durable) == (3, [1, 2])
        host.run_until(lambda: host.durable == [1, 2, 3])


def test_one_transaction_at_a_time_takes_all_that_waits(tmp_path):
    """While one is written, entries gather for the next."""
    with opened(tmp_path) as (store, host):
        setup(store)
        for index in range(2, 50):
            store.apply([no_op(index)])
        host.run_until(lambda: store.durable_index() == 49)
        assert host.durable == [1, 49]


def test_pending_bytes_are_those_not_written(tmp_path):
    """The bound on memory: what is being written counts as well as what waits."""
    with opened(tmp_path) as (store, host):
        (first, one), (second, two) = append(1, 1, messages(1, 5)), append(1, 6, messages(6, 5))
        store.apply([log_entry(1, [*SETUP, first], [one])])  # handed over at once
        assert store.pending_bytes == len(one)
        store.apply([log_entry(2, [second], [two])])  # waits
        assert store.pending_bytes == len(one) + len(two)
        host.run_until(lambda: store.durable_index() == 2)
        assert store.pending_bytes == 0


def test_applying_waits_at_the_bound(tmp_path):
    """Replay and followers do not outrun the disk: nothing is proposed there that could wait instead."""
    bound = 10_000
    with opened(tmp_path, pending_max_bytes=bound) as (store, host):
        setup(store)
        largest = 0
        for _ in range(60):
            fill(store, 1, size=1000)
            largest = max(largest, store.pending_bytes)
        assert bound / 2 < largest <= bound + 1100
        assert host.durable == []  # told later, on a turn of its own
        host.run_until(lambda: store.durable_index() == 61)


@kinds
def test_reading_over_the_boundary(kind, tmp_path):
    """Every message is found, in memory or in LMDB, while blocks leave the tail."""
    with opened(directory_for(kind, tmp_path), tail_max_bytes=20_000) as (store, host):
        channel = setup(store)
        for _ in range(10):
            fill(store, 100, per_block=7, size=50)
            host.run_ready()
            for seq in (1, channel.last_seq // 2, channel.last_seq - 20, channel.last_seq):
                assert store.read_messages(channel, seq, 50, 1 << 20) == (
                    seq,
                    messages(seq, min(50, channel.last_seq - seq + 1), size=50),
                )
        store.flush()
        assert store.state.tail.used_bytes <= 20_000
        first, found = store.read_messages(channel, 0, 5000, 1 << 20)
        assert (first, found) == (1, messages(1, 1000, size=50))
        assert store.timestamp_of(channel, 500) == START_NS + 500
        assert store.first_message_at_or_after(channel, START_NS + 500) == 500


def test_tail_without_room_keeps_what_is_not_durable(tmp_path):
    """A block leaves memory only when LMDB has it."""
    with opened(tmp_path, tail_max_bytes=0) as (store, _):
        channel = setup(store)
        fill(store, 20)
        assert len(channel.tail) == 2
        store.flush()
        assert len(channel.tail) == 0
        assert store.read_messages(channel, 1, 100, 1 << 20)[1] == messages(1, 20)


def test_split_messages_can_be_given(tmp_path):
    """Whoever made a block has its messages and may set them: they are what is read."""
    with opened(tmp_path) as (store, _):
        channel = setup(store)
        content = messages(1, 5)
        operation, data = append(1, 1, content)
        ((created,),) = store.apply([log_entry(2, [operation], [data])])
        assert isinstance(created, Block)
        created.messages = content
        assert store.read_messages(channel, 2, 1, 1000)[1][0] is content[1]


def test_removed_messages_are_skipped(tmp_path):
    """B235: reading goes on at the first message that is left; behind the end there is none."""
    with opened(tmp_path) as (store, _):
        channel = setup(store)
        fill(store, 30)
        store.apply([log_entry(5, [Expire(1, 12)])])
        assert store.read_messages(channel, 3, 2, 1000) == (12, messages(12, 2))
        assert store.read_messages(channel, 31, 2, 1000) == (31, [])
        store.apply([log_entry(6, [Expire(1, 31)])])
        assert store.read_messages(channel, 3, 2, 1000) == (31, [])


def test_everything_survives_closing(tmp_path):
    """B360; sequences go on (O510), also of a channel whose messages all expired."""
    with opened(tmp_path) as (store, _):
        setup(store, CreateChannel(2, "bar", Limits(5, 0, 40)), subscribe(1, durable="d"))
        fill(store, 30)
        fill(store, 30, channel_id=2)
        index = store.last_applied()[0]
        store.apply([log_entry(index + 1, [Progress(1, 20, 3, ((5, 9),)), Expire(1, 31)], term=7)])
        expected, applied = digest(store), store.last_applied()
    with opened(tmp_path) as (store, host):
        assert (digest(store), store.last_applied(), store.durable_index()) == (expected, applied, applied[0])
        assert host.durable == []
        channel = store.state.channels["foo"]
        assert (channel.first_seq, channel.last_seq) == (31, 30)
        fill(store, 1)
        assert store.read_messages(channel, 1, 5, 1000) == (31, messages(31, 1))
        assert store.state.channels["bar"].first_seq == 26


@pytest.mark.parametrize(
    "operation",
    [
        InitCluster("c", "t"),
        CreateChannel(3, "baz", UNLIMITED),
        SetLimits(1, Limits(100, 0, 0)),
        SetLimits(1, Limits(3, 0, 0)),
        DeleteChannel(1),
        Expire(1, 4),
        connect("other"),
        CloseClient("me"),
        subscribe(4),
        subscribe(4, durable="e", last_sent=7),
        subscribe(3, durable="off", inbox="new"),
        CloseSubscription(1),
        CloseSubscription(2),
        Unsubscribe(1),
        Unsubscribe(2),
        Progress(1, 7, 2, ((4, 5),)),
        Progress(3, 7, 7, ()),
        CleanStop(),
    ],
    ids=lambda operation: type(operation).__name__,
)
def test_each_operation_reaches_the_disk(tmp_path, operation):
    """Alone in its transaction, each one's change is there after a restart."""
    with opened(tmp_path) as (store, _):
        subscriptions = [subscribe(1), subscribe(2, durable="d"), subscribe(3, durable="off"), CloseSubscription(3)]
        store.apply([log_entry(1, [*SETUP[1:], CreateChannel(2, "bar", UNLIMITED), *subscriptions])])
        fill(store, 10)
        store.flush()
        before = digest(store)
        assert store.apply([log_entry(3, [operation])]) == [[None]]
        expected = digest(store)
        assert expected != before
    with opened(tmp_path) as (store, _):
        assert digest(store) == expected


@kinds
def test_configuration_is_kept(kind, tmp_path):
    """The newest one, of bytes the store does not read; it has no results, and no-ops leave it as it is."""
    content = memoryview(bytearray(b"\xff\0members"))
    with opened(directory_for(kind, tmp_path)) as (store, _):
        assert store.configuration() == b""
        setup(store)
        before = digest(store)
        assert store.apply([configuration(2, b"older"), configuration(3, content), no_op(4)]) == [[], [], []]
        content[0] = 0  # the journal's memory may be used again
        assert (store.configuration(), store.last_applied()) == (b"\xff\0members", (4, 1))
        assert digest(store) != before
        store.flush()
    if kind == "FILE":
        with opened(tmp_path / "data") as (store, _):
            assert (store.configuration(), store.last_applied()) == (b"\xff\0members", (4, 1))
            store.apply([configuration(5, b"")])
        with opened(tmp_path / "data") as (store, _):
            assert (store.configuration(), digest(store)) == (b"", before)


def test_suspects_reach_the_disk(tmp_path):
    """What an earlier leader may have sent is part of the state, and survives the next restart (B394)."""
    with opened(tmp_path) as (store, _):
        setup(store, subscribe(1, last_sent=0))
        fill(store, 10)
        store.apply([log_entry(store.last_applied()[0] + 1, [BeginLeadership(6)])])
        assert store.state.subscriptions[1].suspect_to == 6
        store.apply([log_entry(store.last_applied()[0] + 1, [CleanStop()])])
    with opened(tmp_path) as (store, _):
        assert store.state.subscriptions[1].suspect_to == 6
        assert store.state.progress_is_exact


def test_restart_does_not_read_messages(tmp_path):
    """A channel with 200,000 messages is there at once; its blocks are few, and none is in memory."""
    with opened(tmp_path) as (store, _):
        channel = setup(store)
        fill(store, 200_000, per_block=1000, size=100)
    with opened(tmp_path) as (store, _):
        channel = store.state.channels["foo"]
        assert (channel.first_seq, channel.last_seq, channel.count) == (1, 200_000, 200_000)
        assert len(channel.tail) == 0
        assert store.read_messages(channel, 123_456, 2, 1000) == (123_456, messages(123_456, 2, size=100))
        assert store.first_message_at_or_after(channel, START_NS + 77_777) == 77_777


@pytest.mark.parametrize("index", [0, 1, 3])
def test_gap_in_the_log_stops_the_node(tmp_path, index):
    """Entries are applied once, in order; after an error nothing more is applied or written."""
    host = Host()
    store = host.open(tmp_path)
    setup(store)
    store.flush()
    with pytest.raises(InvariantError, match=f"entry {index} is to be applied after 1"):
        store.apply([no_op(index)])
    with pytest.raises(StoreError, match="the store is broken"):
        store.apply([no_op(2)])
    store.close()
    with opened(tmp_path) as (store, _):
        assert store.last_applied() == (1, 1)


def test_half_applied_entry_is_never_written(tmp_path):
    """What a failing entry changed in memory does not become durable."""
    host = Host()
    store = host.open(tmp_path)
    setup(store)
    store.flush()
    expected = digest(store)
    operation, block = append(1, 1, messages(1, 3))
    damaged = block[:-1] + b"\xff"
    with pytest.raises(CorruptionError):
        store.apply([no_op(2), log_entry(3, [CreateChannel(2, "bar", UNLIMITED), operation], [damaged])])
    host.run_ready()
    store.close()
    with opened(tmp_path) as (store, _):
        assert (store.last_applied(), digest(store)) == ((1, 1), expected)


def test_newer_entry_stops_the_node(tmp_path, monkeypatch):
    """An entry of a format this program does not know is not skipped."""
    monkeypatch.setattr(entry, "ENTRY_FORMAT_VERSION", 2)
    newer = log_entry(1, SETUP)
    monkeypatch.undo()
    with opened(tmp_path) as (store, _), pytest.raises(StoreError, match="log entry has format version 2"):
        store.apply([newer])


def test_full_map_is_fatal(tmp_path, monkeypatch):
    """A transaction that fails is never tried again: the owner is told the reason, once, and nothing more is applied."""
    monkeypatch.setattr(environment, "LMDB_MAP_BYTES", 1 << 20)
    host = Host()
    store = host.open(tmp_path)
    setup(store)
    store.flush()
    fill(store, 20, per_block=1, size=100_000)
    host.run_until(lambda: bool(host.fatal))
    (error,) = host.fatal
    assert isinstance(error, WriteError)
    assert "data.mdb failed" in str(error)
    assert "MDB_MAP_FULL" in str(error)
    with pytest.raises(StoreError, match="the store is broken"):
        store.apply([no_op(22)])
    with pytest.raises(StoreError, match="the store is broken"):
        store.flush()
    store.close()
    host.run_ready()
    assert len(host.fatal) == 1
    with opened(tmp_path) as (store, _):
        assert store.last_applied()[0] == max(host.durable)


def test_failure_while_waiting_is_raised(tmp_path, monkeypatch):
    """Who waits for the disk is told by an exception."""
    monkeypatch.setattr(environment, "LMDB_MAP_BYTES", 1 << 20)
    host = Host()
    store = host.open(tmp_path)
    setup(store)
    fill(store, 20, per_block=1, size=100_000)
    with pytest.raises(WriteError, match="MDB_MAP_FULL"):
        store.close()
    store.close()
    with pytest.raises(StoreError, match="the store is closed"):
        store.apply([no_op(22)])
    with opened(tmp_path):  # the lock is free
        pass


def test_owner_whose_loop_is_closed_can_still_close(tmp_path):
    """Posting then fails; closing waits by itself."""

    def post(_function):
        raise RuntimeError("Event loop is closed")

    host = Host()
    store = open_store(
        DataDirectory(tmp_path),
        cluster_id="c",
        node_id="n",
        incarnation="i",
        post=post,
        on_durable=host.durable.append,
        on_fatal=host.fatal.append,
    )
    setup(store)
    store.close()
    with opened(tmp_path, cluster_id="c", node_id="n", incarnation="i") as (store, _):
        assert store.last_applied() == (1, 1)


def test_memory_store_leaves_nothing(tmp_path, monkeypatch):
    """Neither while it is open, so that a killed process leaves nothing, nor afterwards."""
    monkeypatch.setattr("store.directory.SHARED_MEMORY", tmp_path / "nowhere")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with opened(None, tail_max_bytes=0) as (store, _):
        channel = setup(store)
        fill(store, 100)
        store.flush()
        assert list(tmp_path.iterdir()) == []
        assert store.read_messages(channel, 1, 100, 1 << 20)[1] == messages(1, 100)


def test_threads_and_files_end_with_the_store(tmp_path):
    """Opening and closing again and again holds on to nothing."""
    before = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    for directory in (tmp_path, None, tmp_path):
        with opened(directory) as (store, _):
            store.apply([no_op(store.last_applied()[0] + 1)])
        with pytest.raises(IdentityError), opened(tmp_path, cluster_id="other"):
            pass
    assert (threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))) == before


def test_directory_has_one_owner(tmp_path):
    """O524."""
    with opened(tmp_path), pytest.raises(DirectoryInUseError), opened(tmp_path):
        pass


def test_damaged_message_is_not_delivered(tmp_path):
    """O534: a CorruptionError names channel and sequence; the rest of the channel is read."""
    with opened(tmp_path) as (store, _):
        setup(store)
        fill(store, 20, size=5000)
    stored = environment.open_environment(tmp_path / "store", environment.Identity(**IDENTITY), is_synced=True)
    key = layout.MESSAGE_KEY.pack(1, 1)
    with stored.handle.begin(write=True, db=stored.databases[layout.MESSAGES]) as transaction:
        value = bytearray(transaction.get(key))
        value[-1] ^= 1
        transaction.put(key, bytes(value))
    stored.close()
    with opened(tmp_path) as (store, _):
        channel = store.state.channels["foo"]
        with pytest.raises(CorruptionError, match=r"^channel 1, sequence 3 is damaged"):
            store.read_messages(channel, 3, 5, 1 << 20)
        assert store.read_messages(channel, 11, 1, 1 << 20) == (11, messages(11, 1, size=5000))


def test_memory_of_given_messages_is_bounded(tmp_path):
    """Only recent blocks keep their messages split; older ones are split again when read."""
    with opened(tmp_path) as (store, _):
        channel = setup(store)
        created = []
        while channel.total_bytes < 2 * SPLIT_MAX_BYTES:
            content = messages(channel.last_seq + 1, 10, size=100_000)
            operation, block = append(1, channel.last_seq + 1, content)
            ((one,),) = store.apply([log_entry(store.last_applied()[0] + 1, [operation], [block])])
            one.messages = content
            created.append(one)
        kept = sum(one.size for one in created if one.messages is not None)
        assert SPLIT_MAX_BYTES / 2 < kept <= SPLIT_MAX_BYTES
        assert store.read_messages(channel, 1, 1, 1 << 20) == (1, messages(1, 1, size=100_000))
