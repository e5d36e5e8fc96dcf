"""What is sent to whom and when: new messages, redeliveries, resumed durables, restarts; on a real store and moved time."""

import gc

import pytest

from server.config.model import Limits
from server.delivery import engine as engine_module
from server.delivery.engine import Delivery
from server.protocol import stan_pb2 as pb
from store.errors import CorruptionError
from store.operations import Progress
from tests.support.leader_harness import leading

KIB = 1024


@pytest.fixture
def leader():
    """A leader that serves, on an empty store."""
    with leading() as leader:
        yield leader


def damage(leader, seqs=(1,), name="foo"):
    """Reads of these sequences fail; returns the calls, and how to repair."""
    read, calls = leader.store.read_messages, []

    def read_messages(channel, seq, max_count, max_bytes):
        calls.append(seq)
        first = max(seq, channel.first_seq)
        if channel.name == name and any(first <= bad < first + max_count for bad in seqs):
            raise CorruptionError(f"channel {channel.name}, sequence {seq}", "a block", "none")
        return read(channel, seq, max_count, max_bytes)

    leader.store.read_messages = read_messages
    return calls, lambda: setattr(leader.store, "read_messages", read)


def seqs_in_order(leader, *inboxes):
    """Inbox and sequence of every delivery since the last call."""
    return [
        (frame.subject, pb.MsgProto.FromString(frame.payload).sequence)
        for frame in leader.take()
        if frame.subject in inboxes
    ]


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


# ---- messages that cannot be sent or read


def test_unsendable_message_blocks_nobody(leader):
    """B97: a stored message that NATS no longer takes is skipped and counts as acked; the others come, in order."""
    me = leader.client()
    for size in (10, 900, 20, 2000, 30):
        me.publish("foo", 1, b"x" * size)
    leader.nats.max_payload = 800
    leader.leadership.on_connected()
    sub = me.subscribe("foo", "in")
    assert leader.seqs("in") == [1, 3, 5]
    me.ack(sub, 1, 3, 5)
    leader.loop.move(0.1)
    assert (sub.last_sent, sub.floor, len(sub.acked)) == (5, 5, 0)
    assert leader.delivery().pending == 0


def test_message_that_fits_only_unmarked_is_not_sent_marked():
    """B97, B394: with the marks of a redelivery a message may exceed what NATS takes: that would end our connection."""
    with leading() as leader:
        me = leader.client()
        me.subscribe("foo", "in", max_in_flight=1)
        me.publish("foo", 3, b"x" * 500)
        size = len(leader.take("in")[0].payload)
        leader.crash()
        leader.nats.max_payload = size + 2
        leader.restart()
        leader.loop.move(100)
        assert all(len(frame.payload) <= size + 2 for frame in leader.take())


def test_unsendable_pending_message_is_given_up(leader):
    """B97: a pending message that cannot be redelivered counts as acked."""
    me = leader.client()
    me.subscribe("foo", "in", ack_wait_s=1)
    me.publish("foo", 1, b"x" * 900)
    me.publish("foo", 1, b"x")
    leader.seqs("in")
    leader.nats.max_payload = 800
    leader.leadership.on_connected()
    leader.loop.move(1)
    assert leader.seqs("in") == ["2r1"]
    assert leader.delivery().pending == 1


def test_failing_read_is_retried_after_a_second(leader):
    """B238: no skipping, nothing sent, tried again after 1 s."""
    me = leader.client()
    me.publish("foo", 3)
    _, repair = damage(leader)
    me.subscribe("foo", "in")
    leader.loop.move(10)
    assert leader.seqs("in") == []
    repair()
    leader.loop.move(1)
    assert leader.seqs("in") == [1, 2, 3]


def test_failing_reads_do_not_multiply(leader):
    """B238: however many events come, one retry waits for one subscription."""
    me = leader.client()
    me.publish("foo", 3)
    timers = len(leader.loop.timers())
    calls, _ = damage(leader)
    me.subscribe("foo", "in")
    for _ in range(5):
        me.publish("foo")
    leader.loop.move(0.5)
    assert len(leader.loop.timers()) == timers + 1
    leader.loop.move(10)
    calls.clear()
    leader.loop.move(5)
    assert len(calls) == 5


def test_retry_ends_with_the_subscription(leader):
    """B239: a subscription that waits for a retry and is closed leaves no timer."""
    me = leader.client()
    me.publish("foo", 3)
    timers = len(leader.loop.timers())
    damage(leader)
    me.subscribe("foo", "in")
    me.end("subclose", "foo", "in")
    leader.loop.move(0.1)
    assert len(leader.loop.timers()) == timers


def test_failing_redelivery_waits_for_the_next_round(leader):
    """B273: a look-up that fails postpones the redelivery; new messages are not affected."""
    me = leader.client()
    me.subscribe("foo", "in", ack_wait_s=2)
    me.publish("foo")
    leader.seqs("in")
    _, repair = damage(leader)
    leader.loop.move(2)
    me.publish("foo")
    assert leader.seqs("in") == [2]
    repair()
    leader.loop.move(2)
    assert leader.seqs("in") == ["1r1", "2r1"]


def test_damaged_message_does_not_keep_the_node_from_leading():
    """B238: one unreadable pending message is a fault of its subscription, not of the node's start."""
    with leading(hb_interval_ns=10**15) as leader:
        me = leader.client()
        me.subscribe("foo", "foo.in")
        me.publish("foo", 2)
        me.subscribe("bar", "bar.in")
        me.publish("bar", 5)
        leader.stop()
        leader.take()
        _, repair = damage(leader, (1,), "foo")
        leader.restart()
        leader.loop.move(31)
        assert (leader.seqs("foo.in"), leader.seqs("bar.in")) == ([], [f"{seq}r1" for seq in range(1, 6)])
        repair()
        leader.loop.move(31)
        assert leader.seqs("foo.in") == ["1r1", "2r1"]


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
    assert max(map(len, writes)) <= engine_module.FLUSH_BYTES + engine_module.TURN_MAX_BYTES + 200 * KIB
    assert sum(map(len, writes)) > 40 * 8 * 120 * KIB


def test_full_buffer_starves_nobody(leader, monkeypatch):
    """B241: with a buffer that takes a little at a time every subscription gets its turn."""
    monkeypatch.setattr(engine_module, "TURN_MAX_BYTES", 5 * KIB)
    monkeypatch.setattr(engine_module, "FLUSH_BYTES", 5 * KIB)
    me = leader.client()
    me.publish("foo", 100, b"x" * KIB)
    leader.nats.is_writable = False
    for number in range(6):
        me.subscribe("foo", f"in.{number}")
    leader.take()
    write = leader.nats.write

    def write_some(parts):
        written = write(parts)
        leader.nats.is_writable = False
        return written

    leader.nats.write = write_some
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
    port = leader.leadership.engine.port

    class Port:
        def __getattr__(self, name):
            looks.append(name)
            return getattr(port, name)

    leader.leadership.engine.port = Port()
    return looks


# ---- fairness


def test_backlog_is_sent_in_turns(leader, monkeypatch):
    """B241: a long backlog is sent a turn at a time, so that subscriptions take turns and requests get in between."""
    monkeypatch.setattr(engine_module, "TURN_MAX_BYTES", 3 * KIB)
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
    monkeypatch.setattr(engine_module, "TURN_MAX_BYTES", 3 * KIB)
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
    monkeypatch.setattr(engine_module, "TURN_MAX_BYTES", 3 * KIB)
    me = leader.client()
    me.publish("foo", 30, b"x" * KIB)
    sub = me.subscribe("foo", "in")
    leader.loop.move(0.05)
    assert sub.last_sent == 30


# ---- the bound of what may be sent before it is replicated


def test_send_ahead_bound(leader, monkeypatch):
    """B394: at most SEND_AHEAD_MAX beyond the replicated last sent; the replication releases the next ones at once."""
    monkeypatch.setattr(engine_module, "SEND_AHEAD_MAX", 10)
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
    monkeypatch.setattr(engine_module, "SEND_AHEAD_MAX", 10)
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
    monkeypatch.setattr(engine_module, "TURN_MAX_BYTES", 3 * KIB)
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
    assert not [one for one in gc.get_objects() if isinstance(one, Delivery)]
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
