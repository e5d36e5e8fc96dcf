"""Sizes of what the writers propose, bytes, and how much of it may wait."""

from typing import Final

OUTSTANDING_MAX: Final = 64
"""Proposals of one leadership that may wait."""

OUTSTANDING_MAX_BYTES: Final = 8 * 1024 * 1024
"""No further one is made while so many bytes wait."""

BIG_BYTES: Final = 300_000
"""The largest of the big ones."""

HUGE_BYTES: Final = 3_000_000
"""So large that it takes many messages of the carrier."""
