"""Collects the changes of the state into one immutable batch, and plans how blocks are merged. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from store import block, records
from store.constants import BLOCK_MAX_BYTES
from store.lmdb import layout
from store.machine.changes import Changes
from store.machine.state import State

Item = tuple[bytes, bytes]
Stored = tuple[int, bytes | memoryview]
"""First sequence and bytes of a block."""

Run = tuple[int, list[bytes | memoryview]]
"""First sequence, and consecutive blocks that become one."""

REMOVED: Final = b""
"""Stands for a record to delete; a sealed record is never empty."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction writes: the state after entry `index`."""

    index: int
    term: int
    block_bytes: int
    """Bytes of all blocks appended since the last batch, dead or not."""
    records: dict[bytes, list[Item]]
    """Records by database; REMOVED deletes."""
    deleted_channels: list[int]
    first_seqs: list[tuple[int, int]]
    """Channels whose blocks below a sequence are dead."""
    blocks: dict[int, list[Stored]]
    """Live blocks, ascending, by channel."""


def collect(state: State, index: int, term: int) -> Batch:
    """Everything that changed since the last call, as it is now, after entry `index`."""
    changes, state.changes = state.changes, Changes()
    meta = [_item(layout.APPLIED_KEY, records.encode_applied(index, term))]
    if changes.is_cluster_changed:
        meta.append(_item(layout.CLUSTER_KEY, records.encode_cluster(state)))
    channels = state.channels_by_id
    subscriptions = state.subscriptions
    groups = state.groups
    blocks: dict[int, list[Stored]] = {}
    for created in changes.blocks:
        channel = channels.get(created.channel_id)
        if channel is not None and created.last_seq >= channel.first_seq:
            blocks.setdefault(created.channel_id, []).append((created.first_seq, created.data))
    return Batch(
        index=index,
        term=term,
        block_bytes=changes.block_bytes,
        records={
            layout.META: meta,
            layout.CHANNELS: [
                _id_item(number, records.encode_channel(channels[number]) if number in channels else None)
                for number in changes.channels
            ],
            layout.CLIENTS: [
                _id_item(number, records.encode_client(client) if client is not None else None)
                for number, client in changes.clients.items()
            ],
            layout.SUBSCRIPTIONS: [
                _id_item(
                    number, records.encode_subscription(subscriptions[number]) if number in subscriptions else None
                )
                for number in changes.subscriptions
            ],
            layout.PROGRESS: [
                _id_item(number, records.encode_progress(subscriptions[number]) if number in subscriptions else None)
                for number in changes.progress
            ],
            layout.GROUPS: [
                _id_item(number, records.encode_group(groups[number]) if number in groups else None)
                for number in changes.groups
            ],
            layout.GROUP_PROGRESS: [
                _id_item(number, records.encode_group_progress(groups[number]) if number in groups else None)
                for number in changes.group_progress
            ],
        },
        deleted_channels=[number for number in changes.channels if number not in channels],
        first_seqs=[(number, channels[number].first_seq) for number in changes.trimmed if number in channels],
        blocks=blocks,
    )


def runs(blocks: Iterable[Stored]) -> Iterator[Run]:
    """Group consecutive blocks so that each group, as one block, is at most BLOCK_MAX_BYTES or a single block."""
    run: list[bytes | memoryview] = []
    run_first_seq = run_count = run_bytes = 0
    for first_seq, data in blocks:
        count = block.count(data)
        size = block.message_bytes(data)
        if run and block.encoded_bytes(run_count + count, run_bytes + size) > BLOCK_MAX_BYTES:
            yield run_first_seq, run
            run = []
        if not run:
            run_first_seq, run_count, run_bytes = first_seq, 0, 0
        run.append(data)
        run_count += count
        run_bytes += size
    if run:
        yield run_first_seq, run


def _item(key: bytes, content: bytes) -> Item:
    return key, records.seal(key, content)


def _id_item(number: int, content: bytes | None) -> Item:
    key = layout.ID_KEY.pack(number)
    return key, REMOVED if content is None else records.seal(key, content)
