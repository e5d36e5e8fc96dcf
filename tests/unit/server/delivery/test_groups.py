"""Queue groups of a real leader on moved time: who gets what, redelivery, leaving and joining, restarts."""

import pytest

from server.config.model import Limits
from server.delivery import stream as stream_module
from server.protocol import stan_pb2 as pb
from tests.support.leader_harness import leading


@pytest.fixture
def leader():
    """A leader that serves, on an empty store."""
    with leading() as leader:
        yield leader


def join(client, inboxes, **options):
    """A member of group g for each inbox; their records."""
    options = {"group": "g", **options}
    return [client.subscribe("foo", inbox, **options) for inbox in inboxes.split()]


def got(leader, inboxes):
    """What each inbox received since the last call."""
    return [leader.seqs(inbox) for inbox in inboxes.split()]


# ---- distribution


def test_equal_members_in_turn(leader):
    """B305: twelve messages on three members, in one entry or in twelve."""
    me = leader.client()
    join(me, "a b c")
    me.publish("foo", 12)
    assert got(leader, "a b c") == [[1, 4, 7, 10], [2, 5, 8, 11], [3, 6, 9, 12]]
    for _ in range(3):
        me.publish("foo")
    assert got(leader, "a b c") == [[13], [14], [15]]


def test_order_outlives_a_leaving_member(leader):
    """B305: ties still go to the first in the order."""
    me = leader.client()
    join(me, "a b c d")
    me.end("subclose", "foo", "b")
    me.publish("foo", 3)
    assert got(leader, "a c d") == [[1], [2], [3]]


def test_hand_over_follows_the_log(leader):
    """B319: what one connection sees of all members is in sequence order."""
    me = leader.client()
    join(me, "a b c")
    leader.take()
    me.publish("foo", 9)
    frames = [frame for frame in leader.take() if frame.subject in "abc"]
    assert [pb.MsgProto.FromString(frame.payload).sequence for frame in frames] == list(range(1, 10))
    assert [frame.subject for frame in frames] == ["a", "b", "c"] * 3


def test_every_group_and_every_plain_subscription_gets_all(leader):
    """B300 to B302: plain, durable and look-alike groups are different groups."""
    me, you = leader.client("me"), leader.client("you")
    join(me, "a b")
    join(you, "c d", durable="d")
    join(me, "e", group="d:g")
    me.subscribe("foo", "plain")
    me.publish("foo", 4)
    assert got(leader, "a b c d e plain") == [[1, 3], [2, 4], [1, 3], [2, 4], [1, 2, 3, 4], [1, 2, 3, 4]]


def test_later_members_start_where_the_group_is(leader):
    """B303, B222: one position for the group, the first member's."""
    me = leader.client()
    me.publish("foo", 4)
    join(me, "a", fields={"startPosition": pb.SequenceStart, "startSequence": 3})
    join(me, "b", start=pb.First)
    assert got(leader, "a b") == [[3, 4], []]


def test_fewest_pending_first(leader):
    """B305: a member that acks gets more."""
    me = leader.client()
    a, _ = join(me, "a b")
    me.publish("foo", 6)
    assert got(leader, "a b") == [[1, 3, 5], [2, 4, 6]]
    me.ack(a, 1, 3, 5)
    me.publish("foo", 4)
    assert got(leader, "a b") == [[7, 8, 9], [10]]


def test_waits_only_when_all_are_full(leader):
    """B307, B304: max in flight is the member's; an ack of any member releases the group."""
    me = leader.client()
    a, b = [join(me, inbox, max_in_flight=room)[0] for inbox, room in (("a", 1), ("b", 3))]
    me.publish("foo", 9)
    assert got(leader, "a b") == [[1], [2, 3, 4]]
    assert leader.delivery().stalled == 2
    me.ack(b, 3)
    assert got(leader, "a b") == [[], [5]]
    me.ack(a, 1)
    assert got(leader, "a b") == [[6], []]
    join(me, "c", max_in_flight=2)
    assert got(leader, "a b c") == [[], [], [7, 8]]
    assert leader.delivery().waiting == 0


def test_members_of_failing_clients_are_avoided():
    """B305, B306: while their heartbeats fail, unless all do."""
    with leading(hb_interval_ns=10**9, hb_timeout_ns=10**8, hb_fail_count=100) as leader:
        me, you = leader.client("me"), leader.client("you")
        join(me, "a")
        join(you, "b")
        leader.take()
        leader.loop.move(1.01)
        beats = {frame.subject: frame for frame in leader.take()}
        leader.answer_request(beats["hb.you"])
        leader.loop.move(0.2)
        me.publish("foo", 4)
        assert got(leader, "a b") == [[], [1, 2, 3, 4]]
        leader.loop.move(1.5)  # nobody answers
        me.publish("foo", 4)
        assert sorted(leader.seqs("a") + leader.seqs("b")) == [5, 6, 7, 8]


def test_members_of_failing_clients_are_avoided_to_the_end():
    """B305: also by what is committed while the server stops in order."""
    with leading(hb_interval_ns=10**9, hb_timeout_ns=10**8, hb_fail_count=100) as leader:
        me, you = leader.client("me"), leader.client("you")
        join(you, "b")
        join(me, "a")
        leader.take()
        leader.loop.move(1.01)
        leader.answer_request(next(frame for frame in leader.take() if frame.subject == "hb.me"))
        leader.loop.move(0.2)
        leader.feed(me.publish_bytes("foo"), runs=False)
        leader.stop()
        assert got(leader, "a b") == [[1], []]


def test_removed_messages_are_skipped():
    """B235: a group goes on at the channel's first message."""
    with leading(limits=Limits(max_msgs=3)) as leader:
        me = leader.client()
        (a,) = join(me, "a", max_in_flight=1)
        me.publish("foo")
        me.publish("foo", 8)
        assert leader.seqs("a") == [1]
        me.ack(a, 1)
        assert leader.seqs("a") == [7]
        leader.loop.move(1)
        assert leader.store.state.groups[a.group_id].holders.held() == [7]


# ---- acks and redelivery


def test_ack_through_another_member(leader):
    """B248, B249: it counts where the message is held, and makes room there."""
    me = leader.client()
    _, b = join(me, "a b", max_in_flight=2)
    me.publish("foo", 6)
    assert got(leader, "a b") == [[1, 3], [2, 4]]
    me.ack(b, 3)
    assert got(leader, "a b") == [[5], []]
    leader.loop.move(31)
    assert "3r1" not in leader.seqs("a") + leader.seqs("b")
    assert leader.delivery().pending == 5  # with 6: redelivery ignores max in flight, and so made room (B311)


def test_due_message_moves_to_the_best_member(leader):
    """B309 to B311, B271: it is pending at the other one, whose ack wait counts; counts are the group's."""
    me, you = leader.client("me"), leader.client("you")
    (a,) = join(me, "a", ack_wait_s=1, max_in_flight=3)
    me.publish("foo", 3)
    assert leader.seqs("a") == [1, 2, 3]
    (b,) = join(you, "b", ack_wait_s=5, max_in_flight=2)
    leader.loop.move(1.001)
    assert got(leader, "a b") == [["3r1"], ["1r1", "2r1"]]  # then b is full
    leader.loop.move(1)
    assert got(leader, "a b") == [["3r2"], []]
    you.ack(b, 1, 2)
    leader.loop.move(1)
    assert got(leader, "a b") == [[], ["3r3"]]
    leader.loop.move(4.9)
    assert got(leader, "a b") == [[], []]
    leader.loop.move(0.2)
    assert leader.seqs("a") + leader.seqs("b") == ["3r4"]
    me.ack(a, 3)
    leader.loop.move(20)
    assert got(leader, "a b") == [[], []]
    assert leader.delivery().pending == 0


def test_redelivery_is_not_paused_by_failing_heartbeats():
    """B269: to whoever has it, failing or not."""
    with leading(hb_interval_ns=10**9, hb_timeout_ns=10**8, hb_fail_count=100) as leader:
        me = leader.client()
        join(me, "a", ack_wait_s=3)
        me.publish("foo")
        leader.loop.move(2.9)
        assert leader.seqs("a") == [1]
        leader.loop.move(0.2)
        assert leader.seqs("a") == ["1r1"]


# ---- leaving and joining


@pytest.mark.parametrize("verb", ["subclose", "unsub"])
def test_pending_of_a_leaving_member_goes_to_the_others(leader, verb):
    """B312: in turn, flagged, about 100 ms later; the close carries the last acks."""
    me = leader.client()
    a, b, c = join(me, "a b c")
    me.publish("foo", 9)
    got(leader, "a b c")
    leader.feed(me.ack_bytes(a, 4) + me.end_bytes(verb, "foo", "a"))
    assert not leader.answer(f"r.{verb}.a", pb.SubscriptionResponse).error
    assert got(leader, "a b c") == [[], [], []]
    leader.loop.move(0.101)
    assert sorted(leader.seqs("b") + leader.seqs("c")) == ["1r1", "7r1"]
    assert leader.seqs("a") == []
    group = leader.store.state.groups[b.group_id]
    leader.loop.move(0.1)
    assert group.holders.held() == [1, 2, 3, 5, 6, 7, 8, 9]
    assert set(group.members) == {b.slot, c.slot}
    me.ack(b, 1, 2, 3, 5, 6, 7, 8, 9)
    assert leader.delivery().pending == 0


def test_end_of_a_client_moves_what_its_members_had(leader):
    """B345, B312: two members end at once, the third has everything, also what it gets while they are ending."""
    me, you = leader.client("me"), leader.client("you")
    join(me, "a b")
    (c,) = join(you, "c")
    me.publish("foo", 6)
    got(leader, "a b c")
    leader.log.is_applying_at_once = False
    leader.feed(me.close_bytes() + you.publish_bytes("foo"))
    while leader.log.proposed:
        leader.log.apply_next()
        leader.loop.run()
    leader.log.is_applying_at_once = True
    leader.loop.move(0.2)
    assert got(leader, "a b") == [[], []]
    assert sorted(map(str, leader.seqs("c"))) == ["1r1", "2r1", "4r1", "5r1", "7"]
    you.ack(c, 1, 2, 3, 4, 5, 6, 7)
    assert leader.delivery().pending == 0


def test_members_leave_one_after_the_other_while_commits_are_slow(leader):
    """B312, B313, B394: the end of one says nothing about what another one holds whose end is not committed yet."""
    me = leader.client()
    a, b, _ = join(me, "a b c", ack_wait_s=1)
    leader.log.is_applying_at_once = False
    me.publish("foo", 4)
    leader.feed(me.end_bytes("subclose", "foo", "a"))
    leader.log.apply_next()
    leader.loop.run()
    assert got(leader, "a b c") == [[], [1, 3], [2, 4]]
    leader.feed(me.end_bytes("subclose", "foo", "c"))
    for _ in range(2):
        leader.log.apply_next()
        leader.loop.run()
    leader.log.is_applying_at_once = True
    while leader.log.proposed:
        leader.log.apply_next()
    leader.loop.move(0.2)
    assert [seq for seq in leader.seqs("b") if seq in ("2r1", "4r1")] == ["2r1", "4r1"]
    me.ack(b, 1, 3)
    leader.loop.move(0.1)
    assert leader.store.state.groups[a.group_id].holders.held() == [2, 4]
    me.ack(b, 2, 4)
    assert leader.delivery().pending == 0


def test_nothing_goes_to_members_of_a_client_that_leaves(leader):
    """B239, B345: not even what makes room for them in the same read."""
    me, you = leader.client("me"), leader.client("you")
    a, b = join(me, "a b", max_in_flight=1)
    join(you, "c", max_in_flight=1)
    me.publish("foo", 5)
    assert got(leader, "a b c") == [[1], [2], [3]]
    leader.feed(me.ack_bytes(a, 1) + me.ack_bytes(b, 2) + me.close_bytes())
    leader.loop.move(1)
    assert got(leader, "a b") == [[], []]


def test_group_that_ends_under_way_is_none_to_join(leader):
    """B220, B222, B315: the unsubscribe ahead removes the resting group, so the start position counts."""
    me = leader.client()
    join(me, "a", durable="d")
    me.end("subclose", "foo", "a")
    me.publish("foo", 5)
    options = {"durable": "d", "group": "g"}
    leader.feed(
        me.subscribe_bytes("foo", "b", **options)
        + me.end_bytes("unsub", "foo", "b")
        + me.subscribe_bytes("foo", "c", **options, start=pb.NewOnly)
    )
    assert got(leader, "c") == [[]]
    me.publish("foo")
    assert got(leader, "c") == [[6]]


def test_close_of_the_last_and_join_in_one_read(leader):
    """B316, B318: the new member resumes the group: all pending first, then what is new, whatever its max in flight."""
    me, you = leader.client("me"), leader.client("you")
    join(me, "a", durable="d")
    me.publish("foo", 4)
    assert leader.seqs("a") == [1, 2, 3, 4]
    leader.feed(
        me.end_bytes("subclose", "foo", "a") + you.subscribe_bytes("foo", "b", durable="d", group="g", max_in_flight=2)
    )
    you.publish("foo", 2)
    assert leader.seqs("b") == ["1r1", "2r1", "3r1", "4r1"]
    assert len(leader.store.state.groups) == 1
    b = next(iter(leader.store.state.subscriptions.values()))
    you.ack(b, 1, 2, 3)
    assert leader.seqs("b") == [5]
    assert leader.seqs("a") == []


def test_durable_group_rests_and_comes_back(leader):
    """B315 to B317, B271: from another client, with counts going on."""
    me, you = leader.client("me"), leader.client("you")
    (a,) = join(me, "a", durable="d", ack_wait_s=1)
    me.publish("foo", 3)
    leader.loop.move(1.1)
    assert leader.seqs("a") == [1, 2, 3, "1r1", "2r1", "3r1"]
    me.ack(a, 2)
    assert not me.close().error
    you.publish("foo", 2)
    leader.loop.move(5)
    assert leader.seqs("a") == []
    join(you, "b", durable="d", start=pb.NewOnly)
    assert leader.seqs("b") == ["1r2", "3r2", 4, 5]


@pytest.mark.parametrize(
    ("durable", "verb", "starts_anew"), [("", "subclose", True), ("d", "unsub", True), ("d", "subclose", False)]
)
def test_group_ends_with_its_last_member(leader, durable, verb, starts_anew):
    """B314, B315: or rests, when it is durable and was not unsubscribed."""
    me = leader.client()
    join(me, "a", durable=durable)
    me.publish("foo", 2)
    leader.seqs("a")
    me.end(verb, "foo", "a")
    join(me, "b", durable=durable, start=pb.First)
    assert leader.seqs("b") == ([1, 2] if starts_anew else ["1r1", "2r1"])


def test_limit_counts_members_and_offline_groups():
    """B330: every member, one for each offline group; who resumes one takes no new place."""
    with leading(limits=Limits(max_subs=3)) as leader:
        me = leader.client()
        join(me, "a b")
        join(me, "c", group="h", durable="d")
        full = {"group": "x"}
        leader.feed(me.subscribe_bytes("foo", "n", **full))
        assert leader.answer("r.sub.n", pb.SubscriptionResponse).error == "too many subscriptions per channel"
        me.end("subclose", "foo", "c")
        leader.feed(me.subscribe_bytes("foo", "n", **full))
        assert leader.answer("r.sub.n", pb.SubscriptionResponse).error == "too many subscriptions per channel"
        resume = me.subscribe_bytes("foo", "m", group="h", durable="d")
        leader.feed(resume + me.subscribe_bytes("foo", "n", group="h", durable="d"))
        assert leader.answer("r.sub.m", pb.SubscriptionResponse).error == ""
        assert leader.answer("r.sub.n", pb.SubscriptionResponse).error == "too many subscriptions per channel"


# ---- restarts


@pytest.mark.parametrize("is_clean", [True, False])
def test_pending_comes_back_to_who_had_it(leader, is_clean):
    """B363, B394: past due at once to the same member, flagged; then new messages; nothing is lost."""
    me = leader.client()
    a, b = join(me, "a b", ack_wait_s=1)
    me.publish("foo", 6)
    me.ack(a, 3)
    assert got(leader, "a b") == [[1, 3, 5], [2, 4, 6]]
    leader.loop.move(0.5)
    if is_clean:
        leader.stop()
    else:
        leader.crash()
    leader.loop.move(3)
    leader.take()
    leader.restart()
    assert got(leader, "a b") == [["1r1", "5r1"], ["2r1", "4r1", "6r1"]]
    me.publish("foo", 2)
    assert got(leader, "a b") == [[7], [8]]
    me.ack(b, 1, 2, 4, 5, 6, 7, 8)
    assert leader.delivery().pending == 0


def test_new_messages_wait_for_the_first_pass_of_every_member(leader, monkeypatch):
    """B363: however many turns it takes."""
    monkeypatch.setattr(stream_module, "TURN_MAX_BYTES", 40)
    me = leader.client()
    join(me, "a b", ack_wait_s=1)
    me.publish("foo", 9)
    leader.take()
    leader.nats.is_writable = False
    me.publish("foo", 4)
    leader.stop()
    leader.loop.move(2)
    leader.nats.is_writable = True
    leader.take()
    leader.restart()
    frames = [pb.MsgProto.FromString(frame.payload) for frame in leader.take() if frame.subject in ("a", "b")]
    assert [one.redelivered for one in frames] == [True] * 9 + [False] * 4


def test_what_may_have_been_sent_is_flagged_after_a_crash(leader):
    """B394: a group's sends that are not replicated come again flagged, none is left out."""
    me = leader.client()
    join(me, "a b")
    me.publish("foo", 4)
    assert got(leader, "a b") == [[1, 3], [2, 4]]
    leader.crash()  # before progress was due
    leader.restart()
    found = leader.received("a") + leader.received("b")
    assert sorted((one.sequence, one.redelivered) for one in found) == [(seq, True) for seq in range(1, 5)]


def test_offline_group_stays_offline(leader):
    """B368: nothing is sent until somebody joins."""
    me = leader.client()
    join(me, "a", durable="d")
    me.publish("foo", 2)
    me.end("subclose", "foo", "a")
    leader.stop()
    leader.take()
    leader.restart()
    leader.loop.move(60)
    assert leader.seqs("a") == []
    join(me, "b", durable="d")
    assert leader.seqs("b") == ["1r1", "2r1"]
