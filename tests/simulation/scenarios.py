"""Situations that random faults hardly ever make, step by step: each must end well, and fails with the defect it is for."""

from collections.abc import Callable
from typing import Final

from raft.engine import Role
from raft.journal.log import BASE_COMMAND
from raft.membership import Configuration
from raft.messages import Message, PreVoteResponse
from raft.sender import WINDOW_BYTES

from .host import Host, Process, incarnation_of
from .machine import State
from .profile import Profile
from .simulation import Simulation
from .violation import ViolationError

WAIT_S: Final = 10.0
"""What is waited for comes within this time, virtual seconds."""

LATE_S: Final = 2.4
"""Delay of an answer that comes two elections too late, seconds."""

UNCUT: Final = 100_000
"""Trailing entries of scenarios: nothing is trimmed."""


class Scenario(Simulation):
    """A cluster without faults and writers, to be moved by hand."""

    def __init__(self, seed: int, node_count: int = 3, *, trailing_entries: int = UNCUT) -> None:
        super().__init__(seed, Profile(node_count=node_count, faults=(), spike=0.0, trailing_entries=trailing_entries))
        ids = tuple(f"n{number + 1}" for number in range(node_count))
        for number, node_id in enumerate(ids):
            host = Host(node_id, number + 1, ids, incarnation_of(self.random))
            self.hosts[node_id] = host
            self.journals[host.member] = host.journal

    def begin(self) -> Process:
        """Start all hosts; the one that serves once all are alike."""
        for host in self.hosts.values():
            self.start(host)
        self.until(self.is_converged, "no cluster was formed")
        return self.serving()

    def until(self, is_over: Callable[[], bool], text: str, within_s: float = WAIT_S) -> None:
        """Wait for something."""
        self._await(is_over, within_s, "R19", text)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.time.run_until(lambda: False, self.time.now + seconds)

    def serving(self) -> Process:
        """The node that serves, in the latest term."""
        leader = self.leader()
        if leader is None:
            raise ViolationError("R19", "nobody serves")
        return leader

    def process(self, node_id: str) -> Process:
        """The one that runs on a host."""
        process = self.hosts[node_id].process
        assert process is not None
        return process

    def others(self, *node_ids: str) -> list[str]:
        """All hosts but these."""
        return [one for one in self.hosts if one not in node_ids]

    def part(self, node_id: str, others: list[str], *, both_ways: bool = True) -> Callable[[], None]:
        """Nothing gets from a node to others, nor back; call what is returned to end it."""
        ends = [self.network.cut(node_id, other) for other in others]
        if both_ways:
            ends += [self.network.cut(other, node_id) for other in others]

        def end() -> None:
            for one in ends:
                one()

        return end

    def propose(self, process: Process, count: int, size: int = 50) -> None:
        """Entries at one node."""
        for _ in range(count):
            self.workload.propose(process, size)

    def end(self) -> None:
        """All nodes become alike."""
        self._await(self.is_converged, 20.0, "R19", "in the end not all nodes are alike")
        self._check_end()


def late_answers(seed: int) -> None:
    """A leader hears its followers late, and they hear it no more: it must not serve on what they said long ago (R7)."""
    world = Scenario(seed)
    leader = world.begin()
    me = leader.host.node_id
    for other in world.others(me):
        world.network.slow(other, me, 0.9)
    world.wait(1.5)
    world.propose(leader, 1)
    heal = world.part(me, world.others(me), both_ways=False)
    world.until(lambda: world.leader() is not leader and world.leader() is not None, "nobody else leads")
    world.wait(2.0)
    heal()
    for other in world.others(me):
        world.network.slow(other, me, 0.0)
    world.end()


def living_leader(seed: int) -> None:
    """A follower that does not hear its leader finds nobody who helps it, as the others do hear it (R7)."""
    world = Scenario(seed)
    leader = world.begin()
    first, _second = world.others(leader.host.node_id)
    heal = world.part(leader.host.node_id, [first])
    world.wait(5.0)
    if world.serving() is not leader:
        raise ViolationError("F16", "a leader that a majority heard was replaced")
    heal()
    world.end()


def return_of_the_isolated(seed: int) -> None:
    """A node that was cut off for long comes back: the leader stays, in its term."""
    world = Scenario(seed)
    leader = world.begin()
    term = leader.node.term
    first = world.others(leader.host.node_id)[0]
    heal = world.part(first, world.others(first))
    world.wait(6.0)
    world.propose(leader, 5)
    heal()
    world.wait(4.0)
    if leader.node.role is not Role.LEADER or leader.node.term != term:
        raise ViolationError("F16", "a node that was cut off deposed the leader when it came back")
    world.end()


def base_of_a_reset_log(seed: int) -> None:
    """The store of the only node that can lead is ahead of its journal: the last entry is not in its log, only its effect.

    A follower that lacks just that entry must get it as a snapshot (R6).
    """
    world = Scenario(seed)
    leader = world.begin()
    world.propose(leader, 20)
    world.until(world.is_converged, "20 entries were not replicated")
    ahead, behind, down = world.hosts.values()
    for host in world.hosts.values():
        assert host.process is not None
        host.process.kill()
    down.is_wanted = False
    last = ahead.store.state.index
    for host in (ahead, behind):  # the last entry had not reached their journals
        log = host.journal.log
        log.entries.pop()
        log.next_index -= 1
    behind.store.state = _state_before(world, behind, last)
    world.start(ahead)
    world.start(behind)
    world.until(lambda: world.leader() is not None, "nobody leads")
    world.wait(3.0)
    if any(one[0] == BASE_COMMAND and index > 1 for index, one in enumerate(world.process(behind.node_id).log)):
        raise ViolationError("R6", f"{behind.node_id} has a placeholder in the middle of its log")
    world.start(down)
    down.is_wanted = True
    world.end()


def _state_before(world: Scenario, host: Host, index: int) -> State:
    known = world.checks.log[index - 1]
    assert known is not None
    return State(index - 1, known.term, known.chain, host.store.state.configuration)


def answer_of_an_earlier_term(seed: int) -> None:
    """An answer comes so late that its sender has lost what it acknowledged, and the leader leads again (R1).

    Of five: n1 leads and reaches n2 only, whose answers are slow. The others elect a leader, which cuts off what n2 had.
    Then n1 leads again, and n4 alone gets its new entries: with the late answer there would seem to be three.
    """
    world = Scenario(seed, 5)
    leader = world.begin()
    if leader.host.node_id != "n1":
        leader.stop()
        world.until(lambda: world.leader() not in (None, leader), "nobody took over")
        world.start(leader.host)
        world.until(world.is_converged, "the old leader did not come back")
        leader = world.serving()
    first = world.process("n1")
    if leader is not first:
        raise AssertionError("choose a seed with which n1 leads")
    begin = world.time.now
    world.network.slow("n2", "n1", LATE_S)
    heal_first = world.part("n1", ["n3", "n4", "n5"])
    heal_second = world.part("n2", ["n3", "n4", "n5"])
    world.propose(first, 30)
    world.wait(0.3)
    heal_between = world.part("n1", ["n2"], both_ways=False)
    world.until(
        lambda: any(world.process(one).node.is_serving for one in ("n3", "n4", "n5")), "no other leader", within_s=3.0
    )
    second = next(world.process(one) for one in ("n3", "n4", "n5") if world.process(one).node.is_serving)
    world.propose(second, 3)
    heal_second()
    heal_first()
    world.until(
        lambda: world.process("n1").log[-1][1] == second.log[-1][1] == world.process("n2").log[-1][1],
        "no truncation",
        2.0,
    )
    world.wait(0.05)  # so that n1's answers have come
    second.stop()
    world.until(lambda: first.node.is_serving, "n1 does not lead again", 2.0)
    heal_between()
    witness = next(one for one in ("n3", "n4", "n5") if one != second.host.node_id)
    absent = next(one for one in ("n3", "n4", "n5") if one not in (second.host.node_id, witness))
    heal_absent = world.part("n1", [absent], both_ways=False)
    world.network.slow("n1", "n2", 3.0)
    world.propose(first, 60)
    if world.time.now - begin > LATE_S:
        raise AssertionError("choose a seed with which this is faster")
    world.wait(LATE_S + 0.7 - (world.time.now - begin))
    heal_absent()
    world.network.heal()
    world.start(second.host)
    world.end()


def two_removals(seed: int) -> None:
    """A leader that is cut off is told to remove the others, one after the other: it must not remain alone (R6)."""
    world = Scenario(seed)
    leader = world.begin()
    me = leader.host.node_id
    heal = world.part(me, world.others(me))
    for other in world.others(me):
        leader.node.remove_node(other, lambda _error: None)
    world.propose(leader, 3)
    world.until(lambda: world.leader() is not leader and world.leader() is not None, "nobody else leads")
    world.propose(world.serving(), 3)
    world.wait(2.0)
    heal()
    world.end()


def configuration_cut_off(seed: int) -> None:
    """A leader that is cut off removes a node in vain: when it leads again, that node gets entries as before (R19)."""
    world = Scenario(seed)
    leader = world.begin()
    me = leader.host.node_id
    first, second = world.others(me)
    heal = world.part(me, [first, second])
    leader.node.remove_node(second, lambda _error: None)
    world.until(lambda: world.leader() is not leader and world.leader() is not None, "nobody else leads")
    world.propose(world.serving(), 3)
    heal()
    world.until(lambda: world.process(me).log[-1][1] == world.serving().log[-1][1], "the old leader does not catch up")
    if not isinstance(leader.node.configuration, Configuration) or len(leader.node.configuration.members) != 3:
        raise ViolationError("R19", f"{me} still takes the configuration that was cut off for the one that counts")
    world.end()


def snapshot_up_to_the_log(seed: int) -> None:
    """A snapshot ends with the first entry of a log whose node had lost its store: what follows was acknowledged and stays (R1)."""
    world = Scenario(seed)
    world.begin()
    world.propose(world.serving(), 20)
    world.until(world.is_converged, "20 entries were not replicated")
    full, trimmed, short = world.hosts.values()
    middle = full.store.state.index - 8
    for host in world.hosts.values():
        assert host.process is not None
        host.process.kill()
        host.store.state = _state_before(world, host, middle + 2)
    log = trimmed.journal.log
    del log.entries[: middle + 1 - log.start_index]
    log.first_index = middle + 1
    trimmed.store.state = State()
    log = short.journal.log
    del log.entries[middle + 2 - log.start_index :]
    log.next_index = middle + 2
    world.pace.write_s = 1000.0  # copies are made of what is durable
    world.start(full)
    world.start(trimmed)
    world.until(lambda: world.process(trimmed.node_id).machine.installed_count == 1, "no snapshot was fetched")
    world.process(full.node_id).kill()
    world.start(short)
    world.until(lambda: world.leader() is not None, "nobody else leads")
    world.pace.write_s = 0.02
    for host in world.hosts.values():
        if host.process is not None:
            host.process.kill()
        world.start(host)
    world.end()


def wiped_node(seed: int) -> None:
    """A node that acknowledged loses its disk: it must not make a majority with one that never had the entries (R1)."""
    world = Scenario(seed)
    leader = world.begin()
    me = leader.host.node_id
    wiped, behind = world.others(me)
    heal = world.part(behind, world.others(behind))
    world.propose(leader, 10)
    world.until(lambda: world.process(wiped).node.last_applied == leader.log[-1][1] > 10, "nothing was committed")
    for host in world.hosts.values():
        assert host.process is not None
        host.process.kill()
    world.faults.wipe(world.hosts[wiped])
    heal()
    world.start(world.hosts[wiped])
    world.start(world.hosts[behind])
    world.wait(5.0)
    world.start(world.hosts[me])
    world.until(world.is_whole, "the wiped node does not come back")
    world.end()


def unheard_candidate(seed: int) -> None:
    """A candidate is cut off before anybody hears of its term: when it comes back its term must end the leader's (R19)."""
    world = Scenario(seed)
    leader = world.begin()
    me = leader.host.node_id
    heal = world.part(me, world.others(me), both_ways=False)
    world.until(lambda: _candidate(world) is not None, "nobody stands")
    candidate = _candidate(world)
    assert candidate is not None
    heal_candidate = world.part(candidate.host.node_id, world.others(candidate.host.node_id), both_ways=False)
    heal()
    world.wait(1.5)
    heal_candidate()
    world.wait(1.0)
    world.propose(world.serving(), 3)
    world.end()


def _candidate(world: Scenario) -> Process | None:
    running = [host.process for host in world.hosts.values() if host.process is not None]
    return next((one for one in running if one.node.role is Role.CANDIDATE), None)


def repeated_votes(seed: int) -> None:
    """Of five the leader hands over; its heir is cut off with one other node, whose vote comes twice (R7)."""
    world = Scenario(seed, 5)
    leader = world.begin()
    me = leader.host.node_id
    world.network.faults.duplicate = 1.0
    leader.stop()
    world.until(lambda: _candidate(world) is not None, "nobody stands")
    heir = _candidate(world)
    assert heir is not None
    friend = next(one for one in reversed(world.others(me, heir.host.node_id)))
    rest = world.others(heir.host.node_id, friend)
    heals = [world.part(heir.host.node_id, rest), world.part(friend, rest)]
    world.until(lambda: world.hosts[me].process is None, "the old leader does not end")
    world.start(world.hosts[me])
    world.until(
        lambda: any(world.process(one).node.is_serving for one in rest), "three of five elect nobody", within_s=20.0
    )
    for heal in heals:
        heal()
    world.end()


def restarted_voter(seed: int) -> None:
    """A node votes and is killed before it hears of the leader it made: it votes for nobody else in that term (R7)."""
    world = Scenario(seed)
    old = world.begin()
    me = old.host.node_id
    old.kill()
    world.until(lambda: _raft_leader(world) is not None, "nobody is elected")
    new = _raft_leader(world)
    assert new is not None
    voter = world.others(me, new.host.node_id)[0]
    world.process(voter).kill()
    heal = world.part(new.host.node_id, world.others(new.host.node_id))
    world.start(world.hosts[voter])
    world.start(world.hosts[me])
    world.until(
        lambda: any(world.process(one).node.is_serving for one in (me, voter)),
        "two of three elect nobody",
        within_s=20.0,
    )
    heal()
    world.end()


def _raft_leader(world: Scenario) -> Process | None:
    running = [host.process for host in world.hosts.values() if host.process is not None]
    return next((one for one in running if one.node.role is Role.LEADER), None)


def late_pre_vote(seed: int) -> None:
    """A node has asked for pre-votes, then hears its leader, and confirms it, before the answer comes (R7)."""
    world = Scenario(seed)
    leader = world.begin()
    me = leader.host.node_id
    first, second = world.others(me)
    granted: list[tuple[str, str]] = []

    def watch(process: Process, destination: str, message: Message) -> None:
        if isinstance(message, PreVoteResponse):
            granted.append((process.host.node_id, destination))

    world.network.slow(first, second, 0.3)
    world.network.slow(second, first, 0.3)
    world.network.slow(first, me, 0.25)
    world.network.slow(second, me, 0.25)
    world.wait(1.0)
    ends = {other: world.network.cut(me, other) for other in (first, second)}
    world.checks.watch = watch
    world.until(lambda: bool(granted), "nobody asks for pre-votes")
    helper, asking = granted[0]
    ends[asking]()
    world.network.slow(first, second, 0.0)
    world.network.slow(second, first, 0.0)
    world.wait(1.5)
    ends[helper]()
    world.network.heal()
    world.end()


def lost_acknowledgement(seed: int) -> None:
    """One acknowledgement is lost: its entry is sent again, alone, when those behind it are committed (R1)."""
    world = Scenario(seed)
    leader = world.begin()
    me = leader.host.node_id
    near, far = world.others(me)
    first = leader.log[-1][1] + 1
    heal = world.part(far, world.others(far))
    world.hosts[near].speed.base_s = 0.02
    world.network.slow(near, me, 0.1)
    world.propose(leader, 6, size=300_000)
    journal = world.hosts[near].journal
    world.until(lambda: journal.log.next_index > first, "nothing was written")
    world.wait(0.001)
    world.network.lose(me, near)
    world.until(lambda: leader.node.last_applied > first + 1, "nothing was committed")
    leader.kill()
    world.wait(0.3)
    heal()
    world.until(lambda: world.leader() is not None, "nobody else leads")
    world.start(world.hosts[me])
    world.network.slow(near, me, 0.0)
    world.end()


def stuck_disk(seed: int) -> None:
    """A follower's disk hangs while the others go on: what it must keep in memory is bounded by the leader's window (R20)."""
    world = Scenario(seed)
    leader = world.begin()
    me = leader.host.node_id
    stuck = world.others(me)[0]
    world.hosts[stuck].speed.base_s = 20.0
    for _ in range(100):
        world.propose(leader, 1, size=300_000)
        world.wait(0.1)
    kept = world.process(stuck).log.bytes_in_memory
    if kept > WINDOW_BYTES + 2_000_000:
        raise ViolationError(
            "R20", f"{stuck} keeps {kept} bytes that it cannot write; allowed: {WINDOW_BYTES} and a little"
        )
    world.hosts[stuck].speed.base_s = 0.001
    world.process(stuck).kill()
    world.start(world.hosts[stuck])
    world.end()


def offer_over_a_foreign_tail(seed: int) -> None:
    """A leader that was cut off has entries of its own where another's snapshot begins: it must not apply them (R6)."""
    world = Scenario(seed, trailing_entries=0)
    leader = world.begin()
    me = leader.host.node_id
    heal = world.part(me, world.others(me))
    world.propose(leader, 30)
    world.until(lambda: world.leader() is not leader and world.leader() is not None, "nobody else leads")
    for _ in range(5):
        world.propose(world.serving(), 10)
        world.wait(0.2)
    heal()
    world.end()


SCENARIOS: Final[dict[str, Callable[[int], None]]] = {
    scenario.__name__: scenario
    for scenario in (
        late_answers,
        living_leader,
        return_of_the_isolated,
        base_of_a_reset_log,
        answer_of_an_earlier_term,
        two_removals,
        configuration_cut_off,
        snapshot_up_to_the_log,
        wiped_node,
        unheard_candidate,
        repeated_votes,
        restarted_voter,
        late_pre_vote,
        lost_acknowledgement,
        stuck_disk,
        offer_over_a_foreign_tail,
    )
}
