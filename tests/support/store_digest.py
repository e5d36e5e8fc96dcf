"""One hash over the logical content, to show that two stores are equal however their entries came and were stored. Pure."""

import hashlib
from dataclasses import asdict
from typing import Final

from store.machine.state import Channel, Group, State, Subscription
from store.store import Store

READ_MAX_COUNT: Final = 1024
READ_MAX_BYTES: Final = 1024 * 1024


def digest(store: Store) -> str:
    """Hash of the state and of all messages. Reads every message."""
    content = hashlib.sha256(digest_state(store.state).encode())
    for channel_id in sorted(store.state.channels_by_id):
        channel = store.state.channels_by_id[channel_id]
        seq = channel.first_seq
        while seq <= channel.last_seq:
            first, messages = store.read_messages(channel, seq, READ_MAX_COUNT, READ_MAX_BYTES)
            assert first == seq
            for message in messages:
                content.update(len(message).to_bytes(4))
                content.update(message)
            seq += len(messages)
    return content.hexdigest()


def digest_state(state: State) -> str:
    """Hash of everything replicated but the messages themselves."""
    content = [
        (state.cluster_id, state.ack_inbox_token),
        (state.next_channel_id, state.next_subscription_id, state.next_client_number),
        state.progress_is_exact,
        state.configuration,
        [_channel(state.channels_by_id[number]) for number in sorted(state.channels_by_id)],
        sorted(
            (
                client.number,
                client.client_id,
                client.conn_id,
                client.heartbeat_inbox,
                (client.protocol, client.ping_interval_s, client.ping_max_out),
                sorted(client.subscription_ids),
            )
            for client in state.clients.values()
        ),
        [_subscription(state.subscriptions[number]) for number in sorted(state.subscriptions)],
        [_group(state.groups[number]) for number in sorted(state.groups)],
    ]
    return hashlib.sha256(repr(content).encode()).hexdigest()


def _channel(channel: Channel) -> tuple[object, ...]:
    return (
        channel.channel_id,
        channel.name,
        asdict(channel.limits),
        (channel.first_seq, channel.last_seq, channel.total_bytes, channel.last_timestamp_ns),
        (sorted(channel.subscription_ids), sorted(channel.group_ids), channel.offline_groups),
    )


def _subscription(subscription: Subscription) -> tuple[object, ...]:
    return (
        (subscription.subscription_id, subscription.channel_id, subscription.client_id),
        (subscription.inbox, subscription.ack_inbox, subscription.durable_name, subscription.queue_group),
        (subscription.max_in_flight, subscription.ack_wait_s, subscription.is_online),
        (subscription.last_sent, subscription.floor, subscription.acked.encode(), subscription.suspect_to),
        (subscription.group_id, subscription.slot),
    )


def _group(group: Group) -> tuple[object, ...]:
    return (
        (group.group_id, group.channel_id, group.durable_name, group.name),
        (group.holders.floor, group.holders.encode(), group.suspect_to),
        [(slot, member.subscription_id) for slot, member in group.members.items()],
    )
