"""What a fault has to work with: the cluster, the clients, chance, and a list for what it finds itself."""

import random
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import TypeVar

from tests.support.cluster.client_loop import ClientLoop
from tests.support.cluster.cluster import Cluster
from tests.support.cluster.load import Load
from tests.support.cluster.node import Node
from tests.support.cluster.processes import ProcessWaitError
from tests.support.history import Violation

T = TypeVar("T")


@dataclass(slots=True)
class Scene:
    """Handed to every fault of a round."""

    cluster: Cluster
    loop: ClientLoop
    load: Load
    chance: random.Random
    violations: list[Violation] = field(default_factory=list)

    @property
    def nodes(self) -> list[Node]:
        """All of them."""
        return list(self.cluster.nodes.values())

    def call(self, work: Coroutine[object, object, T], *, timeout_s: float) -> T:
        """Runs work of the clients and waits for it."""
        return self.loop.call(work, timeout_s=timeout_s)

    def leader(self) -> Node:
        """The leader, or any node while there is none."""
        return self.cluster.find_leader() or self.chance.choice(self.nodes)

    def follower(self) -> Node:
        """A node that does not lead; the only one of a single server."""
        leader = self.cluster.find_leader()
        others = [node for node in self.nodes if node is not leader]
        return self.chance.choice(others or self.nodes)

    def may_lose_files(self, otherwise: Node) -> Node:
        """The node whose files are damaged already, if there is one: a majority keeps what it has (the fault model)."""
        return next((node for node in self.nodes if node.is_damaged), otherwise)

    def leader_or_follower(self) -> Node:
        """Each equally often."""
        return self.chance.choice((self.leader, self.follower))()

    def some_nodes(self) -> list[Node]:
        """The leader, a follower, two, or all, each equally often."""
        count = self.chance.choice((1, 1, 2, len(self.nodes)))
        if count == 1:
            return [self.leader_or_follower()]
        return self.chance.sample(self.nodes, min(count, len(self.nodes)))

    def others(self, node: Node) -> list[str]:
        """Names of all nodes but this one."""
        return [other.name for other in self.nodes if other is not node]

    def bring_up(self, node: Node) -> str:
        """Starts what is not running of a node. A node with damaged files may stay down; `Cluster.heal` replaces it."""
        if not node.nats.is_running:
            node.start_nats()
        node.server.collect()
        if node.server.is_running:
            return f"{node.name} is up"
        try:
            node.start()
        except ProcessWaitError:
            if not node.is_damaged:
                raise
            return f"{node.name} does not start with damaged files"
        return f"{node.name} started"


def named(nodes: list[Node]) -> str:
    """For the timeline."""
    return ", ".join(node.name for node in nodes)
