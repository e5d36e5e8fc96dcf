"""Opens what a node keeps: journal and store, one identity in both, on disk or in memory.

A new directory gets its journal first and its store second, so that a crash between the two leaves a journal without a
store, which the next start completes; a store without its journal has lost acknowledged entries and is refused.
"""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from raft.engine import CONFIGURATION
from raft.journal.files import open_journal
from raft.journal.identity import sync_directory
from raft.journal.inline_rule import FAST_SYNC_S, FOLLOWER_FAST_SYNC_S, InlineRule
from raft.journal.log import Log
from raft.journal.writer import FileWriter, JournalWriter, MemoryWriter
from raft.membership import Member, decode_configuration
from server.cluster_record import read_record, write_record
from server.config.model import Options
from server.data_place import NOT_STANDALONE_TEXT, Place, find_place, random_node_id
from server.errors import DataError
from store.directory import DataDirectory
from store.store import Store, open_store


@dataclass(slots=True, kw_only=True)
class Data:
    """Journal and store of this node, opened."""

    node_id: str
    incarnation: str
    """32 hexadecimal digits, drawn when the journal was created."""
    directory: Path | None
    """The data directory; None with the MEMORY store."""
    journal_directory: Path | None
    """As configured, hence relative to the working directory perhaps; None with the MEMORY store."""
    recovered_channels: int | None
    """Channels found; None when there was nothing to recover (O206)."""
    log: Log
    writer: JournalWriter
    store: Store
    has_joined: bool = True
    """Clustered: this member was part of its cluster once."""

    def note_joined(self) -> None:
        """It is now. Blocks for a sync the first time."""
        if not self.has_joined and self.directory is not None:
            record = read_record(self.directory)
            assert record is not None
            write_record(self.directory, replace(record, has_joined=True))
        self.has_joined = True

    def close(self) -> None:
        """Write what is pending and let go of everything, journal first. Blocks."""
        try:
            self.writer.close()
        finally:
            self.store.close()


def open_data(
    options: Options,
    *,
    loop: asyncio.AbstractEventLoop,
    on_durable: Callable[[int], None],
    on_fatal: Callable[[BaseException], None],
) -> Data:
    """Open or create the data of `options`. Blocks: recovery reads the journal.

    Raises:
        DataError, IdentityError, CorruptionError, …: what is there cannot be used; nothing was changed.

    """

    def post(function: Callable[[], None]) -> None:
        loop.call_soon_threadsafe(function)

    if options.store == "MEMORY":
        node_id, incarnation = random_node_id(), secrets.token_hex(16)
        store = open_store(
            None,
            cluster_id=options.cluster_id,
            node_id=node_id,
            incarnation=incarnation,
            post=post,
            on_durable=on_durable,
            on_fatal=on_fatal,
        )
        return Data(
            node_id=node_id,
            incarnation=incarnation,
            directory=None,
            journal_directory=None,
            recovered_channels=None,
            log=Log(),
            writer=MemoryWriter(loop.call_soon),
            store=store,
        )

    _make_durable(Path(options.dir))
    directory = DataDirectory(Path(options.dir))
    writer: FileWriter | None = None
    try:
        place = find_place(directory, options)
        _make_durable(place.journal_directory)
        journal = open_journal(
            place.journal_directory,
            cluster_id=options.cluster_id,
            node_id=place.node_id,
            new_incarnation=secrets.token_hex(16),
            is_synced=options.cluster is None or options.cluster.sync,
        )
        writer = FileWriter(
            journal.files,
            post=loop.call_soon_threadsafe,
            post_here=loop.call_soon,
            on_failure=on_fatal,
            rule=InlineRule(FAST_SYNC_S if options.cluster is None else FOLLOWER_FAST_SYNC_S),
        )
        if place.record is not None:
            write_record(directory.path, place.record)
        store = open_store(
            directory,
            cluster_id=journal.identity.cluster_id,
            node_id=journal.identity.node_id,
            incarnation=journal.identity.incarnation,
            post=post,
            on_durable=on_durable,
            on_fatal=on_fatal,
        )
    except BaseException:
        if writer is not None:
            writer.close()
        directory.unlock()
        raise
    data = Data(
        node_id=journal.identity.node_id,
        incarnation=journal.identity.incarnation,
        directory=directory.path,
        journal_directory=place.journal_directory,
        recovered_channels=None if journal.is_new else len(store.state.channels),
        log=journal.log,
        writer=writer,
        store=store,
        has_joined=place.has_joined,
    )
    try:
        _finish(data, place)
    except BaseException:
        data.close()
        raise
    return data


def _finish(data: Data, place: Place) -> None:
    """What can be checked, or made durable, only now."""
    if place.was_clustered and not _is_alone(data):
        raise DataError(NOT_STANDALONE_TEXT)
    if not place.has_store and data.directory is not None:
        sync_directory(data.directory)  # it has got a new entry: the store's directory


def _is_alone(data: Data) -> bool:
    """Whether this node is the only member of its cluster, by the configuration that counts: the log's last one."""
    applied_index, _ = data.store.last_applied()
    configurations = [data.store.configuration()]
    configurations += [
        command[1:] for command, index, _ in data.log if index > applied_index and command[:1] == CONFIGURATION
    ]
    current = configurations[-1]
    return bool(current) and decode_configuration(current).members == (Member(data.node_id, data.incarnation),)


def _make_durable(directory: Path) -> None:
    """Create `directory`, and those above it, so that they survive a power failure."""
    missing = [one for one in (directory, *directory.parents) if not one.is_dir()]
    for one in reversed(missing):
        one.mkdir(mode=0o700, exist_ok=True)
        sync_directory(one.parent)
