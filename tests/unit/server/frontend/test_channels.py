"""Which channels exist from a leader's first word on, and which new ones are allowed."""

import pytest

from server.config.model import Limits
from server.protocol import responses
from server.protocol import stan_pb2 as pb
from store.operations import CreateChannel
from tests.support.leader_harness import leading


@pytest.fixture
def leader():
    """A leader that serves, on an empty store."""
    with leading() as leader:
        yield leader


def creations(leader):
    return [one for operations in leader.log.applied for one in operations if isinstance(one, CreateChannel)]


def test_created_once(leader):
    """B64: publishes and subscribes for an unknown channel, in any number and over entries, make it once."""
    me = leader.client()
    leader.log.is_applying_at_once = False
    me.publish("foo")
    leader.feed(me.publish_bytes("foo") + me.subscribe_bytes("foo", "in") + me.publish_bytes("bar"))
    while leader.log.proposed:
        leader.log.apply_next()
        leader.loop.run()
    assert [(one.name, one.channel_id) for one in creations(leader)] == [("foo", 1), ("bar", 2)]


def test_other_case_is_refused(leader):
    """B63: for publish and subscribe, against channels that are applied, being made, or recovered."""
    me = leader.client()
    text = responses.case_conflict("FOO", "foo")
    leader.feed(me.publish_bytes("foo") + me.publish_bytes("FOO"))
    assert sorted(ack.error for ack in leader.pub_acks()) == ["", text]
    leader.stop()
    leader.restart()
    leader.feed(me.subscribe_bytes("FOO", "in"))
    assert leader.answer("r.sub.in", pb.SubscriptionResponse).error == text
    assert list(leader.store.state.channels) == ["foo"]


def test_too_many_channels():
    """B331: those being made count; existing ones work on."""
    with leading(limits=Limits(max_channels=2)) as leader:
        me = leader.client()
        leader.feed(b"".join(me.publish_bytes(name, guid=name) for name in ("a", "b", "c", "a")))
        assert {ack.guid: ack.error for ack in leader.pub_acks()} == {
            "a": "",
            "b": "",
            "c": responses.TOO_MANY_CHANNELS,
        }
        leader.feed(me.subscribe_bytes("c", "in"))
        assert leader.answer("r.sub.in", pb.SubscriptionResponse).error == responses.TOO_MANY_CHANNELS
        me.subscribe("b", "in")


def test_deleting_makes_room():
    """B331, B336: a channel that was deleted does not count."""
    with leading(limits=Limits(max_channels=1, max_inactivity_ns=10**9)) as leader:
        me = leader.client()
        me.publish("a")
        leader.loop.move(1.3)
        me.publish("b")
        assert [ack.error for ack in leader.pub_acks()] == ["", ""]


def test_ids_are_never_used_again():
    """Records of an earlier channel may still be on disk: also after a restart a new channel has a new id."""
    with leading(limits=Limits(max_inactivity_ns=10**9)) as leader:
        me = leader.client()
        me.publish("foo")
        leader.loop.move(1.3)
        leader.stop()
        leader.restart()
        me.publish("foo")
        assert [one.channel_id for one in creations(leader)] == [1, 2]


def test_counts_of_durables_go_with_their_channel():
    """B271, B336: the engine is told which subscriptions a deleted channel took with it."""
    with leading(limits=Limits(max_inactivity_ns=10**9)) as leader:
        me = leader.client()
        forgotten = []
        leader.leadership.channels.on_removed = forgotten.append
        sub = me.subscribe("foo", "in", durable="d")
        me.end("subclose", "foo", "in")
        leader.loop.move(1.3)
        assert forgotten == [sub.subscription_id]
