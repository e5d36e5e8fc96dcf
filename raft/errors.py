"""Classes the errors of `raft` by who must act.

    RaftError
    ├── NotLeaderError           the caller: ask `leader_id`
    ├── RecoveryError            the operator: journal and store do not fit together
    ├── CorruptionError          the operator: the disk does not hold what was written
    ├── VersionError             the operator: the files are of another release
    ├── IdentityError            the operator: the directory is another node's
    ├── JournalInUseError        the operator: another process has the directory
    ├── SyncFailedError          the operator: the disk refused a write; the node has stopped
    ├── WireError                the sender: bytes from the network that are no message of ours
    ├── SelfCheckError           the operator: an installed library is not the one we were proven with
    └── InvariantError           us: a bug

Facts are in attributes, prose is in `str()`.
"""

from pathlib import Path


class RaftError(Exception):
    """Root of everything `raft` raises on purpose."""


class NotLeaderError(RaftError):
    """Only the leader takes proposals. Nothing was logged. `leader_id` is None while no leader is known."""

    def __init__(self, leader_id: str | None) -> None:
        super().__init__(f"this node does not lead; leader: {'unknown' if leader_id is None else leader_id}")
        self.leader_id = leader_id


class RecoveryError(RaftError):
    """The journal cannot continue the store; starting would lose or invent entries."""


class CorruptionError(RaftError):
    """`file` does not hold at `offset` (bytes) what must be there. The node must not start: acked entries are missing."""

    def __init__(self, file: Path | str, offset: int, *, expected: str, found: str) -> None:
        super().__init__(f"{file} is damaged at byte {offset}: expected {expected}, found {found}")
        self.file, self.offset, self.expected, self.found = Path(file), offset, expected, found


class VersionError(RaftError):
    """`file` was written in format version `found`; this release reads `supported` only."""

    def __init__(self, file: Path | str, *, found: int, supported: int) -> None:
        super().__init__(f"{file} has journal format version {found}, this release reads version {supported} only")
        self.file, self.found, self.supported = Path(file), found, supported


class IdentityError(RaftError):
    """`directory` belongs to another node: its `field` is `found`, while `expected` was configured."""

    def __init__(self, directory: Path | str, *, field: str, expected: str, found: str) -> None:
        super().__init__(
            f"journal directory {directory} has {field} {found!r}, this node has {expected!r}:"
            " point the node to its own directory"
        )
        self.directory, self.field, self.expected, self.found = Path(directory), field, expected, found


class JournalInUseError(RaftError):
    """Another process has locked `directory`."""

    def __init__(self, directory: Path | str) -> None:
        super().__init__(f"journal directory {directory} is in use by another process")
        self.directory = Path(directory)


class SyncFailedError(RaftError):
    """The journal's `file` could not be written durably; `__cause__` is the system's error.

    Never retried: the kernel may have dropped the pages, so a later sync that succeeds would prove nothing.
    """

    def __init__(self, file: Path | str, reason: str) -> None:
        super().__init__(f"the journal file {file} could not be written durably: {reason}")
        self.file, self.reason = Path(file), reason


class WireError(RaftError):
    """Bytes from another node are not what our release sends: they are dropped, with a log line."""


class SelfCheckError(RaftError):
    """An installed library is not the one `raft` was proven with."""


class InvariantError(RaftError):
    """Something that only a bug can bring about. The node stops before it does more."""
