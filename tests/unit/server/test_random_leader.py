"""Random clients, faults, restarts and lost leaderships; what clients see must keep the promises of the protocol."""

import random

import pytest

from server.config.model import Limits
from server.delivery import stream as stream_module
from server.protocol import responses
from server.protocol import stan_pb2 as pb
from tests.support.leader_harness import Client, Leader, assert_ended

STEPS = 400
CHANNELS = ("a", "b", "c")
LIMITS = (
    Limits(max_msgs=0),
    Limits(max_msgs=0, max_subs=3),
    Limits(max_msgs=20),
    Limits(max_age_ns=3 * 10**9),
    Limits(max_inactivity_ns=10**9, max_channels=2),
)


class World:
    """Clients by hand, what they were promised, and what they saw.

    With `is_clustered` leadership is lost and gained again, here or on another node, and now and then is in doubt.
    """

    def __init__(self, seed, limits, *, is_clustered=False):
        self.random = random.Random(seed)
        self.is_clustered = is_clustered
        self.leader = Leader(limits=limits, hb_interval_ns=10**9, hb_timeout_ns=10**9, replace_durable=seed % 2 == 0)
        self.leader.is_clustered = is_clustered
        self.leader.begin().take()
        self.parked = self.leader.other_node()
        self.unread = b""  # what waits in the socket while nothing is read
        self.answered = set()  # guids
        self.refused = set()  # data of publishes that were certainly not proposed
        self.clients = {}
        self.inboxes = 0
        self.keys = {}  # inbox -> id of the subscription, or of the queue group, it was made for
        self.ended = set()  # inboxes whose end was answered
        self.seen = {}  # key -> sequences
        self.newest = {}  # key -> highest sequence that came unmarked
        self.present = {}  # inbox of a subscription, key of a group -> sequences that came in this leadership
        self.acked = {}  # ack inbox of a subscription, key of a group -> those of them that were acked
        self.promised = {}  # guid -> data, acked by the server
        self.sent = {}  # guid -> (channel, data)
        self.guids = 0

        self.leader.nats.on_write = self.parked[1].on_write = self.written
        self.leader.store.apply = self.applying(self.leader.store.apply)

    def applying(self, apply):
        """Remembers what inboxes belong to: their subscriptions may end before an answer is seen."""

        def applied(entries):
            results = apply(entries)
            for one in self.leader.store.state.subscriptions.values():
                self.keys[one.inbox] = key_of(one)
            return results

        return applied

    # ---- what happens

    def step(self):
        actions = [
            (self.publish, 30), (self.ack, 25), (self.subscribe, 10), (self.end, 6), (self.connect, 5),
            (self.close, 2), (self.move, 20), (self.hold, 6), (self.release, 8), (self.commit_one, 8), (self.away, 3), (self.back, 8),
            (self.full, 3), (self.crash, 1), (self.restart, 1),
        ]  # fmt: skip
        if self.is_clustered:
            actions += [(self.change_leader, 5), (self.doubt, 4), (self.be_certain, 10)]
        action = self.random.choices([one for one, _ in actions], [weight for _, weight in actions])[0]
        action()
        self.look()

    def feed(self, data):
        if not (self.leader.nats.is_connected and data):
            return
        if self.leader.nats.is_reading:
            self.leader.feed(data)
        else:
            self.unread += data

    def any_client(self):
        return self.random.choice(list(self.clients.values())) if self.clients else None

    def online(self):
        return [one for one in self.leader.store.state.subscriptions.values() if one.is_online]

    def connect(self):
        client = Client(self.leader, self.random.choice("mno"), f"hb.{self.random.randrange(10**9)}")
        self.clients[client.client_id] = client
        self.feed(client.connect_bytes())

    def close(self):
        if client := self.any_client():
            self.feed(client.close_bytes())

    def publish(self):
        data = b""
        client = self.any_client()
        for _ in range(self.random.randrange(1, 6) if client else 0):
            self.guids += 1
            channel = self.random.choice(CHANNELS)
            self.sent[f"g{self.guids}"] = (channel, b"%d;" % self.guids * self.random.randrange(1, 40))
            data += client.publish_bytes(channel, self.sent[f"g{self.guids}"][1], f"g{self.guids}")
        self.feed(data)

    def subscribe(self):
        data = b""
        client = self.any_client()
        for _ in range(self.random.randrange(1, 3) if client else 0):
            self.inboxes += 1
            data += client.subscribe_bytes(
                self.random.choice(CHANNELS),
                f"in.{self.inboxes}",
                durable=self.random.choice(("", "d", "e")),
                group=self.random.choice(("", "", "g", "h")),
                max_in_flight=self.random.choice((1, 2, 5, 1000)),
                ack_wait_s=self.random.choice((1, 2, 60)),
                start=self.random.choice((pb.First, pb.NewOnly, pb.LastReceived)),
            )
            if self.random.random() < 0.1:
                data += client.end_bytes("subclose", self.random.choice(CHANNELS), f"in.{self.inboxes}")
        self.feed(data)

    def end(self):
        if online := self.online():
            one = self.random.choice(online)
            name = self.leader.store.state.channels_by_id[one.channel_id].name
            client = Client(self.leader, one.client_id)
            data = client.end_bytes(self.random.choice(("unsub", "subclose", "subclose")), name, one.inbox)
            if self.random.random() < 0.4 and one.durable_name:
                self.inboxes += 1
                data += client.subscribe_bytes(
                    name, f"in.{self.inboxes}", durable=one.durable_name, group=one.queue_group
                )
            self.feed(data)

    def ack(self):
        data = b""
        for one in self.online():
            seen = sorted(self.seen.get(key_of(one), ()))
            taken = self.random.sample(seen, min(len(seen), self.random.randrange(4))) if seen else []
            is_ending = one.ack_inbox.encode() not in self.leader.core.ack_subjects  # then its acks go nowhere (B252)
            if self.leader.nats.is_connected and self.leader.nats.is_reading and not is_ending:
                came = self.present.get(key_of(one) if one.queue_group else one.inbox, set())
                acked = self.acked.setdefault(key_of(one) if one.queue_group else one.ack_inbox, set())
                acked.update(came.intersection(taken))
            data += Client(self.leader, one.client_id).ack_bytes(one, *taken)
        self.feed(data)

    def move(self):
        self.leader.loop.move(self.random.choice((0.005, 0.03, 0.5, 1.0)))

    def hold(self):
        self.leader.log.is_applying_at_once = False

    def release(self):
        self.leader.log.is_applying_at_once = True
        while self.leader.log.proposed:
            self.leader.log.apply_next()
            self.leader.loop.run()

    def commit_one(self):
        """While commits are slow, one comes through."""
        if self.leader.log.proposed and not self.leader.log.is_applying_at_once:
            self.leader.log.apply_next()
            self.leader.loop.run()

    def away(self):
        self.leader.nats.is_connected = False
        self.unread = b""

    def written(self):
        """Now and then a write is more than NATS takes at once."""
        if self.random.random() < 0.1:
            self.full()

    def full(self):
        self.leader.nats.is_writable = False

    def back(self):
        nats = self.leader.nats
        if not nats.is_connected:
            nats.is_connected = True
            self.leader.leadership.on_connected()
        if not nats.is_writable:
            nats.is_writable = True
            self.leader.leadership.on_writable()
        self.leader.loop.run()

    def crash(self):
        self.look()
        self.leader.log.crash(committed=self.random.randrange(2))
        self.leader.leadership.end()
        self.leader.nats.writes.clear()
        self.begin_again()

    def restart(self):
        self.be_certain()
        self.release()
        self.back()
        self.look()
        self.leader.stop()
        self.look()
        self.begin_again()

    def begin_again(self):
        self.leader.loop.run()
        self.leader.nats.writes.clear()
        self.unread = b""
        self.no_more_doubt()
        self.leader.restart()

    def no_more_doubt(self):
        """What the next leadership finds: nothing of the last one, and all well."""
        self.acked.clear()
        self.present.clear()
        nats = self.leader.nats
        self.leader.is_confirmed = self.leader.log.is_applying_at_once = True
        nats.is_connected = nats.is_writable = nats.is_answering = True

    # ---- leadership that is lost and gained again

    def doubt(self):
        """This node is not certain to lead: it knows, or will find out."""
        self.leader.is_confirmed = False
        if self.random.random() < 0.5:
            self.leader.leadership.hold()

    def be_certain(self):
        if not self.leader.is_confirmed:
            self.leader.is_confirmed = True
            self.leader.leadership.release()
            self.leader.loop.run()
            self.read_on()

    def read_on(self):
        """The socket is read again."""
        unread, self.unread = self.unread, b""
        if unread and self.leader.nats.is_connected:
            self.leader.feed(unread)

    def change_leader(self):
        """The leader changes, through any number of leaderships that end before they have begun."""
        late = self.any_client().publish_bytes("a", guid="late") if self.clients else b""
        late += self.unread
        self.unread = b""
        came_to = self.leader.nats
        self.lose()
        for _ in range(self.random.randrange(4)):
            self.next_node()
            self.leader.log.is_applying_at_once = self.random.random() < 0.5
            self.leader.nats.is_answering = self.random.random() < 0.5
            self.leader.nats.is_connected = self.random.random() < 0.8
            self.leader.begun()
            for _ in range(self.random.randrange(8)):
                self.random.choice(
                    (self.commit_one, self.answer_barrier, self.break_off, self.back, self.doubt, self.be_certain)
                )()
                self.leader.loop.run()
                self.look()
            self.lose()
        self.next_node()
        self.leader.begin()
        self.look()
        assert self.leader.leadership.is_serving
        if self.leader.nats is came_to:
            self.leader.feed(late)  # belongs to a leadership that ended: nobody's
            self.look()

    def next_node(self):
        self.leader.log.term += 1
        if self.random.random() < 0.5:
            self.parked = self.leader.swap(self.parked)
        self.no_more_doubt()

    def answer_barrier(self):
        self.leader.nats.answer_barriers()

    def break_off(self):
        self.leader.nats.disconnect()
        self.unread = b""

    def lose(self):
        """B395, B396: at once nothing is left, and nothing but refusals is said."""
        leader = self.leader
        self.look()
        leader.lose(
            committed=self.random.randrange(len(leader.log.proposed) + 1), is_told_first=self.random.random() < 0.5
        )
        frames = leader.take()
        kinds = {"acks": pb.PubAck, "r.connect": pb.ConnectResponse, "r.close": pb.CloseResponse}
        for frame in frames:
            kind = kinds.get(frame.subject.rpartition(".")[0] or frame.subject, pb.SubscriptionResponse)
            assert kind.FromString(frame.payload).error in responses.LOST, frame
        leader.frames_read += frames
        self.look()
        leader.loop.run()
        assert leader.take() == []
        assert_ended(leader)

    # ---- what is seen

    def look(self):
        assert self.parked[1].writes == [], "who does not lead is silent"
        beats = []
        for frame in self.leader.take():
            if frame.subject.startswith("in."):
                self.delivered(frame)
            elif frame.subject.startswith("r.sub."):
                self.subscribed(frame)
            elif frame.subject.startswith(("r.unsub.", "r.subclose.")):
                if not pb.SubscriptionResponse.FromString(frame.payload).error:
                    self.ended.add(frame.subject.partition(".")[2].partition(".")[2])
            elif frame.subject == "acks":
                ack = pb.PubAck.FromString(frame.payload)
                assert ack.guid not in self.answered, "one answer"
                self.answered.add(ack.guid)
                if not ack.error:
                    self.promised[ack.guid] = self.sent[ack.guid]
                elif ack.error == responses.NOT_LEADER:
                    self.refused.add(self.sent[ack.guid])
            elif frame.subject.startswith("hb."):
                beats.append(frame)
        for frame in beats:
            is_current = any(one.heartbeat_inbox == frame.subject for one in self.clients.values())
            if self.leader.nats.is_connected and is_current and self.leader.leadership.is_serving:
                self.leader.answer_request(frame)

    def subscribed(self, frame):
        answer = pb.SubscriptionResponse.FromString(frame.payload)
        assert "not above" not in answer.error, answer.error

    def delivered(self, frame):
        message = pb.MsgProto.FromString(frame.payload)
        assert frame.subject not in self.ended, "nothing after the end (B239)"
        assert message.redelivered == (message.redeliveryCount > 0), "B272"
        key = self.keys[frame.subject]
        for one in (frame.subject, key):
            self.present.setdefault(one, set()).add(message.sequence)
        seen = self.seen.setdefault(key, set())
        if not message.redelivered:
            assert message.sequence not in seen, "no duplicate unmarked (B243, B420)"
            assert message.sequence > self.newest.get(key, 0), "in order (B230)"
            self.newest[key] = message.sequence
        seen.add(message.sequence)
        for one in self.leader.store.state.subscriptions.values():
            acked = self.acked.get(key if one.queue_group else one.ack_inbox, ())
            assert one.inbox != frame.subject or message.sequence not in acked, "acked ones do not come again (B286)"

    # ---- the end

    def settle(self):
        """Everything is applied and reachable; for longer than any ack wait all that comes is acked."""
        self.leader.nats.on_write = lambda: None
        self.be_certain()
        self.release()
        self.back()
        self.look()
        for _ in range(130):
            for one in self.online():
                client = Client(self.leader, one.client_id)
                self.feed(client.ack_bytes(one, *sorted(self.seen.get(key_of(one), ()))))
            self.leader.loop.move(0.5)
            self.look()

    def check(self):
        leader = self.leader
        assert leader.loop.errors == []
        assert leader.fatal == []
        statistics = leader.delivery()
        assert statistics.subscriptions == len(self.online()) == len(leader.core.ack_subjects)
        assert statistics.waiting == statistics.stalled == 0
        for one in self.online():
            channel = leader.store.state.channels_by_id[one.channel_id]
            seen = self.seen.get(key_of(one), set())
            start = max(channel.first_seq, min(seen, default=channel.last_seq + 1))
            assert set(range(start, channel.last_seq + 1)) <= seen, one
            assert one.floor == one.last_sent
        for group in leader.store.state.groups.values():
            if group.members:
                channel = leader.store.state.channels_by_id[group.channel_id]
                assert (group.holders.held(), group.holders.last) == ([], channel.last_seq)
        stored = set()
        for channel in leader.store.state.channels.values():
            _, messages = leader.store.read_messages(channel, 1, 10**6, 10**9)
            stored |= {(channel.name, pb.MsgProto.FromString(one).data) for one in messages}
        limits = leader.options.limits
        if not (limits.max_msgs or limits.max_age_ns or limits.max_inactivity_ns):
            assert {value for value in self.promised.values() if value not in stored} == set(), "acked is in the log"
        assert not stored & self.refused, "B400: not proposed is not in the log"


def key_of(subscription):
    """A group and the subscription that founded it have the same id."""
    return ("group", subscription.group_id) if subscription.queue_group else subscription.subscription_id


@pytest.mark.parametrize("seed", range(24))
def test_promises_hold(seed, monkeypatch):
    """B211, B230, B239, B243, B272, B286, B394, B416, B420 under random orders of everything."""
    shorten(monkeypatch)
    run(World(seed, LIMITS[seed % len(LIMITS)]))


@pytest.mark.parametrize("seed", range(24))
def test_promises_hold_through_lost_leaderships(seed, monkeypatch):
    """B394 to B397, B400 to B403: the same when leadership is lost at any moment, also while it begins, and gained again."""
    shorten(monkeypatch)
    run(World(seed, LIMITS[seed % len(LIMITS)], is_clustered=True))


def run(world):
    """Random steps, then rest, then the check."""
    try:
        for _ in range(STEPS):
            world.step()
        world.settle()
        world.check()
    finally:
        world.leader.store.close()


def shorten(monkeypatch):
    """Bounds so small that they are met all the time."""
    monkeypatch.setattr(stream_module, "SEND_AHEAD_MAX", 8)
    monkeypatch.setattr("server.leadership.SEND_AHEAD_MAX", 8)
    monkeypatch.setattr(stream_module, "TURN_MAX_BYTES", 300)
    monkeypatch.setattr(stream_module, "FLUSH_BYTES", 500)
