"""Runs three nodes on one machine and on one NATS server, and knows which of them leads and what each has applied.

Every node has its directories on disk (FILE) and syncs before it acknowledges, as by default.
"""

import re
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import lmdb

from benchmarks.processes import cpu_s, settle
from store import records
from store.directory import STORE_DIRECTORY
from store.errors import CorruptionError
from store.lmdb import layout
from tests.support.nats_process import NatsProcess
from tests.support.server_process import ServerProcess

CLUSTER_ID: Final = "three"
NODE_NAMES: Final = ("a", "b", "c")

STARTS_TEXT: Final = "Starting nats-streaming-server"
"""What is before it in a node's log was said by a process that ended."""

OPENED_TEXT: Final = "Message store is"
"""O208: a follower prints no later line of its start (O424)."""

BECAME_TEXT: Final = "server became leader"
LEADS_TEXT: Final = "finished leader promotion actions"
LOST_TEXT: Final = "server lost leadership"

LEADER_TIMEOUT_S: Final = 60.0
CAUGHT_UP_TIMEOUT_S: Final = 600.0
POLL_S: Final = 0.01
"""How often logs and stores are looked at, seconds."""

_TERM: Final = re.compile(r"\bterm=(\d+)")
_STAMP: Final = re.compile(r"\[\d+\] (\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d{6}) ")
"""O190: local time."""


class ClusterError(Exception):
    """The cluster did not do what the benchmark waits for."""


class ThreeNodes:
    """The nodes by name. Use as a context manager: all are started, and there is a leader."""

    def __init__(self, nats: NatsProcess, directory: Path, *, options: Sequence[str] = ()) -> None:
        self.nats = nats
        self.cluster_id = CLUSTER_ID
        self.nodes = {
            name: ServerProcess(
                directory=directory / name / "data",
                nats_url=nats.url,
                cluster_id=CLUSTER_ID,
                options=(
                    *("-clustered", "-cluster_node_id", name, "-cluster_peers", ",".join(NODE_NAMES)),
                    *("-cluster_log_path", str(directory / name / "log"), *options),
                ),
            )
            for name in NODE_NAMES
        }

    def __enter__(self) -> Self:
        try:
            for node in self.nodes.values():
                node.spawn()
            for node in self.nodes.values():
                node.wait_for_log(OPENED_TEXT)
            self.leader()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """Ends what runs: the directories are thrown away anyway."""
        for node in self.nodes.values():
            node.kill()

    # ---- who leads

    def find_leader(self) -> str | None:
        """The running node that was last to say that it leads, and has not lost it."""
        terms = {name: _leads_in(node.log) for name, node in self.nodes.items() if node.is_running}
        leading = {name: term for name, term in terms.items() if term is not None}
        return max(leading, key=lambda name: leading[name]) if leading else None

    def leader(self, *, other_than: str | None = None) -> str:
        """Waits for a leader, for another one than the given node; raises ClusterError."""
        wait_until(lambda: self.find_leader() not in (None, other_than), LEADER_TIMEOUT_S, "no leader")
        name = self.find_leader()
        assert name is not None
        return name

    def followers(self) -> list[str]:
        """The running nodes that do not lead."""
        leader = self.leader()
        return [name for name, node in self.nodes.items() if name != leader and node.is_running]

    def leads_since_s(self, name: str) -> float:
        """When this node began the promotion actions of its last leadership, seconds of the monotonic clock, by its log."""
        line = next(line for line in reversed(self.nodes[name].log.splitlines()) if BECAME_TEXT in line)
        stamp = _STAMP.match(line)
        assert stamp is not None, line
        moment = datetime.strptime(stamp.group(1), "%Y/%m/%d %H:%M:%S.%f").astimezone()
        return moment.timestamp() - (time.time() - time.monotonic())

    @property
    def leaderships(self) -> int:
        """How often a node began to lead."""
        return sum(node.log.count(LEADS_TEXT) for node in self.nodes.values())

    # ---- what they use and have

    def pids(self) -> dict[str, int]:
        """Of the running nodes, by name."""
        return {name: node.pid for name, node in self.nodes.items() if node.is_running}

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds of the running nodes so far, by name."""
        return {name: cpu_s(pid) for name, pid in self.pids().items()}

    def settle(self) -> None:
        """Waits until all running nodes are quiet."""
        for pid in self.pids().values():
            settle(pid)

    def durable_index(self, name: str) -> int:
        """Index of the last log entry that is in this node's store on disk; a node that runs may have applied more."""
        return durable_index(self.nodes[name].directory / STORE_DIRECTORY)

    def wait_caught_up(self, name: str, index: int) -> None:
        """Waits until this node's store has entry `index` on disk; raises ClusterError."""
        wait_until(
            lambda: self.durable_index(name) >= index, CAUGHT_UP_TIMEOUT_S, f"node {name} did not reach entry {index}"
        )


def _leads_in(log: str) -> int | None:
    """The term in which a node with this log leads; None when it does not."""
    for line in reversed(log.splitlines()):
        if LOST_TEXT in line or STARTS_TEXT in line:
            return None
        if LEADS_TEXT in line:
            found = _TERM.search(line)
            assert found is not None
            return int(found.group(1))
    return None


def durable_index(directory: Path) -> int:
    """Index of the last entry in the store below `directory`; 0 when there is none, or while it is being replaced.

    Another process may have it open: LMDB's lock file keeps a reader's pages from being reused.
    """
    try:
        with lmdb.open(str(directory), readonly=True, create=False, max_dbs=len(layout.DATABASES)) as handle:
            meta = handle.open_db(layout.META, create=False)
            with handle.begin(db=meta) as transaction:
                record = transaction.get(layout.APPLIED_KEY)
        return 0 if record is None else records.decode_applied(records.unseal(layout.APPLIED_KEY, record, "store"))[0]
    except (lmdb.Error, OSError, CorruptionError):
        return 0


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Looks every POLL_S; raises ClusterError with `what` at the deadline."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what} within {timeout_s:.0f} s")
        time.sleep(POLL_S)
