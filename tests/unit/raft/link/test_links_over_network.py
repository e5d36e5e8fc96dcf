"""Covers raft/link/links.py over a network that loses, repeats and reorders frames while processes reconnect.

Whatever happens, each side is told up and down in turn; messages come once, in order and only from who is up; and no message
is missing between two others without a gap or a new beginning in between. In the end the link heals.
"""

from hypothesis import given, settings
from hypothesis import strategies as st

from raft.link.links import SILENCE_S
from raft.messages import Append
from tests.unit.raft.link.network import Network

MESSAGE_BYTES = 700
FRAME_BYTES = 500

sides = st.integers(0, 1)
places = st.integers(0, 30)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), sides, st.integers(1, 4)),
        st.tuples(st.just("lose"), places, st.integers(1, 3)),
        st.tuples(st.just("swap"), places, places),
        st.tuples(st.just("repeat"), places, places),
        st.tuples(st.just("arrive"), st.integers(1, 10), st.none()),
        st.tuples(st.just("restart"), sides, st.none()),
        st.tuples(st.just("pass"), st.sampled_from([0.1, 0.3, 2.5]), st.booleans()),
    ),
    max_size=60,
)


def send(network, side, count):
    """Send numbered messages, every other one in slices, as long as the other node is up."""
    sender, receiver = network.nodes[side], network.nodes[1 - side]
    for _ in range(count):
        if sender.links.is_up(receiver.member):
            network.serials[side] += 1
            serial = network.serials[side]
            entries = [(bytes(MESSAGE_BYTES), 2, 1)] if serial % 2 else []
            sender.links.send(receiver.member, Append(1, 1, 1, 1, serial, entries))


def take(network, name, first, second):
    """One step of a history."""
    frames = network.frames
    match name:
        case "send":
            send(network, first, second)
        case "lose":
            del frames[first : first + second]
        case "swap" if max(first, second) < len(frames):
            frames[first], frames[second] = frames[second], frames[first]
        case "repeat" if first < len(frames):
            frames.insert(second, frames[first])
        case "arrive":
            for _ in range(min(first, len(frames))):
                network.arrive(*frames.pop(0))
        case "restart":
            network.nodes[first].links.restart()
        case "pass":
            network.run(first, lose=(lambda node_id, data: True) if second else None)


def check_told(told, other):
    """The events of one side keep the promises above."""
    is_up, last, is_excused = False, 0, True
    for name, member, *rest in told:
        assert member == other
        assert is_up is (name != "up")
        match name:
            case "up" | "down":
                is_up, is_excused = name == "up", True
            case "gap":
                is_excused = True
            case "message":
                serial = rest[0].round
                assert serial > last, "a message came twice, or late"
                assert is_excused or serial == last + 1, "a message is missing, and nobody was told"
                last, is_excused = serial, False
    return is_up


@given(steps, st.booleans())
@settings(max_examples=250, deadline=None, derandomize=True, database=None)
def test_messages_come_once_in_order_and_losses_are_told(history, is_authenticated):
    """Loss, repetition, reordering, silence and reconnects in any combination break none of the promises above."""
    network = Network()
    network.serials = [0, 0]
    one, two = (network.node(name, secret=b"secret" if is_authenticated else None) for name in ("n1", "n2"))
    one.max_bytes = two.max_bytes = FRAME_BYTES
    one.links.set_targets(["n2"])
    for step in history:
        take(network, *step)
    network.deliver()
    network.run(SILENCE_S + 1.0)
    for sender, receiver in ((one, two), (two, one)):
        assert check_told(receiver.told, sender.member)
        assert receiver.links.is_up(sender.member)
    for side in (0, 1):
        send(network, side, 3)
    network.deliver()
    for side, receiver in ((0, two), (1, one)):
        assert check_told(receiver.told, network.nodes[side].member)
        assert [event[2].round for event in receiver.told[-3:]] == list(
            range(network.serials[side] - 2, network.serials[side] + 1)
        )


def test_the_same_history_has_the_same_outcome():
    """Nothing depends on the order of targets, real time or chance: two runs send and tell the same."""
    outcomes = []
    for targets in (["n1", "n2", "n3"], ["n3", "n2", "n1", "n2"]):
        network = Network()
        nodes = [network.node(f"n{at}") for at in (3, 1, 2)]
        sent = []
        for node in nodes:
            node.send = lambda node_id, parts, keep=network.frames, all_sent=sent: (
                all_sent.append((node_id, b"".join(parts))),
                keep.append((node_id, b"".join(parts))),
            )
            node.links.set_targets(targets)
        network.run(1.0)
        nodes[0].links.restart()
        network.run(SILENCE_S)
        outcomes.append((sent, [node.told for node in nodes]))
    assert outcomes[0] == outcomes[1]
