"""The life of a client as its heartbeats decide it, to the letter: moments, marks, what a ping hastens, the end."""

import pytest

from server.protocol import responses
from server.protocol import stan_pb2 as pb
from tests.support.leader_harness import Client, leading
from tests.support.moved_loop import NS
from tests.support.timeline import Timeline


@pytest.fixture
def leader():
    """Heartbeats every 10 s, one second to answer, any number of failures."""
    with leading(hb_interval_ns=10 * NS, hb_timeout_ns=NS, hb_fail_count=1000) as leader:
        yield leader


def answer_beat(leader, client_id="me"):
    """The client answers the only heartbeat that waits for it."""
    (beat,) = leader.take(f"hb.{client_id}")
    leader.answer_request(beat)


def fail_a_beat(leader):
    """Time passes until the client has failed one heartbeat, two seconds ago."""
    leader.loop.move(13)
    leader.take()


# ---- moments


def test_silent_client_with_the_defaults():
    """B340, B341: heartbeats 30 s after the connect and 30 s after each failure of 10 s; closed after the eleventh."""
    with leading() as leader:
        leader.client()
        timeline = Timeline(leader)
        timeline.move(439_900)
        assert timeline.moments("hb.me") == [30_000 + 40_000 * number for number in range(11)]
        assert "me" in leader.store.state.clients
        timeline.move(440_100)
        assert leader.store.state.clients == {}
        timeline.move(1_000_000)
        assert timeline.moments("hb.me") == []


def test_vanished_client_with_the_defaults():
    """B341, B51: "no responders" skips the wait of 10 s: eleven heartbeats 30 s apart, closed at 330 s."""
    with leading() as leader:
        leader.client()
        timeline = Timeline(leader)
        for number in range(1, 12):
            timeline.move(30_000 * number)
            assert "me" in leader.store.state.clients
            (beat,) = leader.take("hb.me")
            leader.answer_request(beat, status="503")
        assert leader.store.state.clients == {}
        assert timeline.moments("hb.me") == [30_000 * number for number in range(1, 12)]


def test_interval_begins_with_the_answer_to_the_connect(leader):
    """B47, B340: not with the request, which may wait for the log."""
    leader.log.is_applying_at_once = False
    leader.feed(Client(leader, "me").connect_bytes())
    leader.loop.move(7)
    leader.log.apply_next()
    leader.log.is_applying_at_once = True
    timeline = Timeline(leader)
    timeline.move(10_500)
    assert timeline.moments("hb.me") == [10_000]


@pytest.mark.parametrize("payload", [b"", b"anything", b"\xff" * 5000])
def test_any_answer_counts_and_the_next_interval_begins_with_it(leader, payload):
    """B8, B340: whatever the client says, 10 s later it is asked again."""
    leader.client()
    leader.loop.move(10.4)
    (beat,) = leader.take("hb.me")
    timeline = Timeline(leader)
    leader.answer_request(beat, payload)
    timeline.move(10_500)
    assert timeline.moments("hb.me") == [10_000]
    assert not leader.leadership.prober.is_failing("me")


def test_second_answer_to_a_heartbeat_changes_nothing(leader):
    """B340: one answer is one success; the next heartbeat needs one of its own."""
    leader.client()
    leader.loop.move(10)
    (beat,) = leader.take("hb.me")
    leader.answer_request(beat)
    leader.loop.move(9.5)
    leader.answer_request(beat)
    leader.loop.move(0.6)
    (second,) = leader.take("hb.me")
    leader.answer_request(beat)
    leader.loop.move(1)
    assert second.reply != beat.reply
    assert leader.leadership.prober.is_failing("me")


# ---- marks


def test_mark_is_the_clients(leader):
    """B342, ours: subscriptions from before and after the failure are paused alike, and go on together."""
    me = leader.client()
    me.subscribe("foo", "before", ack_wait_s=2)
    fail_a_beat(leader)
    me.subscribe("foo", "after", ack_wait_s=2)
    me.publish("foo")
    assert (leader.seqs("before"), leader.seqs("after")) == ([1], [1])  # new messages come (B242)
    leader.loop.move(4.1)
    assert (leader.seqs("before"), leader.seqs("after")) == ([], [])
    leader.feed(me.ping_bytes())
    leader.loop.move(0.002)
    answer_beat(leader)
    leader.loop.move(2)
    assert (leader.seqs("before"), leader.seqs("after")) == (["1r1"], ["1r1"])


def test_mark_ends_with_the_first_success_only(leader):
    """B342: further failures change nothing about it, one success ends it however many there were."""
    leader.client()
    for _ in range(4):
        fail_a_beat(leader)
        assert leader.leadership.prober.is_failing("me")
    leader.loop.move(2)
    answer_beat(leader)
    assert not leader.leadership.prober.is_failing("me")


def test_no_mark_outlives_its_client(leader):
    """B293, B342: the next client of that id, by a close or by a replacement, starts without failures."""
    old = leader.client()
    fail_a_beat(leader)
    assert leader.leadership.prober.is_failing("me")
    old.close()
    leader.client()
    assert not leader.leadership.prober.is_failing("me")
    fail_a_beat(leader)
    assert leader.leadership.prober.is_failing("me")
    leader.feed(Client(leader, "me", "hb.new").connect_bytes())
    leader.loop.move(0.6)
    assert leader.answer("r.connect.me", pb.ConnectResponse).error == ""
    assert not leader.leadership.prober.is_failing("me")


def test_durable_of_a_replaced_client_keeps_its_rhythm(leader):
    """B293: after the resume by the new instance nothing is paused: sent at once, then once per ack wait."""
    me = leader.client()
    me.subscribe("foo", "in", durable="d", ack_wait_s=100)
    me.publish("foo")
    fail_a_beat(leader)
    new = Client(leader, "me", "hb.new")
    leader.feed(new.connect_bytes())
    leader.loop.move(0.6)
    leader.take()
    timeline = Timeline(leader)
    new.subscribe("foo", "new", durable="d", ack_wait_s=2)
    timeline.move(6500)
    assert timeline.sent("new") == [(0, "1r1"), (2000, "1r2"), (4000, "1r3"), (6000, "1r4")]


# ---- pings


def test_ping_lets_redelivery_go_on(leader):
    """B74: the ping is answered, the heartbeat follows within 1 ms, and with its answer the pause is over."""
    me = leader.client()
    me.subscribe("foo", "in", ack_wait_s=1)
    fail_a_beat(leader)
    me.publish("foo")
    leader.loop.move(1.5)
    leader.take()
    timeline = Timeline(leader)
    leader.feed(me.ping_bytes())
    timeline.move(1.1)
    assert timeline.moments("r.ping.me") == [0]
    assert timeline.moments("hb.me") == [1]
    answer_beat(leader)
    timeline.move(1000)
    assert timeline.sent("in") == [(500, "1r1")]


@pytest.mark.parametrize("conn_id", [b"", b"unknown"])
def test_ping_that_is_not_the_clients_hastens_nothing(leader, conn_id):
    """B74: it must be valid: without connID, or with that of nobody, the interval stays."""
    me = leader.client()
    fail_a_beat(leader)
    me.conn_id = conn_id
    leader.feed(me.ping_bytes())
    leader.loop.move(7.9)
    assert leader.take("hb.me") == []


def test_ping_during_a_heartbeat_sends_no_second_one(leader):
    """B74: the one under way decides; when it fails, too, the next ping hastens again."""
    me = leader.client()
    fail_a_beat(leader)
    leader.loop.move(8.5)
    assert len(leader.take("hb.me")) == 1
    leader.feed(me.ping_bytes())
    leader.loop.move(0.4)
    assert leader.take("hb.me") == []
    leader.loop.move(0.2)
    leader.feed(me.ping_bytes())
    leader.loop.move(0.002)
    assert len(leader.take("hb.me")) == 1


def test_client_that_pings_and_answers_no_heartbeat_is_closed():
    """B73, B341: pings do not keep a client, and hastened heartbeats count as any other."""
    with leading(hb_interval_ns=10 * NS, hb_timeout_ns=NS, hb_fail_count=2) as leader:
        me = leader.client()
        leader.loop.move(11.5)
        for _ in range(2):
            leader.feed(me.ping_bytes())
            assert leader.answer("r.ping.me", pb.PingResponse).error == ""
            leader.loop.move(1.1)
        assert leader.store.state.clients == {}
        leader.feed(me.ping_bytes())
        assert leader.answer("r.ping.me", pb.PingResponse).error == responses.CLIENT_REPLACED


# ---- end


def test_timed_out_client_is_unregistered_first():
    """B345, B347: while its end travels nothing of it is served, and nothing is sent to it; it is told by its requests."""
    with leading(hb_interval_ns=10 * NS, hb_timeout_ns=NS, hb_fail_count=0) as leader:
        me, you = leader.client("me"), leader.client("you")
        me.subscribe("foo", "in", ack_wait_s=1)
        leader.loop.move(10)
        answer_beat(leader, "you")
        leader.log.is_applying_at_once = False
        leader.loop.move(1.1)
        leader.take()
        assert "me" in leader.store.state.clients
        assert len(leader.log.proposed) == 1
        me.publish("foo")
        assert [ack.error for ack in leader.pub_acks()] == [responses.INVALID_PUBLISH]
        leader.feed(me.ping_bytes() + me.subscribe_bytes("foo", "in2"))
        assert leader.answer("r.ping.me", pb.PingResponse).error == responses.CLIENT_REPLACED
        assert leader.answer("r.sub.in2", pb.SubscriptionResponse).error == responses.UNKNOWN_CLIENT_ID
        you.publish("foo")
        leader.log.apply_next()
        leader.log.apply_next()
        leader.log.is_applying_at_once = True
        leader.loop.move(5)
        assert leader.store.state.clients.keys() == {"you"}
        assert [frame.subject for frame in leader.take() if frame.subject.startswith(("in", "hb.me"))] == []
        assert leader.channel("foo").last_seq == 1


def test_acks_before_the_timeout_count():
    """B345: the durable of a client that times out has exactly what was not acked before."""
    with leading(hb_interval_ns=10 * NS, hb_timeout_ns=NS, hb_fail_count=0) as leader:
        me = leader.client()
        sub = me.subscribe("foo", "in", durable="d")
        me.publish("foo", 5)
        leader.loop.move(10.99)
        leader.log.is_applying_at_once = False
        me.ack(sub, 1, 2, 4)
        leader.loop.move(0.1)
        while leader.log.proposed:
            leader.log.apply_next()
        leader.log.is_applying_at_once = True
        assert leader.store.state.clients == {}
        leader.client().subscribe("foo", "again", durable="d")
        assert leader.seqs("again") == ["3r1", "5r1"]


def test_publishes_received_before_the_timeout_are_stored_and_acked():
    """B346: what waits in the open batch when the client is closed is stored, and its PubAck is sent."""
    with leading(hb_interval_ns=10 * NS, hb_timeout_ns=NS, hb_fail_count=0) as leader:
        me = leader.client()
        leader.loop.move(10.9)
        leader.log.is_applying_at_once = False
        me.publish("foo")  # travels
        me.publish("foo", 2)  # waits
        leader.loop.move(0.2)
        while leader.log.proposed:
            leader.log.apply_next()
        assert [ack.error for ack in leader.pub_acks()] == ["", "", ""]
        assert leader.store.state.clients == {}
        assert leader.channel("foo").last_seq == 3
