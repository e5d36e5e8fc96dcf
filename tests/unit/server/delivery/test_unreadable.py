"""Messages that cannot be read or sent: a fault of theirs, not of other messages, subscriptions or the node."""

import pytest

from server.protocol import responses
from server.protocol import stan_pb2 as pb
from store.errors import CorruptionError
from tests.support.leader_harness import damage, leading


@pytest.fixture
def leader():
    """A leader that serves, on an empty store."""
    with leading() as leader:
        yield leader


def test_unsendable_message_blocks_nobody(leader):
    """B97: a stored message that NATS no longer takes is skipped and counts as acked; the others come, in order."""
    me = leader.client()
    for size in (10, 900, 20, 2000, 30):
        me.publish("foo", 1, b"x" * size)
    leader.nats.max_payload = 800
    leader.leadership.on_connected()
    sub = me.subscribe("foo", "in")
    assert leader.seqs("in") == [1, 3, 5]
    me.ack(sub, 1, 3, 5)
    leader.loop.move(0.1)
    assert (sub.last_sent, sub.floor, len(sub.acked)) == (5, 5, 0)
    assert leader.delivery().pending == 0


def test_message_that_fits_only_unmarked_is_not_sent_marked():
    """B97, B394: with the marks of a redelivery a message may exceed what NATS takes: that would end our connection."""
    with leading() as leader:
        me = leader.client()
        me.subscribe("foo", "in", max_in_flight=1)
        me.publish("foo", 3, b"x" * 500)
        size = len(leader.take("in")[0].payload)
        leader.crash()
        leader.nats.max_payload = size + 2
        leader.restart()
        leader.loop.move(100)
        assert all(len(frame.payload) <= size + 2 for frame in leader.take())


def test_unsendable_pending_message_is_given_up(leader):
    """B97: a pending message that cannot be redelivered counts as acked."""
    me = leader.client()
    me.subscribe("foo", "in", ack_wait_s=1)
    me.publish("foo", 1, b"x" * 900)
    me.publish("foo", 1, b"x")
    leader.seqs("in")
    leader.nats.max_payload = 800
    leader.leadership.on_connected()
    leader.loop.move(1)
    assert leader.seqs("in") == ["2r1"]
    assert leader.delivery().pending == 1


def test_failing_read_is_retried_after_a_second(leader):
    """B238: no skipping, nothing sent, tried again after 1 s."""
    me = leader.client()
    me.publish("foo", 3)
    _, repair = damage(leader)
    me.subscribe("foo", "in")
    leader.loop.move(10)
    assert leader.seqs("in") == []
    assert len(leader.unreadable) == 11
    repair()
    leader.loop.move(1)
    assert leader.seqs("in") == [1, 2, 3]


def test_failing_reads_do_not_multiply(leader):
    """B238: however many events come, one retry waits for one subscription."""
    me = leader.client()
    me.publish("foo", 3)
    timers = len(leader.loop.timers())
    calls, _ = damage(leader)
    me.subscribe("foo", "in")
    for _ in range(5):
        me.publish("foo")
    leader.loop.move(0.5)
    assert len(leader.loop.timers()) == timers + 1
    leader.loop.move(10)
    calls.clear()
    leader.loop.move(5)
    assert len(calls) == 5


def test_retry_ends_with_the_subscription(leader):
    """B239: a subscription that waits for a retry and is closed leaves no timer."""
    me = leader.client()
    me.publish("foo", 3)
    timers = len(leader.loop.timers())
    damage(leader)
    me.subscribe("foo", "in")
    me.end("subclose", "foo", "in")
    leader.loop.move(0.1)
    assert len(leader.loop.timers()) == timers


def test_failing_redelivery_waits_for_the_next_round(leader):
    """B273: a look-up that fails postpones the redelivery; new messages are not affected."""
    me = leader.client()
    me.subscribe("foo", "in", ack_wait_s=2)
    me.publish("foo")
    leader.seqs("in")
    _, repair = damage(leader)
    leader.loop.move(2)
    me.publish("foo")
    assert leader.seqs("in") == [2]
    repair()
    leader.loop.move(2)
    assert leader.seqs("in") == ["1r1", "2r1"]


def test_damaged_message_does_not_keep_the_node_from_leading():
    """B238: one unreadable pending message is a fault of its subscription, not of the node's start."""
    with leading(hb_interval_ns=10**15) as leader:
        me = leader.client()
        me.subscribe("foo", "foo.in")
        me.publish("foo", 2)
        me.subscribe("bar", "bar.in")
        me.publish("bar", 5)
        leader.stop()
        leader.take()
        _, repair = damage(leader, (1,), "foo")
        leader.restart()
        leader.loop.move(31)
        assert (leader.seqs("foo.in"), leader.seqs("bar.in")) == (["2r1"], [f"{seq}r1" for seq in range(1, 6)])
        repair()
        leader.loop.move(31)
        assert leader.seqs("foo.in") == ["1r1", "2r2"]


def test_good_messages_before_a_damaged_one_arrive(leader, caplog):
    """B238: delivery stops at the damaged one, not before it."""
    me = leader.client()
    me.publish("foo", 5)
    _, repair = damage(leader, (4,))
    me.subscribe("foo", "in")
    assert leader.seqs("in") == [1, 2, 3]
    assert [record.message for record in caplog.records if "Error looking up message foo:4" in record.message]
    repair()
    leader.loop.move(1)
    assert leader.seqs("in") == [4, 5]


@pytest.mark.parametrize("group", ["", "g"])
def test_damaged_pending_message_holds_back_no_other(leader, group):
    """B273: only the one that cannot be read waits, from round to round."""
    me = leader.client()
    me.subscribe("foo", "in", group=group, ack_wait_s=1)
    me.publish("foo", 3)
    leader.seqs("in")
    _, repair = damage(leader, (2,))
    leader.loop.move(2.1)
    assert leader.seqs("in") == ["1r1", "3r1", "1r2", "3r2"]
    repair()
    leader.loop.move(1)
    assert leader.seqs("in") == ["1r3", "2r1", "3r3"]


@pytest.mark.parametrize("group", ["", "g"])
def test_unsendable_pending_message_is_logged(leader, caplog, group):
    """B97: it is given up in so many words."""
    me = leader.client()
    me.subscribe("foo", "in", group=group, ack_wait_s=1)
    me.publish("foo", 1, b"x" * 900)
    leader.nats.max_payload = 800
    leader.leadership.on_connected()
    leader.loop.move(1)
    assert [record.message for record in caplog.records if "skipped: channel=foo seq=1" in record.message]


def test_unreadable_start_position_is_answered(leader, monkeypatch):
    """B83.4, B124: the client learns of it, in words without paths, and nothing is left of the subscription."""

    def unreadable(channel, _time_ns):
        raise CorruptionError(f"channel {channel.name}, sequence 1", "a block", "none")

    me = leader.client()
    me.publish("foo", 3)
    monkeypatch.setattr(leader.store, "first_message_at_or_after", unreadable)
    leader.feed(me.subscribe_bytes("foo", "in", start=pb.TimeDeltaStart))
    (answer,) = [pb.SubscriptionResponse.FromString(frame.payload) for frame in leader.take("r.sub.in")]
    assert (answer.ackInbox, answer.error) == ("", responses.MESSAGE_UNREADABLE)
    assert not leader.store.state.subscriptions
