"""The other nodes as this one sees them: whose link is up, who is foreign, who was not heard for long. Pure but for its ports.

Rule: nodes of clusters that began apart never mix, whatever their names: messages of a foreign one are dropped.
"""

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from raft.link.frame import NodeInfo
from raft.link.links import Carrier, Links
from raft.membership import Configuration, Member
from raft.messages import Message

logger = logging.getLogger(__name__)

RELEASE: Final = "1"
"""Version of what nodes say to one another; told with every hello."""

UNREACHABLE_S: Final = 10.0
"""A member that was not heard for so long is reported, seconds. Source: O415."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """How the members of a cluster reach one another."""

    cluster_id: str
    secret: bytes | None
    carrier: Carrier
    new_session: Callable[[], int]
    """A number that grows with every call and every start, such as Unix nanoseconds."""
    flush: Callable[[], None]
    """Have the carrier send what it has collected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NeighbourPorts:
    """What becomes of what the links tell."""

    connected: Callable[[Member], None]
    """The link to a member is new, or something was lost on it."""
    disconnected: Callable[[Member], None]
    """A member was not heard for too long, or has begun anew."""
    message: Callable[[Member, Message], None]
    changed: Callable[[], None]
    """A node came, went or said something new about itself."""
    part: Callable[[Member], None] = lambda _member: None
    """A piece of a large message has come: its sender lives, though nothing behind it can arrive yet."""


class Neighbours:
    """The nodes around one that has a network."""

    def __init__(
        self,
        me: Member,
        network: Network,
        ports: NeighbourPorts,
        clock: Callable[[], float],
    ) -> None:
        self._me = me
        self._ports = ports
        self._clock = clock
        self._configuration: Configuration | None = None
        self._peers: tuple[str, ...] = ()
        self._peers_digest = 0
        self._foreign: set[Member] = set()
        self._down_since: dict[Member, float] = {}  # infinity: was reported
        self._links = Links(
            cluster_id=network.cluster_id,
            me=me,
            secret=network.secret,
            carrier=network.carrier,
            clock=clock,
            new_session=network.new_session,
            events=self,
        )

    # ---- what is known

    def is_up(self, member: Member) -> bool:
        """Whether that very member can be reached."""
        return member not in self._foreign and self._links.is_up(member)

    def is_alive(self, member: Member) -> bool:
        """Whether it was heard lately, even if another process of its node id is heard instead."""
        return self._links.is_alive(member)

    def up_members(self) -> list[Member]:
        """Everybody of our cluster that can be reached."""
        return [member for member in self._links.up_members() if member not in self._foreign]

    def infos(self) -> dict[Member, NodeInfo]:
        """What everybody that can be reached says about itself, foreign nodes included."""
        found = ((member, self._links.info_of(member)) for member in self._links.up_members())
        return {member: info for member, info in found if info is not None}

    # ---- what is told

    def listen_to(self, node_ids: Iterable[str], peers_digest: int) -> None:
        """Say hello to these too: peers that a cluster is to be formed of, or a leader that has accepted us."""
        self._peers = tuple(node_ids)
        self._peers_digest = peers_digest

    def configure(self, configuration: Configuration | None, *, is_new: bool, newcomers: Iterable[str]) -> None:
        """Who belongs to the cluster, whether this node never did, and who else is to get hellos."""
        self._configuration = configuration
        members = () if configuration is None else configuration.members
        self._links.set_members(member for member in members if member.incarnation)
        wanted = dict.fromkeys((*(member.node_id for member in members), *self._peers, *newcomers))
        self._links.set_targets([one for one in wanted if one != self._me.node_id])
        genesis = b"" if configuration is None else configuration.genesis
        self._links.set_info(
            NodeInfo(genesis=genesis, is_fresh=is_new, peers_digest=self._peers_digest, release=RELEASE)
        )
        for member, info in self.infos().items():
            self._check_genesis(member, info)

    def send(self, member: Member, message: Message) -> None:
        """Send, if that very member can be reached."""
        self._links.send(member, message)

    def receive(self, data: bytes | memoryview) -> None:
        """Take what the carrier has brought."""
        self._links.receive(data)

    def restart(self) -> None:
        """The carrier's connection is lost or new."""
        self._links.restart()

    def tick(self) -> None:
        """Do what is due: hellos, and who is silent."""
        self._links.tick()
        self._report_silent(self._clock())

    def next_deadline(self) -> float:
        """Clock time at which `tick` has something to do."""
        return self._links.next_deadline()

    # ---- events of the links

    def on_up(self, member: Member, info: NodeInfo) -> None:
        """The link to a node works in both directions."""
        if self._down_since.pop(member, 0.0) == math.inf:
            logger.info('node "%s" can be reached again', member.node_id)
        self._check_genesis(member, info)
        self._ports.connected(member)
        self._ports.changed()

    def on_down(self, member: Member, reason: str) -> None:
        """A node was not heard for too long, or has begun anew."""
        logger.debug("link is down node=%s reason=%s", member.key, reason)
        self._ports.disconnected(member)
        self._ports.changed()

    def on_info(self, member: Member, info: NodeInfo) -> None:
        """A node says something new about itself."""
        self._check_genesis(member, info)
        self._ports.changed()

    def on_gap(self, member: Member) -> None:
        """Something from that node was lost on the way: what we sent may be, too."""
        self._ports.connected(member)

    def on_part(self, member: Member) -> None:
        """A piece of a message of a node whose link is up."""
        if member not in self._foreign:
            self._ports.part(member)

    def on_message(self, member: Member, message: Message) -> None:
        """A message of a node whose link is up."""
        if member not in self._foreign:
            self._ports.message(member, message)

    def _check_genesis(self, member: Member, info: NodeInfo) -> None:
        own = b"" if self._configuration is None else self._configuration.genesis
        if not own or not info.genesis or own == info.genesis:
            self._foreign.discard(member)
        elif member not in self._foreign:
            self._foreign.add(member)
            logger.error(
                'node "%s" belongs to a cluster with the same id that began apart from this one and is ignored; delete the'
                " data of whichever was started by mistake",
                member.node_id,
            )

    def _report_silent(self, now: float) -> None:
        """Tell once of members that cannot be reached for long (O415)."""
        members = () if self._configuration is None else self._configuration.members
        for member in members:
            if member == self._me or self.is_up(member):
                continue
            if self._down_since.setdefault(member, now) + UNREACHABLE_S < now:
                self._down_since[member] = math.inf
                logger.warning('node "%s" cannot be reached for %.0f seconds', member.node_id, UNREACHABLE_S)
        for member in [one for one in self._down_since if one not in members]:
            del self._down_since[member]
