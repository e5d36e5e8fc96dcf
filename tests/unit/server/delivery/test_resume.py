"""Subscriptions that go on: after a restart or crash of the server, and durables that are resumed."""

import pytest

from server.delivery import stream as stream_module
from tests.support.leader_harness import leading

KIB = 1024


@pytest.fixture
def leader():
    """A leader that serves, on an empty store."""
    with leading() as leader:
        yield leader


# ---- restart


def test_suspects_are_sent_flagged_and_counted():
    """B394, B272: suspects come with count 1, the next time with 2; what comes new later is unmarked."""
    with leading() as leader:
        me = leader.client()
        me.subscribe("foo", "in", ack_wait_s=2)
        leader.loop.move(1)
        leader.log.is_applying_at_once = False
        me.publish("foo", 3)
        leader.log.apply_next()
        leader.take()
        leader.crash()
        leader.log.is_applying_at_once = True
        leader.restart()
        assert leader.seqs("in") == ["1r1", "2r1", "3r1"]
        me.publish("foo")
        assert leader.seqs("in") == [4]
        leader.loop.move(2)
        assert leader.seqs("in") == ["1r2", "2r2", "3r2", "4r1"]


def test_suspects_and_new_ones_in_one_reading():
    """B394, B243: only what the earlier leader may have sent is flagged, also when it is sent together with new ones."""
    with leading() as leader:
        me = leader.client()
        me.subscribe("foo", "in")
        leader.loop.move(1)
        leader.log.is_applying_at_once = False
        me.publish("foo", 3)
        leader.log.apply_next()
        leader.take()
        leader.crash()
        leader.log.is_applying_at_once = True
        leader.nats.is_writable = False
        leader.restart()
        me.publish("foo", 3)
        leader.nats.is_writable = True
        leader.leadership.on_writable()
        leader.loop.run()
        assert leader.seqs("in") == ["1r1", "2r1", "3r1", 4, 5, 6]


def test_nothing_is_suspected_after_a_clean_stop():
    """B394: after a clean stop what was sent comes as redelivered, what was not sent comes as new."""
    with leading() as leader:
        me = leader.client()
        sub = me.subscribe("foo", "in", ack_wait_s=30, max_in_flight=3)
        me.publish("foo", 5)
        leader.take()
        me.ack(sub, 2)
        assert leader.seqs("in") == [4]
        leader.stop()
        leader.take()
        leader.restart()
        leader.take()
        me.ack(sub, 1)
        assert leader.seqs("in") == [5]
        leader.loop.move(31)
        assert leader.seqs("in") == ["3r1", "4r1", "5r1"]


def test_restart_examines_pending_first():
    """B363, B364: due by message timestamp plus ack wait; past ones come at once, in order, then new ones, then the rest."""
    with leading() as leader:
        me = leader.client()
        sub = me.subscribe("foo", "in", ack_wait_s=30, max_in_flight=4)
        me.publish("foo", 2)
        leader.loop.move(29)
        me.publish("foo", 4)
        me.ack(sub, 1)
        leader.loop.move(0.1)
        leader.stop()
        leader.take()
        leader.loop.move(2)
        leader.restart()
        assert leader.seqs("in") == ["2r1"]
        me.ack(sub, 2)
        assert leader.seqs("in") == [6]
        leader.loop.move(27.7)
        assert leader.seqs("in") == ["3r1", "4r1", "5r1"]


def test_new_messages_wait_for_the_first_pass(monkeypatch):
    """B363: new messages of a subscription are held until all that is past due was sent, over several turns."""
    monkeypatch.setattr(stream_module, "TURN_MAX_BYTES", 3 * KIB)
    with leading() as leader:
        me = leader.client()
        me.subscribe("foo", "in", ack_wait_s=1)
        me.publish("foo", 10, b"x" * KIB)
        leader.loop.move(0.1)
        leader.stop()
        leader.take()
        leader.loop.move(60)
        leader.restart()
        me.publish("foo")
        assert leader.seqs("in") == [f"{seq}r1" for seq in range(1, 11)] + [11]


def test_redelivery_after_restart_is_no_burst_on_a_machine_just_booted():
    """B264: the monotonic clock may have started after the message was sent; it comes once per ack wait all the same."""
    with leading(hb_interval_ns=10**15) as leader:
        me = leader.client()
        me.subscribe("foo", "in", ack_wait_s=2000)
        me.publish("foo")
        leader.loop.move(0.1)
        leader.stop()
        leader.take()
        leader.wall_offset_ns += 10_000 * 10**9
        leader.restart()
        assert leader.seqs("in") == ["1r1"]
        leader.loop.move(1999)
        assert leader.seqs("in") == []


def test_offline_durables_stay_offline_after_restart():
    """B291, B368: a durable that is offline gets nothing after a restart, and resumes where it was."""
    with leading() as leader:
        me = leader.client()
        me.subscribe("foo", "in", durable="d")
        me.publish("foo", 2)
        me.end("subclose", "foo", "in")
        leader.take()
        leader.stop()
        leader.restart()
        me.publish("foo")
        leader.loop.move(60)
        assert leader.seqs("in") == []
        me.subscribe("foo", "in2", durable="d")
        assert leader.seqs("in2") == ["1r1", "2r1", 3]


# ---- resumed durables


def test_resume_sends_all_pending_first(leader):
    """B284: all pending, in order, flagged, whatever maxInFlight and deadlines say; new messages behind them."""
    me = leader.client()
    sub = me.subscribe("foo", "in", durable="d")
    me.publish("foo", 5)
    me.ack(sub, 2)
    me.end("subclose", "foo", "in")
    me.publish("foo", 2)
    assert leader.seqs("in") == [1, 2, 3, 4, 5]
    me.subscribe("foo", "in2", durable="d", max_in_flight=5)
    assert leader.seqs("in2") == ["1r1", "3r1", "4r1", "5r1", 6]


def test_new_messages_wait_while_a_long_resume_takes_turns(leader, monkeypatch):
    """B284: pending messages that fill several turns all come before the first new one."""
    monkeypatch.setattr(stream_module, "TURN_MAX_BYTES", 3 * KIB)
    me = leader.client()
    me.subscribe("foo", "in", durable="d")
    me.publish("foo", 10, b"x" * KIB)
    me.end("subclose", "foo", "in")
    me.publish("foo", 5, b"x")
    leader.take()
    me.subscribe("foo", "in2", durable="d")
    assert leader.seqs("in2") == [f"{seq}r1" for seq in range(1, 11)] + [11, 12, 13, 14, 15]


def test_resume_with_smaller_max_in_flight(leader):
    """B285: 5 pending and maxInFlight 2: the fourth ack releases the next new message."""
    me = leader.client()
    me.subscribe("foo", "in", durable="d")
    me.publish("foo", 6)
    me.end("subclose", "foo", "in")
    leader.take()
    me.publish("foo")
    sub = me.subscribe("foo", "in2", durable="d", max_in_flight=2)
    assert leader.seqs("in2") == [f"{seq}r1" for seq in range(1, 7)]
    released = []
    for seq in range(1, 7):
        me.ack(sub, seq)
        released.append(leader.seqs("in2"))
    assert released == [[], [], [], [], [7], []]


def test_counts_survive_close_and_resume(leader):
    """B271: redelivery counts go on over a close and resume, also when the whole client goes; unsubscribe ends them."""
    me = leader.client()
    me.subscribe("foo", "in", durable="d", ack_wait_s=1)
    me.publish("foo")
    leader.loop.move(2)
    assert leader.seqs("in") == [1, "1r1", "1r2"]
    me.end("subclose", "foo", "in")
    me.subscribe("foo", "in", durable="d", ack_wait_s=100)
    assert leader.seqs("in") == ["1r3"]
    me.close()
    me = leader.client()
    me.subscribe("foo", "in", durable="d")
    assert leader.seqs("in") == ["1r4"]
    me.end("unsub", "foo", "in")
    me.subscribe("foo", "in", durable="d")
    assert leader.seqs("in") == [1]


def test_resumed_durable_comes_again_after_a_whole_ack_wait(leader):
    """B264: after the resume the next round is one new ack wait away, however long that is against the clock's origin."""
    me = leader.client()
    me.subscribe("foo", "in", durable="d")
    me.publish("foo")
    me.end("subclose", "foo", "in")
    leader.take()
    me.subscribe("foo", "in", durable="d", ack_wait_s=3000)
    assert leader.seqs("in") == ["1r1"]
    leader.nats.is_connected = True
    timers = sorted(timer.when() for timer in leader.loop.timers())
    assert timers[-1] == pytest.approx(leader.loop.time() + 3000, abs=0.1)


def test_resume_of_a_failing_client_is_not_paused(leader):
    """B293: the failed-heartbeat mark does not hold back the pending messages of a resume."""
    me = leader.client()
    me.subscribe("foo", "in", durable="d")
    me.publish("foo")
    me.end("subclose", "foo", "in")
    leader.take()
    leader.loop.move(41)
    me.subscribe("foo", "in", durable="d")
    assert leader.seqs("in") == ["1r1"]


def test_acks_over_a_resume_are_kept(leader):
    """B286: what was acked out of order before the close never comes again."""
    me = leader.client()
    sub = me.subscribe("foo", "in", durable="d")
    me.publish("foo", 300)
    me.ack(sub, *range(2, 300, 2))
    me.end("subclose", "foo", "in")
    leader.take()
    me.subscribe("foo", "in2", durable="d")
    assert leader.seqs("in2") == [f"{seq}r1" for seq in range(1, 301) if seq % 2 or seq == 300]
    me.ack(sub, *range(1, 300, 2), 300)
    leader.loop.move(0.1)
    assert (sub.floor, len(sub.acked)) == (300, 0)


@pytest.mark.parametrize("group", ["", "g"])
@pytest.mark.parametrize("is_clean", [True, False])
def test_clock_that_was_set_back_makes_nobody_wait(group, is_clean):
    """B363, B203, B422: a pending message with a timestamp of the future is due one ack wait after the start at the latest."""
    with leading() as leader:
        me = leader.client()
        me.subscribe("foo", "in", group=group, ack_wait_s=5)
        me.publish("foo", 2)
        leader.loop.move(0.1)
        leader.stop() if is_clean else leader.crash()
        leader.take()
        leader.wall_offset_ns -= 3600 * 10**9
        leader.restart()
        leader.loop.move(4.7)  # the start itself took 0.25 s (B146)
        assert leader.seqs("in") == []
        leader.loop.move(0.3)
        assert leader.seqs("in") == ["1r1", "2r1"]
