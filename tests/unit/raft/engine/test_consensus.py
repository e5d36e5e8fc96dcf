"""Covers raft/engine/consensus.py, kernel.py and parts.py: PySyncObj with its unsafe parts replaced."""

import random
from dataclasses import dataclass, field

import pytest

from raft.engine import NO_OP, REGULAR, Consensus, EnginePorts, Role, Timing
from raft.engine.kernel import APPLY_BYTES_MAX, APPLY_ENTRIES_MAX
from raft.errors import InvariantError
from raft.journal.log import Log


@dataclass
class Member:
    """One member with its ports recorded and a clock of its own."""

    node_id: str = "a"
    peers: tuple[str, ...] = ()
    log: Log = field(default_factory=Log)
    applied_index: int = 0
    seed: int = 1

    def __post_init__(self):
        self.now = 0.0
        self.applied, self.sent, self.roles, self.appends_due = [], [], [], 0
        self.on_apply = lambda entries: None
        ports = EnginePorts(
            send=lambda peer, message: self.sent.append((peer, message)),
            send_appends=self.send_appends,
            apply=self.apply,
            role_changed=lambda old, new: self.roles.append((old, new)),
        )
        self.consensus = Consensus(
            node_id=self.node_id,
            peers=self.peers,
            log=self.log,
            ports=ports,
            applied_index=self.applied_index,
            clock=lambda: self.now,
            random=random.Random(self.seed),
            timing=Timing(),
        )

    def send_appends(self):
        self.appends_due += 1

    def apply(self, entries):
        self.on_apply(entries)
        self.applied.append(entries)

    @property
    def vote(self):
        return self.log.getCurrentTerm(), self.log.getVotedForNodeId()

    def sync(self):
        group = self.log.take()
        if group is not None:
            self.log.done(group)

    def elect_alone(self):
        self.consensus.elect_now()
        self.consensus.tick()
        self.sync()
        self.consensus.tick()
        self.applied.clear()
        return self

    def time_out(self):
        self.now = self.consensus.next_deadline() + 0.001
        self.consensus.tick()

    def take_sent(self):
        sent, self.sent = self.sent, []
        return sent


def leader_of_three():
    """A member elected by one of its two peers, its no-op not yet synced."""
    member = Member(peers=("b", "c"))
    for peer in member.peers:
        member.consensus.peer_connected(peer)
    member.time_out()
    member.consensus.receive("b", {"type": "response_vote", "term": 1})
    return member


def append(term, entries, *, prev=(1, 0), commit=0):
    """An append of a leader of `term`."""
    return {
        "type": "append_entries",
        "term": term,
        "commit_index": commit,
        "entries": entries,
        "prevLogIdx": prev[0],
        "prevLogTerm": prev[1],
    }


def acknowledge(next_index):
    """A follower's answer: it holds everything below `next_index`."""
    return {"type": "next_node_idx", "next_node_idx": next_index, "reset": False, "success": True}


def test_cluster_of_one_is_elected_in_the_first_tick():
    """One vote of one is a majority; the term and the vote for itself are in the journal (Raft 5.2)."""
    member = Member()
    member.consensus.elect_now()
    member.consensus.tick()
    assert member.consensus.role is Role.LEADER
    assert member.consensus.leader_id == "a"
    assert (member.consensus.term, member.vote) == (1, (1, "a"))
    assert member.roles == [(Role.FOLLOWER, Role.CANDIDATE), (Role.CANDIDATE, Role.LEADER)]


def test_noop_of_an_election_inside_a_tick_waits_for_its_sync():
    """The tick that elects a cluster of one does not commit the no-op it has just written: it is not durable."""
    member = Member()
    member.consensus.elect_now()
    member.consensus.tick()
    assert (member.consensus.last_index, member.consensus.noop_index, member.consensus.commit_index) == (2, 2, 1)
    member.sync()
    member.consensus.tick()
    assert member.consensus.commit_index == 2
    assert [entry for entries in member.applied for entry in entries] == [(NO_OP, 1, 0), (NO_OP, 2, 1)]


def test_leader_counts_itself_only_for_durable_entries():
    """A lone leader commits up to its durable index, not to the end of its log."""
    member = Member().elect_alone()
    for number in range(2):
        assert member.consensus.propose([b"x", b"%d" % number]) == (3 + number, 1)
    member.consensus.tick()
    assert (member.consensus.commit_index, member.applied) == (2, [])
    group = member.log.take()
    assert member.consensus.propose([b"later"]) == (5, 1)
    member.log.done(group)
    member.consensus.tick()
    assert member.consensus.commit_index == 4
    assert member.applied == [[(REGULAR + b"x0", 3, 1), (REGULAR + b"x1", 4, 1)]]


def test_two_followers_commit_without_the_leaders_disk():
    """A majority without the leader commits no entry that the leader's own disk lacks: the commit rule is conservative."""
    member = leader_of_three()
    for peer in member.peers:
        member.consensus.receive(peer, acknowledge(3))
    member.consensus.tick()
    assert member.consensus.commit_index == 1
    member.sync()
    member.consensus.tick()
    assert member.consensus.commit_index == 2


def test_leader_of_three_needs_a_follower():
    """The leader's own durable copy is one of three and commits nothing."""
    member = leader_of_three()
    member.sync()
    member.consensus.tick()
    assert member.consensus.commit_index == 1
    member.consensus.receive("c", acknowledge(3))
    member.consensus.tick()
    assert member.consensus.commit_index == 2


def test_earlier_terms_commit_only_with_an_entry_of_the_own_term():
    """Entries found in the journal are committed by the new leader's no-op, not by counting (Raft 5.4.2)."""
    member = Member(log=Log([(NO_OP, 1, 0), (NO_OP, 2, 1), (REGULAR + b"x", 3, 1)]))
    member.consensus.elect_now()
    member.consensus.tick()
    assert (member.consensus.term, member.consensus.last_index, member.consensus.commit_index) == (2, 4, 1)
    member.sync()
    member.consensus.tick()
    assert member.consensus.commit_index == 4


def test_entries_up_to_the_applied_index_are_not_applied_again():
    """The state machine says where it stands; the journal before that is not replayed."""
    entries = [(NO_OP, 1, 0), (NO_OP, 2, 1), (REGULAR + b"x", 3, 1), (REGULAR + b"y", 4, 1)]
    member = Member(log=Log(entries), applied_index=3)
    member.consensus.elect_now()
    member.consensus.tick()
    member.sync()
    member.consensus.tick()
    assert member.applied == [[(REGULAR + b"y", 4, 1), (NO_OP, 5, 2)]]


def test_propose_inside_apply_is_logged_and_applied_later():
    """An entry proposed while another is applied gets the next index and waits for its own sync."""
    member = Member().elect_alone()
    member.consensus.propose([b"first"])
    member.sync()
    proposed = []
    member.on_apply = lambda entries: proposed.append(member.consensus.propose([b"second"]))
    member.consensus.tick()
    assert proposed == [(4, 1)]
    assert not member.consensus.has_committed_unapplied
    member.sync()
    member.on_apply = lambda entries: None
    member.consensus.tick()
    assert member.applied[-1] == [(REGULAR + b"second", 4, 1)]


def test_log_ends_at_its_real_end_while_applying():
    """The durable bound is over when the commit part of the tick is: stock code that numbers entries must not see it."""
    member = Member().elect_alone()
    member.consensus.propose([b"synced"])
    member.sync()
    member.consensus.propose([b"not synced"])
    seen = []
    member.on_apply = lambda entries: seen.append(member.consensus._kernel._SyncObj__getCurrentLogIndex())
    member.consensus.tick()
    assert (seen, member.applied) == ([4], [[(REGULAR + b"synced", 3, 1)]])


def test_only_a_leader_proposes():
    """A follower's proposal is refused and nothing enters its log; nothing is forwarded."""
    member = Member(peers=("b", "c"))
    assert member.consensus.propose([b"x"]) is None
    assert member.consensus.last_index == 1
    assert member.sent == []


def test_apply_error_leaves_the_tick_and_skips_nothing():
    """What apply raises comes out of the tick, and the entry is offered again: skipping is never possible."""
    member = Member().elect_alone()
    member.consensus.propose([b"x"])
    member.sync()

    def broken(entries):
        raise OSError("disk is gone")

    member.on_apply = broken
    with pytest.raises(OSError, match="disk is gone"):
        member.consensus.tick()
    assert member.consensus.has_committed_unapplied
    member.on_apply = lambda entries: None
    member.consensus.tick()
    assert member.applied == [[(REGULAR + b"x", 3, 1)]]


def test_one_tick_applies_a_bounded_number_of_entries():
    """A long replay is split over ticks, in order and complete."""
    member = Member().elect_alone()
    count = APPLY_ENTRIES_MAX + 100
    for _ in range(count):
        member.consensus.propose([b"x"])
    member.sync()
    member.consensus.tick()
    assert len(member.applied[0]) == APPLY_ENTRIES_MAX
    assert member.consensus.has_committed_unapplied
    member.consensus.tick()
    assert [index for entries in member.applied for _, index, _ in entries] == list(range(3, 3 + count))
    assert not member.consensus.has_committed_unapplied


def test_one_tick_applies_a_bounded_number_of_bytes():
    """Large entries end an apply early; a single one above the bound still passes."""
    member = Member().elect_alone()
    big = bytes(APPLY_BYTES_MAX)
    for _ in range(100):
        member.consensus.propose([big])
    member.sync()
    member.consensus.tick()
    assert len(member.applied) == 1
    assert 1 <= len(member.applied[0]) < 100


def test_committed_entry_missing_from_the_log_is_an_error():
    """Stock PySyncObj applies nothing for ever when the log begins behind the next entry to apply."""
    member = Member(log=Log([(NO_OP, 5, 1), (NO_OP, 6, 1)]), applied_index=2)
    member.consensus.elect_now()
    member.consensus.tick()
    member.sync()
    with pytest.raises(InvariantError, match="committed entry 3 is not in the log, which begins at 5"):
        member.consensus.tick()


def test_three_members_elect_one_leader_on_a_virtual_clock():
    """The transport port carries votes; the first whose timeout ends becomes leader with a majority (Raft 5.2)."""
    members = {name: Member(name, tuple({"a", "b", "c"} - {name}), seed=seed) for seed, name in enumerate("abc")}
    for member in members.values():
        for peer in member.peers:
            member.consensus.peer_connected(peer)
    first = min(members.values(), key=lambda member: member.consensus.next_deadline())
    first.time_out()
    assert first.consensus.role is Role.CANDIDATE
    for peer, request in first.take_sent():
        members[peer].consensus.receive(first.node_id, request)
        assert members[peer].vote == (1, first.node_id)
        for voter_for, vote in members[peer].take_sent():
            members[voter_for].consensus.receive(peer, vote)
    assert [member.consensus.role for member in members.values() if member is not first] == [Role.FOLLOWER] * 2
    assert first.consensus.role is Role.LEADER
    assert first.appends_due > 0


def test_random_source_and_clock_are_each_members_own():
    """Timeouts come from the given random source and clock, so equal seeds give equal deadlines."""
    same = [Member(peers=("b", "c"), seed=7) for _ in range(2)]
    other = Member(peers=("b", "c"), seed=8)
    for member in (*same, other):
        member.consensus.peer_connected("b")
    deadlines = [member.consensus.next_deadline() for member in (*same, other)]
    assert deadlines[0] == deadlines[1] != deadlines[2]
    assert all(0.4 <= deadline <= 1.4 for deadline in deadlines)
    same[0].now = 100.0
    same[0].consensus.tick()
    other.consensus.tick()
    assert (same[0].consensus.role, other.consensus.role) == (Role.CANDIDATE, Role.FOLLOWER)


def test_stock_sender_never_runs():
    """A new leader and a due heartbeat call the port for appends; the engine sends none itself."""
    member = leader_of_three()
    member.take_sent()
    due = member.appends_due
    member.time_out()
    assert member.appends_due > due
    assert member.sent == []


def test_lone_leader_has_no_deadline():
    """Without peers there is no heartbeat, so time alone never makes a tick necessary."""
    assert Member().elect_alone().consensus.next_deadline() is None


def test_follower_without_connection_has_no_deadline():
    """Nobody can be asked for a vote: no election is due until a peer can be reached."""
    member = Member(peers=("b", "c"))
    assert member.consensus.next_deadline() is None
    member.consensus.peer_connected("b")
    assert member.consensus.next_deadline() is not None
    member.consensus.peer_disconnected("b")
    assert member.consensus.next_deadline() is None


def test_leader_with_peers_has_its_heartbeat_as_deadline():
    """The next heartbeat follows one period after the last."""
    member = leader_of_three()
    assert member.consensus.next_deadline() == pytest.approx(member.now + Timing().heartbeat_s)


def test_leader_that_hears_no_majority_steps_down():
    """After `quorum_silence_s` without a majority the leader becomes follower and says so."""
    member = leader_of_three()
    member.sync()
    member.now += Timing().quorum_silence_s + 0.01
    member.consensus.tick()
    assert member.consensus.role is Role.FOLLOWER
    assert member.roles[-1] == (Role.LEADER, Role.FOLLOWER)


def test_append_of_a_newer_leader_is_stored_applied_and_answered():
    """A deposed leader takes the new leader's entries and applies what that one has committed."""
    member = leader_of_three()
    member.take_sent()
    member.consensus.receive("b", append(2, [(NO_OP, 2, 2), (REGULAR + b"x", 3, 2)], commit=3))
    assert member.roles[-1] == (Role.LEADER, Role.FOLLOWER)
    assert (member.consensus.leader_id, member.consensus.term, member.vote) == ("b", 2, (2, None))
    assert member.sent == [("b", acknowledge(4))]
    assert member.consensus.has_committed_unapplied
    member.consensus.tick()
    assert member.applied[-1] == [(NO_OP, 2, 2), (REGULAR + b"x", 3, 2)]


@pytest.mark.parametrize(
    "message",
    [
        {"type": "apply_command", "command": REGULAR},
        {"type": "apply_command_response", "request_id": 1},
        append(1, []) | {"transmission": "finish", "data": b"pickle"},
    ],
)
def test_forwarding_and_pickled_pieces_never_reach_the_stock_handler(message):
    """Messages that forward commands or unpickle bytes are a fault of the filter and stop the node."""
    member = Member(peers=("b", "c"))
    with pytest.raises(InvariantError, match="unfiltered message of b"):
        member.consensus.receive("b", message)


def test_stock_snapshot_is_never_installed():
    """A snapshot that reaches the stock handler is refused before anything is unpickled or cleared."""
    member = Member(peers=("b", "c"))
    message = {"type": "append_entries", "term": 1, "commit_index": 0, "serialized": (b"", True, True)}
    with pytest.raises(InvariantError, match="stock snapshots"):
        member.consensus.receive("b", message)
    assert len(member.log) == 1


@pytest.mark.parametrize(
    "wrong", [{"heartbeat_s": 0.2}, {"election_max_s": 0.4}, {"quorum_silence_s": 0.5}, {"quorum_silence_s": 0.1}]
)
def test_timing_that_breaks_elections_is_refused(wrong):
    """Heartbeats must fit three times into an election timeout, and a leader must give up before others may start."""
    with pytest.raises(ValueError, match="allowed"):
        Timing(**wrong)
