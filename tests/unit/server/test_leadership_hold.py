"""A leader that cannot be sure to be the only one is silent until it is (B401)."""

import asyncio
from typing import ClassVar

import pytest

from server.config.model import Limits
from server.protocol import responses
from server.protocol import stan_pb2 as pb
from tests.support.leader_harness import Client, Leader, leading

S = 10**9


@pytest.fixture
def leader():
    """A leader that serves, on an empty store."""
    with leading() as leader:
        yield leader


def hold(leader, way="told"):
    """The node says so, or the first that asks finds out."""
    leader.is_confirmed = False
    if way == "told":
        leader.leadership.hold()


def release(leader):
    leader.is_confirmed = True
    leader.leadership.release()
    leader.loop.run()


def errors(leader):
    return [(ack.guid, ack.error) for ack in leader.pub_acks()]


# ---- silence


def test_nothing_is_read_while_held(leader):
    """B401: requests wait unread, and unanswered."""
    leader.leadership.hold()
    assert not leader.nats.is_reading
    leader.leadership.hold()
    release(leader)
    assert leader.nats.is_reading


def test_reading_waits_for_both_reasons(leader, monkeypatch):
    """B401: a full batch and a hold: reading goes on when neither is left, in either order."""
    monkeypatch.setattr("server.proposals.proposer.BATCH_MAX_BYTES", 10_000)
    me = leader.client()
    for hold_ends_first in (True, False):
        leader.log.is_applying_at_once = False
        me.publish("foo")
        me.publish("foo", 1, b"x" * 20_000)
        leader.leadership.hold()
        if hold_ends_first:
            release(leader)
            assert not leader.nats.is_reading
            leader.log.apply_next()
        else:
            leader.log.apply_next()
            assert not leader.nats.is_reading
            release(leader)
        assert leader.nats.is_reading
        leader.log.apply_next()


@pytest.mark.parametrize("way", ["told", "found out"])
@pytest.mark.parametrize("group", ["", "g"])
def test_nothing_is_delivered_or_redelivered_while_held(leader, way, group):
    """B401: neither what a commit brings, nor what is due, nor when NATS is back; after the release all of it."""
    me = leader.client()
    me.subscribe("foo", "in", ack_wait_s=1, group=group)
    me.publish("foo", 2)
    assert leader.seqs("in") == [1, 2]
    leader.log.is_applying_at_once = False
    me.publish("foo", 2)
    leader.take()
    hold(leader, way)
    leader.log.apply_next()
    leader.leadership.on_connected()
    leader.leadership.on_writable()
    leader.loop.move(10)
    assert leader.seqs("in") == []
    leader.log.is_applying_at_once = True
    release(leader)
    assert leader.seqs("in") == ["1r1", "2r1", 3, 4]
    leader.loop.move(1)
    assert leader.seqs("in") == ["1r2", "2r2", "3r1", "4r1"]


def test_alarm_asks_by_itself(leader):
    """B401: the process was stopped: the timer of a redelivery runs before the node's own."""
    leader.leadership.watchdog.stop()
    me = leader.client()
    me.subscribe("foo", "in", ack_wait_s=1)
    me.publish("foo")
    leader.loop.move(0.5)
    leader.take()
    leader.is_confirmed = False
    leader.loop.move(0.6)
    assert leader.seqs("in") == []
    assert not leader.nats.is_reading
    release(leader)
    assert leader.seqs("in") == ["1r1"]


@pytest.mark.parametrize("event", ["on_connected", "on_writable"])
def test_return_of_nats_asks_by_itself(leader, event):
    """B401: NATS is back after the process was stopped: what waits for it is not sent in doubt."""
    me = leader.client()
    me.subscribe("foo", "in")
    leader.nats.is_writable = False
    me.publish("foo")
    leader.take()
    leader.nats.is_writable = True
    leader.is_confirmed = False
    getattr(leader.leadership, event)()
    leader.loop.run()
    assert leader.take() == []
    release(leader)
    assert leader.seqs("in") == [1]


@pytest.mark.parametrize("what", ["backlog", "retry", "watchdog"])
def test_each_turn_of_delivery_asks(leader, what):
    """B401: whatever makes delivery act by itself asks first."""

    class Stream:
        """Notes whether it may send when it is served."""

        key = 99
        may_send: ClassVar[list[bool]] = []

        def serve(self):
            self.may_send.append(turns.port.is_open())

    leader.is_confirmed = False
    turns = leader.leadership.delivery.turns
    if what == "backlog":
        leader.leadership.watchdog.stop()
        turns.continue_later(Stream())
    elif what == "retry":
        leader.leadership.watchdog.stop()
        turns.retry_later(Stream())
    leader.loop.move(1.1)
    assert not leader.leadership.lease.is_open
    assert Stream.may_send == ([] if what == "watchdog" else [False])


def test_frames_that_wait_for_the_end_of_the_turn_are_kept(leader):
    """B401: what was handed over when the hold began leaves after it, in its order, or never."""
    for is_lost in (False, True):
        leader.outbox.send("one", b"1")
        leader.leadership.hold()
        leader.loop.move(1)
        assert leader.take() == []
        if is_lost:
            leader.lose()
        else:
            release(leader)
        assert [frame.subject for frame in leader.take()] == ([] if is_lost else ["one"])


def test_answers_of_commits_go_out(leader):
    """B401: what is committed is true, whoever leads; nothing else of the same entry is sent."""
    me = leader.client()
    leader.log.is_applying_at_once = False
    leader.feed(me.publish_bytes("foo") + me.subscribe_bytes("foo", "in"))
    me.publish("foo")
    hold(leader)
    leader.log.apply_next()
    assert errors(leader) == [("g", "")]
    assert leader.answer("r.sub.in", pb.SubscriptionResponse).error == ""
    assert leader.take() == []
    assert leader.log.proposed == []
    leader.log.is_applying_at_once = True
    release(leader)
    assert leader.seqs("in") == [1, 2]


def test_nothing_is_proposed_while_held(leader):
    """B400: what is open when leadership is lost out of a hold was certainly not proposed."""
    me = leader.client()
    me.subscribe("foo", "in")
    leader.log.is_applying_at_once = False
    leader.feed(me.publish_bytes("foo", guid="sent"))
    leader.feed(me.publish_bytes("foo", guid="open") + me.close_bytes())
    hold(leader)
    leader.loop.move(1)
    leader.leadership.on_durable()
    assert len(leader.log.proposed) == 1
    leader.lose()
    assert sorted(errors(leader)) == [("open", responses.NOT_LEADER), ("sent", responses.OUTCOME_UNKNOWN)]
    assert leader.answer("r.close.me", pb.CloseResponse).error == responses.NOT_LEADER


# ---- a read before the node has noticed


def read_in_doubt(leader, me, sub):
    """After a pause of the process a read runs first: everything a client can send."""
    leader.log.is_applying_at_once = False
    leader.feed(me.publish_bytes("foo", guid="sent"))
    leader.feed(me.publish_bytes("foo", guid="open") + me.subscribe_bytes("foo", "in.open"))
    data = (
        me.publish_bytes("foo", guid="doubt")
        + me.publish_bytes("foo", guid="")  # refused on receipt
        + Client(leader, "stranger").ping_bytes()
        + Client(leader, "you").connect_bytes()
        + me.subscribe_bytes("foo", "in.doubt")
        + me.ack_bytes(sub, 1)
        + me.end_bytes("subclose", "foo", "nobody")
        + Client(leader, "me", "hb.other").connect_bytes()
        + me.close_bytes()
    )
    leader.take()
    leader.is_confirmed = False
    leader.feed(data)
    leader.loop.move(0.01)
    assert leader.take() == []
    assert not leader.nats.is_reading


def test_read_in_doubt_is_answered_after_the_release(leader):
    """B401: nothing is lost, and everything happens in its order."""
    me = leader.client()
    sub = me.subscribe("foo", "in", max_in_flight=1)
    me.publish("foo", 2)
    read_in_doubt(leader, me, sub)
    leader.log.is_applying_at_once = True
    while leader.log.proposed:
        leader.log.apply_next()
    leader.take()
    release(leader)
    assert errors(leader) == [("", responses.INVALID_PUBLISH), ("open", ""), ("doubt", "")]
    assert leader.answer("r.ping.stranger", pb.PingResponse).error == responses.CLIENT_REPLACED
    assert leader.answer("r.connect.you", pb.ConnectResponse).error == ""
    assert leader.answer("r.sub.in.open", pb.SubscriptionResponse).error == ""
    assert leader.answer("r.sub.in.doubt", pb.SubscriptionResponse).error == ""
    assert leader.answer("r.subclose.nobody", pb.SubscriptionResponse).error == responses.INVALID_SUBSCRIPTION
    assert leader.answer("r.close.me", pb.CloseResponse).error == ""
    leader.loop.move(0.5)
    assert leader.answer("r.connect.me", pb.ConnectResponse).error == ""


@pytest.mark.parametrize("is_told_first", [True, False])
def test_read_in_doubt_is_never_answered_after_a_loss(leader, is_told_first):
    """B401: the true leader may have received it, too, and its success must not meet our error; older ones are answered."""
    me = leader.client()
    sub = me.subscribe("foo", "in", max_in_flight=1)
    me.publish("foo", 2)
    read_in_doubt(leader, me, sub)
    leader.lose(is_told_first=is_told_first)
    leader.loop.move(60)
    assert sorted(errors(leader)) == [("open", responses.NOT_LEADER), ("sent", responses.OUTCOME_UNKNOWN)]
    assert leader.answer("r.sub.in.open", pb.SubscriptionResponse).error == responses.NOT_LEADER
    assert leader.take() == []
    leader.log.is_applying_at_once = leader.is_confirmed = True
    leader.regain()
    assert leader.store.state.clients.keys() == {"me"}
    assert leader.channel("foo").last_seq == 2


def test_publishes_that_were_sealed_do_not_count_as_older(leader):
    """B401: how much of the open batch is older is counted anew with every batch."""
    me = leader.client()
    leader.log.is_applying_at_once = False
    me.publish("foo")
    me.publish("foo")
    leader.log.apply_next()  # seals the second one, between two reads
    leader.take()
    leader.is_confirmed = False
    leader.feed(me.publish_bytes("foo", guid="doubt"))
    leader.lose()
    assert errors(leader) == [("g000000", responses.OUTCOME_UNKNOWN)]


def test_doubt_that_passes_by_itself(leader):
    """B401: a majority confirmed this leader before the node noticed that none had: it must not be silent for ever."""
    me = leader.client()
    me.subscribe("foo", "in")
    leader.is_confirmed = False
    me.publish("foo")
    assert leader.take() == []
    leader.is_confirmed = True
    leader.loop.move(0.1)
    assert leader.seqs("in") == [1]
    assert leader.nats.is_reading


def test_release_into_the_next_doubt(leader):
    """B401: the release comes late, and certainty is gone again: held again, in order, nothing lost."""
    me = leader.client()
    leader.is_confirmed = False
    leader.feed(me.publish_bytes("foo", guid="one") + me.ping_bytes() + me.close_bytes())
    leader.leadership.release()
    leader.loop.run()
    assert leader.take() == []
    assert not leader.nats.is_reading
    release(leader)
    assert errors(leader) == [("one", "")]
    assert leader.answer("r.ping.me", pb.PingResponse).error == ""
    assert leader.answer("r.close.me", pb.CloseResponse).error == ""


def test_one_question_per_turn(leader):
    """The hot path asks twice for a read and for an entry, before and behind proposing, however much there is in it."""
    me = leader.client()
    subs = [me.subscribe("foo", f"in{number}") for number in range(10)]
    me.publish("foo", 5)
    data = b"".join(me.publish_bytes("foo", guid=f"g{i:06d}") for i in range(200))
    data += b"".join(me.ack_bytes(sub, 1, 2, 3) for sub in subs)
    leader.log.is_applying_at_once = False
    leader.confirm_count = 0
    leader.feed(data)
    assert leader.confirm_count == 2
    leader.log.apply_next()
    assert leader.confirm_count == 4


def slow_propose(leader):
    """Whatever is proposed from now on takes so long that nobody knows afterwards who leads."""
    propose = leader.leadership.proposer.propose

    def slowly(parts, done):
        leader.is_confirmed = False
        return propose(parts, done)

    leader.leadership.proposer.propose = slowly


def test_what_was_decided_before_a_slow_write_does_not_leave_behind_it(leader):
    """R7, B401: the disk stops the loop while an entry is proposed: the deliveries of that turn and of the entry before wait."""
    me = leader.client()
    me.subscribe("foo", "in")
    leader.log.is_applying_at_once = False
    me.publish("foo")
    me.publish("foo")  # waits for the first
    leader.take()
    slow_propose(leader)
    leader.log.apply_next()  # proposes the second, then would deliver the first
    assert leader.seqs("in") == []
    release(leader)
    assert leader.seqs("in") == [1]


def test_room_made_by_acks_is_not_used_behind_a_slow_write(leader):
    """R7, B401: a read brings an ack, which makes room, and a publish, whose proposal takes long."""
    me = leader.client()
    sub = me.subscribe("foo", "in", max_in_flight=1)
    me.publish("foo", 2)
    assert leader.seqs("in") == [1]
    leader.log.is_applying_at_once = False
    slow_propose(leader)
    leader.feed(me.ack_bytes(sub, 1) + me.publish_bytes("foo", guid="g"))
    assert leader.seqs("in") == []
    release(leader)
    assert leader.seqs("in") == [2]


# ---- clocks


def test_no_heartbeat_is_sent_and_none_fails_while_held():
    """B401: their answers lie unread; those under way have their whole time again, those due are sent at once."""
    with leading(hb_interval_ns=10 * S, hb_timeout_ns=S, hb_fail_count=0) as leader:
        for client_id in "abc":
            leader.client(client_id)
            leader.loop.move(1)
        leader.loop.move(7.5)  # a's heartbeat is under way
        (beat,) = leader.take()
        hold(leader)
        leader.loop.move(60)
        assert leader.take() == []
        assert leader.store.state.clients.keys() == set("abc")
        release(leader)
        beats = leader.take()
        assert [frame.subject for frame in beats] == ["hb.b", "hb.c"]
        leader.loop.move(0.9)
        assert leader.store.state.clients.keys() == set("abc")
        for frame in (beat, *beats):
            leader.answer_request(frame)
        leader.loop.move(5)
        assert leader.store.state.clients.keys() == set("abc")
        leader.loop.move(20)
        assert leader.store.state.clients == {}


@pytest.mark.parametrize("is_due", ["heartbeat", "answer"])
def test_heartbeat_timers_ask_by_themselves(is_due):
    """B401: the process was stopped for long: the first timer that runs must not send to or give up anyone."""
    with leading(hb_interval_ns=10 * S, hb_timeout_ns=S, hb_fail_count=0) as leader:
        leader.client()
        if is_due == "answer":
            leader.loop.move(10.5)
            assert len(leader.take("hb.me")) == 1
        leader.is_confirmed = False
        leader.loop.move(15)
        assert leader.take() == []
        assert "me" in leader.store.state.clients
        release(leader)
        assert len(leader.take("hb.me")) == (is_due == "heartbeat")
        leader.loop.move(1.1)
        assert leader.store.state.clients == {}


def test_probe_of_a_duplicate_waits(leader):
    """B50, B401: the old owner's answer lies unread: it must not be replaced for that."""
    leader.client()
    leader.feed(Client(leader, "me", "hb.new").connect_bytes())
    (probe,) = leader.take("hb.me")
    hold(leader)
    leader.loop.move(10)
    release(leader)
    leader.loop.move(0.4)
    leader.answer_request(probe)
    assert leader.answer("r.connect.me", pb.ConnectResponse).error == responses.DUPLICATE_CLIENT_ID
    assert leader.store.state.clients["me"].heartbeat_inbox == "hb.me"


@pytest.mark.parametrize("way", ["told", "found out"])
def test_channel_is_not_inactive_because_nothing_is_read(way):
    """B336, B401: its publishes may lie unread; they are read before anything is decided."""
    with leading(limits=Limits(max_inactivity_ns=10 * S)) as leader:
        me = leader.client()
        me.publish("foo")
        leader.loop.move(9)
        hold(leader, way)
        leader.loop.move(20)
        assert leader.log.proposed == []
        release(leader)
        me.publish("foo")
        leader.loop.move(9)
        assert leader.channel("foo").last_seq == 2
        leader.loop.move(2)
        assert "foo" not in leader.store.state.channels


def test_what_was_not_read_comes_before_the_next_sweep():
    """B336, B401: the sweep that was due right after a short hold waits its whole pause again."""
    with leading(limits=Limits(max_inactivity_ns=10 * S)) as leader:
        leader.client().publish("foo")
        leader.loop.move(9.95)
        hold(leader)
        leader.loop.move(0.04)
        release(leader)
        leader.log.is_applying_at_once = False
        leader.loop.move(0.05)
        assert leader.log.proposed == []
        leader.loop.move(0.1)
        assert len(leader.log.proposed) == 1


# ---- hold and the life of a leadership


def begun_and_held(leader, waits):
    """A begin that is held at its wait number `waits`; its task."""
    leader.log.is_applying_at_once = False
    if waits == 0:
        leader.is_confirmed = False
    task = leader.begun()
    if waits == 0:
        leader.leadership.hold()
        return task
    if waits == 2:
        leader.nats.is_answering = False
        leader.log.apply_next()
        leader.loop.move(1)
    hold(leader)
    return task


@pytest.mark.parametrize("waits", [0, 1, 2])
@pytest.mark.parametrize("ends", ["release", "lose"])
def test_hold_during_the_begin(waits, ends):
    """B134, B401: before the first entry, at it, and while the subjects are opened: nothing serves until released."""
    leader = Leader()
    try:
        leader.is_clustered = True
        task = begun_and_held(leader, waits)
        leader.log.is_applying_at_once = True
        if leader.log.proposed:
            leader.log.apply_next()
        leader.loop.move(10)
        assert not task.done()
        assert not leader.leadership.is_serving
        if ends == "lose":
            leader.lose()
            leader.loop.run()
            assert task.cancelled()
            assert leader.nats.subjects == {}
            assert leader.loop.timers() == []
            assert leader.nats.is_reading
            leader.nats.is_answering = leader.is_confirmed = True
            leader.regain()
        else:
            release(leader)
            leader.nats.answer_barriers()
            leader.loop.run()
            assert task.done()
        assert leader.leadership.is_serving
        me = leader.client()
        me.subscribe("foo", "in")
        me.publish("foo")
        assert leader.seqs("in") == [1]
        assert leader.loop.errors == []
    finally:
        leader.store.close()


@pytest.mark.parametrize("way", ["told", "found out"])
def test_end_while_held(leader, way):
    """B395, B401: no timer of the hold stays, the connection reads, and the next leadership speaks."""
    me = leader.client()
    me.subscribe("foo", "in", ack_wait_s=1)
    me.publish("foo")
    leader.take()
    hold(leader, way)
    leader.loop.move(2)
    old = leader.leadership
    leader.lose()
    assert leader.nats.is_reading
    assert leader.loop.timers() == []
    leader.loop.move(5)
    assert leader.take() == []
    leader.is_confirmed = True
    leader.regain()
    old.release()
    assert leader.seqs("in") == ["1r1"]


def test_stop_while_held_ends_with_the_release(leader):
    """O234, B401: the last entry waits until this node is certain again."""
    me = leader.client()
    me.subscribe("foo", "in")
    me.publish("foo", 3)
    hold(leader)
    task = asyncio.Task(leader.leadership.stop(), loop=leader.loop)
    leader.loop.move(1)
    assert not task.done()
    release(leader)
    leader.nats.answer_barriers()
    leader.loop.move(1)
    assert task.done()
    assert leader.store.state.progress_is_exact
