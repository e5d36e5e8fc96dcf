"""Classes the errors of the store by who must act.

    StoreError
    ├── DirectoryInUseError      operator: another process works on this data directory
    ├── ForeignDirectoryError    operator: the directory holds data of the Go server
    ├── IdentityError            operator: the directory belongs to another cluster or node
    ├── FormatVersionError       operator: written by a newer version of this program
    ├── CorruptionError          operator: bytes on disk are not what was written
    ├── EntryError               stop the node: a log entry cannot be read
    ├── WriteError               stop the node: a transaction failed; never retried
    └── InvariantError           our bug: stop the node before it becomes durable

A refused operation is no error: it is a result (`store.machine.state.Refusal`).
"""


class StoreError(Exception):
    """Root of everything the store raises on purpose."""


class DirectoryInUseError(StoreError):
    """Another process holds the lock of `directory` (O459)."""

    def __init__(self, directory: str) -> None:
        super().__init__(f'store "{directory}" is in use by another process')
        self.directory = directory


class ForeignDirectoryError(StoreError):
    """The directory holds files of the original server and none of ours (O531)."""

    def __init__(self, directory: str) -> None:
        super().__init__(f'"{directory}" holds data of the Go server, which cannot be read; use an empty directory')
        self.directory = directory


class IdentityError(StoreError):
    """`field` of the recovered store is `recovered`, the configuration says `given`."""

    def __init__(self, field: str, given: str, recovered: str) -> None:
        super().__init__(f'{field} "{given}" does not match recovered value of "{recovered}"')
        self.field, self.given, self.recovered = field, given, recovered


class FormatVersionError(StoreError):
    """`what` was written in format `found`; this program reads up to `supported` (O533)."""

    def __init__(self, what: str, found: int, supported: int) -> None:
        super().__init__(f"{what} has format version {found}, this program supports versions 1 to {supported}")
        self.what, self.found, self.supported = what, found, supported


class CorruptionError(StoreError):
    """`where` (a file, or a channel and sequence) holds `found`; `expected` was written."""

    def __init__(self, where: str, expected: str, found: str) -> None:
        super().__init__(f"{where} is damaged: expected {expected}, found {found}")
        self.where, self.expected, self.found = where, expected, found


class EntryError(StoreError):
    """A log entry is not what `store.entry.encode` makes."""


class WriteError(StoreError):
    """Writing to `path` failed: what the disk holds of it is unknown, so the process must end."""

    def __init__(self, path: str, reason: BaseException) -> None:
        super().__init__(f"writing to {path} failed: {reason}")
        self.path, self.reason = path, reason


class InvariantError(StoreError):
    """Something that only a bug can bring about."""
