"""Which channels exist from a leader's first word on, and which new ones are allowed."""

import pytest

from server.config.channel_limits import ChannelLimits
from server.config.model import Limits
from server.protocol import responses
from server.protocol import stan_pb2 as pb
from store.operations import CreateChannel, SetLimits
from store.operations import Limits as StoredLimits
from tests.support.leader_harness import leading


@pytest.fixture
def leader():
    """A leader that serves, on an empty store."""
    with leading() as leader:
        yield leader


def applied(leader, kind):
    return [one for operations in leader.log.applied for one in operations if isinstance(one, kind)]


def creations(leader):
    return applied(leader, CreateChannel)


def restart_with(leader, **limits):
    """An orderly restart with these limits and no others."""
    leader.stop()
    leader.options = leader.options.model_copy(update={"limits": Limits(**limits)})
    leader.log.applied.clear()
    leader.restart()


def subscribe_error(leader, client, channel, **options):
    leader.feed(client.subscribe_bytes(channel, "in", **options))
    return leader.answer("r.sub.in", pb.SubscriptionResponse).error


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
    """B271, B336: the engine is told which subscriptions and queue groups a deleted channel took with it."""
    with leading(limits=Limits(max_inactivity_ns=10**9)) as leader:
        me = leader.client()
        forgotten = []
        leader.leadership.channels.on_removed = forgotten.append
        sub = me.subscribe("foo", "in", durable="d")
        member = me.subscribe("foo", "in2", durable="d", group="g")
        group_id = member.group_id
        me.end("subclose", "foo", "in")
        me.end("subclose", "foo", "in2")
        leader.loop.move(1.3)
        assert forgotten == [sub.subscription_id, group_id]
        assert leader.store.state.groups == {}


# ---- limits of channels


def test_channel_is_created_with_its_own_limits():
    """B333, O505, O506: whatever creates it; each limit of the narrowest entry that sets it, else the global one."""
    channels = {
        "foo.*": ChannelLimits(max_msgs=3),
        "foo.big": ChannelLimits(max_msgs=0, max_bytes=2 * 10**9),
        "bar": ChannelLimits(max_bytes=500),
    }
    with leading(limits=Limits(max_msgs=10, max_bytes=10**9, channels=channels)) as leader:
        me = leader.client()
        me.publish("foo.a", 20)
        me.publish("foo.big", 20)
        me.subscribe("bar", "in")
        me.publish("other", 20)
        assert {one.name: one.limits for one in creations(leader)} == {
            "foo.a": StoredLimits(3, 10**9, 0),
            "foo.big": StoredLimits(0, 2 * 10**9, 0),
            "bar": StoredLimits(10, 500, 0),
            "other": StoredLimits(10, 10**9, 0),
        }
        assert {one.name: (one.first_seq, one.last_seq) for one in leader.store.state.channels.values()} == {
            "foo.a": (18, 20),
            "foo.big": (1, 20),
            "bar": (1, 0),
            "other": (11, 20),
        }


@pytest.mark.parametrize(("store", "overhead"), [("FILE", 40), ("MEMORY", 0)])
def test_bytes_of_a_message(store, overhead):
    """O511, B327: with a FILE store a message counts 40 bytes more than its encoding."""
    with leading(store=store, dir="data", limits=Limits(channels={"foo": ChannelLimits(max_bytes=1000)})) as leader:
        me = leader.client()
        me.publish("foo", 100, data=b"x" * 10)
        foo = leader.channel("foo")
        assert foo.limits == StoredLimits(1_000_000, 1000, overhead)
        size = foo.total_bytes // foo.count
        assert foo.count == 1000 // (size + overhead)


def test_own_limit_on_subscriptions():
    """B330, B333, O502, O506: higher, lower or none; for plain subscriptions, offline durables and members alike."""
    channels = {
        "few": ChannelLimits(max_subs=1),
        "more.>": ChannelLimits(max_subs=3),
        "any": ChannelLimits(max_subs=0),
    }
    with leading(limits=Limits(max_subs=2, channels=channels)) as leader:
        me = leader.client()
        allowed = {"few": 1, "more.x": 3, "other": 2, "any": 7}
        for channel, count in allowed.items():
            shapes = [{"durable": "d"}, {"durable": "d", "group": "g"}, {"group": "g"}, {}, {}, {}, {}][:count]
            assert [subscribe_error(leader, me, channel, **shape) for shape in shapes] == [""] * count
        me.end("subclose", "few", "in")
        full = {name: subscribe_error(leader, me, name) == responses.TOO_MANY_SUBSCRIPTIONS for name in allowed}
        assert full == {"few": True, "more.x": True, "other": True, "any": False}
        assert subscribe_error(leader, me, "few", durable="d") == ""


def test_unlimited_globally_and_limited_for_some():
    """B332: 0 is unlimited for the global limits, and an entry limits its channels nevertheless."""
    zeros = dict.fromkeys(("max_channels", "max_subs", "max_msgs", "max_bytes"), 0)
    with leading(limits=Limits(**zeros, channels={"foo.>": ChannelLimits(max_msgs=2, max_subs=1)})) as leader:
        me = leader.client()
        for number in range(150):
            me.publish(f"bar.{number}")
        me.publish("foo.a", 5)
        assert {ack.error for ack in leader.pub_acks()} == {""}
        assert leader.channel("foo.a").count == 2
        assert [subscribe_error(leader, me, "foo.a") for _ in range(2)] == ["", responses.TOO_MANY_SUBSCRIPTIONS]
        assert [subscribe_error(leader, me, "bar.0") for _ in range(5)] == [""] * 5


def test_other_limits_at_the_next_start():
    """B334, O508: each recovered channel gets its limits of this start, and they are enforced before anybody is served."""
    with leading(limits=Limits(max_msgs=10)) as leader:
        me = leader.client()
        for name in ("foo.a", "foo.b", "bar"):
            me.publish(name, 10)
        restart_with(
            leader, max_msgs=10, channels={"foo.*": ChannelLimits(max_msgs=4), "foo.b": ChannelLimits(max_msgs=6)}
        )
        assert {one.channel_id: one.limits.max_msgs for one in applied(leader, SetLimits)} == {
            leader.channel("foo.a").channel_id: 4,
            leader.channel("foo.b").channel_id: 6,
        }
        ranges = {one.name: (one.first_seq, one.last_seq) for one in leader.store.state.channels.values()}
        assert ranges == {"foo.a": (7, 10), "foo.b": (5, 10), "bar": (1, 10)}


def test_what_limits_removed_does_not_come_back():
    """O508: raising the limit brings nothing back, and counts for what comes; nothing is told again that did not change."""
    with leading(limits=Limits(channels={"foo": ChannelLimits(max_msgs=2)})) as leader:
        me = leader.client()
        me.publish("foo", 5)
        restart_with(leader, channels={"foo": ChannelLimits(max_msgs=4)})
        assert (leader.channel("foo").first_seq, leader.channel("foo").last_seq) == (4, 5)
        me.subscribe("foo", "in")
        assert leader.seqs("in") == [4, 5]
        me.publish("foo", 3)
        assert (leader.channel("foo").first_seq, leader.channel("foo").last_seq) == (5, 8)
        restart_with(leader, channels={"foo": ChannelLimits(max_msgs=4)})
        assert applied(leader, SetLimits) == []


def test_what_was_recovered_stays_above_the_limits():
    """B334, O507: lowered limits on channels and subscriptions only stop new ones."""
    with leading() as leader:
        me = leader.client()
        for name in ("a", "b", "c"):
            me.publish(name, 2)
        subs = [me.subscribe("a", "in", durable=f"d{number}") for number in range(3)]
        me.end("subclose", "a", subs[0].ack_inbox)
        restart_with(leader, max_channels=1, channels={"a": ChannelLimits(max_subs=1)})
        assert list(leader.store.state.channels) == ["a", "b", "c"]
        assert len(leader.store.state.subscriptions) == 3
        assert subscribe_error(leader, me, "a") == responses.TOO_MANY_SUBSCRIPTIONS
        assert subscribe_error(leader, me, "a", durable="d0") == ""
        leader.pub_acks()
        for name in ("a", "b", "c", "d"):
            me.publish(name)
        assert [ack.error for ack in leader.pub_acks()] == ["", "", "", responses.TOO_MANY_CHANNELS]


def test_pending_and_undelivered_messages_go_like_all_others():
    """B326, B329: the limit counts messages, whatever subscriptions did with them; what is left is delivered."""
    with leading(limits=Limits(channels={"foo": ChannelLimits(max_msgs=3)}), hb_interval_ns=10**15) as leader:
        me = leader.client()
        me.subscribe("foo", "in", max_in_flight=2, ack_wait_s=1)
        me.publish("foo", 2)
        assert leader.seqs("in") == [1, 2]
        me.publish("foo", 8)
        assert (leader.channel("foo").first_seq, leader.channel("foo").last_seq) == (8, 10)
        leader.loop.move(1.5)
        assert leader.seqs("in") == [8, 9]
