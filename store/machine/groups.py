"""Queue groups: who joins and leaves, and what happens to the messages a member holds (B300 to B319). Pure.

Whatever a leaving member held is dealt to the others within the same operation, so that no message is ever without holder
while there are members (B312, B313).
"""

from itertools import count, cycle

from store.holders import SLOT_MAX, Holders, slots_of
from store.machine import refusals
from store.machine.state import Channel, Group, Refusal, Result, State, Subscription
from store.operations import GroupProgress


def find_or_create(state: State, channel: Channel, member: Subscription, last_sent: int) -> Group:
    """The group that `member` names; a new one starts behind `last_sent` (B303)."""
    key = (channel.channel_id, member.durable_name, member.queue_group)
    group = state.groups_by_key.get(key)
    if group is None:
        group = Group(
            group_id=member.subscription_id,
            channel_id=channel.channel_id,
            durable_name=member.durable_name,
            name=member.queue_group,
            holders=Holders(last_sent),
        )
        state.groups_by_key[key] = state.groups[group.group_id] = group
        channel.group_ids[group.group_id] = None
        channel.offline_groups += 1
        state.changes.groups.add(group.group_id)
        state.changes.group_progress.add(group.group_id)
    return group


def is_full(group: Group) -> bool:
    """Whether slot numbers have run out."""
    return len(group.members) >= SLOT_MAX


def join(state: State, group: Group, member: Subscription) -> None:
    """`member` is the last in the group's order; the first one of an offline group gets all that is pending (B316)."""
    member.group_id = group.group_id
    member.slot = next(slot for slot in count(1) if slot not in group.members)
    if not group.members:
        group.holders.give_all(member.slot)
        state.changes.group_progress.add(group.group_id)
        state.channels_by_id[group.channel_id].offline_groups -= 1
    group.members[member.slot] = member


def leave(state: State, member: Subscription, *, is_unsubscribe: bool) -> None:
    """The others take over what `member` held (B312); the last one leaves an offline group, or none (B314, B315)."""
    group = state.groups[member.group_id]
    del group.members[member.slot]
    if group.members:
        _deal(state, group, group.holders.held_by(member.slot, 1, group.holders.last))
        return
    state.channels_by_id[group.channel_id].offline_groups += 1
    if is_unsubscribe or not group.durable_name:
        remove(state, group)


def remove(state: State, group: Group) -> None:
    """Remove a group without members."""
    channel = state.channels_by_id[group.channel_id]
    channel.offline_groups -= 1
    del channel.group_ids[group.group_id]
    del state.groups[group.group_id]
    del state.groups_by_key[group.channel_id, group.durable_name, group.name]
    state.changes.groups.add(group.group_id)
    state.changes.group_progress.add(group.group_id)


def advance(state: State, operation: GroupProgress) -> Result:
    """Take over the progress. Refused as a whole when it would lose a message: by acking beyond what was sent, or by a gap."""
    group = state.groups.get(operation.group_id)
    if group is None:
        return refusals.INVALID_SUBSCRIPTION
    refusal = _check(state, group, operation)
    if refusal is not None:
        return refusal
    holders = group.holders
    if operation.sent:
        holders.skip(operation.first - 1)
        holders.append(slots_of(operation.sent))
    if operation.last_sent > holders.last:
        holders.skip(operation.last_sent)
    for seq in operation.acked:
        if seq > holders.floor:
            holders.put(seq, 0)
    for seq, slot in operation.moved:
        if holders.at(seq):
            holders.put(seq, slot)
    holders.advance(operation.floor)
    _adopt_strangers(state, group, operation)
    state.changes.group_progress.add(group.group_id)
    return None


def _check(state: State, group: Group, operation: GroupProgress) -> Refusal | None:
    holders = group.holders
    last_sent = max(holders.last, operation.last_sent)
    if operation.last_sent > state.channels_by_id[group.channel_id].last_seq:
        return Refusal(f"progress says {operation.last_sent} was sent, which is beyond the channel's end")
    reported = max(operation.floor, *operation.acked, 0)
    if reported > last_sent:
        return Refusal(f"progress acks up to {reported}, sent is {last_sent}")
    if operation.sent:
        known = max(holders.last, operation.floor)
        end = operation.first + len(operation.sent) // 2 - 1
        if operation.first != known + 1 or end > operation.last_sent:
            return Refusal(
                f"progress says who holds {operation.first} to {end}, known is {known}, sent is {operation.last_sent}"
            )
    return None


def _adopt_strangers(state: State, group: Group, operation: GroupProgress) -> None:
    """A slot that is no member's any more holds nothing: the members take over."""
    if not group.members:
        return
    strangers = {slot for _, slot in operation.moved} | set(slots_of(operation.sent))
    for slot in sorted(strangers - group.members.keys() - {0}):
        _deal(state, group, group.holders.held_by(slot, 1, group.holders.last))


def _deal(state: State, group: Group, seqs: list[int]) -> None:
    """To the members in turn."""
    if seqs:
        state.changes.group_progress.add(group.group_id)
    for seq, slot in zip(seqs, cycle(group.members), strict=False):
        group.holders.put(seq, slot)
