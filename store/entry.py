"""The log entry: operations and blocks to bytes and back. Pure.

`u32 little-endian length of the envelope | envelope | blocks`, the blocks in the order of their Append operations and as
long as those say. The envelope is protobuf (entry.proto) with the format version and the leader's clock.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from store import entry_pb2 as pb
from store.constants import ENTRY_FORMAT_VERSION
from store.errors import EntryError, FormatVersionError
from store.holders import SLOT_MAX
from store.operations import (
    Append,
    BeginLeadership,
    CleanStop,
    CloseClient,
    CloseSubscription,
    ConnectClient,
    CreateChannel,
    DeleteChannel,
    Expire,
    GroupProgress,
    InitCluster,
    Limits,
    Operation,
    Progress,
    SetLimits,
    Subscribe,
    Unsubscribe,
)

PREFIX: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Entry:
    """A decoded entry. `blocks` are views of its bytes, one for each Append operation in order."""

    version: int
    time_ns: int
    operations: list[Operation]
    blocks: list[memoryview]


def encode(operations: Iterable[Operation], blocks: Sequence[bytes], time_ns: int) -> list[bytes]:
    """The entry as parts to be written one after the other; `blocks` are those of the Append operations, uncopied.

    `time_ns` is the leader's clock, Unix nanoseconds.
    """
    envelope = pb.Envelope(version=ENTRY_FORMAT_VERSION, time_ns=time_ns)
    add = envelope.operations.add
    sizes: list[int] = []
    for operation in operations:
        kind = type(operation)
        if kind is Append:
            sizes.append(operation.size)  # type: ignore[union-attr]  # `kind is` does not narrow, and is cheaper
        _WRITERS[kind](add(), operation)
    assert sizes == list(map(len, blocks))
    data = envelope.SerializeToString()
    return [PREFIX.pack(len(data)) + data, *blocks]


def decode(data: memoryview) -> Entry:
    """The entry that `encode` wrote.

    Raises:
        FormatVersionError: written by a newer version.
        EntryError: anything else that is not an entry.

    """
    envelope, position = _envelope(data)
    operations: list[Operation] = []
    blocks: list[memoryview] = []
    for message in envelope.operations:
        kind = message.WhichOneof("kind")
        if kind is None:
            raise EntryError(f"operation {len(operations)} is of an unknown kind; allowed: {', '.join(_READERS)}")
        operation = _READERS[kind](message)
        operations.append(operation)
        if kind == "append":
            end = position + operation.size  # type: ignore[union-attr]  # it is an Append
            blocks.append(data[position:end])
            position = end
    if position != len(data):
        raise EntryError(f"entry has {len(data)} bytes, its operations say {position}")
    return Entry(envelope.version, envelope.time_ns, operations, blocks)


def _envelope(data: memoryview) -> tuple[pb.Envelope, int]:
    """The envelope, and where the blocks begin."""
    if len(data) < PREFIX.size:
        raise EntryError(f"entry has {len(data)} bytes, allowed: at least {PREFIX.size}")
    end = PREFIX.size + PREFIX.unpack_from(data)[0]
    if end > len(data):
        raise EntryError(f"entry has {len(data)} bytes, its envelope ends at {end}")
    try:
        envelope = pb.Envelope.FromString(bytes(data[PREFIX.size : end]))
    except DecodeError as error:
        raise EntryError(f"envelope of {end - PREFIX.size} bytes cannot be decoded: {error}") from error
    if envelope.version > ENTRY_FORMAT_VERSION:
        raise FormatVersionError("log entry", envelope.version, ENTRY_FORMAT_VERSION)
    if envelope.version == 0:
        raise EntryError(f"envelope of {end - PREFIX.size} bytes has no format version")
    return envelope, end


# ---- one writer and one reader for each operation; the registers at the end must name all of them


def _write_limits(target: pb.Limits, limits: Limits) -> None:
    target.max_msgs = limits.max_msgs
    target.max_bytes = limits.max_bytes
    target.message_overhead = limits.message_overhead


def _read_limits(message: pb.Limits) -> Limits:
    return Limits(message.max_msgs, message.max_bytes, message.message_overhead)


def _write_append(target: pb.Operation, operation: Append) -> None:
    message = target.append
    message.channel_id = operation.channel_id
    message.first_seq = operation.first_seq
    message.count = operation.count
    message.size = operation.size
    message.last_timestamp_ns = operation.last_timestamp_ns


def _read_append(target: pb.Operation) -> Append:
    message = target.append
    return Append(message.channel_id, message.first_seq, message.count, message.size, message.last_timestamp_ns)


def _write_progress(target: pb.Operation, operation: Progress) -> None:
    message = target.progress
    message.subscription_id = operation.subscription_id
    message.last_sent = operation.last_sent
    message.floor = operation.floor
    for acked in operation.acked:
        message.acked.extend(acked)


def _read_progress(target: pb.Operation) -> Progress:
    message = target.progress
    flat = message.acked
    acked = tuple(zip(flat[::2], flat[1::2], strict=False)) if flat else ()
    if len(flat) % 2:
        raise EntryError(f"progress of subscription {message.subscription_id} has a range without end")
    return Progress(message.subscription_id, message.last_sent, message.floor, acked)


def _write_group_progress(target: pb.Operation, operation: GroupProgress) -> None:
    message = target.group_progress
    message.group_id = operation.group_id
    message.last_sent = operation.last_sent
    message.floor = operation.floor
    message.acked.extend(operation.acked)
    for moved in operation.moved:
        message.moved.extend(moved)
    message.first = operation.first
    message.sent = operation.sent


def _read_group_progress(target: pb.Operation) -> GroupProgress:
    message = target.group_progress
    if len(message.moved) % 2 or len(message.sent) % 2:
        raise EntryError(f"progress of queue group {message.group_id} has a sequence without slot")
    if any(slot > SLOT_MAX for slot in message.moved[1::2]):
        raise EntryError(
            f"progress of queue group {message.group_id} names slot {max(message.moved[1::2])}, allowed: 0 to {SLOT_MAX}"
        )
    return GroupProgress(
        group_id=message.group_id,
        last_sent=message.last_sent,
        floor=message.floor,
        acked=tuple(message.acked),
        moved=tuple(zip(message.moved[::2], message.moved[1::2], strict=True)),
        first=message.first,
        sent=message.sent,
    )


def _write_init_cluster(target: pb.Operation, operation: InitCluster) -> None:
    target.init_cluster.cluster_id = operation.cluster_id
    target.init_cluster.ack_inbox_token = operation.ack_inbox_token


def _read_init_cluster(target: pb.Operation) -> InitCluster:
    return InitCluster(target.init_cluster.cluster_id, target.init_cluster.ack_inbox_token)


def _write_create_channel(target: pb.Operation, operation: CreateChannel) -> None:
    target.create_channel.channel_id = operation.channel_id
    target.create_channel.name = operation.name
    _write_limits(target.create_channel.limits, operation.limits)


def _read_create_channel(target: pb.Operation) -> CreateChannel:
    message = target.create_channel
    return CreateChannel(message.channel_id, message.name, _read_limits(message.limits))


def _write_set_limits(target: pb.Operation, operation: SetLimits) -> None:
    target.set_limits.channel_id = operation.channel_id
    _write_limits(target.set_limits.limits, operation.limits)


def _read_set_limits(target: pb.Operation) -> SetLimits:
    return SetLimits(target.set_limits.channel_id, _read_limits(target.set_limits.limits))


def _write_delete_channel(target: pb.Operation, operation: DeleteChannel) -> None:
    target.delete_channel.channel_id = operation.channel_id


def _read_delete_channel(target: pb.Operation) -> DeleteChannel:
    return DeleteChannel(target.delete_channel.channel_id)


def _write_expire(target: pb.Operation, operation: Expire) -> None:
    target.expire.channel_id = operation.channel_id
    target.expire.first_seq = operation.first_seq


def _read_expire(target: pb.Operation) -> Expire:
    return Expire(target.expire.channel_id, target.expire.first_seq)


def _write_connect_client(target: pb.Operation, operation: ConnectClient) -> None:
    message = target.connect_client
    message.client_id = operation.client_id
    message.conn_id = operation.conn_id
    message.heartbeat_inbox = operation.heartbeat_inbox
    message.protocol = operation.protocol
    message.ping_interval_s = operation.ping_interval_s
    message.ping_max_out = operation.ping_max_out


def _read_connect_client(target: pb.Operation) -> ConnectClient:
    message = target.connect_client
    return ConnectClient(
        client_id=message.client_id,
        conn_id=message.conn_id,
        heartbeat_inbox=message.heartbeat_inbox,
        protocol=message.protocol,
        ping_interval_s=message.ping_interval_s,
        ping_max_out=message.ping_max_out,
    )


def _write_close_client(target: pb.Operation, operation: CloseClient) -> None:
    target.close_client.client_id = operation.client_id


def _read_close_client(target: pb.Operation) -> CloseClient:
    return CloseClient(target.close_client.client_id)


def _write_subscribe(target: pb.Operation, operation: Subscribe) -> None:
    message = target.subscribe
    message.subscription_id = operation.subscription_id
    message.channel_id = operation.channel_id
    message.client_id = operation.client_id
    message.inbox = operation.inbox
    message.ack_inbox = operation.ack_inbox
    message.durable_name = operation.durable_name
    message.queue_group = operation.queue_group
    message.max_in_flight = operation.max_in_flight
    message.ack_wait_s = operation.ack_wait_s
    message.last_sent = operation.last_sent


def _read_subscribe(target: pb.Operation) -> Subscribe:
    message = target.subscribe
    return Subscribe(
        subscription_id=message.subscription_id,
        channel_id=message.channel_id,
        client_id=message.client_id,
        inbox=message.inbox,
        ack_inbox=message.ack_inbox,
        durable_name=message.durable_name,
        queue_group=message.queue_group,
        max_in_flight=message.max_in_flight,
        ack_wait_s=message.ack_wait_s,
        last_sent=message.last_sent,
    )


def _write_close_subscription(target: pb.Operation, operation: CloseSubscription) -> None:
    target.close_subscription.subscription_id = operation.subscription_id


def _read_close_subscription(target: pb.Operation) -> CloseSubscription:
    return CloseSubscription(target.close_subscription.subscription_id)


def _write_unsubscribe(target: pb.Operation, operation: Unsubscribe) -> None:
    target.unsubscribe.subscription_id = operation.subscription_id


def _read_unsubscribe(target: pb.Operation) -> Unsubscribe:
    return Unsubscribe(target.unsubscribe.subscription_id)


def _write_clean_stop(target: pb.Operation, _operation: CleanStop) -> None:
    target.clean_stop.SetInParent()


def _read_clean_stop(_target: pb.Operation) -> CleanStop:
    return CleanStop()


def _write_begin_leadership(target: pb.Operation, operation: BeginLeadership) -> None:
    target.begin_leadership.SetInParent()
    target.begin_leadership.send_ahead = operation.send_ahead


def _read_begin_leadership(target: pb.Operation) -> BeginLeadership:
    return BeginLeadership(target.begin_leadership.send_ahead)


_WRITERS: Final[dict[type, Callable[..., None]]] = {
    InitCluster: _write_init_cluster,
    CreateChannel: _write_create_channel,
    SetLimits: _write_set_limits,
    DeleteChannel: _write_delete_channel,
    Append: _write_append,
    Expire: _write_expire,
    ConnectClient: _write_connect_client,
    CloseClient: _write_close_client,
    Subscribe: _write_subscribe,
    CloseSubscription: _write_close_subscription,
    Unsubscribe: _write_unsubscribe,
    Progress: _write_progress,
    GroupProgress: _write_group_progress,
    CleanStop: _write_clean_stop,
    BeginLeadership: _write_begin_leadership,
}

_READERS: Final[dict[str, Callable[[pb.Operation], Operation]]] = {
    "init_cluster": _read_init_cluster,
    "create_channel": _read_create_channel,
    "set_limits": _read_set_limits,
    "delete_channel": _read_delete_channel,
    "append": _read_append,
    "expire": _read_expire,
    "connect_client": _read_connect_client,
    "close_client": _read_close_client,
    "subscribe": _read_subscribe,
    "close_subscription": _read_close_subscription,
    "unsubscribe": _read_unsubscribe,
    "progress": _read_progress,
    "group_progress": _read_group_progress,
    "clean_stop": _read_clean_stop,
    "begin_leadership": _read_begin_leadership,
}
