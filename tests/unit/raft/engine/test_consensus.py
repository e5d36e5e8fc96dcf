"""Covers raft/engine/consensus.py, kernel.py and parts.py: PySyncObj with its unsafe parts replaced."""

import random
from dataclasses import dataclass, field

import pytest

from raft.engine import CONFIGURATION, NO_OP, REGULAR, Consensus, EnginePorts, Role, Timing
from raft.engine.kernel import APPLY_BYTES_MAX, APPLY_ENTRIES_MAX
from raft.errors import InvariantError
from raft.journal.log import BASE_COMMAND, Log
from raft.membership import Configuration
from raft.messages import Append, AppendResponse, TimeoutNow, VoteRequest, VoteResponse
from tests.unit.raft.cores import GENESIS, append, member


@dataclass
class Engine:
    """One member with its ports recorded and a clock of its own."""

    name: str = "a"
    others: str = ""
    log: Log = field(default_factory=Log)
    applied_index: int = 0
    seed: int = 1
    is_member: bool = True

    def __post_init__(self):
        self.now = 0.0
        self.applied, self.sent, self.roles, self.appends_due, self.may_apply = [], [], [], 0, True
        self.on_apply = lambda entries: None
        ports = EnginePorts(
            send=lambda to, message: self.sent.append((to.node_id, message)),
            send_appends=self.send_appends,
            may_apply=lambda: self.may_apply,
            apply=self.apply,
            role_changed=lambda old, new: self.roles.append((old, new)),
        )
        self.consensus = Consensus(
            me=member(self.name),
            log=self.log,
            ports=ports,
            applied_index=self.applied_index,
            clock=lambda: self.now,
            random=random.Random(self.seed),
            timing=Timing(),
        )
        self.configure(self.others + self.name * self.is_member)

    def configure(self, names):
        self.consensus.set_configuration(Configuration.of(GENESIS, map(member, names)))

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
        self.consensus.elect()
        self.sync()
        self.consensus.tick()
        self.applied.clear()
        return self

    def matches(self, name, index):
        """A member has answered that it has everything up to `index`."""
        self.consensus.heard(member(name))
        self.consensus.set_match(member(name), index)

    def take_sent(self):
        sent, self.sent = self.sent, []
        return sent


def leader_of(names, log=None):
    """A member elected by a majority of the others, its no-op not yet synced."""
    engine = Engine(others=names.replace("a", ""), log=Log() if log is None else log)
    engine.consensus.elect()
    for number, name in enumerate(engine.others, 1):
        engine.consensus.vote_response(member(name), VoteResponse(engine.consensus.term), earlier=number)
    assert engine.consensus.is_leader
    return engine


def leader_of_three():
    """The usual cluster."""
    return leader_of("abc")


def test_cluster_of_one_is_elected_in_the_first_tick():
    """One vote of one is a majority; the term and the vote for itself are in the journal (Raft 5.2)."""
    engine = Engine()
    engine.consensus.elect()
    assert engine.consensus.role is Role.LEADER
    assert engine.consensus.leader == member("a")
    assert (engine.consensus.term, engine.vote) == (1, (1, member("a").key))
    assert engine.roles == [(Role.FOLLOWER, Role.CANDIDATE), (Role.CANDIDATE, Role.LEADER)]


def test_noop_of_an_election_inside_a_tick_waits_for_its_sync():
    """The tick that elects a cluster of one does not commit the no-op it has just written: it is not durable."""
    engine = Engine()
    engine.consensus.elect()
    assert (engine.consensus.last_index, engine.consensus.noop_index, engine.consensus.commit_index) == (2, 2, 1)
    engine.sync()
    engine.consensus.tick()
    assert engine.consensus.commit_index == 2
    assert [entry for entries in engine.applied for entry in entries] == [(NO_OP, 1, 0), (NO_OP, 2, 1)]


def test_leader_counts_itself_only_for_durable_entries():
    """A lone leader commits up to its durable index, not to the end of its log."""
    engine = Engine().elect_alone()
    for number in range(2):
        assert engine.consensus.propose([b"x", b"%d" % number]) == (3 + number, 1)
    engine.consensus.tick()
    assert (engine.consensus.commit_index, engine.applied) == (2, [])
    group = engine.log.take()
    assert engine.consensus.propose([b"later"]) == (5, 1)
    engine.log.done(group)
    engine.consensus.tick()
    assert engine.consensus.commit_index == 4
    assert engine.applied == [[(REGULAR + b"x0", 3, 1), (REGULAR + b"x1", 4, 1)]]


def test_two_followers_commit_without_the_leaders_disk():
    """A majority without the leader commits what the leader's own disk still lacks: two of three disks have it."""
    engine = leader_of_three()
    engine.matches("b", 2)
    engine.consensus.tick()
    assert engine.consensus.commit_index == 1
    engine.matches("c", 2)
    engine.consensus.tick()
    assert (engine.consensus.commit_index, engine.log.durable_index) == (2, 0)


def test_leader_of_three_needs_a_follower():
    """The leader's own durable copy is one of three and commits nothing."""
    engine = leader_of_three()
    engine.sync()
    engine.consensus.tick()
    assert engine.consensus.commit_index == 1
    engine.matches("c", 2)
    engine.consensus.tick()
    assert engine.consensus.commit_index == 2


@pytest.mark.parametrize(
    ("others", "is_member", "needed_with_own_disk", "needed_without"),
    [
        ("b", True, 1, None),
        ("bc", True, 1, 2),
        ("bcd", True, 2, 3),
        ("bcde", True, 2, 3),
        ("b", False, 1, 1),
        ("bc", False, 2, 2),
        ("bcd", False, 2, 2),
        ("bcde", False, 3, 3),
        ("bcdef", False, 3, 3),
    ],
)
def test_commit_needs_a_majority_of_the_configuration(others, is_member, needed_with_own_disk, needed_without):
    """For 2 to 5 members, with the leader's disk, without it, and with a leader that is no member itself: never fewer."""
    for is_synced, needed in ((True, needed_with_own_disk), (False, needed_without)):
        engine = leader_of("a" + others)
        engine.configure(others + "a" * is_member)
        if is_synced:
            engine.sync()
        committed_with = None
        for count, name in enumerate(others, start=1):
            engine.matches(name, 2)
            engine.consensus.tick()
            if engine.consensus.commit_index == 2 and committed_with is None:
                committed_with = count
        assert committed_with == needed


def test_a_match_below_does_not_commit_what_is_above():
    """Each index needs a majority of its own: five members with matches 2, 3, 4 and an own disk at 5 commit 3."""
    engine = leader_of("abcde")
    for _ in range(4):
        engine.consensus.propose([b"x"])
    engine.sync()
    for name, index in zip("bcd", (2, 3, 4), strict=True):
        engine.matches(name, index)
    engine.consensus.tick()
    assert engine.consensus.commit_index == 3


def test_new_member_counts_from_nothing_and_a_returned_one_again():
    """What a node had acknowledged before it was removed says nothing when it is added again."""
    engine = leader_of_three()
    engine.consensus.propose([b"x"])
    engine.sync()
    engine.matches("b", 3)
    engine.configure("ac")
    engine.configure("abc")
    engine.consensus.tick()
    assert engine.consensus.commit_index == 1
    engine.matches("b", 3)
    engine.consensus.tick()
    assert engine.consensus.commit_index == 3


def test_earlier_terms_commit_only_with_an_entry_of_the_own_term():
    """Entries found in the journal are committed by the new leader's no-op, not by counting (Raft 5.4.2)."""
    engine = Engine(log=Log([(NO_OP, 1, 0), (NO_OP, 2, 1), (REGULAR + b"x", 3, 1)], term=1))
    engine.consensus.elect()
    assert (engine.consensus.term, engine.consensus.last_index, engine.consensus.commit_index) == (2, 4, 1)
    engine.sync()
    engine.consensus.tick()
    assert engine.consensus.commit_index == 4


def test_copies_of_earlier_terms_commit_nothing():
    """All members have the old entries, on disk: only one of the leader's own term commits them (Raft 5.4.2)."""
    engine = leader_of("abc", Log([(NO_OP, 1, 0), (NO_OP, 2, 1), (REGULAR + b"x", 3, 1)], term=1))
    engine.sync()
    for name in "bc":
        engine.matches(name, 3)
    engine.consensus.tick()
    assert engine.consensus.commit_index == 1
    engine.matches("b", 4)
    engine.consensus.tick()
    assert engine.consensus.commit_index == 4


def test_entries_up_to_the_applied_index_are_not_applied_again():
    """The state machine says where it stands; the journal before that is not replayed."""
    entries = [(NO_OP, 1, 0), (NO_OP, 2, 1), (REGULAR + b"x", 3, 1), (REGULAR + b"y", 4, 1)]
    engine = Engine(log=Log(entries, term=1), applied_index=3)
    engine.consensus.elect()
    engine.sync()
    engine.consensus.tick()
    assert engine.applied == [[(REGULAR + b"y", 4, 1), (NO_OP, 5, 2)]]


def test_propose_inside_apply_is_logged_and_applied_later():
    """An entry proposed while another is applied gets the next index and waits for its own sync."""
    engine = Engine().elect_alone()
    engine.consensus.propose([b"first"])
    engine.sync()
    proposed = []
    engine.on_apply = lambda entries: proposed.append(engine.consensus.propose([b"second"]))
    engine.consensus.tick()
    assert proposed == [(4, 1)]
    assert not engine.consensus.has_committed_unapplied
    engine.sync()
    engine.on_apply = lambda entries: None
    engine.consensus.tick()
    assert engine.applied[-1] == [(REGULAR + b"second", 4, 1)]


def test_log_ends_at_its_real_end_while_applying():
    """The durable bound is over when the commit part of the tick is: stock code that numbers entries must not see it."""
    engine = Engine().elect_alone()
    engine.consensus.propose([b"synced"])
    engine.sync()
    engine.consensus.propose([b"not synced"])
    seen = []
    engine.on_apply = lambda entries: seen.append(engine.consensus._kernel._SyncObj__getCurrentLogIndex())
    engine.consensus.tick()
    assert (seen, engine.applied) == ([4], [[(REGULAR + b"synced", 3, 1)]])


def test_only_a_leader_proposes():
    """A follower's proposal is refused and nothing enters its log; nothing is forwarded."""
    engine = Engine(others="bc")
    assert engine.consensus.propose([b"x"]) is None
    assert engine.consensus.last_index == 1
    assert engine.sent == []


def test_apply_error_leaves_the_tick_and_skips_nothing():
    """What apply raises comes out of the tick, and the entry is offered again: skipping is never possible."""
    engine = Engine().elect_alone()
    engine.consensus.propose([b"x"])
    engine.sync()

    def broken(entries):
        raise OSError("disk is gone")

    engine.on_apply = broken
    with pytest.raises(OSError, match="disk is gone"):
        engine.consensus.tick()
    assert engine.consensus.has_committed_unapplied
    engine.on_apply = lambda entries: None
    engine.consensus.tick()
    assert engine.applied == [[(REGULAR + b"x", 3, 1)]]


def test_one_tick_applies_a_bounded_number_of_entries():
    """A long replay is split over ticks, in order and complete."""
    engine = Engine().elect_alone()
    count = APPLY_ENTRIES_MAX + 100
    for _ in range(count):
        engine.consensus.propose([b"x"])
    engine.sync()
    engine.consensus.tick()
    assert len(engine.applied[0]) == APPLY_ENTRIES_MAX
    assert engine.consensus.has_committed_unapplied
    engine.consensus.tick()
    assert [index for entries in engine.applied for _, index, _ in entries] == list(range(3, 3 + count))
    assert not engine.consensus.has_committed_unapplied


def test_one_tick_applies_a_bounded_number_of_bytes():
    """Large entries end an apply early; a single one above the bound still passes."""
    engine = Engine().elect_alone()
    big = bytes(APPLY_BYTES_MAX)
    for _ in range(100):
        engine.consensus.propose([big])
    engine.sync()
    engine.consensus.tick()
    assert len(engine.applied) == 1
    assert 1 <= len(engine.applied[0]) < 100


def test_committed_entry_missing_from_the_log_is_an_error():
    """Stock PySyncObj applies nothing for ever when the log begins behind the next entry to apply."""
    engine = Engine(log=Log([(NO_OP, 5, 1), (NO_OP, 6, 1)], term=1), applied_index=2)
    engine.consensus.elect()
    engine.sync()
    with pytest.raises(InvariantError, match="committed entry 3 is not in the log, which begins at 5"):
        engine.consensus.tick()


def test_nothing_is_applied_while_the_state_is_missing():
    """Commits go on, but what is committed waits until the state machine can take it."""
    engine = Engine().elect_alone()
    engine.may_apply = False
    engine.consensus.propose([b"x"])
    engine.sync()
    engine.consensus.tick()
    assert (engine.consensus.commit_index, engine.applied, engine.consensus.has_committed_unapplied) == (3, [], False)
    engine.may_apply = True
    assert engine.consensus.has_committed_unapplied
    engine.consensus.tick()
    assert engine.applied == [[(REGULAR + b"x", 3, 1)]]


def test_three_members_elect_one_leader_on_a_virtual_clock():
    """The ports carry votes; who asks first becomes leader with a majority (Raft 5.2)."""
    engines = {name: Engine(name, "abc".replace(name, ""), seed=seed) for seed, name in enumerate("abc")}
    first = min(engines.values(), key=lambda engine: engine.consensus.election_deadline_s)
    first.now = first.consensus.election_deadline_s + 0.001
    first.consensus.elect()
    assert first.consensus.role is Role.CANDIDATE
    for number, (name, request) in enumerate(first.take_sent(), 1):
        assert request == VoteRequest(1, 1, 0, is_forced=False)
        engines[name].consensus.vote_request(member(first.name), request)
        assert engines[name].vote == (1, member(first.name).key)
        assert engines[name].take_sent() == [(first.name, VoteResponse(1))]
        first.consensus.vote_response(member(name), VoteResponse(1), earlier=number)
    assert [engine.consensus.role for engine in engines.values() if engine is not first] == [Role.FOLLOWER] * 2
    assert first.consensus.role is Role.LEADER
    assert first.appends_due > 0


def test_no_election_begins_by_itself():
    """However long nobody is heard: others are asked first, which is not the engine's business."""
    engine = Engine(others="bc")
    engine.now = 3600.0
    engine.consensus.tick()
    assert (engine.consensus.role, engine.consensus.term, engine.sent) == (Role.FOLLOWER, 0, [])


def test_random_source_and_clock_are_each_members_own():
    """Timeouts come from the given random source and clock, so equal seeds give equal deadlines."""
    same = [Engine(others="bc", seed=7) for _ in range(2)]
    other = Engine(others="bc", seed=8)
    deadlines = [engine.consensus.election_deadline_s for engine in (*same, other)]
    assert deadlines[0] == deadlines[1] != deadlines[2]
    assert all(Timing().election_min_s <= deadline <= Timing().election_max_s for deadline in deadlines)
    same[0].now = 100.0
    same[0].consensus.postpone_election()
    other.consensus.postpone_election()
    assert same[0].consensus.election_deadline_s >= 100.0 + Timing().election_min_s
    assert other.consensus.election_deadline_s <= Timing().election_max_s


def test_stock_sender_never_runs():
    """A new leader and a due heartbeat call the port for appends; the engine sends none itself (section 2.1.3)."""
    engine = leader_of_three()
    engine.take_sent()
    due = engine.appends_due
    engine.now = engine.consensus.next_heartbeat_s + 0.001
    engine.consensus.tick()
    assert engine.appends_due == due + 1
    assert engine.sent == []


def test_heartbeat_follows_one_period_after_the_last():
    """The next heartbeat of a leader is due one period after it sent."""
    engine = leader_of_three()
    assert engine.consensus.next_heartbeat_s == pytest.approx(engine.now + Timing().heartbeat_s)


def test_leader_that_hears_no_majority_steps_down():
    """After `quorum_silence_s` without a majority the leader becomes follower and says so."""
    engine = leader_of_three()
    engine.sync()
    engine.now += Timing().quorum_silence_s - 0.01
    engine.consensus.tick()
    assert engine.consensus.role is Role.LEADER
    engine.now += 0.02
    engine.consensus.tick()
    assert engine.consensus.role is Role.FOLLOWER
    assert engine.roles[-1] == (Role.LEADER, Role.FOLLOWER)
    assert engine.consensus.leader is None


def test_leader_that_hears_one_of_two_stays():
    """One answer within the time is a majority of three, together with the leader."""
    engine = leader_of_three()
    for _ in range(10):
        engine.now += Timing().quorum_silence_s / 2
        engine.consensus.heard(member("c"))
        engine.consensus.tick()
    assert engine.consensus.role is Role.LEADER


def test_append_of_a_newer_leader_is_stored_applied_and_answered():
    """A deposed leader takes the new leader's entries and applies what that one has committed."""
    engine = leader_of_three()
    engine.take_sent()
    engine.log.begin_append()
    new = [(NO_OP, 2, 2), (REGULAR + b"x", 3, 2)]
    engine.consensus.append(member("b"), append(2, new, after=(1, 0), commit=3, number=17))
    assert engine.log.end_append() == 2
    assert engine.roles[-1] == (Role.LEADER, Role.FOLLOWER)
    assert (engine.consensus.leader, engine.consensus.term, engine.vote) == (member("b"), 2, (2, None))
    assert engine.sent == [("b", AppendResponse(2, 4, 17, is_success=True, is_rejection=False))]
    assert engine.consensus.has_committed_unapplied
    engine.consensus.tick()
    assert engine.applied[-1] == new


def test_rejection_asks_for_what_is_behind_the_commit_index():
    """Section 2.2.2: what is committed matches by leader completeness, so back-off takes one round trip."""
    log = Log([(NO_OP, 1, 0), *((REGULAR + b"%d" % index, index, 1) for index in range(2, 20))], term=1)
    engine = Engine(others="bc", log=log, applied_index=5)
    engine.consensus.append(member("b"), append(2, after=(50, 2), number=3))
    engine.consensus.append(member("b"), append(2, after=(19, 2), number=4))
    assert engine.sent == [
        ("b", AppendResponse(2, 6, number, is_success=False, is_rejection=True)) for number in (3, 4)
    ]


def test_heartbeat_without_position_commits_and_answers_nothing():
    """Section 1: the stock handler takes a commit index along with a snapshot message; this one carries none."""
    log = Log([(NO_OP, 1, 0), *((REGULAR + b"%d" % index, index, 1) for index in range(2, 10))], term=1)
    engine = Engine(others="bc", log=log)
    engine.consensus.heartbeat(member("b"), 2)
    assert (engine.consensus.leader, engine.consensus.term, engine.consensus.commit_index) == (member("b"), 2, 1)
    assert engine.sent == []


def test_later_term_is_taken_without_a_vote():
    """Section 2.2.3: a term notice deposes, and leaves the vote of the new term free."""
    engine = leader_of_three()
    engine.take_sent()
    engine.consensus.term_seen(member("b"), 7)
    assert (engine.consensus.role, engine.vote, engine.consensus.leader) == (Role.FOLLOWER, (7, None), None)
    assert engine.sent == []


def test_request_to_take_over_begins_a_forced_election():
    """Only what the leader asked for is flagged as forced, and only the election that it asked for."""
    engine = Engine(others="bc")
    engine.consensus.append(member("b"), append(1, after=(1, 0)))
    engine.take_sent()
    engine.consensus.timeout_now(member("b"), TimeoutNow(1))
    assert engine.consensus.is_taking_over
    engine.consensus.elect()
    assert {message.is_forced for _, message in engine.take_sent()} == {True}
    engine.consensus.elect()
    assert {message.is_forced for _, message in engine.take_sent()} == {False}
    assert engine.vote == (3, member("a").key)


def test_restart_remembers_the_vote():
    """Section 1: a vote survives in the journal, and no second one is given in that term."""
    log = Log([(NO_OP, 1, 0)], term=3, voted_for=member("b").key)
    engine = Engine(others="bc", log=log)
    engine.consensus.vote_request(member("c"), VoteRequest(3, 9, 2, is_forced=False))
    assert (engine.sent, engine.vote) == ([], (3, member("b").key))


def test_restart_commits_nothing_beyond_what_was_applied():
    """Section 2.1.5: no commit index of a past life is believed; the journal's tail must be committed anew."""
    log = Log([(NO_OP, 1, 0), *((REGULAR + b"%d" % index, index, 1) for index in range(2, 10))], term=1)
    assert Engine(others="bc", log=log, applied_index=4).consensus.commit_index == 4
    assert Engine(others="bc", log=Log(log[:], term=1)).consensus.commit_index == 1


def test_installed_snapshot_moves_commit_and_apply_forward():
    """Section 2.2.7: after a snapshot the commit index is not behind what is applied, and never falls."""
    log = Log([(NO_OP, 1, 0), *((REGULAR + b"%d" % index, index, 1) for index in range(2, 10))], term=1)
    engine = Engine(others="bc", log=log)
    engine.consensus.raise_commit(9)
    engine.consensus.installed(6)
    assert (engine.consensus.commit_index, engine.consensus.applied_index) == (9, 6)
    engine.log.reset(20, 1, 1)
    engine.consensus.installed(20)
    assert (engine.consensus.commit_index, engine.consensus.applied_index) == (20, 20)
    engine.consensus.raise_commit(7)
    assert engine.consensus.commit_index == 20


def test_placeholder_is_handed_out_by_no_apply():
    """Section 4.4: an apply that needs the content of a placeholder fails; it is not taken for a no-op."""
    log = Log([(BASE_COMMAND, 4, 1), (BASE_COMMAND, 5, 1)], term=1)
    engine = Engine(log=log, applied_index=2)
    engine.consensus.raise_commit(5)
    with pytest.raises(InvariantError, match="committed entry 3 is not in the log"):
        engine.consensus.tick()


@pytest.mark.parametrize(
    "message",
    [
        {"type": "apply_command", "command": REGULAR},
        {"type": "apply_command", "command": REGULAR, "request_id": 1},
        {"type": "append_entries", "term": 1, "commit_index": 0, "serialized": (b"", True, True)},
    ],
)
def test_forwarding_and_stock_snapshots_are_refused(message):
    """Section 2.1.9: the stock paths that forward or unpickle end with an error before anything is queued or cleared."""
    engine = Engine(others="bc")
    with pytest.raises(InvariantError, match=r"stock (queue|snapshots)"):
        engine.consensus._receive(member("b"), message)
    assert len(engine.log) == 1


def test_no_message_of_ours_becomes_a_pickled_piece():
    """Section 1: whatever its size, an append carries its entries whole; the stock pieces are never made nor read."""
    engine = Engine(others="bc")
    big = (REGULAR + bytes(131071), 2, 1)
    engine.consensus.append(member("b"), Append(1, 0, 1, 0, 1, [big]))
    assert engine.log[:] == [(NO_OP, 1, 0), big]


def test_configuration_entry_is_not_taken_for_a_stock_membership_change():
    """Section 2.1.12: our configurations have a type of their own, which the engine hands on like any command."""
    engine = Engine().elect_alone()
    engine.consensus.propose([b"members"], CONFIGURATION)
    engine.sync()
    engine.consensus.tick()
    assert engine.applied == [[(CONFIGURATION + b"members", 3, 1)]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"heartbeat_s": 0.2},
        {"heartbeat_s": 0.0},
        {"election_max_s": 0.6},
        {"lease_s": 0.6},
        {"lease_s": 0.15},
        {"quorum_silence_s": 0.4},
    ],
)
def test_timing_that_breaks_elections_is_refused(wrong):
    """Heartbeats fit three times into an election timeout, a lease ends before another may be elected, a role after it."""
    with pytest.raises(ValueError, match="allowed"):
        Timing(**wrong)
