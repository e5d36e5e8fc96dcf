"""Opening: identity, format, damaged files."""

import lmdb
import pytest

from store import block, records
from store.constants import STORE_FORMAT_VERSION
from store.errors import CorruptionError, FormatVersionError, IdentityError, StoreError
from store.lmdb import layout
from store.lmdb.environment import Identity, open_environment, read_store_identity
from store.lmdb.load import load

IDENTITY = Identity("test-cluster", "a", "0123")


def open_and_load(directory):
    environment = open_environment(directory, IDENTITY, is_synced=True)
    try:
        return load(environment)
    finally:
        environment.close()


@pytest.fixture
def directory(tmp_path):
    """A store with enough content to have many pages."""
    environment = open_environment(tmp_path, IDENTITY, is_synced=True)
    with environment.handle.begin(write=True) as transaction:
        for seq in range(200):
            key = layout.MESSAGE_KEY.pack(1, seq)
            transaction.put(key, block.encode([b"x" * 5000]), db=environment.databases[layout.MESSAGES])
    environment.close()
    return tmp_path


def change(directory, name, key, record):
    environment = open_environment(directory, IDENTITY, is_synced=True)
    with environment.handle.begin(write=True) as transaction:
        transaction.put(key, record, db=environment.databases[name])
    environment.close()


def test_new_store_is_empty_and_can_be_reopened(tmp_path):
    """Nothing applied, twice."""
    for _ in range(2):
        state, index, term = open_and_load(tmp_path)
        assert (state.cluster_id, state.channels, index, term) == ("", {}, 0, 0)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (Identity("other", "a", "0123"), 'cluster ID "other" does not match recovered value of "test-cluster"'),
        (Identity("test-cluster", "b", "0123"), 'node ID "b" does not match recovered value of "a"'),
        (Identity("test-cluster", "a", "4567"), 'incarnation "4567" does not match recovered value of "0123"'),
    ],
)
def test_foreign_store_is_refused(directory, given, text):
    """O20: the text names both values; the store stays usable for its owner."""
    with pytest.raises(IdentityError) as caught:
        open_environment(directory, given, is_synced=True)
    assert str(caught.value) == text
    open_and_load(directory)


def test_newer_format_is_refused(directory):
    """O533: the text names both versions."""
    newer = records.seal(layout.FORMAT_KEY, records.encode_version(STORE_FORMAT_VERSION + 1))
    change(directory, layout.META, layout.FORMAT_KEY, newer)
    with pytest.raises(
        FormatVersionError, match=r"data\.mdb has format version 2, this program supports versions 1 to 1"
    ):
        open_and_load(directory)


@pytest.mark.parametrize("key", [layout.FORMAT_KEY, layout.IDENTITY_KEY, layout.APPLIED_KEY, layout.CLUSTER_KEY])
def test_damaged_meta_record_names_the_file(directory, key):
    """O534: a flipped bit in a record of its own is a CorruptionError."""
    with lmdb.open(str(directory), max_dbs=9) as handle:
        meta = handle.open_db(layout.META)
        with handle.begin(write=True, db=meta) as transaction:
            record = transaction.get(key)
            transaction.put(key, record[:-1] + bytes([record[-1] ^ 1]))
    with pytest.raises(CorruptionError, match=r"data\.mdb is damaged: expected checksum"):
        open_and_load(directory)


@pytest.mark.parametrize("key", [layout.FORMAT_KEY, layout.IDENTITY_KEY, layout.APPLIED_KEY, layout.CLUSTER_KEY])
def test_missing_meta_record_names_the_file(directory, key):
    """So is one that is not there."""
    with lmdb.open(str(directory), max_dbs=9) as handle:
        meta = handle.open_db(layout.META)
        with handle.begin(write=True, db=meta) as transaction:
            transaction.delete(key)
    with pytest.raises(CorruptionError, match=rf"data\.mdb is damaged: expected a record {key.decode()}, found none"):
        open_and_load(directory)


@pytest.mark.parametrize("share", [0.99, 0.7, 0.3, 0.05, 0.01, 0.002])
def test_truncated_file_names_the_file(directory, share):
    """Reading behind the end of a mapped file would kill the process."""
    path = directory / "data.mdb"
    with path.open("r+b") as file:
        file.truncate(int(path.stat().st_size * share))
    with pytest.raises(CorruptionError, match=r"data\.mdb is damaged"):
        open_and_load(directory)


def test_lost_blocks_at_the_end_of_the_file_are_found(tmp_path):
    """A short file is read as a whole: what is missing may be messages only."""
    environment = open_environment(tmp_path, IDENTITY, is_synced=True)
    environment.close()
    with lmdb.open(str(tmp_path), max_dbs=9, map_size=1 << 30) as handle:
        messages = handle.open_db(layout.MESSAGES)
        page = handle.stat()["psize"]
        with handle.begin(write=True, db=messages) as transaction:
            for seq in range(50):
                transaction.put(layout.MESSAGE_KEY.pack(1, seq), block.encode([bytes([seq + 1]) * page * 3]))
        with handle.begin(db=messages) as transaction:
            last = transaction.get(layout.MESSAGE_KEY.pack(1, 30))
    path = tmp_path / "data.mdb"
    content = path.read_bytes()
    damaged = content.replace(last[-2 * page :], bytes(2 * page))
    assert damaged != content
    path.write_bytes(damaged)
    open_and_load(tmp_path)  # a hole within the file is found when that message is read
    with path.open("r+b") as file:
        file.truncate(len(content) - 1)
    for attempt in (open_and_load, read_store_identity) * 2:  # each start finds it
        with pytest.raises(CorruptionError, match=r"data\.mdb, channel 1, sequence 30 is damaged"):
            attempt(tmp_path)


def test_file_short_of_pages_that_hold_nothing_is_fine(directory, monkeypatch):
    """LMDB may give pages at the end back before it ever wrote them; that is no damage."""
    path = directory / "data.mdb"
    size = path.stat().st_size
    real = lmdb.Environment

    class Longer:
        """An environment whose newest transaction counts ten pages more."""

        def __init__(self, *args, **kwargs):
            self.handle = real(*args, **kwargs)

        def info(self):
            found = self.handle.info()
            return found | {"last_pgno": found["last_pgno"] + 10}

        def __getattr__(self, name):
            return getattr(self.handle, name)

    monkeypatch.setattr(lmdb, "open", Longer)
    open_and_load(directory)
    assert path.stat().st_size > size


@pytest.mark.parametrize("content", [b"not a store at all" * 1000, b"\0" * 8192, b"x"])
def test_other_file_names_the_file(tmp_path, content):
    """A file that is no LMDB file."""
    (tmp_path / "data.mdb").write_bytes(content)
    with pytest.raises(CorruptionError, match=r"data\.mdb is damaged"):
        open_and_load(tmp_path)


def test_missing_database_names_the_file(directory):
    """All databases were made together."""
    with lmdb.open(str(directory), max_dbs=9) as handle, handle.begin(write=True) as transaction:
        transaction.drop(handle.open_db(layout.PROGRESS, txn=transaction))
    with pytest.raises(CorruptionError, match=r"data\.mdb is damaged"):
        open_and_load(directory)


def test_less_address_space_is_tried(tmp_path, monkeypatch):
    """A system that refuses the usual reservation gets smaller ones; the least one failing is an error."""
    real, tried, limit = lmdb.open, [], 1 << 32

    def refusing(path, **options):
        tried.append(options["map_size"])
        if options["map_size"] > limit:
            raise lmdb.MemoryError("mdb_env_open", 12)
        return real(path, **options)

    monkeypatch.setattr(lmdb, "open", refusing)
    open_and_load(tmp_path)
    assert tried == [1 << bits for bits in range(40, 31, -1)]
    limit = 0
    with pytest.raises(StoreError, match=r"data\.mdb"):
        open_and_load(tmp_path)
    assert tried[-1] == 1 << 30


def test_identity_is_read_without_opening_for_use(directory):
    """Whoever's it is; nothing is written, and the store can be opened afterwards."""
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    for _ in range(2):
        assert read_store_identity(directory) == IDENTITY
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    open_and_load(directory)


def test_no_store_has_no_identity(tmp_path):
    """No file, an empty one, or one in which nothing was written yet: a process died while creating it."""
    assert read_store_identity(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "data.mdb").touch()
    assert read_store_identity(tmp_path) is None
    with lmdb.open(str(tmp_path), max_dbs=9):
        pass
    assert read_store_identity(tmp_path) is None
    open_and_load(tmp_path)
    assert read_store_identity(tmp_path) == IDENTITY


def test_identity_of_a_newer_format_is_not_read(directory):
    """O533: another program knows how."""
    newer = records.seal(layout.FORMAT_KEY, records.encode_version(STORE_FORMAT_VERSION + 1))
    change(directory, layout.META, layout.FORMAT_KEY, newer)
    with pytest.raises(FormatVersionError, match=r"data\.mdb has format version 2"):
        read_store_identity(directory)


@pytest.mark.parametrize("key", [layout.FORMAT_KEY, layout.IDENTITY_KEY])
def test_damaged_identity_is_not_read(directory, key):
    """O534: an identity that may be another one's is none."""
    change(directory, layout.META, key, b"\0" * 40)
    with pytest.raises(CorruptionError, match=r"data\.mdb is damaged: expected checksum"):
        read_store_identity(directory)


@pytest.mark.parametrize("content", [b"not a store at all" * 1000, b"\0" * 8192, b"x"])
def test_identity_of_another_file_is_not_read(tmp_path, content):
    """A file that is no LMDB file."""
    (tmp_path / "data.mdb").write_bytes(content)
    with pytest.raises(CorruptionError, match=r"data\.mdb is damaged"):
        read_store_identity(tmp_path)


@pytest.mark.parametrize("share", [0.99, 0.3, 0.01])
def test_identity_of_a_truncated_file_is_not_read(directory, share):
    """It is found here, since opening would not find it any more."""
    path = directory / "data.mdb"
    with path.open("r+b") as file:
        file.truncate(int(path.stat().st_size * share))
    with pytest.raises(CorruptionError, match=r"data\.mdb is damaged"):
        read_store_identity(directory)
