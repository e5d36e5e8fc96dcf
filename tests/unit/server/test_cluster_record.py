"""The record of a clustered node in its data directory."""

import json
from pathlib import Path

import pytest

from server.cluster_record import RECORD_FILE, ClusterRecord, read_record, write_record
from server.errors import DataError

RECORD = ClusterRecord(cluster_id="orders", node_id="a", log_path=Path("/logs/a"))


def test_directory_without_a_record(tmp_path: Path) -> None:
    """A standalone node has none."""
    assert read_record(tmp_path) is None


@pytest.mark.parametrize("log_path", ["/logs/a", '/lo"gs/\u00e9', "/logs/\udcff"])
def test_record_is_read_as_written(tmp_path: Path, log_path: str) -> None:
    """Any path that a command line can hold; a later record takes the place of an earlier one, and nothing else is left."""
    write_record(tmp_path, RECORD)
    record = ClusterRecord(cluster_id="orders", node_id="b,c", log_path=Path(log_path))
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record
    assert [path.name for path in tmp_path.iterdir()] == [RECORD_FILE]


def test_journal_is_below_the_name_of_the_cluster() -> None:
    """O416."""
    assert RECORD.journal_directory == Path("/logs/a/orders")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is damaged: "),
        (b"{", "is damaged: "),
        (b"\xff", "is damaged: "),
        (b"[]", "is damaged: expected an object with format_version, cluster_id, node_id, log_path"),
        (b'{"format_version": 1}', "is damaged: expected an object with "),
        (
            json.dumps({"format_version": 2, "cluster_id": "c", "node_id": "n", "log_path": "/"}).encode(),
            "has format version 2, this program supports 1 only",
        ),
    ],
)
def test_unreadable_record_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    """The text names the file: guessing could start a node without its log."""
    (tmp_path / RECORD_FILE).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_record(tmp_path)
    assert str(caught.value).startswith(f'"{tmp_path / RECORD_FILE}" {reason}')
