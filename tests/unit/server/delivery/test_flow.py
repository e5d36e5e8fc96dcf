"""Sending as fast as NATS takes it and the log follows, to many subscriptions, none starved."""

import pytest

from server.config.model import Limits
from server.delivery import stream as stream_module
from server.protocol import stan_pb2 as pb
from tests.support.leader_harness import damage, leading

KIB = 1024


@pytest.fixture
def leader():
    """A leader that serves, on an empty store."""
    with leading() as leader:
        yield leader


def seqs_in_order(leader, *inboxes):
    """Inbox and sequence of every delivery since the last call."""
    return [
        (frame.subject, pb.MsgProto.FromString(frame.payload).sequence)
        for frame in leader.take()
        if frame.subject in inboxes
    ]


# ---- a connection that is away or full


def test_nothing_is_sent_or_lost_while_nats_is_away(leader):
    """B236: not pending and not sent while disconnected; all of it comes when NATS is back, unmarked."""
    me = leader.client()
    sub = me.subscribe("foo", "in")
    leader.log.is_applying_at_once = False
    me.publish("foo", 3)
    leader.nats.is_connected = False
    leader.log.apply_next()
    leader.loop.move(1)
    assert leader.delivery().pending == 0
    leader.nats.is_connected = True
    leader.leadership.on_connected()
    leader.loop.run()
    assert leader.seqs("in") == [1, 2, 3]
    assert sub.last_sent == 0


def test_redelivery_due_while_nats_is_away_comes_when_it_is_back(leader):
    """B236: a redelivery is not counted as sent while disconnected, and no timer is needed to go on."""
    me = leader.client()
    me.subscribe("foo", "in", ack_wait_s=1)
    me.publish("foo", 2)
    leader.seqs("in")
    leader.nats.is_connected = False
    leader.loop.move(10)
    leader.nats.is_connected = True
    leader.leadership.on_connected()
    leader.loop.run()
    assert leader.seqs("in") == ["1r1", "2r1"]
    leader.loop.move(1)
    assert leader.seqs("in") == ["1r2", "2r2"]


def test_redelivery_goes_on_where_the_buffer_was_full(leader, monkeypatch):
    """B236: a round that fills the buffer half way sends the rest when there is room, each message once."""
    monkeypatch.setattr(stream_module, "FLUSH_BYTES", 100)
    me = leader.client()
    me.subscribe("foo", "in", ack_wait_s=1)
    for _ in range(4):
        me.publish("foo", 1, b"x" * 100)
        leader.loop.move(0.008)
    leader.take()
    leader.nats.on_write = lambda: setattr(leader.nats, "is_writable", False)
    leader.loop.move(1)
    got = leader.seqs("in")
    assert len(got) < 4
    for _ in range(4):
        leader.nats.is_writable = True
        leader.leadership.on_writable()
        leader.loop.run()
    assert got + leader.seqs("in") == ["1r1", "2r1", "3r1", "4r1"]


def test_full_buffer_stops_delivery_until_it_drains(leader):
    """B236: what NATS does not take waits in the store, not in our memory."""
    me = leader.client()
    me.subscribe("foo", "in")
    leader.nats.is_writable = False
    me.publish("foo", 3)
    assert leader.seqs("in") == []
    leader.nats.is_writable = True
    leader.leadership.on_writable()
    leader.loop.run()
    assert leader.seqs("in") == [1, 2, 3]


def test_one_write_is_bounded_however_many_subscriptions_there_are(leader):
    """Memory: what one turn collects for NATS is bounded over all subscriptions, so the buffer's mark can stop it."""
    me = leader.client()
    for number in range(40):
        me.subscribe("foo", f"in.{number}")
    writes = leader.nats.writes
    writes.clear()
    me.publish("foo", 8, b"x" * 120 * KIB)
    assert max(map(len, writes)) <= stream_module.FLUSH_BYTES + stream_module.TURN_MAX_BYTES + 200 * KIB
    assert sum(map(len, writes)) > 40 * 8 * 120 * KIB


def test_full_buffer_starves_nobody(leader, monkeypatch):
    """B241: with a buffer that takes a little at a time every subscription gets its turn."""
    monkeypatch.setattr(stream_module, "TURN_MAX_BYTES", 5 * KIB)
    monkeypatch.setattr(stream_module, "FLUSH_BYTES", 5 * KIB)
    me = leader.client()
    me.publish("foo", 100, b"x" * KIB)
    leader.nats.is_writable = False
    for number in range(6):
        me.subscribe("foo", f"in.{number}")
    leader.take()
    leader.nats.on_write = lambda: setattr(leader.nats, "is_writable", False)
    for _ in range(12):
        leader.nats.is_writable = True
        leader.leadership.on_writable()
        leader.loop.run()
    counts = [len(leader.seqs(f"in.{number}")) for number in range(6)]
    assert min(counts) > 0
    assert max(counts) <= 3 * min(counts)


def test_idle_subscriptions_cost_nothing_when_the_buffer_drains(leader):
    """A busy connection says often that it has room: only subscriptions that wait for it are looked at."""
    me = leader.client()
    for number in range(50):
        me.subscribe("idle", f"idle.{number}")
    me.subscribe("foo", "in")
    calls, _ = damage(leader, ())
    leader.nats.is_writable = False
    me.publish("foo")
    leader.nats.is_writable = True
    looks = count_looks(leader)
    leader.leadership.on_writable()
    leader.loop.run()
    assert leader.seqs("in") == [1]
    assert len(looks) < 20
    assert calls == [1]


def count_looks(leader):
    """Every question of the engine to its port from here on."""
    looks = []
    delivery = leader.leadership.delivery
    port = delivery.port

    class Port:
        def __getattr__(self, name):
            looks.append(name)
            return getattr(port, name)

    delivery.port = delivery.turns.port = Port()
    return looks


# ---- fairness


def test_backlog_is_sent_in_turns(leader, monkeypatch):
    """B241: a long backlog is sent a turn at a time, so that subscriptions take turns and requests get in between."""
    monkeypatch.setattr(stream_module, "TURN_MAX_BYTES", 3 * KIB)
    me = leader.client()
    me.publish("foo", 30, b"x" * KIB)
    leader.nats.is_writable = False
    me.subscribe("foo", "one")
    me.subscribe("foo", "two")
    leader.take()
    leader.nats.is_writable = True
    leader.leadership.on_writable()
    leader.loop.run()
    order = seqs_in_order(leader, "one", "two")
    assert [seq for inbox, seq in order if inbox == "one"] == list(range(1, 31))
    assert [seq for inbox, seq in order if inbox == "two"] == list(range(1, 31))
    runs = [inbox for index, (inbox, _) in enumerate(order) if not index or order[index - 1][0] != inbox]
    assert len(runs) >= 14


def test_one_turn_sends_at_most_its_share(leader, monkeypatch):
    """B241: one subscription's turn ends at TURN_MAX_BYTES, for new messages and for redeliveries."""
    monkeypatch.setattr(stream_module, "TURN_MAX_BYTES", 3 * KIB)
    me = leader.client()
    me.publish("foo", 30, b"x" * KIB)
    me.subscribe("foo", "in", ack_wait_s=1, durable="d")
    me.end("subclose", "foo", "in")
    leader.take()
    leader.log.is_applying_at_once = False
    leader.feed(me.subscribe_bytes("foo", "in", durable="d"))
    leader.log.apply_next()
    counts = [len(leader.seqs("in"))]
    for _ in range(12):
        leader.loop.turn()
        counts.append(len(leader.seqs("in")))
    assert sum(counts) == 30
    assert max(counts) <= 4


def test_progress_of_a_backlog_is_replicated(leader, monkeypatch):
    """B253: what the loop sends by itself, after the last message from outside, is replicated within 20 ms as well."""
    monkeypatch.setattr(stream_module, "TURN_MAX_BYTES", 3 * KIB)
    me = leader.client()
    me.publish("foo", 30, b"x" * KIB)
    sub = me.subscribe("foo", "in")
    leader.loop.move(0.05)
    assert sub.last_sent == 30


# ---- the bound of what may be sent before it is replicated


def test_send_ahead_bound(leader, monkeypatch):
    """B394: at most SEND_AHEAD_MAX beyond the replicated last sent; the replication releases the next ones at once."""
    monkeypatch.setattr(stream_module, "SEND_AHEAD_MAX", 10)
    me = leader.client()
    me.publish("foo", 25)
    leader.log.is_applying_at_once = False
    leader.feed(me.subscribe_bytes("foo", "in"))
    sent = []
    while leader.log.proposed:
        leader.log.apply_next()
        leader.loop.run()
        sent.append(leader.seqs("in"))
    assert sent[:3] == [list(range(1, 11)), list(range(11, 21)), list(range(21, 26))]


def test_send_ahead_bound_holds_behind_removed_messages(monkeypatch):
    """B394: skipping what limits removed must not carry the sender beyond what a next leader takes as sent."""
    monkeypatch.setattr(stream_module, "SEND_AHEAD_MAX", 10)
    with leading(limits=Limits(max_msgs=5)) as leader:
        me = leader.client()
        me.subscribe("foo", "in", start=pb.NewOnly)
        leader.nats.is_writable = False
        me.publish("foo", 100)
        leader.log.is_applying_at_once = False
        leader.nats.is_writable = True
        leader.leadership.on_writable()
        leader.loop.run()
        assert leader.seqs("in") == []
        leader.log.apply_next()
        leader.loop.run()
        assert leader.seqs("in") == [96, 97, 98, 99, 100]
