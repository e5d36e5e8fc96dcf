"""Deliberate differences from the original server, each where the original would do something else."""

import re

import pytest

from server.config.model import Limits
from server.protocol import responses
from server.protocol import stan_pb2 as pb
from store.operations import Append, GroupProgress, Progress, Subscribe
from tests.support.leader_harness import EPOCH_NS, Client, leading
from tests.support.moved_loop import NS

KIB = 1024
HOUR_NS = 3600 * NS
NEVER_NS = 10**18


@pytest.fixture
def leader():
    """A leader that serves, on an empty store; its clients are not asked for heartbeats."""
    with leading(hb_interval_ns=NEVER_NS) as leader:
        yield leader


def settle(leader):
    """Progress is replicated."""
    leader.loop.move(0.1)


def apply_one(leader):
    """The oldest entry is applied, and what follows at once."""
    leader.log.apply_next()
    leader.loop.run()


# ---- ack inboxes


def test_ack_inboxes_are_never_used_again(leader):
    """B17, B16: over resumes, ends and a restart every subscription has an inbox of its own below that of the cluster."""
    seen = []
    for _ in range(2):
        me = leader.client()
        for number in range(20):
            durable = "d" if number % 2 else ""
            sub = me.subscribe("foo", "in", durable=durable, group="g" if number % 4 > 1 else "")
            seen.append(sub.ack_inbox)
            me.end("subclose", "foo", "in")
        me.close()
        leader.stop()
        leader.restart()
        leader.take()
    assert len(set(seen)) == 40
    assert {inbox.rpartition(".")[0] for inbox in seen} == {f"_INBOX.{leader.store.state.ack_inbox_token}"}
    assert all(re.fullmatch(r"_INBOX\.[A-Za-z0-9]{22}\.[A-Za-z0-9]{22}", inbox) for inbox in seen)


def test_ack_inbox_lives_over_stop_and_crash(leader):
    """B17, B367: a client keeps acking to the subject of its answer; nobody tells it anything."""
    me = leader.client()
    sub = me.subscribe("foo", "in", max_in_flight=1)
    old_inbox = sub.ack_inbox
    me.publish("foo", 3)
    leader.stop()
    leader.restart()
    leader.take()
    leader.feed(leader.message(old_inbox, pb.Ack(subject="foo", sequence=1), ""))
    assert leader.seqs("in") == [2]
    settle(leader)
    leader.crash()
    leader.restart()
    leader.take()
    leader.feed(leader.message(old_inbox, pb.Ack(subject="foo", sequence=2), ""))
    assert [one.sequence for one in leader.received("in")] == [3]


def test_subscriptions_share_one_listener(leader):
    """B17: a thousand subscriptions need no NATS subscription each."""
    me = leader.client()
    before = dict(leader.nats.subjects)
    for number in range(30):
        me.subscribe("foo", f"in.{number}")
    assert leader.nats.subjects == before


# ---- names and connection ids


@pytest.mark.parametrize(
    ("name", "error"), [("é" * 127 + "x", ""), ("é" * 128, responses.INVALID_SUBSCRIPTION_REQUEST)]
)
@pytest.mark.parametrize("field", ["durableName", "qGroup"])
def test_names_are_measured_in_bytes(leader, field, name, error):
    """B66: 255 bytes of UTF-8 fit, 256 do not, for durable names and for groups."""
    leader.feed(leader.client().subscribe_bytes("foo", "in", fields={field: name}))
    assert leader.answer("r.sub.in", pb.SubscriptionResponse).error == error


def test_shared_connection_id_over_a_restart(leader):
    """B46: also the next leader answers the one that remains."""
    one, two = Client(leader, "one"), Client(leader, "two")
    one.conn_id = two.conn_id = b"same"
    one.connect()
    two.connect()
    one.close()
    leader.crash()
    leader.restart()
    leader.take()
    leader.feed(two.ping_bytes())
    assert leader.answer("r.ping.two", pb.PingResponse) == pb.PingResponse()
    two.publish("foo")
    assert [ack.error for ack in leader.pub_acks()] == [""]


# ---- time


@pytest.mark.parametrize("end", ["stop", "crash"])
def test_timestamps_do_not_go_back_over_a_restart(leader, end):
    """B203: the clock was set back while the server was away: the previous stamp is repeated, not undercut."""
    me = leader.client()
    me.subscribe("foo", "in")
    me.publish("foo", 2)
    leader.loop.move(5)
    me.publish("foo")
    before = [one.timestamp for one in leader.received("in")]
    getattr(leader, end)()
    leader.wall_offset_ns -= HOUR_NS
    leader.restart()
    leader.take()
    me.publish("foo", 2)
    after = [one.timestamp for one in leader.received("in") if one.sequence > 3]
    assert before == [EPOCH_NS + 1000 * NS + int(2.5e8)] * 2 + [EPOCH_NS + 1005 * NS + int(2.5e8)]
    assert after == [before[-1]] * 2
    leader.wall_offset_ns += HOUR_NS
    leader.loop.move(1)
    me.publish("foo")
    assert [one.timestamp > before[-1] for one in leader.received("in")] == [True]


@pytest.mark.parametrize("end", ["applied", "replayed"])
def test_start_is_resolved_once(leader, end):
    """B223: what a position meant when it was asked for is in the entry, whatever clock and channel say later."""
    me = leader.client()
    for _ in range(4):
        me.publish("foo")
        leader.loop.move(10)
    leader.log.is_applying_at_once = False
    leader.nats.is_writable = False
    wish = {"startTimeDelta": 15 * NS}
    leader.feed(me.subscribe_bytes("foo", "in", start=pb.TimeDeltaStart, fields=wish))
    (entry,) = leader.log.proposed
    assert [one.last_sent for one in entry.operations if isinstance(one, Subscribe)] == [3]
    leader.log.apply_next()
    leader.log.is_applying_at_once = True
    if end == "replayed":
        leader.crash()
        leader.wall_offset_ns += HOUR_NS
        leader.nats.is_writable = True
        leader.restart()
    else:
        leader.nats.is_writable = True
        leader.leadership.on_writable()
        leader.loop.run()
    assert [one.sequence for one in leader.received("in")] == [4]


# ---- messages


def test_bad_messages_of_every_kind_fail_alone():
    """B205, B93: refused for limit, case, size or sender, in one entry with good ones of three channels; no gaps."""
    with leading(limits=Limits(max_channels=3)) as leader:
        leader.nats.max_payload = 10 * KIB
        leader.leadership.on_connected()
        me, stranger = leader.client(), Client(leader, "stranger")
        leader.log.is_applying_at_once = False
        me.publish("first")  # travels, so that all the others wait for one entry
        leader.feed(
            me.publish_bytes("a", b"1", "good1")
            + me.publish_bytes("A", b"x", "case")
            + me.publish_bytes("b", b"1", "good2")
            + me.publish_bytes("too-many", b"x", "limit")
            + me.publish_bytes("a", b"x" * 10_215, "size")  # 10 KiB as received, one byte more as stored
            + stranger.publish_bytes("a", b"x", "sender")
            + me.publish_bytes("a", b"2", "good3")
            + me.publish_bytes("b", b"2", "good4")
        )
        while leader.log.proposed:
            apply_one(leader)
        errors = {ack.guid: ack.error for ack in leader.pub_acks() if ack.error}
        assert errors == {
            "case": responses.case_conflict("A", "a"),
            "limit": responses.TOO_MANY_CHANNELS,
            "size": responses.MAX_PAYLOAD,
            "sender": responses.INVALID_PUBLISH,
        }
        leader.log.is_applying_at_once = True
        appends = [
            (one.channel_id, one.first_seq, one.count) for one in leader.log.applied[-1] if isinstance(one, Append)
        ]
        assert sorted(appends) == sorted((leader.channel(name).channel_id, 1, 2) for name in ("a", "b"))
        for name in ("a", "b"):
            me.subscribe(name, f"in.{name}")
            assert [one.data for one in leader.received(f"in.{name}")] == [b"1", b"2"]


def test_largest_message_can_be_sent_again(leader):
    """B97: what is just accepted fits with all fields of a redelivery, so it never blocks its subscription."""
    leader.nats.max_payload = 10 * KIB
    leader.leadership.on_connected()
    me = leader.client()
    me.subscribe("foo", "in", ack_wait_s=1)
    accepted = 0
    for size in range(10 * KIB - 150, 10 * KIB):
        me.publish("foo", 1, b"x" * size)
        accepted += [ack.error for ack in leader.pub_acks()] == [""]
    assert 0 < accepted < 150
    assert len(leader.take("in")) == accepted
    sub = next(iter(leader.store.state.subscriptions.values()))
    counts = leader.leadership.engine.streams[sub.subscription_id].counts
    counts.update(dict.fromkeys(range(1, accepted + 1), 2**32 - 2))
    leader.loop.move(1)
    frames = leader.take("in")
    assert len(frames) == accepted
    assert max(len(frame.payload) for frame in frames) <= 10 * KIB


def test_skipped_message_is_logged(leader, caplog):
    """B97: who operates the server learns which message was not sent, and why; the subscription goes on behind it."""
    me = leader.client()
    for size in (10, 900, 20):
        me.publish("foo", 1, b"x" * size)
    leader.nats.max_payload = 800
    leader.leadership.on_connected()
    me.subscribe("foo", "in")
    assert leader.seqs("in") == [1, 3]
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "channel=foo seq=2" in line
    assert "max_payload=800" in line


def test_removed_pending_messages_never_come_and_are_reported_acked():
    """B267: the end for a full subscription whose pending messages all went: it goes on by itself, and the log knows."""
    with leading(limits=Limits(max_msgs=2), hb_interval_ns=NEVER_NS) as leader:
        me = leader.client()
        sub = me.subscribe("foo", "in", max_in_flight=2, ack_wait_s=1)
        me.publish("foo", 2)
        me.publish("foo", 2)
        leader.take()
        leader.loop.move(1.1)
        assert leader.seqs("in") == [3, 4]
        settle(leader)
        assert (sub.last_sent, sub.floor) == (4, 2)


# ---- texts


def test_own_texts_tell_no_paths(leader):
    """B124: whatever the store says, a client reads `stan: ` and plain words, no file, folder or address."""
    texts = (responses.MESSAGE_UNREADABLE, responses.WAITED_TOO_LONG, responses.LOW_DISK_SPACE)
    assert [text for text in texts if not re.fullmatch(r"stan: [a-z ,]+", text)] == []


# ---- progress and crashes


def test_acks_are_in_the_next_entry(leader):
    """B253: acks of one read ride along with the publish of another client, all of them in one operation."""
    me, you = leader.client("me"), leader.client("you")
    sub = me.subscribe("foo", "in")
    me.publish("foo", 50)
    settle(leader)
    leader.log.applied.clear()
    leader.feed(me.ack_bytes(sub, *range(1, 21), 30, 31, 40) + you.publish_bytes("bar"))
    progress = [one for one in leader.log.applied[0] if isinstance(one, Progress)]
    assert progress == [Progress(sub.subscription_id, 50, 20, ((30, 31), (40, 40)))]


@pytest.mark.parametrize("group", ["", "g"])
def test_crash_repeats_at_most_what_was_not_replicated(leader, group):
    """B366, B394.3: of acked messages only those acked within the last 20 ms come again, flagged; older ones never."""
    me = leader.client()
    sub = me.subscribe("foo", "in", group=group)
    me.publish("foo", 20)
    me.ack(sub, *range(1, 16))
    settle(leader)
    me.ack(sub, 16, 17)  # waits for its entry when the server dies
    leader.log.is_applying_at_once = False
    leader.crash()
    leader.log.is_applying_at_once = True
    leader.take()
    leader.loop.move(60)
    leader.restart()
    assert leader.seqs("in") == ["16r1", "17r1", "18r1", "19r1", "20r1"]


@pytest.mark.parametrize("group", ["", "g"])
@pytest.mark.parametrize("committed", [0, 1])
def test_whatever_comes_twice_is_flagged(leader, group, committed):
    """B366, B394.2, B420: sent and not replicated, or replicated unheard: the second time it is a redelivery."""
    me = leader.client()
    me.subscribe("foo", "in", group=group)
    settle(leader)
    me.publish("foo", 30)
    assert leader.seqs("in") == list(range(1, 31))
    leader.log.is_applying_at_once = False
    leader.loop.move(0.02)  # progress is proposed
    assert any(isinstance(one, Progress | GroupProgress) for one in leader.log.proposed[-1].operations)
    leader.leadership.end()
    leader.log.crash(committed=committed)
    leader.loop.run()
    leader.take()
    leader.log.is_applying_at_once = True
    leader.loop.move(60)
    leader.restart()
    assert leader.seqs("in") == [f"{seq}r1" for seq in range(1, 31)]
    me.publish("foo")
    leader.loop.move(60)
    assert 31 in {one.sequence for one in leader.received("in")}


# ---- queue groups


def test_member_filled_by_force_does_not_hold_up_the_next_message(leader):
    """B308: filled by redelivery, not by new messages, it is passed over at once; nothing waits for its ack."""
    me = leader.client()
    narrow = me.subscribe("foo", "narrow", group="g", max_in_flight=1)
    me.subscribe("foo", "wide", group="g", max_in_flight=100)
    leaving = me.subscribe("foo", "leaving", group="g", max_in_flight=100)
    me.publish("foo", 9)
    me.ack(narrow, *leader.seqs("narrow"))
    me.end("subclose", "foo", leaving.ack_inbox)
    leader.loop.move(0.2)
    assert len(leader.seqs("narrow")) >= 1  # forced on it (B311), so it is full without a new message
    leader.seqs("wide")
    for seq in (10, 11, 12):
        me.publish("foo")
        assert (leader.seqs("narrow"), leader.seqs("wide")) == ([], [seq])
    assert leader.delivery().waiting == 0


def test_member_closes_and_the_server_dies_at_once(leader):
    """B313: the scenario of the original's loss: 25 messages of a member that closed and 9 of the other one, not replicated."""
    me = leader.client()
    closing = me.subscribe("foo", "closing", group="g")
    me.publish("foo", 25)
    assert len(leader.seqs("closing")) == 25
    staying = me.subscribe("foo", "staying", group="g")
    settle(leader)
    me.publish("foo", 9)
    assert len(leader.seqs("staying")) == 9
    leader.log.is_applying_at_once = False
    leader.feed(me.end_bytes("subclose", "foo", closing.ack_inbox))
    leader.log.apply_next()
    leader.crash()
    leader.log.is_applying_at_once = True
    leader.restart()
    leader.loop.move(60)
    found = {one.sequence: one.redelivered for one in leader.received("staying")}
    assert found == dict.fromkeys(range(1, 35), True)
    assert leader.seqs("closing") == []
    me.ack(staying, *range(1, 35))
    assert leader.delivery().pending == 0


def test_two_members_die_with_the_leader(leader):
    """B394.1: one holds 50 messages, the other 120, replicated or not; every one of the 170 is delivered again."""
    me = leader.client()
    small = me.subscribe("foo", "small", group="g", max_in_flight=50)
    me.subscribe("foo", "large", group="g", max_in_flight=1000)
    for count in (60, 60, 50):
        me.publish("foo", count)
        leader.loop.move(0.015)
    held = len(leader.seqs("small")), len(leader.seqs("large"))
    assert held == (50, 120)
    leader.crash()
    leader.loop.move(60)
    leader.restart()
    leader.loop.move(1)
    messages = leader.received("small") + leader.received("large")
    assert {one.sequence for one in messages} == set(range(1, 171))
    assert all(one.redelivered for one in messages)
    assert small.group_id in leader.store.state.groups
