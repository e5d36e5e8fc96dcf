"""Production cores with real logs, outboxes and appliers, joined by a queue of messages and a clock that the test moves.

Nothing happens by itself: messages wait in `queue` until delivered, and a peer whose disk is slow syncs when told to.
"""

import random
from collections import deque

from raft.applier import Applier
from raft.core import Core, CorePorts
from raft.engine import CONFIGURATION, NO_OP, REGULAR, Role, Timing
from raft.journal.log import Log
from raft.membership import Configuration, Member, decode_configuration
from raft.messages import Append, AppendResponse
from raft.outbox import Outbox

GENESIS = b"one cluster only"
DELIVERIES_MAX = 20_000


def member(name):
    """The journal of the node `name`: the same one in every test."""
    return Member(name, f"{ord(name[-1]):032x}")


def configuration(names):
    """The configuration of these nodes; each name is one letter."""
    return Configuration.of(GENESIS, map(member, names))


def config_entry(index, names, term=0):
    """A configuration entry of the log."""
    return CONFIGURATION + configuration(names).encode(), index, term


def founded(names):
    """What the log of every member of a new cluster begins with."""
    return [(NO_OP, 1, 0), config_entry(2, names)]


def entries(first, last, term, text="x"):
    """Commands for the log, which differ by index and text."""
    return [(REGULAR + f"{text}{index}".encode(), index, term) for index in range(first, last + 1)]


class Store:
    """A state machine that remembers what it applied, and returns the data as the result."""

    def __init__(self, index=0, term=0, names=None):
        self.at = (index, term)
        self.applied = []
        self.error = None
        self.config = b"" if names is None else configuration(names).encode()

    def last_applied(self):
        return self.at

    def durable_index(self):
        return self.at[0]

    def configuration(self):
        return self.config

    def apply(self, entries):
        if self.error is not None:
            raise self.error
        for entry in entries:
            assert entry.index == self.at[0] + 1
            self.at = (entry.index, entry.term)
            if entry.is_configuration:
                self.config = bytes(entry.data)
            elif entry.data:
                self.applied.append((entry.index, bytes(entry.data)))
        return [bytes(entry.data) for entry in entries]

    def restored(self, index, term):
        """The store as it was, or would have been, when `index` was its last applied entry."""
        older = Store(index, term)
        older.applied = [(at, data) for at, data in self.applied if at <= index]
        older.config = self.config if index >= 2 else b""  # the configuration is entry 2
        return older


class Peer:
    """One member: its core, and what surrounds it in a node."""

    def __init__(self, cluster, me, log, store, *, seed=1):
        self.cluster, self.me, self.log, self.store = cluster, me, log, store
        self.is_disk_slow = False
        self.may_apply = True
        self.roles, self.needed, self.changes = [], [], 0
        self.applier = Applier(store)
        self.outbox = Outbox(
            send=lambda to, message: cluster.queue.append((me, to, message)), synced=lambda: log.synced
        )
        self.core = Core(
            me=me,
            log=log,
            ports=CorePorts(
                send=lambda to, message: self.outbox.put(to, message, log.lsn),
                is_up=lambda to: cluster.is_up(me, to),
                apply=self._apply,
                may_apply=lambda: self.may_apply,
                role_changed=lambda old, new: self.roles.append((old, new)),
                snapshot_needed=lambda leader, index: self.needed.append((leader, index)),
                configuration_changed=self._changed,
            ),
            applied=decode_configuration(store.config) if store.config else None,
            applied_index=store.at[0],
            clock=lambda: cluster.now,
            random=random.Random(seed),
            timing=cluster.timing,
        )
        self.consensus = self.core.consensus

    def _changed(self):
        self.changes += 1

    def _apply(self, committed):
        self.applier.apply(committed)
        self.core.applied(self.applier.index)

    @property
    def is_leader(self):
        return self.consensus.is_leader

    @property
    def names(self):
        """Who counts, as letters."""
        return "" if self.core.configuration is None else "".join(self.core.configuration.node_ids)

    @property
    def commands(self):
        """The log without its configurations and no-ops, readable."""
        return [command[1:].decode() for command, _, _ in self.log[:] if command[:1] == REGULAR]

    def propose(self, *texts):
        for text in texts:
            assert self.consensus.propose([text.encode()]) is not None
        self.core.flush()
        self.work()

    def sync(self):
        """The disk finishes what it was given, and the core goes on with it."""
        group = self.log.take()
        if group is not None:
            self.log.done(group)
        self.outbox.flush()
        if self.is_leader:
            self.core.tick()

    def work(self):
        """What a node does after each event."""
        for _ in range(100):
            if self.is_leader or self.consensus.has_committed_unapplied:
                self.core.tick()
            if self.is_disk_slow or not self.log.is_dirty:
                self.outbox.flush()
                return
            self.sync()
        raise AssertionError("work without end")

    def take(self):
        """The messages of this peer under way, taken off the queue: (name of the receiver, message)."""
        mine = [(to.node_id, message) for source, to, message in self.cluster.queue if source == self.me]
        self.cluster.queue = deque(item for item in self.cluster.queue if item[0] != self.me)
        return mine

    def receive(self, name, message):
        """A message that the test makes up, or repeats."""
        self.core.receive(member(name) if isinstance(name, str) else name, message)
        self.work()


class Cores:
    """Peers by name, all reachable until `cut`."""

    def __init__(self, names="abc", *, of=None, logs=None, stores=None, timing=None):
        """`of`: the members of the configuration at entry 2, by default all of `names`; "" for none at all."""
        self.now = 100.0
        self.timing = Timing() if timing is None else timing
        self.queue = deque()
        self.down = set()  # pairs of names
        self.lose = lambda source, to, message: False
        self.peers = {}
        of = names if of is None else of
        for number, name in enumerate(names):
            log = (logs or {}).get(name)
            if log is None:
                log = founded(of) if of else []
            self.start(name, Log(log, term=log[-1][2] if log else 0), (stores or {}).get(name), seed=number)

    def start(self, name, log, store=None, *, seed=1, me=None):
        """A peer begins, or begins again."""
        me = member(name) if me is None else me
        peer = self.peers[name] = Peer(self, me, log, Store() if store is None else store, seed=seed)
        return peer

    def __getitem__(self, name):
        return self.peers[name]

    def is_up(self, source, to):
        peer = self.peers.get(to.node_id)
        return peer is not None and peer.me == to and frozenset((source.node_id, to.node_id)) not in self.down

    def cut(self, name, *others):
        """No message goes between `name` and `others`, by default all."""
        for other in others or set(self.peers) - {name}:
            self.down.add(frozenset((name, other)))

    def heal(self):
        """All links are made anew."""
        pairs, self.down = self.down, set()
        for pair in pairs:
            first, second = sorted(pair)
            if first in self.peers and second in self.peers:
                self[first].core.connected(self[second].me)
                self[second].core.connected(self[first].me)

    def deliver(self, count=1):
        """Deliver the oldest messages; those of a link that is cut are lost."""
        for _ in range(count):
            source, to, message = self.queue.popleft()
            peer = self.peers.get(to.node_id)
            if peer is None or peer.me != to or not self.is_up(source, to) or self.lose(source, to, message):
                continue
            peer.core.receive(source, message)
            peer.work()

    def settle(self):
        """Deliver until nothing is under way; how many messages that took."""
        count = 0
        while self.queue:
            self.deliver()
            count += 1
            assert count < DELIVERIES_MAX, "messages without end"
        return count

    def move(self, seconds, *, step=0.05):
        """Let time pass: every peer ticks when it has to, messages arrive at once."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + step)
            for peer in list(self.peers.values()):
                if peer.core.next_deadline_s < self.now:
                    peer.core.tick()
                    peer.work()
            self.settle()

    def elect(self, name):
        """Make `name` leader by the production rules: all have waited long enough, it asks first."""
        peer = self[name]
        self.now = max(one.consensus.election_deadline_s for one in self.peers.values()) + 0.01
        for other in self.peers.values():
            if other is not peer:
                other.consensus.postpone_election()
        peer.core.tick()
        peer.work()
        self.settle()
        assert peer.is_leader, peer.consensus.role
        return peer

    @property
    def leaders(self):
        return [name for name, peer in self.peers.items() if peer.consensus.role is Role.LEADER]


def append(term, new=(), *, after=(2, 0), commit=0, number=1):
    """An append of a leader of `term`."""
    return Append(term, commit, after[0], after[1], number, list(new))


def success(term, next_index, number):
    """A follower has everything below `next_index` durably."""
    return AppendResponse(term, next_index, number, is_success=True, is_rejection=False)


def rejection(term, next_index, number):
    """A follower cannot take an append; the leader should go on at `next_index`."""
    return AppendResponse(term, next_index, number, is_success=False, is_rejection=True)


def sign_of_life(term, next_index, number):
    """A follower was reached, and says no more than that."""
    return AppendResponse(term, next_index, number, is_success=False, is_rejection=False)
