"""Decides when to tell the operator that a channel drops messages for its limits: once per channel and run (O215). Pure."""

from dataclasses import dataclass, field

from server.config.units import friendly_bytes
from store.machine.state import Channel


@dataclass(slots=True)
class LimitWarnings:
    """Where each channel began when it was last looked at, to tell limits from expiry."""

    _first_seqs: dict[int, int] = field(default_factory=dict)
    _warned: set[int] = field(default_factory=set)

    def begins(self, channel: Channel) -> None:
        """The channel begins where it does for another reason than its limits: recovery, expiry."""
        self._first_seqs[channel.channel_id] = channel.first_seq

    def forget(self, channel_id: int) -> None:
        """The channel is gone."""
        self._first_seqs.pop(channel_id, None)
        self._warned.discard(channel_id)

    def appended(self, channel: Channel) -> str | None:
        """Messages were appended; the warning, when limits removed older ones for the first time."""
        channel_id = channel.channel_id
        if channel_id in self._warned or channel.first_seq == self._first_seqs.setdefault(channel_id, 1):
            return None
        self._warned.add(channel_id)
        limits = channel.limits
        allowed_bytes = friendly_bytes(limits.max_bytes) if limits.max_bytes else "unlimited"
        return (
            f'Reached limits for store "{channel.name}"'
            f" (msgs={channel.count}/{limits.max_msgs or 'unlimited'}"
            f" bytes={friendly_bytes(channel.counted_bytes)}/{allowed_bytes}),"
            " dropping old messages to make room for new ones"
        )
