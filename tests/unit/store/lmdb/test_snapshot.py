"""Covers store/lmdb/snapshot.py: what a copy contains, what is refused of one from elsewhere, and what is left of files."""

import os
import resource
import stat
import threading
from pathlib import Path
from random import Random

import lmdb
import pytest

from store import block, records
from store.constants import STORE_FORMAT_VERSION
from store.errors import CorruptionError, FormatVersionError, IdentityError, StoreError, WriteError
from store.lmdb import layout
from store.lmdb.batch import collect
from store.lmdb.environment import Identity, open_environment, read_store_identity
from store.lmdb.load import load
from store.lmdb.snapshot import SharedEnvironment, copy_environment, prepare_copy
from store.lmdb.transaction import write
from store.machine import cluster
from store.operations import DeleteChannel, Progress
from tests.support.store_digest import digest_state
from tests.unit.store.builders import SETUP, Machine, connect, messages, subscribe

LEADER, FOLLOWER = Identity("c", "leader", "i1"), Identity("c", "follower", "i2")
DATABASES = [*layout.DATABASES]


@pytest.fixture
def machine():
    """Something in every database; 3 blocks of channel 1, too large to be merged."""
    machine = Machine(*SETUP, connect("a"))
    cluster.configure(machine.state, b"members")
    for first in (1, 11, 21):
        machine.publish(1, messages(first, 10, size=5000))
    machine.apply(subscribe(1), subscribe(2, durable="d"), subscribe(3, queue_group="g"))
    machine.apply(Progress(2, 9, 3, ((5, 6), (8, 8))))
    return machine


@pytest.fixture
def environment(machine, tmp_path):
    """The leader's."""
    (tmp_path / "leader").mkdir()
    environment = open_environment(tmp_path / "leader", LEADER, is_synced=False)
    write(environment, collect(machine.state, 77, 5))
    yield environment
    environment.close()


@pytest.fixture
def directory(tmp_path):
    """Of the copy."""
    directory = tmp_path / "copy"
    directory.mkdir()
    return directory


@pytest.fixture
def copy(environment, directory):
    """The directory that holds a copy of the leader's environment."""
    assert copy_environment(environment, directory) == (77, 5)
    return directory


@pytest.fixture
def limited():
    """Limits the size of the files this process writes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def changed(directory, name, change):
    """Let `change` work on a cursor of one database of the copy in `directory`."""
    with lmdb.open(str(directory), max_dbs=9) as handle:
        database = handle.open_db(name, create=False)
        with handle.begin(write=True, db=database) as transaction:
            change(transaction.cursor())
    (directory / "lock.mdb").unlink()


def flip_at(position, bit=1):
    def change(cursor):
        value = bytearray(cursor.value())
        value[position] ^= bit
        cursor.put(cursor.key(), bytes(value))

    return change


def keys(directory, name):
    with lmdb.open(str(directory), max_dbs=9, readonly=True, lock=False) as handle:
        database = handle.open_db(name, create=False)
        with handle.begin(db=database) as transaction:
            return [key for key, _ in transaction.cursor()]


# ---- copying


def test_copy_is_what_was_committed(machine, environment, copy):
    """With everything in it, readable as the leader's store; it is one private file."""
    assert [path.name for path in copy.iterdir()] == ["data.mdb"]
    assert stat.S_IMODE((copy / "data.mdb").stat().st_mode) == 0o600
    assert read_store_identity(copy) == LEADER
    found = open_environment(copy, LEADER, is_synced=True)
    state, index, term = load(found)
    found.close()
    assert (digest_state(state), index, term) == (digest_state(machine.state), 77, 5)
    machine.apply(DeleteChannel(1))
    write(environment, collect(machine.state, 78, 6))  # the original goes on
    assert load(environment)[1:] == (78, 6)


def test_copy_leaves_free_pages_out(machine, environment, directory):
    """It is sent to others: what expired must not be in it."""
    machine.apply(DeleteChannel(1))
    write(environment, collect(machine.state, 78, 5))
    copy_environment(environment, directory)
    sizes = [Path(path).stat().st_size for path in (environment.data_path, directory / "data.mdb")]
    assert sizes[1] < sizes[0] - 100_000


@pytest.mark.parametrize("size", [0, 5000, 100_000])
def test_full_disk_leaves_no_copy(environment, directory, limited, size):
    """The error names both files; the next copy succeeds."""
    before = descriptors()
    limited(size)
    with pytest.raises(StoreError, match=r"copying .*leader/data\.mdb to .*copy/data\.mdb failed: .*File too large"):
        copy_environment(environment, directory)
    limited(resource.RLIM_INFINITY)
    assert (list(directory.iterdir()), descriptors()) == ([], before)
    assert copy_environment(environment, directory) == (77, 5)


def test_copy_into_nowhere_is_an_error(environment, tmp_path):
    """The directory must be there."""
    with pytest.raises(StoreError, match="No such file or directory"):
        copy_environment(environment, tmp_path / "nowhere")


def test_copy_whose_index_is_damaged_is_removed(environment, directory):
    """It is read from the copy itself."""
    with environment.handle.begin(write=True, db=environment.databases[layout.META]) as transaction:
        transaction.put(layout.APPLIED_KEY, b"\0" * 20)
    with pytest.raises(CorruptionError, match=r"copy/data\.mdb is damaged: expected checksum"):
        copy_environment(environment, directory)
    assert list(directory.iterdir()) == []


# ---- preparing


def test_prepared_copy_is_this_nodes(machine, copy):
    """Everything is the leader's but the identity, on disk as well."""
    prepared = prepare_copy(copy, FOLLOWER, is_synced=True)
    assert (prepared.index, prepared.term, prepared.configuration) == (77, 5, b"members")
    assert digest_state(prepared.state) == digest_state(machine.state)
    assert prepared.environment.identity == FOLLOWER
    prepared.environment.close()
    assert read_store_identity(copy) == FOLLOWER


def test_discarded_copy_leaves_nothing(copy):
    """Neither files nor descriptors, however often."""
    before = descriptors()
    prepared = prepare_copy(copy, FOLLOWER, is_synced=True)
    assert descriptors() > before
    for _ in range(2):
        prepared.discard()
        assert (copy.exists(), descriptors()) == (False, before)


def refused(copy, error, text):
    """`prepare_copy` raises, and nothing is left."""
    before = descriptors()
    with pytest.raises(error, match=text):
        prepare_copy(copy, FOLLOWER, is_synced=True)
    assert (copy.exists(), descriptors()) == (False, before)


def test_copy_of_another_cluster_is_refused(copy):
    """The text names both."""
    with pytest.raises(IdentityError, match='cluster ID "other" does not match recovered value of "c"'):
        prepare_copy(copy, Identity("other", "n", "i"), is_synced=True)
    assert not copy.exists()


def test_copy_of_a_newer_format_is_refused(copy):
    """The leader was upgraded first (O533)."""
    newer = records.seal(layout.FORMAT_KEY, records.encode_version(STORE_FORMAT_VERSION + 1))
    changed(copy, layout.META, lambda cursor: cursor.put(layout.FORMAT_KEY, newer))
    refused(copy, FormatVersionError, r"data\.mdb has format version 2")


@pytest.mark.parametrize("name", DATABASES, ids=bytes.decode)
@pytest.mark.parametrize("position", [0, -1])
def test_damage_of_any_record_is_found(copy, name, position):
    """O534: each record of each kind, first byte and last; of a block it is told which."""
    all_keys = keys(copy, name)
    assert all_keys
    for key in all_keys:
        damaged = copy.with_name("damaged")
        damaged.mkdir()
        (damaged / "data.mdb").write_bytes((copy / "data.mdb").read_bytes())

        def change(cursor, key=key):
            assert cursor.set_key(key)
            flip_at(position)(cursor)

        changed(damaged, name, change)
        where = "channel 1, sequence " if name == layout.MESSAGES else ""
        refused(damaged, CorruptionError, rf"data\.mdb(, {where}\d+)? is damaged: expected ")


@pytest.mark.parametrize("key", [layout.FORMAT_KEY, layout.IDENTITY_KEY, layout.APPLIED_KEY, layout.CLUSTER_KEY])
def test_missing_record_is_found(copy, key):
    """Of those that are there once."""
    changed(copy, layout.META, lambda cursor: cursor.pop(key))
    refused(copy, CorruptionError, rf"expected a record {key.decode()}, found none")


@pytest.mark.parametrize(("first_seq", "found"), [(1, 0), (11, 10), (21, 20)])
def test_missing_block_is_found(copy, first_seq, found):
    """At the beginning of a channel, in its middle, at its end: no checksum would tell."""
    changed(copy, layout.MESSAGES, lambda cursor: cursor.pop(layout.MESSAGE_KEY.pack(1, first_seq)))
    refused(copy, CorruptionError, rf"channel foo is damaged: expected blocks up to 30, .* gap up to {found}$")


def test_block_behind_the_end_is_found(copy):
    """The channel's record is older than its blocks."""
    value = block.encode([b"x"])
    changed(copy, layout.MESSAGES, lambda cursor: cursor.put(layout.MESSAGE_KEY.pack(1, 31), value))
    refused(copy, CorruptionError, "expected blocks up to 30, found blocks without a gap up to 31")


def test_missing_database_is_found(copy):
    """All were made together."""
    with lmdb.open(str(copy), max_dbs=9) as handle, handle.begin(write=True) as transaction:
        transaction.drop(handle.open_db(layout.PROGRESS, txn=transaction))
    refused(copy, CorruptionError, r"data\.mdb is damaged")


@pytest.mark.parametrize("content", [b"", b"x", b"not a store at all" * 1000, b"\0" * 8192])
def test_other_file_is_refused(directory, content):
    """What a member of another kind may have sent."""
    (directory / "data.mdb").write_bytes(content)
    refused(directory, CorruptionError, r"data\.mdb is damaged: expected a store, found ")


def test_missing_file_is_refused(directory):
    """Nothing is created for it."""
    refused(directory, CorruptionError, "No such file")


def test_empty_environment_is_refused(directory):
    """A file of LMDB in which nothing is."""
    with lmdb.open(str(directory)):
        pass
    refused(directory, CorruptionError, r"data\.mdb is damaged")


@pytest.mark.parametrize("share", [0.999, 0.5, 0.1])
def test_truncated_copy_is_refused(copy, share):
    """A page behind the file's end would kill the process that reads it."""
    path = copy / "data.mdb"
    os.truncate(path, int(path.stat().st_size * share))
    refused(copy, CorruptionError, r"data\.mdb is damaged: expected a store")


def test_damaged_pages_do_not_kill_the_process(copy, machine):
    """Bits of the headers of pages, where LMDB has no checksum: refused, or without effect on what is read."""
    content = (copy / "data.mdb").read_bytes()
    page_bytes = 4096
    expected, outcomes = digest_state(machine.state), []
    for seed in range(400):
        random = Random(seed)
        damaged = bytearray(content)
        place = random.randrange(len(content) // page_bytes) * page_bytes + random.randrange(64)
        damaged[place] ^= 1 << random.randrange(8)
        directory = copy.with_name("damaged")
        directory.mkdir()
        (directory / "data.mdb").write_bytes(damaged)
        try:
            prepared = prepare_copy(directory, FOLLOWER, is_synced=False)
        except StoreError:
            outcomes.append("refused")
        else:
            outcomes.append("same" if digest_state(prepared.state) == expected else "other")
            prepared.discard()
        assert not directory.exists()
    assert "other" not in outcomes
    assert outcomes.count("refused") > 100


def test_full_disk_refuses_a_copy(copy, limited):
    """The identity cannot be written."""
    limited((copy / "data.mdb").stat().st_size)
    refused(copy, StoreError, r"data\.mdb: .*(File too large|Input/output error)")


# ---- installing


def test_installed_copy_takes_the_place_of_the_store(copy, tmp_path):
    """Of both of its files; the environment stays open, and messages name the new place."""
    store = tmp_path / "store"
    store.mkdir()
    old = open_environment(store, FOLLOWER, is_synced=True)
    prepared = prepare_copy(copy, FOLLOWER, is_synced=True)
    inodes = [(copy / name).stat().st_ino for name in ("data.mdb", "lock.mdb")]
    installed = prepared.install(store)
    prepared.discard()
    assert not copy.exists()
    assert [(store / name).stat().st_ino for name in ("data.mdb", "lock.mdb")] == inodes
    assert installed.data_path == str(store / "data.mdb")
    assert load(old)[1:] == (0, 0)  # whoever reads it still can
    assert load(installed)[1:] == (77, 5)
    old.close()
    installed.close()
    again = open_environment(store, FOLLOWER, is_synced=True)
    assert load(again)[1:] == (77, 5)
    again.close()


def test_installed_copy_without_a_place_loses_its_name(copy):
    """Of a MEMORY store: nothing is left of it when the process dies."""
    prepared = prepare_copy(copy, FOLLOWER, is_synced=False)
    installed = prepared.install(None)
    assert not copy.exists()
    assert load(installed)[1:] == (77, 5)
    installed.close()


def test_copy_that_cannot_be_installed_is_an_error(copy, tmp_path):
    """The store is as it was, nothing stays open, and the copy is not used twice."""
    before = descriptors()
    prepared = prepare_copy(copy, FOLLOWER, is_synced=True)
    with pytest.raises(WriteError, match=r"nowhere/data\.mdb failed"):
        prepared.install(tmp_path / "nowhere")
    prepared.discard()
    assert descriptors() == before


# ---- sharing


def test_environment_is_open_while_it_is_used(environment):
    """Its owner waits for that when it must; nobody begins after it is done."""
    shared = SharedEnvironment(environment)
    used, may_end, closed = threading.Event(), threading.Event(), threading.Event()

    def use():
        with shared.in_use() as found:
            used.set()
            may_end.wait(20)
            load(found)

    def close():
        shared.close(must_wait=True)
        closed.set()

    threads = [threading.Thread(target=use), threading.Thread(target=close)]
    threads[0].start()
    assert used.wait(20)
    threads[1].start()

    def use_until_refused():
        while True:  # the other thread comes to it
            with shared.in_use():
                pass

    with pytest.raises(StoreError, match="the store is closed"):
        use_until_refused()
    assert not closed.is_set()
    may_end.set()
    for thread in threads:
        thread.join(20)
    assert closed.is_set()
    with pytest.raises(lmdb.Error):
        environment.handle.begin()
    shared.close(must_wait=True)


def test_last_user_closes_what_its_owner_is_done_with(environment):
    """The owner need not wait."""
    shared = SharedEnvironment(environment)
    with shared.in_use() as one, shared.in_use():
        shared.close(must_wait=False)
        assert load(one)[1:] == (77, 5)
    with pytest.raises(lmdb.Error):
        environment.handle.begin()
