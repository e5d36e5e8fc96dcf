"""Random clients, faults and restarts against a real leadership; what they see must keep the promises of the protocol."""

import random

import pytest

from server.config.model import Limits
from server.delivery import stream as stream_module
from server.protocol import stan_pb2 as pb
from tests.support.leader_harness import Client, Leader

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
    """Clients by hand, what they were promised, and what they saw."""

    def __init__(self, seed, limits):
        self.random = random.Random(seed)
        self.leader = Leader(limits=limits, hb_interval_ns=10**9, hb_timeout_ns=10**9, replace_durable=seed % 2 == 0)
        self.leader.begin().take()
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

        self.leader.nats.on_write = self.written
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
        action = self.random.choices([one for one, _ in actions], [weight for _, weight in actions])[0]
        action()
        self.look()

    def feed(self, data):
        if self.leader.nats.is_connected and data:
            self.leader.feed(data)

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
            self.sent[f"g{self.guids}"] = (channel, b"%d" % self.guids * self.random.randrange(1, 40))
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
            if self.leader.nats.is_connected and not is_ending:
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
        self.release()
        self.back()
        self.look()
        self.leader.stop()
        self.look()
        self.begin_again()

    def begin_again(self):
        self.leader.loop.run()
        self.leader.nats.writes.clear()
        self.acked.clear()
        self.present.clear()
        self.leader.log.is_applying_at_once = True
        self.leader.nats.is_connected = self.leader.nats.is_writable = True
        self.leader.restart()

    # ---- what is seen

    def look(self):
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
                if not ack.error:
                    self.promised[ack.guid] = self.sent[ack.guid]
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


def key_of(subscription):
    """A group and the subscription that founded it have the same id."""
    return ("group", subscription.group_id) if subscription.queue_group else subscription.subscription_id


@pytest.mark.parametrize("seed", range(24))
def test_promises_hold(seed, monkeypatch):
    """B211, B230, B239, B243, B272, B286, B394, B416, B420 under random orders of everything."""
    monkeypatch.setattr(stream_module, "SEND_AHEAD_MAX", 8)
    monkeypatch.setattr("server.leadership.SEND_AHEAD_MAX", 8)
    monkeypatch.setattr(stream_module, "TURN_MAX_BYTES", 300)
    monkeypatch.setattr(stream_module, "FLUSH_BYTES", 500)
    world = World(seed, LIMITS[seed % len(LIMITS)])
    try:
        for _ in range(STEPS):
            world.step()
        world.settle()
        world.check()
    finally:
        world.leader.store.close()
