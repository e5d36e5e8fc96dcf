"""Makes, resumes and ends subscriptions (B280 to B291, B350). Pure."""

from store.machine import groups, refusals
from store.machine.state import Channel, Refusal, Result, State, Subscription
from store.operations import CloseSubscription, Subscribe, Unsubscribe
from store.ranges import Ranges


def subscribe(state: State, operation: Subscribe) -> Result:
    """A new subscription or member of a queue group, or an offline durable comes online: the id says which."""
    channel = state.channels_by_id.get(operation.channel_id)
    if channel is None:
        return refusals.UNKNOWN_CHANNEL
    if operation.client_id not in state.clients:
        return refusals.UNKNOWN_CLIENT_ID
    known = state.subscriptions.get(operation.subscription_id)
    if known is not None:
        return _resume(state, known, operation)
    return _create(state, channel, operation)


def close(state: State, operation: CloseSubscription) -> Result:
    """A durable goes offline, any other subscription is removed. Refused when it is not online."""
    subscription = state.subscriptions.get(operation.subscription_id)
    if subscription is None or not subscription.is_online:
        return refusals.INVALID_SUBSCRIPTION
    end(state, subscription)
    return None


def unsubscribe(state: State, operation: Unsubscribe) -> Result:
    """The subscription is removed, online or not."""
    subscription = state.subscriptions.get(operation.subscription_id)
    if subscription is None:
        return refusals.INVALID_SUBSCRIPTION
    remove(state, subscription)
    return None


def end(state: State, subscription: Subscription) -> None:
    """Close an online subscription; a durable keeps its progress (B282), and so does a durable group (B315)."""
    if subscription.queue_group or not subscription.durable_name:
        _remove(state, subscription, is_unsubscribe=False)
        return
    subscription.is_online = False
    del state.clients[subscription.client_id].subscription_ids[subscription.subscription_id]
    state.changes.subscriptions.add(subscription.subscription_id)


def remove(state: State, subscription: Subscription) -> None:
    """Remove a subscription with its progress (B288); with the last member goes its group (B315)."""
    _remove(state, subscription, is_unsubscribe=True)


def _remove(state: State, subscription: Subscription, *, is_unsubscribe: bool) -> None:
    if subscription.is_online:
        del state.clients[subscription.client_id].subscription_ids[subscription.subscription_id]
    if subscription.queue_group:
        groups.leave(state, subscription, is_unsubscribe=is_unsubscribe)
    elif subscription.durable_name:
        del state.durables[subscription.client_id, subscription.channel_id, subscription.durable_name]
    if not subscription.queue_group:
        state.changes.progress.add(subscription.subscription_id)
    del state.channels_by_id[subscription.channel_id].subscription_ids[subscription.subscription_id]
    del state.subscriptions[subscription.subscription_id]
    state.changes.subscriptions.add(subscription.subscription_id)


def _create(state: State, channel: Channel, operation: Subscribe) -> Result:
    """A new subscription starts behind `last_sent`, which the leader resolved (B223)."""
    if operation.subscription_id < state.next_subscription_id:
        return Refusal(f"subscription id {operation.subscription_id} is not above all earlier ones")
    is_durable = bool(operation.durable_name) and not operation.queue_group
    key = (operation.client_id, operation.channel_id, operation.durable_name)
    if is_durable and key in state.durables:
        return refusals.DUPLICATE_DURABLE
    if operation.last_sent > channel.last_seq:
        return Refusal(f"subscription starts behind {operation.last_sent}, the channel ends with {channel.last_seq}")
    subscription = Subscription(
        subscription_id=operation.subscription_id,
        channel_id=operation.channel_id,
        client_id=operation.client_id,
        inbox=operation.inbox,
        ack_inbox=operation.ack_inbox,
        durable_name=operation.durable_name,
        queue_group=operation.queue_group,
        max_in_flight=operation.max_in_flight,
        ack_wait_s=operation.ack_wait_s,
        is_online=True,
        last_sent=operation.last_sent,
        floor=operation.last_sent,
        acked=Ranges(),
    )
    if subscription.queue_group:
        group = groups.find_or_create(state, channel, subscription, operation.last_sent)
        if groups.is_full(group):
            return refusals.TOO_MANY_SUBSCRIPTIONS
        subscription.last_sent = subscription.floor = 0
        groups.join(state, group, subscription)
    else:
        state.changes.progress.add(subscription.subscription_id)
    if is_durable:
        state.durables[key] = subscription
    state.subscriptions[subscription.subscription_id] = subscription
    channel.subscription_ids[subscription.subscription_id] = None
    state.next_subscription_id = subscription.subscription_id + 1
    state.changes.is_cluster_changed = True
    _set_online(state, subscription)
    return None


def _resume(state: State, subscription: Subscription, operation: Subscribe) -> Result:
    """The durable keeps its progress; the rest is the request's (B283)."""
    identity = (subscription.client_id, subscription.channel_id, subscription.durable_name)
    if identity != (operation.client_id, operation.channel_id, operation.durable_name):
        return Refusal(f"subscription id {operation.subscription_id} belongs to another subscription")
    if subscription.is_online:
        return refusals.DUPLICATE_DURABLE
    subscription.inbox = operation.inbox
    subscription.ack_inbox = operation.ack_inbox
    subscription.max_in_flight = operation.max_in_flight
    subscription.ack_wait_s = operation.ack_wait_s
    subscription.is_online = True
    _set_online(state, subscription)
    return None


def _set_online(state: State, subscription: Subscription) -> None:
    state.clients[subscription.client_id].subscription_ids[subscription.subscription_id] = None
    state.changes.subscriptions.add(subscription.subscription_id)
