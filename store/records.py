"""Encodes the records of the store, each with a checksum over its key and content. Pure.

`u32 little-endian crc32c of key and content | content`. What changes with every entry is fixed-size numbers, what holds
texts is protobuf (records.proto).
"""

import struct
from typing import Final

import google_crc32c
from google.protobuf.message import DecodeError

from store import records_pb2 as pb
from store.errors import CorruptionError
from store.holders import Holders
from store.machine.state import Channel, Client, Group, State, Subscription
from store.operations import Limits
from store.ranges import Ranges

CHECKSUM: Final = struct.Struct("<I")
APPLIED: Final = struct.Struct("<QQ")
CHANNEL: Final = struct.Struct("<QQQqQQQ")
PROGRESS: Final = struct.Struct("<QQ")
VERSION: Final = struct.Struct("<I")


def seal(key: bytes, content: bytes) -> bytes:
    """The record of `content` under `key`."""
    return CHECKSUM.pack(google_crc32c.value(key + content)) + content


def unseal(key: bytes, record: bytes, where: str) -> bytes:
    """The content of `record`; raises CorruptionError naming `where`."""
    if len(record) < CHECKSUM.size:
        raise CorruptionError(where, f"at least {CHECKSUM.size} bytes under key {key.hex()}", f"{len(record)}")
    (expected,) = CHECKSUM.unpack_from(record)
    content = record[CHECKSUM.size :]
    found = google_crc32c.value(key + content)
    if found != expected:
        raise CorruptionError(where, f"checksum {expected:08x} under key {key.hex()}", f"{found:08x}")
    return content


def encode_version(version: int) -> bytes:
    """The format version of the store."""
    return VERSION.pack(version)


def decode_version(content: bytes) -> int:
    """What `encode_version` wrote."""
    (version,) = VERSION.unpack(content)
    return int(version)


def encode_identity(cluster_id: str, node_id: str, incarnation: str) -> bytes:
    """Whose store it is."""
    return pb.Identity(cluster_id=cluster_id, node_id=node_id, incarnation=incarnation).SerializeToString()


def decode_identity(content: bytes) -> tuple[str, str, str]:
    """Cluster id, node id and incarnation."""
    record = pb.Identity.FromString(content)
    return record.cluster_id, record.node_id, record.incarnation


def encode_applied(index: int, term: int) -> bytes:
    """The last applied entry."""
    return APPLIED.pack(index, term)


def decode_applied(content: bytes) -> tuple[int, int]:
    """Index and term."""
    index, term = APPLIED.unpack(content)
    return index, term


def encode_cluster(state: State) -> bytes:
    """The parts of the state that exist once."""
    return pb.Cluster(
        cluster_id=state.cluster_id,
        ack_inbox_token=state.ack_inbox_token,
        next_channel_id=state.next_channel_id,
        next_subscription_id=state.next_subscription_id,
        next_client_number=state.next_client_number,
        progress_is_exact=state.progress_is_exact,
        configuration=state.configuration,
    ).SerializeToString()


def decode_cluster(content: bytes) -> State:
    """A state with those parts and nothing else."""
    record = pb.Cluster.FromString(content)
    return State(
        cluster_id=record.cluster_id,
        ack_inbox_token=record.ack_inbox_token,
        next_channel_id=record.next_channel_id,
        next_subscription_id=record.next_subscription_id,
        next_client_number=record.next_client_number,
        progress_is_exact=record.progress_is_exact,
        configuration=record.configuration,
    )


def encode_channel(channel: Channel) -> bytes:
    """A channel without its id, which is the key."""
    limits = channel.limits
    return (
        CHANNEL.pack(
            channel.first_seq,
            channel.last_seq,
            channel.total_bytes,
            channel.last_timestamp_ns,
            limits.max_msgs,
            limits.max_bytes,
            limits.message_overhead,
        )
        + channel.name.encode()
    )


def decode_channel(channel_id: int, content: bytes) -> Channel:
    """A channel without blocks and subscriptions."""
    first_seq, last_seq, total_bytes, last_timestamp_ns, *limits = CHANNEL.unpack_from(content)
    return Channel(
        channel_id=channel_id,
        name=content[CHANNEL.size :].decode(),
        limits=Limits(*limits),
        first_seq=first_seq,
        last_seq=last_seq,
        total_bytes=total_bytes,
        last_timestamp_ns=last_timestamp_ns,
    )


def encode_client(client: Client) -> bytes:
    """A client without its number, which is the key."""
    return pb.Client(
        client_id=client.client_id,
        conn_id=client.conn_id,
        heartbeat_inbox=client.heartbeat_inbox,
        protocol=client.protocol,
        ping_interval_s=client.ping_interval_s,
        ping_max_out=client.ping_max_out,
    ).SerializeToString()


def decode_client(number: int, content: bytes) -> Client:
    """A client without subscriptions."""
    record = pb.Client.FromString(content)
    return Client(
        client_id=record.client_id,
        conn_id=record.conn_id,
        heartbeat_inbox=record.heartbeat_inbox,
        protocol=record.protocol,
        ping_interval_s=record.ping_interval_s,
        ping_max_out=record.ping_max_out,
        number=number,
    )


def encode_subscription(subscription: Subscription) -> bytes:
    """A subscription without its id, which is the key, and without its progress."""
    return pb.Subscription(
        channel_id=subscription.channel_id,
        client_id=subscription.client_id,
        inbox=subscription.inbox,
        ack_inbox=subscription.ack_inbox,
        durable_name=subscription.durable_name,
        queue_group=subscription.queue_group,
        max_in_flight=subscription.max_in_flight,
        ack_wait_s=subscription.ack_wait_s,
        is_online=subscription.is_online,
        suspect_to=subscription.suspect_to,
        group_id=subscription.group_id,
        slot=subscription.slot,
    ).SerializeToString()


def encode_progress(subscription: Subscription) -> bytes:
    """What was sent and acked."""
    return PROGRESS.pack(subscription.last_sent, subscription.floor) + subscription.acked.encode()


def decode_subscription(subscription_id: int, content: bytes, progress: bytes | None) -> Subscription:
    """A subscription of both its records; a member of a queue group has no progress."""
    record = pb.Subscription.FromString(content)
    last_sent, floor = PROGRESS.unpack_from(progress) if progress is not None else (0, 0)
    return Subscription(
        subscription_id=subscription_id,
        channel_id=record.channel_id,
        client_id=record.client_id,
        inbox=record.inbox,
        ack_inbox=record.ack_inbox,
        durable_name=record.durable_name,
        queue_group=record.queue_group,
        max_in_flight=record.max_in_flight,
        ack_wait_s=record.ack_wait_s,
        is_online=record.is_online,
        last_sent=last_sent,
        floor=floor,
        acked=Ranges.decode(progress[PROGRESS.size :] if progress is not None else b""),
        suspect_to=record.suspect_to,
        group_id=record.group_id,
        slot=record.slot,
    )


def encode_group(group: Group) -> bytes:
    """A queue group without its id, which is the key, without its progress and its members."""
    return pb.Group(
        channel_id=group.channel_id, durable_name=group.durable_name, name=group.name, suspect_to=group.suspect_to
    ).SerializeToString()


def encode_group_progress(group: Group) -> bytes:
    """What was sent, and who holds it."""
    return group.holders.encode()


def decode_group(group_id: int, content: bytes, progress: bytes) -> Group:
    """A queue group of both its records, without members."""
    record = pb.Group.FromString(content)
    return Group(
        group_id=group_id,
        channel_id=record.channel_id,
        durable_name=record.durable_name,
        name=record.name,
        holders=Holders.decode(progress),
        suspect_to=record.suspect_to,
    )


DECODE_ERRORS: Final = (DecodeError, struct.error, ValueError)
"""What the decoders raise for content that is not theirs."""
