"""Sizes and bounds of the journal, with the relations they must keep."""

from typing import Final

JOURNAL_FORMAT_VERSION: Final = 2
"""Format of the journal's identity file, frames and records. Any other is refused."""

ENTRY_MAX_BYTES: Final = 64 * 1024 * 1024
"""Largest command of a log entry, bytes, its type byte included."""

NODE_ID_MAX_BYTES: Final = 1024
"""Longest cluster or node id, bytes of UTF-8."""

MEMBERS_MAX: Final = 63
"""Most members of a cluster: far above what makes sense, so that outside data cannot make it absurd."""

SEGMENT_BYTES: Final = 64 * 1024 * 1024
"""Size at which the next segment file of the journal is begun, bytes. A larger group gets a file of its own size."""

SEGMENT_MIN_BYTES: Final = 4096
"""Smallest segment size that makes sense, bytes."""

SPARE_SEGMENTS_MAX: Final = 2
"""Files kept for reuse once everything in them is trimmed; more are deleted."""

PREPARE_STEP_BYTES: Final = 1024 * 1024
"""Zeros written ahead of the journal in one idle step, bytes: delays a group that comes meanwhile by about 1 ms."""

PREPARE_IDLE_S: Final = 0.005
"""How long the writer must have been idle before it writes zeros ahead, seconds."""

assert SEGMENT_MIN_BYTES <= PREPARE_STEP_BYTES <= SEGMENT_BYTES
