"""Decides who leads and what is committed: the typed face of PySyncObj.

State: role, term, commit index; the log itself is the journal's. All calls on one thread.
Invariant: nothing is committed on this node's own word before its journal has synced it.
"""

from collections.abc import Iterable
from typing import Final

from pysyncobj import syncobj

from raft.errors import InvariantError
from raft.journal.log import Log
from raft.membership import Configuration, Member
from raft.messages import (
    Append,
    AppendResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)

from .commands import REGULAR
from .kernel import Kernel
from .parts import PeerNode, PortTransport
from .ports import Clock, EnginePorts, RandomSource, Role, StockMessage, Timing
from .self_check import check

NO_TERM: Final = -1
"""A last log term below all: a vote request with it gets no vote, but ends the receiver's earlier term."""


class Consensus:
    """One member's consensus.

    `clock` returns monotonic seconds, `random` chooses election timeouts; both may be virtual.
    Raises SelfCheckError when the installed PySyncObj is not the proven one.
    """

    def __init__(
        self,
        *,
        me: Member,
        log: Log,
        ports: EnginePorts,
        applied_index: int,
        clock: Clock,
        random: RandomSource,
        timing: Timing,
    ) -> None:
        check(syncobj)
        self._me = me
        self._clock = clock
        self._random = random
        self._ports = ports
        self._nodes: dict[Member, PeerNode] = {}
        self._round = 0
        self._is_forced = False
        self._transport = PortTransport(self._send)
        self._enter()
        syncobj.createJournal = _given_journal
        syncobj.PIPE_NOTIFIER_ENABLED = False
        syncobj.logger.disabled = (
            True  # it calls it critical when an append repeats what is applied, which cuts nothing
        )
        self._kernel = Kernel(
            me=PeerNode(me), others=[], transport=self._transport, log=log, ports=ports, timing=timing
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
    def leader(self) -> Member | None:
        """The leader of the current term, if known."""
        return self._kernel.leader()

    @property
    def last_index(self) -> int:
        """Index of the last entry in the log, durable or not."""
        return self._kernel.last_index()

    @property
    def commit_index(self) -> int:
        """Highest index known to be committed."""
        return self._kernel.commit_index()

    @property
    def applied_index(self) -> int:
        """Highest index that was applied."""
        return self._kernel.applied_index()

    @property
    def noop_index(self) -> int | None:
        """Index of this leader's own no-op: only when it is applied are all earlier commits applied too."""
        return self._kernel.noop_index()

    @property
    def has_committed_unapplied(self) -> bool:
        """Whether the next tick has entries to apply."""
        return self._kernel.commit_index() > self._kernel.applied_index() and self._ports.may_apply()

    @property
    def can_advance(self) -> bool:
        """Whether the next tick has entries to commit or to apply."""
        return self._kernel.can_commit() or self.has_committed_unapplied

    @property
    def is_taking_over(self) -> bool:
        """Whether the leader has asked this node to be elected."""
        return self._kernel.is_taking_over()

    def propose(self, parts: Iterable[bytes | memoryview], kind: bytes = REGULAR) -> tuple[int, int] | None:
        """Append one entry made of `parts`; its index and term, or None on any role but leader.

        Legal while an entry is being applied. It is not sent anywhere yet.
        """
        return self._kernel.propose(b"".join((kind, *parts)))

    def tick(self) -> None:
        """Do what is due but elections: commit, apply, send. What `apply` raises comes out here."""
        self._enter()
        self._kernel.run_tick()

    def elect(self) -> None:
        """Begin an election now."""
        self._enter()
        self._is_forced = self._kernel.is_taking_over()  # PySyncObj forgets it before it asks for votes
        self._kernel.elect()
        self._is_forced = False

    def postpone_election(self) -> None:
        """Let the election timeout run anew."""
        self._enter()
        self._kernel.postpone_election()

    @property
    def election_deadline_s(self) -> float:
        """Clock time behind which a follower has waited long enough for its leader."""
        return self._kernel.election_deadline_s()

    @property
    def next_heartbeat_s(self) -> float:
        """Clock time behind which a leader's tick sends again."""
        return self._kernel.next_heartbeat_s()

    # What other members say. Only for what the inbound filter has let through.

    def append(self, leader: Member, message: Append) -> None:
        """Entries of a leader, or a heartbeat; answered through the port, with the message's round."""
        self._round = message.round
        self._receive(
            leader,
            {
                "type": "append_entries",
                "term": message.term,
                "commit_index": message.commit_index,
                "entries": message.entries,
                "prevLogIdx": message.previous_index,
                "prevLogTerm": message.previous_term,
            },
        )

    def heartbeat(self, leader: Member, term: int) -> None:
        """A sign of life of the leader of `term` that says nothing about the log; not answered."""
        self._receive(leader, {"type": "append_entries", "term": term, "commit_index": 0})

    def vote_request(self, candidate: Member, message: VoteRequest) -> None:
        """A candidate asks."""
        self._receive(
            candidate,
            {
                "type": "request_vote",
                "term": message.term,
                "last_log_index": message.last_index,
                "last_log_term": message.last_term,
            },
        )

    def vote_response(self, voter: Member, message: VoteResponse, *, earlier: int) -> None:
        """A vote of a member of the configuration, the first one of it in this term; `earlier` are the votes before it."""
        self._kernel.set_votes(earlier)
        self._receive(voter, {"type": "response_vote", "term": message.term})

    def timeout_now(self, leader: Member, message: TimeoutNow) -> None:
        """The leader hands over; the next election is ours to begin at once."""
        self._receive(leader, {"type": "timeout_now", "term": message.term})

    def term_seen(self, member: Member, term: int) -> None:
        """Somebody is in a later `term`: leave the current one, without a vote."""
        self._receive(member, {"type": "request_vote", "term": term, "last_log_index": 0, "last_log_term": NO_TERM})

    # What the sender and the snapshots know.

    def set_configuration(self, configuration: Configuration | None) -> None:
        """Who counts from now on."""
        self._enter()
        members = () if configuration is None else configuration.members
        others = [self._node(member) for member in members if member != self._me]
        self._kernel.set_members(others, is_member=self._me in members)

    def set_match(self, member: Member, index: int) -> None:
        """A member of the configuration has everything up to `index` durably, in this term."""
        self._kernel.set_match(self._node(member), index)

    def heard(self, member: Member) -> None:
        """A member of the configuration has answered in this term."""
        self._enter()
        self._kernel.heard(self._node(member))

    def raise_commit(self, index: int) -> None:
        """Entries up to `index`, which the log has, are known to be committed."""
        self._kernel.raise_commit(index)

    def installed(self, index: int) -> None:
        """The state machine was replaced by a snapshot up to `index`."""
        self._kernel.installed(index)

    # PySyncObj's side.

    def _receive(self, member: Member, message: StockMessage) -> None:
        self._enter()
        self._transport._onMessageReceived(self._node(member), message)  # noqa: SLF001  no public name for it

    def _send(self, member: Member, message: StockMessage) -> None:
        match message:
            case {"type": "request_vote", "term": int(term), "last_log_index": int(index), "last_log_term": int(last)}:
                self._ports.send(member, VoteRequest(term, index, last, is_forced=self._is_forced))
            case {"type": "response_vote", "term": int(term)}:
                self._ports.send(member, VoteResponse(term))
            case {"type": "next_node_idx", "next_node_idx": int(index), "reset": bool(reset), "success": bool(success)}:
                if reset:  # everything up to the commit index matches by leader completeness (Raft paper, section 5.4)
                    index = min(index, max(self.commit_index, self.applied_index) + 1)
                self._ports.send(member, AppendResponse(self.term, index, self._round, success, reset))
            case _:
                raise InvariantError(f"the engine sends {message['type']}; allowed: votes and append responses")

    def _node(self, member: Member) -> PeerNode:
        node = self._nodes.get(member)
        if node is None:
            node = self._nodes[member] = PeerNode(member)
        return node

    def _enter(self) -> None:
        # The hooks are PySyncObj's module globals, shared by all nodes of the process.
        syncobj.monotonicTime = self._clock
        syncobj.random = self._random


def _given_journal(journal: Log) -> Log:
    return journal
