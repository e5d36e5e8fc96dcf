"""One member's Raft: what each message and each tick does. Pure but for its ports; `raft.node` drives it.

It puts around the engine what the engine lacks or gets wrong. Rules:
- An answer to an append counts only in its own term and leadership; a vote once per member of the configuration.
- An append or a question of an earlier term is answered with the current one, so that a deposed leader learns of it.
- An append cuts off only what it contradicts; if that was committed the node stops.
- A snapshot is not fetched when the own log or state has what it would bring, and nothing is committed on a mere offer.
- Whoever is not in the configuration, has none, or lacks the state before its log does not stand for election. It still
  votes, by its log: a journal that was lost is another member (`raft.membership`), whose voice does not count for the old one.
- Configurations count from their place in the log on, committed or not; one change at a time.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from raft.election import Ballot, Stickiness, is_up_to_date
from raft.engine import CONFIGURATION, Consensus, EnginePorts, RandomSource, Role, Timing
from raft.engine.ports import Clock
from raft.errors import InvariantError
from raft.journal.log import Log, LogEntry
from raft.lease import confirmed_until
from raft.membership import Configuration, Configurations, Member, decode_configuration
from raft.messages import (
    Append,
    AppendResponse,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    SnapshotOffer,
    TermNotice,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from raft.sender import Sender

logger = logging.getLogger(__name__)

UNAPPLIED_MAX_BYTES: Final = 256 * 1024 * 1024
"""A member that lacks the state before its log takes no more entries at this size of the log, bytes, until it has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorePorts:
    """The core's ways out, called from inside its methods."""

    send: Callable[[Member, Message], None]
    """Takes a message for a member; what it asserts must be durable before it leaves."""
    is_up: Callable[[Member], bool]
    """Whether the link to a member is up in both directions."""
    apply: Callable[[list[LogEntry]], None]
    """Applies committed entries: in order, without gap, once. May propose."""
    may_apply: Callable[[], bool]
    """Whether the state machine can take the next entry; False while it lacks a snapshot."""
    role_changed: Callable[[Role, Role], None]
    """Old and new role, before anything else happens."""
    snapshot_needed: Callable[[Member, int], None]
    """That leader's log begins behind this index, and ours ends before it."""
    configuration_changed: Callable[[], None]
    """Another configuration counts."""


class Core:
    """Consensus, sender, elections and configurations of one member."""

    def __init__(
        self,
        *,
        me: Member,
        log: Log,
        ports: CorePorts,
        applied: Configuration | None,
        applied_index: int,
        clock: Clock,
        random: RandomSource,
        timing: Timing,
    ) -> None:
        """`applied` is the state machine's configuration as of `applied_index`; None if it has none, or not the last one."""
        self.me = me
        self._log = log
        self._ports = ports
        self._clock = clock
        self._timing = timing
        self._configurations = Configurations(applied)
        self._pre_votes = Ballot()
        self._votes = Ballot()
        self._stickiness = Stickiness(timing.election_min_s, clock())
        self._sender: Sender | None = None
        self._learners: tuple[Member, ...] = ()
        self._defers_until_s = float("-inf")  # until then others are to be elected
        self.consensus = Consensus(
            me=me,
            log=log,
            ports=EnginePorts(
                send=ports.send,
                send_appends=self._send_appends,
                may_apply=ports.may_apply,
                apply=ports.apply,
                role_changed=self._role_changed,
            ),
            applied_index=applied_index,
            clock=clock,
            random=random,
            timing=timing,
        )
        for command, index, _ in log:
            if index > applied_index and command[:1] == CONFIGURATION:
                self._configurations.added(index, decode_configuration(command[1:]))
        self.consensus.set_configuration(self.configuration)

    # ---- what is known

    @property
    def configuration(self) -> Configuration | None:
        """Who counts now; None while this node was never told."""
        return self._configurations.current

    @property
    def is_configuration_committed(self) -> bool:
        """Whether another change may be proposed."""
        return self._configurations.index <= self.consensus.commit_index

    @property
    def is_voter(self) -> bool:
        """Whether this node is part of the configuration."""
        return self.configuration is not None and self.me in self.configuration.members

    @property
    def sender(self) -> Sender | None:
        """What the leader knows of the others; None on any other role."""
        return self._sender if self.consensus.is_leader else None

    @property
    def lease_until_s(self) -> float:
        """Clock time up to which this leader may serve (B401)."""
        sender, configuration = self.sender, self.configuration
        if sender is None or configuration is None:
            return float("-inf")
        found = (sender.find(member) for member in configuration.members)
        return confirmed_until(
            (progress.confirmed_s for progress in found if progress is not None),
            majority=configuration.majority,
            is_member=self.is_voter,
            lease_s=self._timing.lease_s,
        )

    def resign(self) -> None:
        """Lead no more: a new term begins, as if somebody in it had asked with an empty log, who gets no vote.

        The others, if there are any, have time to elect one of them.
        """
        if self.consensus.is_leader:
            self._defers_until_s = self._clock() + 2 * self._timing.election_max_s
            self.consensus.term_seen(self.me, self.consensus.term + 1)

    # ---- time

    def tick(self) -> None:
        """Do what is due: stand for election, commit, apply, send."""
        consensus = self.consensus
        if not consensus.is_leader and consensus.election_deadline_s < self._clock():
            self._election_due()
        consensus.tick()

    @property
    def next_deadline_s(self) -> float:
        """Clock time behind which a tick is due although nothing happened."""
        if self.consensus.is_leader:
            alone = self._sender is None or not self._sender.progress()
            return float("inf") if alone else self.consensus.next_heartbeat_s
        return self.consensus.election_deadline_s

    def start(self) -> None:
        """A node alone in its configuration leads without waiting."""
        if self.is_alone and self._may_stand:
            self.consensus.elect()

    def form(self, configuration: Configuration) -> None:
        """The log, which has nothing but its first entry, begins with this configuration: the cluster's first.

        It is in no term, so that whatever is elected later may build on it; it is committed like any entry.
        """
        last = self._log[-1][1]
        assert last == 1
        self._log.add(CONFIGURATION + configuration.encode(), last + 1, 0)
        self._configurations.added(last + 1, configuration)
        self._configuration_changed()

    def flush(self) -> None:
        """Send what was proposed since."""
        if self.sender is not None:
            self.sender.send(is_heartbeat=False)

    @property
    def is_alone(self) -> bool:
        """Whether this node is the only member."""
        return self.configuration is not None and self.configuration.members == (self.me,)

    @property
    def _may_stand(self) -> bool:
        return self.is_voter and self._ports.may_apply()

    def _election_due(self) -> None:
        consensus, configuration = self.consensus, self.configuration
        if not self._may_stand or configuration is None:
            consensus.postpone_election()
        elif self.is_alone or consensus.is_taking_over:
            consensus.elect()
        elif self._clock() < self._defers_until_s:
            consensus.postpone_election()
        else:
            consensus.postpone_election()
            self._pre_votes.open(consensus.term, self.me)
            last = self._log[-1]
            for member in configuration.members:
                if member != self.me and self._ports.is_up(member):
                    self._ports.send(member, PreVoteRequest(consensus.term, last[1], last[2]))

    # ---- links

    def connected(self, member: Member) -> None:
        """The link to a member is new, or had a gap."""
        if self.sender is not None:
            self.sender.reconnected(member)
            self.sender.send_to(member)

    # ---- configurations

    def propose_configuration(self, configuration: Configuration) -> tuple[int, int] | None:
        """Log a configuration that differs by one member from the current, committed one; its index and term.

        None on any role but leader. It is not sent anywhere yet.
        """
        assert self.is_configuration_committed
        logged = self.consensus.propose((configuration.encode(),), CONFIGURATION)
        if logged is not None:
            self._configurations.added(logged[0], configuration)
            self._configuration_changed()
        return logged

    def set_learners(self, learners: Iterable[Member]) -> None:
        """Send entries to these too, though they do not count."""
        self._learners = tuple(learners)
        self._set_sender_members()

    def _configuration_changed(self) -> None:
        self.consensus.set_configuration(self.configuration)
        self._set_sender_members()
        self._ports.configuration_changed()

    def _set_sender_members(self) -> None:
        if self._sender is not None:
            members = () if self.configuration is None else self.configuration.members
            self._sender.set_members([one for one in dict.fromkeys((*members, *self._learners)) if one != self.me])

    # ---- messages

    def receive(self, member: Member, message: Message) -> None:  # noqa: C901  a table
        """Handle a message of another node. Raises InvariantError when it proves that something committed was lost."""
        match message:
            case Append():
                self._append(member, message)
            case AppendResponse():
                self._append_response(member, message)
            case SnapshotOffer():
                self._snapshot_offer(member, message)
            case VoteRequest():
                self._vote_request(member, message)
            case VoteResponse():
                self._vote_response(member, message)
            case PreVoteRequest():
                self._pre_vote_request(member, message)
            case PreVoteResponse():
                self._pre_vote_response(member, message)
            case TermNotice():
                if message.term > self.consensus.term and self._concerns_us(member):
                    self.consensus.term_seen(member, message.term)
            case TimeoutNow():
                if message.term == self.consensus.term and member == self.consensus.leader and self._may_stand:
                    self.consensus.timeout_now(member, message)
                    self.tick()
            case _:
                raise InvariantError(f"message {type(message).__name__} reached the core; allowed: those of Raft")

    def _concerns_us(self, member: Member) -> bool:
        """Whether a later term of that node is one of our cluster's: it counts, or we send to it."""
        is_counted = self.configuration is None or member in self.configuration.members
        return is_counted or (self._sender is not None and self._sender.find(member) is not None)

    def _accepts_leader(self, member: Member, term: int) -> bool:
        """Whether a message of a leader of `term` is to be handled; an earlier one is told the current term."""
        if term < self.consensus.term:
            self._ports.send(member, TermNotice(self.consensus.term))
            return False
        if self.consensus.is_leader and term == self.consensus.term:
            logger.error("another node claims to lead in the same term node=%s term=%d", member.key, term)
            return False
        self._stickiness.heard_s = self._clock()
        self._pre_votes.close()
        return True

    def heard_part(self, member: Member) -> bool:
        """A piece of a large message has come; whether it is the leader's, who lives: no election for it (F6)."""
        if self.consensus.is_leader or member != self.consensus.leader:
            return False
        self._stickiness.heard_s = self._clock()
        self._pre_votes.close()
        self.consensus.postpone_election()
        return True

    def _append(self, member: Member, message: Append) -> None:
        if not self._accepts_leader(member, message.term):
            return
        committed = max(self.consensus.commit_index, self.consensus.applied_index)
        if message.entries and not self._ports.may_apply() and self._log.bytes_in_memory > UNAPPLIED_MAX_BYTES:
            self.consensus.heartbeat(member, message.term)  # nothing can be applied or trimmed: take no more (R20)
            self._ports.send(
                member,
                AppendResponse(self.consensus.term, committed + 1, message.round, is_success=False, is_rejection=False),
            )
            return
        self._log.begin_append()
        try:
            self.consensus.append(member, message)
        finally:
            truncated = self._log.end_append()
        if truncated is not None and truncated <= committed:
            raise InvariantError(f"leader {member.key} of term {message.term} contradicts committed entry {truncated}")
        self.consensus.raise_commit(min(committed, self.consensus.last_index))
        self._note_configurations(message.entries, truncated)

    def _note_configurations(self, entries: list[LogEntry], truncated: int | None) -> None:
        """The log took `entries`, or those of them that it did not have, and lost what was behind `truncated`."""
        is_changed = truncated is not None and self._configurations.truncated(truncated)
        for command, index, term in entries:
            if (
                command[:1] == CONFIGURATION
                and max(self._configurations.index, self.consensus.applied_index) < index
                and self.log_has(index, term)
            ):
                self._configurations.added(index, decode_configuration(command[1:]))
                is_changed = True
        if is_changed:
            self._configuration_changed()

    def _append_response(self, member: Member, message: AppendResponse) -> None:
        sender = self.sender
        if sender is None or message.term != self.consensus.term:
            return
        progress = sender.answered(member, message)
        if progress is None:
            return
        if self.configuration is not None and member in self.configuration.members:
            self.consensus.heard(member)
            self.consensus.set_match(member, progress.match_index)
        sender.send_to(member)

    def _snapshot_offer(self, member: Member, message: SnapshotOffer) -> None:
        if not self._accepts_leader(member, message.term):
            return
        consensus = self.consensus
        consensus.heartbeat(member, message.term)
        has_base = self.log_has(message.base_index, message.base_term)
        if has_base:
            consensus.raise_commit(message.base_index)
        is_covered = has_base or message.base_index <= consensus.applied_index
        if not is_covered:
            self._ports.snapshot_needed(member, message.base_index)
        next_index = max(consensus.applied_index, consensus.commit_index) + 1
        self._ports.send(
            member,
            AppendResponse(consensus.term, next_index, message.round, is_success=is_covered, is_rejection=False),
        )

    def log_has(self, index: int, term: int) -> bool:
        """Whether the log holds that very entry."""
        first, last = self._log[0][1], self._log[-1][1]
        return first <= index <= last and self._log[index - first][2] == term

    def installed(self, index: int, term: int, configuration: Configuration | None) -> None:
        """The state machine was replaced by a snapshot up to (`index`, `term`): go on behind it, and tell the leader."""
        if not self.log_has(index, term):
            # The term before it is never compared: an append that needs it is rejected up to the commit index.
            self._log.reset(index, term, term)
            self._configurations.truncated(0)
        self.consensus.installed(index)
        self._configurations.restored(configuration, index)
        self._configuration_changed()
        leader = self.consensus.leader
        if leader is not None and leader != self.me:
            self._ports.send(
                leader, AppendResponse(self.consensus.term, index + 1, 0, is_success=True, is_rejection=False)
            )

    def applied(self, index: int) -> None:
        """Everything up to `index` is applied."""
        self._configurations.applied(index)

    def _vote_request(self, member: Member, message: VoteRequest) -> None:
        consensus = self.consensus
        if message.term < consensus.term:
            self._ports.send(member, TermNotice(consensus.term))
            return
        if not message.is_forced and not consensus.is_leader and self._stickiness.holds(self._clock()):
            return
        consensus.vote_request(member, message)

    def _vote_response(self, member: Member, message: VoteResponse) -> None:
        consensus = self.consensus
        if consensus.role is not Role.CANDIDATE or message.term != consensus.term:
            return
        if self._votes.term != consensus.term:
            self._votes.open(consensus.term, self.me)
        configuration = self.configuration
        if configuration is not None and self._votes.admits(member, message.term, configuration):
            votes = self._votes.voters.intersection(configuration.members)
            consensus.vote_response(member, message, earlier=len(votes) - 1)

    def _pre_vote_request(self, member: Member, message: PreVoteRequest) -> None:
        consensus = self.consensus
        last = self._log[-1]
        if message.term < consensus.term:
            self._ports.send(member, TermNotice(consensus.term))
        elif (
            not consensus.is_leader
            and not self._stickiness.holds(self._clock())
            and is_up_to_date(message.last_term, message.last_index, last[2], last[1])
        ):
            self._ports.send(member, PreVoteResponse(message.term))

    def _pre_vote_response(self, member: Member, message: PreVoteResponse) -> None:
        consensus, configuration = self.consensus, self.configuration
        if consensus.is_leader or message.term != consensus.term or configuration is None:
            return
        if self._pre_votes.admits(member, message.term, configuration) and self._pre_votes.is_won(configuration):
            self._pre_votes.close()
            if self._may_stand:
                consensus.elect()

    # ---- the engine's calls

    def _send_appends(self) -> None:
        term = self.consensus.term
        if self._sender is None or self._sender.term != term:
            self._sender = Sender(
                log=self._log,
                term=term,
                send=self._ports.send,
                is_up=self._ports.is_up,
                commit_index=lambda: self.consensus.commit_index,
                clock=self._clock,
            )
            self._set_sender_members()
        self._sender.send(is_heartbeat=True)

    def _role_changed(self, old: Role, new: Role) -> None:
        if old is Role.LEADER:
            self._sender = None
            self._learners = ()
        self._ports.role_changed(old, new)
