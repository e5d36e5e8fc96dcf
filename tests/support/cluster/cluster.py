"""The nodes of one run together: starts and ends them, knows the leader, and takes back every fault.

Everything is made by `start` and removed by `close`; what an earlier, crashed run left is removed first.
"""

import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from tests.support.cluster import capabilities, disks, namespaces
from tests.support.cluster.capabilities import Capability
from tests.support.cluster.disks import Disk, ImageDisk, PlainDisk
from tests.support.cluster.leadership import Leadership, NodeLog, leaderships, leads_since
from tests.support.cluster.link_faults import LinkFaults
from tests.support.cluster.namespaces import Loopback, Network
from tests.support.cluster.node import Node, NodeSettings
from tests.support.cluster.processes import ProcessWaitError

NODES: Final = ("a", "b", "c")
LEADER_TIMEOUT_S: Final = 30.0

REPLACE_AFTER_S: Final = 2.0
"""A node whose files were damaged and that does not live this long after its start is replaced by an empty one."""

HEAL_RESTARTS: Final = 3
"""Times `heal` starts a node that ends by itself."""


class NoLeaderError(Exception):
    """No node leads; the text has the end of each node's log."""


class Cluster:
    """Nodes by name. Use as a context manager, or `start` and `close`."""

    def __init__(self, names: Sequence[str] = NODES, settings: NodeSettings | None = None) -> None:
        self.settings = settings or NodeSettings(clustered=len(names) > 1)
        self.changed = threading.Condition()
        self.directory = disks.run_directory()
        self.wall_offset_ns = time.time_ns() - time.monotonic_ns()
        self.network: Network | Loopback
        self.links: LinkFaults | None = None
        """None where partitions are not available (`capabilities.missing` has the reason)."""
        self.nodes: dict[str, Node] = {}
        missing = capabilities.missing()
        disks.remove_leftovers()
        if Capability.NAMESPACES in missing:
            self.network = Loopback(names)
        else:
            namespaces.remove_leftovers()
            self.network = network = Network(names)
            if Capability.FIREWALL not in missing:
                self.links = LinkFaults(network)
        try:
            for name in names:
                self.nodes[name] = self._make_node(name, with_image=Capability.IMAGE_DISKS not in missing)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def urls(self) -> tuple[str, ...]:
        """The NATS URLs for clients, one for each node."""
        return tuple(node.place.url for node in self.nodes.values())

    @property
    def kills(self) -> int:
        """Deaths without warning so far."""
        return sum(node.kills for node in self.nodes.values())

    def start(self) -> None:
        """Starts all nats-servers, then all streaming servers."""
        for node in self.nodes.values():
            node.start_nats()
        for node in self.nodes.values():
            node.spawn()
        for node in self.nodes.values():
            node.wait_started()

    def close(self) -> None:
        """Ends every process and removes everything that was made."""
        for node in self.nodes.values():
            node.close()
        self.network.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    # ---- the leader

    def find_leader(self) -> Node | None:
        """The live node that was the last one to become leader and has not lost it, by the logs."""
        since = {
            name: moment
            for name, node in self.nodes.items()
            if node.server.is_running and (moment := leads_since(node.server.current_lines())) is not None
        }
        return self.nodes[max(since, key=lambda name: since[name])] if since else None

    def leader(self, timeout_s: float = LEADER_TIMEOUT_S, *, other_than: Node | None = None) -> Node:
        """Waits for a leader, for another one than a given node if there is one; raises NoLeaderError."""
        found: list[Node] = []

        def is_there() -> bool:
            leader = self.find_leader()
            found[:] = [leader] if leader is not None and leader is not other_than else []
            return bool(found)

        self.wait(is_there, timeout_s)
        if not found:
            ends = "\n".join(f"--- {name}\n" + "\n".join(n.server.texts()[-15:]) for name, n in self.nodes.items())
            raise NoLeaderError(f"no leader within {timeout_s} s\n{ends}")
        return found[0]

    def followers(self) -> list[Node]:
        """The nodes that do not lead, by the logs, dead ones included."""
        leader = self.find_leader()
        return [node for node in self.nodes.values() if node is not leader]

    def wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Whether `condition` holds within this time; looked at whenever a node logs something or ends."""
        with self.changed:
            return self.changed.wait_for(condition, timeout_s)

    def leaderships(self) -> list[Leadership]:
        """Every leadership so far, by the logs."""
        now_ns = time.monotonic_ns()
        offset_ns = None if self.settings.is_clock_faked else self.wall_offset_ns
        return [
            one
            for name, node in self.nodes.items()
            for one in leaderships(
                name,
                NodeLog(list(node.server.lines), node.server.runs, node.server.pauses),
                now_ns=now_ns,
                wall_offset_ns=offset_ns,
            )
        ]

    # ---- faults and their end

    def power_cut(self, nodes: Sequence[Node]) -> None:
        """These nodes lose power at the same moment and get it back; neither of their processes is started."""
        for node in nodes:
            node.server.expect_end()  # a failing write may end it before we do
            node.disk.cut_power()
        for node in nodes:
            node.kill()
            node.nats.kill()
        for node in nodes:
            node.disk.restore_power()

    def heal(self) -> list[str]:
        """Takes every fault back and starts what is down; what it had to do beyond that, one line each.

        A node with damaged files that does not start is replaced by an empty one, as an operator would do.
        Raises ProcessWaitError when an undamaged node does not stay up.
        """
        if self.links is not None:
            self.links.heal()
        done = []
        for node in self.nodes.values():
            node.disk.free()
            node.call_faults.detach()
            node.nats.resume()
            node.server.resume()
            if self.settings.is_clock_faked:
                node.set_clock(0)
            if not node.nats.is_running:
                node.start_nats()
        for node in self.nodes.values():
            done += self._raise_up(node)
        return done

    def unexpected_ends(self) -> list[str]:
        """Processes that ended although nobody and no fault ended them."""
        for node in self.nodes.values():
            node.server.collect()
            node.nats.collect()
        return [
            f"{process.name} ended by itself with status {run.status}: {self._last_words(process.texts())}"
            for node in self.nodes.values()
            for process in (node.server, node.nats)
            for run in process.runs
            if run.ended_ns is not None and not run.is_expected_end
        ]

    def _raise_up(self, node: Node) -> list[str]:
        done: list[str] = []
        for _ in range(HEAL_RESTARTS):
            if node.server.is_running:
                break
            node.server.collect()
            try:
                node.start()
            except ProcessWaitError:
                if not node.is_damaged:
                    raise
            if node.is_damaged and node.server.wait_ended(REPLACE_AFTER_S):
                node.empty()
                done.append(f"{node.name} did not start with damaged files and was replaced by an empty node")
        else:
            raise ProcessWaitError(node.server.name, f"does not stay up in {HEAL_RESTARTS} starts", node.server.texts())
        return done

    def _make_node(self, name: str, *, with_image: bool) -> Node:
        place = self.network.places[name]
        directory = self.directory / name
        disk: Disk = ImageDisk(directory) if with_image else PlainDisk(directory)
        return Node(
            place,
            list(self.network.places.values()),
            disk=disk,
            directory=self.directory,
            settings=self.settings,
            changed=self.changed,
        )

    @staticmethod
    def _last_words(texts: Sequence[str]) -> str:
        return next(
            (text for text in reversed(texts) if "[FTL]" in text or "[ERR]" in text), os.linesep.join(texts[-2:])
        )
