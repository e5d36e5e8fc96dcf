"""Faults, drawn from the seed: what happens to hosts and network, when, and how it ends.

Never more than the cluster is promised to bear: of the members at most a minority is damaged at a time, until it has again
what it lost.
"""

from collections.abc import Callable
from random import Random
from typing import Final

from raft.membership import Member

from .disk import JournalImage
from .host import Host, Process, World, incarnation_of
from .machine import StoreImage, rolled_back
from .profile import HARMLESS_S, Profile

MOMENTS: Final = ("written", "persisted", "installed", "leading")
"""Moments at which a process can be killed: its journal, its store or a snapshot is durable and nothing else has happened."""


KEEP_RUNNING_S: Final = 1.0
"""How often a host without process is given one once faults are over, seconds."""


class Faults:
    """Makes faults until `heal`."""

    def __init__(self, world: World, profile: Profile, start: Callable[[Host], None]) -> None:
        """`start` begins a process on a host."""
        self._world = world
        self._profile = profile
        self._start = start
        self._random: Random = world.random
        self._is_over = False
        self._removing: Process | None = None
        """Who was told to remove a node and has not said how that ended."""
        self.crash_count = self.fault_count = 0
        self.leader_crash_s: float | None = None

    def begin(self) -> None:
        """From now on."""
        faults, profile = self._world.network.faults, self._profile
        faults.loss, faults.duplicate, faults.is_fifo = profile.loss, profile.duplicate, profile.is_fifo
        faults.spike, faults.spike_s = profile.spike, profile.spike_s
        self._next()

    def heal(self) -> None:
        """Everything works, and every host runs that the operator has not removed."""
        self._is_over = True
        self._world.network.heal()
        for host in self._world.hosts.values():
            host.speed.slow_s = 0.0
            if host.process is not None:
                host.process.trip = None
                host.process.loop.resume_at = 0.0
        self._keep_running()

    def _keep_running(self) -> None:
        """What ends now, because its orderly stop had begun before, is started again."""
        for host in self._world.hosts.values():
            if host.is_wanted:
                self._start(host)
        self._world.time.later(KEEP_RUNNING_S, self._keep_running)

    def _next(self) -> None:
        delay = self._random.expovariate(1 / self._profile.fault_interval_s)
        self._world.time.later(delay, self._one)

    def _one(self) -> None:
        if self._is_over:
            return
        name = self._random.choice(self._profile.faults)
        self.fault_count += 1
        getattr(self, name)()
        self._next()

    def _later(self, low_s: float, high_s: float, end: Callable[[], None]) -> None:
        """Let a fault end, unless everything is healed before."""

        def run() -> None:
            if not self._is_over:
                end()

        self._world.time.later(self._random.uniform(low_s, high_s), run)

    def _note(self, text: str) -> None:
        self._world.observer.note(f"-- {text}")

    # ---- whom it concerns

    def _running(self) -> list[Process]:
        return [host.process for host in self._world.hosts.values() if host.process is not None]

    def _leader(self) -> Process | None:
        leading = [one for one in self._running() if one.takes_proposals]
        return max(leading, key=lambda one: one.node.term, default=None)

    def _any(self) -> Process | None:
        running = self._running()
        leader = self._leader()
        if leader is not None and self._random.random() < 0.4:
            return leader
        return self._random.choice(running) if running else None

    def _pair(self) -> tuple[str, str] | None:
        ids = list(self._world.hosts)
        if len(ids) < 2:
            return None
        first, second = self._random.sample(ids, 2)
        return first, second

    # ---- processes

    def _kill(self, process: Process) -> None:
        self._note(f"kill {process.host.node_id}")
        self.crash_count += 1
        process.kill()

    def _restart_later(self, host: Host, low_s: float = 0.01, high_s: float = 5.0) -> None:
        self._later(low_s, high_s, lambda: self._restart(host))

    def _restart(self, host: Host) -> None:
        if not host.is_alive and host.is_wanted:
            self._start(host)

    def crash(self) -> None:
        """One process."""
        process = self._any()
        if process is not None:
            self._kill(process)
            self._restart_later(process.host)

    def crash_leader(self) -> None:
        """The one that serves."""
        process = self._leader()
        if process is not None:
            self._kill(process)
            self._restart_later(process.host)

    def crash_all(self) -> None:
        """All at once."""
        for process in self._running():
            self._kill(process)
            self._restart_later(process.host, 0.01, 2.0)

    def crash_at_moment(self) -> None:
        """One, as soon as its disk has done something."""
        process = self._any()
        if process is not None:
            process.trip = self._random.choice(MOMENTS)
            self._note(f"plan to kill {process.host.node_id} when {process.trip}")
            self.crash_count += 1
            self._restart_later(process.host, 0.5, 5.0)

    def stop(self) -> None:
        """One, in order: a leader hands over."""
        process = self._any()
        if process is not None:
            process.stop()
            self._restart_later(process.host, 0.3, 4.0)

    def give_way(self) -> None:
        """The leader hands over and goes on as a follower: it cannot read a message (B238)."""
        leader = self._leader()
        if leader is not None:
            leader.give_way()

    def pause(self) -> None:
        """SIGSTOP."""
        process = self._any()
        if process is not None:
            seconds = self._random.choice((0.4, 1.0, 3.0)) * self._random.uniform(0.5, 1.5)
            self._note(f"pause {process.host.node_id} for {seconds:.3f} s")
            process.loop.pause(seconds, timers_late_s=self._random.choice((0.0, 0.002)))

    def starve(self) -> None:
        """No processor for a while, again and again."""
        process = self._any()
        if process is None or process.is_starved:
            return
        process.is_starved = True
        rounds = self._random.randint(3, 20)
        self._note(f"starve {process.host.node_id} {rounds} times")

        def stall(left: int) -> None:
            if self._is_over or process.loop.is_dead:
                return
            seconds = self._random.uniform(0.05, self._profile.stall_s)
            process.loop.pause(seconds)
            process.is_starved = left > 0
            if left:
                self._world.time.later(seconds + self._random.uniform(0.005, 0.1), stall, left - 1)

        stall(rounds)

    # ---- disks

    def slow_disk(self) -> None:
        """Every write takes longer."""
        host = self._random.choice(list(self._world.hosts.values()))
        seconds = self._profile.slow_disk_s - (host.speed.base_s * 2 if self._profile.slow_disk_s <= HARMLESS_S else 0)
        self._note(f"slow disk of {host.node_id}: up to {seconds:.3f} s")
        host.speed.slow_s = seconds

        def end() -> None:
            host.speed.slow_s = 0.0

        self._later(0.5, 4.0, end)

    def _to_damage(self) -> Process | None:
        """A process whose host may lose something: what remains is a majority that has everything."""
        leader = self._leader()
        process = self._any()
        if leader is None or process is None or leader.node.configuration is None:
            return None
        if self._removing is not None and not self._removing.loop.is_dead:
            return None  # a leader that is paused removes later: of two that remain, none may have lost anything
        members = leader.node.configuration.members
        for host in self._world.hosts.values():
            if host.process is not None and host.process.is_member and host.store.state.index >= host.lacks_to:
                host.lacks_to = 0
        damaged = [one for one in members if not self._is_sound(one)]
        may_be = not damaged and len(members) >= 3 and process.host.member in members and self._is_settled(leader)
        return process if may_be else None

    def _is_sound(self, member: Member) -> bool:
        """Whether that member's host has everything it ever had."""
        host = self._world.hosts.get(member.node_id)
        return host is not None and host.member == member and not host.lacks_to

    def _is_settled(self, leader: Process) -> bool:
        """Every member runs and knows the leader's members: what is damaged counts nowhere as it was, and needs nobody."""
        configuration = leader.node.configuration
        assert configuration is not None
        running = [one for one in self._running() if one.host.member in configuration.members]
        return len(running) == len(configuration.members) and all(
            one.node.configuration == configuration for one in running
        )

    def old_store(self) -> None:
        """The store is replaced by an older copy of itself; the journal stays."""
        self._lose_store(lambda host: rolled_back(host.store, self._random.randint(1, 8)))

    def lost_store(self) -> None:
        """The store is gone; the journal stays."""
        self._lose_store(lambda _host: StoreImage())

    def _lose_store(self, left: Callable[[Host], StoreImage]) -> None:
        process = self._to_damage()
        if process is None:
            return
        host = process.host
        self._kill(process)
        had = host.store.state.index
        host.store = left(host)
        host.lacks_to = had
        self._note(f"store of {host.node_id} goes back from {had} to {host.store.state.index}")
        self._restart_later(host)

    def empty_directory(self) -> None:
        """Everything is gone: the node comes back as another member."""
        process = self._to_damage()
        if process is None:
            return
        host = process.host
        self._kill(process)
        self.wipe(host)
        self._restart_later(host)

    def wipe(self, host: Host) -> None:
        """Its disk is replaced by an empty one."""
        host.lacks_to = max(host.store.state.index, host.journal.log.next_index - 1)
        host.store, host.journal = StoreImage(), JournalImage()
        if host.peers == (host.node_id,):
            host.peers = ()  # it must not found a cluster again: its operator has it join
        self._begin_anew(host)
        self._world.journals[host.member] = host.journal
        self._note(f"{host.node_id} lost everything up to {host.lacks_to}, is {host.incarnation[:6]} now")

    def _begin_anew(self, host: Host) -> None:
        """What comes back with an empty disk is another member."""
        host.incarnation = incarnation_of(self._random)

    # ---- network

    def lose_messages(self) -> None:
        """What is under way between two."""
        pair = self._pair()
        if pair is not None:
            self._world.network.lose(*pair)

    def _cut(self, pairs: list[tuple[str, str]], low_s: float, high_s: float) -> None:
        self._note(f"cut {' '.join(f'{source}>{destination}' for source, destination in pairs)}")
        ends = [self._world.network.cut(*pair) for pair in pairs]

        def end() -> None:
            for one in ends:
                one()

        self._later(low_s, high_s, end)

    def cut(self) -> None:
        """Two do not reach each other."""
        pair = self._pair()
        if pair is not None:
            self._cut([pair, pair[::-1]], 0.2, 5.0)

    def one_way_cut(self) -> None:
        """One does not reach the other."""
        pair = self._pair()
        if pair is not None:
            self._cut([pair], 0.2, 5.0)

    def isolate(self) -> None:
        """One reaches nobody, or nobody reaches it, or both."""
        process = self._any()
        if process is None:
            return
        me = process.host.node_id
        others = [one for one in self._world.hosts if one != me]
        ways = self._random.choice((1, 2, 3))
        out = [(me, other) for other in others] if ways & 1 else []
        into = [(other, me) for other in others] if ways & 2 else []
        self._cut([*out, *into], 0.5, 6.0)

    def bridge(self) -> None:
        """Two halves that only one node reaches."""
        ids = list(self._world.hosts)
        self._random.shuffle(ids)
        middle = len(ids) // 2
        pairs = [pair for one in ids[:middle] for other in ids[middle + 1 :] for pair in ((one, other), (other, one))]
        if pairs:
            self._cut(pairs, 0.5, 6.0)

    def slow_link(self) -> None:
        """What one sends to another, or to all, takes long."""
        pair = self._pair()
        if pair is None:
            return
        source, destination = pair
        seconds = self._random.choice((0.1, 0.4, 1.0)) * self._random.uniform(0.5, 1.5)
        others = [destination] if self._random.random() < 0.5 else [one for one in self._world.hosts if one != source]
        pairs = [(source, one) for one in others]
        if self._random.random() < 0.5:
            pairs = [pair[::-1] for pair in pairs]
        self._note(f"slow by {seconds:.3f} s: {' '.join(f'{one}>{other}' for one, other in pairs)}")
        for one, other in pairs:
            self._world.network.slow(one, other, seconds)

        def end() -> None:
            for one, other in pairs:
                self._world.network.slow(one, other, 0.0)

        self._later(1.0, 8.0, end)

    def reconnect(self) -> None:
        """A node's connection to NATS is lost and made anew."""
        process = self._any()
        if process is None:
            return
        me = process.host.node_id
        others = list(self._world.hosts)
        self._world.network.set_offline(me, others, is_offline=True)
        self._note(f"{me} loses its connection")
        process.loop.call_soon(process.lose_connection)

        def end() -> None:
            self._world.network.set_offline(me, others, is_offline=False)
            if not process.loop.is_dead:
                process.loop.call_soon(process.lose_connection)

        self._later(0.01, 1.5, end)

    # ---- members

    def change_members(self) -> None:
        """The operator removes a node, and later adds it again; or has it replaced by an empty one."""
        leader = self._leader()
        removed = [host for host in self._world.hosts.values() if not host.is_wanted]
        if leader is None or leader.node.configuration is None:
            return
        if removed:
            self._add(leader, self._random.choice(removed))
            return
        members = leader.node.configuration.members
        if len(members) < 3 or self._to_damage() is None:
            return
        node_id = self._random.choice(members).node_id
        host = self._world.hosts[node_id]
        self._note(f"remove {node_id}")
        self._removing = leader

        def done(error: str | None) -> None:
            self._note(f"removed {node_id}: {error}")
            self._removing = None
            if error is None:
                host.is_wanted = False
                if host.process is not None:
                    self._world.time.later(self._random.uniform(0.0, 2.0), self._leave, host)

        leader.loop.call_soon(leader.node.remove_node, node_id, done)

    def _leave(self, host: Host) -> None:
        if host.process is not None and not host.is_wanted:
            host.process.stop()

    def _add(self, leader: Process, host: Host) -> None:
        """With its old journal and the operator's word, or with an empty one, for which it asks itself."""
        self._note(f"add {host.node_id}")
        host.is_wanted = True
        is_empty = self._random.random() < 0.5
        if is_empty and not host.is_alive:
            host.store, host.journal, host.peers = StoreImage(), JournalImage(), ()
            host.incarnation = incarnation_of(self._random)
            self._world.journals[host.member] = host.journal
        else:
            self.add_again(leader, host)
        if not host.is_alive:
            self._start(host)

    def add_again(self, leader: Process, host: Host) -> None:
        """The operator's word."""
        leader.loop.call_soon(leader.node.add_node, host.node_id, lambda error: self._note(f"added: {error}"))
