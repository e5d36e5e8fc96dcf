"""The cluster's identity, and whether the replicated progress is exact. Pure.

Progress is exact from a CleanStop on until somebody may have sent or acked without it: any later entry, or the second
leader since (the first one reads the mark, may send, and may be gone before its first entry).
"""

from store.machine.state import Refusal, Result, State
from store.operations import InitCluster

LEADERS_MAX = 1
"""Leaders that may rely on one CleanStop."""


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


def begin_entry(state: State) -> None:
    """An entry with operations follows."""
    if state.progress_is_exact:
        _set_exact(state, is_exact=False, leaders=0)


def clean_stop(state: State) -> None:
    """The entry ended with a CleanStop."""
    _set_exact(state, is_exact=True, leaders=0)


def begin_leadership(state: State) -> None:
    """A leader begins. Only the first one after a CleanStop may rely on it."""
    if state.progress_is_exact:
        leaders = state.leaders_since_clean_stop + 1
        is_exact = leaders <= LEADERS_MAX
        _set_exact(state, is_exact=is_exact, leaders=leaders if is_exact else 0)


def _set_exact(state: State, *, is_exact: bool, leaders: int) -> None:
    state.progress_is_exact = is_exact
    state.leaders_since_clean_stop = leaders
    state.changes.is_cluster_changed = True
