"""Proposes what goes by time: messages older than max_age (B328) and channels inactive for max_inactivity (B336)."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from server import windows
from server.config.channel_limits import EffectiveLimits
from server.expiry.due import DueChannels
from server.expiry.limit_warnings import LimitWarnings
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
    """Two clocks: age by the wall clock of the timestamps, inactivity by the monotonic clock. Each channel has its limits."""

    store: Store
    limit_warnings: LimitWarnings
    proposer: Proposer
    loop: asyncio.AbstractEventLoop
    wall_ns: Callable[[], int]
    monotonic_ns: Callable[[], int]
    limits_of: Callable[[str], EffectiveLimits]
    """Limits of the applied channel of this name."""
    find: Callable[[str], windows.Channel | None]
    """What is numbered in the channel of this name; None when it is being deleted."""
    delete: Callable[[str], None]
    """Propose the end of the channel of this name: `forget` follows, or `note_activity` when it stays."""
    has_subscribers: Callable[[Channel], bool]
    """True when a subscription of the channel is online or being made."""
    confirm: Callable[[], bool]
    """Whether this node may speak (B401); `release` follows a no."""
    _ages: DueChannels = field(default_factory=DueChannels)
    _expiring: set[int] = field(default_factory=set)
    _inactive: DueChannels = field(default_factory=DueChannels)
    _active_ns: dict[int, int] = field(default_factory=dict)
    _is_running: bool = False
    _timer: asyncio.TimerHandle | None = None
    """Set while there is something to wait for."""

    def recover(self) -> None:
        """Leadership began: expired messages go now, the inactivity clocks start (B328, B338)."""
        self._is_running = True
        for channel in self.store.state.channels.values():
            self.limit_warnings.begins(channel)
            self.note_messages(channel.channel_id)
        self._sweep_ages()

    def stop(self) -> None:
        """Leadership is lost."""
        self._is_running = False
        self._cancel_timer()

    def release(self) -> None:
        """Go on, one round later: a channel may seem inactive only because nothing was read, and that is read before."""
        self._cancel_timer()
        if not (self._ages.is_empty and self._inactive.is_empty):
            self._start_timer()

    # ---- what the other roles tell

    def note_messages(self, channel_id: int) -> None:
        """The channel got messages (B338)."""
        self._schedule_age(channel_id)
        self.note_activity(channel_id)

    def note_activity(self, channel_id: int) -> None:
        """The inactivity clock of the channel starts anew: it was created, lost a subscription, or stays (B338, O509)."""
        channel = self.store.state.channels_by_id.get(channel_id)
        if channel is None:
            return
        inactivity_ns = self.limits_of(channel.name).max_inactivity_ns
        if inactivity_ns:
            now_ns = self._active_ns[channel_id] = self.monotonic_ns()
            if channel_id not in self._inactive:
                self._inactive.schedule(channel_id, now_ns + inactivity_ns)
                self._start_timer()

    def forget(self, channel_id: int) -> None:
        """The channel is gone."""
        self._ages.forget(channel_id)
        self._active_ns.pop(channel_id, None)
        self.limit_warnings.forget(channel_id)

    # ---- rounds

    def _start_timer(self) -> None:
        if self._timer is None and self._is_running:
            self._timer = self.loop.call_later(ROUND_S, self._sweep)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sweep(self) -> None:
        self._timer = None
        if not self.confirm():
            return
        self._sweep_ages()
        self._sweep_inactive()
        if not (self._ages.is_empty and self._inactive.is_empty):
            self._start_timer()

    # ---- age

    def _schedule_age(self, channel_id: int) -> None:
        """Look at the channel when its oldest message is too old, unless a look is due already."""
        channel = self.store.state.channels_by_id.get(channel_id)
        if channel is None or channel_id in self._ages or channel_id in self._expiring:
            return
        age_ns = self.limits_of(channel.name).max_age_ns
        if age_ns and channel.first_seq <= channel.last_seq:
            try:
                oldest_ns = self.store.timestamp_of(channel, channel.first_seq)
            except CorruptionError as error:
                self._unreadable(channel, error)
            else:
                self._ages.schedule(channel_id, oldest_ns + age_ns)
            self._start_timer()

    def _sweep_ages(self) -> None:
        now_ns = self.wall_ns()
        for channel_id in self._ages.take_due(now_ns):
            channel = self.store.state.channels_by_id.get(channel_id)
            if channel is None:
                continue
            oldest_kept_ns = now_ns - self.limits_of(channel.name).max_age_ns + 1
            try:
                first_seq = self.store.first_message_at_or_after(channel, oldest_kept_ns)
            except CorruptionError as error:
                self._unreadable(channel, error)
                continue
            if first_seq > channel.first_seq:
                self._expiring.add(channel_id)
                self.proposer.add(Expire(channel_id, first_seq), self._expirer(channel_id))
            else:
                self._schedule_age(channel_id)

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

    # ---- inactivity

    def _sweep_inactive(self) -> None:
        now_ns = self.monotonic_ns()
        for channel_id in self._inactive.take_due(now_ns):
            channel = self.store.state.channels_by_id.get(channel_id)
            view = None if channel is None else self.find(channel.name)
            if channel is None or view is None:
                continue  # gone, or about to go: told when that is done or refused
            inactivity_ns = self.limits_of(channel.name).max_inactivity_ns
            due_ns = self._active_ns[channel_id] + inactivity_ns
            if self.has_subscribers(channel) or view.seq > channel.last_seq:
                due_ns = now_ns + inactivity_ns
            if due_ns > now_ns:
                self._inactive.schedule(channel_id, due_ns)
            else:
                self.delete(channel.name)
