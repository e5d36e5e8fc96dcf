"""Decides which member of a queue group gets a message (B305 to B309). Pure.

Rules: the one that holds the fewest, of those that are not full and whose client answers heartbeats; of equals the first in
the group's order; whoever is chosen while first moves to the end. So equal members get messages in turn.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar


class Candidate(Protocol):
    """A member, as far as the choice is concerned."""

    max_in_flight: int
    pending_number: int


C = TypeVar("C", bound=Candidate)


def room(order: list[C], is_failing: Callable[[C], bool]) -> int:
    """How many new messages `deal` can give out now; 0 when all members are full (B307)."""
    open_members = [one for one in order if one.pending_number < one.max_in_flight]
    healthy = [one for one in open_members if not is_failing(one)]
    return sum(one.max_in_flight - one.pending_number for one in healthy or open_members)


def deal(order: list[C], is_failing: Callable[[C], bool], count: int) -> list[C]:
    """The members that get the next `count` messages, at most `room`; counts them as held, and moves `order`."""
    failing = {id(one) for one in order if is_failing(one)}
    chosen: list[C] = []
    while len(chosen) < count:
        open_members = [one for one in order if one.pending_number < one.max_in_flight]
        candidates = [one for one in open_members if id(one) not in failing] or open_members[:1]  # B306
        level = min(one.pending_number for one in candidates)
        ready = [one for one in candidates if one.pending_number == level]
        wanted = count - len(chosen)
        # Rounds at once, when a round leaves the order as it is: nobody is moved, or everybody.
        is_steady = len(ready) == len(order) or order[0] is not ready[0]
        rounds = min(_rounds(candidates, level), wanted // len(ready)) if is_steady else 0
        for one in ready if rounds else ready[:wanted]:
            one.pending_number += rounds or 1
        if rounds:
            chosen += ready * rounds
        else:
            chosen += ready[:wanted]
            for one in ready[:wanted]:
                _move_back(order, one)
    return chosen


def _rounds(candidates: list[C], level: int) -> int:
    """How many messages each member at `level` gets before one of them is full or others hold as few."""
    above = [one.pending_number for one in candidates if one.pending_number > level]
    return min([one.max_in_flight for one in candidates if one.pending_number == level] + above) - level


def _move_back(order: list[C], chosen: C) -> None:
    if order[0] is chosen:
        order.append(order.pop(0))


def choose_again(order: list[C], is_failing: Callable[[C], bool]) -> C:
    """The member that gets a message again: as a new one, or the first when all are full or failing (B309)."""
    chosen = order[0]
    fewest = -1
    for one in order:
        if (
            one.pending_number < one.max_in_flight
            and (fewest < 0 or one.pending_number < fewest)
            and not is_failing(one)
        ):
            chosen, fewest = one, one.pending_number
    _move_back(order, chosen)
    return chosen
