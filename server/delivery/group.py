"""Delivers to a queue group: each message to one of its members (B300 to B319).

The leader's view runs ahead of the replicated one. When a member leaves, its messages stay with it here until its end is
applied; then the replicated state says who has them now (`ended`). So both views name the same holders (B313).
"""

from array import array
from collections.abc import Iterable
from functools import partial

from server import hot, windows
from server.delivery import choice
from server.delivery.schedule import Due, MemberSchedule
from server.delivery.stream import Context, Stream
from server.delivery.turns import Alarm
from store.machine.state import Channel, Group, Subscription
from store.operations import GroupProgress

TRANSFER_NS = 100_000_000
"""What a member held that left is due after this time, nanoseconds. Source: B312, B425."""


class GroupMember:
    """One online member: its replicated record, its hot part, its deadlines."""

    def __init__(self, record: Subscription, member: windows.Member, stream: "GroupStream") -> None:
        self.record = record
        self.hot = member
        self.schedule = MemberSchedule(record.ack_wait_s * 1_000_000_000)
        self.alarm = Alarm(stream.context.turns, lambda: stream.member_due(self))
        self.is_in_first_pass = False
        """What was pending at the start has not been sent yet: it goes to nobody else (B316, B363)."""


class GroupStream(Stream):
    """One queue group with online members."""

    def __init__(self, record: Group, channel: Channel, hot_channel: windows.Channel, context: Context) -> None:
        super().__init__(record.group_id, channel, context)
        self.record = record
        self.hot = windows.Group(hot_channel, record.holders.copy())
        self.members: dict[int, GroupMember] = {}
        """By slot."""
        self.order: list[windows.Member] = []
        """As B305 has it."""
        self._leaving: dict[int, int] = {}
        """By slot: ids of members that get nothing more and whose end may not be applied yet."""

    @property
    def next_seq(self) -> int:
        """The next sequence to send as new."""
        return self.hot.holders.last + 1

    @property
    def replicated_last(self) -> int:
        """Last sent, as replicated."""
        return self.record.holders.last

    @property
    def suspect_to(self) -> int:
        """As in the record."""
        return self.record.suspect_to

    @property
    def counts(self) -> dict[int, int]:
        """Redelivery counts, of the group (B271)."""
        return self.hot.counts

    # ---- members

    def join(self, record: Subscription) -> windows.Member:
        """A member joins; the first one gets all that is pending, and first (B316)."""
        is_first = not self.members
        member, pending = self._seat(record)
        if pending and is_first:
            self.is_on_hold = member.is_in_first_pass = True
            member.schedule.add(self.context.monotonic_ns() - member.schedule.ack_wait_ns, pending[0], pending[-1])
        else:
            self._take_over(member, pending)
        return member.hot

    def recover(self, record: Subscription) -> windows.Member:
        """Leadership began: what is pending goes when it is due, to the member that had it, and first (B363)."""
        member, pending = self._seat(record)
        if pending:
            self.is_on_hold = member.is_in_first_pass = True
            self.recover_deadlines(member.schedule, pending)
        return member.hot

    def _seat(self, record: Subscription) -> tuple[GroupMember, list[int]]:
        """The member with its slot, and what that slot holds."""
        pending = self.hot.holders.held_by(record.slot, 1, self.hot.holders.last)
        inbox = record.inbox.encode()
        hot_member = windows.Member(
            self.hot.channel, record.subscription_id, inbox, record.max_in_flight, self.hot, record.slot
        )
        hot_member.pending_number = len(pending)
        member = GroupMember(record, hot_member, self)
        self.members[record.slot] = member
        self.hot.members[record.slot] = hot_member
        self.order.append(hot_member)
        return member, pending

    def remove(self, slot: int) -> None:
        """A member leaves: nothing more goes to it. What it holds stays with it until `ended`."""
        leaving = self.members.pop(slot)
        self._leaving[slot] = leaving.record.subscription_id
        leaving.alarm.cancel()
        del self.hot.members[slot]
        self.order.remove(leaving.hot)
        self._end_hold()

    def ended(self) -> None:
        """The end of a member is applied: the replicated state says who has its messages now (B312)."""
        holders = self.hot.holders
        known = self.context.store.state.subscriptions
        # Of those whose end is still under way it does not know the newest messages.
        self._leaving = {slot: number for slot, number in self._leaving.items() if number in known}
        for slot in holders.counts().keys() - self.members.keys() - self._leaving.keys():
            taken: dict[int, list[int]] = {}
            for seq in holders.held_by(slot, 1, holders.last):
                new_slot = self.record.holders.at(seq)
                holders.put(seq, new_slot)
                taken.setdefault(new_slot, []).append(seq)
            for new_slot, seqs in taken.items():
                member = self.members.get(new_slot)
                if member is not None:
                    member.hot.pending_number += len(seqs)
                    self._take_over(member, seqs)

    def _take_over(self, member: GroupMember, seqs: list[int]) -> None:
        due_ns = self.context.monotonic_ns() + TRANSFER_NS
        for seq in seqs:
            member.schedule.single(seq, due_ns)
        member.alarm.set(member.schedule.next_due_ns)

    def _end_hold(self) -> None:
        self.is_on_hold = any(one.is_in_first_pass for one in self.members.values())

    def _is_failing(self, member: windows.Member) -> bool:
        return self.context.port.is_failing(self.members[member.slot].record.client_id)

    # ---- new messages

    def room(self) -> int:
        """Of all members that may get something (B307)."""
        return choice.room(self.order, self._is_failing)

    def skip_to(self, seq: int) -> None:
        """A limit removed what is before `seq`."""
        self.hot.holders.skip(seq - 1)

    def gone(self, seq: int) -> None:
        """Counts as acked."""
        self.hot.gone(seq)

    def send_new(self, first: int, messages: list[bytes]) -> None:
        """Each to the member whose turn it is (B305), handed over in the order of the log (B319)."""
        context = self.context
        chosen = choice.deal(self.order, self._is_failing, len(messages))
        hot.delivery_frames_to([one.frame_head for one in chosen], messages, context.port.parts)
        self.hot.holders.append(array("H", [one.slot for one in chosen]))
        now_ns = context.monotonic_ns()
        last = first + len(messages) - 1
        for one in dict.fromkeys(chosen):
            member = self.members[one.slot]
            member.schedule.forget_below(self.hot.holders.floor)
            member.schedule.tidy(partial(self.hot.holders.is_any_held_by, one.slot))
            member.schedule.sent(first, last, now_ns)
            member.alarm.set(member.schedule.next_due_ns)
        self._trace(chosen, range(first, last + 1), is_again=False)

    # ---- messages that are due again

    def redeliver(self) -> None:
        """What is due, of every member."""
        if not self.context.port.is_open():
            self.context.turns.block(self)
            return
        for member in list(self.members.values()):
            self._redeliver_of(member)

    def member_due(self, member: GroupMember) -> None:
        """A deadline of this member passed."""
        if not self.context.port.is_open():
            self.context.turns.block(self)
            return
        member.schedule.forget_below(self.hot.holders.floor)
        self._redeliver_of(member)
        self.deliver()

    def _redeliver_of(self, member: GroupMember) -> None:
        """To any member, failing heartbeats or not (B269, B309); in the first pass to the one that has it."""
        context, schedule = self.context, member.schedule
        now_ns = context.monotonic_ns()
        budget = context.turn_max_bytes
        while (entry := schedule.pop_due(now_ns)) is not None:
            if not context.port.is_open():
                schedule.sent_partly(entry, entry.first)
                context.turns.block(self)
                return
            held = self.hot.holders.held_by(member.hot.slot, entry.first, entry.last)
            pending = [seq for seq in held if schedule.covers(entry, seq)]
            done, seqs, frames = self.frames_again(pending, budget)
            if frames:
                budget -= self._send_again(member, seqs, frames)
            if done:
                self._note_sent_again(member, entry, pending[:done], now_ns)
            if done < len(pending):
                schedule.sent_partly(entry, pending[done])
                context.turns.continue_later(self)
                return
        member.alarm.set(schedule.next_due_ns)
        if member.is_in_first_pass:
            member.is_in_first_pass = False
            self._end_hold()

    def _send_again(self, holder: GroupMember, seqs: list[int], frames: list[bytes]) -> int:
        """Hand over redeliveries; returns their bytes."""
        context = self.context
        if holder.is_in_first_pass:
            chosen = [holder.hot] * len(seqs)
        else:
            chosen = []
            for seq in seqs:
                one = choice.choose_again(self.order, self._is_failing)
                if one is not holder.hot:
                    self.hot.move(seq, one)
                chosen.append(one)
        hot.delivery_frames_to([one.frame_head for one in chosen], frames, context.port.parts)
        context.redelivered += len(frames)
        self.resent += len(frames)
        context.turns.note_change(self)
        self._trace(chosen, seqs, is_again=True)
        size = sum(map(len, frames))
        context.sent(size)
        return size

    def _note_sent_again(self, member: GroupMember, entry: Due, seqs: list[int], now_ns: int) -> None:
        """What stayed with `member` keeps its rhythm (B260); what moved is due after the new holder's ack wait (B310)."""
        holders = self.hot.holders
        moved: dict[int, list[int]] = {}
        has_stayed = False
        for seq in seqs:
            slot = holders.at(seq)
            if slot == member.hot.slot:
                has_stayed = True
            elif slot:
                moved.setdefault(slot, []).append(seq)
        if has_stayed:
            member.schedule.sent_again(entry, seqs[0], seqs[-1], now_ns)
        for slot, taken in moved.items():
            holder = self.members[slot]
            for seq in taken:
                holder.schedule.single(seq, now_ns + holder.schedule.ack_wait_ns)
            holder.alarm.set(holder.schedule.next_due_ns)

    def _trace(self, chosen: list[windows.Member], seqs: Iterable[int], *, is_again: bool) -> None:
        trace = self.context.trace
        if trace is not None:
            for one, seq in zip(chosen, seqs, strict=True):
                trace.delivered(self.members[one.slot].record, self.channel.name, [seq], is_again=is_again)

    def silence(self) -> None:
        """No timer fires any more."""
        for member in self.members.values():
            member.alarm.cancel()

    # ---- reports

    def progress(self) -> GroupProgress | None:
        """Sent, acked and moved since the last report."""
        group, holders = self.hot, self.hot.holders
        holders.advance()
        last, floor = holders.last, holders.floor
        is_same = last == group.reported_last and floor == group.reported_floor
        if is_same and not group.acked and not group.moved:
            return None
        known = max(group.reported_last, floor)
        sent = holders.slots_from(known + 1)
        operation = GroupProgress(
            group_id=self.key,
            last_sent=last,
            floor=floor,
            acked=tuple(seq for seq in group.acked if seq > floor),
            moved=tuple((seq, holders.at(seq)) for seq in sorted(group.moved) if holders.at(seq)),
            first=known + 1 if sent else 0,
            sent=sent,
        )
        group.reported_last, group.reported_floor = last, floor
        group.acked = []
        group.moved = set()
        return operation

    def statistics(self) -> tuple[int, int]:
        """Pending of the group, and stalled members."""
        stalled = sum(one.pending_number >= one.max_in_flight for one in self.order)
        return sum(one.pending_number for one in self.order), stalled
