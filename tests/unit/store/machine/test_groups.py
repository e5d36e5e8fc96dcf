"""Queue groups in the replicated state: joining, leaving, progress."""

from array import array

import pytest

from store.holders import SLOT_MAX
from store.machine import groups, refusals
from store.machine.state import Refusal
from store.operations import (
    BeginLeadership,
    CleanStop,
    CloseClient,
    CloseSubscription,
    CreateChannel,
    DeleteChannel,
    GroupProgress,
    Progress,
    Unsubscribe,
)
from tests.support.store_digest import digest_state
from tests.unit.store.builders import SETUP, UNLIMITED, Machine, connect, messages, subscribe


@pytest.fixture
def machine():
    """Clients me and you, channel foo with 20 messages."""
    machine = Machine(*SETUP, connect("you"))
    machine.publish(1, messages(1, 20))
    return machine


def progress(last_sent, sent="", *, group_id=1, floor=0, acked=(), moved=(), first=1):
    """`sent`: a digit for each sequence from `first` on."""
    return GroupProgress(group_id, last_sent, floor, acked, moved, first, array("H", map(int, sent)).tobytes())


def held(machine, group_id=1):
    """Sequences by slot."""
    group = machine.state.groups[group_id]
    found: dict[int, list[int]] = {}
    for seq in group.holders.held():
        found.setdefault(group.holders.at(seq), []).append(seq)
    return found


def member(number, group="g", **options):
    return subscribe(number, queue_group=group, inbox=f"in{number}", **options)


def test_members_share_one_progress(machine):
    """B300, B303: the first member decides where the group starts; later ones start where it is (B222)."""
    machine.apply(member(1, last_sent=4), member(2, last_sent=11, client_id="you"))
    (group,) = machine.state.groups.values()
    assert (group.holders.floor, group.holders.last, group.suspect_to) == (4, 4, 0)
    assert [(slot, one.subscription_id) for slot, one in group.members.items()] == [(1, 1), (2, 2)]
    assert [one.is_online for one in group.members.values()] == [True, True]
    assert machine.one(progress(8, "1202", first=5)) is None
    assert (group.holders.floor, group.holders.last, held(machine)) == (4, 8, {1: [5], 2: [6, 8]})


def test_identity(machine):
    """B300 to B302: channel, durable name and group name; the client is not part of it, and nothing is joined by colons."""
    machine.apply(CreateChannel(2, "bar", UNLIMITED))
    machine.apply(
        member(1, "g"),
        member(2, "d:g"),
        member(3, "g", durable="d"),
        member(4, "g", durable="d", client_id="you"),
        member(5, "g", channel_id=2),
        member(6, "h", durable="d"),
        subscribe(7, durable="d"),
    )
    assert {key: sorted(one.members) for key, one in machine.state.groups_by_key.items()} == {
        (1, "", "g"): [1],
        (1, "", "d:g"): [1],
        (1, "d", "g"): [1, 2],
        (2, "", "g"): [1],
        (1, "d", "h"): [1],
    }
    assert list(machine.state.durables) == [("me", 1, "d")]
    assert list(machine.state.channels["foo"].group_ids) == [1, 2, 3, 6]


def test_progress_of_a_group(machine):
    """B245, B310: acks, moves and new sequences in one operation; the floor moves over what is acked."""
    machine.apply(member(1), member(2))
    assert machine.one(progress(6, "121212")) is None
    assert machine.one(progress(9, "021", floor=1, acked=(2, 4), moved=((3, 2),), first=7)) is None
    assert held(machine) == {1: [5, 9], 2: [3, 6, 8]}
    assert machine.state.groups[1].holders.floor == 2
    assert machine.one(progress(12, floor=12)) is None
    assert (machine.state.groups[1].holders.floor, held(machine)) == (12, {})


@pytest.mark.parametrize(
    ("operation", "text"),
    [
        (progress(21, "1", first=7), "progress says 21 was sent, which is beyond the channel's end"),
        (progress(8, floor=9), "progress acks up to 9, sent is 8"),
        (progress(8, acked=(9,)), "progress acks up to 9, sent is 8"),
        (progress(6, acked=(7,)), "progress acks up to 7, sent is 6"),
        (progress(9, "11", first=8), "progress says who holds 8 to 9, known is 6, sent is 9"),
        (progress(9, "11", first=6), "progress says who holds 6 to 7, known is 6, sent is 9"),
        (progress(9, "1111", first=7), "progress says who holds 7 to 10, known is 6, sent is 9"),
        (progress(9, "11", first=7, group_id=3), refusals.INVALID_SUBSCRIPTION.text),
        (Progress(1, 9, 9, ()), refusals.INVALID_SUBSCRIPTION.text),
    ],
)
def test_progress_that_would_lose_messages_is_refused(machine, operation, text):
    """B394: nothing is applied of a report with a gap, or with acks of what was not sent."""
    machine.apply(member(1), member(2))
    machine.apply(progress(6, "121212"))
    before = digest_state(machine.state)
    assert machine.one(operation) == Refusal(text)
    assert digest_state(machine.state) == before


def test_pending_of_a_leaving_member_is_dealt_to_the_others(machine):
    """B312, B313: in turn, in the order they joined, within the operation that ends the member."""
    machine.apply(member(1), member(2), member(3), member(4))
    machine.apply(progress(10, "1323213211"))
    assert machine.one(CloseSubscription(3)) is None
    assert held(machine) == {1: [1, 2, 6, 9, 10], 2: [3, 4, 5, 8], 4: [7]}
    assert 3 not in machine.state.subscriptions
    assert machine.one(Unsubscribe(1)) is None
    assert held(machine) == {2: [1, 3, 4, 5, 6, 8, 10], 4: [2, 7, 9]}
    machine.apply(member(5))
    assert list(machine.state.groups[1].members) == [2, 4, 1]  # the lowest free slot, but last in the order
    machine.apply(CloseSubscription(4))
    assert held(machine) == {2: [1, 2, 3, 4, 5, 6, 8, 9, 10], 1: [7]}


def test_end_of_a_client_takes_its_members_out(machine):
    """B345, B312: one after the other; what the first one passes to the second ends with those who stay."""
    machine.apply(member(1), member(2), member(3, client_id="you"))
    machine.apply(progress(6, "112233"))
    machine.apply(CloseClient("me"))
    assert held(machine) == {3: [1, 2, 3, 4, 5, 6]}


@pytest.mark.parametrize(
    ("durable", "end", "stays"),
    [
        ("", CloseSubscription(1), False),
        ("", Unsubscribe(1), False),
        ("", CloseClient("me"), False),
        ("d", CloseSubscription(1), True),
        ("d", Unsubscribe(1), False),
        ("d", CloseClient("me"), True),
    ],
)
def test_last_member_leaves(machine, durable, end, stays):
    """B314, B315, B350: only a durable group whose last member does not unsubscribe stays, with its pending."""
    machine.apply(member(1, durable=durable))
    machine.apply(progress(6, "110110"))
    machine.apply(end)
    channel = machine.state.channels["foo"]
    assert machine.state.subscriptions == {}
    if not stays:
        assert (machine.state.groups, machine.state.groups_by_key, channel.group_ids) == ({}, {}, {})
        assert channel.offline_groups == 0
        machine.apply(connect("me") if isinstance(end, CloseClient) else CleanStop())
        machine.apply(member(2, durable=durable, last_sent=9))
        assert machine.state.groups[2].holders.last == 9
        return
    group = machine.state.groups[1]
    assert (group.members, group.holders.last, group.holders.held()) == ({}, 6, [1, 2, 4, 5])
    assert channel.offline_groups == 1
    machine.apply(member(2, durable="d", client_id="you", last_sent=15))
    assert (held(machine), group.holders.last, channel.offline_groups) == ({1: [1, 2, 4, 5]}, 6, 0)


def test_offline_group_passes_to_whatever_slot_comes_first(machine):
    """B316: the first member to join has everything, whoever held it."""
    machine.apply(member(1, durable="d"), member(2, durable="d"))
    machine.apply(progress(4, "1221"))
    machine.apply(CloseSubscription(1), CloseSubscription(2))
    assert machine.state.groups[1].holders.held() == [1, 2, 3, 4]
    machine.apply(member(3, durable="d"), member(4, durable="d"))
    assert held(machine) == {1: [1, 2, 3, 4]}


def test_slot_of_a_member_that_left_is_taken_over(machine):
    """B394: a report made before a member left may name its slot: the messages go to the others."""
    machine.apply(member(1), member(2), member(3))
    machine.apply(progress(2, "12"))
    machine.apply(CloseSubscription(2))
    assert machine.one(progress(8, "222132", first=3, moved=((1, 2),))) is None
    assert held(machine) == {1: [1, 2, 4, 6, 8], 3: [3, 5, 7]} or held(machine) == {1: [1, 2, 4, 6], 3: [3, 5, 7, 8]}


def test_deletion_of_the_channel_takes_its_groups(machine):
    """B336: with members or offline."""
    machine.apply(member(1), member(2, "h", durable="d"))
    machine.apply(CloseSubscription(2), DeleteChannel(1))
    assert (machine.state.groups, machine.state.groups_by_key, machine.state.subscriptions) == ({}, {}, {})


def test_unclean_leader_may_have_sent_more(machine):
    """B394: up to there messages are suspect; an offline group has exact progress."""
    machine.apply(member(1), member(2, "off", durable="d"), CloseSubscription(2))
    machine.apply(progress(6, "1"))
    machine.apply(BeginLeadership(9))
    assert [one.suspect_to for one in machine.state.groups.values()] == [15, 0]
    machine.apply(CleanStop())
    machine.apply(BeginLeadership(11))
    assert machine.state.groups[1].suspect_to == 15


def test_number_of_members_is_bounded(machine, monkeypatch):
    """A slot takes two bytes: the member that would need more is refused."""
    monkeypatch.setattr(groups, "SLOT_MAX", 2)
    machine.apply(member(1), member(2))
    before = digest_state(machine.state)
    assert machine.one(member(3)) == refusals.TOO_MANY_SUBSCRIPTIONS
    assert digest_state(machine.state) == before
    assert SLOT_MAX == 2**16 - 1
