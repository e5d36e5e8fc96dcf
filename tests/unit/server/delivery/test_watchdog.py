"""Subscriptions that should receive and do not are found, counted and made to go on."""

import pytest

from server.delivery import watchdog as watchdog_module
from server.delivery.watchdog import INTERVAL_S, SILENT_TEXT
from tests.support.leader_harness import leading


@pytest.fixture
def deaf():
    """A leader whose engine does not hear of new messages; the subscription is plain or a member."""
    with leading() as leader:
        watchdog = leader.leadership.watchdog
        type_ = type(leader.leadership.engine)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type_, "deliver_channel", lambda self, channel_id: None)
            yield leader, watchdog
        watchdog.found = 0  # what is looked for here was planted


@pytest.mark.parametrize("group", ["", "g"])
def test_silent_stream_is_found_and_served(deaf, caplog, group):
    """Two looks without progress: an error in the log, a count, and the messages arrive."""
    leader, watchdog = deaf
    me = leader.client()
    me.subscribe("foo", "in", group=group)
    me.publish("foo", 3)
    leader.loop.move(1.5 * INTERVAL_S)
    assert (leader.seqs("in"), watchdog.found) == ([], 0)
    assert leader.delivery().waiting == 1
    leader.loop.move(INTERVAL_S)
    assert (leader.seqs("in"), watchdog.found) == ([1, 2, 3], 1)
    assert [record.levelname for record in caplog.records if SILENT_TEXT in record.message] == ["ERROR"]
    leader.loop.move(10 * INTERVAL_S)
    assert watchdog.found == 1


def test_a_few_streams_at_a_time(deaf, monkeypatch):
    """Its cost does not grow with the number of subscriptions: each is seen in its turn."""
    monkeypatch.setattr(watchdog_module, "LOOK_MAX", 2)
    leader, watchdog = deaf
    me = leader.client()
    for number in range(7):
        me.subscribe(f"foo{number}", f"in{number}")
        me.publish(f"foo{number}")
    leader.loop.move(2.5 * INTERVAL_S)
    assert watchdog.found == 2
    leader.loop.move(10 * INTERVAL_S)
    assert watchdog.found == 7


@pytest.mark.parametrize("reason", ["full", "away", "stalled", "held"])
def test_waiting_for_something_is_not_silence(reason):
    """Neither a closed or full connection, nor max in flight, nor a commit that takes long."""
    with leading() as leader:
        me = leader.client()
        me.subscribe("foo", "in", max_in_flight=2 if reason == "stalled" else 1000)
        me.publish("foo", 2)
        leader.nats.is_writable = reason != "full"
        leader.nats.is_connected = reason != "away"
        leader.log.is_applying_at_once = reason != "held"
        me.publish("foo", 40)
        leader.loop.move(20 * INTERVAL_S)
        assert leader.leadership.watchdog.found == 0


def test_no_timer_after_the_end(deaf):
    """B395: nothing of a leadership runs on."""
    leader, watchdog = deaf
    leader.stop()
    assert watchdog._timer is None
