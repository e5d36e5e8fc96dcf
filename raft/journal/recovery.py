"""Rebuilds the log from the segments of a journal, in order, or finds that the disk has damaged it. Pure.

The log ends at the first place where the next frame should be and is not whole. That is the torn end of a journal that
stopped while writing: the frame was never synced, so nobody was told of it, and it is cut. It is damage instead when
the header of a newer frame is found behind it, in the same or any later segment: a newer frame is begun only after the
one before was synced (`frame`). Then acked entries are missing, and CorruptionError says where.

The records of every whole frame are checked against the log they change, and the state that opens each segment against
the records of the segments before.
"""

from dataclasses import dataclass, field
from pathlib import Path

from raft.errors import CorruptionError

from .frame import (
    HEADER_BYTES,
    NO_PREVIOUS,
    Header,
    decode_content,
    decode_header,
    find_newer_header,
)
from .record import Entry, Record, Reset, State, decode_records
from .replay import ReplayedLog


@dataclass(slots=True)
class LiveSegment:
    """One file with live frames: where the last one begins and ends.

    The log's last entry was `last_index` after that frame, so what the file holds of the log ends there. It is 0 when a
    reset in a later file has made everything obsolete.
    """

    number: int
    file: Path
    last_frame: int = 0
    end: int = 0
    last_index: int = 0


@dataclass(slots=True)
class Recovery:
    """Takes the segments one after the other; when `finish` has returned, its fields say what the journal holds.

    Writing goes on in the last one of `segments`, at its `end`, with the frame after `sequence` and `checksum`.
    `torn_bytes` is the size of the unfinished frame that was cut; 0 if there is none, or not even its header.
    """

    seed: int
    log: ReplayedLog = field(default_factory=ReplayedLog)
    segments: list[LiveSegment] = field(default_factory=list)
    sequence: int = 0
    checksum: int = NO_PREVIOUS
    torn_bytes: int = 0

    _stopped_at: tuple[Path, int] | None = None  # where the next frame is missing; a later segment may still have it

    def feed(self, number: int, file: Path, data: bytes) -> None:
        """Take the next segment. Raises CorruptionError."""
        if self._stopped_at is None and number > 1:
            self._begin_trimmed(file, data)
        at = 0
        while (frame := self._next_frame(file, data, at)) is not None:
            header, content = frame
            if at == 0:
                self.segments.append(LiveSegment(number, file))
            self._replay(self.segments[-1], at, header, content)
            at += header.frame_bytes
        self._check_nothing_newer(file, data, at)

    def finish(self) -> None:
        """All segments were fed: check that what they hold is complete. Raises CorruptionError."""
        start = self.log.start_index
        if start > self.log.first_index:
            file = self.segments[0].file
            raise CorruptionError(file, 0, expected=f"entry {self.log.first_index}", found=f"entry {start}")

    def _begin_trimmed(self, file: Path, data: bytes) -> None:
        """The segments before this one were trimmed away, which happens only after its first frame was synced."""
        header = decode_header(data, 0, self.seed)
        if header is None or decode_content(data, 0, header) is None:
            raise CorruptionError(file, 0, expected="a whole frame", found=_shown(data, 0))
        self.sequence, self.checksum = header.sequence - 1, header.previous

    def _next_frame(self, file: Path, data: bytes, at: int) -> tuple[Header, bytes] | None:
        header = decode_header(data, at, self.seed)
        if header is None or header.sequence != self.sequence + 1:
            return None
        content = decode_content(data, at, header)
        if content is None:
            return None
        if header.previous != self.checksum:
            expected, found = f"a frame behind checksum {self.checksum:08x}", f"{header.previous:08x}"
            raise CorruptionError(file, at, expected=expected, found=found)
        self.sequence, self.checksum, self.torn_bytes = header.sequence, header.checksum, 0
        return header, content

    def _replay(self, segment: LiveSegment, at: int, header: Header, content: bytes) -> None:
        file, offset = segment.file, at + HEADER_BYTES
        is_head = at == 0
        for record in decode_records(content, header.record_bytes, file=file, offset=offset):
            if isinstance(record, State) != is_head:
                expected = "a state record at the head of a segment, and only there"
                raise CorruptionError(file, offset, expected=expected, found=_brief(record))
            begins_log = is_head and len(self.segments) == 1
            is_head = False
            problem = self.log.begin(record) if begins_log and isinstance(record, State) else self.log.apply(record)
            if problem is not None:
                raise CorruptionError(file, offset, expected=problem, found=_brief(record))
            if isinstance(record, Reset):
                for obsolete in self.segments:
                    obsolete.last_index = 0
        segment.last_frame, segment.end = at, at + header.frame_bytes
        segment.last_index = self.log.next_index - 1

    def _check_nothing_newer(self, file: Path, data: bytes, at: int) -> None:
        """The next frame is not at `at`: that is the end of the journal, of this segment, or damage."""
        missing = self.sequence + 1
        newer = find_newer_header(data, at, missing, self.seed)
        if newer is not None:
            newer_at, header = newer
            if newer_at == 0 and self._stopped_at is not None:
                # This segment is whole at its head: the frame was lost where the one before it ended.
                file, at = self._stopped_at
                found = f"frame {header.sequence} in a later segment"
            else:
                found = f"{_shown(data, at)}, and frame {header.sequence} at byte {newer_at}"
            raise CorruptionError(file, at, expected=f"frame {missing}", found=found)
        if at or self._stopped_at is None:
            self._stopped_at = file, at
        self.torn_bytes = max(self.torn_bytes, self._torn_bytes(data, at))

    def _torn_bytes(self, data: bytes, at: int) -> int:
        """Bytes of the unfinished frame at `at`. What an earlier use of the file has left is none."""
        header = decode_header(data, at, self.seed)
        if header is None or header.sequence != self.sequence + 1:
            return 0
        return min(header.frame_bytes, len(data) - at)


def _shown(data: bytes, at: int) -> str:
    """The bytes where a header should be."""
    header = data[at : at + HEADER_BYTES]
    return f"bytes {header.hex()}" if header.strip(b"\0") else f"{len(header)} zero bytes"


def _brief(record: Record) -> str:
    if isinstance(record, Entry):
        return f"entry {record.index} of term {record.term}, {len(record.command)} bytes"
    return str(record)
