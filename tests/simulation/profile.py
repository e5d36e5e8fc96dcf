"""What a seed draws first: how many nodes, which faults are on and how strong, how large things are.

All faults at once explore less than some of them: each seed has its own mix.
"""

from dataclasses import dataclass
from random import Random
from typing import Final

FAULTS: Final = (
    "crash",
    "crash_leader",
    "crash_all",
    "crash_at_moment",
    "old_store",
    "lost_store",
    "empty_directory",
    "pause",
    "lose_messages",
    "cut",
    "one_way_cut",
    "isolate",
    "bridge",
    "slow_link",
    "slow_disk",
    "starve",
    "stop",
    "give_way",
    "change_members",
    "reconnect",
)
"""Names of `faults.Faults`'s methods."""

ALONE: Final = ("crash", "crash_all", "crash_at_moment", "pause", "slow_disk", "starve", "stop", "reconnect")
"""Those that make sense for one node."""

HARMLESS: Final = ("starve", "slow_disk")
"""Those that must not cost a leader its role, as long as they last at most `HARMLESS_S` at a time (F16)."""

HARMLESS_S: Final = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One seed's world. Seconds, bytes, probabilities."""

    node_count: int
    is_grown: bool = False
    """The cluster begins with one node, the others join it."""
    faults: tuple[str, ...] = FAULTS
    fault_interval_s: float = 1.0
    fault_s: float = 28.0
    """How long faults happen."""
    is_fifo: bool = True
    loss: float = 0.0
    duplicate: float = 0.0
    spike: float = 0.02
    spike_s: float = 0.05
    slow_disk_s: float = 0.3
    stall_s: float = 0.3
    trailing_entries: int = 1000
    burst_interval_s: float = 0.15
    quiet: float = 0.0
    """Probability that a burst is followed by seconds without any."""
    big: float = 0.02
    """Probability that an entry has up to 300 KB."""
    huge: float = 0.0
    """Probability that it has 3 MB."""
    snapshot_bytes: int = 600_000
    snapshot_failure: float = 0.0
    payload_max_bytes: int = 1_000_000
    has_secret: bool = False
    is_calm: bool = False
    """Nothing may change the leader (F16)."""


def draw(random: Random, node_count: int) -> Profile:
    """The profile of a seed."""
    allowed = ALONE if node_count == 1 else FAULTS
    faults = tuple(one for one in allowed if random.random() < 0.45) or allowed
    is_harsh = random.random() < 0.35
    is_lossy = is_harsh or random.random() < 0.2
    return Profile(
        node_count=node_count,
        is_grown=node_count == 3 and random.random() < 0.2,
        faults=faults,
        fault_interval_s=random.choice((0.5, 0.8, 1.2, 2.5)),
        is_fifo=not is_harsh,
        loss=random.choice((0.005, 0.02, 0.05)) if is_lossy else 0.0,
        duplicate=random.choice((0.0, 0.05)) if is_harsh else 0.0,
        spike=random.choice((0.0, 0.02, 0.1)),
        spike_s=2.0 if is_harsh and random.random() < 0.5 else random.choice((0.02, 0.3)),
        slow_disk_s=random.choice((0.05, 0.3, 0.8)),
        trailing_entries=random.choice((0, 3, 30, 1000)),
        burst_interval_s=random.choice((0.05, 0.1, 0.2)),
        quiet=random.choice((0.0, 0.02, 0.1)),
        big=random.choice((0.0, 0.01, 0.05)),
        huge=random.choice((0.0, 0.0, 0.002)),
        snapshot_bytes=random.choice((200, 300_000, 1_200_000)),
        snapshot_failure=random.choice((0.0, 0.0, 0.2)),
        payload_max_bytes=random.choice((64 * 1024, 1_000_000)),
        has_secret=random.random() < 0.3,
    )


def calm(random: Random, node_count: int) -> Profile:
    """Only processors and disks are slow, and not for longer than `HARMLESS_S`: no leader may change (F16)."""
    return Profile(
        node_count=node_count,
        faults=tuple(one for one in HARMLESS if random.random() < 0.7) or HARMLESS,
        fault_interval_s=0.3,
        fault_s=20.0,
        slow_disk_s=HARMLESS_S,
        stall_s=HARMLESS_S,
        spike=0.0,
        is_calm=True,
    )
