"""Says whose journal a directory holds, and keeps other processes out of it.

The identity file is one line of JSON and its checksum. It is written to a temporary name, synced, renamed, and the
directory synced, after the first segment was created: a directory without it holds no journal yet.
"""

import fcntl
import json
import os
import string
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import google_crc32c

from raft.constants import JOURNAL_FORMAT_VERSION, NODE_ID_MAX_BYTES
from raft.errors import CorruptionError, IdentityError, JournalInUseError, VersionError

IDENTITY_FILE: Final = "identity.json"
LOCK_FILE: Final = "lock"
INCARNATION_DIGITS: Final = 32
"""Length of an incarnation: 128 random bits in lower case hexadecimal digits."""

_VERSION_KEY: Final = "format_version"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whose journal it is. `incarnation` is a random number, drawn when the journal was created."""

    cluster_id: str
    node_id: str
    incarnation: str

    def __post_init__(self) -> None:
        for name, value in (("cluster_id", self.cluster_id), ("node_id", self.node_id)):
            if not 0 < len(value.encode()) <= NODE_ID_MAX_BYTES:
                raise ValueError(f"{name} {value!r}: allowed: 1 to {NODE_ID_MAX_BYTES} bytes")
        digits = self.incarnation
        if len(digits) != INCARNATION_DIGITS or not set(digits) <= set(string.hexdigits.lower()):
            raise ValueError(f"incarnation {digits!r}: allowed: {INCARNATION_DIGITS} hexadecimal digits, lower case")


def lock_directory(directory: Path) -> int:
    """Lock `directory` for this process; the descriptor to close when done. Raises JournalInUseError."""
    descriptor = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise JournalInUseError(directory) from None
    return descriptor


def sync_directory(directory: Path) -> None:
    """Make creations and renames in `directory` survive a power failure."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_identity(directory: Path) -> Identity | None:
    """The identity in `directory`, None if there is none. Raises CorruptionError, VersionError."""
    file = directory / IDENTITY_FILE
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return None
    line, _, rest = data.partition(b"\n")
    if rest != _checksum_line(line):
        raise CorruptionError(file, len(line) + 1, expected=_checksum_line(line).decode().strip(), found=repr(rest))
    fields = json.loads(line)
    version = fields.pop(_VERSION_KEY)
    if version != JOURNAL_FORMAT_VERSION:
        raise VersionError(file, found=version, supported=JOURNAL_FORMAT_VERSION)
    return Identity(**fields)


def write_identity(directory: Path, identity: Identity) -> None:
    """Store `identity` durably in `directory`."""
    line = json.dumps({_VERSION_KEY: JOURNAL_FORMAT_VERSION, **asdict(identity)}).encode()
    file = directory / IDENTITY_FILE
    temporary = file.with_suffix(".tmp")
    with temporary.open("wb") as output:
        output.write(line + b"\n" + _checksum_line(line))
        output.flush()
        os.fsync(output.fileno())
    temporary.rename(file)
    sync_directory(directory)


def check_identity(directory: Path, identity: Identity, *, cluster_id: str, node_id: str) -> None:
    """Raise IdentityError unless `identity`, found in `directory`, is of this cluster and node."""
    for field, expected, found in (
        ("cluster id", cluster_id, identity.cluster_id),
        ("node id", node_id, identity.node_id),
    ):
        if expected != found:
            raise IdentityError(directory, field=field, expected=expected, found=found)


def _checksum_line(line: bytes) -> bytes:
    return f"{google_crc32c.value(line):08x}\n".encode()
