"""Applies a log entry to the state: each operation to its handler, one result each. Pure but for reading old blocks.

Rules: the same entries give the same state and results on every node, in whatever groups they come; a refusal changes
nothing; whatever is raised leaves the state unusable, and the node must stop before it becomes durable.
"""

from typing import assert_never

from store.entry import Entry
from store.machine import channels, clients, cluster, groups, limits, messages, progress, subscriptions
from store.machine.ports import BlockReader
from store.machine.state import Result, State
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
    Operation,
    Progress,
    SetLimits,
    Subscribe,
    Unsubscribe,
)


def apply_entry(state: State, entry: Entry, index: int, reader: BlockReader) -> list[Result]:
    """Apply all operations of `entry`, which is at `index` of the log; one result for each."""
    results: list[Result] = []
    blocks = iter(entry.blocks)
    for operation in entry.operations:
        if type(operation) is Append:
            results.append(messages.append(state, operation, next(blocks), index, reader))
        else:
            results.append(_apply(state, operation, reader))
    is_clean_stop = bool(entry.operations) and type(entry.operations[-1]) is CleanStop
    cluster.end_entry(state, is_clean_stop=is_clean_stop)
    return results


def _apply(state: State, operation: Operation, reader: BlockReader) -> Result:  # noqa: C901, PLR0911, PLR0912 - a table
    match operation:
        case Progress():
            return progress.advance(state, operation)
        case GroupProgress():
            return groups.advance(state, operation)
        case InitCluster():
            return cluster.init(state, operation)
        case CreateChannel():
            return channels.create(state, operation)
        case SetLimits():
            return limits.replace(state, operation, reader)
        case DeleteChannel():
            return channels.delete(state, operation)
        case Expire():
            return limits.expire(state, operation, reader)
        case ConnectClient():
            return clients.connect(state, operation)
        case CloseClient():
            return clients.close(state, operation)
        case Subscribe():
            return subscriptions.subscribe(state, operation)
        case CloseSubscription():
            return subscriptions.close(state, operation)
        case Unsubscribe():
            return subscriptions.unsubscribe(state, operation)
        case BeginLeadership():
            return cluster.begin_leadership(state, operation)
        case CleanStop() | Append():
            return None  # both are dealt with by the caller, which knows their place in the entry
        case _:
            assert_never(operation)
