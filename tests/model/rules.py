"""The parts of the reference model: channels, subscriptions, deadlines, what a restart may bring back. Plain data."""

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from server.protocol.stan_pb2 import MsgProto

if TYPE_CHECKING:
    from tests.model.groups import Group

SLACK_NS: Final = 15_000_000
"""Redeliveries may be early by this, and late (B261)."""

PROGRESS_NS: Final = 20_000_000
"""What was sent and acked longer ago survives a crash (B253, B394)."""

MAX_AGE_LATE_NS: Final = 120_000_000
"""How late a message may expire and an inactive channel go (B328: "a few ms late is fine"; the server looks in rounds)."""


class DisagreementError(AssertionError):
    """The server did what a rule forbids, or did not do what it demands. The text begins with the rule's number."""


@dataclass(frozen=True)
class Rules:
    """Options that matter here; 0 = unlimited."""

    max_msgs: int = 0
    max_bytes: int = 0
    max_age_ns: int = 0
    max_inactivity_ns: int = 0
    max_subs: int = 0
    message_overhead: int = 0
    heartbeat_ns: int = 0
    heartbeat_timeout_ns: int = 0
    heartbeat_failures: int = 0


@dataclass
class Client:
    """A registered client and its heartbeats."""

    client_id: str
    heartbeat_due_ns: int
    heartbeat_sent_ns: int = 0
    """0 = none under way."""
    failures: int = 0
    marks: list[tuple[int, bool]] = field(default_factory=lambda: [(0, False)])
    """From when on heartbeats failed or did not."""

    def heartbeat_ended(self, now_ns: int, next_ns: int, *, failures: int) -> None:
        """Answered or not; the next one is due at `next_ns`."""
        self.heartbeat_due_ns, self.heartbeat_sent_ns = next_ns, 0
        self.failures = failures
        self.marks.append((now_ns, failures > 0))

    def was_ever(self, *, failing: bool, since_ns: int, until_ns: int | None = None) -> bool:
        """True when its heartbeats did (not) fail at some moment between, both included."""
        end_ns = since_ns if until_ns is None else until_ns
        ends = [mark[0] for mark in self.marks[1:]] + [end_ns + 1]
        return any(
            is_failing == failing and begin <= end_ns and end >= since_ns
            for (begin, is_failing), end in zip(self.marks, ends, strict=True)
        )


@dataclass
class Channel:
    """Messages by sequence. Removed ones are remembered; `first` says where the stored ones begin."""

    name: str
    active_ns: int
    """When its inactivity clock last started (B338)."""
    first: int = 1
    last: int = 0
    expired: tuple[int, int] = (0, 1)
    """When messages last expired, and `first` before: what left at the same moment may have been on its way."""
    datas: dict[int, bytes] = field(default_factory=dict)
    timestamps: dict[int, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return self.last - self.first + 1

    def first_on_its_way(self, now_ns: int) -> int:
        """The first sequence that may arrive now."""
        at_ns, first_before = self.expired
        return first_before if at_ns == now_ns else self.first

    def store(self, data: bytes, now_ns: int) -> None:
        previous_ns = self.timestamps.get(self.last, 0)
        self.last += 1
        self.datas[self.last] = data
        self.timestamps[self.last] = max(previous_ns, now_ns)  # B203

    def stored_bytes(self, overhead: int) -> int:
        """B327: encoded size and overhead of what is stored."""
        return sum(self._message(seq).ByteSize() + overhead for seq in range(self.first, self.last + 1))

    def settle(self, rules: Rules, now_ns: int, released_ns: int, *, is_used: bool) -> None:
        """Raises when something should be gone by now (B328, B336)."""
        if rules.max_age_ns and self.count:
            late_ns = now_ns - self.timestamps[self.first] - rules.max_age_ns
            if min(late_ns, now_ns - released_ns) > MAX_AGE_LATE_NS:
                raise DisagreementError(f"B328 {self.name}:{self.first} is still there, {late_ns} ns late")
        late_ns = now_ns - self.active_ns - rules.max_inactivity_ns
        if rules.max_inactivity_ns and not is_used and late_ns > MAX_AGE_LATE_NS:
            raise DisagreementError(f"B336 {self.name} is still there, {late_ns} ns late")

    def _message(self, seq: int) -> MsgProto:
        return MsgProto(sequence=seq, subject=self.name, data=self.datas[seq], timestamp=self.timestamps[seq])

    def start(self, position: str, value: int, now_ns: int) -> int:
        """The first sequence of a new subscription: the table of B220."""
        following = self.last + 1
        if not self.last or self.first > self.last or position == "NewOnly":
            return following
        if position == "LastReceived":
            return self.last
        if position == "First":
            return self.first
        if position == "SequenceStart":
            return following if value > self.last else max(value, self.first)
        stored = range(self.first, following)
        return stored.start + bisect_left([self.timestamps[seq] for seq in stored], now_ns - value)


@dataclass
class Pending:
    """A message sent and not acked: due again between `low` and `high` (ns)."""

    low: int
    high: int
    count: int
    """Redeliveries so far (B271)."""


def next_due(pending: Pending, ack_wait_ns: int, now_ns: int) -> tuple[int, int]:
    """After a redelivery now: one ack wait after the old deadline (B260), after now if that is past, too (B264)."""
    low, high = pending.low + ack_wait_ns, pending.high + ack_wait_ns
    if high <= now_ns - SLACK_NS:
        return now_ns + ack_wait_ns, now_ns + ack_wait_ns
    if low > now_ns + SLACK_NS:
        return low, high
    return min(low, now_ns), max(high, now_ns + ack_wait_ns)  # either way of counting


@dataclass
class Subscription:
    """A plain or durable subscription, or a member of a queue group: then its place in the log is the group's."""

    client_id: str
    channel: Channel
    inbox: str
    """Of its present life; names it."""
    durable: str
    max_in_flight: int
    ack_wait_ns: int
    group_name: str = ""
    is_online: bool = True
    next_seq: int = 1
    pending: dict[int, Pending] = field(default_factory=dict)
    sent: dict[int, int] = field(default_factory=dict)
    """When each sequence was last sent as new, crashes survived."""
    acked: dict[int, int] = field(default_factory=dict)
    """When each sequence was acked."""
    first_pass: list[int] = field(default_factory=list)
    """Pending when it was resumed, or past due when the server started: sent before anything else (B284, B363)."""
    suspect_to: int = 0
    """Up to here an earlier server life may have sent more than it left behind: flags are allowed (B394)."""
    round: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
    """Time, deadline, sequence and count of the last redelivery."""

    def __repr__(self) -> str:
        pending = {seq: (one.low, one.high, one.count) for seq, one in self.pending.items()}
        return (
            f"{self.inbox} on {self.channel.name} {self.channel.first}..{self.channel.last} next={self.next_seq}"
            f" max={self.max_in_flight} first_pass={self.first_pass} pending={pending} suspect_to={self.suspect_to}"
        )

    def pending_stored(self) -> int:
        """Pending without what a limit removed: the server may treat that as acked (B267)."""
        return sum(seq >= self.channel.first for seq in self.pending)

    def waiting_first(self) -> list[int]:
        return [seq for seq in self.first_pass if seq >= self.channel.first]

    def check_round(self, pending: Pending, seq: int, now_ns: int, shown: str) -> None:
        """B262: within one round by deadline, equal deadlines by sequence."""
        at_ns, low, high, last, count = self.round
        # A few ms may shift a deadline: only those sent together surely share theirs.
        is_same = (pending.low, pending.high, pending.count) == (low, high, count) and low == high
        if at_ns == now_ns and (low > pending.high + SLACK_NS or (is_same and seq < last)):
            raise DisagreementError(f"B262 {shown}: {last} with deadline {low} came before, its own is {pending.high}")
        self.round = (now_ns, pending.low, pending.high, seq, pending.count)


@dataclass
class Survived:
    """The progress of one subscription or queue group that a restart brought back."""

    subscription: "Subscription | Group"
    last_sent: int
    pending: list[int]
    held: dict[int, str] = field(default_factory=dict)
    """Of a group: the inbox of the member that has each pending one."""

    def check(self, certain_ns: int) -> None:
        """Everything sent or acked before `certain_ns` is in it; nothing is in it that never was; nothing is lost."""
        one = self.subscription
        stored = range(one.channel.first, one.channel.last + 1)
        if self.last_sent > max(one.next_seq, one.channel.first) - 1:
            raise DisagreementError(f"B394 last sent is {self.last_sent} after the restart: a loss: {one}")
        for seq in stored:
            is_back = seq in self.pending or seq > self.last_sent
            if seq in one.pending and not is_back:
                raise DisagreementError(f"B394 B416 {seq} was pending and is lost: {one}")
            if seq > self.last_sent and one.next_seq > seq and one.sent.get(seq, certain_ns) < certain_ns:
                raise DisagreementError(f"B394 {seq} was sent at {one.sent[seq]}, last sent is {self.last_sent}: {one}")
            if is_back and one.acked.get(seq, certain_ns) < certain_ns:
                raise DisagreementError(f"B253 {seq} was acked at {one.acked[seq]} and comes again: {one}")
        for seq in self.pending:
            if seq not in one.sent:
                raise DisagreementError(f"B235 B363 {seq} is pending and was never sent: {one}")
