"""The reference of delivery finds each kind of broken promise, and nothing in a correct run."""

import pytest

from tests.support.cluster.calm import Calm
from tests.support.cluster.delivery_check import Acked, Ended, Event, Kind, Opened, Received, Recording, check

MS = 1_000_000
CALM = Calm()
NEVER_CALM = Calm([(0, 10**15)])
ACK_WAIT_MS = 2000


def got(at_ms: int, sequence: int, count: int = 0, *, member: str = "m", redelivered: bool | None = None) -> Received:
    """A message; flagged when its count says so, unless told otherwise."""
    flag = count > 0 if redelivered is None else redelivered
    return Received(at_ms * MS, member, sequence, flag, count, f"id-{sequence}")


def acked(at_ms: int, sequence: int, *, member: str = "m") -> Acked:
    """An ack."""
    return Acked(at_ms * MS, member, sequence)


def opened(at_ms: int, *, member: str = "m") -> Opened:
    """An answer to a subscribe request."""
    return Opened(at_ms * MS, member)


def ended(at_ms: int, *, member: str = "m") -> Ended:
    """An answer to a close request."""
    return Ended(at_ms * MS, member)


def broken(
    *events: Event,
    kind: Kind = Kind.PLAIN,
    last: int = 0,
    max_in_flight: int = 100,
    start: int = 1,
    calm: Calm = CALM,
    holds_back: bool = False,
) -> list[str]:
    """The ids of what is broken; by default the channel ends with the highest sequence received."""
    recording = Recording("sub", "orders", kind, max_in_flight, ACK_WAIT_MS * MS, start)
    for event in events:
        recording.add(event)
    highest = last or max(recording.seen, default=0)
    return [violation.invariant for violation in check(recording, highest, calm, holds_back=holds_back)]


def test_correct_run_has_no_violation() -> None:
    """In order, acked, one of them redelivered after the ack wait with a rising count, nothing after the end."""
    assert (
        broken(
            opened(0),
            *(got(10, 1), acked(10, 1), got(20, 2), got(30, 3), acked(30, 3)),
            *(got(2020, 2, 1), got(4020, 2, 2), acked(4020, 2), ended(9000)),
        )
        == []
    )


def test_resumed_durable_gets_what_is_pending_at_once() -> None:
    """B284: what was not acked comes again on resume, flagged, before the ack wait and beyond max in flight."""
    events = (opened(0), got(10, 1), got(20, 2), acked(20, 2), ended(50), opened(100, member="n"))
    rest = (got(110, 1, 1, member="n"), acked(110, 1, member="n"), got(120, 3, member="n"))
    assert broken(*events, *rest, kind=Kind.DURABLE) == []


def test_members_of_a_group_share_and_inherit() -> None:
    """B312: what a member that left held comes to another one, flagged."""
    events = (opened(0, member="m"), opened(1, member="n"), got(10, 1, member="m"), got(11, 2, member="n"))
    assert broken(*events, ended(50, member="m"), got(150, 1, 1, member="n"), kind=Kind.GROUP) == []


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ((got(10, 2), got(20, 1)), "R9"),
        ((got(10, 1), got(20, 3), got(2500, 2, 1)), "R9"),
        ((got(10, 1), got(20, 1)), "R16"),
        ((got(10, 1), got(2020, 1, 1), got(4020, 1, 1)), "R16"),
        ((got(10, 1, 1), got(20, 1)), "R16"),
        ((got(10, 1, redelivered=True),), "R16"),
        ((got(10, 1, 1, redelivered=False),), "R16"),
        ((got(10, 1), got(900, 1, 1)), "R14"),
        ((opened(0), got(10, 1), acked(10, 1), got(9000, 1, 1)), "R11"),
        ((got(10, 1), ended(100), got(150, 2)), "R15"),
    ],
    ids=["falls", "skips", "twice", "same-count", "unflagged-later", "no-count", "no-flag", "early", "acked", "ended"],
)
def test_broken_promise_is_found(events: tuple[Event, ...], expected: str) -> None:
    """Each kind, alone."""
    assert expected in broken(*events)


def test_acked_message_of_a_resumed_durable_is_found() -> None:
    """R12: a durable's position does not go back behind what it acked."""
    events = (opened(0), got(10, 1), acked(10, 1), ended(3000), opened(4000, member="n"), got(4010, 1, 1, member="n"))
    assert broken(*events, kind=Kind.DURABLE) == ["R12"]


def test_group_message_to_two_members_is_found() -> None:
    """R13: unflagged, a sequence goes to exactly one member."""
    events = (opened(0, member="m"), opened(1, member="n"), got(10, 1, member="m"), got(12, 1, member="n"))
    assert broken(*events, kind=Kind.GROUP) == ["R13"]


def test_too_many_unacked_are_found() -> None:
    """R14: a new message while max in flight are unacked; a redelivered one is allowed (B265)."""
    assert broken(got(10, 1), got(11, 2), got(12, 3), max_in_flight=2) == ["R14"]
    assert broken(got(10, 1), got(11, 2), got(2010, 1, 1), max_in_flight=2) == []


@pytest.mark.parametrize("calm", [CALM, NEVER_CALM])
def test_missing_message_is_found(calm: Calm) -> None:
    """R10: in the end everything has arrived, whatever happened meanwhile."""
    assert broken(got(10, 1), got(20, 2), last=3, calm=calm) == ["R10"]


def test_start_sequence_is_respected() -> None:
    """R9, R10: nothing before the start position is awaited, and the first message is the start position's."""
    assert broken(opened(0), got(10, 5), got(11, 6), start=5) == []
    assert set(broken(opened(0), got(10, 6), got(11, 7), start=5)) == {"R9", "R10"}


@pytest.mark.parametrize(
    "events",
    [
        (got(10, 1), got(20, 3), got(2500, 2, 1)),
        (got(10, 1), got(900, 1, 1)),
        (got(10, 1), acked(10, 1), got(9000, 1, 1)),
        (got(10, 1), ended(100), got(150, 2)),
        (got(10, 1), got(2020, 1, 2), got(4020, 1, 1)),
    ],
    ids=["lost-on-the-way", "leader-changed", "ack-lost", "late", "count-anew"],
)
def test_what_a_broken_network_explains_is_no_violation(events: tuple[Event, ...]) -> None:
    """B237, B369, B271: outside calm these come from lost messages, lost acks and new leaders."""
    assert broken(*events, calm=NEVER_CALM) == []


def test_messages_held_back_explain_a_wrong_order_only_outside_calm() -> None:
    """An old leader's message that waited in a paused server arrives behind a new leader's."""
    events = (got(10, 2), got(20, 1))
    assert "R9" not in broken(*events, calm=NEVER_CALM, holds_back=True)
    assert "R9" in broken(*events, calm=NEVER_CALM, holds_back=False)
    assert "R9" in broken(*events, calm=CALM, holds_back=True)


def test_unflagged_twice_is_a_violation_whatever_happens() -> None:
    """B394: a possible duplicate is marked, always."""
    assert broken(got(10, 1), got(5000, 1), calm=NEVER_CALM, holds_back=True) == ["R16"]


def test_calm_joins_and_widens_what_disturbs() -> None:
    """Two disturbances that touch are one; each reaches a little before and after itself."""
    calm = Calm.except_for([(100, 200), (250, 300), (1000, 1000)], before_ns=10, after_ns=50)
    assert calm.disturbed == [(90, 350), (990, 1050)]
    assert calm.covers(351, 989)
    assert not calm.covers(300, 400)
    assert not calm.covers(0, 2000)
