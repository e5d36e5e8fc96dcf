"""Sizes, bounds and versions of the store, with the relations they must keep."""

from typing import Final

ENTRY_FORMAT_VERSION: Final = 1
"""Format of the log entry: `version` of its envelope."""

STORE_FORMAT_VERSION: Final = 1
"""Format of the records in LMDB."""

BLOCK_MAX_BYTES: Final = 16 * 4096 - 16
"""Largest block of more than one message, bytes: 16 pages of LMDB with its page header. Larger ones cost a memory mapping
each (measured)."""

BLOCK_SMALL_BYTES: Final = 8 * 1024
"""A channel's last stored block below this size is extended instead of adding another, bytes."""

TAIL_MAX_BYTES: Final = 64 * 1024 * 1024
"""Default bound of the recent blocks kept in memory, all channels together, bytes."""

SPLIT_MAX_BYTES: Final = 8 * 1024 * 1024
"""Blocks whose messages are kept apart as well, for delivery, bytes: the most recent ones."""

READ_CACHE_MAX_BYTES: Final = 8 * 1024 * 1024
"""Blocks read and split for slow subscribers, bytes."""

PENDING_MAX_BYTES: Final = 128 * 1024 * 1024
"""Blocks not yet in LMDB, bytes. A leader stops proposing earlier; replay and followers wait for the disk here."""

WRITE_PAUSE_S: Final = 0.02
"""Pause between two transactions, seconds: few large ones, since each gives up and re-acquires the GIL (measured)."""

SEND_AHEAD_MAX: Final = 32 * 1024
"""Sequences a leader may send beyond the replicated `last_sent` (B394): 20 ms of progress delay and a slow sync at
300,000 messages/s. After an unclean stop at most so many new messages per subscription are flagged as redelivered."""

LMDB_MAP_BYTES: Final = 1024**4
"""Address space reserved for the data file, bytes. It costs neither disk nor memory (measured)."""

LMDB_MAP_MIN_BYTES: Final = 1024**3
"""Least address space to start with when the system refuses more, bytes."""

MEMORY_DIRECTORY_FREE_MIN_BYTES: Final = 1024**3
"""Free space below which a memory file system is not used for the MEMORY store, bytes."""

assert BLOCK_SMALL_BYTES < BLOCK_MAX_BYTES
assert SPLIT_MAX_BYTES <= TAIL_MAX_BYTES <= PENDING_MAX_BYTES
assert LMDB_MAP_MIN_BYTES <= LMDB_MAP_BYTES
