"""What goes by time: channels that nobody uses, what keeps them, and what happens when they cannot be deleted."""

import pytest

from server.config.channel_limits import ChannelLimits
from server.config.model import Limits
from server.protocol import responses
from server.protocol import stan_pb2 as pb
from store.operations import DeleteChannel
from tests.support.leader_harness import leading

S = 10**9
HOUR_NS = 3600 * S


@pytest.fixture
def idling():
    """Channels live 10 s without use."""
    with leading(limits=Limits(max_inactivity_ns=10 * S), hb_interval_ns=10**15) as leader:
        yield leader


def held(channel):
    return channel.first_seq, channel.last_seq


def restart_with(leader, **limits):
    """An orderly restart with these limits and no others."""
    leader.stop()
    leader.options = leader.options.model_copy(update={"limits": Limits(**limits)})
    leader.restart()


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


def test_channel_in_use_is_looked_at_once_per_interval(idling):
    """B337: what keeps a channel costs little, however many publishes there are."""
    me = idling.client()
    me.subscribe("foo", "in")
    sweeper = idling.leadership.sweeper
    looks, has_subscribers = [], sweeper.has_subscribers
    sweeper.has_subscribers = lambda channel: looks.append(channel.name) or has_subscribers(channel)
    for _ in range(100):
        idling.loop.move(0.5)
        me.publish("foo")
    assert 4 <= len(looks) <= 5


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


def test_each_channel_has_its_own_inactivity():
    """B336, B333: shorter, longer or none (-1); the others have the global one."""
    channels = {
        "short.>": ChannelLimits(max_inactivity_ns=5 * S),
        "long": ChannelLimits(max_inactivity_ns=60 * S),
        "never": ChannelLimits(max_inactivity_ns=-1),
        "short.never": ChannelLimits(max_inactivity_ns=0),
    }
    with leading(limits=Limits(max_inactivity_ns=20 * S, channels=channels), hb_interval_ns=10**15) as leader:
        me = leader.client()
        for name in ("short.x.y", "other", "long", "never", "short.never"):
            me.publish(name)
        gone_after = {}
        for tenth in range(1, 1001):
            leader.loop.move(0.1)
            for name in {"short.x.y", "other", "long", "never", "short.never"} - set(leader.store.state.channels):
                gone_after.setdefault(name, tenth // 10)
        assert gone_after == {"short.x.y": 5, "other": 20, "long": 60}
        restart_with(leader, channels={"never": ChannelLimits(max_inactivity_ns=2 * S)})
        leader.loop.move(1.5)
        assert list(leader.store.state.channels) == ["never", "short.never"]
        leader.loop.move(0.5)
        assert list(leader.store.state.channels) == ["short.never"]


def test_durable_groups_go_with_their_pending(idling):
    """B336, B337, O509: a group without members keeps no channel, and is unknown afterwards; a stalled member keeps it."""
    me = idling.client()
    me.subscribe("foo", "in", durable="d", group="g", max_in_flight=2)
    me.publish("foo", 5)
    assert idling.seqs("in") == [1, 2]
    idling.loop.move(25)
    assert "foo" in idling.store.state.channels
    me.end("subclose", "foo", "in")
    idling.loop.move(10.3)
    state = idling.store.state
    assert (state.channels, state.subscriptions, state.groups) == ({}, {}, {})
    me.publish("foo", 2)
    me.subscribe("foo", "in", durable="d", group="g")
    assert idling.seqs("in") == [1, 2]


def test_end_of_a_client_by_timeout_starts_the_clock():
    """B338, O509: when the client of the last online subscription is given up."""
    with leading(
        limits=Limits(max_inactivity_ns=10 * S), hb_interval_ns=30 * S, hb_timeout_ns=S, hb_fail_count=0
    ) as leader:
        leader.client().subscribe("foo", "in")
        leader.loop.move(29)
        assert leader.store.state.clients
        while leader.store.state.clients:
            leader.loop.move(0.1)
        leader.loop.move(9.8)
        assert "foo" in leader.store.state.channels
        leader.loop.move(0.5)
        assert "foo" not in leader.store.state.channels


@pytest.mark.parametrize("is_told_first", [True, False])
def test_deletion_that_is_lost_is_tried_by_the_next_leader(idling, caplog, is_told_first):
    """B395, O509: the clock starts anew with the leadership; losing one is no error of the channel."""
    me = idling.client()
    me.publish("foo", 3)
    idling.log.is_applying_at_once = False
    idling.loop.move(10.3)
    assert len(idling.log.proposed) == 1
    idling.lose(is_told_first=is_told_first)
    assert [one for one in caplog.records if one.levelname == "ERROR"] == []
    assert idling.loop.timers() == []
    idling.log.is_applying_at_once = True
    idling.regain()
    idling.loop.move(9.6)
    assert held(idling.channel("foo")) == (1, 3)
    idling.loop.move(0.6)
    assert "foo" not in idling.store.state.channels


def test_refused_deletion_is_tried_again(idling, caplog):
    """O509, B339: what the log refuses leaves the channel as it is, with an error; again after the same interval."""
    me = idling.client()
    me.publish("foo", 3)
    idling.log.is_applying_at_once = False
    idling.loop.move(10.3)
    idling.log.refuse_next("not now")
    idling.log.is_applying_at_once = True
    errors = [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]
    assert errors == ['Error deleting channel "foo": not now']
    assert held(idling.channel("foo")) == (1, 3)
    idling.loop.move(9.6)
    assert "foo" in idling.store.state.channels
    idling.loop.move(0.4)
    assert "foo" not in idling.store.state.channels


def test_channel_whose_deletion_was_refused_is_of_use(idling):
    """B339: publishes and subscribes are accepted again, and count as use."""
    me = idling.client()
    me.publish("foo", 3)
    idling.log.is_applying_at_once = False
    idling.loop.move(10.2)
    idling.log.refuse_next("not now")
    idling.log.is_applying_at_once = True
    idling.pub_acks()
    me.publish("foo")
    assert [ack.error for ack in idling.pub_acks()] == [""]
    me.subscribe("foo", "in")
    assert idling.seqs("in") == [1, 2, 3, 4]
    idling.loop.move(30)
    assert held(idling.channel("foo")) == (1, 4)


def test_warning_goes_with_its_channel():
    """O215, B336: one of the same name is another channel."""
    with leading(limits=Limits(max_msgs=2, max_inactivity_ns=10 * S), hb_interval_ns=10**15) as leader:
        me = leader.client()
        me.publish("foo", 3)
        first = leader.channel("foo")
        warnings = leader.leadership.limit_warnings
        assert warnings.appended(first) is None
        leader.loop.move(10.3)
        assert "foo" not in leader.store.state.channels
        assert warnings.appended(first) is not None


def test_messages_of_a_deleted_channel_are_not_waited_for():
    """B336: however old they may become; there is no look, and the limits of the name are forgotten, too."""
    with leading(limits=Limits(max_age_ns=HOUR_NS, max_inactivity_ns=10 * S), hb_interval_ns=10**15) as leader:
        leader.client().publish("foo", 3)
        leader.loop.move(10.3)
        assert leader.store.state.channels == {}
        looks = []
        leader.leadership.sweeper.wall_ns = lambda: looks.append(1) or leader.wall_ns()
        leader.loop.move(5000)
        assert len(looks) <= 1, "what was started already"
        with pytest.raises(KeyError):
            leader.leadership.channels.limits_of("foo")
