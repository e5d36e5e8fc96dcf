"""The rules of queue groups in the reference model (B300 to B319): who may get a message, what leaving and joining do."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from tests.model.rules import SLACK_NS, Channel, Client, DisagreementError, Pending, Subscription, next_due

TRANSFER_NS: Final = 100_000_000
"""What a leaving member had is redelivered within this time (B312)."""


@dataclass
class Group:
    """One queue group: one place in the log, and members that hold what was sent. Without members it is offline (B315)."""

    channel: Channel
    durable: str
    name: str
    next_seq: int = 1
    members: list[Subscription] = field(default_factory=list)
    resting: dict[int, Pending] = field(default_factory=dict)
    """Pending of an offline group."""
    sent: dict[int, int] = field(default_factory=dict)
    acked: dict[int, int] = field(default_factory=dict)
    moved: dict[int, int] = field(default_factory=dict)
    """When each sequence last changed hands."""
    suspect_to: int = 0
    began_ns: int = -SLACK_NS
    """When the server started or the group was resumed: what is due within the slack then is part of the first pass."""
    is_blurred: bool = False
    """Who has what is not certain: messages were dealt, and whether removed ones were among them is the server's choice (B267)."""
    max_in_flight: int = 10**9
    """Of all members together: nothing to check."""

    def __repr__(self) -> str:
        held = {one.inbox: sorted(one.pending) for one in self.members}
        return (
            f"group {self.durable}/{self.name} on {self.channel.name} next={self.next_seq} held={held or self.resting}"
        )

    @property
    def key(self) -> tuple[str, str, str]:
        """B300 to B302."""
        return self.channel.name, self.durable, self.name

    @property
    def pending(self) -> dict[int, Pending]:
        """Of all members."""
        found = dict(self.resting)
        for one in self.members:
            found |= one.pending
        return found

    def holder(self, seq: int) -> Subscription | None:
        """The member that has it."""
        return next((one for one in self.members if seq in one.pending), None)

    def waiting_first(self) -> bool:
        """True while something goes before new messages (B316, B363)."""
        return any(one.waiting_first() for one in self.members)

    # ---- members

    def join(self, member: Subscription, now_ns: int) -> None:
        """The first one gets all that is pending, at once and in order (B316)."""
        if not self.members:
            member.pending, self.resting = self.resting, {}
            member.first_pass = sorted(member.pending)
            for pending in member.pending.values():
                pending.low = pending.high = now_ns - member.ack_wait_ns
        self.members.append(member)

    def leave(self, member: Subscription, now_ns: int) -> None:
        """B312: in turn to those who remain. B314, B315: the last one leaves what it had."""
        self.members.remove(member)
        self.is_blurred |= any(seq < self.channel.first for seq in member.pending)
        if not self.members:
            self.resting = member.pending
        for number, seq in enumerate(sorted(member.pending) if self.members else ()):
            pending = member.pending[seq]
            pending.low, pending.high = now_ns, now_ns + TRANSFER_NS
            self.members[number % len(self.members)].pending[seq] = pending
            self.moved[seq] = now_ns
        member.pending = {}

    def ack(self, seq: int, now_ns: int) -> None:
        """Wherever it is held (B248)."""
        holder = self.holder(seq)
        if holder is not None:
            del holder.pending[seq]
            holder.first_pass = [one for one in holder.first_pass if one != seq]
            self.acked[seq] = now_ns

    # ---- what the server sent

    def saw_new(self, member: Subscription, seq: int, clients: dict[str, Client], now_ns: int, shown: str) -> None:
        """One place for all members (B303); to the one with the fewest (B305 to B307)."""
        firsts = (self.channel.first_on_its_way(now_ns), self.channel.first)
        expected = [max(self.next_seq, first) for first in firsts]
        if seq not in expected:
            raise DisagreementError(f"B300 B303 {shown}: next is {expected}: {self}")
        if self.waiting_first():
            raise DisagreementError(f"B316 B363 {shown}: pending ones come first: {self}")
        if member.pending_stored() >= member.max_in_flight:
            raise DisagreementError(f"B232 B307 {shown}: {member} is full")
        self._check_choice("B305 B306", member, clients, now_ns, shown)
        due_ns = now_ns + member.ack_wait_ns
        member.pending[seq] = Pending(due_ns, due_ns, 0)
        self.sent[seq] = now_ns
        self.next_seq = seq + 1

    def saw_again(
        self, member: Subscription, seq: int, clients: dict[str, Client], now_ns: int, opened_ns: int, shown: str
    ) -> None:
        """In the first pass to who has it, in sequence order; else to the best one (B309), which has it from then on (B310)."""
        holder = self.holder(seq)
        assert holder is not None
        pending = holder.pending[seq]
        waiting = holder.waiting_first()
        if waiting:
            if member is not holder or seq != waiting[0]:
                raise DisagreementError(f"B316 B363 {shown}: {holder.inbox} first, its next is {waiting[0]}")
            holder.first_pass = waiting[1:]
        else:
            self.pass_deadlines(holder, seq, now_ns, opened_ns=opened_ns)
            if now_ns < pending.low - SLACK_NS:
                raise DisagreementError(f"B422 {shown}: due from {pending.low - now_ns} ns on")
            is_first_pass = member is holder and now_ns <= self.began_ns
            if not is_first_pass:
                self._check_choice("B309", member, clients, now_ns, shown)
        if member is holder:
            pending.low, pending.high = next_due(pending, holder.ack_wait_ns, now_ns)
            return
        del holder.pending[seq]
        member.pending[seq] = pending
        pending.low = pending.high = now_ns + member.ack_wait_ns
        self.moved[seq] = now_ns

    def _check_choice(
        self, rule: str, chosen: Subscription, clients: dict[str, Client], now_ns: int, shown: str
    ) -> None:
        """Nobody who surely may get it has surely fewer. Removed messages may still be counted (B267)."""
        self.is_blurred = self.is_blurred and bool(self.pending)
        if self.is_blurred:
            return
        is_able = chosen.pending_stored() < chosen.max_in_flight
        is_healthy = clients[chosen.client_id].was_ever(failing=False, since_ns=now_ns)
        for other in self._surely_able(clients, now_ns):
            if other is chosen:
                continue
            if not (is_able and is_healthy) or len(other.pending) < chosen.pending_stored():
                raise DisagreementError(f"{rule} {shown}: {other.inbox} has {len(other.pending)}: {self}")

    def _surely_able(self, clients: dict[str, Client], now_ns: int) -> Iterator[Subscription]:
        for one in self.members:
            is_failing = clients[one.client_id].was_ever(failing=True, since_ns=now_ns)
            if len(one.pending) < one.max_in_flight and not is_failing:
                yield one

    # ---- time

    def pass_deadlines(self, holder: Subscription, seq: int, now_ns: int, *, opened_ns: int) -> None:
        """A deadline that passed unused: the message is gone (B267). Groups are not paused (B269)."""
        pending = holder.pending[seq]
        if max(pending.high, opened_ns) + SLACK_NS < now_ns:
            if seq >= self.channel.first:
                raise DisagreementError(f"B260 B312 at {now_ns}: {seq} not sent again: {self}")
            del holder.pending[seq]

    def settle(self, now_ns: int, *, opened_ns: int, is_held: bool) -> None:
        """Everything due has been sent; it waits only when all members are full (B307)."""
        for one in self.members:
            if one.waiting_first():
                raise DisagreementError(f"B316 B363 at {now_ns}: not sent: {one}")
            one.first_pass = []
            for seq in list(one.pending):
                self.pass_deadlines(one, seq, now_ns, opened_ns=opened_ns)
        expected = max(self.next_seq, self.channel.first)
        has_room = any(len(one.pending) < one.max_in_flight for one in self.members)
        if has_room and expected <= self.channel.last and not is_held:
            raise DisagreementError(f"B307 at {now_ns}: {expected} not sent: {self}")

    # ---- restart

    def recovered(self, last_sent: int, held: dict[int, str], now_ns: int, certain_ns: int) -> None:
        """`held`: inbox of the member that has each pending sequence, as replicated; empty when offline (B363)."""
        self.began_ns = now_ns
        self.is_blurred, was_blurred = False, self.is_blurred
        self.next_seq = last_sent + 1
        for seq in [*held, *range(last_sent + 1, self.channel.last + 1)]:
            self.acked.pop(seq, None)
        before = {seq: one.inbox for one in self.members for seq in one.pending}
        for seq, inbox in held.items():
            if (
                self.members
                and not was_blurred
                and before.get(seq, inbox) != inbox
                and self.moved.get(seq, 0) < certain_ns
            ):
                raise DisagreementError(f"B363 {seq} is with {inbox}, was with {before[seq]}: {self}")
        if not self.members:
            self.resting = {seq: Pending(now_ns, now_ns, 0) for seq in held}
        for one in self.members:
            one.pending = {}
            for seq in sorted(seq for seq, inbox in held.items() if inbox == one.inbox):
                due_ns = self.channel.timestamps[seq] + one.ack_wait_ns
                one.pending[seq] = Pending(due_ns, due_ns, 0)
            one.first_pass = sorted(seq for seq, pending in one.pending.items() if pending.high <= now_ns)
