"""Covers raft/journal/identity.py: whose journal it is, and who uses it."""

import os
import subprocess
import sys

import pytest

from raft.errors import CorruptionError, IdentityError, JournalInUseError, VersionError
from raft.journal.identity import IDENTITY_FILE, Identity, check_identity, lock_directory, read_identity, write_identity

IDENTITY = Identity(cluster_id="c1", node_id="n1", incarnation="0123456789abcdef" * 2)


def test_identity_is_read_back(tmp_path):
    """What was written is found, and no temporary file stays."""
    assert read_identity(tmp_path) is None
    write_identity(tmp_path, IDENTITY)
    assert read_identity(tmp_path) == IDENTITY
    assert [file.name for file in tmp_path.iterdir()] == [IDENTITY_FILE]


@pytest.mark.parametrize(
    ("cluster_id", "node_id", "text"),
    [
        ("c2", "n1", "has cluster id 'c1', this node has 'c2': point the node to its own directory"),
        ("c1", "n2", "has node id 'n1', this node has 'n2': point the node to its own directory"),
    ],
)
def test_directory_of_another_node(tmp_path, cluster_id, node_id, text):
    """The error names the directory, both values and the way out."""
    with pytest.raises(IdentityError) as raised:
        check_identity(tmp_path, IDENTITY, cluster_id=cluster_id, node_id=node_id)
    assert str(raised.value) == f"journal directory {tmp_path} {text}"
    assert raised.value.directory == tmp_path


def test_other_format_version_names_both(tmp_path):
    """An older or newer release's journal is refused with both versions."""
    write_identity(tmp_path, IDENTITY)
    file = tmp_path / IDENTITY_FILE
    line = file.read_bytes().split(b"\n")[0].replace(b'"format_version": 2', b'"format_version": 3')
    file.write_bytes(line + b"\n" + checksum(line))
    with pytest.raises(VersionError) as raised:
        read_identity(tmp_path)
    assert (raised.value.found, raised.value.supported) == (3, 2)
    assert str(raised.value) == f"{file} has journal format version 3, this release reads version 2 only"


def test_every_changed_byte_is_noticed(tmp_path):
    """A damaged identity is neither used nor replaced."""
    write_identity(tmp_path, IDENTITY)
    file = tmp_path / IDENTITY_FILE
    data = file.read_bytes()
    for at in range(len(data)):
        for damaged in (data[:at], data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]):
            file.write_bytes(damaged)
            with pytest.raises(CorruptionError) as raised:
                read_identity(tmp_path)
            assert raised.value.file == file


@pytest.mark.parametrize(
    "fields",
    [
        {"cluster_id": ""},
        {"node_id": "n" * 1025},
        {"incarnation": "abc"},
        {"incarnation": "G" * 32},
        {"incarnation": "A" * 32},
    ],
)
def test_unusable_values_are_refused(fields):
    """Ids have a length, incarnations are 128 bits in hexadecimal digits."""
    values = {"cluster_id": "c", "node_id": "n", "incarnation": "0" * 32} | fields
    with pytest.raises(ValueError, match="allowed: "):
        Identity(**values)


def test_lock_keeps_others_out(tmp_path):
    """A second user is told the directory, in this process or another; after the first has gone it may enter."""
    descriptor = lock_directory(tmp_path)
    with pytest.raises(JournalInUseError) as raised:
        lock_directory(tmp_path)
    assert str(raised.value) == f"journal directory {tmp_path} is in use by another process"
    program = "import sys, pathlib; from raft.journal.identity import lock_directory; lock_directory(pathlib.Path(sys.argv[1]))"
    other = [sys.executable, "-c", program, str(tmp_path)]
    refused = subprocess.run(other, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 1
    assert "JournalInUseError" in refused.stderr
    os.close(descriptor)
    assert subprocess.run(other, timeout=60, check=False).returncode == 0


def checksum(line: bytes) -> bytes:
    """The second line of the identity file."""
    import google_crc32c  # noqa: PLC0415

    return f"{google_crc32c.value(line):08x}\n".encode()
