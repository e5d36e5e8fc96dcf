"""Connect, close and ping; duplicate client ids; what the end of a client does to everything it had under way."""

import pytest

from server.protocol import responses
from server.protocol import stan_pb2 as pb
from store.operations import CloseClient, ConnectClient
from tests.support.leader_harness import CLUSTER_ID, Client, leading


@pytest.fixture
def leader():
    """A leader that serves, on an empty store."""
    with leading() as leader:
        yield leader


def connect_answer(leader, client_id="me"):
    return leader.answer(f"r.connect.{client_id}", pb.ConnectResponse)


# ---- connect


def test_connect_answer(leader):
    """B42: prefixes and protocol always, ping values only from protocol 1 on, and as the client asked."""
    me = Client(leader, "me")
    leader.feed(me.connect_bytes(pingInterval=7, pingMaxOut=3))
    answer = connect_answer(leader)
    assert answer == pb.ConnectResponse(
        pubPrefix=f"_STAN.pub.{CLUSTER_ID}",
        subRequests=f"_STAN.sub.{CLUSTER_ID}",
        unsubRequests=f"_STAN.unsub.{CLUSTER_ID}",
        closeRequests=f"_STAN.close.{CLUSTER_ID}",
        subCloseRequests=f"_STAN.subclose.{CLUSTER_ID}",
        pingRequests=f"_STAN.discover.{CLUSTER_ID}.pings",
        pingInterval=7,
        pingMaxOut=3,
        protocol=1,
    )
    old = Client(leader, "old")
    leader.feed(old.connect_bytes(protocol=0, pingInterval=7))
    answer = connect_answer(leader, "old")
    assert (answer.pingRequests, answer.pingInterval, answer.protocol) == ("", 0, 1)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"heartbeatInbox": ""}, responses.INVALID_CONNECT),
        ({"heartbeatInbox": "a b"}, responses.INVALID_CONNECT),
        ({"heartbeatInbox": "a.*"}, responses.INVALID_CONNECT),
        ({"clientID": "a.b"}, responses.INVALID_CLIENT_ID),
        ({"clientID": ""}, responses.INVALID_CLIENT_ID),
        ({"clientID": "me\n"}, responses.INVALID_CLIENT_ID),
        ({"clientID": "", "heartbeatInbox": ""}, responses.INVALID_CONNECT),
    ],
)
def test_refused_connects(leader, fields, text):
    """B40, B41, B60: the first failing check answers, and nothing is proposed."""
    entries = len(leader.log.applied)
    leader.feed(Client(leader, "me").connect_bytes(**fields))
    assert connect_answer(leader) == pb.ConnectResponse(error=text)
    assert len(leader.log.applied) == entries


def test_answer_comes_when_the_registration_is_applied(leader):
    """B43: not before; then the client's publishes are accepted."""
    leader.log.is_applying_at_once = False
    me = Client(leader, "me")
    leader.feed(me.connect_bytes())
    leader.loop.move(1)
    assert leader.take() == []
    me.publish("foo")
    assert [ack.error for ack in leader.pub_acks()] == [responses.INVALID_PUBLISH]
    leader.log.apply_next()
    assert connect_answer(leader).error == ""
    leader.log.is_applying_at_once = True
    me.publish("foo")
    assert [ack.error for ack in leader.pub_acks()] == [""]


# ---- a client id that is in use


def test_duplicate_is_refused_when_the_old_one_answers(leader):
    """B50: the old client is asked on its heartbeat inbox; any answer refuses the new one."""
    leader.client()
    leader.feed(Client(leader, "me", "hb.new").connect_bytes())
    (probe,) = leader.take()
    assert (probe.subject, probe.payload) == ("hb.me", b"")
    leader.answer_request(probe)
    assert connect_answer(leader).error == responses.DUPLICATE_CLIENT_ID
    assert leader.store.state.clients["me"].heartbeat_inbox == "hb.me"


def test_duplicate_replaces_an_old_one_that_is_silent(leader):
    """B50: after 500 ms without answer the old client is closed and the new one registered, in one entry."""
    old = leader.client()
    old.subscribe("foo", "plain")
    old.subscribe("foo", "durable", durable="d")
    leader.loop.move(0.1)
    leader.log.applied.clear()
    new = Client(leader, "me", "hb.new")
    leader.feed(new.connect_bytes())
    leader.loop.move(0.49)
    assert leader.take("r.connect.me") == []
    leader.loop.move(0.02)
    assert connect_answer(leader).error == ""
    assert [[type(one) for one in operations] for operations in leader.log.applied] == [[CloseClient, ConnectClient]]
    assert leader.delivery().subscriptions == 0
    new.subscribe("foo", "again", durable="d")
    assert leader.delivery().subscriptions == 1


def test_duplicate_replaces_at_once_when_nobody_listens(leader):
    """B51, B53: no responders is no answer, without waiting; so a retry after a lost answer works."""
    leader.client()
    leader.feed(Client(leader, "me", "hb.new").connect_bytes())
    (probe,) = leader.take("hb.me")
    leader.answer_request(probe, status="503")
    assert connect_answer(leader).error == ""
    assert leader.store.state.clients["me"].heartbeat_inbox == "hb.new"


def test_late_answer_to_a_probe_changes_nothing(leader):
    """B50: what arrives after the 500 ms is too late."""
    leader.client()
    leader.feed(Client(leader, "me", "hb.new").connect_bytes())
    (probe,) = leader.take("hb.me")
    leader.loop.move(0.6)
    leader.answer_request(probe)
    assert connect_answer(leader).error == ""


def test_other_connects_during_a_probe(leader):
    """B52: the same id fails at once, other ids are not delayed."""
    leader.client()
    leader.feed(Client(leader, "me", "hb.new").connect_bytes())
    leader.feed(Client(leader, "me", "hb.third").connect_bytes() + Client(leader, "you").connect_bytes())
    assert connect_answer(leader).error == responses.DUPLICATE_CLIENT_ID
    assert connect_answer(leader, "you").error == ""


def test_connects_of_one_id_in_one_read(leader):
    """B52: of connects that arrive together the first wins, the others hear that the id is taken."""
    leader.feed(b"".join(Client(leader, "me", f"hb.{number}").connect_bytes() for number in range(3)))
    answers = [pb.ConnectResponse.FromString(frame.payload).error for frame in leader.take("r.connect.me")]
    assert sorted(answers) == ["", responses.DUPLICATE_CLIENT_ID, responses.DUPLICATE_CLIENT_ID]
    assert leader.store.state.clients["me"].heartbeat_inbox == "hb.0"


def test_old_client_closes_while_it_is_probed(leader):
    """B50: the old one is gone when the probe ends: the new one is registered, once."""
    old = leader.client()
    leader.feed(Client(leader, "me", "hb.new").connect_bytes())
    assert old.close().error == ""
    leader.loop.move(1)
    assert connect_answer(leader).error == ""
    assert leader.store.state.clients["me"].heartbeat_inbox == "hb.new"


def test_old_client_times_out_while_it_is_probed():
    """B50, B341: closed by its heartbeats during the probe: the new one is registered all the same."""
    with leading(hb_interval_ns=10**9, hb_timeout_ns=10**9, hb_fail_count=0) as leader:
        leader.client()
        leader.loop.move(1.7)
        leader.feed(Client(leader, "me", "hb.new").connect_bytes())
        leader.loop.move(0.6)
        assert connect_answer(leader).error == ""
        assert leader.store.state.clients["me"].heartbeat_inbox == "hb.new"
        assert leader.store.state.clients_by_conn_id[b"conn-mehb.new"].client_id == "me"


def test_id_is_free_again_after_a_refusal(leader):
    """B52: a probe that ended leaves no mark: later connects are treated alike."""
    old = leader.client()
    for _ in range(3):
        leader.feed(Client(leader, "me", "hb.new").connect_bytes())
        (probe,) = leader.take("hb.me")
        leader.answer_request(probe)
        assert connect_answer(leader).error == responses.DUPLICATE_CLIENT_ID
    old.close()
    leader.client()


def test_replaced_instance(leader):
    """B54, B55: the old one's pings and publishes fail; its close, which names the id only, closes the new one."""
    old = leader.client()
    leader.feed(Client(leader, "me", "hb.new").connect_bytes())
    leader.loop.move(1)
    leader.take()
    old.publish("foo")
    assert [ack.error for ack in leader.pub_acks()] == [responses.INVALID_PUBLISH]
    leader.feed(old.ping_bytes())
    assert leader.answer("r.ping.me", pb.PingResponse).error == responses.CLIENT_REPLACED
    assert old.close().error == ""
    assert leader.store.state.clients == {}


# ---- close


def test_close_and_connect_in_one_read(leader):
    """B345: a client that closes is gone at once; its id is free for the connect behind the close, without a probe."""
    me = leader.client()
    leader.log.applied.clear()
    leader.feed(me.close_bytes() + Client(leader, "me", "hb.new").connect_bytes())
    assert leader.answer("r.close.me", pb.CloseResponse).error == ""
    assert connect_answer(leader).error == ""
    assert [[type(one) for one in operations] for operations in leader.log.applied] == [[CloseClient, ConnectClient]]
    assert leader.take("hb.me") == []


def test_connect_and_close_in_one_read(leader):
    """B105: a client that is not answered yet is unknown; the connect stands, and its heartbeats begin."""
    me = Client(leader, "me")
    leader.feed(me.connect_bytes() + me.close_bytes())
    assert leader.answer("r.close.me", pb.CloseResponse).error == responses.UNKNOWN_CLIENT_ID
    assert connect_answer(leader).error == ""
    leader.loop.move(30)
    assert len(leader.take("hb.me")) == 1


def test_second_close_is_unknown(leader):
    """B105: once the close is received the client is unknown, also before it is applied."""
    me = leader.client()
    leader.feed(me.close_bytes() + me.close_bytes())
    answers = [pb.CloseResponse.FromString(frame.payload).error for frame in leader.take("r.close.me")]
    assert sorted(answers) == ["", responses.UNKNOWN_CLIENT_ID]


def test_undecodable_close(leader):
    """B105."""
    leader.feed(leader.message(f"_STAN.close.{CLUSTER_ID}", b"\xff", "r"))
    assert leader.answer("r", pb.CloseResponse).error == responses.INVALID_CLOSE


def test_publishes_before_the_close_are_stored_those_behind_are_not(leader):
    """B92, B126, B345: checked when received, in the order of the wire."""
    me = leader.client()
    me.publish("foo")
    leader.pub_acks()
    leader.feed(me.publish_bytes("foo") + me.close_bytes() + me.publish_bytes("foo"))
    assert sorted(ack.error for ack in leader.pub_acks()) == ["", responses.INVALID_PUBLISH]
    assert leader.channel("foo").last_seq == 2


@pytest.mark.parametrize("is_same_entry", [True, False])
@pytest.mark.parametrize("durable", ["", "d"])
def test_close_while_a_subscription_is_being_made(leader, is_same_entry, durable):
    """B345, B239: the subscription of a client that closes behind it gets nothing, in the same entry or the next."""
    me = leader.client()
    you = leader.client("you")
    timers = len(leader.loop.timers())
    leader.log.is_applying_at_once = False
    if is_same_entry:
        you.publish("other")
    leader.feed(me.subscribe_bytes("foo", "in", durable=durable, ack_wait_s=1))
    leader.feed(me.close_bytes())
    while leader.log.proposed:
        leader.log.apply_next()
        leader.loop.run()
    leader.log.is_applying_at_once = True
    assert leader.answer("r.close.me", pb.CloseResponse).error == ""
    assert leader.delivery().subscriptions == 0
    you.publish("foo", 3)
    leader.loop.move(5)
    assert leader.take("in") == []
    assert leader.core.ack_subjects == {}
    assert len(leader.loop.timers()) <= timers
    assert len(leader.store.state.subscriptions) == (1 if durable else 0)


def test_resume_of_a_durable_whose_client_closes_behind_it(leader):
    """B282: resumed in one entry, the client gone in the next: offline, and resumable once more."""
    me = leader.client()
    me.subscribe("foo", "in", durable="d")
    me.publish("foo", 2)
    me.end("subclose", "foo", "in")
    leader.take()
    leader.log.is_applying_at_once = False
    leader.feed(me.subscribe_bytes("foo", "in2", durable="d"))
    leader.feed(me.close_bytes())
    while leader.log.proposed:
        leader.log.apply_next()
        leader.loop.run()
    leader.log.is_applying_at_once = True
    assert leader.seqs("in2") == []
    assert leader.delivery().subscriptions == 0
    leader.client().subscribe("foo", "in3", durable="d")
    assert leader.seqs("in3") == ["1r1", "2r1"]
    assert leader.delivery().subscriptions == 1


# ---- ping


def test_ping_is_answered_at_once(leader):
    """B70, B75: a look-up, also while an entry travels and the store lags."""
    me = leader.client()
    leader.log.is_applying_at_once = False
    me.publish("foo")
    leader.feed(me.ping_bytes())
    assert leader.answer("r.ping.me", pb.PingResponse) == pb.PingResponse()


def test_ping_without_connection_id_or_sense_is_dropped(leader):
    """B72."""
    for payload in (b"", b"\xff", b"dummy"):
        leader.feed(leader.message(f"_STAN.discover.{CLUSTER_ID}.pings", payload, "r.ping"))
    assert leader.take("r.ping") == []


def test_ping_of_a_client_that_shares_a_connection_id(leader):
    """B46: the id is forgotten only if it points to the client that leaves."""
    one, two = Client(leader, "one"), Client(leader, "two")
    one.conn_id = two.conn_id = b"same"
    one.connect()
    two.connect()
    one.close()
    leader.feed(two.ping_bytes())
    assert leader.answer("r.ping.two", pb.PingResponse).error == ""
