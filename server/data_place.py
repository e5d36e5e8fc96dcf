"""Decides where a node's journal lies and by which id the node goes, and refuses what does not belong together.

It reads and changes nothing. A standalone node's journal is below its data directory; a clustered one's is where the
operator wants it (O416), and the data directory holds a record of that (`server.cluster_record`). So a store tells
whether it was clustered (O257), and a store without its journal has lost acknowledged messages and is refused (O409).
"""

import logging
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import raft.journal.identity as journal_identity
from raft.journal.identity import read_identity
from server.cluster_record import RECORD_FILE, ClusterRecord, read_record
from server.config.cluster import ClusterOptions
from server.config.model import Options
from server.config.units import quote
from server.errors import DataError
from store.directory import DataDirectory
from store.errors import IdentityError
from store.lmdb.environment import Identity as StoreIdentity
from store.lmdb.environment import read_store_identity

logger = logging.getLogger(__name__)

JOURNAL_DIRECTORY: Final = "journal"
"""Directory of a standalone node's journal below the data directory."""

NOT_CLUSTERED_TEXT: Final = "stan: cannot restart server in clustered mode if it was not previously clustered"
"""Exact text. Source: O257."""

NOT_STANDALONE_TEXT: Final = "stan: cannot restart server in standalone mode if it was previously clustered"
"""For a cluster that had, or may have had, other nodes. Source: O257."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where everything is."""

    node_id: str
    journal_directory: Path
    has_journal: bool
    has_store: bool
    record: ClusterRecord | None = None
    """To be stored once the journal is open; None = nothing to store."""
    has_joined: bool = True
    """Clustered: the journal was a member once."""
    was_clustered: bool = False
    """Standalone now, on data of a cluster: allowed only if that had no other node."""


def find_place(directory: DataDirectory, options: Options) -> Place:
    """The place for `options`. Raises DataError, IdentityError, and what reading the files raises."""
    stored = read_store_identity(directory.store_path)
    record = read_record(directory.path)
    for known in (stored, record):
        if known is not None:
            _check_cluster_id(options.cluster_id, known.cluster_id)
    if options.cluster is not None:
        return _clustered(directory, options.cluster_id, options.cluster, stored, record)
    if record is not None:
        return _formerly_clustered(record, stored)
    return _standalone(directory, options.cluster_id, stored)


def random_node_id() -> str:
    """22 characters, stored at the first start (O41, O405)."""
    return secrets.token_hex(11)


def _standalone(directory: DataDirectory, cluster_id: str, stored: StoreIdentity | None) -> Place:
    journal = directory.path / JOURNAL_DIRECTORY
    found = read_identity(journal)
    if found is None and stored is not None:
        raise DataError(
            f'"{directory.path}" holds a store without its journal "{JOURNAL_DIRECTORY}": acknowledged messages may be'
            " missing; restore the journal or use an empty directory"
        )
    if found is not None:
        _check_cluster_id(cluster_id, found.cluster_id)
        _check_same(journal, found, stored)
    return Place(
        node_id=random_node_id() if found is None else found.node_id,
        journal_directory=journal,
        has_journal=found is not None,
        has_store=stored is not None,
    )


def _formerly_clustered(record: ClusterRecord, stored: StoreIdentity | None) -> Place:
    """A standalone start on data of a cluster, which must have a store: it alone tells whether there were other nodes."""
    if stored is None:
        raise DataError(NOT_STANDALONE_TEXT)
    journal = record.journal_directory
    found = read_identity(journal)
    if found is None:
        raise DataError(_no_log_text(record.log_path))
    _check_same(journal, found, stored)
    return Place(
        node_id=stored.node_id, journal_directory=journal, has_journal=True, has_store=True, was_clustered=True
    )


def _clustered(
    directory: DataDirectory,
    cluster_id: str,
    cluster: ClusterOptions,
    stored: StoreIdentity | None,
    record: ClusterRecord | None,
) -> Place:
    if record is None and (stored is not None or read_identity(directory.path / JOURNAL_DIRECTORY) is not None):
        raise DataError(NOT_CLUSTERED_TEXT)
    node_id = _node_id(cluster_id, cluster, stored, record)
    log_path = cluster.log_path_of(cluster_id, node_id)
    journal = log_path / cluster_id
    found = read_identity(journal)
    wanted = ClusterRecord(
        cluster_id=cluster_id,
        node_id=node_id,
        log_path=log_path.absolute(),
        has_joined=found is not None and record is not None and record.has_joined,
    )
    if found is not None:
        _check_cluster_id(cluster_id, found.cluster_id)
        _check_same(journal, found, stored)
    elif stored is not None:
        if record is not None and record.log_path != wanted.log_path:
            logger.warning("the cluster log path was %s at the last start", quote(str(record.log_path)))
        raise DataError(_no_log_text(log_path))
    elif record is not None and record != wanted and read_identity(record.journal_directory) is not None:
        raise DataError(
            f"cluster log path {quote(str(log_path))} is empty, but the node's replication log is in"
            f" {quote(str(record.log_path))}: give that one, or delete {quote(str(directory.path / RECORD_FILE))} to begin anew"
        )
    return Place(
        node_id=node_id,
        journal_directory=journal,
        has_journal=found is not None,
        has_store=stored is not None,
        record=None if record == wanted else wanted,
        has_joined=wanted.has_joined,
    )


def _node_id(
    cluster_id: str, cluster: ClusterOptions, stored: StoreIdentity | None, record: ClusterRecord | None
) -> str:
    """By which id the node goes (O405)."""
    if stored is not None:
        if cluster.node_id not in ("", stored.node_id):
            logger.warning(
                "node ID %s is stored, --cluster_node_id %s is ignored", quote(stored.node_id), quote(cluster.node_id)
            )
        return stored.node_id
    if cluster.node_id:
        return cluster.node_id
    found = read_identity(Path(cluster.log_path) / cluster_id) if cluster.log_path else None
    if found is not None:
        return found.node_id
    # A store that was lost, or not yet made: the default log path has the id in its name.
    return random_node_id() if record is None else record.node_id


def _check_cluster_id(given: str, recovered: str) -> None:
    if given != recovered:
        raise IdentityError("cluster ID", given, recovered)


def _check_same(journal: Path, found: journal_identity.Identity, stored: StoreIdentity | None) -> None:
    """Journal and store were made together."""
    if stored is None:
        return
    for field, given, recovered in (
        ("cluster ID", found.cluster_id, stored.cluster_id),
        ("node ID", found.node_id, stored.node_id),
        ("incarnation", found.incarnation, stored.incarnation),
    ):
        if given != recovered:
            raise IdentityError(f"{field} of the journal in {journal}", given, recovered)


def _no_log_text(log_path: Path) -> str:
    """Exact text (O409)."""
    return f"streaming state was recovered but cluster log path {quote(str(log_path))} is empty"
