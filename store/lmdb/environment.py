"""Opens the LMDB environment and finds out whether what is there can be used; creates it when nothing is.

Checked before anything is read: the file's length (reading behind its end kills the process), the format version, and
whose data it is. A file that is too short is either damaged, or its last pages were given back before they were ever
written; it is lengthened, and then all of it is read once to tell which.
"""

import errno
import logging
import os
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import lmdb

from store import block, records
from store.constants import LMDB_MAP_BYTES, LMDB_MAP_MIN_BYTES, STORE_FORMAT_VERSION
from store.errors import CorruptionError, FormatVersionError, IdentityError, StoreError
from store.lmdb import layout
from store.machine.state import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lmdb import _Database

logger = logging.getLogger(__name__)

DATA_FILE: Final = "data.mdb"
"""Name that LMDB gives its data file."""

REFUSED_MAP_CODES: Final = (errno.ENOMEM, errno.EINVAL, errno.EFBIG)
"""What opening fails with when the system does not give that much address space."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose store it is. `incarnation` is random, made with the data directory, and the journal has it too."""

    cluster_id: str
    node_id: str
    incarnation: str


@dataclass(frozen=True, slots=True)
class Environment:
    """An open environment with its databases."""

    handle: lmdb.Environment
    databases: "Mapping[bytes, _Database]"
    data_path: str
    """The data file, for messages."""
    identity: Identity
    is_synced: bool
    """Whether a commit waits for the disk."""

    def close(self) -> None:
        """Close it; no transaction may be open."""
        self.handle.close()


def open_environment(directory: Path, identity: Identity, *, is_synced: bool) -> Environment:
    """Open or create the environment in `directory`, which exists.

    Raises:
        CorruptionError, FormatVersionError, IdentityError: it cannot be used.
        StoreError: LMDB cannot open it.

    """
    data_path = directory / DATA_FILE
    with damage_named(str(data_path)):
        handle = open_handle(directory, is_synced=is_synced)
        try:
            with _lengthened(handle, data_path) as is_lengthened:
                databases = _open_databases(handle, identity, str(data_path))
                if is_lengthened:
                    with handle.begin() as transaction:
                        _read_all(transaction, databases, str(data_path))
        except BaseException:
            handle.close()
            raise
    return Environment(handle, databases, str(data_path), identity, is_synced)


def read_store_identity(directory: Path) -> Identity | None:
    """Whose store lies in `directory`; None when there is none, or only the beginning of one.

    The file is open only meanwhile, and is not changed, except that one that is too short is dealt with as in
    `open_environment`, which would not notice afterwards. It must not be open in this process.

    Raises:
        CorruptionError, FormatVersionError: it cannot be used.
        StoreError: LMDB cannot open it.

    """
    data_path = directory / DATA_FILE
    if not data_path.exists() or not data_path.stat().st_size:
        return None
    with damage_named(str(data_path)):
        handle = open_handle(directory, is_read_only=True)
        try:
            with _lengthened(handle, data_path) as is_lengthened, handle.begin() as transaction:
                if transaction.stat()["entries"] == 0:
                    return None
                meta = handle.open_db(layout.META, txn=transaction, create=False)
                identity = checked_identity(transaction, meta, str(data_path))
                names = layout.DATABASES
                databases = {name: handle.open_db(name, txn=transaction, create=False) for name in names}
                if is_lengthened:
                    _read_all(transaction, databases, str(data_path))
        finally:
            handle.close()
    return identity


@contextmanager
def damage_named(data_path: str) -> "Iterator[None]":
    """Turn what LMDB and the decoders say about damage into a CorruptionError that names the file."""
    try:
        yield
    except (
        lmdb.CorruptedError,
        lmdb.InvalidError,
        lmdb.PageNotFoundError,
        lmdb.PanicError,
        lmdb.VersionMismatchError,
        lmdb.NotFoundError,
        lmdb.IncompatibleError,
        lmdb.BadValsizeError,
        *records.DECODE_ERRORS,
    ) as error:
        raise CorruptionError(data_path, "a store", str(error)) from error
    except lmdb.Error as error:
        raise StoreError(f"{data_path}: {error}") from error


def open_handle(directory: Path, *, is_synced: bool = True, is_read_only: bool = False) -> lmdb.Environment:
    """Open with as much address space as the system gives. What is only read must be nobody's to write: it is not locked."""
    map_bytes = LMDB_MAP_BYTES
    while True:
        try:
            return lmdb.open(
                str(directory),
                map_size=map_bytes,
                mode=0o600,
                sync=is_synced,
                readonly=is_read_only,
                lock=not is_read_only,
                max_dbs=len(layout.DATABASES),
                max_spare_txns=2,
            )
        except lmdb.Error as error:
            code = getattr(error, "code", 0)
            is_refused = isinstance(error, lmdb.MemoryError) or code in REFUSED_MAP_CODES
            if not is_refused or map_bytes // 2 < LMDB_MAP_MIN_BYTES:
                raise
        map_bytes //= 2
        logger.info("less address space for the store map_bytes=%d", map_bytes)


@contextmanager
def _lengthened(handle: lmdb.Environment, data_path: Path) -> "Iterator[bool]":
    """Make sure that all pages of the newest transaction are within the file; True when they were not.

    After an error it is as short as before, so that the next start finds the same.
    """
    expected = (handle.info()["last_pgno"] + 1) * handle.stat()["psize"]
    found = data_path.stat().st_size
    if found >= expected:
        yield False
        return
    logger.warning("store file is short, reading all of it file=%s size=%d expected=%d", data_path, found, expected)
    os.truncate(data_path, expected)
    try:
        yield True
    except BaseException:
        os.truncate(data_path, found)
        raise


def _open_databases(handle: lmdb.Environment, identity: Identity, data_path: str) -> "dict[bytes, _Database]":
    """Open the databases after the checks, or create them with the identity, in one transaction."""
    with handle.begin(write=True) as transaction:
        is_new = transaction.stat()["entries"] == 0
        meta = handle.open_db(layout.META, txn=transaction, create=is_new)
        if is_new:
            contents = {
                layout.FORMAT_KEY: records.encode_version(STORE_FORMAT_VERSION),
                layout.IDENTITY_KEY: encoded_identity(identity),
                layout.APPLIED_KEY: records.encode_applied(0, 0),
                layout.CLUSTER_KEY: records.encode_cluster(State()),
            }
            for key, content in contents.items():
                transaction.put(key, records.seal(key, content), db=meta)
        else:
            _check(transaction, meta, identity, data_path)
        databases = {
            name: meta if name == layout.META else handle.open_db(name, txn=transaction, create=is_new)
            for name in layout.DATABASES
        }
    if is_new:
        sync_directory(Path(data_path).parent)
    return databases


def _check(transaction: "lmdb.Transaction[bytes]", meta: "_Database", identity: Identity, data_path: str) -> None:
    """Refuse a newer format and foreign data."""
    recovered = checked_identity(transaction, meta, data_path)
    for field, given, found in (
        ("cluster ID", identity.cluster_id, recovered.cluster_id),
        ("node ID", identity.node_id, recovered.node_id),
        ("incarnation", identity.incarnation, recovered.incarnation),
    ):
        if given != found:
            raise IdentityError(field, given, found)


def checked_identity(transaction: "lmdb.Transaction[bytes]", meta: "_Database", data_path: str) -> Identity:
    """Whose data it is; raises FormatVersionError for a newer format, and CorruptionError."""
    version = records.decode_version(meta_content(transaction, meta, layout.FORMAT_KEY, data_path))
    if version > STORE_FORMAT_VERSION:
        raise FormatVersionError(f"store {data_path}", version, STORE_FORMAT_VERSION)
    content = meta_content(transaction, meta, layout.IDENTITY_KEY, data_path)
    return Identity(*records.decode_identity(content))


def encoded_identity(identity: Identity) -> bytes:
    """Content of the identity record."""
    return records.encode_identity(identity.cluster_id, identity.node_id, identity.incarnation)


def meta_content(transaction: "lmdb.Transaction[bytes]", meta: "_Database", key: bytes, data_path: str) -> bytes:
    """Content of a record of the meta database; raises CorruptionError when there is none."""
    record = transaction.get(key, db=meta)
    if record is None:
        raise CorruptionError(data_path, f"a record {key.decode()}", "none")
    return records.unseal(key, record, data_path)


def _read_all(transaction: "lmdb.Transaction[bytes]", databases: "Mapping[bytes, _Database]", data_path: str) -> None:
    """Read every page: a missing one is an error of LMDB or of a checksum."""
    for name, database in databases.items():
        for key, value in transaction.cursor(database):
            if name == layout.MESSAGES:
                verify_block(key, value, data_path)
            else:
                records.unseal(key, value, data_path)


def verify_block(key: bytes, data: bytes, data_path: str) -> None:
    """Check a stored block; raises CorruptionError naming channel and sequence."""
    channel_id, first_seq = layout.MESSAGE_KEY.unpack(key)
    try:
        block.verify(data)
    except CorruptionError as error:
        where = f"{data_path}, channel {channel_id}, sequence {first_seq}"
        raise CorruptionError(where, error.expected, error.found) from error


def sync_directory(directory: Path) -> None:
    """Make the names of new files durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
