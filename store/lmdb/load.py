"""Rebuilds the state from its records at start. Messages stay on disk."""

from typing import TYPE_CHECKING

from store import records
from store.errors import CorruptionError
from store.lmdb import layout
from store.lmdb.environment import Environment, damage_named, meta_content
from store.machine.state import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    import lmdb


def load(environment: Environment) -> tuple[State, int, int]:
    """The state, and index and term of the last entry it contains; raises CorruptionError naming the file."""
    path = environment.data_path
    with damage_named(path), environment.handle.begin() as transaction:
        meta = environment.databases[layout.META]
        index, term = records.decode_applied(meta_content(transaction, meta, layout.APPLIED_KEY, path))
        state = records.decode_cluster(meta_content(transaction, meta, layout.CLUSTER_KEY, path))
        for channel_id, content in _contents(environment, transaction, layout.CHANNELS):
            channel = records.decode_channel(channel_id, content)
            state.channels[channel.name] = state.channels_by_id[channel_id] = channel
        for number, content in _contents(environment, transaction, layout.CLIENTS):  # ascending: the later one wins
            client = records.decode_client(number, content)
            state.clients[client.client_id] = client
            if client.conn_id:
                state.clients_by_conn_id[client.conn_id] = client
        progress = dict(_contents(environment, transaction, layout.GROUP_PROGRESS))
        for group_id, content in _contents(environment, transaction, layout.GROUPS):
            _add_group(state, group_id, content, progress.pop(group_id, None), path)
        _refuse_left_over(progress, "queue group", path)
        progress = dict(_contents(environment, transaction, layout.PROGRESS))
        for subscription_id, content in _contents(environment, transaction, layout.SUBSCRIPTIONS):
            _add_subscription(state, subscription_id, content, progress.pop(subscription_id, None), path)
        _refuse_left_over(progress, "subscription", path)
    for group in state.groups.values():
        state.channels_by_id[group.channel_id].offline_groups += not group.members
    return state, index, term


def _contents(
    environment: Environment, transaction: "lmdb.Transaction[bytes]", name: bytes
) -> "Iterator[tuple[int, bytes]]":
    """Ids and contents of one database, ascending."""
    for key, record in transaction.cursor(environment.databases[name]):
        (number,) = layout.ID_KEY.unpack(key)
        yield number, records.unseal(key, record, environment.data_path)


def _refuse_left_over(progress: dict[int, bytes], kind: str, path: str) -> None:
    if progress:
        raise CorruptionError(path, f"a {kind} for each progress", f"none for {sorted(progress)}")


def _add_group(state: State, group_id: int, content: bytes, progress: bytes | None, path: str) -> None:
    if progress is None:
        raise CorruptionError(path, f"the progress of queue group {group_id}", "none")
    group = records.decode_group(group_id, content, progress)
    channel = state.channels_by_id.get(group.channel_id)
    if channel is None:
        raise CorruptionError(path, f"the channel {group.channel_id} of queue group {group_id}", "none")
    state.groups[group_id] = state.groups_by_key[group.channel_id, group.durable_name, group.name] = group
    channel.group_ids[group_id] = None


def _add_subscription(state: State, subscription_id: int, content: bytes, progress: bytes | None, path: str) -> None:
    subscription = records.decode_subscription(subscription_id, content, progress)
    group = state.groups.get(subscription.group_id)
    is_member = bool(subscription.queue_group)
    if (group if is_member else progress) is None:
        missing = f"queue group {subscription.group_id}" if is_member else "progress"
        raise CorruptionError(path, f"the {missing} of subscription {subscription_id}", "none")
    channel = state.channels_by_id.get(subscription.channel_id)
    client = state.clients.get(subscription.client_id)
    if channel is None or (subscription.is_online and client is None):
        missing = f"channel {subscription.channel_id}" if channel is None else f"client {subscription.client_id}"
        raise CorruptionError(path, f"the {missing} of subscription {subscription_id}", "none")
    state.subscriptions[subscription_id] = subscription
    channel.subscription_ids[subscription_id] = None
    if group is not None:
        group.members[subscription.slot] = subscription
    elif subscription.durable_name:
        key = (subscription.client_id, subscription.channel_id, subscription.durable_name)
        state.durables[key] = subscription
    if subscription.is_online and client is not None:
        client.subscription_ids[subscription_id] = None
