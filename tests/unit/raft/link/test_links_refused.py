"""Covers raft/link/links.py: frames that must not count, and two processes with one node id."""

import dataclasses
import logging

import pytest

from raft.errors import WireError
from raft.journal.log import LogEntry
from raft.link.drops import QUIET_S
from raft.link.frame import (
    FrameKind,
    Header,
    NodeInfo,
    authenticate,
    decode_frame,
    encode_frame,
    key_of,
)
from raft.link.links import FORGET_S, HELLO_S, PEERS_MAX, SILENCE_S
from raft.membership import Member
from raft.messages import Append
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


# ---- frames that must not count


def forged(one, two, *, kind=FrameKind.DATA, body=b"body", key=None, **changes) -> bytes:
    """A frame as the next one from `one` to `two`, but for what `changes` say."""
    mine, theirs = one.links.statistics(), two.links.statistics()
    header = Header(
        kind=kind,
        source=one.member,
        source_session=mine.session,
        destination="n2",
        destination_session=theirs.session,
        sequence=1000,
    )
    return b"".join(encode_frame(dataclasses.replace(header, **changes), [body], key))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"destination": "n3"}, "misaddressed"),
        ({"source": Member("n9", "9" * 32)}, "no_hello"),
        ({"source": Member("n1", "f" * 32)}, "old_session"),
        ({"source_session": 1}, "old_session"),
        ({"source_session": 10**6}, "no_hello"),
        ({"destination_session": 1}, "other_destination"),
        ({"sequence": 1}, "repeated"),
        ({"body": b"not a message"}, "malformed"),
        ({"kind": FrameKind.HELLO, "body": b"\xff"}, "malformed"),
        ({"key": KEY}, "malformed"),
        ({"kind": FrameKind.HELLO, "source_session": 1, "destination_session": 0, "body": b""}, "old_session"),
        ({"kind": FrameKind.HELLO, "sequence": 1, "body": b""}, "repeated"),
        ({"fragment_number": 1, "fragment_count": 2}, "fragment"),
        ({"source": Member("n2", "f" * 32)}, "own_node_id"),
    ],
)
def test_bad_frames_are_dropped_and_counted(network, changes, reason):
    """Each frame that must not count is dropped for its reason, tells nothing of a message, and leaves the link up."""
    one, two = network.pair()
    two.links.receive(forged(one, two, **changes))
    assert dropped(two) == {reason: 1}
    assert [event[0] for event in two.take_told() if event[0] != "gap"] == []
    assert two.links.is_up(one.member)


def test_data_before_up_is_dropped(network):
    """A node whose hello naming us was lost is not listened to before the next one."""
    one, two = network.pair()
    two.links.restart()
    network.frames.clear()
    two.links.receive(forged(one, two, kind=FrameKind.HELLO, body=b"", destination_session=0))
    two.take_told()
    two.links.receive(forged(one, two, sequence=1001))
    assert two.take_told() == []
    assert dropped(two) == {"not_up": 1}


def test_frames_from_before_our_restart_are_never_taken(network):
    """Frames recorded before a restart of ours are refused by the new process, hello or not, in any order."""
    one, two = network.pair()
    recorded = []
    for _ in range(3):
        network.run(HELLO_S)
        one.notify(two, 1, 2)
        recorded += network.frames
        network.deliver()
    network.nodes.remove(two)
    again = network.node("n2")
    for node_id, data in [*recorded, *reversed(recorded)]:
        network.arrive(node_id, data)
    assert again.told == []
    assert set(dropped(again)) == {"no_hello"}


def test_a_replay_is_never_taken(network):
    """Everything that was sent, played again within the session, behind a restart of the sender, and behind ours."""
    one, two = network.pair()
    one.max_bytes = 1000
    one.links.send(two.member, append(3000))
    one.links.set_info(INFO)
    one.notify(two, 1)
    recorded = list(network.frames)
    network.deliver()
    two.take_told()
    for restart in (lambda: None, one.links.restart, two.links.restart):
        restart()
        network.deliver()
        two.take_told()
        for frame in recorded:
            network.arrive(*frame)
        network.deliver()
        assert two.take_told() == []
        assert two.links.is_up(one.member)


def test_duplicates_are_taken_once(network):
    """Every frame that comes twice counts once."""
    one, two = network.pair()
    one.notify(two, 1, 2, 3)
    network.frames = [frame for frame in network.frames for _ in range(2)]
    network.deliver()
    assert two.terms() == [1, 2, 3]
    assert dropped(two) == {"repeated": 3}


@pytest.mark.parametrize(
    ("ours", "theirs", "reasons"),
    [
        ({"secret": b"one"}, {"secret": b"two"}, ["unauthenticated", "unauthenticated"]),
        ({"secret": b"one"}, {"secret": None}, ["unauthenticated", "malformed"]),
        ({"secret": b"one", "cluster_id": "a"}, {"secret": b"one", "cluster_id": "b"}, ["unauthenticated"] * 2),
    ],
    ids=["other secret", "no secret", "other cluster"],
)
def test_nodes_with_different_secrets_do_not_hear_one_another(network, caplog, ours, theirs, reasons):
    """Without the same secret and cluster id nobody comes up, and both sides log why."""
    one, two = network.node("n1", **ours), network.node("n2", **theirs)
    one.links.set_targets(["n2"])
    two.links.set_targets(["n1"])
    network.run(SILENCE_S)
    assert one.told == two.told == []
    assert [list(dropped(one)), list(dropped(two))] == [[reason] for reason in reasons]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_a_flood_of_bad_frames_is_one_line(network, caplog):
    """Strangers cannot fill the log: one line per reason and interval."""
    one, _ = network.pair(secret=b"secret")
    for _ in range(100):
        one.links.receive(b"noise" * 20)
    network.now += QUIET_S
    one.links.receive(b"noise" * 20)
    lines = [record.getMessage() for record in caplog.records]
    assert [line.rpartition(" ")[2] for line in lines] == ["suppressed=0", "suppressed=99"]
    assert all("not authenticated" in line and "noise" not in line for line in lines)
    assert dropped(one) == {"unauthenticated": 101}


def test_damaged_frames_raise_nothing(network):
    """A frame cut off anywhere, or with any byte flipped, is dropped or taken, and never raises."""
    one, two = network.pair()
    one.links.set_info(INFO)
    one.links.send(two.member, append(20))
    frames = [data for _, data in network.frames]
    network.frames.clear()
    for data in frames:
        for end in range(len(data)):
            two.links.receive(data[:end])
        for at in range(len(data)):
            two.links.receive(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
    network.run(SILENCE_S + HELLO_S)
    assert two.links.is_up(one.member)


def test_strangers_cannot_fill_the_memory(network):
    """Beyond the bound nodes are refused while all others are heard; then the one silent for longest makes room.

    Targets never do.
    """
    one, two = network.pair()
    two.is_connected = False

    def stranger(number):
        source = Member(f"s{number:04}", f"{number:032x}")
        one.links.receive(forged(two, one, kind=FrameKind.HELLO, body=b"", source=source, destination="n1"))
        network.frames.clear()

    for number in reversed(range(1, PEERS_MAX)):
        network.now += 0.001
        stranger(number)
    assert len(one.links.statistics().peers) == PEERS_MAX
    stranger(0)
    assert dropped(one) == {"too_many_peers": 1}
    network.run(SILENCE_S + HELLO_S)
    stranger(0)
    names = [peer.node_id for peer in one.links.statistics().peers]
    assert names == ["n2", *(f"s{number:04}" for number in range(PEERS_MAX - 1))]


# ---- two processes with one node id


def test_the_newer_of_two_processes_is_heard(network, caplog):
    """Two living processes with one node id do not flap: the newer one is up, and one warning names both."""
    one, old = network.pair()
    new = network.node("n2", incarnation="f" * 32)
    new.links.set_targets(["n1"])
    network.run(3 * SILENCE_S)
    assert one.take_told() == [("down", old.member, "another incarnation runs"), ("up", new.member, NO_INFO)]
    assert new.take_told() == [("up", one.member, NO_INFO)]
    assert [event[0] for event in old.take_told()] == ["down"]
    warnings = [record.getMessage() for record in caplog.records if record.name == "raft.link.links"]
    assert len(warnings) == 1
    assert old.member.incarnation in warnings[0]
    assert new.member.incarnation in warnings[0]
    assert dropped(one)["old_session"] > 10
    old.links.restart()
    network.run(3 * SILENCE_S)
    assert [event[0] for event in one.take_told()] == ["down", "up"]
    assert one.links.is_up(old.member)
    assert len([record for record in caplog.records if record.name == "raft.link.links"]) == 1


@pytest.mark.parametrize(("silence_s", "count"), [(0.0, 1), (SILENCE_S, 0)])
def test_a_replaced_journal_is_suspicious_only_at_once(network, caplog, silence_s, count):
    """Another incarnation of a node that was just heard may be a second process; of one that was silent it is not."""
    _, two = network.pair()
    network.nodes.remove(two)
    network.run(silence_s)
    network.node("n2", incarnation="f" * 32).links.set_targets(["n1"])
    network.deliver()
    assert len([record for record in caplog.records if record.name == "raft.link.links"]) == count


def test_an_older_process_is_complained_about(network, caplog):
    """A process with a lower session and another incarnation is not followed, and a warning names both."""
    one, two = network.pair()
    older = network.node("n2", incarnation="f" * 32, session=5)
    older.links.set_targets(["n1"])
    network.deliver()
    assert one.links.up_members() == [two.member]
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "raft.link.links"]
    assert two.member.incarnation in warning
    assert older.member.incarnation in warning


def test_the_survivor_of_two_processes_is_heard(network):
    """When the newer process ends, the older one is heard again after a while."""
    one, old = network.pair()
    new = network.node("n2", incarnation="f" * 32)
    new.links.set_targets(["n1"])
    network.run(SILENCE_S)
    network.nodes.remove(new)
    network.run(FORGET_S + SILENCE_S)
    assert one.links.is_up(old.member)


def test_another_process_with_our_node_id_is_an_error(network, caplog):
    """Both processes with one node id hear of one another and say so, with both incarnations."""
    first = network.node("n1", incarnation="a" * 32)
    second = network.node("n1", incarnation="b" * 32)
    network.run(2 * HELLO_S)
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 2
    for error in errors:
        assert "another running node has our node id 'n1'" in error
        assert "a" * 32 in error
        assert "b" * 32 in error
    assert dropped(first)["own_node_id"] == dropped(second)["own_node_id"] >= 2
    assert first.told == second.told == []


def test_a_copy_of_our_journal_is_an_error(network):
    """Another process with even our incarnation is found by its session."""
    first, second = network.node("n1"), network.node("n1")
    network.run(HELLO_S)
    assert dropped(first)["own_node_id"] == dropped(second)["own_node_id"] >= 1


def test_our_own_hellos_are_no_error(network):
    """What we send to our own node id is ignored, also when it arrives after a reconnect."""
    one, _ = network.pair()
    network.now = one.links.next_deadline()
    one.links.tick()
    assert "n1" in [node_id for node_id, _ in network.frames]
    one.links.restart()
    network.deliver()
    network.run(SILENCE_S)
    assert dropped(one) == {}


def test_the_member_is_heard_of_two_processes(network, caplog):
    """A second process with a member's id drives it out nowhere, whichever began last, and is told of once."""
    one, two = network.pair()
    one.links.set_members([two.member])
    twin = network.node("n2", incarnation="f" * 32, session=10**6)
    twin.links.set_targets(["n1"])
    network.run(3 * SILENCE_S)
    assert one.links.is_up(two.member)
    assert not one.links.is_alive(Member("n2", "e" * 32))
    assert one.links.is_alive(twin.member)
    assert dropped(one)["rival"] > 0
    assert sum("two processes seem to run" in line for line in caplog.messages) <= 2
    network.nodes.remove(two)
    network.run(SILENCE_S + 3 * HELLO_S)
    assert not one.links.is_alive(two.member)
    assert one.links.is_up(twin.member)


def test_the_member_takes_its_place_back(network):
    """A process that was heard before the member began is not heard any more once the member says hello."""
    one, twin = network.pair()
    member = Member("n2", "f" * 32)
    one.links.set_members([member])
    again = network.node("n2", incarnation=member.incarnation, session=1)
    again.links.set_targets(["n1"])
    network.run(3 * HELLO_S)
    assert one.links.is_up(member)
    assert not one.links.is_up(twin.member)


def test_the_secret_is_of_the_cluster(network):
    """Every frame of a cluster with a secret carries a code by it; none does without."""
    one, two = network.pair(secret=b"secret")
    one.notify(two, 1)
    network.run(0.0)
    for node_id, data in [*network.frames, ("n2", forged(one, two, key=KEY))]:
        assert node_id == "n2"
        assert decode_frame(authenticate(data, KEY)).header.source == one.member
        with pytest.raises(WireError):
            authenticate(data, key_of(b"secret", "payments"))
