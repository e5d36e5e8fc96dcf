"""The timeline sees everything that is sent, at its moment, whoever takes it."""

from tests.support.leader_harness import leading
from tests.support.timeline import Timeline


def test_moments_and_names():
    """Messages of one write share a moment; redeliveries have their count; each call tells what is new."""
    with leading(hb_interval_ns=10**18) as leader:
        me = leader.client()
        me.subscribe("foo", "in", ack_wait_s=1)
        timeline = Timeline(leader)
        timeline.move(100)
        me.publish("foo", 2)
        timeline.move(1100)
        assert timeline.sent("in") == [(100, 1, 2), (1100, "1r1", "2r1")]
        assert timeline.sent("in") == []
        assert timeline.moments("acks") == [100, 100]


def test_takes_of_others_and_dropped_writes():
    """What a test takes is still in the timeline; what was written while NATS was away is not, it never left."""
    with leading(hb_interval_ns=10**18) as leader:
        me = leader.client()
        timeline = Timeline(leader)
        me.subscribe("foo", "in")
        me.publish("foo")
        assert leader.seqs("in") == [1]
        leader.nats.is_connected = False
        leader.feed(me.ping_bytes())
        leader.nats.is_connected = True
        timeline.move(50)
        leader.feed(me.ping_bytes())
        assert len(leader.take("r.ping.me")) == 1
        assert timeline.sent("in") == [(0, 1)]
        assert timeline.moments("r.ping.me") == [50]
