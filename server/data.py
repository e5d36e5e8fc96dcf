"""Opens what a node keeps: journal and store, one identity in both, below one directory or in memory.

A new directory gets its journal first and its store second, so that a crash between the two leaves a journal without a
store, which the next start completes; a store without its journal has lost acknowledged entries and is refused.
"""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from raft.journal.files import OpenJournal, open_journal
from raft.journal.identity import read_identity
from raft.journal.log import Log
from raft.journal.writer import FileWriter, JournalWriter, MemoryWriter
from server.config.model import Options
from server.errors import DataError
from store.directory import DataDirectory
from store.errors import IdentityError
from store.lmdb.environment import DATA_FILE
from store.store import Store, open_store

JOURNAL_DIRECTORY: Final = "journal"
"""Directory of the journal below the data directory."""


@dataclass(slots=True)
class Data:
    """Journal and store of this node, opened."""

    node_id: str
    directory: Path | None
    """The data directory; None with the MEMORY store."""
    recovered_channels: int | None
    """Channels found; None when there was nothing to recover (O206)."""
    log: Log
    writer: JournalWriter
    store: Store

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
        node_id = _random_id()
        store = open_store(
            None,
            cluster_id=options.cluster_id,
            node_id=node_id,
            incarnation=secrets.token_hex(16),
            post=post,
            on_durable=on_durable,
            on_fatal=on_fatal,
        )
        return Data(node_id, None, None, Log(), MemoryWriter(loop.call_soon), store)

    directory = DataDirectory(Path(options.dir))
    writer: FileWriter | None = None
    try:
        journal = _open_journal(directory, options.cluster_id)
        writer = FileWriter(
            journal.files, post=loop.call_soon_threadsafe, post_here=loop.call_soon, on_failure=on_fatal
        )
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
    recovered = None if journal.is_new else len(store.state.channels)
    return Data(journal.identity.node_id, directory.path, recovered, journal.log, writer, store)


def _open_journal(directory: DataDirectory, cluster_id: str) -> OpenJournal:
    """The journal below `directory`, whose identity the store must share."""
    path = directory.path / JOURNAL_DIRECTORY
    found = read_identity(path)
    if found is None and (directory.store_path / DATA_FILE).exists():
        raise DataError(
            f'"{directory.path}" holds a store without its journal "{JOURNAL_DIRECTORY}": acknowledged messages may be'
            " missing; restore the journal or use an empty directory"
        )
    if found is not None and found.cluster_id != cluster_id:
        raise IdentityError("cluster ID", cluster_id, found.cluster_id)
    return open_journal(
        path,
        cluster_id=cluster_id,
        node_id=_random_id() if found is None else found.node_id,
        new_incarnation=secrets.token_hex(16),
    )


def _random_id() -> str:
    """A node id, stored at the first start (O41)."""
    return secrets.token_hex(11)
