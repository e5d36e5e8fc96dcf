"""The cluster's identity, and when progress counts as exact."""

import pytest

from store.machine import cluster
from store.machine.state import Refusal
from store.operations import BeginLeadership, CleanStop, CloseSubscription, CreateChannel, InitCluster, Limits
from tests.unit.store.builders import Machine, append, connect, messages, subscribe


def test_identity_is_set_once():
    """The first InitCluster counts; the same again does nothing, another one is refused."""
    machine = Machine()
    assert machine.one(InitCluster("c", "t")) is None
    assert machine.one(InitCluster("c", "t")) is None
    assert machine.one(InitCluster("c", "other")) == Refusal('cluster is initialized as "c" already')
    assert machine.one(InitCluster("other", "t")) == Refusal('cluster is initialized as "c" already')
    assert (machine.state.cluster_id, machine.state.ack_inbox_token) == ("c", "t")


@pytest.mark.parametrize("operation", [InitCluster("", "t"), InitCluster("c", "")])
def test_identity_is_not_empty(operation):
    """Half an identity is refused."""
    machine = Machine()
    assert isinstance(machine.one(operation), Refusal)
    assert (machine.state.cluster_id, machine.state.ack_inbox_token) == ("", "")


def test_clean_stop_makes_progress_exact_until_anything_follows():
    """Progress is exact after an entry that ends with CleanStop, and not after any later operation."""
    machine = Machine()
    assert not machine.state.progress_is_exact
    machine.apply(connect("a"), CleanStop())
    assert machine.state.progress_is_exact
    machine.apply(connect("a"))  # refused, but a leader was at work
    assert not machine.state.progress_is_exact
    machine.apply(CleanStop(), connect("b"))
    assert not machine.state.progress_is_exact
    machine.apply(CleanStop())
    machine.apply()
    assert not machine.state.progress_is_exact


def test_newest_configuration_is_kept():
    """It is opaque, is to be written, and is no work of a leader that could have sent anything."""
    machine = Machine(CleanStop())
    machine.state.changes.is_cluster_changed = False
    for content in (b"\0\1", b"", b"later"):
        cluster.configure(machine.state, content)
        assert machine.state.configuration == content
    assert machine.state.changes.is_cluster_changed
    assert machine.state.progress_is_exact


@pytest.fixture
def machine():
    """Ten messages; subscription 1 was sent three, durable 2 five and is offline, durable 3 all."""
    machine = Machine()
    operation, block = append(1, 1, messages(1, 10))
    machine.apply(
        InitCluster("c", "t"), CreateChannel(1, "foo", Limits(0, 0, 0)), connect("me"), operation, blocks=[block]
    )
    machine.apply(subscribe(1, last_sent=3), subscribe(2, durable="off", last_sent=5), subscribe(3, last_sent=10))
    machine.apply(CloseSubscription(2))
    return machine


def suspects(machine):
    return [machine.state.subscriptions[number].suspect_to for number in (1, 2, 3)]


@pytest.mark.parametrize(("send_ahead", "expected"), [(4, 7), (7, 10), (100, 10), (0, 0)])
def test_leader_after_an_unclean_stop_suspects_what_may_have_been_sent(machine, send_ahead, expected):
    """B394: of online subscriptions, up to the channel's end and no further than the earlier leader could send."""
    assert machine.one(BeginLeadership(send_ahead)) is None
    assert suspects(machine) == [expected, 0, 0]


def test_leader_after_a_clean_stop_suspects_nothing(machine):
    """A false mark is harmless, but a clean stop needs none."""
    machine.one(CleanStop())
    machine.one(BeginLeadership(100))
    assert suspects(machine) == [0, 0, 0]


def test_clean_stop_serves_one_leader_only(machine):
    """The first leader's entries end it: what that one sends, the second must suspect (B394)."""
    machine.one(CleanStop())
    machine.one(BeginLeadership(100))
    machine.one(BeginLeadership(4))
    assert suspects(machine) == [7, 0, 0]


def test_suspicion_is_not_taken_back(machine):
    """A later leader that could have sent less does not clear what an earlier one could."""
    machine.one(BeginLeadership(7))
    machine.one(BeginLeadership(1))
    assert suspects(machine) == [10, 0, 0]
