"""How a leadership begins, meets faults, and ends."""

import asyncio

import pytest

from raft.proposals import Applied
from server.errors import AnotherServerError, RequestError
from server.protocol import responses
from server.protocol import stan_pb2 as pb
from store.machine.state import Refusal
from store.operations import BeginLeadership, InitCluster
from tests.support.leader_harness import CLUSTER_ID, Client, Leader, leading

CONNECT = f"_STAN.discover.{CLUSTER_ID}"


@pytest.fixture
def new():
    """A node that has not begun to lead."""
    leader = Leader()
    yield leader
    leader.store.close()


@pytest.fixture
def leader():
    """A leader that serves, on an empty store."""
    with leading() as leader:
        yield leader


# ---- begin


def test_subjects_are_opened_last(new):
    """B80, B134: first the log, then the probe for a second server, then acks, then clients, connects at the very end."""
    new.log.is_applying_at_once = False
    task = new.begun()
    new.loop.move(1)
    assert new.nats.subjects == {}
    assert [type(one) for one in new.log.proposed[0].operations] == [InitCluster, BeginLeadership]
    new.log.apply_next()
    new.loop.run()
    assert [subject.startswith("_INBOX.") for subject in new.nats.subjects.values()] == [True]
    new.loop.move(0.2)
    assert not task.done()
    new.loop.move(0.1)
    assert task.done()
    opened = list(new.nats.subjects.values())
    assert opened[1] == f"_INBOX.{new.store.state.ack_inbox_token}.*"
    assert opened[-1] == CONNECT
    assert len(opened) == 9


def test_second_server_is_refused(new):
    """B146: an answer to our connect request means that another server has our cluster id: its client is closed again."""
    task = new.begun()
    (probe,) = new.take(CONNECT)
    assert pb.ConnectRequest.FromString(probe.payload).clientID == CLUSTER_ID
    answer = pb.ConnectResponse(closeRequests=f"_STAN.close.{CLUSTER_ID}")
    new.answer_request(probe, answer.SerializeToString())
    assert isinstance(task.exception(), AnotherServerError)
    (close,) = new.take(f"_STAN.close.{CLUSTER_ID}")
    assert pb.CloseRequest.FromString(close.payload).clientID == CLUSTER_ID


def test_answer_to_the_probe_cannot_inject_commands(new):
    """B146: who answers may name any close subject; one that is none must not reach our connection."""
    task = new.begun()
    (probe,) = new.take(CONNECT)
    answer = pb.ConnectResponse(closeRequests="x 0\r\n\r\nPUB y")
    new.answer_request(probe, answer.SerializeToString())
    assert isinstance(task.exception(), AnotherServerError)
    assert new.take() == []


@pytest.mark.parametrize(("payload", "status"), [(b"\xff", ""), (b"", "503")])
def test_no_second_server(new, payload, status):
    """B146: no responders, or an answer that is no ConnectResponse: alone, without waiting."""
    task = new.begun()
    (probe,) = new.take(CONNECT)
    new.answer_request(probe, payload, status=status)
    assert task.exception() is None
    assert new.leadership.is_serving


def test_begin_that_is_cancelled_ends_cleanly(new):
    """A signal during the start: nothing of the begin wakes up later, whatever the entry's outcome is."""
    new.log.is_applying_at_once = False
    task = new.begun()
    task.cancel()
    new.loop.run()
    new.leadership.end()
    new.log.lose_all()
    new.loop.move(5)
    assert new.loop.errors == []
    assert new.take() == []
    assert new.loop.timers() == []


def test_stop_during_the_probe_ends_cleanly(new):
    """A signal while the second server is looked for: the stop is orderly, and no late callback fails."""
    task = new.begun()
    task.cancel()
    new.loop.run()
    new.stop()
    new.loop.move(5)
    assert new.loop.errors == []
    assert new.store.state.progress_is_exact


def test_refused_preamble_is_an_error(new):
    """The first entry must be accepted: else this node does not know what it leads."""
    new.log.is_applying_at_once = False
    task = new.begun()
    sent = new.log.proposed.pop()
    sent.done(Applied([Refusal("no") for _ in sent.operations]))
    new.loop.run()
    assert isinstance(task.exception(), RequestError)


def test_low_disk_at_the_start_is_known(new):
    """A disk that is low already when leadership begins: publishes are refused from the first on."""
    new.is_disk_low = True
    new.begin()
    new.client().publish("foo")
    assert [ack.error for ack in new.pub_acks()] == [responses.LOW_DISK_SPACE]


def test_deliveries_wait_until_clients_are_served():
    """B134: what is due goes out when everything listens, not in the middle of the begin."""
    with leading() as leader:
        me = leader.client()
        me.subscribe("foo", "in", ack_wait_s=1)
        me.publish("foo", 2)
        leader.loop.move(0.1)
        leader.stop()
        leader.take()
        leader.loop.move(60)
        leader.nats.subjects.clear()
        task = leader.begun()
        leader.leadership.on_connected()
        leader.leadership.on_writable()
        leader.loop.run()
        assert leader.take("in") == []
        leader.loop.move(0.3)
        assert task.done()
        assert leader.seqs("in") == ["1r1", "2r1"]


# ---- faults


def test_handler_that_fails_ends_its_request_only(leader, caplog):
    """A bug in a request must not be a way to stop the server."""

    def fail(*_arguments):
        raise ValueError("bug")

    me = leader.client()
    leader.leadership.subscriptions.wall_ns = fail
    leader.feed(me.subscribe_bytes("foo", "in") + me.publish_bytes("foo"))
    assert "request failed" in caplog.text
    assert [ack.error for ack in leader.pub_acks()] == [""]


def test_message_on_an_unknown_subscription_is_ignored(leader):
    """NATS may send what was under way when we unsubscribed."""
    leader.feed(b"MSG x 99 r 2\r\nhi\r\n")
    assert leader.take() == []


# ---- end


def test_end_stops_listening_first(leader):
    """B396: no subject, timer or subscription of the term stays; nothing more is sent."""
    me = leader.client()
    me.subscribe("foo", "in", ack_wait_s=1)
    me.publish("foo", 3)
    leader.take()
    leader.leadership.end()
    leader.loop.move(60)
    assert leader.nats.subjects == {}
    assert leader.loop.timers() == []
    assert leader.take() == []


def test_state_of_an_earlier_term_does_not_survive(leader):
    """B395: stalled state, pending and counts of the next leadership are those of the log."""
    me = leader.client()
    sub = me.subscribe("foo", "in", max_in_flight=2, ack_wait_s=1)
    me.publish("foo", 4)
    leader.loop.move(2.5)
    me.ack(sub, 1, 2)
    leader.crash()
    leader.take()
    leader.restart()
    got = leader.seqs("in")
    assert got[:2] == ["1r1", "2r1"]
    assert leader.delivery().pending == 2
    me.ack(sub, 1, 2)
    assert leader.seqs("in") == ["3r1", "4r1"]


def test_stop_takes_no_more_requests(leader):
    """O234: subjects are closed before the last entry is made."""
    me = leader.client()
    me.publish("foo")
    leader.stop()
    assert leader.nats.subjects == {}
    assert len(leader.nats.ended) == 9


def test_probe_under_way_does_not_spoil_the_stop(leader):
    """O234: a duplicate's probe that ends during the stop must not put a connect behind the CleanStop."""
    leader.client()
    leader.feed(Client(leader, "me", "hb.new").connect_bytes())
    leader.log.is_applying_at_once = False
    task = asyncio.Task(leader.leadership.stop(), loop=leader.loop)
    leader.loop.move(1)
    while leader.log.proposed:
        leader.log.apply_next()
        leader.loop.move(1)
    assert task.done()
    assert leader.store.state.progress_is_exact
    assert leader.store.state.clients["me"].heartbeat_inbox == "hb.me"


def test_discover_prefix_is_the_configured_one():
    """B11, B13: it is part of no other subject but that of pings, and it counts for an existing store, whatever it was."""

    def connect(prefix, client_id):
        request = pb.ConnectRequest(
            clientID=client_id, heartbeatInbox="hb", connID=f"conn-{client_id}".encode(), protocol=1
        )
        leader.feed(leader.message(f"{prefix}.{CLUSTER_ID}", request, "r"))
        return leader.answer("r", pb.ConnectResponse)

    with leading(discover_prefix="lobby") as leader:
        connect("lobby", "me")
        Client(leader, "me").publish("foo")
        leader.stop()
        leader.options = leader.options.model_copy(update={"discover_prefix": "gate.way"})
        leader.restart()
        assert [one for one in leader.nats.subjects.values() if one.startswith(("lobby", "_STAN.discover"))] == []
        response = connect("gate.way", "you")
        assert (response.pingRequests, response.error) == (f"gate.way.{CLUSTER_ID}.pings", "")
        assert response.pubPrefix == f"_STAN.pub.{CLUSTER_ID}"
        assert leader.channel("foo").last_seq == 1
