"""Proposes what goes by time: messages older than max_age (B328) and channels inactive for max_inactivity (B336)."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from server.expiry.due import DueChannels
from server.expiry.limit_warnings import LimitWarnings
from server.frontend.channels import Channels
from server.proposals.proposer import Proposer
from store.errors import CorruptionError
from store.machine.state import Channel
from store.operations import Expire
from store.store import Store

logger = logging.getLogger(__name__)

ROUND_S: Final = 0.1
"""Expiries closer together than this go in one round, seconds: bounds entries; a few ms late is fine (B328)."""

RETRY_NS: Final = 10_000_000_000
"""Pause after a message whose age is wanted could not be read, ns."""


@dataclass(slots=True)
class Sweeper:
    """Two clocks: age by the wall clock of the timestamps, inactivity by the monotonic clock."""

    store: Store
    limit_warnings: LimitWarnings
    channels: Channels
    proposer: Proposer
    loop: asyncio.AbstractEventLoop
    wall_ns: Callable[[], int]
    monotonic_ns: Callable[[], int]
    max_age_ns: int
    max_inactivity_ns: int
    has_subscribers: Callable[[Channel], bool]
    """True when a subscription of the channel is online or being made."""
    _ages: DueChannels = field(default_factory=DueChannels)
    _expiring: set[int] = field(default_factory=set)
    _inactive: DueChannels = field(default_factory=DueChannels)
    _active_ns: dict[int, int] = field(default_factory=dict)
    _age_timer: asyncio.TimerHandle | None = None
    _inactivity_timer: asyncio.TimerHandle | None = None

    def recover(self) -> None:
        """Leadership began: expired messages go now, the inactivity clocks start (B328, B338)."""
        for channel in self.store.state.channels.values():
            self.limit_warnings.begins(channel)
            self.note_messages(channel.channel_id)
        if self.max_age_ns:
            self._sweep_ages()
        if self.max_inactivity_ns:
            self._sweep_inactive()

    def note_messages(self, channel_id: int) -> None:
        """The channel was created, got messages, or lost a subscription (B338)."""
        if self.max_age_ns and channel_id not in self._ages and channel_id not in self._expiring:
            self._schedule_age(channel_id)
        if self.max_inactivity_ns:
            self.note_activity(channel_id)

    def note_activity(self, channel_id: int) -> None:
        """The inactivity clock of the channel starts anew (B338)."""
        if self.max_inactivity_ns:
            self._active_ns[channel_id] = self.monotonic_ns()
            if channel_id not in self._inactive:
                self._inactive.schedule(channel_id, self.monotonic_ns() + self.max_inactivity_ns)

    def stop(self) -> None:
        """Leadership is lost."""
        for timer in (self._age_timer, self._inactivity_timer):
            if timer is not None:
                timer.cancel()

    def _schedule_age(self, channel_id: int) -> None:
        channel = self.store.state.channels_by_id.get(channel_id)
        if channel is not None and channel.first_seq <= channel.last_seq:
            try:
                oldest_ns = self.store.timestamp_of(channel, channel.first_seq)
            except CorruptionError as error:
                self._unreadable(channel, error)
            else:
                self._ages.schedule(channel_id, oldest_ns + self.max_age_ns)

    def _sweep_ages(self) -> None:
        now_ns = self.wall_ns()
        for channel_id in self._ages.take_due(now_ns):
            channel = self.store.state.channels_by_id.get(channel_id)
            if channel is None:
                continue
            try:
                first_seq = self.store.first_message_at_or_after(channel, now_ns - self.max_age_ns + 1)
            except CorruptionError as error:
                self._unreadable(channel, error)
                continue
            if first_seq > channel.first_seq:
                self._expiring.add(channel_id)
                self.proposer.add(Expire(channel_id, first_seq), self._expirer(channel_id))
            else:
                self._schedule_age(channel_id)
        self._age_timer = self.loop.call_later(ROUND_S, self._sweep_ages)

    def _unreadable(self, channel: Channel, error: CorruptionError) -> None:
        """A damaged message is a fault of its channel: the others go on, and this one is looked at again."""
        logger.error('Error looking up expired messages of "%s" (%s)', channel.name, error)
        self._ages.schedule(channel.channel_id, self.wall_ns() + RETRY_NS)

    def _expirer(self, channel_id: int) -> Callable[[object], None]:
        def applied(_result: object) -> None:
            self._expiring.discard(channel_id)
            channel = self.store.state.channels_by_id.get(channel_id)
            if channel is not None:
                self.limit_warnings.begins(channel)
            self._schedule_age(channel_id)

        return applied

    def _sweep_inactive(self) -> None:
        now_ns = self.monotonic_ns()
        for channel_id in self._inactive.take_due(now_ns):
            channel = self.store.state.channels_by_id.get(channel_id)
            if channel is None:
                self._active_ns.pop(channel_id, None)
                continue
            due_ns = self._active_ns[channel_id] + self.max_inactivity_ns
            view = self.channels.get(channel.name)
            if view is None:
                continue
            if self.has_subscribers(channel) or view.seq > channel.last_seq:
                due_ns = now_ns + self.max_inactivity_ns
            if due_ns > now_ns:
                self._inactive.schedule(channel_id, due_ns)
            else:
                del self._active_ns[channel_id]
                self.channels.delete(channel.name)
        self._inactivity_timer = self.loop.call_later(ROUND_S, self._sweep_inactive)
