"""Covers raft/neighbours.py."""

import logging

import pytest

from raft.link.frame import NodeInfo
from raft.link.links import SILENCE_S
from raft.membership import Configuration, Member
from raft.messages import TermNotice
from raft.neighbours import UNREACHABLE_S, NeighbourPorts, Neighbours, Network
from tests.unit.raft.cores import GENESIS, configuration, member
from tests.unit.raft.nodes import WIRE_MAX_BYTES

OTHER_GENESIS = b"another beginning"[:16]


class Side:
    """One node's neighbours on a wire whose frames arrive at once."""

    max_bytes = WIRE_MAX_BYTES

    def __init__(self, sides, me, names="ab", *, genesis=GENESIS):
        self.sides, self.me = sides, me
        self.told, self.changes, self.now = [], 0, 100.0
        sides[me.node_id] = self
        self.neighbours = Neighbours(
            me,
            Network(cluster_id="c", secret=None, carrier=self, new_session=lambda: next(SESSIONS), flush=lambda: None),
            NeighbourPorts(
                connected=lambda other: self.told.append(("connected", other.node_id)),
                disconnected=lambda other: self.told.append(("disconnected", other.node_id)),
                message=lambda other, message: self.told.append((other.node_id, message)),
                changed=self._changed,
            ),
            lambda: self.now,
        )
        if names is not None:
            self.configure(Configuration.of(genesis, map(member, names)))

    def configure(self, known, *, is_new=False, newcomers=()):
        self.neighbours.configure(known, is_new=is_new, newcomers=newcomers)

    def _changed(self):
        self.changes += 1

    def send(self, node_id, parts):
        data = b"".join(parts)
        if node_id in self.sides:
            QUEUE.append((node_id, data))

    def take(self):
        told, self.told = self.told, []
        return told


QUEUE = []
SESSIONS = iter(range(1, 10**9))


def run(sides, seconds=0.0):
    """Let time pass for all sides and deliver."""
    for _ in range(max(1, round(seconds / 0.25))):
        for side in list(sides.values()):
            side.now += 0.25 if seconds else 0.0
            side.neighbours.tick()
        while QUEUE:
            node_id, data = QUEUE.pop(0)
            if node_id in sides:
                sides[node_id].neighbours.receive(data)


@pytest.fixture
def sides():
    """An empty wire."""
    QUEUE.clear()
    return {}


def pair(sides, *, genesis=GENESIS):
    first, second = Side(sides, member("a")), Side(sides, member("b"), genesis=genesis)
    run(sides, 1)
    return first, second


def test_members_find_each_other_and_talk(sides):
    """Whoever is in the configuration gets hellos; its messages arrive, with who sent them."""
    first, second = pair(sides)
    assert first.take() == [("connected", "b")]
    assert first.neighbours.is_up(member("b"))
    assert not first.neighbours.is_up(Member("b", "f" * 32))
    assert first.neighbours.up_members() == [member("b")]
    second.neighbours.send(member("a"), TermNotice(3))
    run(sides)
    assert first.take() == [("b", TermNotice(3))]


def test_info_tells_what_a_node_is(sides):
    """Genesis, whether it is new, and the digest of its peers: what a founding decides by."""
    first, second = pair(sides)
    second.neighbours.listen_to(["a"], 77)
    second.configure(configuration("ab"), is_new=False)
    run(sides, 0.5)
    info = first.neighbours.infos()[member("b")]
    assert (info.genesis, info.is_fresh, info.peers_digest) == (GENESIS, False, 77)
    assert first.changes == 2


def test_new_nodes_listen_to_their_peers(sides):
    """Before there is a configuration the list of peers says who gets hellos; it may name the node itself."""
    first, second = Side(sides, member("a"), None), Side(sides, member("b"), None)
    for side in (first, second):
        side.neighbours.listen_to(["a", "b"], 5)
        side.configure(None, is_new=True)
    run(sides, 1)
    assert first.neighbours.infos() == {
        member("b"): NodeInfo(is_fresh=True, peers_digest=5, release=first.neighbours.infos()[member("b")].release)
    }


def test_newcomers_get_hellos(sides):
    """A node that is to be added is no member and no peer, and must be heard."""
    first, second = Side(sides, member("a"), "a"), Side(sides, member("d"), None)
    run(sides, 1)
    assert first.neighbours.up_members() == []
    first.configure(configuration("a"), newcomers=["d"])
    run(sides, 1)
    assert first.neighbours.up_members() == [member("d")]
    assert second.neighbours.up_members() == [member("a")]


def test_nodes_of_clusters_that_began_apart_never_mix(sides, caplog):
    """Whatever their names: a foreign node is not up, and what it says is dropped; the operator is told once."""
    with caplog.at_level(logging.ERROR, logger="raft.neighbours"):
        first, second = pair(sides, genesis=OTHER_GENESIS)
        second.neighbours.send(member("a"), TermNotice(99))
        run(sides, 3)
    assert not first.neighbours.is_up(member("b"))
    assert first.neighbours.up_members() == []
    assert not [told for told in first.take() if told[0] == "b"]
    assert [record.message for record in caplog.records if "began apart" in record.message] != []
    assert len([record for record in caplog.records if '"b" belongs' in record.message]) == 1
    assert member("b") in first.neighbours.infos()


def test_node_becomes_foreign_when_this_one_learns_where_it_belongs(sides):
    """A new node heard everybody; once it has a configuration, the other cluster's nodes are strangers."""
    first, second = Side(sides, member("a"), None), Side(sides, member("b"), "b", genesis=OTHER_GENESIS)
    first.neighbours.listen_to(["b"], 0)
    first.configure(None, is_new=True)
    run(sides, 1)
    assert first.neighbours.is_up(member("b"))
    first.configure(configuration("a"))
    assert not first.neighbours.is_up(member("b"))
    second.configure(configuration("ab"))
    run(sides, 1)
    assert first.neighbours.is_up(member("b"))


def test_silence_ends_a_link_and_a_word_begins_it_anew(sides):
    """Both are told: what waited is dropped, and the member is probed when it is back."""
    first, second = pair(sides)
    first.take()
    del sides["b"]
    run(sides, SILENCE_S + 0.5)
    assert first.take() == [("disconnected", "b")]
    second.now = first.now
    sides["b"] = second
    run(sides, 2)
    assert ("connected", "b") in first.take()


def test_loss_is_told_like_a_new_link(sides):
    """Section 4.6: a gap is survivable, and whoever sends should probe at once."""
    first, second = pair(sides)
    first.take()
    second.neighbours.send(member("a"), TermNotice(1))
    QUEUE.clear()
    second.neighbours.send(member("a"), TermNotice(2))
    run(sides)
    assert first.take() == [("connected", "b"), ("b", TermNotice(2))]


def test_own_connection_made_anew_ends_all_links(sides):
    """What was under way on the old one may be lost."""
    first, _ = pair(sides)
    first.take()
    first.neighbours.restart()
    assert first.take() == [("disconnected", "b")]
    run(sides, 1)
    assert first.take() == [("connected", "b")]


def test_member_that_is_silent_for_long_is_reported_once(sides, caplog):
    """O415: after 10 s, once, and once more when it is back; the node itself and strangers are not."""
    first, second = pair(sides)
    del sides["b"]
    with caplog.at_level(logging.INFO, logger="raft.neighbours"):
        run(sides, UNREACHABLE_S + SILENCE_S - 1)
        assert caplog.messages == []
        run(sides, 30)
        assert caplog.messages == ['node "b" cannot be reached for 10 seconds']
        second.now = first.now
        sides["b"] = second
        run(sides, 2)
        assert caplog.messages[1:] == ['node "b" can be reached again']
        run(sides, 30)
        assert len(caplog.messages) == 2


def test_removed_member_is_not_reported(sides, caplog):
    """Whoever is no member any more may be gone for good."""
    first, _ = pair(sides)
    del sides["b"]
    run(sides, 5)
    first.configure(configuration("a"))
    with caplog.at_level(logging.INFO, logger="raft.neighbours"):
        run(sides, 30)
    assert caplog.messages == []


def test_deadline_is_that_of_the_links(sides):
    """Ticking at the deadline is enough, and it is never far."""
    first, _ = pair(sides)
    assert first.now < first.neighbours.next_deadline() <= first.now + SILENCE_S
