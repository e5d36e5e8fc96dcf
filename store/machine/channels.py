"""Creates and deletes channels (B200, B336). Pure."""

from store.machine import groups, refusals, subscriptions
from store.machine.state import Channel, Refusal, Result, State
from store.operations import CreateChannel, DeleteChannel


def create(state: State, operation: CreateChannel) -> Result:
    """A new channel; refused when the name exists or the id was used before, since records of it may still be on disk."""
    if operation.name in state.channels:
        return Refusal(f'channel "{operation.name}" exists already')
    if operation.channel_id < state.next_channel_id:
        return Refusal(f"channel id {operation.channel_id} is not above all earlier ones")
    channel = Channel(operation.channel_id, operation.name, operation.limits)
    state.channels[channel.name] = channel
    state.channels_by_id[channel.channel_id] = channel
    state.next_channel_id = channel.channel_id + 1
    state.changes.channels.add(channel.channel_id)
    state.changes.is_cluster_changed = True
    return None


def delete(state: State, operation: DeleteChannel) -> Result:
    """The channel goes with its messages and subscriptions, online ones too."""
    channel = state.channels_by_id.get(operation.channel_id)
    if channel is None:
        return refusals.UNKNOWN_CHANNEL
    for subscription_id in list(channel.subscription_ids):
        subscriptions.remove(state, state.subscriptions[subscription_id])
    for group_id in list(channel.group_ids):  # those without members
        groups.remove(state, state.groups[group_id])
    state.tail.drop_all(channel.tail)
    del state.channels[channel.name]
    del state.channels_by_id[channel.channel_id]
    state.changes.channels.add(channel.channel_id)
    return None
