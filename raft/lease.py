"""Decides until when a leader may serve: while it is certain that nobody else can have been elected. Pure.

Rule: a member that answered what was sent at time t helps to elect nobody before t plus the shortest election timeout (leader
stickiness, and no vote for that long after a start). With a majority such, the lease ends a fixed time after the newest t
that a majority has answered, measured from sending: on this node's clock only (Raft dissertation, section 6.4.1; B401).
"""

import math
from collections.abc import Iterable


def confirmed_until(confirmed_s: Iterable[float], *, majority: int, is_member: bool, lease_s: float) -> float:
    """Clock time up to which the leader may serve.

    `confirmed_s`: for each other voter when the newest message was sent that it answered, below zero if it answered
    none. `is_member`: whether this node is a voter itself, which it need not ask.
    """
    times = sorted((time for time in confirmed_s if time >= 0), reverse=True)
    needed = majority - 1 if is_member else majority
    if needed == 0:
        return math.inf
    return times[needed - 1] + lease_s if len(times) >= needed else -math.inf
