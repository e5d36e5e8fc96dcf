"""Proposals of the fast layer: unique, of any size, cheap to make."""

from typing import Final

_FILLER: Final = bytes(4 * 1024 * 1024)


def parts(number: int, size: int) -> list[bytes | memoryview]:
    """The parts of proposal `number`, at least 10 bytes in all."""
    return [b"%010d" % number, memoryview(_FILLER)[: max(0, size - 10)]]


def number_of(data: memoryview) -> int:
    """Which proposal an entry is."""
    return int(bytes(data[:10]))
