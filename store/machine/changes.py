"""Notes what an entry changed, so that only that is written. Pure.

A record is read from the state when the transaction is made: one that is not there any more is deleted.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from store.machine.state import Client
    from store.machine.tail import Block


@dataclass(slots=True)
class Changes:
    """Changed records since the last transaction was made."""

    is_cluster_changed: bool = False
    channels: set[int] = field(default_factory=set)
    trimmed: set[int] = field(default_factory=set)
    """Channels whose first sequence moved."""
    clients: "dict[int, Client | None]" = field(default_factory=dict)
    """By number; None: gone."""
    subscriptions: set[int] = field(default_factory=set)
    progress: set[int] = field(default_factory=set)
    """Subscriptions whose last sent, floor or acked ranges changed. Members of queue groups have none of their own."""
    groups: set[int] = field(default_factory=set)
    group_progress: set[int] = field(default_factory=set)
    blocks: "list[Block]" = field(default_factory=list)
    block_bytes: int = 0
