"""The replicated state in memory, and the results of operations. Only the handlers of `store.machine` change it.

A channel that never had a message has first_seq 1 and last_seq 0; with all messages removed first_seq is last_seq + 1
and last_seq stays (B200, B202). The indexes are derived: they are not stored and not part of equality.
"""

from dataclasses import dataclass, field

from store.holders import Holders
from store.machine.changes import Changes
from store.machine.tail import Block, ChannelTail, Tail
from store.operations import Limits
from store.ranges import Ranges


@dataclass(frozen=True, slots=True)
class Refusal:
    """The operation changed nothing, on every node alike. `text` may be shown to a client."""

    text: str


Result = Block | Refusal | None
"""None: done. A Block: what an Append created."""


@dataclass(slots=True)
class Client:
    """A registered client (B44). `number` grows with every registration in the cluster's life."""

    client_id: str
    conn_id: bytes
    heartbeat_inbox: str
    protocol: int
    ping_interval_s: int
    ping_max_out: int
    number: int
    subscription_ids: dict[int, None] = field(default_factory=dict)
    """Its online subscriptions, in the order they came online. Derived."""


@dataclass(slots=True)
class HeadLengths:
    """Sizes of the messages of the block where a channel begins, so that removal reads each block once.

    `ends[i]` is the size of the first `i` messages together, bytes.
    """

    first_seq: int
    last_seq: int
    ends: list[int]


@dataclass(slots=True)
class Channel:
    """A channel: its limits and the range of its messages."""

    channel_id: int
    name: str
    limits: Limits
    first_seq: int = 1
    last_seq: int = 0
    total_bytes: int = 0
    """Encoded size of the messages from first_seq to last_seq, without overhead."""
    last_timestamp_ns: int = 0
    """Timestamp of the newest message ever; never goes back (B203)."""
    tail: ChannelTail = field(default_factory=ChannelTail)
    """Recent blocks. Derived."""
    head: HeadLengths | None = None
    """Cache of `store.machine.limits`."""
    subscription_ids: dict[int, None] = field(default_factory=dict)
    """All its subscriptions, online or not, members of queue groups included. Derived."""
    group_ids: dict[int, None] = field(default_factory=dict)
    """All its queue groups. Derived."""
    offline_groups: int = 0
    """Durable queue groups without members: each counts like a subscription (B330). Derived."""

    @property
    def count(self) -> int:
        """Number of messages."""
        return self.last_seq - self.first_seq + 1

    @property
    def counted_bytes(self) -> int:
        """What max_bytes is compared with: encoded size and overhead (O511)."""
        return self.total_bytes + self.limits.message_overhead * self.count


@dataclass(slots=True)
class Subscription:
    """A subscription and its progress. Pending: sequences in (floor, last_sent] that are not in `acked`.

    A member of a queue group is always online, and its progress is the group's.
    Invariant: floor <= last_sent; `acked` lies in (floor + 1, last_sent].
    """

    subscription_id: int
    channel_id: int
    client_id: str
    inbox: str
    ack_inbox: str
    durable_name: str
    queue_group: str
    max_in_flight: int
    ack_wait_s: int
    is_online: bool
    last_sent: int
    floor: int
    acked: Ranges
    suspect_to: int = 0
    """Up to here a leader that did not stop in order may have sent more than `last_sent` says (B394)."""
    group_id: int = 0
    slot: int = 0
    """Names the member in its group's `holders`."""


@dataclass(slots=True)
class Group:
    """A queue group: one progress for all members (B303). Without members it is offline (B315).

    Invariant: while there are members, `holders` knows no other slots than theirs.
    """

    group_id: int
    """Id of the subscription that founded it."""
    channel_id: int
    durable_name: str
    name: str
    holders: Holders
    suspect_to: int = 0
    """As in `Subscription`."""
    members: dict[int, Subscription] = field(default_factory=dict)
    """By slot, in the order they joined. Derived."""


DurableKey = tuple[str, int, str]
"""Client id, channel id and durable name (B280)."""

GroupKey = tuple[int, str, str]
"""Channel id, durable name and group name (B300 to B302)."""


@dataclass(slots=True)
class State:
    """Everything that is replicated. A new one is the state before the first entry."""

    cluster_id: str = ""
    ack_inbox_token: str = ""
    next_channel_id: int = 1
    next_subscription_id: int = 1
    next_client_number: int = 1
    progress_is_exact: bool = False
    """The last entry ended with a CleanStop: nothing was sent or acked that the subscriptions' progress does not have."""
    configuration: bytes = b""
    """The newest configuration entry, as the log encoded it: opaque here. Empty: there was none."""
    clients: dict[str, Client] = field(default_factory=dict)
    clients_by_conn_id: dict[bytes, Client] = field(default_factory=dict)
    """Of several clients with one conn id the later one (B46)."""
    channels: dict[str, Channel] = field(default_factory=dict)
    channels_by_id: dict[int, Channel] = field(default_factory=dict)
    subscriptions: dict[int, Subscription] = field(default_factory=dict)
    durables: dict[DurableKey, Subscription] = field(default_factory=dict)
    groups: dict[int, Group] = field(default_factory=dict)
    groups_by_key: dict[GroupKey, Group] = field(default_factory=dict)
    tail: Tail = field(default_factory=Tail)
    changes: Changes = field(default_factory=Changes)
    """What the durable form does not have yet."""


__all__ = [
    "Block",
    "Channel",
    "Client",
    "DurableKey",
    "Group",
    "GroupKey",
    "HeadLengths",
    "Refusal",
    "Result",
    "State",
    "Subscription",
]
