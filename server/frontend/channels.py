"""The leader's view of channels: what exists, what is being made or deleted, and which new one is allowed."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from server import hot, windows
from server.config.channel_limits import EffectiveLimits, LimitRules
from server.errors import RequestError
from server.proposals.proposer import Proposer
from server.protocol import responses
from store.machine.state import Refusal, Result, State
from store.operations import CreateChannel, DeleteChannel, Limits

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Channels:
    """Channels by name, those not yet applied included.

    Invariant: `by_name` and `by_folded_name` hold the same channels; two channels never differ by case only (B63).
    """

    state: State
    core: hot.Core
    proposer: Proposer
    rules: LimitRules
    max_channels: int
    message_overhead: int
    """Bytes that max_bytes counts per message beside its encoding (O511)."""
    on_kept: Callable[[int], None]
    """The channel of this id exists, from now on or still: its inactivity clock starts (B338, O509)."""
    on_deleted: Callable[[int], None]
    """The channel of this id is gone."""
    on_removed: Callable[[int], None]
    """The subscription or queue group of this id went with its channel."""
    by_name: dict[str, windows.Channel] = field(default_factory=dict)
    by_folded_name: dict[str, str] = field(default_factory=dict)
    deleting: set[str] = field(default_factory=set)
    _limits: dict[str, EffectiveLimits] = field(default_factory=dict)
    """Of the channels in `by_name`."""
    _next_id: int = 0

    def recover(self) -> None:
        """Leadership began: take over what the store has."""
        for channel in self.state.channels.values():
            self._remember(windows.Channel(channel.name, channel.channel_id, channel.last_seq))
        self._next_id = self.state.next_channel_id

    def get(self, name: str) -> windows.Channel | None:
        """The channel, if it exists and is not being deleted."""
        return None if name in self.deleting else self.by_name.get(name)

    def limits_of(self, name: str) -> EffectiveLimits:
        """Limits of a channel that exists, also while it is being made or deleted (B333)."""
        return self._limits[name]

    def stored_limits(self, name: str) -> Limits:
        """The part of them that the state machine enforces."""
        limits = self._limits[name]
        return Limits(max_msgs=limits.max_msgs, max_bytes=limits.max_bytes, message_overhead=self.message_overhead)

    def find_or_create(self, name: str) -> windows.Channel:
        """The channel for a publish or subscribe (B64, B93).

        Raises:
            RequestError: being deleted (B339), case conflict (B63) or too many channels (B331).

        """
        channel = self.by_name.get(name)
        if channel is not None:
            if name in self.deleting:
                raise RequestError(responses.CHANNEL_IS_BEING_DELETED, field="channel", value=name)
            return channel
        existing = self.by_folded_name.get(name.lower())
        if existing is not None:
            raise RequestError(responses.case_conflict(name, existing), field="channel", value=name)
        if self.max_channels and len(self.by_name) >= self.max_channels:
            logger.error('Creating channel "%s" failed: %s', name, responses.TOO_MANY_CHANNELS)
            raise RequestError(responses.TOO_MANY_CHANNELS, field="channel", value=name)
        channel = windows.Channel(name, self._next_id, 0)
        self._next_id += 1
        self._remember(channel)
        operation = CreateChannel(channel_id=channel.channel_id, name=name, limits=self.stored_limits(name))
        self.proposer.create_channel(operation, lambda result: self._created(channel, result))
        return channel

    def delete(self, name: str) -> None:
        """Delete a channel for inactivity (B336). Until it is applied requests for it are refused (B339)."""
        channel = self.by_name[name]
        self.deleting.add(name)
        self.core.forget_lines()
        record = self.state.channels_by_id[channel.channel_id]
        keys = [*record.subscription_ids, *record.group_ids]
        self.proposer.add(DeleteChannel(channel.channel_id), lambda result: self._deleted(channel, keys, result))

    def _remember(self, channel: windows.Channel) -> None:
        self.by_name[channel.name] = channel
        self.by_folded_name[channel.name.lower()] = channel.name
        self._limits[channel.name] = self.rules.limits_of(channel.name)

    def _forget(self, name: str) -> None:
        del self.by_name[name]
        del self.by_folded_name[name.lower()]
        del self._limits[name]

    def _created(self, channel: windows.Channel, result: Result) -> None:
        name = channel.name
        if isinstance(result, Refusal):
            if result.text not in responses.LOST:
                logger.error('Creating channel "%s" failed: %s', name, result.text)
            self._forget(name)
        else:
            logger.info('Channel "%s" has been created', name)
            self.on_kept(channel.channel_id)

    def _deleted(self, channel: windows.Channel, keys: list[int], result: Result) -> None:
        """`keys`: ids of its subscriptions and queue groups."""
        name = channel.name
        self.deleting.discard(name)
        if isinstance(result, Refusal):
            if result.text not in responses.LOST:
                logger.error('Error deleting channel "%s": %s', name, result.text)
            self.on_kept(channel.channel_id)
            return
        self._forget(name)
        for key in keys:
            self.on_removed(key)
        self.on_deleted(channel.channel_id)
        logger.info('Channel "%s" has been deleted', name)
