"""What goes by time: messages by age, with and without traffic, over restarts and steps of the clock."""

import asyncio

import pytest

from server.config.channel_limits import ChannelLimits
from server.config.model import Limits
from store.errors import CorruptionError
from store.operations import Expire
from tests.support.leader_harness import leading

S = 10**9
HOUR_NS = 3600 * S


@pytest.fixture
def aging():
    """Messages live 10 s."""
    with leading(limits=Limits(max_age_ns=10 * S), hb_interval_ns=10**15) as leader:
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


def test_message_as_old_as_the_limit_is_too_old(aging):
    """B328: it goes when its age is max age, not when it is more."""
    aging.client().publish("foo")
    foo = aging.channel("foo")
    aging.loop.move(9.999)
    assert held(foo) == (1, 1)
    aging.loop.move(0.001)
    assert held(foo) == (2, 1)


def test_message_behind_one_that_a_limit_removed_has_its_own_time():
    """B326, B328: a look that finds the oldest one gone for another limit is followed by one for the next."""
    with leading(limits=Limits(max_age_ns=10 * S, max_msgs=1), hb_interval_ns=10**15) as leader:
        me = leader.client()
        me.publish("foo")
        leader.loop.move(5)
        me.publish("foo")
        leader.loop.move(9.9)
        assert held(leader.channel("foo")) == (2, 2)
        leader.loop.move(0.3)
        assert held(leader.channel("foo")) == (3, 2)


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


def test_nobody_is_served_before_the_first_expiry_is_applied(aging):
    """B328: what expired while the server was down is not delivered, however long its removal travels."""
    me = aging.client()
    me.subscribe("foo", "in", max_in_flight=1)
    me.publish("foo", 3)
    assert aging.seqs("in") == [1]
    aging.stop()
    aging.wall_offset_ns += 60 * S
    aging.log.term += 1
    beginning = asyncio.Task(aging.build().begin(), loop=aging.loop)
    aging.log.is_applying_at_once = False
    aging.loop.run()
    aging.log.apply_next()  # what the log must know first
    aging.loop.move(5)
    assert [type(one) for one in aging.log.proposed[0].operations] == [Expire]
    assert not aging.leadership.is_serving
    assert not beginning.done()
    aging.log.is_applying_at_once = True
    aging.log.apply_next()
    aging.loop.move(1)
    assert beginning.done()
    assert aging.leadership.is_serving
    assert aging.seqs("in") == []


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


def test_message_that_becomes_unreadable_is_looked_at_again(aging, caplog):
    """A fault of its channel that is told, keeps no other channel from its expiry and may be mended meanwhile."""
    me = aging.client()
    me.publish("bad", 2)
    me.publish("foo", 2)
    read = aging.store.first_message_at_or_after

    def first_message_at_or_after(channel, time_ns):
        if channel.name == "bad":
            raise CorruptionError(f"channel {channel.name}, sequence 1", "a block", "none")
        return read(channel, time_ns)

    aging.store.first_message_at_or_after = first_message_at_or_after
    aging.loop.move(10.3)
    assert ranges(aging) == {"bad": (1, 2), "foo": (3, 2)}
    (error,) = [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]
    assert error.startswith('Error looking up expired messages of "bad"')
    aging.store.first_message_at_or_after = read
    aging.loop.move(9.5)
    assert held(aging.channel("bad")) == (1, 2)
    aging.loop.move(0.7)
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


def test_what_expires_is_not_reported_as_dropped_for_a_limit(caplog):
    """O215: nor is what was gone before this start; the limit itself is, when it is reached."""
    with leading(limits=Limits(max_age_ns=10 * S, max_msgs=3), hb_interval_ns=10**15) as leader:
        me = leader.client()
        me.publish("foo", 2)
        leader.loop.move(10.3)
        me.publish("foo", 2)
        leader.stop()
        leader.restart()
        me.publish("foo")
        assert held(leader.channel("foo")) == (3, 5)
        assert "Reached limits" not in caplog.text
        me.publish("foo")
        assert held(leader.channel("foo")) == (4, 6)
        assert caplog.text.count('Reached limits for store "foo" (msgs=3/3 ') == 1


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


# ---- age and inactivity


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
