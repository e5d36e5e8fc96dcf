"""Leadership that is lost, at any moment, and gained again in the same process."""

import pytest

from server.protocol import responses
from server.protocol import stan_pb2 as pb
from store.operations import Append, Subscribe
from tests.support.leader_harness import CLUSTER_ID, Client, Leader, leading

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


def assert_nothing_is_left(leader):
    """B395, B396: nobody listens, no timer runs, nothing waits for anything, and the connection reads."""
    core = leader.core
    assert leader.nats.subjects == {}
    assert leader.loop.timers() == []
    assert leader.loop.errors == []
    assert leader.nats.is_reading
    assert (core.publish_sid, core.ack_sid, core.ack_subjects, core.lines) == (-1, -1, {}, {})
    assert (core.dirty, core.acks, core.batch_count, core.batch_bytes) == ([], [], 0, 0)
    assert (core.replies, core.touched, core.is_traced) == ([], [], False)
    assert leader.outbox.parts == []


# ---- who is answered, and what


@pytest.mark.parametrize("is_told_first", [True, False])
def test_everything_under_way_is_answered(leader, is_told_first):
    """B400, B402: what travels has an unknown outcome, what waits was not proposed; in both orders of hearing of the loss."""
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
    leader.lose(is_told_first=is_told_first)
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
    assert_nothing_is_left(leader)


def test_answers_leave_in_the_event_of_the_loss(leader):
    """B396: they are written before anything else happens: who leads next must not be answered by an older turn."""
    me = leader.client()
    leader.log.is_applying_at_once = False
    me.publish("foo")
    me.publish("foo")
    leader.leadership.end()
    leader.log.lose_all()
    assert [ack.error for ack in leader.pub_acks()] == [responses.NOT_LEADER, responses.OUTCOME_UNKNOWN]


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
    assert_nothing_is_left(leader)


def test_deliveries_that_wait_are_dropped(leader):
    """B396: what a timer handed over in the turn of the loss does not leave."""
    me = leader.client()
    me.subscribe("foo", "in", ack_wait_s=1)
    me.publish("foo", 3)
    leader.take()
    leader.nats.on_write = lambda: pytest.fail("written")
    leader.loop.call_later(1, leader.leadership.end)  # behind the alarm of the subscription, ahead of the end of its turn
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
    assert_nothing_is_left(leader)


def test_loss_in_the_middle_of_a_read(leader):
    """B395: a message of the read that is being parsed may end the role: what follows it belongs to nobody."""
    me = leader.client()
    sub = me.subscribe("foo", "in")
    me.publish("foo", 2)
    leader.take()
    ping = leader.leadership._handlers
    sid = leader.nats.sid_of(f"{CONNECT}.pings")
    ping[sid] = lambda _message: leader.leadership.end()
    rest = me.publish_bytes("foo", guid="late") * 3 + me.ack_bytes(sub, 1) + me.close_bytes()
    leader.core.feed(me.publish_bytes("foo", guid="early") + me.ping_bytes() + rest, leader.wall_ns())
    assert errors(leader) == [("early", responses.NOT_LEADER)]
    assert_nothing_is_left(leader)
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
    assert_nothing_is_left(leader)
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
    assert leader.seqs("in") == ["4r1", "5r1", "6r1"]
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


def test_tracing_ends_with_the_leadership(leader, monkeypatch):
    """B395: the observer of a leadership that ended sees nothing of the next one."""
    monkeypatch.setattr("server.trace.is_enabled", lambda: True)
    leader.lose()
    leader.regain()
    assert leader.core.is_traced
    monkeypatch.setattr("server.trace.is_enabled", lambda: False)
    leader.lose()
    assert_nothing_is_left(leader)
    leader.regain()
    leader.client().publish("foo")
    assert leader.leadership.trace is None
    assert len(leader.pub_acks()) == 1


# ---- a loss during the begin


def stages(leader):
    """Everything that a begin waits for, one after the other; yields the name of each."""
    leader.log.is_applying_at_once = False
    leader.nats.is_answering = False
    leader.wall_offset_ns += 10**10  # something to expire
    leader.begun()
    yield "preamble"
    leader.log.apply_next()
    leader.loop.run()
    yield "expiry"
    leader.log.apply_next()
    leader.loop.run()
    if not leader.is_clustered:
        yield "probe"
        leader.loop.move(0.25)
    yield "barrier"
    leader.nats.disconnect()
    leader.loop.run()
    yield "reconnect"
    leader.nats.is_connected = True
    leader.leadership.on_connected()
    leader.loop.run()
    yield "second barrier"
    leader.nats.answer_barriers()
    leader.loop.run()
    yield "serving"


@pytest.mark.parametrize("is_told_first", [True, False])
@pytest.mark.parametrize("is_clustered", [True, False])
@pytest.mark.parametrize(
    "stage", ["preamble", "expiry", "probe", "barrier", "reconnect", "second barrier", "serving"]
)
def test_loss_at_any_wait_of_the_begin(stage, is_clustered, is_told_first):
    """B395, B397: nothing of a begin that was cut off stays, and the next one works; node cancels the task, or does not."""
    from server.config.model import Limits

    with leading(limits=Limits(max_age_ns=5 * 10**9)) as leader:
        me = leader.client()
        me.subscribe("foo", "in", ack_wait_s=1)
        me.publish("foo", 3)
        leader.is_clustered = is_clustered
        leader.lose()
        leader.log.term += 1
        for reached in stages(leader):
            if reached == stage:
                break
        leader.take()
        leader.lose(is_told_first=is_told_first)
        leader.loop.run()
        assert_nothing_is_left(leader)
        assert leader.leadership._beginning is None
        leader.nats.is_connected = leader.nats.is_answering = leader.log.is_applying_at_once = True
        leader.loop.move(5)
        assert leader.take() == []
        leader.regain()
        assert leader.leadership.is_serving
        leader.take()
        me.publish("foo", 2)
        assert leader.seqs("in") == [4, 5]
        assert leader.channel("foo").first_seq == 4


def test_every_wait_of_the_begin_is_a_stage(new):
    """The test above meets all of them: begin reaches its end by exactly these."""
    new.begin()
    new.client().publish("foo")
    new.options = new.options.model_copy(update={"limits": new.options.limits.model_copy(update={"max_age_ns": 10**9})})
    new.lose()
    assert list(stages(new))[-1] == "serving"
    assert new.leadership.is_serving


def test_begin_whose_log_is_gone_ends(new):
    """B397, TestClusteringNotLeaderWhenLeadershipAcquired: the log refuses the very first entry: nothing is begun."""
    new.log.is_leader = False
    task = new.begun()
    assert task.cancelled()
    assert_nothing_is_left(new)
    new.regain()
    assert new.leadership.is_serving


def test_begin_whose_log_is_gone_in_between_ends(new):
    """B397: the entry of what expires is refused in the very step that goes on: no subject is opened after that."""
    new.begin()
    new.client().publish("foo")
    new.options = new.options.model_copy(update={"limits": new.options.limits.model_copy(update={"max_age_ns": 10**9})})
    new.lose()
    new.wall_offset_ns += 10**10
    new.log.is_applying_at_once = False
    new.log.term += 1
    task = new.begun()
    new.log.is_leader = False
    new.log.apply_next()
    new.loop.run()
    assert task.cancelled()
    assert_nothing_is_left(new)


def test_no_second_server_is_looked_for_in_a_cluster(new):
    """B146, O256: the others have our cluster id, and may answer."""
    new.is_clustered = True
    new.begin()
    assert new.loop.now_ns == 1000 * 10**9
    assert new.take(CONNECT) == []
    assert new.leadership.is_serving


def test_begin_waits_for_nats(new):
    """B134: NATS is away while the subjects are opened: the leadership begins when it is back."""
    new.is_clustered = True
    new.nats.is_connected = False
    task = new.begun()
    new.loop.move(100)
    assert not task.done()
    new.nats.is_connected = True
    new.nats.is_answering = False
    new.leadership.on_connected()
    new.loop.run()
    new.nats.disconnect()
    new.loop.move(100)
    assert not task.done()
    assert not new.leadership.is_serving
    new.nats.is_connected = new.nats.is_answering = True
    new.leadership.on_connected()
    new.loop.run()
    assert task.done()
    assert new.leadership.is_serving
    new.client()


def test_no_heartbeat_before_clients_can_answer():
    """B392: heartbeats begin when everything else serves."""
    with leading(hb_interval_ns=10**9, hb_timeout_ns=10**9, hb_fail_count=0) as leader:
        leader.client()
        leader.lose()
        leader.is_clustered = True
        leader.log.term += 1
        leader.nats.is_connected = False
        leader.begun()
        leader.loop.move(50)
        leader.nats.is_connected = True
        leader.leadership.on_connected()
        leader.loop.move(0.9)
        assert leader.take("hb.me") == []
        assert "me" in leader.store.state.clients
        leader.loop.move(0.2)
        assert len(leader.take("hb.me")) == 1


# ---- orderly stop


def test_end_after_a_stop_is_harmless(leader):
    """O234: the stop has answered and replicated everything; handing leadership over then ends nothing more."""
    me = leader.client()
    sub = me.subscribe("foo", "in", ack_wait_s=1)
    me.publish("foo", 3)
    me.ack(sub, 2)
    leader.stop()
    leader.take()
    leader.lose()
    leader.loop.move(60)
    assert leader.take() == []
    assert_nothing_is_left(leader)
    assert leader.store.state.progress_is_exact
    leader.regain()
    assert leader.seqs("in") == ["1r1", "3r1"]


def test_publishes_that_meet_a_stop_are_served_or_not_read(leader):
    """O234: what arrives until NATS has heard of the stop is stored and acked; what comes later has no receiver."""
    me = leader.client()
    late = me.publish_bytes("foo", guid="late")
    leader.nats.on_barrier = lambda: leader.feed(late, runs=False)
    leader.stop()
    assert errors(leader) == [("late", "")]
    assert leader.channel("foo").last_seq == 1
    assert leader.nats.subjects == {}


def test_publish_behind_the_stop_is_not_kept_in_silence(leader):
    """B400: should one arrive all the same, the end answers that it was not proposed."""
    me = leader.client()
    late = me.publish_bytes("foo", guid="late")
    leader.stop()
    leader.feed(late)
    assert errors(leader) == []
    leader.lose()
    assert errors(leader) == [("late", responses.NOT_LEADER)]


@pytest.mark.parametrize("is_told_first", [True, False])
@pytest.mark.parametrize("stage", ["barrier", "open", "last"])
def test_loss_during_a_stop(leader, stage, is_told_first):
    """B396: leadership ends while the stop waits: it ends, too, proposes nothing more, and answers what was open."""
    import asyncio

    me = leader.client()
    me.subscribe("foo", "in")
    leader.log.is_applying_at_once = False
    me.publish("foo")
    leader.nats.is_answering = stage != "barrier"
    task = asyncio.Task(leader.leadership.stop(), loop=leader.loop)
    leader.loop.run()
    if stage == "last":
        leader.log.apply_next()
        leader.loop.run()
    leader.take()
    assert len(leader.log.proposed) == 1
    leader.lose(is_told_first=is_told_first)
    leader.nats.answer_barriers()
    leader.loop.move(1)
    assert task.done()
    assert task.exception() is None
    assert leader.log.proposed == []
    assert errors(leader) == ([] if stage == "last" else [("g000000", responses.OUTCOME_UNKNOWN)])
    assert_nothing_is_left(leader)


def test_connect_that_waits_for_a_probe_is_answered_by_the_stop(leader):
    """B400, O234: it will not be proposed any more."""
    leader.client()
    leader.feed(Client(leader, "me", "hb.new").connect_bytes())
    leader.stop()
    assert leader.answer("r.connect.me", pb.ConnectResponse).error == responses.NOT_LEADER


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
        assert_nothing_is_left(leader)
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
    assert [one.first_seq for one in appended[:3]] == [1, 2, 4]
