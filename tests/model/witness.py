"""Checks what subscribers may conclude from their own history alone, whatever the model says: R9, R11, R14 and R16."""

from dataclasses import dataclass, field

from tests.model.groups import Group
from tests.model.rules import DisagreementError, Subscription


@dataclass
class History:
    """All lives of one subscription, or of a queue group: what it got and acked."""

    subscription: Subscription | Group
    seen: set[int] = field(default_factory=set)
    unacked: set[int] = field(default_factory=set)
    acked: dict[int, int] = field(default_factory=dict)
    """When, ns."""
    forgiven: set[int] = field(default_factory=set)
    """Acked so shortly before a crash, or sent before and acked behind it, that they may come again, flagged."""

    def got(self, seq: int, *, is_redelivered: bool) -> None:
        """A delivery: raises when no subscriber may see it."""
        if not is_redelivered and seq <= max(self.seen, default=0):
            raise DisagreementError(f"R9 R16 {seq} came without a flag, seen before: {sorted(self.seen)[-5:]}")
        if seq in self.acked and not (is_redelivered and seq in self.forgiven):
            raise DisagreementError(f"R11 {seq} came again, acked at {self.acked[seq]}")
        if not is_redelivered and self._unacked_stored() >= self.subscription.max_in_flight:
            raise DisagreementError(f"R14 {seq} is new; unacked: {sorted(self.unacked)}: {self.subscription}")
        self.seen.add(seq)
        self.unacked.add(seq)
        self.acked.pop(seq, None)
        self.forgiven.discard(seq)

    def _unacked_stored(self) -> int:
        return sum(seq >= self.subscription.channel.first for seq in self.unacked)

    def ack(self, seq: int, now_ns: int) -> None:
        """The subscriber acked what it had."""
        if seq in self.unacked:
            self.unacked.discard(seq)
            self.acked[seq] = now_ns

    def crashed(self, certain_ns: int) -> None:
        """Acks since `certain_ns` may be lost."""
        self.forgiven |= {seq for seq, at_ns in self.acked.items() if at_ns >= certain_ns} | self.unacked
