"""The files of a journal: opened and recovered, written frame by frame, begun anew when full, reused when trimmed.

    identity.json             whose journal it is (`identity`)
    lock                      held by the process that uses the directory
    0000000000000001.segment  frames; the numbers have no gap, the highest is written to
    1.spare                   a file to become the next segment, zero-filled ahead or trimmed of all it held

Rules:
- A frame is one `pwritev` to a descriptor opened with O_DSYNC: it returns when the frame is on stable storage. Only if the
  operator does not want that (O418) it returns when the system has it.
- Writing over bytes that exist is faster than growing a file (0.10 against 0.16 ms, measured), so zeros are written
  ahead in small steps while the writer is idle, and files are reused. Without them a segment simply grows: neither the
  first start nor a roll ever waits for zeros.
- A segment is taken out of the journal only when a durable trim or reset has made all of it obsolete, oldest first,
  and the directory is synced after each, so that the numbers never have a gap.
- After a failed write nothing is written any more.
"""

import errno
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from raft.constants import PREPARE_STEP_BYTES, SEGMENT_BYTES, SEGMENT_MIN_BYTES, SPARE_SEGMENTS_MAX
from raft.errors import CorruptionError, SyncFailedError

from .frame import encode_frame, frame_size, journal_seed
from .identity import (
    IDENTITY_FILE,
    Identity,
    check_identity,
    lock_directory,
    read_identity,
    sync_directory,
    write_identity,
)
from .log import Log, WriteGroup
from .record import encode_state
from .recovery import LiveSegment, Recovery

logger = logging.getLogger(__name__)

SEGMENT_SUFFIX: Final = ".segment"
SPARE_SUFFIX: Final = ".spare"

_BUFFERS_MAX: Final = os.sysconf("SC_IOV_MAX")
"""Most buffers of one `pwritev`."""

_ZEROS: Final = bytes(PREPARE_STEP_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenJournal:
    """A journal as it was found. `files` goes to the writer. `torn_bytes` is the size of a cut, unfinished frame."""

    log: Log
    files: "JournalFiles"
    identity: Identity
    is_new: bool
    torn_bytes: int


def open_journal(
    directory: Path,
    *,
    cluster_id: str,
    node_id: str,
    new_incarnation: str,
    segment_bytes: int = SEGMENT_BYTES,
    is_synced: bool = True,
) -> OpenJournal:
    """Open the journal in `directory`; if there is none, create one with `new_incarnation` (32 hexadecimal digits).

    Without `is_synced` what is written survives the end of the process, but no power failure (O418).

    Blocks: reads all segments. Raises JournalInUseError, IdentityError, VersionError, CorruptionError, OSError.
    """
    if segment_bytes < SEGMENT_MIN_BYTES:
        raise ValueError(f"segment_bytes={segment_bytes}: allowed: at least {SEGMENT_MIN_BYTES}")
    new_identity = Identity(cluster_id=cluster_id, node_id=node_id, incarnation=new_incarnation)
    _make_directory(directory)
    lock = lock_directory(directory)
    try:
        identity = read_identity(directory)
        is_new = identity is None
        if identity is None:
            _create(directory, new_identity)
            identity = new_identity
        check_identity(directory, identity, cluster_id=cluster_id, node_id=node_id)
        recovery = _recover(directory, journal_seed(identity.incarnation))
        files = JournalFiles(directory, recovery, lock=lock, segment_bytes=segment_bytes, is_synced=is_synced)
    except BaseException:
        os.close(lock)
        raise
    found = recovery.log
    if recovery.torn_bytes:
        last = found.next_index - 1
        logger.warning("cut the unfinished end of the journal bytes=%d last_index=%d", recovery.torn_bytes, last)
    log = Log(found.entries, term=found.term, voted_for=found.voted_for)
    return OpenJournal(log=log, files=files, identity=identity, is_new=is_new, torn_bytes=recovery.torn_bytes)


class JournalFiles:
    """The open files of a journal. Used by one thread at a time; all calls block. Owns the directory's lock."""

    def __init__(
        self, directory: Path, recovery: Recovery, *, lock: int, segment_bytes: int, is_synced: bool = True
    ) -> None:
        self._sync_flag = os.O_DSYNC if is_synced else 0
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._seed = recovery.seed
        self._sequence, self._checksum = recovery.sequence, recovery.checksum
        self._first_index = recovery.log.first_index
        self._segments = recovery.segments or [LiveSegment(1, _segment_file(directory, 1))]
        self._retire_unused()
        self._spares = sorted(directory.glob(f"*{SPARE_SUFFIX}"))
        for surplus in self._spares[SPARE_SEGMENTS_MAX:]:
            surplus.unlink()
        del self._spares[SPARE_SEGMENTS_MAX:]
        self._is_usable = True
        self._prepares = True
        self._descriptor = os.open(self._active.file, os.O_RDWR | self._sync_flag)
        self._lock = lock
        try:
            self._size = os.fstat(self._descriptor).st_size  # of the active file, bytes
            self._rewrite_last_frame()
            sync_directory(directory)
        except BaseException:
            os.close(self._descriptor)
            raise

    @property
    def position(self) -> tuple[Path, int]:
        """The file and the offset where the next frame goes, if it still fits."""
        return self._active.file, self._active.end

    def write(self, group: WriteGroup) -> None:
        """Write `group` as one frame; on return it is on stable storage. Raises SyncFailedError."""
        if self._active.end and self._active.end + frame_size(group.record_bytes) > self._segment_bytes:
            self._roll()
        active = self._active
        parts = group.parts if active.end else [encode_state(group.before), *group.parts]
        frame = encode_frame(parts, sequence=self._sequence + 1, previous=self._checksum, seed=self._seed)
        with self._durably(active.file):
            _write_all(self._descriptor, frame.buffers, active.end)
        self._sequence, self._checksum = self._sequence + 1, frame.checksum
        active.end += frame.size
        self._size = max(self._size, active.end)
        if group.is_reset:
            for segment in self._segments:
                segment.last_index = 0
        active.last_index = group.last_index
        self._first_index = group.first_index

    @property
    def has_to_recycle(self) -> bool:
        """Whether `recycle` has anything to do."""
        return len(self._segments) > 1 and self._segments[0].last_index < self._first_index

    def recycle(self) -> None:
        """Take files out of the journal that hold nothing needed. Raises SyncFailedError."""
        while self.has_to_recycle:
            segment = self._segments.pop(0)
            with self._durably(segment.file):
                # A file with a group of its own size would keep that size.
                if len(self._spares) < SPARE_SEGMENTS_MAX and segment.file.stat().st_size <= self._segment_bytes:
                    self._spares.append(segment.file.rename(_free_spare_file(self._directory)))
                else:
                    segment.file.unlink()
                sync_directory(self._directory)

    @property
    def can_prepare(self) -> bool:
        """Whether `prepare` has anything left to do."""
        return self._prepares and self._is_usable

    def prepare(self) -> None:
        """Write some zeros ahead: in the active file, then in a spare. Raises SyncFailedError.

        A full disk only ends the preparation: it takes nothing from groups that still fit.
        """
        try:
            if self._size < self._segment_bytes:
                self._size = self._fill(self._active.file, self._descriptor, self._size)
            else:
                self._prepares = self._prepare_spare()
        except SyncFailedError as failure:
            error = failure.__cause__
            if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._is_usable, self._prepares = True, False
            logger.warning("the disk is too full to prepare journal files directory=%s", self._directory)

    def close(self) -> None:
        """Close the files and unlock the directory."""
        os.close(self._descriptor)
        os.close(self._lock)

    @property
    def _active(self) -> LiveSegment:
        return self._segments[-1]

    def _roll(self) -> None:
        """Begin the next segment, in a spare file if there is one."""
        number = self._active.number + 1
        file = _segment_file(self._directory, number)
        with self._durably(file):
            spare = self._spares.pop(0) if self._spares else self._new_spare()
            spare.rename(file)
            sync_directory(self._directory)
            os.close(self._descriptor)
            self._descriptor = os.open(file, os.O_RDWR | self._sync_flag)
            self._size = os.fstat(self._descriptor).st_size
        self._segments.append(LiveSegment(number, file))
        self._prepares = True

    def _prepare_spare(self) -> bool:
        """Fill the next spare a little; whether there is more to do."""
        if not self._spares:
            with self._durably(self._directory):
                self._spares.append(self._new_spare())
        spare = self._spares[0]
        with self._durably(spare):
            descriptor = os.open(spare, os.O_WRONLY | self._sync_flag)
            try:
                size = os.fstat(descriptor).st_size
                if size < self._segment_bytes:
                    size = self._fill(spare, descriptor, size)
            finally:
                os.close(descriptor)
        return size < self._segment_bytes

    def _fill(self, file: Path, descriptor: int, size: int) -> int:
        """Append zeros to a file of `size` bytes; its new size."""
        with self._durably(file):
            return size + os.pwrite(descriptor, _ZEROS[: self._segment_bytes - size], size)

    def _new_spare(self) -> Path:
        file = _free_spare_file(self._directory)
        file.touch(mode=0o600, exist_ok=False)
        return file

    def _retire_unused(self) -> None:
        """Files behind the last live segment were begun and never got a whole frame; highest number first."""
        for number in sorted(_segment_numbers(self._directory), reverse=True):
            if number <= self._active.number:
                break
            _segment_file(self._directory, number).rename(_free_spare_file(self._directory))
            sync_directory(self._directory)

    def _rewrite_last_frame(self) -> None:
        """Make durable what recovery has read last.

        A process that was killed, or stopped by a failed sync, may have left that frame in the page cache only, where
        it looks written. Syncing again would not help after a failed sync; writing the same bytes again does.
        """
        active = self._active
        frame = os.pread(self._descriptor, active.end - active.last_frame, active.last_frame)
        _write_all(self._descriptor, [frame], active.last_frame)

    @contextmanager
    def _durably(self, file: Path) -> Iterator[None]:
        """Turn a system error into SyncFailedError, after which no file is touched any more."""
        assert self._is_usable
        try:
            yield
        except OSError as error:
            self._is_usable = False
            raise SyncFailedError(file, str(error)) from error


def _write_all(descriptor: int, buffers: Sequence[bytes], offset: int) -> None:
    """Write `buffers` one behind the other from `offset`, with as few calls as the system allows."""
    rest: list[bytes | memoryview] = list(buffers)
    while rest:
        written = os.pwritev(descriptor, rest[:_BUFFERS_MAX], offset)
        offset += written
        done = 0
        while done < len(rest) and written >= len(rest[done]):
            written -= len(rest[done])
            done += 1
        del rest[:done]
        if written:
            rest[0] = memoryview(rest[0])[written:]


def _make_directory(directory: Path) -> None:
    if not directory.is_dir():
        directory.mkdir(mode=0o700, parents=True)
        sync_directory(directory.parent)


def _create(directory: Path, identity: Identity) -> None:
    """Begin a journal. A start that was interrupted has left an empty first segment at most."""
    first = _segment_file(directory, 1)
    for file in (*directory.glob(f"*{SEGMENT_SUFFIX}"), *directory.glob(f"*{SPARE_SUFFIX}")):
        if file != first or file.stat().st_size:
            raise CorruptionError(
                directory / IDENTITY_FILE, 0, expected="the identity of the segments", found="no file"
            )
    first.touch(mode=0o600)
    sync_directory(directory)
    write_identity(directory, identity)


def _recover(directory: Path, seed: int) -> Recovery:
    numbers = sorted(_segment_numbers(directory))
    recovery = Recovery(seed)
    if not numbers:
        raise CorruptionError(_segment_file(directory, 1), 0, expected="a segment", found="no file")
    for number, expected in zip(numbers, range(numbers[0], numbers[0] + len(numbers)), strict=True):
        if number != expected:
            file = _segment_file(directory, expected)
            raise CorruptionError(file, 0, expected="a segment", found=f"no file, but segment {number}")
        file = _segment_file(directory, number)
        recovery.feed(number, file, file.read_bytes())
    recovery.finish()
    return recovery


def _segment_file(directory: Path, number: int) -> Path:
    return directory / f"{number:016d}{SEGMENT_SUFFIX}"


def _segment_numbers(directory: Path) -> list[int]:
    return [int(file.stem) for file in directory.glob("[0-9]" * 16 + SEGMENT_SUFFIX)]


def _free_spare_file(directory: Path) -> Path:
    """A spare's name that is not taken."""
    return next(file for number in range(1, 1_000_000) if not (file := directory / f"{number}{SPARE_SUFFIX}").exists())
