"""Small journals on a real disk for the tests of this folder."""

from pathlib import Path

from raft.journal.files import OpenJournal, open_journal
from raft.journal.frame import journal_seed
from raft.journal.recovery import Recovery

INCARNATION = "0123456789abcdef" * 2
SEED = journal_seed(INCARNATION)
SEGMENT_BYTES = 4096


def open_small(directory: Path, *, segment_bytes: int = SEGMENT_BYTES, node_id: str = "n1") -> OpenJournal:
    """Open or create a journal whose segments hold eight small frames."""
    return open_journal(
        directory, cluster_id="c1", node_id=node_id, new_incarnation=INCARNATION, segment_bytes=segment_bytes
    )


def write(journal: OpenJournal) -> None:
    """Write what the log has collected, as the writer thread would."""
    group = journal.log.take()
    assert group is not None
    journal.files.write(group)
    journal.log.done(group)
    journal.files.recycle()


def append(journal: OpenJournal, first: int, last: int, *, term: int = 1, size: int = 10) -> None:
    """Append and write the entries `first` to `last`, a group each."""
    for index in range(first, last + 1):
        journal.log.add(command(index, term, size), index, term)
        write(journal)


def command(index: int, term: int = 1, size: int = 10) -> bytes:
    """The command of an entry: differs by index and term."""
    return b"\0" + f"{index}.{term}.".encode().ljust(size, b"x")


def segments(directory: Path) -> list[Path]:
    """The segment files in order."""
    return sorted(directory.glob("*.segment"))


def state(journal: OpenJournal) -> tuple[list[tuple[bytes, int, int]], int, str | None]:
    """Everything the log holds."""
    return journal.log[:], journal.log.getCurrentTerm(), journal.log.getVotedForNodeId()


def recover(contents: list[tuple[Path, bytes]]) -> Recovery:
    """Recover from the contents of segment files."""
    recovery = Recovery(SEED)
    for file, data in contents:
        recovery.feed(int(file.stem), file, data)
    recovery.finish()
    return recovery
