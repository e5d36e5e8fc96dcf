"""Heartbeats on the wire: when they are sent, what counts as an answer, and when a client is closed."""

import pytest

from server.protocol import responses
from server.protocol import stan_pb2 as pb
from tests.support.leader_harness import Client, leading

S = 10**9


@pytest.fixture
def leader():
    """Heartbeats every second, one second to answer, closed after more than two failures."""
    with leading(hb_interval_ns=S, hb_timeout_ns=S, hb_fail_count=2) as leader:
        yield leader


def heartbeats(leader, client_id="me"):
    return leader.take(f"hb.{client_id}")


def timers(leader):
    """Timers but that of the watchdog, which always runs."""
    return [one for one in leader.loop.timers() if "Watchdog" not in repr(one)]


def beat(leader, seconds, *, answers=True, step_s=0.1):
    """Let time pass, answering heartbeats of `me` as they come; how many came."""
    count = 0
    for _ in range(round(seconds / step_s)):
        leader.loop.move(step_s)
        for frame in heartbeats(leader):
            count += 1
            if answers:
                leader.answer_request(frame)
    return count


def test_heartbeats_while_they_are_answered(leader):
    """B47, B340: the first after one interval, then one interval after each answer; empty, with a reply subject."""
    leader.client()
    leader.loop.move(0.99)
    assert heartbeats(leader) == []
    leader.loop.move(0.02)
    (frame,) = heartbeats(leader)
    assert frame.payload == b""
    assert frame.reply
    leader.loop.move(0.5)
    leader.answer_request(frame, b"anything")
    leader.loop.move(0.9)
    assert heartbeats(leader) == []
    leader.loop.move(0.2)
    assert len(heartbeats(leader)) == 1


def test_silent_client_is_closed(leader):
    """B341: more failures in a row than the fail count: with 1 s, 1 s, 2 closed after 6 s; its subscriptions go."""
    me = leader.client()
    me.subscribe("foo", "in")
    me.subscribe("foo", "d", durable="d")
    leader.loop.move(5.9)
    assert "me" in leader.store.state.clients
    leader.loop.move(0.2)
    assert len(heartbeats(leader)) == 3
    assert leader.store.state.clients == {}
    assert leader.delivery().subscriptions == 0
    assert [one.is_online for one in leader.store.state.subscriptions.values()] == [False]
    assert timers(leader) == []


def test_client_without_responders_is_closed_sooner(leader):
    """B341: "no responders" is a failure without the wait: closed after 3 s."""
    leader.client()
    for _ in range(3):
        leader.loop.move(1)
        (frame,) = heartbeats(leader)
        leader.answer_request(frame, status="503")
    assert leader.store.state.clients == {}


def test_one_success_resets_the_count(leader):
    """B342: two failures and a success, again and again, never close a client."""
    leader.client()
    for _ in range(5):
        leader.loop.move(4.5)
        leader.take()
        leader.loop.move(0.5)
        (frame,) = heartbeats(leader)
        leader.answer_request(frame)
    assert "me" in leader.store.state.clients


def test_late_answer_does_not_count(leader):
    """B340: an answer after the timeout is none."""
    leader.client()
    late = []
    for _ in range(4):
        leader.loop.move(1)
        late += heartbeats(leader)
        leader.loop.move(1.01)
        if late and "me" in leader.store.state.clients:
            leader.answer_request(late.pop())
    assert leader.store.state.clients == {}


def test_ping_of_a_failing_client_hastens_its_heartbeat():
    """B74: with failures a valid ping brings the next heartbeat within 1 ms; without it changes nothing."""
    with leading(hb_interval_ns=100 * S, hb_timeout_ns=S) as leader:
        me = leader.client()
        leader.feed(me.ping_bytes())
        leader.loop.move(99)
        assert heartbeats(leader) == []
        leader.loop.move(2.1)
        assert len(heartbeats(leader)) == 1
        assert leader.leadership.prober.is_failing("me")
        leader.feed(me.ping_bytes())
        leader.loop.move(0.0011)
        (frame,) = heartbeats(leader)
        leader.answer_request(frame)
        assert not leader.leadership.prober.is_failing("me")


def test_many_pings_give_one_heartbeat():
    """B74: a failing client that pings in a loop gets one hastened heartbeat, not one for each ping."""
    with leading(hb_interval_ns=100 * S, hb_timeout_ns=S) as leader:
        me = leader.client()
        leader.loop.move(101.5)
        heartbeats(leader)
        leader.feed(me.ping_bytes() * 50)
        leader.loop.move(0.01)
        leader.feed(me.ping_bytes() * 50)
        leader.loop.move(0.5)
        assert len(heartbeats(leader)) == 1


def test_one_timer_for_all_clients(leader):
    """Idle clients cost a heap entry, not a timer each."""
    for number in range(40):
        leader.client(f"c{number}")
    assert len(timers(leader)) == 1


def test_closed_client_is_not_asked_and_not_closed_again(leader):
    """B345: an answer or a timeout that arrives after the close belongs to nobody."""
    me = leader.client()
    leader.loop.move(1)
    (frame,) = heartbeats(leader)
    me.close()
    Client(leader, "me", "hb.me").connect()
    leader.answer_request(frame, status="503")
    leader.loop.move(0.5)
    assert not leader.leadership.prober.is_failing("me")
    assert heartbeats(leader) == []


def test_heartbeat_of_an_earlier_life_closes_nobody():
    """B345: the client closed and came back while its heartbeat was under way: that failure is not the new one's."""
    with leading(hb_interval_ns=10 * S, hb_timeout_ns=S, hb_fail_count=0) as leader:
        me = leader.client()
        leader.loop.move(10)
        leader.take()
        me.close()
        leader.client()
        leader.loop.move(5)
        assert "me" in leader.store.state.clients


def test_timeout_that_meets_a_close(leader):
    """B341, B105: the last failure while the close travels closes nobody twice."""
    me = leader.client()
    leader.loop.move(5.9)
    leader.log.is_applying_at_once = False
    leader.feed(me.close_bytes())
    leader.loop.move(1)
    assert len(leader.log.proposed) == 1
    leader.log.apply_next()
    assert leader.answer("r.close.me", pb.CloseResponse).error == ""
    assert leader.log.proposed == []


def test_close_that_meets_a_timeout(leader):
    """B341, B105: once it timed out the client is unknown, also before that is applied."""
    me = leader.client()
    leader.log.is_applying_at_once = False
    leader.loop.move(6.1)
    leader.take()
    leader.feed(me.close_bytes() + me.ping_bytes())
    assert leader.answer("r.close.me", pb.CloseResponse).error == responses.UNKNOWN_CLIENT_ID
    assert leader.answer("r.ping.me", pb.PingResponse).error == responses.CLIENT_REPLACED


def test_new_leader_starts_anew(leader):
    """B344: counts are 0 and the interval begins with the leadership; the old one's heartbeats are over (B396)."""
    leader.client()
    leader.loop.move(5.5)
    leader.crash()
    assert timers(leader) == []
    leader.restart()
    leader.take()
    leader.loop.move(5.5)
    assert "me" in leader.store.state.clients
    leader.loop.move(0.7)
    assert leader.store.state.clients == {}


def test_answered_heartbeats_leave_nothing(leader):
    """Long life: requests that were answered or timed out leave no timer."""
    leader.client()
    assert beat(leader, 30) in range(25, 31)
    assert len(timers(leader)) == 1
