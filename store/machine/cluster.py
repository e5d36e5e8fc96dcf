"""The cluster's identity and configuration, and what an earlier leader may have sent beyond the replicated progress. Pure.

Progress is exact from an entry that ends with a CleanStop until the next entry. A leader that begins without it must take
everything that may have been sent as sent: BeginLeadership is its first entry, before it sends anything (B394).
Entries of the log itself, no-ops and configurations, leave it as it is: with them nothing is sent.
"""

from store.machine.state import Refusal, Result, State
from store.operations import BeginLeadership, InitCluster


def init(state: State, operation: InitCluster) -> Result:
    """Set the identity, once. Saying the same again changes nothing."""
    given = (operation.cluster_id, operation.ack_inbox_token)
    recovered = (state.cluster_id, state.ack_inbox_token)
    if state.cluster_id:
        return None if given == recovered else Refusal(f'cluster is initialized as "{state.cluster_id}" already')
    if not all(given):
        return Refusal("cluster id and ack inbox token must not be empty")
    state.cluster_id, state.ack_inbox_token = given
    state.changes.is_cluster_changed = True
    return None


def configure(state: State, configuration: bytes) -> None:
    """Keep what a configuration entry says, which only the log understands, until the next one."""
    state.configuration = configuration
    state.changes.is_cluster_changed = True


def begin_leadership(state: State, operation: BeginLeadership) -> Result:
    """Mark what online subscriptions and groups may have been sent. Offline ones have exact progress: it came with their end."""
    if state.progress_is_exact:
        return None
    for subscription in state.subscriptions.values():
        last_seq = state.channels_by_id[subscription.channel_id].last_seq
        suspect_to = min(last_seq, subscription.last_sent + operation.send_ahead)
        is_plain = subscription.is_online and not subscription.queue_group
        if is_plain and suspect_to > max(subscription.last_sent, subscription.suspect_to):
            subscription.suspect_to = suspect_to
            state.changes.subscriptions.add(subscription.subscription_id)
    for group in state.groups.values():
        last_seq = state.channels_by_id[group.channel_id].last_seq
        suspect_to = min(last_seq, group.holders.last + operation.send_ahead)
        if group.members and suspect_to > max(group.holders.last, group.suspect_to):
            group.suspect_to = suspect_to
            state.changes.groups.add(group.group_id)
    return None


def end_entry(state: State, *, is_clean_stop: bool) -> None:
    """An entry was applied; `is_clean_stop`: its last operation is a CleanStop."""
    if state.progress_is_exact != is_clean_stop:
        state.progress_is_exact = is_clean_stop
        state.changes.is_cluster_changed = True
