"""Makes random logs: mostly operations that make sense, some that are refused, in entries of a few."""

from array import array
from random import Random

from store.operations import (
    BeginLeadership,
    CleanStop,
    CloseClient,
    CloseSubscription,
    CreateChannel,
    DeleteChannel,
    Expire,
    GroupProgress,
    InitCluster,
    Limits,
    Operation,
    Progress,
    SetLimits,
    Unsubscribe,
)
from tests.unit.store.builders import (
    LogEntry,
    Machine,
    append,
    configuration,
    connect,
    log_entry,
    messages,
    no_op,
    subscribe,
)

CLIENTS = ("a", "b", "c")
CHANNELS = ("foo", "bar", "baz")
LIMITS = (Limits(0, 0, 40), Limits(7, 0, 0), Limits(0, 900, 40), Limits(20, 2000, 0))
DURABLES = ("", "d", "e")
GROUPS = ("", "", "g", "h")


class RandomLog:
    """Follows the state to know what makes sense next."""

    def __init__(self, random: Random, *, message_max_bytes: int = 60) -> None:
        self.random = random
        self.message_max_bytes = message_max_bytes
        self.machine = Machine()
        self.entries: list[LogEntry] = []
        self.add([InitCluster("c", "t"), CreateChannel(1, "foo", LIMITS[0]), connect("a")])

    def extend(self, count: int) -> list[LogEntry]:
        """Add `count` entries; all of the log."""
        for _ in range(count):
            index, kind = len(self.entries) + 1, self.random.random()
            if kind < 0.07:
                self.entries.append(no_op(index, term=self.random.randint(1, 9)))
            elif kind < 0.1:
                self.entries.append(configuration(index, self.random.randbytes(self.random.randint(0, 40))))
            else:
                self.add([])
        return self.entries

    def add(self, operations: list[Operation]) -> None:
        """Add an entry with `operations`, or with random ones."""
        blocks: list[bytes] = []
        if not operations:
            # A later operation of an entry may not fit what an earlier one did: then it is refused.
            operations = [
                self.append(blocks) if self.random.random() < 0.5 else self.other()
                for _ in range(self.random.randint(1, 4))
            ]
        entry = log_entry(len(self.entries) + 1, operations, blocks, term=1 + len(self.entries) // 5)
        self.entries.append(entry)
        self.machine.apply(*operations, blocks=blocks)

    def append(self, blocks: list[bytes]) -> Operation:
        channels = list(self.machine.state.channels_by_id.values())
        if not channels:
            return self.create()
        channel = self.random.choice(channels)
        first = channel.last_seq + 1 + (self.random.random() < 0.05)
        size = self.random.randint(0, self.message_max_bytes)
        operation, block = append(channel.channel_id, first, messages(first, self.random.randint(1, 9), size=size))
        blocks.append(block)
        return operation

    def create(self) -> Operation:
        state, random = self.machine.state, self.random
        return CreateChannel(state.next_channel_id, random.choice(CHANNELS), random.choice(LIMITS))

    def other(self) -> Operation:
        state, random = self.machine.state, self.random
        channel_id = random.choice([*state.channels_by_id] * 5 + [99])
        channel = state.channels_by_id.get(channel_id)
        kinds = ["create", "limits", "expire", "client", "client", "subscribe", "subscribe", "stop"]
        kind = random.choice([*kinds, *(["known"] * 2 * len(kinds) if state.subscriptions else [])])
        if kind == "create":
            return self.create() if random.random() < 0.7 else DeleteChannel(channel_id)
        if kind == "limits":
            return SetLimits(channel_id, random.choice(LIMITS))
        if kind == "expire":
            return Expire(channel_id, random.randint(channel.first_seq, channel.last_seq + 2) if channel else 1)
        if kind == "client":
            client_id = random.choice(CLIENTS)
            is_leaving = client_id in state.clients and random.random() < 0.3
            return CloseClient(client_id) if is_leaving else connect(client_id, b"same")
        if kind == "known":
            return self.known_subscription(random.choice([*state.subscriptions]))
        if kind == "subscribe":
            last_sent = random.randint(0, channel.last_seq) if channel else 0
            return subscribe(
                state.next_subscription_id,
                channel_id=channel_id,
                client_id=random.choice([*state.clients, "nobody"]),
                durable=random.choice(DURABLES),
                last_sent=last_sent,
                queue_group=random.choice(GROUPS),
            )
        return random.choice([CleanStop(), BeginLeadership(5)])

    def known_subscription(self, subscription_id: int) -> Operation:
        known = self.machine.state.subscriptions[subscription_id]
        if not known.is_online and self.random.random() < 0.5:
            return subscribe(
                subscription_id,
                channel_id=known.channel_id,
                client_id=known.client_id,
                durable=known.durable_name,
                inbox=f"inbox{len(self.entries)}",
            )
        if self.random.random() < 0.3:
            return self.random.choice([CloseSubscription, CloseSubscription, Unsubscribe])(subscription_id)
        return self.progress(subscription_id)

    def group_progress(self, group_id: int) -> Operation:
        """Mostly right; now and then with a gap, a slot that is nobody's, or acks beyond what was sent."""
        group, random = self.machine.state.groups[group_id], self.random
        known = group.holders.last
        last_sent = random.randint(known, self.machine.state.channels_by_id[group.channel_id].last_seq)
        slots = [random.choice([0, *group.members, *group.members, 7]) for _ in range(known, last_sent)]
        held = group.holders.held()
        floor = random.choice([0, 0, group.holders.floor + 1, known])
        behind = max(known, floor)
        return GroupProgress(
            group_id,
            last_sent,
            floor,
            tuple(random.sample(held, min(len(held), random.randint(0, 4)))) + (99,) * (random.random() < 0.03),
            tuple((seq, random.choice([*group.members, 7])) for seq in random.sample(held, min(len(held), 2))),
            behind + 1 + (random.random() < 0.03),
            array("H", slots[behind - known :]).tobytes(),
        )

    def progress(self, subscription_id: int) -> Operation:
        subscription = self.machine.state.subscriptions[subscription_id]
        if subscription.queue_group and self.random.random() < 0.9:
            return self.group_progress(subscription.group_id)
        channel = self.machine.state.channels_by_id[subscription.channel_id]
        last_sent = self.random.randint(subscription.last_sent, channel.last_seq)
        acked = sorted(self.random.sample(range(1, last_sent + 1), min(last_sent, 4)))
        floor = self.random.choice([subscription.floor, min(last_sent, subscription.floor + 2)])
        return Progress(subscription_id, last_sent, floor, tuple((seq, seq) for seq in acked))
