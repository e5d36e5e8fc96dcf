"""Opens what stopped nodes keep and compares it at one applied index: R6.

A store is written behind its log, so stopped nodes end at different indexes. The one that got furthest says what was
committed; the others apply what is missing from their own journals, in a copy, and then all digests must be equal.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import raft.errors
import store.errors
from raft.applier import Applier
from raft.journal.files import SEGMENT_SUFFIX
from raft.journal.frame import journal_seed
from raft.journal.identity import IDENTITY_FILE, read_identity
from raft.journal.log import BASE_COMMAND, LogEntry
from raft.journal.recovery import Recovery
from store.directory import STORE_DIRECTORY, DataDirectory
from store.lmdb.environment import read_store_identity
from store.store import Store, open_store
from tests.support.cluster.leadership import CLUSTER
from tests.support.history import Violation
from tests.support.store_digest import digest


@dataclass(frozen=True, slots=True)
class StoppedNode:
    """Where a stopped node keeps what it has. Of a damaged one, damage may still be found."""

    data_directory: Path
    log_directory: Path
    is_damaged: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """At which index the nodes were compared, what differed, and what damage was found instead of served."""

    index: int
    violations: list[Violation]
    damage: list[str]


class MissingDataError(Exception):
    """A stopped node does not have what every node has."""


def compare(nodes: Mapping[str, StoppedNode], copies: Path) -> Comparison:
    """Violations of R6. `copies` is a directory for copies of the stores, which the caller removes.

    A node whose journal does not lead to the compared index is a violation too: after draining, everybody has everything.
    Raises MissingDataError, and what opening damaged files raises unless the node is a damaged one: then a checksum has
    found what nobody has read since, as it must.
    """
    with ExitStack() as stack:
        stores: dict[str, Store] = {}
        damage: list[str] = []
        for name, node in nodes.items():
            with _damage_noted(name, node, damage):
                stores[name] = _open_copy(node, copies / name)
                stack.callback(stores[name].close)
        index, term = max(one.last_applied() for one in stores.values())
        violations = []
        digests = {}
        for name, one in stores.items():
            with _damage_noted(name, nodes[name], damage):
                _advance(one, nodes[name], index)
                if one.last_applied() == (index, term):
                    digests[name] = digest(one)
                    continue
                text = f"{name} ends at {one.last_applied()}, another node has applied index {index} of term {term}"
                violations.append(Violation("R6", CLUSTER, text))
        if len(set(digests.values())) > 1:
            violations.append(Violation("R6", CLUSTER, f"stores differ at index {index}: {digests}"))
        return Comparison(index, violations, damage)


@contextmanager
def _damage_noted(name: str, node: StoppedNode, damage: list[str]) -> Iterator[None]:
    try:
        yield
    except (raft.errors.CorruptionError, store.errors.CorruptionError) as error:
        if not node.is_damaged:
            raise
        damage.append(f"{name}: {error}")


def _advance(one: Store, node: StoppedNode, index: int) -> None:
    """Applies what the journal has behind the store, up to `index`."""
    applied_index, _ = one.last_applied()
    missing = [entry for entry in read_entries(node.log_directory) if applied_index < entry[1] <= index]
    if missing:
        Applier(one).apply(missing)


def read_entries(log_directory: Path) -> list[LogEntry]:
    """The entries of a stopped node's journal, read without changing anything."""
    directory = _only(log_directory, IDENTITY_FILE)
    identity = read_identity(directory)
    assert identity is not None
    recovery = Recovery(journal_seed(identity.incarnation))
    for file in sorted(directory.glob(f"*{SEGMENT_SUFFIX}")):
        recovery.feed(int(file.stem), file, file.read_bytes())
    recovery.finish()
    return [entry for entry in recovery.log.entries if entry[0] != BASE_COMMAND]


def _open_copy(node: StoppedNode, copy: Path) -> Store:
    source = node.data_directory / STORE_DIRECTORY
    identity = read_store_identity(source)
    if identity is None:
        raise MissingDataError(f"no store in {source}")
    shutil.copytree(source, copy / STORE_DIRECTORY)
    return open_store(
        DataDirectory(copy),
        cluster_id=identity.cluster_id,
        node_id=identity.node_id,
        incarnation=identity.incarnation,
        post=lambda _: None,
        on_durable=lambda _: None,
        on_fatal=lambda _: None,
    )


def _only(directory: Path, name: str) -> Path:
    """The one directory below that holds a file of this name."""
    found = sorted(directory.rglob(name))
    if len(found) != 1:
        raise MissingDataError(f"{len(found)} files {name} below {directory}; allowed: one")
    return found[0].parent
