"""Making, resuming and ending subscriptions."""

import pytest

from store.machine import refusals
from store.machine.state import Refusal
from store.operations import CloseClient, CloseSubscription, CreateChannel, Progress, Subscribe, Unsubscribe
from store.ranges import Ranges
from tests.unit.store.builders import SETUP, UNLIMITED, Machine, connect, messages, subscribe


@pytest.fixture
def machine():
    """Client me, channel foo with ten messages."""
    machine = Machine(*SETUP)
    machine.publish(1, messages(1, 10))
    return machine


def test_new_subscription_starts_behind_last_sent(machine):
    """B223: the resolved start is in the operation."""
    assert machine.one(subscribe(1, last_sent=4)) is None
    subscription = machine.state.subscriptions[1]
    assert (subscription.last_sent, subscription.floor, subscription.acked) == (4, 4, Ranges())
    assert (subscription.client_id, subscription.channel_id, subscription.inbox) == ("me", 1, "inbox")
    assert (subscription.max_in_flight, subscription.ack_wait_s) == (10, 30)
    assert subscription.is_online
    assert list(machine.state.clients["me"].subscription_ids) == [1]
    assert list(machine.state.channels["foo"].subscription_ids) == [1]
    assert machine.state.durables == {}


@pytest.mark.parametrize(
    ("operation", "refusal"),
    [
        (subscribe(5, channel_id=9), refusals.UNKNOWN_CHANNEL),
        (subscribe(5, client_id="nobody"), refusals.UNKNOWN_CLIENT_ID),
        (subscribe(4, queue_group="q"), Refusal("subscription id 4 is not above all earlier ones")),
        (subscribe(2, durable="d"), refusals.DUPLICATE_DURABLE),  # online (B290)
        (subscribe(5, durable="d"), refusals.DUPLICATE_DURABLE),
        (subscribe(5, durable="gone"), refusals.DUPLICATE_DURABLE),  # offline, but under another id
        (subscribe(3, durable="other"), Refusal("subscription id 3 belongs to another subscription")),
        (subscribe(3, durable="gone", client_id="you"), Refusal("subscription id 3 belongs to another subscription")),
        (subscribe(1), refusals.DUPLICATE_DURABLE),
        (subscribe(4), Refusal("subscription id 4 is not above all earlier ones")),
        (subscribe(5, last_sent=11), Refusal("subscription starts behind 11, the channel ends with 10")),
        (CloseSubscription(3), refusals.INVALID_SUBSCRIPTION),  # offline already
        (CloseSubscription(4), refusals.INVALID_SUBSCRIPTION),
        (Unsubscribe(4), refusals.INVALID_SUBSCRIPTION),
    ],
)
def test_refusals_change_nothing(machine, operation, refusal):
    """Every refused operation leaves the subscriptions as they are."""
    machine.apply(connect("you"), subscribe(1), subscribe(2, durable="d"), subscribe(3, durable="gone"), subscribe(4))
    machine.apply(CloseSubscription(3), Unsubscribe(4))
    before = repr((machine.state.subscriptions, machine.state.durables, machine.state.clients, machine.state.channels))
    assert machine.one(operation) == refusal
    after = repr((machine.state.subscriptions, machine.state.durables, machine.state.clients, machine.state.channels))
    assert after == before
    assert machine.state.next_subscription_id == 5


def test_offline_durable_comes_back_with_its_progress(machine):
    """B283: progress is kept; inbox, ack inbox, max in flight and ack wait are the request's."""
    machine.apply(subscribe(1, durable="d"))
    record = machine.state.subscriptions[1]
    machine.apply(Progress(1, 8, 3, ((5, 6),)), CloseSubscription(1))
    assert not record.is_online
    assert machine.state.clients["me"].subscription_ids == {}
    assert machine.one(Subscribe(1, 1, "me", "new", "new.ack", "d", "", 2, 60, last_sent=0)) is None
    assert machine.state.subscriptions[1] is record is machine.state.durables["me", 1, "d"]
    assert (record.inbox, record.ack_inbox, record.max_in_flight, record.ack_wait_s) == ("new", "new.ack", 2, 60)
    assert (record.last_sent, record.floor, record.acked) == (8, 3, Ranges([(5, 6)]))
    assert record.is_online
    assert list(machine.state.clients["me"].subscription_ids) == [1]


def test_durable_outlives_its_client(machine):
    """B282: the same client id resumes it after it connected anew."""
    machine.apply(subscribe(1, durable="d"), CloseClient("me"))
    assert machine.one(subscribe(1, durable="d")) is refusals.UNKNOWN_CLIENT_ID
    machine.apply(connect("me"))
    assert machine.one(subscribe(1, durable="d")) is None
    assert machine.state.subscriptions[1].is_online


def test_durables_are_told_apart_by_all_three_parts(machine):
    """B280, B281: no collision of joined names."""
    machine.apply(CreateChannel(2, "k", UNLIMITED), connect("a"), connect("a-k-x"))
    assert machine.one(subscribe(1, channel_id=2, client_id="a", durable="x-k-y")) is None
    assert machine.one(subscribe(2, channel_id=2, client_id="a-k-x", durable="y")) is None
    assert machine.one(subscribe(3, channel_id=1, client_id="a", durable="x-k-y")) is None


@pytest.mark.parametrize(
    ("durable", "operation", "is_left"),
    [
        ("", CloseSubscription(1), False),
        ("", Unsubscribe(1), False),
        ("d", CloseSubscription(1), True),
        ("d", Unsubscribe(1), False),
    ],
)
def test_end_of_a_subscription(machine, durable, operation, is_left):
    """B350: only a closed durable is left, offline."""
    machine.apply(subscribe(1, durable=durable))
    assert machine.one(operation) is None
    state = machine.state
    assert list(state.subscriptions) == list(state.channels["foo"].subscription_ids) == [1] * is_left
    assert len(state.durables) == is_left
    assert state.clients["me"].subscription_ids == {}
    assert all(not subscription.is_online for subscription in state.subscriptions.values())


def test_unsubscribed_durable_starts_anew(machine):
    """B288: also when it was offline; the name is free for a new start position."""
    machine.apply(subscribe(1, durable="d"), Progress(1, 9, 9, ()), CloseSubscription(1))
    assert machine.one(Unsubscribe(1)) is None
    assert machine.one(subscribe(2, durable="d", last_sent=2)) is None
    assert machine.state.durables["me", 1, "d"].floor == 2
