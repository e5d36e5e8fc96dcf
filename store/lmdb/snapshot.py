"""Copies the environment for another node, and makes a copy that came from another node this node's own.

Rules: a copy is trusted only after its structure, all checksums and every channel's blocks were checked, since LMDB has
no checksums and reading damaged pages kills the process. It becomes the store by one rename, after everything in it is
durable: whenever the process dies, the data file is the old one or the new one.
"""

import logging
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import lmdb
from lmdb.verify import VerifyError
from lmdb.verify import verify as verify_structure

from store import block, records
from store.errors import CorruptionError, IdentityError, StoreError, WriteError
from store.lmdb import layout
from store.lmdb.environment import (
    DATA_FILE,
    Environment,
    Identity,
    checked_identity,
    damage_named,
    encoded_identity,
    meta_content,
    open_handle,
    sync_directory,
    verify_block,
)
from store.lmdb.load import load
from store.machine.state import State

if TYPE_CHECKING:
    from lmdb import _Database

logger = logging.getLogger(__name__)

LOCK_FILE: Final = "lock.mdb"
"""Name that LMDB gives its lock file. It holds nothing: a missing or foreign one is made anew by the first to open."""


@dataclass(slots=True)
class PreparedCopy:
    """A copy that is this node's own, open, and owned by whoever holds this: to `install` or to `discard`."""

    directory: Path
    environment: Environment
    state: State
    index: int
    term: int
    is_over: bool = field(default=False, init=False)
    """Installed or discarded."""

    @property
    def configuration(self) -> bytes:
        """Encoded configuration as of `index`; empty if none."""
        return self.state.configuration

    def discard(self) -> None:
        """Close it and remove its files; does nothing once it is installed. Any thread, but one at a time."""
        if self.is_over:
            return
        self.is_over = True
        self.environment.close()
        _remove(self.directory)

    def install(self, store_directory: Path | None) -> Environment:
        """Put the data file into `store_directory` in place of what is there; None: it loses its name and lives on.

        The environment stays open meanwhile. Raises WriteError: the old file or the new one is there.
        """
        assert not self.is_over
        self.is_over = True
        environment = self.environment
        if store_directory is not None:
            data_path = store_directory / DATA_FILE
            try:
                (self.directory / DATA_FILE).rename(data_path)
                (self.directory / LOCK_FILE).rename(store_directory / LOCK_FILE)
                sync_directory(store_directory)
            except OSError as error:
                environment.close()
                raise WriteError(str(data_path), error) from error
            environment = replace(environment, data_path=str(data_path))
        _remove(self.directory)
        return environment


class SharedEnvironment:
    """Closes an environment when its owner is done with it and nobody copies it any more."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._changed = threading.Condition()
        self._users = 0
        self._is_closing = False

    @contextmanager
    def in_use(self) -> Iterator[Environment]:
        """Keeps it open within the block; raises StoreError when its owner is done with it. Any thread."""
        with self._changed:
            if self._is_closing:
                raise StoreError("the store is closed")
            self._users += 1
        try:
            yield self._environment
        finally:
            with self._changed:
                self._users -= 1
                self._close_if_unused()
                self._changed.notify_all()

    def close(self, *, must_wait: bool) -> None:
        """Its owner is done with it. `must_wait`: return only when it is closed, which may take as long as a copy."""
        with self._changed:
            if self._is_closing:
                return
            self._is_closing = True
            self._close_if_unused()
            if must_wait:
                self._changed.wait_for(lambda: not self._users)

    def _close_if_unused(self) -> None:
        if self._is_closing and not self._users:
            self._environment.close()


def copy_environment(environment: Environment, directory: Path) -> tuple[int, int]:
    """Write a copy of the last committed transaction into `directory`; index and term it contains.

    Raises StoreError; then no file is left.
    """
    path = directory / DATA_FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            # Free pages are left out: after messages expired they are most of the file, and it is sent to other nodes.
            # Measured with 115 MB, none free: 60 ms, without `compact` 250 ms (40 ms by direct I/O, which `copy` does).
            environment.handle.copyfd(descriptor, compact=True)
        finally:
            os.close(descriptor)
        return _read_applied(directory, path)
    except (OSError, lmdb.Error) as error:
        path.unlink(missing_ok=True)
        raise StoreError(f"copying {environment.data_path} to {path} failed: {error}") from error
    except StoreError:
        path.unlink()
        raise


def _read_applied(directory: Path, path: Path) -> tuple[int, int]:
    """Index and term of the last entry that the copy in `directory` contains."""
    with damage_named(str(path)):
        handle = open_handle(directory, is_read_only=True)
        try:
            with handle.begin() as transaction:
                meta = handle.open_db(layout.META, txn=transaction, create=False)
                return records.decode_applied(meta_content(transaction, meta, layout.APPLIED_KEY, str(path)))
        finally:
            handle.close()


def prepare_copy(directory: Path, identity: Identity, *, is_synced: bool) -> PreparedCopy:
    """Check and load the copy in `directory`, and make it that of `identity`, durably if `is_synced`.

    Takes `directory` over: it is gone when this raises.

    Raises:
        CorruptionError, FormatVersionError: it cannot be used.
        IdentityError: it is of another cluster.
        StoreError: LMDB cannot open it, or the disk is full.

    """
    path = directory / DATA_FILE
    try:
        _check_structure(path)
        with damage_named(str(path)):
            handle = open_handle(directory, is_synced=is_synced)
            try:
                databases = _adopt(handle, identity, str(path))
                environment = Environment(handle, databases, str(path), identity, is_synced)
                state, index, term = load(environment)
                _check_blocks(environment, state)
            except BaseException:
                handle.close()
                raise
    except BaseException:
        _remove(directory)
        raise
    return PreparedCopy(directory, environment, state, index, term)


def _check_structure(path: Path) -> None:
    """Walk all pages without LMDB, which a damaged one makes read beyond its bounds."""
    try:
        problems = verify_structure(str(path))  # type: ignore[no-untyped-call]
    except (VerifyError, OSError) as error:
        raise CorruptionError(str(path), "a store", str(error)) from error
    if problems:
        raise CorruptionError(str(path), "a store", f"{problems[0]} ({len(problems)} problems)")


def _adopt(handle: lmdb.Environment, identity: Identity, data_path: str) -> "dict[bytes, _Database]":
    """Open the databases after the checks and write `identity`. The commit makes the whole file durable."""
    with handle.begin(write=True) as transaction:
        meta = handle.open_db(layout.META, txn=transaction, create=False)
        recovered = checked_identity(transaction, meta, data_path)
        if recovered.cluster_id != identity.cluster_id:
            raise IdentityError("cluster ID", identity.cluster_id, recovered.cluster_id)
        record = records.seal(layout.IDENTITY_KEY, encoded_identity(identity))
        transaction.put(layout.IDENTITY_KEY, record, db=meta)
        return {
            name: meta if name == layout.META else handle.open_db(name, txn=transaction, create=False)
            for name in layout.DATABASES
        }


def _check_blocks(environment: Environment, state: State) -> None:
    """Every block is what was written, and those of a channel are all there: in their order, without a gap."""
    path = environment.data_path
    next_seqs = {channel.channel_id: channel.first_seq for channel in state.channels.values()}
    with environment.handle.begin() as transaction:
        for key, data in transaction.cursor(environment.databases[layout.MESSAGES]):
            verify_block(key, data, path)
            channel_id, first_seq = layout.MESSAGE_KEY.unpack(key)
            next_seq = next_seqs.get(channel_id)
            if next_seq is not None and first_seq <= next_seq:
                next_seqs[channel_id] = max(next_seq, first_seq + block.count(data))
    for channel in state.channels.values():
        found = next_seqs[channel.channel_id] - 1
        if found != channel.last_seq:
            where = f"{path}, channel {channel.name}"
            raise CorruptionError(where, f"blocks up to {channel.last_seq}", f"blocks without a gap up to {found}")


def _remove(directory: Path) -> None:
    """Remove a directory of ours. What cannot be removed is removed with the next start, and costs only room."""
    try:
        shutil.rmtree(directory)
    except OSError as error:
        logger.warning("a copy of the store cannot be removed directory=%s error=%s", directory, error)
