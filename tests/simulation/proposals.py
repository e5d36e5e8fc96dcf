"""What was proposed, when, and how it ended; checked against the log at the end (R1, R2, R5)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import google_crc32c

from raft.state_machine import CommittedEntry

from .violation import ViolationError

NEVER_S: Final = float("inf")


@dataclass(slots=True)
class Proposal:
    """One proposal. Without `index` it was refused; without `applied_s` its outcome is not known."""

    number: int
    proposed_s: float
    checksum: int
    """CRC-32C of its bytes."""
    index: int | None = None
    applied_s: float | None = None


class Proposals:
    """All of a run."""

    def __init__(self, number_of: Callable[[memoryview], int]) -> None:
        self._number_of = number_of
        self.all: list[Proposal] = []
        self.applied_count = 0
        self.applied_s = 0.0
        """When the last one was applied."""

    def new(self, now: float, parts: Sequence[bytes | memoryview]) -> Proposal:
        """Begin one, of these parts."""
        checksum = 0
        for part in parts:
            checksum = google_crc32c.extend(checksum, bytes(part))
        proposal = Proposal(len(self.all), now, checksum)
        self.all.append(proposal)
        return proposal

    def applied(self, proposal: Proposal, now: float) -> None:
        """It ended well."""
        proposal.applied_s = now
        self.applied_count += 1
        self.applied_s = now

    def number_of(self, entry: CommittedEntry) -> int | None:
        """Which proposal an entry is; None for those of the log itself."""
        if entry.is_configuration or not entry.data:
            return None
        number = self._number_of(entry.data)
        if not 0 <= number < len(self.all):
            raise ViolationError("R2", f"entry {entry.index} is proposal {number}, which nobody made")
        if google_crc32c.value(bytes(entry.data)) != self.all[number].checksum:
            raise ViolationError("R2", f"entry {entry.index} is proposal {number} with other bytes")
        return number

    def check(self, log: Sequence[int | None]) -> None:
        """Compare with `log`, the numbers of proposals by index."""
        places: dict[int, int] = {}
        for index, number in enumerate(log):
            if number is None:
                continue
            if number in places:
                raise ViolationError("R1", f"proposal {number} is in the log at {places[number]} and at {index}")
            if self.all[number].index is None:
                raise ViolationError("R2", f"entry {index} is proposal {number}, which was refused")
            places[number] = index
        for proposal in self.all:
            place = places.get(proposal.number)
            if proposal.applied_s is not None and place != proposal.index:
                raise ViolationError(
                    "R1", f"proposal {proposal.number} was applied at {proposal.index}, in the log it is at {place}"
                )
        earliest, whose = NEVER_S, -1
        for number in reversed([one for one in log if one is not None]):
            proposal = self.all[number]
            if proposal.proposed_s > earliest:
                raise ViolationError(
                    "R5", f"proposal {number} was made after {whose} had been applied, and stands before it"
                )
            if proposal.applied_s is not None and proposal.applied_s < earliest:
                earliest, whose = proposal.applied_s, number
