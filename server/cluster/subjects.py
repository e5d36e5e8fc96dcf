"""Names the NATS subjects on which nodes of a cluster talk (O403, O408, O430, O441). Pure."""

from dataclasses import dataclass
from typing import Final

PREFIX: Final = "_STAN.raft"

JOIN: Final = "join"
BOOTSTRAP: Final = "bootstrap"
ADD: Final = "node.add"
REMOVE: Final = "node.remove"


@dataclass(frozen=True, slots=True)
class RaftSubjects:
    """Those of one cluster."""

    cluster_id: str

    def node(self, node_id: str) -> str:
        """Where one node receives what others send to it. Its id is none of the names above (checked with the options)."""
        return f"{PREFIX}.{self.cluster_id}.{node_id}"

    @property
    def join(self) -> str:
        """Requests to be added, answered by the leader."""
        return f"{PREFIX}.{self.cluster_id}.{JOIN}"

    @property
    def bootstrap(self) -> str:
        """Where nodes that were started with --cluster_bootstrap tell of themselves."""
        return f"{PREFIX}.{self.cluster_id}.{BOOTSTRAP}"

    @property
    def add(self) -> str:
        """Requests of operators to add a node."""
        return f"{PREFIX}.{self.cluster_id}.{ADD}"

    @property
    def remove(self) -> str:
        """Requests of operators to remove a node."""
        return f"{PREFIX}.{self.cluster_id}.{REMOVE}"
