"""When the open batch becomes an entry, what is in it and in which order, and who hears of it."""

import pytest

from server.proposals.proposer import MESSAGE_MAX_BYTES
from server.protocol import responses
from server.protocol import stan_pb2 as pb
from store.message import seq
from store.operations import (
    Append,
    CleanStop,
    CloseClient,
    CloseSubscription,
    ConnectClient,
    CreateChannel,
    GroupProgress,
    Limits,
    Progress,
    Subscribe,
)
from tests.support.leader_harness import Client as StanClient
from tests.support.leader_harness import leading
from tests.unit.store.builders import append, log_entry, messages

MIB = 1024 * 1024


@pytest.fixture
def leader():
    """A leader that serves, on an empty store."""
    with leading() as leader:
        yield leader


def kinds(operations):
    return [type(operation) for operation in operations]


def progress_entries(leader):
    return [operations for operations in leader.log.applied if Progress in kinds(operations)]


# ---- what an entry holds


def test_order_in_an_entry(leader):
    """B126: new channels, then messages, then progress, then requests as they came, however they were mixed."""
    me = leader.client()
    sub = me.subscribe("foo", "in.foo")
    me.publish("foo", 2)
    leader.loop.move(1)
    leader.log.applied.clear()
    leader.feed(
        me.subscribe_bytes("bar", "in.bar")
        + me.ack_bytes(sub, 1)
        + me.publish_bytes("new")
        + me.end_bytes("subclose", "foo", "in.foo")
        + me.publish_bytes("foo")
        + me.close_bytes()
    )
    (operations,) = leader.log.applied
    assert kinds(operations) == [
        CreateChannel, CreateChannel, Append, Append,
        Subscribe, Progress, CloseSubscription, CloseClient,
    ]  # fmt: skip
    assert [one.name for one in operations[:2]] == ["bar", "new"]
    assert operations[5] == Progress(sub.subscription_id, 2, 1, ())


def test_progress_goes_behind_the_messages_it_may_speak_of(leader):
    """Progress in an entry never says more than the entry's messages allow."""
    me = leader.client()
    me.subscribe("foo", "in")
    leader.log.applied.clear()
    leader.log.is_applying_at_once = False
    for _ in range(3):
        me.publish("foo", 2)
    while leader.log.proposed:
        leader.log.apply_next()
        leader.loop.run()
        leader.loop.move(0.02)
    for operations in leader.log.applied:
        assert kinds(operations) == sorted(kinds(operations), key=[CreateChannel, Append, Progress].index)
    assert leader.store.state.subscriptions[1].last_sent == 6


def test_sequences_have_no_gap_over_entries_and_blocks(leader):
    """B99, B200: blocks of one channel follow each other, within an entry and over entries."""
    me = leader.client()
    leader.log.applied.clear()
    leader.log.is_applying_at_once = False
    for _ in range(3):
        me.publish("foo", 5, b"x" * 30_000)
    while leader.log.proposed:
        leader.log.apply_next()
    appends = [one for operations in leader.log.applied for one in operations if isinstance(one, Append)]
    assert [one.first_seq for one in appends] == [1, 3, 5, 6, 8, 10, 12, 14]
    assert leader.channel("foo").last_seq == 15
    _, found = leader.store.read_messages(leader.channel("foo"), 1, 100, MIB)
    assert [seq(one) for one in found] == list(range(1, 16))


# ---- in flight


def test_nothing_is_acked_before_it_is_applied(leader):
    """B211: no PubAck and no delivery while the entry travels; deliveries first, then PubAcks (B212)."""
    me = leader.client()
    me.subscribe("foo", "in")
    leader.log.is_applying_at_once = False
    me.publish("foo", 3)
    leader.loop.move(5)
    assert leader.take() == []
    leader.log.apply_next()
    assert [frame.subject for frame in leader.take()] == ["in", "in", "in", "acks", "acks", "acks"]


def test_next_batch_is_sealed_before_results_are_handed_out(leader):
    """The disk works on the next entry while the results of this one are sent."""
    me = leader.client()
    me.subscribe("foo", "in")
    leader.log.is_applying_at_once = False
    me.publish("foo")
    me.publish("foo")
    assert len(leader.log.proposed) == 1
    leader.events.clear()
    leader.log.apply_next()
    assert leader.events == ["propose", "write"]


def test_one_entry_is_in_flight(leader):
    """While an entry travels everything else waits in one batch."""
    me = leader.client()
    leader.log.is_applying_at_once = False
    for _ in range(5):
        me.publish("foo", 2)
    assert len(leader.log.proposed) == 1
    leader.log.apply_next()
    assert len(leader.log.proposed) == 1
    (append_operation,) = leader.log.proposed[0].operations
    assert (append_operation.first_seq, append_operation.count) == (3, 8)
    leader.log.apply_next()
    assert leader.log.proposed == []
    assert len(leader.pub_acks()) == 10


def test_subscribe_that_waited_too_long_is_not_proposed(leader):
    """B81: behind a log that hangs, a request whose client has given up makes no subscription; others wait on."""
    me = leader.client()
    leader.log.is_applying_at_once = False
    me.publish("foo")
    leader.feed(me.subscribe_bytes("foo", "in.old") + me.ping_bytes())
    leader.loop.move(2.1)
    leader.feed(me.subscribe_bytes("foo", "in.new") + me.publish_bytes("foo"))
    leader.log.apply_next()
    (entry,) = leader.log.proposed
    assert [one.inbox for one in entry.operations if isinstance(one, Subscribe)] == ["in.new"]
    leader.log.is_applying_at_once = True
    leader.log.apply_next()
    assert [one.inbox for one in leader.store.state.subscriptions.values()] == ["in.new"]
    assert me.end("subclose", "foo", "in.old").error == responses.INVALID_SUBSCRIPTION


def test_refused_block_is_fatal_and_not_acked(leader):
    """The leader's numbers must be the log's: a block that does not fit is a bug, and stopping loses nothing."""
    me = leader.client()
    me.publish("foo")
    leader.pub_acks()
    operation, data = append(1, 2, messages(2, 1))
    leader.store.apply([log_entry(leader.store.last_applied()[0] + 1, [operation], [data])])
    me.publish("foo")
    assert [str(error).split(":")[0] for error in leader.fatal] == ["a block was refused"]
    assert leader.pub_acks() == []


def test_nothing_is_proposed_or_answered_after_a_refused_block(leader):
    """Numbers that are not the log's vouch for nothing: no entry, PubAck, answer or delivery follows, whatever comes."""
    me = leader.client()
    me.subscribe("foo", "in")
    me.publish("foo")
    leader.take()
    operation, data = append(1, 2, messages(2, 1))
    leader.store.apply([log_entry(leader.store.last_applied()[0] + 1, [operation], [data])])
    leader.log.is_applying_at_once = False
    leader.feed(me.publish_bytes("foo") + me.subscribe_bytes("foo", "in.more"))
    leader.feed(me.publish_bytes("foo") + me.end_bytes("subclose", "foo", "in"))
    leader.events.clear()
    leader.log.apply_next()
    leader.feed(me.publish_bytes("foo") + me.subscribe_bytes("foo", "in.late") + me.close_bytes())
    leader.loop.move(5)
    assert "propose" not in leader.events
    assert leader.log.proposed == []
    assert [frame.subject for frame in leader.take() if not frame.subject.startswith("hb.")] == []
    assert len(leader.fatal) == 1


def test_refused_progress_of_a_subscription_is_fatal(leader):
    """B394: acks that the log does not take would be lost at the next leader; the error names whose and why."""
    me = leader.client()
    sub = me.subscribe("foo", "in")
    leader.take()
    leader.leadership.proposer.add(Progress(sub.subscription_id, 7, 7, ()))
    leader.feed(me.publish_bytes("foo"))
    (error,) = map(str, leader.fatal)
    assert error.startswith(f"progress was refused: subscription={sub.subscription_id} result=progress says 7 was sent")
    assert leader.pub_acks() == []


def test_refused_progress_of_a_group_is_fatal_and_the_last_word(leader):
    """B313, B394: a gap in what is known of a queue group would lose messages; nothing is proposed or acked after it."""
    me = leader.client()
    sub = me.subscribe("foo", "in", group="g")
    me.publish("foo")
    leader.loop.move(1)
    me.publish("foo", 2)
    leader.take()
    leader.store.apply(
        [log_entry(leader.store.last_applied()[0] + 1, [GroupProgress(sub.group_id, 2, 0, (), (), 2, b"\1\0")])]
    )
    leader.log.is_applying_at_once = False
    leader.loop.move(1)
    leader.feed(me.publish_bytes("foo") + me.subscribe_bytes("foo", "in.more"))
    leader.events.clear()
    leader.log.apply_next()
    leader.loop.move(5)
    (error,) = map(str, leader.fatal)
    assert error.startswith(
        f"progress was refused: group={sub.group_id} result=progress says who holds 2 to 3, known is 2"
    )
    assert "propose" not in leader.events
    assert [frame.subject for frame in leader.take() if not frame.subject.startswith("hb.")] == []


def test_progress_of_what_is_gone_is_not_fatal(leader):
    """An end may overtake the last progress: it is of no use any more, and nothing is lost."""
    me = leader.client()
    for progress in (Progress(99, 1, 1, ()), GroupProgress(99, 1, 0, (), (), 1, b"\1\0")):
        leader.leadership.proposer.add(progress)
    leader.feed(me.publish_bytes("foo"))
    assert leader.fatal == []
    assert len(leader.pub_acks()) == 1


# ---- leadership ends


def test_not_proposed_says_not_leader(leader):
    """B400: what met the end of leadership was certainly not proposed; that ends this leadership, told or not."""
    me = leader.client()
    leader.log.is_leader = False
    leader.feed(me.publish_bytes("foo") + me.close_bytes())
    assert leader.answer("r.close.me", pb.CloseResponse).error == responses.NOT_LEADER
    assert leader.pub_acks() == [pb.PubAck(guid="g", error=responses.NOT_LEADER)]
    assert leader.nats.subjects == {}
    assert leader.loop.timers() == []


def test_unknown_outcome_says_so(leader):
    """B402: proposed, then leadership lost: never success."""
    me = leader.client()
    leader.log.is_applying_at_once = False
    leader.feed(me.publish_bytes("foo") + me.close_bytes())
    leader.leadership.end()
    leader.log.lose_all()
    leader.loop.run()
    assert leader.answer("r.close.me", pb.CloseResponse).error == responses.OUTCOME_UNKNOWN
    assert leader.pub_acks() == [pb.PubAck(guid="g", error=responses.OUTCOME_UNKNOWN)]
    assert leader.take() == []


def test_open_batch_is_answered_when_leadership_ends(leader):
    """B400: requests that waited in the open batch hear that this is no leader; nothing more is proposed."""
    me = leader.client()
    leader.log.is_applying_at_once = False
    me.publish("foo")
    leader.feed(me.subscribe_bytes("foo", "in"))
    leader.leadership.end()
    leader.loop.run()
    assert leader.answer("r.sub.in", pb.SubscriptionResponse).error == responses.NOT_LEADER
    assert len(leader.log.proposed) == 1


# ---- back-pressure


def test_full_batch_pauses_reading_until_it_is_sealed(leader):
    """Memory and latency are bounded: at BATCH_MAX_BYTES nothing more is read from NATS."""
    me = leader.client()
    leader.log.is_applying_at_once = False
    me.publish("foo")
    me.publish("foo", 4, b"x" * (MIB * 9 // 10))
    assert leader.nats.is_reading
    me.publish("foo", 1, b"x" * (MIB * 9 // 10))
    assert not leader.nats.is_reading
    leader.log.apply_next()
    assert leader.nats.is_reading
    leader.log.apply_next()
    assert len(leader.pub_acks()) == 6


def test_large_requests_pause_reading_too(leader):
    """Requests that wait for an entry are bounded as publishes are: an entry above the log's bound would stop the node."""
    leader.log.is_applying_at_once = False
    first = StanClient(leader, "first")
    leader.feed(first.connect_bytes())
    for number in range(5):
        assert leader.nats.is_reading, number
        leader.feed(StanClient(leader, f"c{number}").connect_bytes(connID=b"x" * (MIB * 9 // 10)))
    assert not leader.nats.is_reading
    leader.log.apply_next()
    assert leader.nats.is_reading


def test_message_that_fits_no_entry_is_refused():
    """B97: NATS may allow more than an entry can hold; such a publish is refused, and must not stop the node."""
    with leading() as leader:
        leader.nats.max_payload = 64 * MIB
        leader.leadership.on_connected()
        me = leader.client()
        leader.log.is_applying_at_once = False
        for size in (1, MESSAGE_MAX_BYTES, MESSAGE_MAX_BYTES - MIB):
            me.publish("foo", 1, bytes(size))
        leader.log.apply_next()
        leader.log.apply_next()
        assert [ack.error for ack in leader.pub_acks()] == [responses.MAX_PAYLOAD, "", ""]
        assert leader.channel("foo").last_seq == 2


def test_store_that_lags_holds_proposals_until_it_caught_up(leader, monkeypatch):
    """At STORE_PENDING_MAX_BYTES not in LMDB nothing is proposed; the store's progress lets it go on."""
    monkeypatch.setattr("server.proposals.proposer.STORE_PENDING_MAX_BYTES", 300_000)
    me = leader.client()
    me.publish("foo", 1, b"x" * 400_000)
    assert len(leader.pub_acks()) == 1
    for _ in range(5):
        me.publish("foo", 1, b"x" * 900_000)
    assert leader.pub_acks() == []
    assert not leader.nats.is_reading
    leader.let_store_write()
    assert len(leader.pub_acks()) == 5
    assert leader.nats.is_reading


def test_reading_goes_on_when_all_that_filled_the_batch_is_dropped(leader, monkeypatch):
    """B81: requests that waited too long are dropped without an entry; reading, which they paused, must resume."""
    monkeypatch.setattr("server.proposals.proposer.BATCH_MAX_BYTES", 10_000)
    monkeypatch.setattr("server.proposals.proposer.STORE_PENDING_MAX_BYTES", 100_000)
    me = leader.client()
    me.publish("foo", 1, b"x" * 200_000)
    leader.feed(b"".join(me.subscribe_bytes("foo", f"in{number}") for number in range(10)))
    assert not leader.nats.is_reading
    leader.loop.move(3)
    leader.let_store_write()
    assert leader.nats.is_reading


# ---- progress


def test_progress_waits_at_most_20_ms_and_comes_at_most_so_often(leader):
    """B253, B381: with traffic every 5 ms progress is in an entry at most every 20 ms, and never later than that."""
    me = leader.client()
    sub = me.subscribe("foo", "in")
    leader.loop.move(1)
    leader.log.applied.clear()
    for number in range(1, 41):
        me.publish("foo")
        me.ack(sub, number)
        leader.loop.move(0.005)
    assert len(progress_entries(leader)) in range(9, 12)
    leader.loop.move(0.02)
    assert (sub.last_sent, sub.floor) == (40, 40)


def test_progress_alone_makes_an_entry(leader):
    """B253: an ack without any other traffic is replicated within the interval, and then nothing more happens."""
    me = leader.client()
    sub = me.subscribe("foo", "in")
    me.publish("foo", 3)
    leader.loop.move(1)
    me.ack(sub, 1, 3)
    leader.loop.move(0.02)
    assert (sub.last_sent, sub.floor, list(sub.acked.ranges())) == (3, 1, [(3, 3)])
    entries = len(leader.log.applied)
    leader.loop.move(1)
    assert len(leader.log.applied) == entries


@pytest.mark.parametrize("verb", ["unsub", "subclose", "close"])
def test_acks_count_before_every_end(leader, verb):
    """B103, B352: what was acked before the end of a subscription is in the log before the end."""
    me = leader.client()
    sub = me.subscribe("foo", "in", durable="d")
    me.publish("foo", 3)
    leader.loop.move(1)
    leader.log.applied.clear()
    end = me.close_bytes() if verb == "close" else me.end_bytes(verb, "foo", "in")
    leader.feed(me.ack_bytes(sub, 1, 2) + end)
    (operations,) = leader.log.applied
    assert operations[0] == Progress(sub.subscription_id, 3, 2, ())
    assert len(operations) == 2


def test_orderly_stop_commits_what_is_open(leader):
    """B253, O234: open publishes are acked, the last acks are in the log, and it ends with a CleanStop."""
    me = leader.client()
    sub = me.subscribe("foo", "in", durable="d")
    me.publish("foo", 3)
    leader.log.is_applying_at_once = False
    me.publish("foo")
    me.publish("foo")
    me.ack(sub, 1, 2)
    leader.log.is_applying_at_once = True
    leader.loop.call_soon(leader.log.apply_next)
    leader.stop()
    assert len(leader.pub_acks()) == 5
    assert (sub.last_sent, sub.floor) == (5, 2)
    assert kinds(leader.log.applied[-1])[-1] is CleanStop
    assert leader.store.state.progress_is_exact
    assert leader.loop.timers() == []


def test_orderly_stop_without_nats_is_as_clean(leader):
    """B253: the NATS server may go first (one signal ends both); a clean stop loses no acks all the same."""
    me = leader.client()
    sub = me.subscribe("foo", "in", durable="d")
    me.publish("foo", 3)
    leader.loop.move(1)
    leader.feed(me.ack_bytes(sub, 1, 2, 3), runs=False)

    leader.nats.on_barrier = lambda: setattr(leader.nats, "is_connected", False)
    leader.stop()
    assert sub.floor == 3
    assert leader.store.state.progress_is_exact


def test_drain_after_the_end_returns(leader):
    """A leadership that is lost while it stops in order must not keep the process."""
    leader.leadership.end()
    leader.loop.run_task(leader.leadership.proposer.drain())


def test_limits_of_the_operator_are_in_the_first_entry():
    """O508: channels that are there get the limits of this start before anything else happens."""
    with leading() as leader:
        leader.client().publish("foo", 5)
        leader.stop()
        leader.options = leader.options.model_copy(
            update={"limits": leader.options.limits.model_copy(update={"max_msgs": 2})}
        )
        leader.log.applied.clear()
        leader.restart()
        assert leader.channel("foo").limits == Limits(2, 1_024_000_000, 0)
        assert leader.channel("foo").first_seq == 4


def test_operations_of_one_read_share_an_entry(leader):
    """Requests of one read cost one entry, not one each."""
    leader.log.applied.clear()
    leader.feed(b"".join(StanClient(leader, f"c{number}").connect_bytes() for number in range(10)))
    (operations,) = leader.log.applied
    assert kinds(operations) == [ConnectClient] * 10
