"""Whole nodes on a loop that the test moves: production links over a switchboard in memory, disks that can be held."""

import json
import random
from pathlib import Path

from raft.journal.log import Log
from raft.membership import Configuration, Member
from raft.neighbours import Network
from raft.node import NodeEvents, RaftNode
from raft.snapshot.exchange import SnapshotPorts
from tests.unit.raft.cores import GENESIS, Store, founded, member
from tests.unit.raft.snapshot.fakes import MemorySink, MemorySnapshot

WIRE_MAX_BYTES = 1024 * 1024


class HeldWriter:
    """A writer whose writes end when the test says so."""

    def __init__(self):
        self.groups = []
        self.done = None
        self.may_block = None

    def submit(self, group, done, *, may_block):
        assert not self.groups, "one write at a time"
        self.may_block = may_block
        self.groups.append(group)
        self.done = done

    def complete(self):
        self.done(self.groups.pop())


class Disk(HeldWriter):
    """Writes at once, in the loop's next turn, unless it is held."""

    def __init__(self, loop):
        super().__init__()
        self.loop, self.is_held = loop, False

    def submit(self, group, done, *, may_block):
        super().submit(group, done, may_block=may_block)
        self.loop.call_soon(self.finish)

    def finish(self):
        if not self.is_held and self.groups:
            self.complete()

    def release(self):
        self.is_held = False
        self.loop.call_soon(self.finish)


class Harness:
    """A node alone with its surroundings, and everything it told, in order."""

    def __init__(self, loop, log, store=None, *, is_formed=None, **options):
        """`is_formed`: whether the node founds its cluster, by default if log and store are new."""
        self.loop, self.log = loop, log
        self.store = Store() if store is None else store
        self.writer = HeldWriter()
        self.told = []
        self.on_leading = lambda: None
        self.me = member("a")
        self.node = RaftNode(
            member=self.me,
            log=log,
            writer=self.writer,
            state_machine=self.store,
            events=NodeEvents(
                leading=self._leading,
                lost=lambda: self.told.append("lost"),
                fatal=lambda error: self.told.append(("fatal", str(error))),
                held=lambda: self.told.append("held"),
                released=lambda: self.told.append("released"),
            ),
            loop=loop,
            **options,
        )
        if self.node.is_new if is_formed is None else is_formed:
            self.node.form(Configuration.of(GENESIS, [self.me]))

    def _leading(self, term):
        self.told.append(("leading", term))
        self.on_leading()

    def started(self):
        """Start and become leader; what was told until then is forgotten."""
        self.node.start()
        self.sync()
        assert self.node.is_serving
        self.told.clear()
        return self

    def propose(self, data):
        return self.node.propose([data], lambda outcome: self.told.append((data, outcome)))

    def sync(self):
        """Let the disk finish, and finish what follows from it."""
        while self.writer.groups:
            self.writer.complete()
            self.loop.run()


class Wire:
    """A node's carrier: every frame arrives in the loop's next turn, at every process with that node id."""

    max_bytes = WIRE_MAX_BYTES

    def __init__(self, nodes, name):
        self.nodes, self.name = nodes, name
        self.is_dead = False

    def send(self, node_id, parts):
        if self.is_dead:
            return
        data = b"".join(parts)
        self.nodes.loop.call_soon(lambda: self.nodes.carry(self.name, node_id, data))


class Prepared:
    """A fetched copy, ready to become the state."""

    def __init__(self, content):
        self.found = json.loads(content)
        self.is_discarded = False

    @property
    def index(self):
        return self.found["index"]

    @property
    def term(self):
        return self.found["term"]

    @property
    def configuration(self):
        return bytes.fromhex(self.found["config"])

    def discard(self):
        self.is_discarded = True


class Snapshots:
    """Makes snapshots of a store in memory, and a store of fetched ones."""

    def __init__(self, loop, store):
        self.loop, self.store = loop, store
        self.sinks, self.installed, self.made, self.discarded = [], [], 0, []
        self.can_create = True

    def ports(self):
        return SnapshotPorts(
            create=self._create, open_sink=self._open_sink, prepare=self._prepare, install=self._install
        )

    def _create(self, done):
        self.made += 1
        if not self.can_create:
            self.loop.call_soon(lambda: done(OSError("no space left")))
            return
        store = self.store
        content = json.dumps(
            {
                "index": store.at[0],
                "term": store.at[1],
                "config": store.config.hex(),
                "applied": [(index, data.decode()) for index, data in store.applied],
            }
        ).encode()
        snapshot = MemorySnapshot(content, number=self.made, index=store.at[0], term=store.at[1])
        self.loop.call_soon(lambda: done(snapshot))

    def _open_sink(self):
        self.sinks.append(MemorySink(Path(f"copy{len(self.sinks)}")))
        return self.sinks[-1]

    def _prepare(self, directory, done):
        sink = next(sink for sink in self.sinks if sink.directory == directory)
        prepared = Prepared(bytes(sink.content))
        self.loop.call_soon(lambda: done(prepared))

    def _install(self, prepared):
        self.installed.append(prepared.index)
        self.store.at = (prepared.index, prepared.term)
        self.store.config = prepared.configuration
        self.store.applied = [(index, data.encode()) for index, data in prepared.found["applied"]]


class Machine:
    """One node of `Nodes`, with its store, disk and everything it told."""

    def __init__(self, nodes, me, log, store, *, has_snapshots=True, **options):
        self.nodes, self.me, self.log, self.store = nodes, me, log, store
        self.disk = Disk(nodes.loop)
        self.snapshots = Snapshots(nodes.loop, store)
        self.told, self.links_changed = [], 0
        sessions = nodes.sessions

        def new_session():
            sessions[0] += 1
            return sessions[0]

        self.wire = Wire(nodes, me.node_id)
        self.node = RaftNode(
            member=me,
            log=log,
            writer=self.disk,
            state_machine=store,
            events=NodeEvents(
                leading=lambda term: self.told.append(("leading", term)),
                lost=lambda: self.told.append("lost"),
                fatal=lambda error: self.told.append(("fatal", error)),
                held=lambda: self.told.append("held"),
                released=lambda: self.told.append("released"),
                removed=lambda: self.told.append("removed"),
                link_changed=self._link_changed,
            ),
            network=Network(
                cluster_id="c",
                secret=None,
                carrier=self.wire,
                new_session=new_session,
                flush=lambda: None,
            ),
            snapshots=self.snapshots.ports() if has_snapshots else None,
            loop=nodes.loop,
            random=random.Random(nodes.chance.random()),
            **options,
        )

    def _link_changed(self):
        self.links_changed += 1

    @property
    def data(self):
        """What the state machine was given, in order."""
        return [data.decode() for _, data in self.store.applied]

    @property
    def names(self):
        """Who counts, as letters."""
        return "" if self.node.configuration is None else "".join(self.node.configuration.node_ids)

    @property
    def failures(self):
        return [told[1] for told in self.told if told[0] == "fatal"]

    def propose(self, *texts):
        for text in texts:
            self.node.propose([text.encode()], lambda outcome, text=text: self.told.append((text, outcome)))


class Nodes:
    """Machines by name on one loop. Machines that are replaced or ended get nothing any more."""

    def __init__(self, loop, names="abc", *, of=None, seed=1, **options):
        """`of`: the members at entry 2, by default all; "" for new nodes. Timeouts are drawn from `seed`."""
        self.loop, self.options = loop, options
        self.chance = random.Random(seed)
        self.sessions = [0]
        self.machines = {}
        self.running = []
        self.cuts = set()  # (from, to)
        of = names if of is None else of
        for name in names:
            self.start(name, founded(of) if of else [])

    def start(self, name, log_entries=(), store=None, *, me=None, term=None, **options):
        """A machine begins with this journal and store."""
        if isinstance(log_entries, Log):
            log = log_entries
        else:
            last_term = log_entries[-1][2] if log_entries else 0
            log = Log(log_entries, term=last_term if term is None else term)
        machine = Machine(
            self, member(name) if me is None else me, log, Store() if store is None else store, **self.options | options
        )
        self.machines[name] = machine
        self.running.append(machine)
        machine.node.start()
        return machine

    def stop(self, name):
        """A machine's process is killed."""
        machine = self.machines.pop(name)
        self.running.remove(machine)
        machine.wire.is_dead = True
        return machine

    def __getitem__(self, name):
        return self.machines[name]

    def carry(self, source, to, data):
        if (source, to) in self.cuts:
            return
        for machine in list(self.running):
            if machine.me.node_id == to:
                machine.node.receive([data])

    def cut(self, name, *others):
        for other in others or set(self.machines) - {name}:
            self.cuts |= {(name, other), (other, name)}

    def heal(self):
        self.cuts.clear()

    def move(self, seconds):
        self.loop.move_to(self.loop.now + seconds)

    def until(self, is_so, *, within=30.0, step=0.05):
        """Move time until something is so."""
        end = self.loop.now + within
        self.loop.run()
        while not is_so():
            assert self.loop.now < end, "it did not come to that"
            self.move(step)

    def leader(self, *, among=None):
        """Move time until one of the machines serves, and is sure of it; that one."""
        found = [*(among or self.machines)]
        self.until(lambda: any(self[name].node.is_confirmed and self[name].node.is_serving for name in found))
        return next(self[name] for name in found if self[name].node.is_confirmed and self[name].node.is_serving)

    def followers(self, leader):
        return [machine for machine in self.machines.values() if machine is not leader]


def other_journal(name):
    """The member that a node is once it has lost its journal."""
    return Member(name, f"{ord(name) + 0x1000:032x}")
