"""The operations of a log entry: what a leader decided and every node applies alike. Values only.

Times are Unix nanoseconds. Sequences count from 1 per channel. Rules are at the handlers in `store.machine`.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What a channel may hold; 0 = unlimited. A message counts its encoded size plus `message_overhead` bytes (O511)."""

    max_msgs: int
    max_bytes: int
    message_overhead: int


@dataclass(frozen=True, slots=True)
class InitCluster:
    """First operation of a new log: the cluster's identity and the token of all its ack inboxes (B17)."""

    cluster_id: str
    ack_inbox_token: str


@dataclass(frozen=True, slots=True)
class CreateChannel:
    """A new channel. Ids grow and are never used again."""

    channel_id: int
    name: str
    limits: Limits


@dataclass(frozen=True, slots=True)
class SetLimits:
    """Replaces a channel's limits and enforces them at once (O508)."""

    channel_id: int
    limits: Limits


@dataclass(frozen=True, slots=True)
class DeleteChannel:
    """A channel goes with its messages and subscriptions (B336)."""

    channel_id: int


@dataclass(frozen=True, slots=True)
class Append:
    """One block of `count` messages, `size` bytes as encoded by `store.block`, from `first_seq` on."""

    channel_id: int
    first_seq: int
    count: int
    size: int
    last_timestamp_ns: int


@dataclass(frozen=True, slots=True)
class Expire:
    """Messages below `first_seq` are gone (B328)."""

    channel_id: int
    first_seq: int


@dataclass(frozen=True, slots=True)
class ConnectClient:
    """A client is registered (B44)."""

    client_id: str
    conn_id: bytes
    heartbeat_inbox: str
    protocol: int
    ping_interval_s: int
    ping_max_out: int


@dataclass(frozen=True, slots=True)
class CloseClient:
    """A client ends, and all its subscriptions are closed (B345)."""

    client_id: str


@dataclass(frozen=True, slots=True)
class Subscribe:
    """A new subscription, an offline durable (same id) that comes online (B283), or a member that joins a queue group.

    `last_sent` counts for a new subscription or group only (B222).
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
    last_sent: int


@dataclass(frozen=True, slots=True)
class CloseSubscription:
    """A durable goes offline, any other subscription is removed (B350)."""

    subscription_id: int


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """A subscription is removed (B350)."""

    subscription_id: int


@dataclass(frozen=True, slots=True)
class Progress:
    """What was sent and acked: pending is (floor, last_sent] minus all acked ranges, which are inclusive and ascending."""

    subscription_id: int
    last_sent: int
    floor: int
    acked: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class GroupProgress:
    """What a queue group was sent and acked since its last one.

    Up to `floor` everything is acked; of the rest up to the group's earlier last sent, `acked` are acked, `moved` (sequence,
    slot) changed hands. What was sent since is acked, but for `sent`: slots, as `store.holders` encodes them, from `first` on.
    """

    group_id: int
    last_sent: int
    floor: int
    acked: tuple[int, ...]
    moved: tuple[tuple[int, int], ...]
    first: int
    sent: bytes


@dataclass(frozen=True, slots=True)
class CleanStop:
    """The leader stops in order: the progress in the store is all that was sent and acked."""


@dataclass(frozen=True, slots=True)
class BeginLeadership:
    """First of a leadership: an earlier leader may have sent up to `send_ahead` sequences beyond its last progress (B394)."""

    send_ahead: int


Operation = (
    InitCluster
    | CreateChannel
    | SetLimits
    | DeleteChannel
    | Append
    | Expire
    | ConnectClient
    | CloseClient
    | Subscribe
    | CloseSubscription
    | Unsubscribe
    | Progress
    | GroupProgress
    | CleanStop
    | BeginLeadership
)
