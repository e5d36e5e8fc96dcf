"""Runs the nodes of a cluster as processes on one nats-server: start, kill, pause, stop, wipe, and who leads.

Everything known about a node comes from its log, as an operator would see it.
"""

import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.support.nats_process import NatsProcess
from tests.support.server_process import START_TIMEOUT_S, ServerProcess

CLUSTER_ID: Final = "three"
NODE_IDS: Final = ("a", "b", "c")

LOST_TEXT: Final = "server lost leadership, performing leader stepdown actions"
STEPPED_DOWN_TEXT: Final = "finished leader stepdown actions"
PROMOTED: Final = re.compile(r"finished leader promotion actions term=(\d+)")

BAD_LINE: Final = re.compile(r"\[(WRN|ERR|FTL)\]|Traceback")
"""What no log of a healthy cluster has."""

EXPECTED_LINES: Final = ("Options without effect together with --nats_server: -a -p",)
"""What every node warns of here, since ServerProcess gives these options."""

POLL_S: Final = 0.01
"""Pause between two looks at the logs, seconds."""

_poll: Final = threading.Event()


class ClusterTimeoutError(Exception):
    """The nodes did not do what was awaited; the text has the end of each node's log."""


class ClusterNode(ServerProcess):
    """One node; its directories stay the same over restarts, and are empty again after `wipe`."""

    def __init__(self, node_id: str, nats_url: str, home: Path, *, cluster_id: str, options: Sequence[str]) -> None:
        self.node_id = node_id
        self.home = home
        self.log_path = home / "log"
        self.is_paused = False
        super().__init__(
            directory=home / "data",
            nats_url=nats_url,
            cluster_id=cluster_id,
            options=("-clustered", "-cluster_node_id", node_id, "-cluster_log_path", str(self.log_path), *options),
        )

    @property
    def lines(self) -> list[str]:
        """What the current process has printed; what the last one had, when none runs."""
        return self._log.lines if self._log is not None else (self._earlier_logs or [""])[-1].split("\n")

    @property
    def leads_in(self) -> int:
        """The term in which this node leads, 0 if it does not. A paused node counts as one that does not."""
        if not self.is_running or self.is_paused:
            return 0
        for line in reversed(self.lines):
            promoted = PROMOTED.search(line)
            if promoted or LOST_TEXT in line:
                return int(promoted[1]) if promoted else 0
        return 0

    def mark(self) -> int:
        """Where the log of the current process ends now."""
        return len(self.lines)

    def wait_for(self, text: str, *, since: int = 0, timeout_s: float = START_TIMEOUT_S) -> str:
        """The first line from number `since` on that has `text`; raises LogWaitError."""
        assert self._log is not None
        return self._log.wait_for(text, timeout_s=timeout_s, start=since)

    def wait_end(self, timeout_s: float = START_TIMEOUT_S) -> int:
        """The exit status of a process that ends by itself; raises TimeoutExpired."""
        assert self._process is not None
        status = self._process.wait(timeout_s)
        self._finish()
        return status

    def pause(self) -> None:
        """SIGSTOP: the process does nothing, and its sockets stay open."""
        assert self._process is not None
        self.is_paused = True
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        self.is_paused = False

    def kill(self) -> None:
        """Kill -9, paused or not."""
        super().kill()
        self.is_paused = False

    def stop(self) -> int | None:
        """SIGTERM; see ServerProcess."""
        if self.is_paused:
            self.resume()
        return super().stop()

    def wipe(self) -> None:
        """Delete everything the node has stored."""
        assert self._process is None
        shutil.rmtree(self.home, ignore_errors=True)


class ThreeNodes:
    """Nodes by name on one nats-server, or on one that is given; use as a context manager, which starts them all.

    `peers`: they form a cluster by --cluster_peers. Without, each node's own `extra` options say how it comes into one.
    """

    def __init__(
        self,
        node_ids: Sequence[str] = NODE_IDS,
        *,
        cluster_id: str = CLUSTER_ID,
        options: Sequence[str] = (),
        peers: bool = True,
        nats: NatsProcess | None = None,
    ) -> None:
        self.cluster_id = cluster_id
        self.options = (*options, *(("-cluster_peers", ",".join(node_ids)) if peers else ()))
        self._directory = Path(tempfile.mkdtemp(prefix="streaming-cluster-"))
        self._owns_nats = nats is None
        self.nats = NatsProcess() if nats is None else nats
        self.nodes: dict[str, ClusterNode] = {}
        for node_id in node_ids:
            self.make(node_id)

    def __enter__(self) -> Self:
        try:
            if self._owns_nats:
                self.nats.start()
            for node in self.nodes.values():
                node.spawn()
            if self.nodes:
                self.wait_leader()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getitem__(self, node_id: str) -> ClusterNode:
        return self.nodes[node_id]

    @property
    def url(self) -> str:
        """Where clients find NATS."""
        return self.nats.url

    @property
    def running(self) -> list[ClusterNode]:
        """The nodes whose processes live and are not paused."""
        return [node for node in self.nodes.values() if node.is_running and not node.is_paused]

    def make(self, node_id: str, *, extra: Sequence[str] = (), name: str = "") -> ClusterNode:
        """A node with directories of its own, not started. `name`: for one that has the id of another one."""
        node = ClusterNode(
            node_id,
            self.nats.url,
            self._directory / (name or node_id),
            cluster_id=self.cluster_id,
            options=(*self.options, *extra),
        )
        self.nodes[name or node_id] = node
        return node

    def find_leader(self) -> ClusterNode | None:
        """The node that leads, by the logs; of two that believe so the one in the later term."""
        leads = {name: term for name, node in self.nodes.items() if (term := node.leads_in)}
        return self.nodes[max(leads, key=lambda name: leads[name])] if leads else None

    def wait_leader(self, *, other_than: ClusterNode | None = None, timeout_s: float = START_TIMEOUT_S) -> ClusterNode:
        """The leader, or the next one; raises ClusterTimeoutError."""

        def leader_is_there() -> bool:
            return (leader := self.find_leader()) is not None and leader is not other_than

        self.wait_until(leader_is_there, "a leader", timeout_s=timeout_s)
        leader = self.find_leader()
        return leader if leader is not None else self.wait_leader(other_than=other_than, timeout_s=timeout_s)

    def followers(self) -> list[ClusterNode]:
        """All other nodes than the leader, in the order of their names."""
        leader = self.wait_leader()
        return [node for node in self.nodes.values() if node is not leader]

    def wait_until(self, condition: Callable[[], bool], what: str, *, timeout_s: float = START_TIMEOUT_S) -> None:
        """Returns when `condition`, which looks at logs, holds; raises ClusterTimeoutError."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                ends = "\n".join(f"--- {name}\n" + "\n".join(node.lines[-25:]) for name, node in self.nodes.items())
                raise ClusterTimeoutError(f"not within {timeout_s} s: {what}\n{ends}")
            _poll.wait(POLL_S)

    def close(self) -> None:
        """Kill whatever runs and delete everything."""
        for node in self.nodes.values():
            node.kill()
        if self._owns_nats:
            self.nats.stop()
        shutil.rmtree(self._directory, ignore_errors=True)


def bad_lines(nodes: Iterable[ClusterNode], *, allowed: Sequence[str] = ()) -> list[str]:
    """Warnings, errors and tracebacks in all logs so far that have none of the `allowed` texts, with the node's name."""
    return [
        f"{node.node_id}: {line}"
        for node in nodes
        for line in node.log.split("\n")
        if BAD_LINE.search(line) and not any(text in line for text in (*EXPECTED_LINES, *allowed))
    ]
