"""Subscribe, unsubscribe and close requests: checks in order, and every order in which they can overtake each other."""

import pytest

from server.config.model import Limits
from server.protocol import responses
from server.protocol import stan_pb2 as pb
from store.operations import CloseSubscription, Progress, Subscribe
from tests.support.leader_harness import CLUSTER_ID, leading


@pytest.fixture
def leader():
    """A leader that serves, on an empty store."""
    with leading() as leader:
        yield leader


def sub_error(leader, inbox="in"):
    return leader.answer(f"r.sub.{inbox}", pb.SubscriptionResponse).error


def sub_errors(leader, inbox="in"):
    return [pb.SubscriptionResponse.FromString(frame.payload).error for frame in leader.take(f"r.sub.{inbox}")]


def apply_all(leader):
    while leader.log.proposed:
        leader.log.apply_next()
        leader.loop.run()
    leader.log.is_applying_at_once = True


# ---- checks


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"clientID": "", "ackWaitInSecs": 0}, responses.CLIENT_ID_MISSING),
        ({"ackWaitInSecs": 0, "maxInFlight": 0}, responses.INVALID_ACK_WAIT),
        ({"ackWaitInSecs": -5}, responses.INVALID_ACK_WAIT),
        ({"maxInFlight": 0, "startPosition": 9}, responses.INVALID_MAX_IN_FLIGHT),
        ({"maxInFlight": -(2**31)}, responses.INVALID_MAX_IN_FLIGHT),
        ({"startPosition": 5, "subject": ""}, responses.INVALID_START_POSITION),
        ({"startPosition": -1}, responses.INVALID_START_POSITION),
        ({"subject": "foo.*", "inbox": ""}, responses.INVALID_SUBJECT),
        ({"inbox": ""}, responses.INVALID_SUBSCRIPTION_REQUEST),
        ({"inbox": "a b"}, responses.INVALID_SUBSCRIPTION_REQUEST),
        ({"durableName": "x" * 256}, responses.INVALID_SUBSCRIPTION_REQUEST),
        ({"clientID": "nobody"}, responses.UNKNOWN_CLIENT_ID),
        ({"qGroup": "g", "durableName": "a:b"}, responses.INVALID_DURABLE_NAME),
    ],
)
def test_refused_requests(leader, fields, text):
    """B82 to B85: the first failing check answers, and no subscription is left behind."""
    me = leader.client()
    leader.feed(me.subscribe_bytes("foo", "in", fields=fields))
    assert sub_error(leader) == text
    assert leader.store.state.subscriptions == {}
    assert leader.delivery().subscriptions == 0


def test_undecodable_request(leader):
    """B25."""
    leader.feed(leader.message(f"_STAN.sub.{CLUSTER_ID}", b"\xff", "r"))
    assert leader.answer("r", pb.SubscriptionResponse).error == responses.INVALID_SUBSCRIPTION_REQUEST


def test_huge_values_are_taken_as_they_are(leader):
    """B87, B88: int32 and uint64 at their ends; a start sequence beyond the end means the next message."""
    me = leader.client()
    me.publish("foo", 2)
    me.subscribe(
        "foo",
        "in",
        max_in_flight=2**31 - 1,
        ack_wait_s=2**31 - 1,
        fields={"startPosition": pb.SequenceStart, "startSequence": 2**64 - 1},
    )
    me.subscribe("foo", "past", start=pb.TimeDeltaStart, fields={"startTimeDelta": 2**63 - 1})
    me.subscribe("foo", "future", start=pb.TimeDeltaStart, fields={"startTimeDelta": -(2**63)})
    me.publish("foo")
    assert [leader.seqs(inbox) for inbox in ("in", "past", "future")] == [[3], [1, 2, 3], [3]]


def test_new_only_starts_behind_what_came_before(leader):
    """B126: publishes received before the subscribe are not new to it, whether applied or not; those behind are."""
    me = leader.client()
    leader.log.is_applying_at_once = False
    me.publish("foo")
    leader.feed(me.publish_bytes("foo") + me.subscribe_bytes("foo", "in", start=pb.NewOnly) + me.publish_bytes("foo"))
    apply_all(leader)
    assert leader.seqs("in") == [3]


def test_refused_request_leaves_the_channel(leader):
    """B64: the channel comes into being although the subscription is refused."""
    me = leader.client()
    leader.feed(me.subscribe_bytes("foo", "in", fields={"qGroup": "g"}))
    assert "foo" in leader.store.state.channels


# ---- limits


def test_limit_counts_what_is_being_made():
    """B330: requests that arrive together cannot exceed the limit together."""
    with leading(limits=Limits(max_subs=2)) as leader:
        me = leader.client()
        leader.feed(b"".join(me.subscribe_bytes("foo", f"in{number}") for number in range(4)))
        errors = [sub_error(leader, f"in{number}") for number in range(4)]
        assert errors == ["", "", responses.TOO_MANY_SUBSCRIPTIONS, responses.TOO_MANY_SUBSCRIPTIONS]
        assert len(leader.store.state.subscriptions) == 2


def test_resume_takes_no_new_place():
    """B330: an offline durable counts once, also while it comes back."""
    with leading(limits=Limits(max_subs=2)) as leader:
        me = leader.client()
        me.subscribe("foo", "in", durable="d")
        me.end("subclose", "foo", "in")
        leader.feed(me.subscribe_bytes("foo", "in", durable="d") + me.subscribe_bytes("foo", "plain"))
        assert (sub_error(leader), sub_error(leader, "plain")) == ("", "")
        leader.feed(me.subscribe_bytes("foo", "third"))
        assert sub_error(leader, "third") == responses.TOO_MANY_SUBSCRIPTIONS


def test_refused_for_the_limit_leaves_nothing():
    """B84: a refusal does not count; an end makes room."""
    with leading(limits=Limits(max_subs=1)) as leader:
        me = leader.client()
        me.subscribe("foo", "in")
        for _ in range(3):
            leader.feed(me.subscribe_bytes("foo", "no"))
            assert sub_error(leader, "no") == responses.TOO_MANY_SUBSCRIPTIONS
        me.end("unsub", "foo", "in")
        me.subscribe("foo", "again")


# ---- durables


def test_second_online_durable_is_refused(leader):
    """B290: while the first is online, or being made; another channel or client is another durable (B280)."""
    me, you = leader.client(), leader.client("you")
    leader.feed(me.subscribe_bytes("foo", "a", durable="d") + me.subscribe_bytes("foo", "b", durable="d"))
    assert (sub_error(leader, "a"), sub_error(leader, "b")) == ("", responses.DUPLICATE_DURABLE)
    leader.feed(me.subscribe_bytes("foo", "c", durable="d"))
    assert sub_error(leader, "c") == responses.DUPLICATE_DURABLE
    me.subscribe("bar", "d", durable="d")
    you.subscribe("foo", "e", durable="d")


def test_close_and_resume_in_one_read(leader):
    """B283: the resume behind the close is no duplicate; acks before the close count, and all of it is one entry."""
    me = leader.client()
    sub = me.subscribe("foo", "in", durable="d")
    me.publish("foo", 3)
    leader.loop.move(1)
    leader.take()
    leader.log.applied.clear()
    leader.feed(
        me.ack_bytes(sub, 1)
        + me.end_bytes("subclose", "foo", sub.ack_inbox)
        + me.subscribe_bytes("foo", "in2", durable="d")
    )
    (operations,) = leader.log.applied
    assert [type(one) for one in operations] == [Progress, CloseSubscription, Subscribe]
    assert (leader.seqs("in"), leader.seqs("in2")) == ([], ["2r1", "3r1"])
    assert leader.delivery().subscriptions == 1


def test_close_and_resume_in_travelling_entries(leader):
    """B283: the same with the close in flight when the resume arrives."""
    me = leader.client()
    me.subscribe("foo", "in", durable="d")
    me.publish("foo", 2)
    leader.loop.move(1)
    leader.take()
    leader.log.is_applying_at_once = False
    leader.feed(me.end_bytes("subclose", "foo", "in"))
    leader.feed(me.subscribe_bytes("foo", "in2", durable="d"))
    apply_all(leader)
    assert leader.seqs("in2") == ["1r1", "2r1"]
    assert leader.delivery().subscriptions == 1


def test_unsubscribe_and_subscribe_in_one_read(leader):
    """B288: behind an unsubscribe the name starts anew, with the request's position."""
    me = leader.client()
    me.subscribe("foo", "in", durable="d")
    me.publish("foo", 3)
    leader.take()
    leader.feed(
        me.end_bytes("unsub", "foo", "in") + me.subscribe_bytes("foo", "in2", durable="d", start=pb.LastReceived)
    )
    assert leader.answer("r.unsub.in", pb.SubscriptionResponse).error == ""
    assert sub_error(leader, "in2") == ""
    assert leader.seqs("in2") == [3]


def test_old_ack_inbox_of_a_resumed_durable_is_dead(leader):
    """B16, B252: every resume has a new ack inbox; acks to the old one do nothing."""
    me = leader.client()
    sub = me.subscribe("foo", "in", durable="d")
    me.publish("foo", 2)
    old = me.ack_bytes(sub, 1)
    old_inbox = sub.ack_inbox
    me.end("subclose", "foo", "in")
    me.subscribe("foo", "in", durable="d")
    assert sub.ack_inbox != old_inbox
    leader.feed(old)
    assert leader.delivery().pending == 2


def test_replace_durable():
    """B292: the online durable is closed first and then resumed; the old object's close is an invalid subscription."""
    with leading(replace_durable=True) as leader:
        me = leader.client()
        sub = me.subscribe("foo", "in", durable="d")
        me.publish("foo", 2)
        old_inbox = sub.ack_inbox
        me.subscribe("foo", "in2", durable="d")
        me.publish("foo")
        assert (leader.seqs("in"), leader.seqs("in2")) == ([1, 2], ["1r1", "2r1", 3])
        leader.feed(me.end_bytes("subclose", "foo", old_inbox))
        answer = leader.answer(f"r.subclose.{old_inbox}", pb.SubscriptionResponse)
        assert answer.error == responses.INVALID_SUBSCRIPTION
        assert leader.delivery().subscriptions == 1


def test_replace_durable_again_and_again_in_one_read():
    """B292: each is answered once, in order, and one of them is delivered to."""
    with leading(replace_durable=True) as leader:
        me = leader.client()
        me.subscribe("foo", "in0", durable="d")
        me.publish("foo")
        leader.take()
        leader.feed(b"".join(me.subscribe_bytes("foo", f"in{number}", durable="d") for number in (1, 2)))
        answers = [sub_error(leader, "in1"), sub_error(leader, "in2")]
        leader.loop.move(0.1)
        delivered = [inbox for inbox in ("in1", "in2") if leader.seqs(inbox)]
        assert len(delivered) == 1
        assert answers[int(delivered[0][-1]) - 1] == ""
        assert leader.delivery().subscriptions == 1


# ---- ends


@pytest.mark.parametrize("verb", ["unsub", "subclose"])
def test_errors_of_an_end(leader, verb):
    """B101: in this order: undecodable, channel, subscription, client."""
    me, you = leader.client(), leader.client("you")
    me.subscribe("foo", "in")
    leader.feed(leader.message(f"_STAN.{verb}.{CLUSTER_ID}", b"\xff", "r"))
    assert leader.answer("r", pb.SubscriptionResponse).error == responses.INVALID_UNSUBSCRIBE
    assert me.end(verb, "bar", "in").error == responses.UNKNOWN_CHANNEL
    assert me.end(verb, "foo", "other").error == responses.INVALID_SUBSCRIPTION
    assert me.end(verb, "foo", "").error == responses.INVALID_SUBSCRIPTION
    assert you.end(verb, "foo", "in").error == responses.UNKNOWN_CLIENT_ID
    assert me.end(verb, "foo", "in").error == ""
    assert me.end(verb, "foo", "in").error == responses.INVALID_SUBSCRIPTION


def test_second_end_in_one_read(leader):
    """B104: the end counts from its receipt, not from its entry."""
    me = leader.client()
    me.subscribe("foo", "in")
    leader.feed(me.end_bytes("unsub", "foo", "in") + me.end_bytes("subclose", "foo", "in"))
    assert leader.answer("r.unsub.in", pb.SubscriptionResponse).error == ""
    assert leader.answer("r.subclose.in", pb.SubscriptionResponse).error == responses.INVALID_SUBSCRIPTION


def test_end_by_delivery_inbox_hits_the_later_one(leader):
    """B89, B100."""
    me = leader.client()
    first, second = me.subscribe("foo", "in"), me.subscribe("foo", "in")
    me.end("subclose", "foo", "in")
    assert list(leader.store.state.subscriptions) == [first.subscription_id]
    assert second.subscription_id not in leader.store.state.subscriptions


def test_end_while_it_is_being_made(leader):
    """B100, B127: a client whose subscribe timed out closes by inbox; the subscription that travels ends with it."""
    me = leader.client()
    leader.log.is_applying_at_once = False
    leader.feed(me.subscribe_bytes("foo", "in", ack_wait_s=1))
    leader.feed(me.end_bytes("subclose", "foo", "in"))
    apply_all(leader)
    me.publish("foo")
    leader.loop.move(3)
    assert leader.take("in") == []
    assert leader.store.state.subscriptions == {}
    assert leader.delivery().subscriptions == 0
    assert leader.core.ack_subjects == {}


def test_subscribe_that_waited_too_long(leader):
    """B81: a request whose client has given up is not proposed, and leaves nothing behind."""
    me = leader.client()
    leader.log.is_applying_at_once = False
    me.publish("foo")
    leader.feed(me.subscribe_bytes("foo", "in", durable="d"))
    leader.loop.move(2.1)
    leader.feed(me.subscribe_bytes("foo", "in2", durable="e"))
    apply_all(leader)
    assert sub_error(leader) == responses.WAITED_TOO_LONG
    assert sub_error(leader, "in2") == ""
    assert [one.durable_name for one in leader.store.state.subscriptions.values()] == ["e"]
    me.subscribe("foo", "in3", durable="d")


def test_retry_behind_a_subscribe_that_waits(leader):
    """B81, B283: closed by inbox and subscribed again while the first waits: the second gets it, whatever the first became."""
    me = leader.client()
    leader.log.is_applying_at_once = False
    me.publish("foo")
    leader.feed(me.subscribe_bytes("foo", "in", durable="d", start=pb.NewOnly))
    leader.loop.move(1.5)
    leader.feed(me.subscribe_bytes("foo", "other"))
    leader.feed(me.end_bytes("subclose", "foo", "in") + me.subscribe_bytes("foo", "in2", durable="d"))
    leader.loop.move(1)
    apply_all(leader)
    assert sub_error(leader, "in2") == ""
    me.publish("foo")
    assert (leader.seqs("in"), leader.seqs("in2")) == ([], [2])


def test_end_without_reply_is_done(leader):
    """B18, B100: stan.go sends it so after a timeout."""
    me = leader.client()
    me.subscribe("foo", "in")
    request = pb.UnsubscribeRequest(clientID="me", subject="foo", inbox="in")
    leader.take()
    leader.feed(leader.message(f"_STAN.subclose.{CLUSTER_ID}", request, ""))
    assert leader.take() == []
    assert leader.store.state.subscriptions == {}


def test_answers_come_in_the_order_of_the_requests(leader):
    """B104: each request has one answer, when its entry is applied."""
    me = leader.client()
    leader.log.is_applying_at_once = False
    leader.feed(me.subscribe_bytes("foo", "a") + me.subscribe_bytes("foo", "b") + me.end_bytes("subclose", "foo", "a"))
    leader.loop.move(1)
    assert leader.take() == []
    apply_all(leader)
    assert [frame.subject for frame in leader.take()] == ["r.sub.a", "r.sub.b", "r.subclose.a"]


def test_many_in_one_entry(leader):
    """Subscriptions and ends in any number share an entry, each with its own outcome."""
    me = leader.client()
    me.publish("foo")
    leader.log.applied.clear()
    data = b""
    for number in range(50):
        data += me.subscribe_bytes("foo", f"in{number}", durable="d" if number % 2 else "")
        data += me.end_bytes("unsub" if number % 3 else "subclose", "foo", f"in{number}")
    leader.feed(data)
    assert len(leader.log.applied) == 1
    assert {sub_error(leader, f"in{number}") for number in range(50)} == {""}
    assert leader.delivery().subscriptions == 0
    assert leader.core.ack_subjects == {}
    assert all(not one.is_online for one in leader.store.state.subscriptions.values())


@pytest.mark.parametrize(("delta_ns", "last_sent"), [(-1, 2), (500_000_000, 1), (1_500_000_000, 0)])
def test_start_time_counts_for_messages_that_are_not_applied(delta_ns, last_sent):
    """B220, B221, B127: publishes that came before the request are inside or not by their stamps, applied or not."""
    with leading() as leader:
        me = leader.client()
        leader.log.is_applying_at_once = False
        me.publish("other")  # travels, so that the rest waits in the open batch
        me.publish("foo")
        leader.loop.move(1)
        wish = {"startTimeDelta": delta_ns}
        leader.feed(me.publish_bytes("foo") + me.subscribe_bytes("foo", "in", start=pb.TimeDeltaStart, fields=wish))
        leader.log.apply_next()
        (entry,) = leader.log.proposed
        assert [one.last_sent for one in entry.operations if isinstance(one, Subscribe)] == [last_sent]


@pytest.mark.parametrize(
    ("first", "verb", "accepted"),
    [
        ({}, "subclose", True),
        ({}, "unsub", True),
        ({"durable": "d"}, "unsub", True),
        ({"durable": "d"}, "subclose", False),
        ({"group": "g"}, "subclose", True),
        ({"group": "g", "durable": "d"}, "unsub", True),
        ({"group": "g", "durable": "d"}, "subclose", False),
    ],
)
def test_end_makes_room_for_the_next_request(first, verb, accepted):
    """B127, B330: an end and a subscribe in one read, at the limit; what rests goes on counting."""
    with leading(limits=Limits(max_subs=2)) as leader:
        me = leader.client()
        me.subscribe("foo", "stays")
        me.subscribe("foo", "ends", **first)
        leader.feed(me.end_bytes(verb, "foo", "ends") + me.subscribe_bytes("foo", "new"))
        answer = leader.answer("r.sub.new", pb.SubscriptionResponse)
        assert answer.error == ("" if accepted else responses.TOO_MANY_SUBSCRIPTIONS)


def test_member_that_leaves_a_durable_group_makes_room():
    """B330: while others remain; the end of a client counts alike."""
    with leading(limits=Limits(max_subs=2)) as leader:
        me, you = leader.client("me"), leader.client("you")
        me.subscribe("foo", "stays", group="g", durable="d")
        you.subscribe("foo", "ends", group="g", durable="d")
        leader.feed(you.close_bytes() + me.subscribe_bytes("foo", "new"))
        assert leader.answer("r.sub.new", pb.SubscriptionResponse).error == ""


def test_unsubscribe_behind_a_resume_keeps_it():
    """B81, B102: what a request behind it builds upon is proposed however long it waited."""
    with leading() as leader:
        me = leader.client()
        me.subscribe("foo", "first", durable="d")
        me.end("subclose", "foo", "first")
        leader.log.is_applying_at_once = False
        me.publish("foo")
        leader.feed(me.subscribe_bytes("foo", "second", durable="d") + me.end_bytes("unsub", "foo", "second"))
        leader.loop.move(2.1)
        leader.log.is_applying_at_once = True
        leader.log.apply_next()
        leader.loop.run()
        assert leader.answer("r.sub.second", pb.SubscriptionResponse).error == ""
        assert leader.answer("r.unsub.second", pb.SubscriptionResponse).error == ""
        assert leader.store.state.subscriptions == {}
