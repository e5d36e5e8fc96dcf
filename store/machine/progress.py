"""Moves what a subscription was sent and has acked (B245, B381). Pure.

Nothing goes back: last sent and floor become the larger of old and new, acked ranges are added. A report that says more
than can be is refused as a whole: acks beyond what was sent, or sending beyond the channel's end, would lose messages.
"""

from store.machine import refusals
from store.machine.state import Refusal, Result, State
from store.operations import Progress


def advance(state: State, operation: Progress) -> Result:
    """Take over the progress; what continues the floor becomes part of it."""
    subscription = state.subscriptions.get(operation.subscription_id)
    if subscription is None or subscription.queue_group:
        return refusals.INVALID_SUBSCRIPTION
    last_sent = max(subscription.last_sent, operation.last_sent)
    reported = max(operation.floor, operation.acked[-1][1]) if operation.acked else operation.floor
    if reported > last_sent:
        return Refusal(f"progress acks up to {reported}, sent is {last_sent}")
    if operation.last_sent > state.channels_by_id[subscription.channel_id].last_seq:
        return Refusal(f"progress says {operation.last_sent} was sent, which is beyond the channel's end")
    if not _is_ascending(operation.acked):
        return Refusal(f"progress acks ranges that are not ascending: {operation.acked}")
    floor = max(subscription.floor, operation.floor)
    acked = subscription.acked
    for first, last in operation.acked:
        if last > floor:
            acked.add(max(first, floor + 1), last)
    subscription.floor = acked.advance_floor(floor)
    subscription.last_sent = last_sent
    state.changes.progress.add(subscription.subscription_id)
    return None


def _is_ascending(ranges: tuple[tuple[int, int], ...]) -> bool:
    """Whether the ranges are inclusive, disjoint and in order."""
    previous = 0
    for first, last in ranges:
        if not previous < first <= last:
            return False
        previous = last
    return True
