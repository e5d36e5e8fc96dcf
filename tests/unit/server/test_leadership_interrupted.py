"""Leadership that is lost while it begins or stops."""

import asyncio

import pytest

from server.config.model import Limits
from server.protocol import responses
from server.protocol import stan_pb2 as pb
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


def errors(leader):
    """Guids and errors of PubAcks."""
    return [(ack.guid, ack.error) for ack in leader.pub_acks()]


# ---- begin


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
@pytest.mark.parametrize("stage", ["preamble", "expiry", "probe", "barrier", "reconnect", "second barrier", "serving"])
def test_loss_at_any_wait_of_the_begin(stage, is_clustered, is_told_first):
    """B395, B397: nothing of a begin that was cut off stays, and the next one works; node cancels the task, or does not."""
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
        assert_ended(leader)
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
    assert_ended(new)
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
    assert_ended(new)


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
    assert_ended(leader)
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


def test_probe_whose_begin_was_cancelled_ends_in_silence(new):
    """O234: a signal while the second server is looked for, and NATS is slow to answer the stop: nobody waits any more."""
    task = new.begun()
    task.cancel()
    new.nats.is_answering = False
    stopping = asyncio.Task(new.leadership.stop(), loop=new.loop)
    new.loop.move(1)
    new.nats.answer_barriers()
    new.loop.run()
    assert stopping.done()
    assert new.loop.errors == []


@pytest.mark.parametrize("is_told_first", [True, False])
@pytest.mark.parametrize("stage", ["barrier", "open", "last"])
def test_loss_during_a_stop(leader, stage, is_told_first):
    """B396: leadership ends while the stop waits: it ends, too, proposes nothing more, and answers what was open."""
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
    assert_ended(leader)


def test_connect_that_waits_for_a_probe_is_answered_by_the_stop(leader):
    """B400, O234: it will not be proposed any more."""
    leader.client()
    leader.feed(Client(leader, "me", "hb.new").connect_bytes())
    leader.stop()
    assert leader.answer("r.connect.me", pb.ConnectResponse).error == responses.NOT_LEADER
