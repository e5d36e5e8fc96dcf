"""What goes by time: messages by age, with and without traffic; channels by inactivity, and what prevents it."""

import pytest

from server.config.model import Limits
from server.protocol import responses
from server.protocol import stan_pb2 as pb
from store.errors import CorruptionError
from store.operations import DeleteChannel
from tests.support.leader_harness import leading

S = 10**9


@pytest.fixture
def aging():
    """Messages live 10 s."""
    with leading(limits=Limits(max_age_ns=10 * S), hb_interval_ns=10**15) as leader:
        yield leader


@pytest.fixture
def idling():
    """Channels live 10 s without use."""
    with leading(limits=Limits(max_inactivity_ns=10 * S), hb_interval_ns=10**15) as leader:
        yield leader


def held(channel):
    return channel.first_seq, channel.last_seq


# ---- age


def test_messages_expire_without_any_traffic(aging):
    """B328: each one max age after its timestamp, a little late at most, the last one too."""
    me = aging.client()
    me.publish("foo", 2)
    aging.loop.move(4)
    me.publish("foo")
    foo = aging.channel("foo")
    aging.loop.move(5.9)
    assert held(foo) == (1, 3)
    aging.loop.move(0.3)
    assert held(foo) == (3, 3)
    aging.loop.move(3.7)
    assert held(foo) == (3, 3)
    aging.loop.move(0.3)
    assert held(foo) == (4, 3)


def test_messages_expire_under_traffic(aging):
    """B328: a channel that is written to all the time holds what is younger than max age."""
    me = aging.client()
    for _ in range(300):
        me.publish("foo")
        aging.loop.move(0.1)
    foo = aging.channel("foo")
    assert foo.last_seq == 300
    assert foo.last_seq - foo.first_seq + 1 in range(98, 103)


def test_expired_while_down_is_gone_at_start(aging):
    """B328: expiry goes on while the server is away; the start removes it before anybody is served."""
    me = aging.client()
    me.publish("foo", 3)
    aging.loop.move(1)
    aging.stop()
    aging.wall_offset_ns += 60 * S
    aging.restart()
    assert held(aging.channel("foo")) == (4, 3)


def test_messages_that_arrive_while_an_expiry_travels_expire_in_their_time(aging):
    """B328: an expiry under way is followed by a look at what came meanwhile."""
    me = aging.client()
    me.publish("foo")
    aging.loop.move(10.05)
    aging.log.is_applying_at_once = False
    aging.loop.move(0.2)
    me.publish("foo")
    while aging.log.proposed:
        aging.log.apply_next()
    aging.log.is_applying_at_once = True
    aging.loop.run()
    assert held(aging.channel("foo")) == (2, 2)
    aging.loop.move(10.3)
    assert held(aging.channel("foo")) == (3, 2)


def test_expired_messages_are_skipped_and_count_as_acked(aging):
    """B235, B267, B329: expired before sending: skipped; while pending: not redelivered."""
    me = aging.client()
    me.subscribe("foo", "in", max_in_flight=1, ack_wait_s=11)
    me.publish("foo", 3)
    aging.loop.move(5)
    me.publish("foo")
    assert aging.seqs("in") == [1]
    aging.loop.move(6.1)
    assert aging.seqs("in") == [4]


def test_unreadable_message_does_not_stop_the_expiry_of_other_channels(aging):
    """A damaged block is a fault of its channel: the node starts, and the others go on."""
    me = aging.client()
    me.publish("bad", 2)
    me.publish("foo", 2)
    aging.loop.move(1)
    aging.stop()
    read = aging.store.timestamp_of

    def timestamp_of(channel, seq):
        if channel.name == "bad":
            raise CorruptionError(f"channel {channel.name}, sequence {seq}", "a block", "none")
        return read(channel, seq)

    aging.store.timestamp_of = timestamp_of
    aging.restart()
    aging.loop.move(10)
    assert held(aging.channel("foo")) == (3, 2)
    aging.store.timestamp_of = read
    aging.loop.move(20)
    assert held(aging.channel("bad")) == (3, 2)


def test_idle_channels_are_not_looked_at(aging):
    """Costs grow with what is due: while nothing expires nothing is read and nothing proposed."""
    me = aging.client()
    for number in range(20):
        me.publish(f"foo.{number}")
    entries = len(aging.log.applied)
    reads = []
    read = aging.store.timestamp_of
    aging.store.timestamp_of = lambda *where: reads.append(where) or read(*where)
    aging.loop.move(9)
    assert (reads, len(aging.log.applied)) == ([], entries)


# ---- inactivity


def test_unused_channel_is_deleted(idling):
    """B336: with everything in it; the next use makes it anew, from 1."""
    me = idling.client()
    me.publish("foo", 3)
    idling.loop.move(9.9)
    assert "foo" in idling.store.state.channels
    idling.loop.move(0.4)
    assert "foo" not in idling.store.state.channels
    assert me.end("unsub", "foo", "in").error == responses.UNKNOWN_CHANNEL
    me.subscribe("foo", "in")
    me.publish("foo")
    assert idling.seqs("in") == [1]
    assert [ack.error for ack in idling.pub_acks()] == [""] * 4


def test_use_starts_the_clock_anew(idling):
    """B338: a publish, and the end of the last online subscription, also by the end of its client."""
    me = idling.client()
    you = idling.client("you")
    you.publish("foo")
    idling.loop.move(9)
    you.publish("foo")
    idling.loop.move(9)
    me.subscribe("foo", "in")
    idling.loop.move(60)
    assert "foo" in idling.store.state.channels
    me.close()
    idling.loop.move(9.8)
    assert "foo" in idling.store.state.channels
    idling.loop.move(0.5)
    assert "foo" not in idling.store.state.channels


def test_offline_durable_does_not_keep_a_channel(idling):
    """B337: online subscriptions do, stalled ones too; offline durables go with the channel."""
    me = idling.client()
    me.subscribe("foo", "in", durable="d", max_in_flight=1)
    me.publish("foo", 3)
    idling.loop.move(30)
    assert "foo" in idling.store.state.channels
    me.end("subclose", "foo", "in")
    idling.loop.move(10.3)
    assert idling.store.state.channels == {}
    assert idling.store.state.subscriptions == {}


def test_channel_of_a_refused_subscription_goes_too(idling):
    """B338: the clock starts at the creation, whatever created it."""
    me = idling.client()
    idling.feed(me.subscribe_bytes("foo", "in", fields={"qGroup": "g", "durableName": "a:b"}))
    assert "foo" in idling.store.state.channels
    idling.loop.move(10.3)
    assert "foo" not in idling.store.state.channels


def test_publish_in_flight_prevents_the_deletion(idling):
    """B336: what is received before the decision is acked and kept, however long its entry travels."""
    me = idling.client()
    me.publish("foo")
    idling.loop.move(9.9)
    idling.log.is_applying_at_once = False
    me.publish("foo")
    me.publish("foo")
    idling.loop.move(1)
    while idling.log.proposed:
        idling.log.apply_next()
        idling.loop.run()
    assert [ack.error for ack in idling.pub_acks()] == ["", "", ""]
    assert idling.channel("foo").last_seq == 3


def test_publish_behind_the_decision_is_refused_not_lost(idling):
    """B339: from the decision to its entry publishes and subscribes are refused: an acked one would be deleted."""
    me = idling.client()
    for _ in range(3):
        me.publish("foo")  # its template is learnt: the next one takes the fast path
    idling.pub_acks()
    idling.loop.move(9.9)
    idling.log.is_applying_at_once = False
    idling.loop.move(0.4)
    assert [type(one) for one in idling.log.proposed[0].operations] == [DeleteChannel]
    me.publish("foo", 2)
    idling.feed(me.subscribe_bytes("foo", "in"))
    assert [ack.error for ack in idling.pub_acks()] == [responses.CHANNEL_IS_BEING_DELETED] * 2
    assert idling.answer("r.sub.in", pb.SubscriptionResponse).error == responses.CHANNEL_IS_BEING_DELETED
    idling.log.apply_next()
    idling.log.is_applying_at_once = True
    me.publish("foo")
    assert [ack.error for ack in idling.pub_acks()] == [""]
    assert held(idling.channel("foo")) == (1, 1)


def test_subscription_being_made_prevents_the_deletion(idling):
    """B338: a subscribe that was received keeps the channel, although its entry travels; a resume too."""
    me = idling.client()
    me.subscribe("foo", "in", durable="d")
    me.publish("foo")
    me.end("subclose", "foo", "in")
    idling.loop.move(9.9)
    idling.log.is_applying_at_once = False
    idling.feed(me.subscribe_bytes("foo", "in2", durable="d"))
    idling.loop.move(5)
    while idling.log.proposed:
        idling.log.apply_next()
        idling.loop.run()
    assert idling.answer("r.sub.in2", pb.SubscriptionResponse).error == ""
    assert "foo" in idling.store.state.channels


def test_subscription_of_a_client_that_closes_behind_it_counts_as_use(idling):
    """B338: the clock starts when the last subscription ends, also one that ended while it was being made."""
    me = idling.client()
    me.publish("foo")
    idling.loop.move(9)
    idling.log.is_applying_at_once = False
    idling.feed(me.subscribe_bytes("foo", "in"))
    idling.feed(me.close_bytes())
    idling.log.is_applying_at_once = True
    idling.log.apply_next()
    idling.loop.move(9)
    assert "foo" in idling.store.state.channels
    idling.loop.move(11)
    assert "foo" not in idling.store.state.channels


def test_clock_starts_with_the_leadership(idling):
    """B338: a restart gives every channel its whole time."""
    idling.client().publish("foo")
    idling.loop.move(9)
    idling.stop()
    idling.restart()
    idling.loop.move(9.5)
    assert "foo" in idling.store.state.channels
    idling.loop.move(1)
    assert "foo" not in idling.store.state.channels


def test_no_timer_stays(idling):
    """B396: the end of the leadership ends the sweeps."""
    idling.client().publish("foo")
    idling.leadership.end()
    idling.loop.run()
    assert idling.loop.timers() == []
