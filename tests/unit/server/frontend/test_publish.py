"""Which publishes are accepted, and what a hostile one may not do."""

import pytest

from server.protocol import responses
from server.protocol import stan_pb2 as pb
from tests.support.leader_harness import CLUSTER_ID, MAX_PAYLOAD, leading


@pytest.fixture
def leader():
    """A leader that serves, on an empty store."""
    with leading() as leader:
        yield leader


def send(leader, message, subject=None):
    leader.feed(leader.message(f"_STAN.pub.{CLUSTER_ID}.{subject or message.subject}", message, "acks"))
    return [ack.error for ack in leader.pub_acks()]


def test_checks(leader):
    """B90, B91, B94: guid, channel, NATS subject, client; a connection id decides alone."""
    leader.client()
    good = pb.PubMsg(clientID="me", guid="g", subject="foo", data=b"x")
    assert send(leader, good) == [""]
    assert send(leader, pb.PubMsg(clientID="nobody", connID=b"conn-me", guid="g", subject="foo")) == [""]
    for bad, subject in (
        (pb.PubMsg(clientID="me", subject="foo"), None),
        (pb.PubMsg(clientID="me", guid="g", subject="foo..bar"), None),
        (pb.PubMsg(clientID="me", guid="g", subject="foo"), "bar"),
        (pb.PubMsg(clientID="nobody", guid="g", subject="foo"), None),
        (pb.PubMsg(clientID="me", connID=b"other", guid="g", subject="foo"), None),
    ):
        assert send(leader, bad, subject) == [responses.INVALID_PUBLISH]
    assert leader.channel("foo").last_seq == 2


def test_publish_without_reply_is_stored(leader):
    """B18."""
    leader.client()
    message = pb.PubMsg(clientID="me", guid="g", subject="foo")
    leader.feed(leader.message(f"_STAN.pub.{CLUSTER_ID}.foo", message, ""))
    assert leader.channel("foo").last_seq == 1


def test_refused_publish_uses_no_sequence(leader):
    """B205: between good ones a bad one fails alone."""
    me = leader.client()
    bad = leader.message(f"_STAN.pub.{CLUSTER_ID}.foo", pb.PubMsg(clientID="nobody", guid="bad", subject="foo"), "acks")
    leader.feed(me.publish_bytes("foo", guid="a") + bad + me.publish_bytes("foo", guid="b"))
    assert sorted((ack.guid, ack.error) for ack in leader.pub_acks()) == [
        ("a", ""),
        ("b", ""),
        ("bad", responses.INVALID_PUBLISH),
    ]
    assert leader.channel("foo").last_seq == 2


@pytest.mark.parametrize("margin", [0, 20, 40])
def test_answer_to_a_giant_guid_never_ends_our_connection(leader, margin):
    """B90: an answer above NATS's max payload would make NATS close our connection, for everybody."""
    leader.client()
    message = pb.PubMsg(clientID="nobody", guid="g" * (MAX_PAYLOAD - 20 - margin), subject="foo")
    leader.feed(leader.message(f"_STAN.pub.{CLUSTER_ID}.foo", message, "acks"))
    assert all(len(frame.payload) <= MAX_PAYLOAD for frame in leader.take())


def test_low_disk_refuses_publishes_only(leader):
    """While the disk is nearly full publishes are refused, known publishers too; acks, closes and connects go on."""
    me = leader.client()
    sub = me.subscribe("foo", "in")
    me.publish("foo", 3)
    leader.pub_acks()
    leader.leadership.set_disk_low(is_low=True)
    me.publish("foo", 2)
    assert [ack.error for ack in leader.pub_acks()] == [responses.LOW_DISK_SPACE] * 2
    me.ack(sub, 1, 2, 3)
    leader.loop.move(0.1)
    assert sub.floor == 3
    assert me.close().error == ""
    leader.leadership.set_disk_low(is_low=False)
    leader.client().publish("foo")
    assert [ack.error for ack in leader.pub_acks()] == [""]
