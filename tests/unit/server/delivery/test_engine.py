"""What is sent to whom and when: new messages, acks and redeliveries; on a real store and moved time."""

import gc

import pytest

from server.config.model import Limits
from server.delivery.stream import Stream
from server.protocol import stan_pb2 as pb
from store.operations import Progress
from tests.support.leader_harness import damage, leading


@pytest.fixture
def leader():
    """A leader that serves, on an empty store."""
    with leading() as leader:
        yield leader


# ---- new messages and room


def test_new_messages_go_out_once_and_in_order(leader):
    """B230, B243: each message once, in sequence order, not flagged, to every subscription of the channel (B240)."""
    me = leader.client()
    me.publish("foo", 3)
    me.subscribe("foo", "one")
    me.subscribe("foo", "two", start=pb.NewOnly)
    me.publish("foo", 2)
    assert leader.seqs("one") == [1, 2, 3, 4, 5]
    assert leader.seqs("two") == [4, 5]


def test_answer_comes_before_the_first_message(leader):
    """B80: the subscription response is on the wire before anything the subscription gets."""
    me = leader.client()
    me.publish("foo", 2)
    leader.take()
    leader.feed(me.subscribe_bytes("foo", "in"))
    assert [frame.subject for frame in leader.take()] == ["r.sub.in", "in", "in"]


def test_stalled_subscription_goes_on_with_the_ack(leader):
    """B232: at maxInFlight nothing new is sent; an ack makes room for exactly one, at once."""
    me = leader.client()
    sub = me.subscribe("foo", "in", max_in_flight=2)
    me.publish("foo", 5)
    assert leader.seqs("in") == [1, 2]
    assert leader.delivery().stalled == 1
    me.ack(sub, 2)
    assert leader.seqs("in") == [3]
    me.ack(sub, 2, 7)  # B246: not pending
    assert leader.seqs("in") == []
    me.ack(sub, 1, 3)
    assert leader.seqs("in") == [4, 5]
    assert leader.delivery().stalled == 1
    me.ack(sub, 4)
    assert leader.delivery().stalled == 0


def test_stalled_subscription_reads_nothing(leader):
    """B233: a publish costs a stalled subscription no look-up."""
    me = leader.client()
    me.subscribe("foo", "in", max_in_flight=1)
    me.publish("foo")
    calls, _ = damage(leader, ())
    me.publish("foo", 3)
    assert calls == []


def test_removed_before_sending_is_skipped():
    """B235: what a limit removed before it was sent never comes; delivery goes on at the channel's first message."""
    with leading(limits=Limits(max_msgs=3)) as leader:
        me = leader.client()
        sub = me.subscribe("foo", "in", max_in_flight=1)
        me.publish("foo")
        me.publish("foo", 9)
        assert leader.seqs("in") == [1]
        me.ack(sub, 1)
        assert leader.seqs("in") == [8]
        me.ack(sub, 8, 9)
        me.ack(sub, 9)
        assert leader.seqs("in") == [9, 10]
        me.ack(sub, 10)
        leader.loop.move(0.1)
        assert (sub.last_sent, sub.floor) == (10, 10)


def test_ack_of_another_subscription_does_not_count(leader):
    """B247: only acks on the subscription's own ack inbox count."""
    me = leader.client()
    one, two = me.subscribe("foo", "one", max_in_flight=1), me.subscribe("foo", "two", max_in_flight=1)
    me.publish("foo", 2)
    me.ack(one, 1)
    assert (leader.seqs("one"), leader.seqs("two")) == ([1, 2], [1])
    assert two.floor == 0


# ---- redelivery


def test_redelivery_keeps_its_rhythm(leader):
    """B234, B260, B271: again every ack wait, counted, flagged, until acked."""
    me = leader.client()
    sub = me.subscribe("foo", "in", ack_wait_s=2)
    me.publish("foo")
    leader.loop.move(0.5)
    me.publish("foo")
    assert leader.seqs("in") == [1, 2]
    seen = []
    for _ in range(20):
        leader.loop.move(0.25)
        seen.append(leader.seqs("in"))
    assert [step for step, got in enumerate(seen, 1) if got] == [6, 8, 14, 16]
    assert [got for got in seen if got] == [["1r1"], ["2r1"], ["1r2"], ["2r2"]]
    me.ack(sub, 1, 2)
    leader.loop.move(60)
    assert leader.seqs("in") == []
    assert all("timer" not in repr(timer) for timer in leader.loop.timers())


def test_redelivery_is_not_early(leader):
    """B422: not before the ack wait less the slack of 15 ms."""
    me = leader.client()
    me.subscribe("foo", "in", ack_wait_s=1)
    me.publish("foo")
    leader.seqs("in")
    leader.loop.move(0.984)
    assert leader.seqs("in") == []
    leader.loop.move(0.016)
    assert leader.seqs("in") == ["1r1"]


def test_redelivery_ignores_max_in_flight_and_new_ones_wait(leader):
    """B265, B266: a stalled subscription gets all that is due, and nothing new."""
    me = leader.client()
    me.subscribe("foo", "in", max_in_flight=3, ack_wait_s=1)
    me.publish("foo", 5)
    assert leader.seqs("in") == [1, 2, 3]
    leader.loop.move(1)
    assert leader.seqs("in") == ["1r1", "2r1", "3r1"]
    assert leader.delivery().pending == 3


def test_ack_clears_the_count_and_wins(leader):
    """B250, B270: an acked message does not come again; others go on counting."""
    me = leader.client()
    sub = me.subscribe("foo", "in", ack_wait_s=1)
    me.publish("foo", 3)
    leader.loop.move(1)
    me.ack(sub, 2)
    leader.seqs("in")
    leader.loop.move(1)
    assert leader.seqs("in") == ["1r2", "3r2"]


def test_removed_while_pending_counts_as_acked_when_due():
    """B267: a pending message that a limit removed is never redelivered, and makes room."""
    with leading(limits=Limits(max_msgs=2)) as leader:
        me = leader.client()
        sub = me.subscribe("foo", "in", max_in_flight=2, ack_wait_s=1)
        me.publish("foo", 2)
        leader.seqs("in")
        me.publish("foo", 3)
        assert leader.seqs("in") == []
        leader.loop.move(1)
        assert leader.seqs("in") == [4, 5]
        leader.loop.move(0.02)
        assert (sub.last_sent, sub.floor) == (5, 3)


def test_failing_client_is_paused(leader):
    """B242, B268: with a failed heartbeat due redeliveries are skipped, new messages are not; a success lets them go on."""
    me = leader.client()
    me.subscribe("foo", "in", ack_wait_s=7)
    leader.loop.move(30)
    leader.loop.move(10)  # the heartbeat is not answered
    me.publish("foo")
    assert leader.seqs("in") == [1]
    leader.loop.move(20)
    assert leader.seqs("in") == []
    leader.loop.move(10)
    (heartbeat,) = leader.take("hb.me")[-1:]
    leader.answer_request(heartbeat)
    leader.loop.move(7)
    assert leader.seqs("in") == ["1r1"]


def test_close_ends_delivery_and_timer(leader):
    """B239: after the close nothing is sent and no timer stays."""
    me = leader.client()
    timers = len(leader.loop.timers())
    me.subscribe("foo", "in", ack_wait_s=1)
    me.publish("foo", 2)
    me.end("subclose", "foo", "in")
    leader.seqs("in")
    me.publish("foo", 2)
    leader.loop.move(0.1)
    assert len(leader.loop.timers()) == timers
    leader.loop.move(5)
    assert leader.seqs("in") == []


# ---- long life


def test_nothing_stays_of_ended_subscriptions(leader):
    """Subscriptions that come and go, with redeliveries and out-of-order acks, leave no object, inbox or timer behind."""
    me = leader.client()
    timers = len(leader.loop.timers())
    for number in range(30):
        verb = ("subclose", "unsub")[number % 2]
        sub = me.subscribe("foo", "in", durable=f"d{number}" if number % 3 else "", ack_wait_s=1)
        me.publish("foo", 3)
        leader.loop.move(1)
        me.ack(sub, 2)
        me.end(verb, "foo", "in")
    me.close()
    leader.loop.move(0.1)
    gc.collect()
    assert not [one for one in gc.get_objects() if isinstance(one, Stream)]
    assert leader.core.ack_subjects == {}
    assert len(leader.loop.timers()) <= timers


def test_progress_is_never_refused(leader):
    """Every progress that is proposed is accepted: a refused one would be lost acks."""
    results = []
    apply = leader.store.apply

    def recording(entries):
        found = apply(entries)
        results.extend(zip(leader.log.applied[-1], found[0], strict=True))
        return found

    leader.store.apply = recording
    me = leader.client()
    for turn in range(6):
        sub = me.subscribe("foo", "in", durable="d", max_in_flight=7)
        me.publish("foo", 20)
        first = sub.floor + 1
        me.ack(sub, first + 1, first, first + 3)
        leader.loop.move(0.01 * turn)
        me.end("subclose", "foo", "in")
    assert [pair for pair in results if isinstance(pair[0], Progress) and pair[1] is not None] == []
