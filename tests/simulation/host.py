"""A host, which outlives its processes: journal, store and identity; and one process on it, which is a production node.

The process does around the node what the server does: it forms the cluster or asks to join it, tells the node what the store has
written, hands over before an orderly stop.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Final, Protocol

from raft import formation
from raft.journal.log import Log
from raft.membership import GENESIS_BYTES, Configuration, Member
from raft.neighbours import Network as NodeNetwork
from raft.node import NodeEvents, RaftNode
from raft.trailing import TrailingBounds

from .clock import ProcessLoop, VirtualTime
from .disk import DiskSpeed, JournalImage, SimulatedWriter
from .machine import ChainMachine, StoreImage
from .network import Network

CLUSTER_ID: Final = "simulated"
ASK_S: Final = 1.0
"""Time between two requests to join, seconds."""

HAND_OVER_S: Final = 5.0
"""How long an orderly stop waits for another leader, seconds."""


class Observer(Protocol):
    """What the checks are told by a process."""

    def sends(self, process: "Process", data: bytes) -> None:
        """A payload leaves."""

    def leads(self, process: "Process", term: int) -> None:
        """It serves."""

    def failed(self, process: "Process", error: BaseException) -> None:
        """The node has given up."""

    def note(self, text: str) -> None:
        """Something for the trace."""


class World(Protocol):
    """What a process needs of the simulation around it."""

    time: VirtualTime
    random: Random
    network: Network
    observer: Observer
    numbers: "count[int]"
    hosts: dict[str, "Host"]
    journals: dict[Member, JournalImage]
    """Of every member that ever was: one that lost its disk stands as it was then."""
    trailing: TrailingBounds
    secret: bytes | None
    payload_max_bytes: int

    def make_machine(self, process: "Process") -> ChainMachine:
        """The state machine of a process."""


@dataclass(slots=True, eq=False)
class Host:
    """One machine of the cluster. `peers` are those a new cluster is formed of; empty: it asks to join one."""

    node_id: str
    number: int
    peers: tuple[str, ...]
    incarnation: str
    journal: JournalImage = field(default_factory=JournalImage)
    store: StoreImage = field(default_factory=StoreImage)
    speed: DiskSpeed = field(default_factory=lambda: DiskSpeed(0.001))
    process: "Process | None" = None
    is_wanted: bool = True
    """The operator has not removed it."""
    lacks_to: int = 0
    """It lost what it had up to this index, and does not have it again: it counts as damaged until then."""
    start_count: int = 0

    @property
    def member(self) -> Member:
        """Node id and incarnation."""
        return Member(self.node_id, self.incarnation)

    @property
    def is_alive(self) -> bool:
        """Whether a process runs."""
        return self.process is not None


class Carrier:
    """Port `Carrier`: collects payloads until it is flushed."""

    def __init__(self, world: World, process: "Process") -> None:
        self._world = world
        self._process = process
        self._waiting: list[tuple[str, bytes]] = []
        self.max_bytes = world.payload_max_bytes

    def send(self, node_id: str, parts: Sequence[bytes | memoryview]) -> None:
        """Send with the next flush."""
        self._waiting.append((node_id, b"".join(parts)))

    def flush(self) -> None:
        """Send what has collected."""
        waiting, self._waiting = self._waiting, []
        source = self._process.host.node_id
        for node_id, data in waiting:
            self._world.observer.sends(self._process, data)
            self._world.network.send(source, node_id, data)

    def drop(self) -> None:
        """The connection is gone, and what has collected with it."""
        self._waiting.clear()


class Process:
    """One run of a node."""

    def __init__(self, world: World, host: Host) -> None:
        self.world = world
        self.host = host
        self.loop = ProcessLoop(world.time, host.number)
        self.started_at = world.time.now
        self.is_stopping = False
        self.is_starved = False
        self._giving_way: asyncio.Task[object] | None = None
        self.trip: str | None = None
        """At which moment the process is killed; None: not planned."""
        host.start_count += 1
        host.process = self
        self.log: Log = host.journal.recovered()
        self.entries_at_start = len(self.log)
        self.writer = SimulatedWriter(
            host.journal, time=world.time, loop=self.loop, speed=host.speed, random=world.random, tripwire=self.moment
        )
        self.machine = world.make_machine(self)
        self.carrier = Carrier(world, self)
        self.node = RaftNode(
            member=host.member,
            log=self.log,
            writer=self.writer,
            state_machine=self.machine,
            events=NodeEvents(
                leading=self._leading,
                lost=lambda: self.note("lost"),
                fatal=lambda error: world.observer.failed(self, error),
                held=lambda: self.note("held"),
                released=lambda: self.note("released"),
                removed=self.stop,
                link_changed=self._found,
            ),
            network=NodeNetwork(
                cluster_id=CLUSTER_ID,
                secret=world.secret,
                carrier=self.carrier,
                new_session=lambda: next(world.numbers),
                flush=self.carrier.flush,
            ),
            snapshots=self.machine.ports(),
            trailing=world.trailing,
            loop=self.loop,
            random=Random(world.random.getrandbits(64)),
        )
        self.machine.durable = self.node.trim
        world.network.subscribe(host.node_id, self._receive)
        self.loop.call_soon(self._start)

    @property
    def is_member(self) -> bool:
        """Whether this node believes to belong to the cluster."""
        configuration = self.node.configuration
        return configuration is not None and self.host.member in configuration.members

    @property
    def takes_proposals(self) -> bool:
        """Whether this node serves and is not about to leave that to another one."""
        return self.node.is_serving and not self.is_stopping and not self.is_giving_way

    @property
    def is_giving_way(self) -> bool:
        """Whether it hands leadership over, to go on as a follower."""
        return self._giving_way is not None and not self._giving_way.done()

    def note(self, text: str) -> None:
        """A line for the trace."""
        self.world.observer.note(f"{self.host.node_id}: {text} term={self.node.term} applied={self.node.last_applied}")

    def _receive(self, data: bytes) -> None:
        self.loop.call_soon(self.node.receive, [data])

    # ---- its life

    def _start(self) -> None:
        self.node.start()
        peers = self.host.peers
        if self.node.is_new and peers:
            self.node.listen_to(peers, formation.peers_digest(self.host.node_id, peers))
        self._ask_again()

    def kill(self) -> None:
        """Power is lost: what was not durable is gone."""
        self._end()
        self.writer.crash()

    def stop(self) -> None:
        """Stop in order: hand leadership over, finish what is being written."""
        if not self.is_stopping:
            self.is_stopping = True
            self.note("stops")
            if self._giving_way is not None:
                self._giving_way.cancel()
            self.loop.run(self._stop())

    def give_way(self) -> None:
        """Hand leadership over and stay: it leads, but another could do better."""
        if not self.is_stopping and not self.is_giving_way:
            self.note("gives way")
            self._giving_way = self.loop.run(self.node.transfer(HAND_OVER_S, stays=True))

    async def _stop(self) -> None:
        await self.node.transfer(HAND_OVER_S)
        await self.node.close()
        self.world.time.later(0.0, self._ended)

    def _ended(self) -> None:
        if self.host.process is self:
            self._end()
            self.writer.finish()

    def _end(self) -> None:
        if self.host.process is self:
            self.note("ends")
            self.host.process = None
            self.world.network.unsubscribe(self.host.node_id)
            self.loop.kill()

    def moment(self, name: str) -> None:
        """A moment at which the process may be killed."""
        if self.trip == name:
            self.trip = None
            self.world.time.later(0.0, self._trip)

    def _trip(self) -> None:
        if self.host.process is self:
            self.note("killed at a chosen moment")
            self.kill()

    def _leading(self, term: int) -> None:
        self.note("serves")
        self.world.observer.leads(self, term)
        self.moment("leading")

    def lose_connection(self) -> None:
        """The connection to NATS is lost, or made anew."""
        self.carrier.drop()
        self.node.link_restarted()

    # ---- its way into the cluster

    def _found(self) -> None:
        """Form the cluster, if that is this node's to do now."""
        if self.is_stopping or self.loop.is_dead or not self.host.peers or not self.node.is_new:
            return
        decision = formation.decide(self.host.member, self.host.peers, self.node.infos())
        if isinstance(decision, formation.Form):
            self.note("forms a cluster")
            genesis = self.world.random.randbytes(GENESIS_BYTES)
            self.node.form(Configuration.of(genesis, decision.members))

    def _ask_again(self) -> None:
        if not self.is_stopping:
            self._found()
            if not self.is_member and not self._forms_later:
                for other in self.world.hosts.values():
                    if other is not self.host:
                        self._request(other)
            elif self.node.configuration is not None:
                self.node.listen_to(())
            self.loop.call_later(ASK_S, self._ask_again)

    @property
    def _forms_later(self) -> bool:
        if not self.node.is_new or not self.host.peers:
            return False
        decision = formation.decide(self.host.member, self.host.peers, self.node.infos())
        return not isinstance(decision, formation.Join)

    def _request(self, other: Host) -> None:
        """Ask one node to be admitted: whoever leads answers."""
        network, time = self.world.network, self.world.time
        source, destination = self.host.node_id, other.node_id

        def ask() -> None:
            leader = other.process
            if leader is not None and network.reaches(source, destination):
                leader.loop.call_soon(admit, leader)

        def admit(leader: Process) -> None:
            if leader.takes_proposals:
                leader.node.admit(self.host.member, answer)

        def answer(error: str | None) -> None:
            if error is None:
                time.later(network.delay(), accepted)

        def accepted() -> None:
            if not self.loop.is_dead and network.reaches(destination, source):
                self.loop.call_soon(self.node.listen_to, (destination,))

        time.later(network.delay(), ask)


def incarnation_of(random: Random) -> str:
    """A new journal's name."""
    return f"{random.getrandbits(128):032x}"
