"""Covers raft/link/links.py: who is up for whom, what is told, and what becomes of frames that must not count."""

import dataclasses
import logging

import pytest

from raft.journal.log import LogEntry
from raft.link.frame import (
    SLICE_MIN_BYTES,
    FrameKind,
    NodeInfo,
    decode_frame,
    encode_info,
    key_of,
)
from raft.link.links import HELLO_S, SILENCE_S, LinksStatistics, PeerLinkStatistics
from raft.membership import Member
from raft.messages import Append, TermNotice
from tests.unit.raft.link.network import NO_INFO, Network

INFO = NodeInfo(genesis=bytes(16), is_fresh=True, peers_digest=7, release="1.2.3")
KEY = key_of(b"secret", "orders")


@pytest.fixture
def network():
    return Network()


def append(*sizes: int) -> Append:
    entries: list[LogEntry] = [(b"\0" + bytes([at]) * (size - 1), 11 + at, 3) for at, size in enumerate(sizes)]
    return Append(3, 10, 10, 2, 7, entries)


def dropped(node) -> dict[str, int]:
    return dict(node.links.statistics().dropped)


# ---- up and down


def test_two_nodes_come_up_at_once(network):
    """No timer has to ring: hellos are answered at once until both sides know, and then not any more."""
    one, two = network.node("n1"), network.node("n2")
    one.links.set_info(INFO)
    one.links.set_targets(["n2"])
    network.deliver()
    assert one.take_told() == [("up", two.member, NO_INFO)]
    assert two.take_told() == [("up", one.member, INFO)]
    assert one.links.up_members() == [two.member]
    assert two.links.is_up(one.member)
    sent = [node.links.statistics().peers[0].sent_frames for node in (one, two)]
    assert sent == [2, 1]


def test_hellos_that_cross_do_not_chase_one_another(network):
    """When both begin at the same time each sends its hello and one answer."""
    one, two = network.pair()
    assert [node.links.statistics().peers[0].sent_frames for node in (one, two)] == [2, 2]


def test_up_needs_both_directions(network):
    """A node that is heard but does not hear us is not up."""
    one, two = network.node("n1"), network.node("n2")
    one.links.set_targets(["n2"])
    two.links.set_targets(["n1"])
    network.run(5.0, lose=lambda node_id, data: node_id == "n2")
    assert one.told == two.told == []
    network.run(1.0)
    assert one.take_told() == [("up", two.member, NO_INFO)]
    assert two.take_told() == [("up", one.member, NO_INFO)]


def test_silence_is_noticed_when_due(network):
    """A node that was not heard for `SILENCE_S` is down for both, at the deadline that was announced, and told once."""
    one, two = network.pair()
    began = network.now
    two.is_connected = False
    network.run(SILENCE_S - 0.001)
    assert one.links.is_up(two.member)
    network.run(0.001)
    assert one.take_told() == [("down", two.member, f"silent for {SILENCE_S} s")]
    assert one.links.up_members() == []
    assert network.now == pytest.approx(began + SILENCE_S)
    network.run(SILENCE_S)
    assert one.told == []


def test_data_is_a_sign_of_life(network):
    """A node whose messages arrive is not silent, even if its hellos do not."""
    one, two = network.pair()
    for term in range(12):
        two.notify(one, term)
        network.run(HELLO_S, lose=lambda node_id, data: decode_frame(data).header.kind is FrameKind.HELLO)
    assert one.links.is_up(two.member)


def test_idle_nodes_stay_up(network):
    """Hellos alone keep nodes up, and tell nothing."""
    one, two = network.pair()
    network.run(10 * SILENCE_S)
    assert one.told == two.told == []


def test_a_node_that_does_not_hear_us_is_down(network):
    """When only one direction is cut, both sides are told: the other one says in its hellos that it hears nobody."""
    one, two = network.pair()
    network.run(SILENCE_S + HELLO_S, lose=lambda node_id, data: node_id == "n2")
    assert two.take_told() == [("down", one.member, f"silent for {SILENCE_S} s")]
    assert one.take_told() == [("down", two.member, "it does not hear us")]
    network.run(HELLO_S)
    assert two.take_told() == [("up", one.member, NO_INFO)]
    assert one.take_told() == [("up", two.member, NO_INFO)]


def test_after_silence_it_comes_up_again_without_a_gap(network):
    """What was lost in between is covered by coming up anew."""
    one, two = network.pair()
    two.notify(one, 1)
    network.run(2 * SILENCE_S, lose=lambda node_id, data: True)
    network.run(HELLO_S)
    assert [event[0] for event in one.take_told()] == ["down", "up"]
    two.notify(one, 2)
    network.deliver()
    assert one.take_told() == [("message", two.member, TermNotice(2))]


def test_a_reconnect_is_told_to_both(network):
    """Our connection was made anew: everyone is down for us, we are for them, and all come up at once."""
    one, two = network.pair()
    before = one.links.statistics().session
    one.links.restart()
    assert one.take_told() == [("down", two.member, "our connection was made anew")]
    assert not one.links.is_up(two.member)
    assert one.links.statistics().session > before
    hello = decode_frame(network.frames[0][1]).header
    assert (hello.source_session, hello.destination_session) == (one.links.statistics().session, 0)
    network.deliver()
    assert one.take_told() == [("up", two.member, NO_INFO)]
    assert two.take_told() == [("down", one.member, "it has begun a new session"), ("up", one.member, NO_INFO)]


def test_a_process_that_started_anew_is_told(network):
    """A restarted process is another session of the same member."""
    one, two = network.pair()
    network.nodes.remove(two)
    again = network.node("n2")
    again.links.set_targets(["n1"])
    network.deliver()
    assert one.take_told() == [("down", two.member, "it has begun a new session"), ("up", two.member, NO_INFO)]
    assert again.take_told() == [("up", one.member, NO_INFO)]
    assert dropped(one) == {}


def test_another_incarnation_is_another_member(network):
    """A node that lost its journal is up as another member; the one before is down, and nothing can be sent to it."""
    one, two = network.pair()
    network.nodes.remove(two)
    reborn = network.node("n2", incarnation="f" * 32)
    reborn.links.set_targets(["n1"])
    network.deliver()
    assert one.take_told() == [("down", two.member, "another incarnation runs"), ("up", reborn.member, NO_INFO)]
    assert one.links.up_members() == [reborn.member]
    assert (one.links.is_up(two.member), one.links.info_of(two.member)) == (False, None)
    one.notify(two, 1)
    assert network.frames == []
    assert dropped(one) == {"unreachable": 1}


def test_sessions_grow_although_the_clock_was_set_back(network):
    """A session of this process is above all before, whatever numbers are given."""
    one, two = network.pair()
    one.sessions = iter([5])
    before = one.links.statistics().session
    one.links.restart()
    assert one.links.statistics().session == before + 1
    network.deliver()
    assert two.links.is_up(one.member)


def test_a_process_with_a_lower_session_comes_back(network):
    """A node that started anew after its clock was set back is up as soon as it has heard the other side."""
    one, two = network.pair()
    network.nodes.remove(two)
    again = network.node("n2", session=5)
    again.links.set_targets(["n1"])
    network.run(3 * HELLO_S)
    assert one.links.is_up(again.member)
    assert again.links.is_up(one.member)


# ---- targets, info


def test_who_says_hello_is_answered_as_long_as_it_is_heard(network):
    """A node that is no target gets hellos while it is heard, and none any more once it is silent."""
    one, two = network.node("n1"), network.node("n2")
    two.links.set_targets(["n1"])
    network.run(2 * SILENCE_S)
    assert one.links.is_up(two.member)
    assert two.links.is_up(one.member)
    network.nodes.remove(two)
    network.run(SILENCE_S)
    assert not one.links.is_up(two.member)
    sent = one.links.statistics().peers[0].sent_frames
    network.run(2 * SILENCE_S)
    assert one.links.statistics().peers[0].sent_frames == sent


def test_a_former_target_stays_up_while_it_is_heard(network):
    """Taking a node off the targets does not cut the link; a node never heard is forgotten."""
    one, two = network.pair()
    one.links.set_targets(["n2", "n3"])
    assert [peer.node_id for peer in one.links.statistics().peers] == ["n2", "n3"]
    one.links.set_targets([])
    network.run(2 * SILENCE_S)
    assert one.links.is_up(two.member)
    assert [peer.node_id for peer in one.links.statistics().peers] == ["n2"]


def test_a_target_that_was_forgotten_is_heard_when_it_comes_back(network):
    """Our frames to it go on in sequence, so that they are not taken for repeated ones (found by simulation seed 12055)."""
    one, two = network.node("n1"), network.node("n2")
    network.lose = lambda node_id, _data: node_id == "n1"
    two.links.set_targets(["n1"])
    one.links.set_targets(["n2"])
    network.run(4 * HELLO_S)
    network.lose = lambda _node_id, _data: False
    one.links.set_targets([])
    one.links.set_targets(["n2"])
    network.run(2 * HELLO_S)
    assert one.links.is_up(two.member)
    assert two.links.is_up(one.member)


def test_targets_get_hellos_whether_heard_or_not(network):
    """A hello goes to each new target at once, and to each one every `HELLO_S`."""
    one = network.node("n1")
    one.links.set_targets(["n3", "n2"])
    assert [node_id for node_id, _ in network.frames] == ["n2", "n3"]
    one.links.set_targets(["n2", "n3", "n4"])
    assert [node_id for node_id, _ in network.frames[2:]] == ["n4"]
    network.frames.clear()
    for _ in range(3):
        network.now = one.links.next_deadline()
        one.links.tick()
        assert [node_id for node_id, _ in network.frames] == ["n2", "n3", "n4", "n1"]
        network.frames.clear()
        assert one.links.next_deadline() == network.now + HELLO_S
        one.links.tick()
        assert network.frames == []


def test_info_that_changed_is_told_at_once(network):
    """New info goes out without waiting for a timer, is told once, and the same info again is no news."""
    one, two = network.pair()
    one.links.set_info(INFO)
    network.deliver()
    assert two.take_told() == [("info", one.member, INFO)]
    assert two.links.info_of(one.member) == INFO
    one.links.set_info(dataclasses.replace(INFO))
    assert network.frames == []
    network.run(SILENCE_S)
    assert two.told == []


def test_info_of_who_is_down_is_not_known(network):
    """What a node said before it went down may have changed: nobody decides by it."""
    one, two = network.pair()
    two.is_connected = False
    network.run(SILENCE_S)
    assert one.links.info_of(two.member) is None
    assert one.links.info_of(Member("n9", "9" * 32)) is None


def test_callbacks_may_send_and_set(network):
    """From inside every callback messages, targets and info may be set without disturbing the others."""
    one, two = network.node("n1"), network.node("n2")
    one.reactions = {
        "up": lambda member, info: one.links.send(member, TermNotice(1)),
        "message": lambda member, message: one.links.send(member, TermNotice(message.term + 1)),
        "gap": lambda member: one.links.set_info(INFO),
        "down": lambda member, reason: one.links.set_targets([]),
        "info": lambda member, info: one.links.set_targets(["n2", "n3", "n4"]),
    }
    one.links.set_targets(["n2"])
    network.deliver()
    assert two.terms() == [1]
    two.notify(one, 5)
    network.frames.clear()
    two.notify(one, 7)
    network.deliver()
    assert two.terms() == [1, 8]
    assert two.links.info_of(one.member) == INFO
    two.links.set_info(INFO)
    network.deliver()
    assert [peer.node_id for peer in one.links.statistics().peers] == ["n2", "n3", "n4"]
    network.nodes.remove(two)
    network.run(SILENCE_S)
    assert [peer.node_id for peer in one.links.statistics().peers] == ["n2"]


# ---- messages


def test_messages_arrive_in_order(network):
    """What is sent to a member that is up arrives once, in order, and is told with its sender."""
    one, two = network.pair()
    one.notify(two, 1, 2, 3)
    one.links.send(two.member, append(20, 30))
    network.deliver()
    assert two.terms()[:3] == [1, 2, 3]
    assert two.told[-1] == ("message", one.member, append(20, 30))
    assert one.told == []


def test_nothing_is_sent_to_who_is_not_up(network):
    """Messages to a stranger, a silent node and another incarnation are dropped and counted."""
    one, two = network.pair()
    for member in (Member("n9", "9" * 32), Member("n2", "f" * 32), Member("n2", "")):
        one.links.send(member, TermNotice(1))
    two.is_connected = False
    network.run(SILENCE_S)
    network.frames.clear()
    one.notify(two, 1)
    assert network.frames == []
    assert dropped(one) == {"unreachable": 4}


@pytest.mark.parametrize("secret", [None, b"secret"])
@pytest.mark.parametrize("size", [1, 3000, 100_000])
def test_large_messages_are_cut_to_what_the_carrier_takes(network, secret, size):
    """No frame is larger than the carrier allows, and the message arrives whole, between its neighbours."""
    one, two = network.pair(secret=secret)
    one.max_bytes = 1000
    one.notify(two, 1)
    one.links.send(two.member, append(size, 5))
    one.notify(two, 2)
    assert max(len(data) for _, data in network.frames) <= 1000
    network.deliver()
    assert [event[2] for event in two.take_told()] == [TermNotice(1), append(size, 5), TermNotice(2)]


def test_the_limit_of_the_carrier_may_change(network):
    """The carrier is asked every time: after a reconnect to another server another limit may hold."""
    one, two = network.pair()
    counts = []
    for limit in (1000, 50_000, 1_000_000):
        one.max_bytes = limit
        one.links.send(two.member, append(100_000))
        counts.append(len(network.frames))
        network.deliver()
    assert counts[0] > counts[1] > counts[2] == 1
    assert len(two.take_told()) == 3


def test_a_carrier_with_too_small_messages_is_an_error(network, caplog):
    """When not even a hello fits, nothing is sent, and the log says what is allowed."""
    one, two = network.pair()
    one.max_bytes = 300
    one.notify(two, 1)
    network.run(SILENCE_S + HELLO_S)
    assert not two.links.is_up(one.member)
    assert two.terms() == []
    assert dropped(one)["carrier_limit"] > 4
    (message,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert "has 300 bytes; allowed: at least 422" in message
    one.max_bytes = 422
    network.run(HELLO_S)
    assert two.links.is_up(one.member)


def test_a_lost_message_is_told(network):
    """A gap is told with the next frame, be it data or a hello, before that is delivered."""
    one, two = network.pair()
    one.notify(two, 1)
    network.frames.clear()
    one.notify(two, 2)
    network.deliver()
    assert two.take_told() == [("gap", one.member), ("message", one.member, TermNotice(2))]
    one.notify(two, 3)
    network.frames.clear()
    network.run(HELLO_S)
    assert two.take_told() == [("gap", one.member)]
    assert two.links.statistics().peers[0].gaps == 2


def test_slices_out_of_order_are_dropped(network):
    """A message whose slices were exchanged does not arrive; it is counted and told as a gap."""
    one, two = network.pair()
    one.max_bytes = 1000
    one.links.send(two.member, append(1500))
    network.frames[0], network.frames[1] = network.frames[1], network.frames[0]
    network.deliver()
    one.notify(two, 2)
    network.deliver()
    assert two.take_told() == [("gap", one.member), ("message", one.member, TermNotice(2))]
    assert dropped(two) == {"fragment": 1, "repeated": 1}


def test_a_message_too_large_to_be_sent_is_a_bug(network):
    """Nobody builds an append that no receiver would put together."""
    one, two = network.pair()
    with pytest.raises(AssertionError):
        one.links.send(two.member, append(*[64 * 1024 * 1024, 1024 * 1024]))


# ---- statistics, secrets


def test_statistics_tell_each_node(network):
    """Up or not, sessions, frames both ways and gaps are told per node, drops for all."""
    one, two = network.pair()
    one.links.set_targets(["n2", "n3"])
    two.notify(one, 1, 2)
    network.frames.pop()
    network.run(HELLO_S / 2)
    theirs = two.links.statistics()
    assert one.links.statistics() == LinksStatistics(
        session=one.links.statistics().session,
        peers=(
            PeerLinkStatistics(
                node_id="n2",
                incarnation=two.member.incarnation,
                is_up=True,
                session=theirs.session,
                sent_frames=3,
                received_frames=4,
                gaps=1,
            ),
            PeerLinkStatistics(
                node_id="n3", incarnation="", is_up=False, session=0, sent_frames=2, received_frames=0, gaps=0
            ),
        ),
        dropped={},
    )
    assert theirs.peers[0].sent_frames == 5


def test_hello_names_the_session_that_is_heard(network):
    """A hello says 0 to whom is not heard, then the session it hears; its body is the node's info."""
    one, two = network.node("n1"), network.node("n2")
    one.links.set_info(INFO)
    one.links.set_targets(["n2"])
    frame = decode_frame(network.frames[0][1])
    assert (frame.header.destination_session, frame.body) == (0, encode_info(INFO))
    assert len(frame.body) <= SLICE_MIN_BYTES
    network.arrive(*network.frames.pop(0))
    answer = decode_frame(network.frames[0][1])
    assert answer.header.destination_session == frame.header.source_session
    assert two.told == []
