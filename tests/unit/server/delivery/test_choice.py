"""Which member gets a message, against the rules followed one message at a time."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from server.delivery import choice


@dataclass(eq=False)
class One:
    """A member."""

    name: int
    max_in_flight: int
    pending_number: int
    failing: bool


members = st.lists(
    st.builds(
        lambda room, pending, failing: (room, pending, failing),
        st.integers(1, 12),
        st.integers(0, 14),
        st.sampled_from([False, False, True]),
    ),
    min_size=1,
    max_size=6,
)


def build(specs):
    return [One(name, room, pending, failing) for name, (room, pending, failing) in enumerate(specs)]


def is_failing(one):
    return one.failing


def slowly(order):
    """B305 to B307 word by word: the next receiver, or None."""
    able = [one for one in order if one.pending_number < one.max_in_flight]
    if not able:
        return None
    healthy = [one for one in able if not one.failing]
    chosen = healthy[0] if healthy else able[0]
    for one in healthy:
        if one.pending_number < chosen.pending_number:
            chosen = one
    chosen.pending_number += 1
    if order[0] is chosen:
        order.append(order.pop(0))
    return chosen


@given(members, st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_deals_like_the_rules(specs, counts):
    """B305 to B308: in batches as message by message, and the order afterwards is the same, too."""
    order, expected_order = build(specs), build(specs)
    for count in counts:
        room = choice.room(order, is_failing)
        assert (room == 0) == all(one.pending_number >= one.max_in_flight for one in order)
        wanted = min(room, count)
        dealt = [one.name for one in choice.deal(order, is_failing, wanted)]
        assert dealt == [slowly(expected_order).name for _ in range(wanted)]
        assert [one.name for one in order] == [one.name for one in expected_order]
        assert [one.pending_number for one in order] == [one.pending_number for one in expected_order]


def test_equal_members_in_turn():
    """B305: twelve messages on three members."""
    order = build([(100, 0, False)] * 3)
    assert [one.name for one in choice.deal(order, is_failing, 12)] == [0, 1, 2] * 4


def test_failing_members_only_when_no_other_has_room():
    """B306: first the healthy ones, as much as they take; then the first that has room."""
    order = build([(10, 0, True), (3, 1, False), (10, 9, True)])
    assert choice.room(order, is_failing) == 2
    assert [one.name for one in choice.deal(order, is_failing, 2)] == [1, 1]
    assert choice.room(order, is_failing) == 11
    assert [one.name for one in choice.deal(order, is_failing, 3)] == [0, 2, 0]


@given(members)
def test_redelivery_goes_to_the_best_or_the_first(specs):
    """B309: as a new message would, else the first, even if it is full."""
    order = build(specs)
    names = [one.name for one in order]
    healthy = [one for one in order if one.pending_number < one.max_in_flight and not one.failing]
    best = min(healthy, key=lambda one: one.pending_number) if healthy else order[0]
    assert choice.choose_again(order, is_failing) is best
    assert [one.name for one in order] == (names[1:] + names[:1] if best.name == names[0] else names)
