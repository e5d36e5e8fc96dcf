"""What goes by time: messages by age, with and without traffic; channels by inactivity, and what prevents it."""

import asyncio

import pytest

from server.config.channel_limits import ChannelLimits
from server.config.model import Limits
from server.protocol import responses
from server.protocol import stan_pb2 as pb
from store.errors import CorruptionError
from store.operations import DeleteChannel, Expire
from tests.support.leader_harness import leading

S = 10**9
HOUR_NS = 3600 * S


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


def ranges(leader):
    return {name: held(channel) for name, channel in leader.store.state.channels.items()}


def restart_with(leader, **limits):
    """An orderly restart with these limits and no others."""
    leader.stop()
    leader.options = leader.options.model_copy(update={"limits": Limits(**limits)})
    leader.restart()


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


def test_expiry_is_the_first_word_of_a_new_leader(aging):
    """B328: it does not wait for a round: it is in the log before the first request can be."""
    aging.client().publish("foo", 3)
    aging.stop()
    aging.wall_offset_ns += 60 * S
    aging.log.term += 1
    beginning = asyncio.Task(aging.build().begin(), loop=aging.loop)
    aging.loop.run()
    assert held(aging.channel("foo")) == (4, 3)
    aging.loop.move(1)
    assert beginning.done()


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


def test_expiry_is_proposed_once(aging):
    """B328: while it waits for its entry and while that travels, whatever else is stored in the channel."""
    me = aging.client()
    me.publish("foo")
    aging.loop.move(9.95)
    aging.log.is_applying_at_once = False
    me.publish("foo")
    aging.loop.move(0.3)
    for _ in range(3):
        aging.log.apply_next()
        me.publish("foo")
        aging.loop.move(0.3)
    aging.log.is_applying_at_once = True
    aging.log.apply_next()
    aging.loop.run()
    expiries = [one for operations in aging.log.applied for one in operations if isinstance(one, Expire)]
    assert [one.first_seq for one in expiries] == [2]
    assert held(aging.channel("foo")) == (2, 5)


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


def test_each_channel_has_its_own_age():
    """B328, B333, O506: shorter, longer or none, without traffic; the others have the global one."""
    channels = {
        "short.*": ChannelLimits(max_age_ns=5 * S),
        "long": ChannelLimits(max_age_ns=60 * S),
        "never": ChannelLimits(max_age_ns=0),
    }
    with leading(limits=Limits(max_age_ns=20 * S, channels=channels), hb_interval_ns=10**15) as leader:
        me = leader.client()
        for name in ("short.x", "other", "long", "never"):
            me.publish(name, 2)
        gone_after = {}
        for tenth in range(1, 1001):
            leader.loop.move(0.1)
            for name, (first, last) in ranges(leader).items():
                if first > last:
                    gone_after.setdefault(name, tenth // 10)
        assert gone_after == {"short.x": 5, "other": 20, "long": 60}
        assert held(leader.channel("never")) == (1, 2)


def test_age_for_one_channel_only():
    """B328, B332: no global age is needed for the age of a channel."""
    with leading(limits=Limits(channels={"foo": ChannelLimits(max_age_ns=S)}), hb_interval_ns=10**15) as leader:
        me = leader.client()
        me.publish("foo")
        me.publish("bar")
        leader.loop.move(1.3)
        assert ranges(leader) == {"foo": (2, 1), "bar": (1, 1)}


def test_age_that_is_lowered_or_raised_counts_from_the_next_start():
    """B334, O508: what is too old for the new age goes before anybody is served, and never comes back."""
    with leading(limits=Limits(max_age_ns=60 * S), hb_interval_ns=10**15) as leader:
        me = leader.client()
        for _ in range(2):
            me.publish("foo")
            me.publish("bar")
            leader.loop.move(10)
        restart_with(leader, max_age_ns=60 * S, channels={"foo": ChannelLimits(max_age_ns=15 * S)})
        assert ranges(leader) == {"foo": (2, 2), "bar": (1, 2)}
        restart_with(leader)
        leader.loop.move(1000)
        assert ranges(leader) == {"foo": (2, 2), "bar": (1, 2)}
        restart_with(leader, channels={"bar": ChannelLimits(max_age_ns=S)})
        assert ranges(leader) == {"foo": (2, 2), "bar": (3, 2)}


@pytest.mark.parametrize("restarts", [False, True])
def test_clock_that_steps_back_deletes_nothing_early(aging, restarts):
    """O504, B203: also over a restart; a message lives until the clock is max age beyond its timestamp."""
    me = aging.client()
    me.publish("foo")
    aging.loop.move(5)
    if restarts:
        aging.stop()
    aging.wall_offset_ns -= HOUR_NS
    if restarts:
        aging.restart()
    me.publish("foo")  # has the timestamp of the first one
    aging.loop.move(3600 + 4.6)  # a start takes a quarter of a second
    assert held(aging.channel("foo")) == (1, 2)
    aging.loop.move(0.6)
    assert held(aging.channel("foo")) == (3, 2)


def test_emptied_channel_keeps_its_place(aging):
    """B202, O510: all removed: first is last + 1, over restarts too, however they end; the next message is the next one."""
    me = aging.client()
    me.publish("foo", 3)
    aging.loop.move(10.3)
    for end in (aging.stop, aging.crash):
        assert held(aging.channel("foo")) == (4, 3)
        end()
        aging.restart()
    me.publish("foo")
    assert held(aging.channel("foo")) == (4, 4)
    me.subscribe("foo", "in")
    assert aging.seqs("in") == [4]


def test_nothing_is_looked_at_when_nothing_can_expire(aging):
    """B328: a server whose messages are all gone does not wake up for them; the next message has its time."""
    me = aging.client()
    me.publish("foo", 3)
    aging.loop.move(11)
    looks = []
    aging.leadership.sweeper.wall_ns = lambda: looks.append(1) or aging.wall_ns()
    aging.loop.move(1000)
    assert looks == []
    me.publish("foo")
    aging.loop.move(10.3)
    assert held(aging.channel("foo")) == (5, 4)


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


@pytest.mark.parametrize("is_lost", [False, True])
def test_refused_deletion_is_tried_again(idling, caplog, is_lost):
    """O509, B339: what cannot be replicated leaves the channel as it is, with an error; again after the same interval."""
    me = idling.client()
    me.publish("foo", 3)
    idling.log.is_leader = is_lost
    idling.log.is_applying_at_once = False
    idling.loop.move(10.3)
    idling.log.lose_all()
    idling.log.is_leader = idling.log.is_applying_at_once = True
    reason = responses.OUTCOME_UNKNOWN if is_lost else responses.NOT_LEADER
    errors = [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]
    assert errors == [f'Error deleting channel "foo": {reason}']
    assert held(idling.channel("foo")) == (1, 3)
    idling.loop.move(9.6)
    assert "foo" in idling.store.state.channels
    idling.loop.move(0.4)
    assert "foo" not in idling.store.state.channels


def test_channel_whose_deletion_was_refused_is_of_use(idling):
    """B339: publishes and subscribes are accepted again, and count as use."""
    me = idling.client()
    me.publish("foo", 3)
    idling.log.is_leader = False
    idling.loop.move(10.2)
    idling.log.is_leader = True
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


def test_expiry_and_deletion_together():
    """B328, B336: a channel with both limits; what travels when the other comes due is refused or without effect."""
    with leading(limits=Limits(max_age_ns=10 * S, max_inactivity_ns=10 * S), hb_interval_ns=10**15) as leader:
        me = leader.client()
        for _ in range(3):
            me.publish("foo", 3)
            leader.loop.move(9.9)
            leader.log.is_applying_at_once = False
            leader.loop.move(1)
            assert leader.log.proposed
            while leader.log.proposed:
                leader.log.apply_next()
                leader.loop.run()
            leader.log.is_applying_at_once = True
            assert leader.store.state.channels == {}
            leader.loop.move(20)


@pytest.mark.parametrize("end", ["end", "stop"])
@pytest.mark.parametrize("is_waiting", [False, True])
@pytest.mark.parametrize("limit", ["max_age_ns", "max_inactivity_ns"])
def test_no_timer_stays(limit, is_waiting, end):
    """B396: the end of the leadership ends the sweeps, also those for messages that are stored meanwhile."""
    with leading(limits=Limits(**{limit: 10 * S})) as leader:
        me = leader.client()
        if is_waiting:
            me.publish("foo")
        leader.feed(me.publish_bytes("bar"), runs=False)
        if end == "stop":
            leader.stop()
        else:
            leader.leadership.end()
        leader.loop.run()
        assert "bar" in leader.store.state.channels
        assert leader.loop.timers() == []
