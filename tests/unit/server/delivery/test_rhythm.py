"""Redelivery to the letter: at which moment what comes again, in which order and with which count; on moved time.

Times are whole milliseconds from the moment a test chooses; `3r2` is the second redelivery of sequence 3.
"""

from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.config.model import Limits
from server.delivery import stream as stream_module
from tests.support.leader_harness import damage, leading
from tests.support.moved_loop import NS
from tests.support.timeline import Timeline

KIB = 1024
NEVER_NS = 10**18


@pytest.fixture
def leader():
    """A leader that serves, on an empty store; its clients are not asked for heartbeats."""
    with leading(hb_interval_ns=NEVER_NS) as leader:
        yield leader


# ---- rhythm and slack


def test_rhythm_of_the_original(leader):
    """B260: sent at 0.30 s and 0.80 s with an ack wait of 1 s: again at 1.30, 1.80, 2.30, 2.80, exactly."""
    me = leader.client()
    me.subscribe("foo", "in", ack_wait_s=1)
    timeline = Timeline(leader)
    for moment in (300, 800):
        timeline.move(moment)
        me.publish("foo")
    timeline.move(2900)
    assert timeline.sent("in") == [(300, 1), (800, 2), (1300, "1r1"), (1800, "2r1"), (2300, "1r2"), (2800, "2r2")]


def test_no_end_and_no_back_off(leader):
    """B260: the hundredth repetition comes one ack wait after the ninety-ninth, like the second after the first."""
    leader.client().subscribe("foo", "in", ack_wait_s=1)
    timeline = Timeline(leader)
    leader.client("you").publish("foo")
    timeline.move(100_500)
    assert timeline.sent("in") == [(0, 1)] + [(1000 * count, f"1r{count}") for count in range(1, 101)]


def test_late_round_does_not_shift_the_next_one(leader):
    """B260: NATS was away at the deadline, so the round was late; the next one is counted from the old deadline."""
    me = leader.client()
    me.subscribe("foo", "in", ack_wait_s=1)
    timeline = Timeline(leader)
    me.publish("foo")
    timeline.move(900)
    leader.nats.is_connected = False
    timeline.move(1600)
    leader.nats.is_connected = True
    leader.leadership.on_connected()
    timeline.move(3100)
    assert timeline.sent("in") == [(0, 1), (1600, "1r1"), (2000, "1r2"), (3000, "1r3")]


@pytest.mark.parametrize("ack_wait_s", [1, 7])
def test_round_takes_what_is_due_within_15_ms(leader, ack_wait_s):
    """B261: due up to 15 ms later goes with the first; 16 ms later has a round of its own; rounds keep their distance."""
    me = leader.client()
    me.subscribe("foo", "in", ack_wait_s=ack_wait_s)
    timeline = Timeline(leader)
    for moment in (0, 7, 15, 31):
        timeline.move(moment)
        me.publish("foo")
    timeline.sent("in")
    timeline.move(2100 * ack_wait_s)
    wait = 1000 * ack_wait_s
    assert timeline.sent("in") == [
        (wait, "1r1", "2r1", "3r1"),
        (wait + 31, "4r1"),
        (2 * wait, "1r2", "2r2", "3r2"),
        (2 * wait + 31, "4r2"),
    ]


def test_never_more_than_15_ms_early(leader):
    """B261, B422: a message of a shared round comes at most 15 ms before its own ack wait is over."""
    me = leader.client()
    me.subscribe("foo", "in", ack_wait_s=1)
    timeline = Timeline(leader)
    for moment in range(0, 400, 3):
        timeline.move(moment)
        me.publish("foo")
    timeline.move(1900)
    sent = timeline.sent("in")
    first = {names[0]: moment for moment, *names in sent if isinstance(names[0], int)}
    again = {int(name.split("r")[0]): moment for moment, *names in sent for name in names if isinstance(name, str)}
    assert first.keys() == again.keys() == set(range(1, 135))
    assert all(first[seq] + 985 <= again[seq] <= first[seq] + 1005 for seq in first)


def test_deadlines_count_from_sending(leader):
    """B234, B263: a message that waited in the log, and one that waited for room, are due one ack wait after they left."""
    me = leader.client()
    me.publish("foo", 2)
    leader.loop.move(100)
    timeline = Timeline(leader)
    sub = me.subscribe("foo", "in", ack_wait_s=1, max_in_flight=1)
    timeline.move(600)
    me.ack(sub, 1)
    timeline.move(2700)
    assert timeline.sent("in") == [(0, 1), (600, 2), (1600, "2r1"), (2600, "2r2")]


def test_timer_stops_when_nothing_is_pending(leader):
    """B263: all acked: nothing fires at the old deadline, and the next message is due one ack wait after it was sent."""
    me = leader.client()
    idle = len(leader.loop.timers())
    sub = me.subscribe("foo", "in", ack_wait_s=1)
    timeline = Timeline(leader)
    me.publish("foo", 3)
    me.ack(sub, 1, 2, 3)
    timeline.move(1010)
    assert len(leader.loop.timers()) == idle
    timeline.move(1500)
    me.publish("foo")
    timeline.move(2600)
    assert timeline.sent("in") == [(0, 1, 2, 3), (1500, 4), (2500, "4r1")]


def test_timer_is_set_to_the_earliest_that_remains(leader):
    """B263: the first is acked, so the next round is that of the second, at its own deadline."""
    me = leader.client()
    sub = me.subscribe("foo", "in", ack_wait_s=1)
    timeline = Timeline(leader)
    me.publish("foo")
    timeline.move(400)
    me.publish("foo")
    me.ack(sub, 1)
    timeline.move(2500)
    assert timeline.sent("in") == [(0, 1), (400, 2), (1400, "2r1"), (2400, "2r2")]


# ---- order


def test_order_by_deadline_before_sequence():
    """B262: what was put off to a later deadline comes behind a higher sequence whose deadline is earlier."""
    with leading(hb_interval_ns=10 * NS, hb_timeout_ns=NS, hb_fail_count=100) as leader:
        me = leader.client()
        me.subscribe("foo", "in", ack_wait_s=2)
        timeline = Timeline(leader)
        timeline.move(10_000)
        me.publish("foo")  # due at 12.0 s, when the heartbeat of 10 s has failed: put off to 14.0 s
        timeline.move(11_992)
        me.publish("foo")
        timeline.move(12_500)
        leader.take()
        leader.feed(me.ping_bytes())
        timeline.move(12_502)
        (beat,) = leader.take("hb.me")
        leader.answer_request(beat)
        timeline.move(14_500)
        assert timeline.sent("in") == [(10_000, 1), (11_992, 2), (13_992, "2r1", "1r1")]


def test_equal_deadlines_by_sequence(leader):
    """B262: also when acks have made holes."""
    me = leader.client()
    sub = me.subscribe("foo", "in", ack_wait_s=1)
    me.publish("foo", 9)
    timeline = Timeline(leader)
    me.ack(sub, 4, 1, 8)
    timeline.move(1000)
    assert timeline.sent("in") == [(1000, *(f"{seq}r1" for seq in (2, 3, 5, 6, 7, 9)))]


# ---- after a long pause


def test_durable_offline_for_long_comes_once_per_ack_wait(leader):
    """B264, B284: all at once on resume, then again one ack wait of the new request later, and so on."""
    me = leader.client()
    me.subscribe("foo", "old", durable="d", ack_wait_s=1)
    me.publish("foo", 2)
    me.end("subclose", "foo", "old")
    leader.loop.move(500)
    timeline = Timeline(leader)
    me.subscribe("foo", "in", durable="d", ack_wait_s=3)
    timeline.move(9500)
    assert timeline.sent("in") == [(3000 * n, f"1r{n + 1}", f"2r{n + 1}") for n in range(4)]


def test_restart_after_long_comes_once_per_ack_wait(leader):
    """B264, B363, B365: at once after the start, then once per ack wait; counts begin at 1."""
    me = leader.client()
    me.subscribe("foo", "in", ack_wait_s=1)
    me.publish("foo")
    leader.loop.move(2.5)
    leader.stop()
    leader.loop.move(300)
    leader.restart()
    assert leader.seqs("in")[-1:] == ["1r1"]
    timeline = Timeline(leader)
    timeline.move(3100)
    (first, *_), (second, *_), (third, *_) = sent = timeline.sent("in")
    assert [name for _, name in sent] == ["1r2", "1r3", "1r4"]
    assert (second - first, third - second) == (1000, 1000)


def test_restart_examines_message_times(leader):
    """B363: past due by its timestamp comes at once, the others one ack wait after their timestamps, to the millisecond."""
    me = leader.client()
    me.subscribe("foo", "in", ack_wait_s=10)
    timeline = Timeline(leader)
    for moment in (0, 3000, 6000):
        timeline.move(moment)
        me.publish("foo")
    timeline.move(7000)
    leader.stop()
    timeline.move(11_000)
    leader.restart()  # ready after the look for another server
    timeline.move(27_000)
    sent = timeline.sent("in")
    assert sent[3:6] == [(11_250, "1r1"), (13_000, "2r1"), (16_000, "3r1")]
    assert sent[7:] == [(23_000, "2r2"), (26_000, "3r2")]


def test_fresh_delivery_of_an_old_message_comes_again_at_once_after_a_restart(leader):
    """B364: the time of publishing counts, however fresh the delivery was: kept although surprising."""
    me = leader.client()
    me.publish("foo")
    leader.loop.move(60)
    me.subscribe("foo", "in", ack_wait_s=30)
    assert leader.seqs("in") == [1]
    leader.loop.move(0.1)
    leader.stop()
    leader.restart()
    assert leader.seqs("in") == ["1r1"]


# ---- full subscriptions, limits


def test_full_subscription_keeps_its_pending_count(leader):
    """B265, B266: round after round all of them, and nothing new, until one is acked; then exactly one new one."""
    me = leader.client()
    sub = me.subscribe("foo", "in", max_in_flight=2, ack_wait_s=1)
    timeline = Timeline(leader)
    me.publish("foo", 5)
    timeline.move(2100)
    assert timeline.sent("in") == [(0, 1, 2), (1000, "1r1", "2r1"), (2000, "1r2", "2r2")]
    assert leader.delivery().pending == 2
    me.ack(sub, 2)
    timeline.move(3100)
    assert timeline.sent("in") == [(2100, 3), (3000, "1r3"), (3100, "3r1")]


def test_removed_messages_free_a_full_subscription_silently():
    """B267: of three pending two are gone when due: two new ones are sent, one comes again, no count or flag for the gone."""
    with leading(limits=Limits(max_msgs=3), hb_interval_ns=NEVER_NS) as leader:
        me = leader.client()
        sub = me.subscribe("foo", "in", max_in_flight=3, ack_wait_s=1)
        me.publish("foo", 3)
        timeline = Timeline(leader)
        me.publish("foo", 2)
        timeline.move(2100)
        sent = timeline.sent("in")
        names = [name for _, *some in sent for name in some]
        assert sorted(names, key=str) == sorted(["3r1", 4, 5, "3r2", "4r1", "5r1"], key=str)
        me.ack(sub, 3, 4, 5)
        timeline.move(2200)
        assert (sub.floor, sub.last_sent, leader.delivery().pending) == (5, 5, 0)


# ---- paused clients


def test_vanished_client_costs_one_heartbeat_interval_of_redeliveries():
    """B268: a client that is gone gets redeliveries until its first heartbeat fails, then none until it is closed."""
    with leading() as leader:
        me = leader.client()
        timeline = Timeline(leader)
        me.subscribe("foo", "in", ack_wait_s=5)
        me.publish("foo", 3)
        timeline.move(39_900)
        assert [moment for moment, *_ in timeline.sent("in")] == [5000 * number for number in range(8)]
        timeline.move(439_000)
        assert timeline.sent("in") == []
        assert "me" in leader.store.state.clients
        timeline.move(441_000)
        assert leader.store.state.clients == {}
        assert timeline.sent("in") == []


def test_pause_puts_off_by_one_ack_wait_from_now():
    """B268, B342: what is due is skipped and due again one ack wait later; after a success it comes, counted once."""
    with leading(hb_interval_ns=10 * NS, hb_timeout_ns=NS, hb_fail_count=100) as leader:
        me = leader.client()
        me.subscribe("foo", "in", ack_wait_s=3)
        timeline = Timeline(leader)
        timeline.move(9900)
        me.publish("foo")
        timeline.move(20_000)  # rounds at 12.9, 15.9 and 18.9 s are skipped
        assert timeline.sent("in") == [(9900, 1)]
        leader.take()
        leader.feed(me.ping_bytes())
        timeline.move(20_002)
        (beat,) = leader.take("hb.me")
        leader.answer_request(beat)
        timeline.move(25_000)
        assert timeline.sent("in") == [(21_900, "1r1"), (24_900, "1r2")]


def test_pause_of_one_client_is_not_that_of_another():
    """B268: only the subscriptions of the client that does not answer are skipped."""
    with leading(hb_interval_ns=10 * NS, hb_timeout_ns=NS, hb_fail_count=100) as leader:
        me, you = leader.client("me"), leader.client("you")
        me.subscribe("foo", "mine", ack_wait_s=2)
        you.subscribe("foo", "yours", ack_wait_s=2)
        leader.loop.move(10)
        (beat,) = leader.take("hb.you")
        leader.answer_request(beat)
        leader.loop.move(1.5)
        timeline = Timeline(leader)
        me.publish("foo")
        timeline.move(4100)
        assert (timeline.sent("mine"), timeline.sent("yours")) == ([(0, 1)], [(0, 1), (2000, "1r1"), (4000, "1r2")])


# ---- acks and counts


def test_ack_between_two_turns_of_a_round_wins(leader, monkeypatch):
    """B270: a round that takes several turns leaves out what is acked meanwhile."""
    monkeypatch.setattr(stream_module, "TURN_MAX_BYTES", 3 * KIB)
    me = leader.client()
    sub = me.subscribe("foo", "in", ack_wait_s=1)
    me.publish("foo", 12, b"x" * KIB)
    leader.take()
    acks = partial(leader.feed, me.ack_bytes(sub, 1, 7, 12), runs=False)

    def ack_behind_the_first_turn():
        leader.nats.on_write = lambda: None
        leader.loop.call_soon(acks)

    leader.nats.on_write = ack_behind_the_first_turn
    leader.loop.move(1)
    got = leader.seqs("in")
    assert got[0] == "1r1"  # acked too late
    assert sorted(got, key=lambda name: int(name[:-2])) == [f"{seq}r1" for seq in (1, 2, 3, 4, 5, 6, 8, 9, 10, 11)]


def test_count_wraps_to_one(leader):
    """B271, B272: behind 2**32 - 1 comes 1, never 0, and the flag stays."""
    me = leader.client()
    sub = me.subscribe("foo", "in", ack_wait_s=1)
    me.publish("foo")
    leader.take()
    leader.leadership.engine.streams[sub.subscription_id].counts[1] = 2**32 - 2
    leader.loop.move(3)
    assert leader.seqs("in") == [f"1r{2**32 - 1}", "1r1", "1r2"]


def test_counts_are_per_subscription(leader):
    """B271, B243: one is at its third redelivery while another gets the message for the first time."""
    me = leader.client()
    me.subscribe("foo", "one", ack_wait_s=1)
    me.publish("foo")
    leader.loop.move(3)
    me.subscribe("foo", "two", ack_wait_s=1)
    leader.loop.move(1)
    assert (leader.seqs("one"), leader.seqs("two")) == ([1, "1r1", "1r2", "1r3", "1r4"], [1, "1r1"])


def test_flag_is_exactly_the_count(leader):
    """B272: in every message that is sent, over redelivery, close, resume, crash and restart."""
    me = leader.client()
    me.subscribe("foo", "in", ack_wait_s=1, durable="d")
    me.publish("foo", 3)
    leader.loop.move(2)
    me.end("subclose", "foo", "in")
    me.subscribe("foo", "in", ack_wait_s=1, durable="d")
    me.publish("foo")
    leader.loop.move(1)
    messages = leader.received("in")
    leader.crash()
    leader.restart()
    leader.loop.move(2)
    messages += leader.received("in")
    assert len(messages) > 20
    assert all(one.redelivered == (one.redeliveryCount >= 1) for one in messages)


# ---- failing reads


def test_failing_read_costs_one_round_and_no_count(leader):
    """B273: the round that could not read is skipped, the next one is in rhythm and counts as the first."""
    me = leader.client()
    me.subscribe("foo", "in", ack_wait_s=4)
    timeline = Timeline(leader)
    me.publish("foo")
    timeline.move(1000)
    _, repair = damage(leader)
    timeline.move(6500)
    repair()
    timeline.move(12_100)
    assert timeline.sent("in") == [(0, 1), (8000, "1r1"), (12_000, "1r2")]


# ---- any traffic


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_message_has_its_own_rhythm(data):
    """B260, B261, B270: whatever is published and acked when, each message comes again in its rhythm until it is acked.

    Within 15 ms before (the slack) and 5 ms behind (sends close together share a deadline) each multiple of the ack wait.
    """
    steps = data.draw(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3), st.integers(0, 30)), max_size=40))
    wait_s = data.draw(st.sampled_from((1, 2)))
    with leading(hb_interval_ns=NEVER_NS) as leader:
        me = leader.client()
        sub = me.subscribe("foo", "in", ack_wait_s=wait_s)
        timeline = Timeline(leader)
        now = 0
        published: list[int] = []
        acked: dict[int, int] = {}
        for pause, count, ack in steps:
            now += pause
            timeline.move(now)
            if count:
                me.publish("foo", count)
                published += [now] * count
            if 1 <= ack <= len(published):
                me.ack(sub, ack)
                acked.setdefault(ack, now)
        end = now + 2500 * wait_s
        timeline.move(end)
        moments: dict[int, list[int]] = {}
        for moment, *names in timeline.sent("in"):
            for name in names:
                seq, _, count = str(name).partition("r")
                moments.setdefault(int(seq), []).append(moment)
                assert int(count or 0) == len(moments[int(seq)]) - 1
    for seq, first in enumerate(published, 1):
        wanted = range(first, acked.get(seq, end) + 1, 1000 * wait_s)
        found = moments[seq]
        assert found[0] == first
        assert all(-15 <= moment - first - 1000 * wait_s * n <= 5 for n, moment in enumerate(found))
        assert all(moment <= acked.get(seq, end) for moment in found)
        assert len(found) in range(len(wanted) - (acked.get(seq, end) - wanted[-1] < 5), len(wanted) + 2)
