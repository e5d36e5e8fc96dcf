"""Knows when nothing was being broken: strict promises are checked only for what lies wholly in such a time. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Calm:
    """The disturbed times of a run, monotonic nanoseconds; everything else is calm."""

    disturbed: list[tuple[int, int]] = field(default_factory=list)
    """Begin and end, sorted, without overlap."""

    @classmethod
    def except_for(cls, spans: Iterable[tuple[int, int]], *, before_ns: int, after_ns: int) -> "Calm":
        """Calm but for these spans, each widened: a fault shows in what was under way, and it takes time to settle."""
        merged: list[tuple[int, int]] = []
        for start, end in sorted((start - before_ns, end + after_ns) for start, end in spans):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return cls(merged)

    def covers(self, start_ns: int, end_ns: int) -> bool:
        """Whether the whole time from `start_ns` to `end_ns` was calm."""
        return all(end < start_ns or start > end_ns for start, end in self.disturbed)
