"""Remembers in the data directory that it is a clustered node's, and where that node's replication log lies.

A standalone start knows no log path, yet must find the log of a cluster that had one node (O257). The file is one line of
JSON, written to a temporary name, synced, renamed, and the directory synced.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from raft.journal.identity import sync_directory
from server.errors import DataError

RECORD_FILE: Final = "cluster.json"
RECORD_FORMAT_VERSION: Final = 1

_VERSION_KEY: Final = "format_version"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRecord:
    """Whose data it is. `log_path` is absolute."""

    cluster_id: str
    node_id: str
    log_path: Path
    has_joined: bool = True
    """The journal was a member once: if it is none any more the operator has removed it, and it does not ask to join again."""

    @property
    def journal_directory(self) -> Path:
        """Where the replication log itself lies (O416)."""
        return self.log_path / self.cluster_id


def read_record(directory: Path) -> ClusterRecord | None:
    """The record in `directory`; None if there is none. Raises DataError."""
    file = directory / RECORD_FILE
    try:
        fields = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DataError(f'"{file}" is damaged: {error}; restore it from a copy') from error
    names = (_VERSION_KEY, "cluster_id", "node_id", "log_path")
    if not isinstance(fields, dict) or not set(names) <= set(fields):
        raise DataError(f'"{file}" is damaged: expected an object with {", ".join(names)}; restore it from a copy')
    version = fields[_VERSION_KEY]
    if version != RECORD_FORMAT_VERSION:
        raise DataError(f'"{file}" has format version {version}, this program supports {RECORD_FORMAT_VERSION} only')
    return ClusterRecord(
        cluster_id=str(fields["cluster_id"]),
        node_id=str(fields["node_id"]),
        log_path=Path(str(fields["log_path"])),
        has_joined=bool(fields.get("has_joined", True)),
    )


def write_record(directory: Path, record: ClusterRecord) -> None:
    """Store `record` durably in `directory`, in place of an earlier one. Raises OSError."""
    assert record.log_path.is_absolute()
    fields = {
        _VERSION_KEY: RECORD_FORMAT_VERSION,
        "cluster_id": record.cluster_id,
        "node_id": record.node_id,
        "log_path": str(record.log_path),
        "has_joined": record.has_joined,
    }
    file = directory / RECORD_FILE
    temporary = file.with_suffix(".tmp")
    with temporary.open("w", encoding="ascii") as output:
        output.write(json.dumps(fields) + "\n")
        output.flush()
        os.fsync(output.fileno())
    temporary.rename(file)
    sync_directory(directory)
