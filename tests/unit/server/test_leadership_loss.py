"""Leadership that is lost, at any moment, and gained again in the same process."""

import asyncio
import gc
import weakref

import pytest

from server.protocol import responses
from server.protocol import stan_pb2 as pb
from store.operations import Append, Subscribe
from tests.support.leader_harness import CLUSTER_ID, Client, Leader, assert_ended, leading

CONNECT = f"_STAN.discover.{CLUSTER_ID}"


@pytest.fixture
def new():
    """A node that has not begun to lead."""
    leader = Leader()
    yield leader
    assert leader.loop.errors == []
    leader.store.close()


@pytest.fixture
def leader():
    """A leader that serves, on an empty store."""
    with leading() as leader:
        yield leader


def errors(leader, subject="acks"):
    """Guids and errors of PubAcks."""
    return [(ack.guid, ack.error) for ack in leader.pub_acks(subject)]


# ---- who is answered, and what


@pytest.mark.parametrize("is_told_first", [True, False])
def test_everything_under_way_is_answered(leader, caplog, is_told_first):
    """B400, B402: what travels has an unknown outcome, what waits was not proposed; in both orders of hearing of the loss."""
    caplog.set_level("DEBUG")
    me, you = leader.client("me"), leader.client("you")
    me.subscribe("foo", "old")
    me.subscribe("foo", "older")
    leader.take()
    leader.log.is_applying_at_once = False

    def all_kinds(name):
        return (
            me.publish_bytes("foo", guid=f"{name}-1")
            + Client(leader, name).connect_bytes()
            + me.subscribe_bytes("new." + name, "in." + name)
            + me.publish_bytes("bar", guid=f"{name}-2", reply="acks.bar")
        )

    leader.feed(all_kinds("sent") + me.end_bytes("subclose", "foo", "old") + you.close_bytes())
    leader.feed(all_kinds("open") + me.end_bytes("unsub", "foo", "older") + me.close_bytes())
    caplog.clear()
    leader.lose(is_told_first=is_told_first)
    assert caplog.messages == [], "nothing was created, closed or removed, and nothing failed"
    answers = {
        "sent": responses.OUTCOME_UNKNOWN,
        "open": responses.NOT_LEADER,
    }
    assert sorted(errors(leader)) == [(f"{name}-1", answers[name]) for name in ("open", "sent")]
    assert sorted(errors(leader, "acks.bar")) == [(f"{name}-2", answers[name]) for name in ("open", "sent")]
    for name, text in answers.items():
        assert leader.answer(f"r.connect.{name}", pb.ConnectResponse) == pb.ConnectResponse(error=text)
        assert leader.answer(f"r.sub.in.{name}", pb.SubscriptionResponse) == pb.SubscriptionResponse(error=text)
    assert leader.answer("r.subclose.old", pb.SubscriptionResponse).error == responses.OUTCOME_UNKNOWN
    assert leader.answer("r.close.you", pb.CloseResponse).error == responses.OUTCOME_UNKNOWN
    assert leader.answer("r.unsub.older", pb.SubscriptionResponse).error == responses.NOT_LEADER
    assert leader.answer("r.close.me", pb.CloseResponse).error == responses.NOT_LEADER
    leader.loop.move(60)
    assert leader.take() == []
    assert_ended(leader)


def test_answers_leave_in_the_event_of_the_loss(leader):
    """B396: they are written before anything else happens: who leads next must not be answered by an older turn."""
    me = leader.client()
    leader.log.is_applying_at_once = False
    me.publish("foo")
    me.publish("foo")
    leader.leadership.end()
    leader.log.lose_all()
    assert [ack.error for ack in leader.pub_acks()] == [responses.NOT_LEADER, responses.OUTCOME_UNKNOWN]


def test_unknown_outcome_ends_the_leadership(leader):
    """B396, B402: it is over whether the node has said so or not: what was handed over before does not leave with the answers."""
    me = leader.client()
    leader.log.is_applying_at_once = False
    me.publish("foo")
    leader.outbox.send("in", b"a delivery")
    leader.log.lose_all()
    assert [frame.subject for frame in leader.take()] == ["acks"]
    assert_ended(leader)


def test_runs_and_odd_guids_are_refused_one_by_one(leader):
    """B402: every guid and reply of a batch, whichever way the hot loop went: runs of a template, CRLF in a guid, long ones."""
    me = leader.client()
    leader.log.is_applying_at_once = False
    me.publish("bar")
    odd = ["g\r\nPUB x 0\r\n", "g" * 127, "g" * 128, "g" * 20_000, "é" * 70]
    leader.feed(
        b"".join(me.publish_bytes("foo", guid=f"run{i:04d}") for i in range(500))
        + b"".join(me.publish_bytes("foo", guid=one, reply=f"odd.{i}") for i, one in enumerate(odd))
        + me.publish_bytes("foo", guid="silent", reply="")
    )
    leader.take()
    leader.leadership.end()
    for i, one in enumerate(odd):
        assert errors(leader, f"odd.{i}") == [(one, responses.NOT_LEADER)]
    assert errors(leader) == [(f"run{i:04d}", responses.NOT_LEADER) for i in range(500)]
    assert leader.take() == []


def test_connect_that_waits_for_a_probe_is_answered(leader):
    """B50, B400: the old owner is being asked: the connect is not proposed and never will be."""
    leader.client()
    leader.feed(Client(leader, "me", "hb.new").connect_bytes())
    leader.take()
    leader.lose()
    assert leader.answer("r.connect.me", pb.ConnectResponse).error == responses.NOT_LEADER
    leader.loop.move(5)
    assert leader.take() == []
    assert_ended(leader)


@pytest.mark.parametrize("is_answered", [True, False])
def test_connect_whose_probe_has_ended_is_answered_once(leader, is_answered):
    """B50, B400: refused for the old owner's answer, or under way into the log: the end does not answer it again."""
    leader.client()
    leader.feed(Client(leader, "me", "hb.new").connect_bytes())
    (probe,) = leader.take("hb.me")
    leader.log.is_applying_at_once = False
    leader.answer_request(probe, status="" if is_answered else "503")
    leader.lose()
    text = responses.DUPLICATE_CLIENT_ID if is_answered else responses.OUTCOME_UNKNOWN
    assert leader.answer("r.connect.me", pb.ConnectResponse).error == text


def test_deliveries_that_wait_are_dropped(leader):
    """B396: what a timer handed over in the turn of the loss does not leave."""
    me = leader.client()
    me.subscribe("foo", "in", ack_wait_s=1)
    me.publish("foo", 3)
    leader.take()
    leader.nats.on_write = lambda: pytest.fail("written")
    leader.loop.call_later(
        1, leader.leadership.end
    )  # behind the alarm of the subscription, ahead of the end of its turn
    leader.loop.move(60)
    assert leader.take() == []


def test_commit_that_is_heard_of_after_the_end_is_answered_truly(leader):
    """B211: an orderly stop that took too long: what is committed after it is success, and starts nothing."""
    me = leader.client()
    leader.log.is_applying_at_once = False
    leader.feed(me.publish_bytes("foo") + me.subscribe_bytes("foo", "in"))
    leader.leadership.end()
    leader.log.apply_next()
    assert errors(leader) == [("g", "")]
    assert leader.answer("r.sub.in", pb.SubscriptionResponse).error == ""
    leader.loop.move(60)
    assert leader.take() == []
    assert_ended(leader)


@pytest.mark.parametrize("has_subscription", [True, False])
def test_loss_in_the_middle_of_a_read(leader, has_subscription):
    """B395: a message of the read that is being parsed may end the role: what follows it belongs to nobody."""
    me = leader.client()
    me.publish("foo", 2)
    late_ack = me.ack_bytes(me.subscribe("foo", "in"), 1) if has_subscription else b""
    leader.take()
    sid = leader.nats.sid_of(f"{CONNECT}.pings")
    leader.leadership._handlers[sid] = lambda _message: leader.leadership.end()
    rest = me.publish_bytes("foo", guid="late") * 3 + late_ack + me.close_bytes()
    leader.core.feed(me.publish_bytes("foo", guid="early") + me.ping_bytes() + rest, leader.wall_ns())
    assert errors(leader) == [("early", responses.NOT_LEADER)]
    assert_ended(leader)
    leader.regain()
    assert leader.channel("foo").last_seq == 2


def test_messages_for_an_earlier_leadership_go_nowhere(leader):
    """B131, B401: no answer from a node that does not lead, whether it leads again or not."""
    me = leader.client()
    sub = me.subscribe("foo", "in")
    me.publish("foo", 2)
    late = me.publish_bytes("foo") + me.ack_bytes(sub, 1) + me.close_bytes() + me.ping_bytes()
    leader.lose()
    leader.take()
    leader.core.feed(late, leader.wall_ns())
    assert_ended(leader)
    leader.regain()
    leader.take()
    leader.feed(late)
    assert [frame.subject for frame in leader.take()] == []
    assert leader.delivery().pending == 2
    assert leader.channel("foo").last_seq == 2


def test_half_a_message_at_the_loss(leader):
    """B395: a read ends in the middle of a publish, and leadership, too: the other half is not the next leader's message."""
    me = leader.client()
    whole = me.publish_bytes("foo", b"x" * 100)
    leader.feed(whole[:70])
    leader.lose()
    leader.regain()
    leader.take()
    leader.feed(whole[70:] + me.publish_bytes("foo", guid="mine"))
    assert errors(leader) == [("mine", "")]
    assert leader.channel("foo").last_seq == 1


# ---- the next leadership on the same core, connection and store


@pytest.mark.parametrize("committed", [0, 1])
def test_next_leadership_goes_on_with_what_the_log_has(leader, committed):
    """B395, B402, B403: whether what travelled is in the log or not, sequences are gapless, and what was sent is marked."""
    me = leader.client()
    sub = me.subscribe("foo", "in", max_in_flight=3)
    me.publish("foo", 5)
    leader.take()
    leader.log.is_applying_at_once = False
    me.publish("foo", 4)
    me.publish("foo", 2)
    leader.lose(committed=committed)
    leader.take()
    leader.log.is_applying_at_once = True
    leader.regain()
    assert leader.seqs("in") == ["1r1", "2r1", "3r1"]
    me.publish("foo")
    me.ack(sub, 1, 2, 3)
    assert leader.channel("foo").last_seq == 6 + 4 * committed
    assert leader.seqs("in") == ["4r1", "5r1", "6r1" if committed else 6]
    assert errors(leader) == [("g000000", "")]


def test_reading_that_was_paused_goes_on(leader, monkeypatch):
    """B395: the open batch was full when leadership was lost: the connection must not stay deaf."""
    monkeypatch.setattr("server.proposals.proposer.BATCH_MAX_BYTES", 10_000)
    me = leader.client()
    leader.log.is_applying_at_once = False
    me.publish("foo")
    me.publish("foo", 1, b"x" * 20_000)
    assert not leader.nats.is_reading
    leader.lose()
    assert leader.nats.is_reading
    leader.log.is_applying_at_once = True
    leader.regain()
    me.publish("foo", 3, b"x" * 20_000)
    assert leader.nats.is_reading


def test_end_of_an_earlier_leadership_comes_again(leader):
    """B397: whoever ends a leadership once more must not touch the next one."""
    old = leader.leadership
    leader.lose()
    leader.regain()
    old.end()
    old.hold()
    old.release()
    leader.loop.move(1)
    me = leader.client()
    me.subscribe("foo", "in")
    me.publish("foo")
    assert leader.seqs("in") == [1]


@pytest.mark.parametrize("how", ["lost", "stopped", "lost while it began"])
def test_leadership_that_ended_is_forgotten(new, how):
    """B395: core, connection, outbox, store and loop keep no reference to it."""
    if how == "lost while it began":
        new.log.is_applying_at_once = False
        new.begun()
        new.log.is_applying_at_once = True
    else:
        me = new.begin().client()
        me.subscribe("foo", "in", ack_wait_s=1)
        me.subscribe("foo", "in.group", group="g", ack_wait_s=1)
        me.publish("foo", 10)
        new.feed(Client(new, "me", "hb.new").connect_bytes())  # a probe is under way
    old = weakref.ref(new.leadership)
    if how == "stopped":
        new.stop()
    new.lose()
    del new.leadership
    new.loop.move(100)
    gc.collect()
    assert old() is None
    new.regain()
    assert new.leadership.is_serving


def test_stop_that_wakes_up_under_the_next_leadership(leader):
    """B395, B396: leadership was lost while NATS did not answer the stop, and is gained again before it does."""
    me = leader.client()
    leader.nats.is_answering = False
    task = asyncio.Task(leader.leadership.stop(), loop=leader.loop)
    leader.loop.run()
    leader.lose()
    leader.nats.is_answering = True
    leader.regain()
    leader.take()
    leader.log.is_applying_at_once = False
    me.publish("foo")
    me.publish("foo", 2)
    leader.nats.answer_barriers()
    leader.loop.run()
    assert task.done()
    while leader.log.proposed:
        leader.log.apply_next()
    assert [error for _, error in errors(leader)] == ["", "", ""]


def test_tracing_ends_with_the_leadership(leader, monkeypatch):
    """B395: the observer of a leadership that ended sees nothing of the next one."""
    monkeypatch.setattr("server.trace.is_enabled", lambda: True)
    leader.lose()
    leader.regain()
    assert leader.core.is_traced
    monkeypatch.setattr("server.trace.is_enabled", lambda: False)
    leader.lose()
    assert_ended(leader)
    leader.regain()
    leader.client().publish("foo")
    assert leader.leadership.trace is None
    assert len(leader.pub_acks()) == 1


# ---- what the client does then


@pytest.mark.parametrize("committed", [0, 1])
def test_connect_with_unknown_outcome_is_tried_again(leader, committed):
    """B53, B404: whether the first one is in the log or not: the retry, with a new inbox, replaces it."""
    leader.log.is_applying_at_once = False
    leader.feed(Client(leader, "me", "hb.first").connect_bytes())
    leader.lose(committed=committed)
    assert leader.answer("r.connect.me", pb.ConnectResponse).error == responses.OUTCOME_UNKNOWN
    assert ("me" in leader.store.state.clients) == bool(committed)
    leader.log.is_applying_at_once = True
    leader.regain()
    retry = Client(leader, "me", "hb.second")
    leader.feed(retry.connect_bytes())
    leader.loop.move(0.5)
    assert leader.answer("r.connect.me", pb.ConnectResponse).error == ""
    assert leader.store.state.clients["me"].heartbeat_inbox == "hb.second"
    leader.feed(retry.publish_bytes("foo"))
    assert errors(leader) == [("g", "")]


@pytest.mark.parametrize("committed", [0, 1])
def test_durable_with_unknown_outcome(leader, committed):
    """B404, B292: one that is in the log after all is a duplicate until it is closed."""
    me = leader.client()
    leader.log.is_applying_at_once = False
    leader.feed(me.subscribe_bytes("foo", "in", durable="d"))
    assert [one for one in leader.log.proposed[0].operations if isinstance(one, Subscribe)]
    leader.lose(committed=committed)
    assert leader.answer("r.sub.in", pb.SubscriptionResponse).error == responses.OUTCOME_UNKNOWN
    leader.log.is_applying_at_once = True
    leader.regain()
    leader.feed(me.subscribe_bytes("foo", "again", durable="d"))
    error = leader.answer("r.sub.again", pb.SubscriptionResponse).error
    assert error == (responses.DUPLICATE_DURABLE if committed else "")


def test_many_leaderships_in_one_process(leader):
    """B397: flapping a hundred times costs nothing but time: no subscription, timer, callback or message is left behind."""
    me = leader.client()
    sub = me.subscribe("foo", "in", ack_wait_s=1)
    for number in range(1, 101):
        leader.log.is_applying_at_once = False
        me.publish("foo", 2)
        leader.lose(committed=number % 2)
        assert_ended(leader)
        leader.log.is_applying_at_once = True
        leader.regain()
        leader.take()
        me.publish("foo")
    assert leader.channel("foo").last_seq == 100 + 2 * 50
    assert len(leader.nats.subjects) == 9
    leader.loop.move(1)
    me.ack(sub, *range(1, 201))
    assert leader.delivery().pending == 0
    appended = [one for operations in leader.log.applied for one in operations if isinstance(one, Append)]
    ends = [one.first_seq + one.count for one in appended]
    assert [one.first_seq for one in appended] == [1, *ends[:-1]]
