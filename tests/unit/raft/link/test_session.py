"""Covers raft/link/session.py: which frames of a node are taken, and how slices become messages."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft.link import session as session_module
from raft.link.drops import DropReason
from raft.link.frame import Frame, FrameKind, Header, cut
from raft.link.session import Arrival, Opening, Session
from raft.membership import Member
from raft.wire import MESSAGE_MAX_BYTES

N1 = Member("n1", "1" * 32)
REBORN = Member("n1", "2" * 32)
OURS = 50
"""Our session in these tests."""


def hello(sequence: int, *, session: int = 17, source: Member = N1, destination_session: int = OURS) -> Header:
    return Header(
        kind=FrameKind.HELLO,
        source=source,
        source_session=session,
        destination="n2",
        destination_session=destination_session,
        sequence=sequence,
    )


def data(sequence: int, body: bytes = b"body", number: int = 0, count: int = 1, **changes) -> Frame:
    header = dataclasses.replace(
        hello(sequence), kind=FrameKind.DATA, fragment_number=number, fragment_count=count, **changes
    )
    return Frame(header, body)


def take_hello(session: Session, header: Header, *, is_forgotten: bool = False) -> Opening | DropReason:
    return session.take_hello(header, own_session=OURS, is_forgotten=is_forgotten)


@pytest.fixture
def opened():
    """A session that has taken a hello with sequence 1."""
    session = Session()
    assert take_hello(session, hello(1)) == Opening(is_new=True, is_gap=False)
    return session


def receive(session: Session, *frames: Frame) -> list[Arrival]:
    """What the frames bring, all of them allowed."""
    arrivals = []
    for frame in frames:
        assert session.refusal(frame.header, OURS) is None
        arrivals.append(session.take(frame))
    return arrivals


def brought(message: bytes | None = None, *, is_gap: bool = False, dropped: DropReason | None = None) -> Arrival:
    return Arrival(message, is_gap, dropped)


# ---- sessions


def test_the_first_hello_opens_wherever_the_stream_is():
    """What came before the first hello that was heard is none of our business: no gap."""
    session = Session()
    assert take_hello(session, hello(9)) == Opening(is_new=True, is_gap=False)
    assert (session.member, session.session, session.last_sequence) == (N1, 17, 9)
    assert receive(session, data(10)) == [brought(b"body")]


def test_a_higher_session_replaces_the_known_one(opened):
    """After a restart of the node everything before is forgotten, and its frames count from 1 again."""
    receive(opened, data(2), data(3))
    assert take_hello(opened, hello(1, session=18)) == Opening(is_new=True, is_gap=False)
    assert opened.refusal(data(4).header, OURS) is DropReason.OLD_SESSION
    assert receive(opened, data(2, source_session=18)) == [brought(b"body")]


@pytest.mark.parametrize(
    ("header", "is_forgotten"),
    [
        (hello(9, session=16, destination_session=0), False),
        (hello(9, session=16, source=REBORN, destination_session=0), False),
        (hello(9, session=17, source=REBORN, destination_session=0), False),
        (hello(9, session=16, destination_session=0), True),
        (hello(9, session=16, destination_session=OURS - 1), True),
    ],
    ids=["lower", "lower of another", "equal of another", "silent and does not hear us", "heard us earlier"],
)
def test_lower_sessions_are_dropped(opened, header, is_forgotten):
    """A hello that was delayed or recorded does not bring an old session back."""
    assert take_hello(opened, header, is_forgotten=is_forgotten) is DropReason.OLD_SESSION
    assert (opened.member, opened.session, opened.last_sequence) == (N1, 17, 1)


def test_a_node_whose_clock_was_set_back_comes_back(opened):
    """A lower session is taken from a node that hears our current session."""
    assert take_hello(opened, hello(3, session=5), is_forgotten=False) == Opening(is_new=True, is_gap=False)
    assert (opened.session, opened.last_sequence) == (5, 3)


def test_a_session_that_was_replaced_comes_back_only_after_long_silence(opened):
    """A hello of a session before the last restart, delayed or recorded, is not the node that runs now."""
    assert take_hello(opened, hello(3, session=5)) == Opening(is_new=True, is_gap=False)
    assert take_hello(opened, hello(4, session=17), is_forgotten=False) == Opening(is_new=True, is_gap=False)
    assert take_hello(opened, hello(9, session=5), is_forgotten=False) is DropReason.OLD_SESSION
    assert take_hello(opened, hello(9, session=5), is_forgotten=True) == Opening(is_new=True, is_gap=False)


def test_another_incarnation_is_another_session(opened):
    """A node that lost its journal comes back with a higher session; the earlier incarnation is not taken any more."""
    assert take_hello(opened, hello(1, session=18, source=REBORN)) == Opening(is_new=True, is_gap=False)
    assert opened.member == REBORN
    assert opened.refusal(data(5, source_session=18).header, OURS) is DropReason.OLD_SESSION


def test_hellos_are_taken_once(opened):
    """A hello that was repeated or overtaken is dropped."""
    assert take_hello(opened, hello(1)) is DropReason.REPEATED
    assert take_hello(opened, hello(2)) == Opening(is_new=False, is_gap=False)
    receive(opened, data(3))
    assert take_hello(opened, hello(3)) is DropReason.REPEATED


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"source_session": 16}, DropReason.OLD_SESSION),
        ({"source_session": 18}, DropReason.NO_HELLO),
        ({"source": REBORN}, DropReason.OLD_SESSION),
        ({"destination_session": OURS - 1}, DropReason.OTHER_DESTINATION),
        ({"destination_session": OURS + 1}, DropReason.OTHER_DESTINATION),
        ({"destination_session": 0}, DropReason.OTHER_DESTINATION),
        ({"sequence": 2}, DropReason.REPEATED),
        ({"sequence": 1}, DropReason.REPEATED),
        ({"sequence": 3}, None),
        ({"sequence": 4}, None),
    ],
)
def test_data_is_refused_unless_it_is_of_this_link(opened, changes, reason):
    """Data needs the known session, our current one, and a sequence above the last: nothing from before a restart."""
    receive(opened, data(2))
    header = dataclasses.replace(data(3).header, **changes)
    assert opened.refusal(header, OURS) is reason


def test_data_before_any_hello_is_refused():
    """A node that has not said hello is not listened to."""
    assert Session().refusal(data(1).header, OURS) is DropReason.NO_HELLO


def test_our_frames_are_numbered_per_session():
    """Our sequences count from 1 in every session of ours."""
    session = Session()
    assert [session.next_sequence() for _ in range(3)] == [1, 2, 3]
    session.restarted()
    assert session.next_sequence() == 1


# ---- gaps


def test_a_jump_is_told_once_and_the_stream_goes_on(opened):
    """Behind a lost frame the next one tells of the gap and is taken; what follows is as usual."""
    arrivals = receive(opened, data(2), data(5, b"five"), data(6, b"six"), data(9, b"nine"))
    assert arrivals == [brought(b"body"), brought(b"five", is_gap=True), brought(b"six"), brought(b"nine", is_gap=True)]


def test_a_hello_shows_that_the_last_message_was_lost(opened):
    """A hello takes a sequence too: when it is not the next one, something before it was lost."""
    receive(opened, data(2))
    assert take_hello(opened, hello(4)) == Opening(is_new=False, is_gap=True)
    assert take_hello(opened, hello(5)) == Opening(is_new=False, is_gap=False)
    assert receive(opened, data(6)) == [brought(b"body")]


# ---- slices


def slices(first: int, count: int, *, size: int = 4) -> list[Frame]:
    """A message of `count` slices from sequence `first` on; the slice n is full of the digit n."""
    return [data(first + at, str(at).encode() * size, at, count) for at in range(count)]


def test_slices_become_a_message(opened):
    """Consecutive slices are put together; messages follow one another in any mixture of sizes."""
    arrivals = receive(opened, *slices(2, 3), data(5, b"whole"), *slices(6, 2))
    assert [arrival.message for arrival in arrivals] == [None, None, b"000011112222", b"whole", None, b"00001111"]
    assert not any(arrival.is_gap or arrival.dropped for arrival in arrivals)


@pytest.mark.parametrize("lost", range(3))
def test_a_message_with_a_lost_slice_is_dropped_and_told_once(opened, lost):
    """Whichever slice is lost, the message does not arrive, one gap is told, and the next message arrives."""
    frames = [*slices(2, 3), data(5, b"next"), data(6, b"last")]
    del frames[lost]
    arrivals = receive(opened, *frames)
    assert [arrival.message for arrival in arrivals if arrival.message] == [b"next", b"last"]
    assert sum(arrival.is_gap for arrival in arrivals) == 1
    assert all(arrival.dropped in {None, DropReason.FRAGMENT} for arrival in arrivals)


def test_slices_of_two_messages_are_never_joined(opened):
    """When the end of one message and the beginning of the next are lost, what is left of both makes no message."""
    arrivals = receive(opened, *slices(2, 3)[:2], slices(5, 3)[2])
    assert arrivals == [brought(), brought(), brought(is_gap=True, dropped=DropReason.FRAGMENT)]


def test_a_hello_within_a_message_tears_it(opened):
    """Nobody says hello in the middle of a message: what was put together is dropped, and it is a gap."""
    one, two, three = slices(2, 3)
    receive(opened, one)
    assert take_hello(opened, hello(3)) == Opening(is_new=False, is_gap=True)
    moved = [dataclasses.replace(frame, header=dataclasses.replace(frame.header, sequence=at)) for at, frame in
             [(4, two), (5, three)]]  # fmt: skip
    assert receive(opened, *moved, data(6)) == [
        brought(dropped=DropReason.FRAGMENT),
        brought(dropped=DropReason.FRAGMENT),
        brought(b"body"),
    ]


def test_a_new_session_of_ours_tears_a_message(opened):
    """After a reconnect of ours the rest of a message does not complete what came before."""
    first, second = slices(2, 2)
    receive(opened, first)
    opened.restarted()
    assert receive(opened, second) == [brought(is_gap=True, dropped=DropReason.FRAGMENT)]


@pytest.mark.parametrize(
    ("frames", "messages"),
    [
        ([data(2, number=1, count=3), data(3, number=2, count=3)], []),
        ([data(2, number=0, count=3), data(3, number=2, count=3)], []),
        ([data(2, number=0, count=3), data(3, number=1, count=4)], []),
        ([data(2, number=0, count=3), data(3, number=1, count=3), data(4, number=1, count=3)], []),
        ([data(2, number=0, count=3), data(3, b"whole")], [b"whole"]),
        ([data(2, number=0, count=3), data(3, b"a", 0, 2), data(4, b"b", 1, 2)], [b"ab"]),
    ],
    ids=["no beginning", "skipped", "other count", "twice", "unfinished", "begun anew"],
)
def test_slices_in_any_other_order_are_dropped_and_told_once(opened, frames, messages):
    """Slices that do not follow one another never make a message; it is counted, and one gap is told."""
    arrivals = receive(opened, *frames)
    assert [bytes(arrival.message) for arrival in arrivals if arrival.message] == messages
    assert sum(arrival.is_gap for arrival in arrivals) == 1
    assert DropReason.FRAGMENT in {arrival.dropped for arrival in arrivals}
    assert receive(opened, data(9, number=0, count=2), data(10, number=1, count=2))[-1].message == b"bodybody"


def test_a_message_that_is_too_large_is_dropped(opened, monkeypatch):
    """Slices are put together up to the bound and not a byte beyond."""
    monkeypatch.setattr(session_module, "MESSAGE_MAX_BYTES", 12)
    assert receive(opened, *slices(2, 3))[-1] == brought(b"000011112222")
    arrivals = receive(opened, *slices(5, 5, size=4))
    assert arrivals[2:] == [
        brought(),
        brought(is_gap=True, dropped=DropReason.OVERSIZED),
        brought(dropped=DropReason.FRAGMENT),
    ]
    assert receive(opened, data(10)) == [brought(b"body")]


def test_the_bound_is_that_of_a_message(opened):
    """The largest message there is can be put together, a larger one cannot."""
    half = bytes(MESSAGE_MAX_BYTES // 2)
    arrivals = receive(opened, data(2, half, 0, 2), data(3, half, 1, 2))
    assert len(arrivals[-1].message) == MESSAGE_MAX_BYTES
    arrivals = receive(opened, data(4, half, 0, 3), data(5, half, 1, 3), data(6, b"x", 2, 3))
    assert arrivals[-1] == brought(is_gap=True, dropped=DropReason.OVERSIZED)


@given(st.binary(min_size=1, max_size=60), st.integers(1, 70))
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_what_was_cut_comes_together(message, limit):
    """At every limit the slices of a message bring it back as a whole, and nothing earlier."""
    session = Session()
    take_hello(session, hello(1))
    bodies = [b"".join(pieces) for pieces in cut([message[:7], message[7:]], limit)]
    frames = [data(2 + at, body, at, len(bodies)) for at, body in enumerate(bodies)]
    arrivals = receive(session, *frames)
    assert [arrival.message for arrival in arrivals] == [None] * (len(bodies) - 1) + [message]


events = st.lists(st.tuples(st.sampled_from(["hello", "data"]), st.integers(1, 12), st.integers(0, 2)), max_size=40)


@given(events)
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_whatever_order_frames_come_in_messages_come_in_theirs(frames):
    """Lost, repeated and overtaken frames never bring a message twice, nor after a later one."""
    session, sequences = Session(), []
    take_hello(session, hello(1))
    for kind, sequence, number in frames:
        if kind == "hello":
            take_hello(session, hello(sequence))
            continue
        frame = data(sequence, str(sequence).encode().zfill(2), number if number < 2 else 0, 2 if number < 2 else 1)
        if session.refusal(frame.header, OURS) is None:
            message = session.take(frame).message
            if message is not None:
                body = bytes(message).decode()
                sequences += [int(body[at : at + 2]) for at in range(0, len(body), 2)]
    assert sequences == sorted(set(sequences))
