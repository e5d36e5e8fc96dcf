"""Decides who leads and what is committed: the typed face of PySyncObj.

State: role, term, commit index; the log itself is the journal's. All calls on one thread.
Invariant: nothing is committed on this node's own word before its journal has synced it.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from pysyncobj import syncobj

from raft.errors import InvariantError
from raft.journal.log import Log

from .commands import REGULAR
from .kernel import Kernel
from .parts import PeerNode, PortTransport
from .ports import Clock, EnginePorts, Message, RandomSource, Role, Timing
from .self_check import check

RECEIVABLE: Final = frozenset({"request_vote", "response_vote", "append_entries", "next_node_idx", "timeout_now"})
"""Message types the stock handler may see. The others forward commands."""


class Consensus:
    """One member's consensus.

    `clock` returns monotonic seconds, `random` chooses election timeouts; both may be virtual. Members are fixed.
    Raises SelfCheckError when the installed PySyncObj is not the proven one.
    """

    def __init__(
        self,
        *,
        node_id: str,
        peers: Sequence[str],
        log: Log,
        ports: EnginePorts,
        applied_index: int,
        clock: Clock,
        random: RandomSource,
        timing: Timing,
    ) -> None:
        check(syncobj)
        self._clock = clock
        self._random = random
        self._peers = {peer: PeerNode(peer) for peer in peers}
        self._transport = PortTransport(ports)
        self._enter()
        syncobj.createJournal = _given_journal
        syncobj.PIPE_NOTIFIER_ENABLED = False
        self._kernel = Kernel(
            me=PeerNode(node_id),
            others=list(self._peers.values()),
            transport=self._transport,
            log=log,
            ports=ports,
            timing=timing,
        )
        self._kernel.start_after(applied_index)

    @property
    def role(self) -> Role:
        """The role this node believes to have."""
        return self._kernel.role()

    @property
    def is_leader(self) -> bool:
        """Whether this node believes to lead; see `noop_index` for when it may serve."""
        return self._kernel.is_leader()

    @property
    def term(self) -> int:
        """Current term."""
        return self._kernel.term()

    @property
    def leader_id(self) -> str | None:
        """Id of the leader of the current term, if known."""
        return self._kernel.leader_id()

    @property
    def last_index(self) -> int:
        """Index of the last entry in the log, durable or not."""
        return self._kernel.last_index()

    @property
    def commit_index(self) -> int:
        """Highest index known to be committed."""
        return self._kernel.commit_index()

    @property
    def noop_index(self) -> int | None:
        """Index of this leader's own no-op: only when it is applied are all earlier commits applied too."""
        return self._kernel.noop_index()

    @property
    def has_committed_unapplied(self) -> bool:
        """Whether the next tick has entries to apply."""
        return self._kernel.commit_index() > self._kernel.applied_index()

    def propose(self, parts: Iterable[bytes | memoryview]) -> tuple[int, int] | None:
        """Append one entry made of `parts`; its index and term, or None on any role but leader.

        Legal while an entry is being applied. It is not sent anywhere yet.
        """
        return self._kernel.propose(b"".join((REGULAR, *parts)))

    def tick(self) -> None:
        """Do what is due: elect, commit, apply, send. What `apply` raises comes out here."""
        self._enter()
        self._kernel.run_tick()

    def elect_now(self) -> None:
        """Let the next tick start an election without waiting for a timeout. For a cluster of one."""
        self._kernel.expire_election_timeout()

    def next_deadline(self) -> float | None:
        """Clock time behind which a tick is due although nothing happened; None if never."""
        return self._kernel.next_deadline_s()

    def receive(self, peer_id: str, message: Message) -> None:
        """Handle a message of a member. Only for what the inbound filter has let through."""
        if message["type"] not in RECEIVABLE or "transmission" in message:
            raise InvariantError(f"unfiltered message of {peer_id}: {message['type']}; allowed: {sorted(RECEIVABLE)}")
        self._enter()
        self._transport._onMessageReceived(self._peers[peer_id], message)  # noqa: SLF001

    def peer_connected(self, peer_id: str) -> None:
        """A member can be reached: elections may start."""
        self._transport._onNodeConnected(self._peers[peer_id])  # noqa: SLF001

    def peer_disconnected(self, peer_id: str) -> None:
        """A member cannot be reached."""
        self._transport._onNodeDisconnected(self._peers[peer_id])  # noqa: SLF001

    def _enter(self) -> None:
        # The hooks are PySyncObj's module globals, shared by all nodes of the process.
        syncobj.monotonicTime = self._clock
        syncobj.random = self._random


def _given_journal(journal: Log) -> Log:
    return journal
