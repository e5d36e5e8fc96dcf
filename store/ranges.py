"""A set of sequences as sorted, disjoint, non-adjacent inclusive ranges. Pure.

Invariant: first[i] <= last[i] and last[i] + 1 < first[i + 1]. Equal sets have equal ranges, however they were built.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Ranges:
    """Acked sequences above a floor. Costs two list entries per gap, not per sequence."""

    __slots__ = ("_first", "_last")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._first: list[int] = []
        self._last: list[int] = []
        for first, last in ranges:
            self.add(first, last)

    def add(self, first: int, last: int) -> None:
        """Add `first` to `last`, both included."""
        assert first <= last
        begin = bisect_left(self._last, first - 1)
        end = bisect_right(self._first, last + 1, begin)
        if begin < end:
            first = min(first, self._first[begin])
            last = max(last, self._last[end - 1])
        self._first[begin:end] = [first]
        self._last[begin:end] = [last]

    def advance_floor(self, floor: int) -> int:
        """Forget everything up to `floor` and what continues it; returns the floor that results."""
        drop = bisect_right(self._first, floor + 1)
        if drop:
            floor = max(floor, self._last[drop - 1])
            del self._first[:drop]
            del self._last[:drop]
        return floor

    def gaps(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Ranges of `first` to `last` that are not in the set, ascending."""
        position = bisect_left(self._last, first)
        while first <= last:
            if position == len(self._first) or self._first[position] > last:
                yield first, last
                return
            if first < self._first[position]:
                yield first, self._first[position] - 1
            first = self._last[position] + 1
            position += 1

    def ranges(self) -> Iterator[tuple[int, int]]:
        """All ranges, ascending."""
        return zip(self._first, self._last, strict=True)

    def count(self) -> int:
        """Number of sequences in the set."""
        return sum(self._last) - sum(self._first) + len(self._first)

    def encode(self) -> bytes:
        """Compact bytes: varints of the distances between ends of ranges. The empty set is empty."""
        out = bytearray()
        position = 0
        for first, last in self.ranges():
            for distance in (first - position, last - first):
                while distance > 0x7F:
                    out.append(distance & 0x7F | 0x80)
                    distance >>= 7
                out.append(distance)
            position = last
        return bytes(out)

    @classmethod
    def decode(cls, data: bytes) -> "Ranges":
        """The set that `encode` wrote; raises ValueError for anything else."""
        distances: list[int] = []
        value = shift = 0
        for byte in data:
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                distances.append(value)
                value = shift = 0
        if shift or len(distances) % 2:
            raise ValueError(f"{len(data)} bytes are no sequence ranges: the last one is incomplete")
        ranges = cls()
        position = 0
        for index in range(0, len(distances), 2):
            first = position + distances[index]
            if index and distances[index] < 2:
                raise ValueError(f"sequence range {index // 2} begins at {first}, allowed: at least {position + 2}")
            position = first + distances[index + 1]
            ranges._first.append(first)
            ranges._last.append(position)
        return ranges

    def __contains__(self, seq: int) -> bool:
        position = bisect_right(self._first, seq)
        return position > 0 and seq <= self._last[position - 1]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ranges):
            return NotImplemented
        return self._first == other._first and self._last == other._last

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __len__(self) -> int:
        """Number of ranges."""
        return len(self._first)

    def __repr__(self) -> str:
        return f"Ranges({list(self.ranges())})"
