"""Who is due for a heartbeat, and who failed too often."""

from server.sessions.heartbeat import Heartbeats


def due(beats, now_ns):
    return [session.client_id for session in beats.take_due(now_ns)]


def test_first_heartbeat_is_due_after_one_interval():
    """B47."""
    beats = Heartbeats(interval_ns=100, fail_count=2)
    beats.start("a", 1000)
    assert due(beats, 1099) == []
    assert due(beats, 1100) == ["a"]
    assert due(beats, 5000) == []  # one is under way


def test_client_is_closed_when_failures_exceed_the_count():
    """B341: with fail count 2 the third failure in a row closes; one success resets (B342)."""
    beats = Heartbeats(interval_ns=100, fail_count=2)
    beats.start("a", 0)
    now, verdicts = 100, []
    for outcome in ("fail", "fail", "ok", "fail", "fail", "fail"):
        (session,) = beats.take_due(now)
        if outcome == "ok":
            beats.answered(session, now)
            verdicts.append(beats.is_failing("a"))
        else:
            verdicts.append(beats.failed(session, now))
        now += 100
    assert verdicts == [False, False, False, False, False, True]


def test_ping_hastens_only_a_failing_client():
    """B74: the next heartbeat of a client with failures is sent at once after its ping; others keep their interval."""
    beats = Heartbeats(interval_ns=1000, fail_count=5)
    beats.start("a", 0)
    assert not beats.hasten("a", 10)
    (session,) = beats.take_due(1000)
    beats.failed(session, 1000)
    assert beats.is_failing("a")
    assert beats.hasten("a", 1001)
    assert due(beats, 1001) == ["a"]


def test_gone_and_replaced_clients_are_not_due():
    """A stale heap entry costs one look."""
    beats = Heartbeats(interval_ns=100, fail_count=2)
    beats.start("a", 0)
    beats.start("b", 0)
    beats.stop("a")
    beats.start("a", 50)
    assert due(beats, 149) == ["b"]
    assert due(beats, 150) == ["a"]
