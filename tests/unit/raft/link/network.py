"""Nodes with nothing but links, joined in memory; the test decides what time it is and which frames arrive."""

from raft.link.frame import NodeInfo
from raft.link.links import Links
from raft.membership import Member
from raft.messages import TermNotice


class Node:
    """One process: its links, and what they told. Sends to `network` whatever the links send."""

    def __init__(self, network, node_id, *, incarnation=None, secret=None, cluster_id="orders", session=None):
        self.member = Member(node_id, incarnation or node_id[-1] * 32)
        self.network = network
        self.max_bytes = 1_000_000
        self.sessions = network.sessions if session is None else iter([session])
        self.told = []
        self.is_connected = True
        self.reactions = {}  # name of an event -> what is called with its arguments, after it was noted
        self.links = Links(
            cluster_id=cluster_id,
            me=self.member,
            secret=secret,
            carrier=self,
            clock=lambda: network.now,
            new_session=lambda: next(self.sessions),
            events=self,
        )
        network.nodes.append(self)

    def send(self, node_id, parts):
        """The carrier's side."""
        if self.is_connected:
            self.network.frames.append((node_id, b"".join(parts)))

    def _tell(self, name, *arguments):
        self.told.append((name, *arguments))
        if name in self.reactions:
            self.reactions[name](*arguments)

    def on_up(self, member, info):
        self._tell("up", member, info)

    def on_down(self, member, reason):
        self._tell("down", member, reason)

    def on_info(self, member, info):
        self._tell("info", member, info)

    def on_gap(self, member):
        self._tell("gap", member)

    def on_part(self, member):
        """Told of every slice but a message's last: of no interest here."""

    def on_message(self, member, message):
        self._tell("message", member, message)

    def take_told(self):
        """What was told since the last call."""
        told, self.told = self.told, []
        return told

    def terms(self):
        """The terms of all notices that came, in order: what the tests send."""
        return [event[2].term for event in self.told if event[0] == "message"]

    def notify(self, other, *terms):
        """Send notices to the member of another node."""
        for term in terms:
            self.links.send(other.member, TermNotice(term))


class Network:
    """Carries frames in order unless the test rearranges `frames`."""

    def __init__(self):
        self.now = 100.0
        self.nodes = []
        self.frames = []
        self.sessions = iter(range(1000, 10**9, 7))
        self.lose = lambda node_id, data: False  # which frames do not arrive

    def node(self, node_id, **settings):
        return Node(self, node_id, **settings)

    def pair(self, **settings):
        """Two nodes that are up for one another, with nothing told so far."""
        one, two = self.node("n1", **settings), self.node("n2", **settings)
        one.links.set_targets(["n1", "n2"])
        two.links.set_targets(["n1", "n2"])
        self.deliver()
        assert [event[0] for event in one.take_told() + two.take_told()] == ["up", "up"]
        return one, two

    def deliver(self):
        """Everything under way arrives, and what that brings about."""
        for _ in range(1000):
            if not self.frames:
                return
            self.arrive(*self.frames.pop(0))
        raise AssertionError("the nodes never fall silent")

    def arrive(self, node_id, data):
        """One frame arrives at every process that has the node id."""
        for node in self.nodes:
            if node.member.node_id == node_id and node.is_connected and not self.lose(node_id, data):
                node.links.receive(data)

    def run(self, seconds, *, lose=None):
        """Let time pass from deadline to deadline; meanwhile frames that `lose` names do not arrive."""
        before, self.lose = self.lose, lose or self.lose
        end = self.now + seconds
        while True:
            due = min(node.links.next_deadline() for node in self.nodes)
            if due > end:
                break
            self.now = max(self.now, due)
            for node in self.nodes:
                if node.links.next_deadline() <= self.now:
                    node.links.tick()
            self.deliver()
        self.now, self.lose = end, before


NO_INFO = NodeInfo()
