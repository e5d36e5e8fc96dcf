"""A simulated disk: a journal as a crash would leave it, and the writer that brings groups of records there.

The image is kept by decoding what the log emits and replaying it, so that the real record format and replay are part of every
run. A group is durable as a whole or not at all, as frames make it: a crash loses or keeps the one under way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final, Protocol

from raft.journal.log import BASE_COMMAND, Log, LogEntry, WriteGroup
from raft.journal.record import decode_records
from raft.journal.replay import ReplayedLog
from raft.journal.writer import Done

from .clock import Call, ProcessLoop, VirtualTime
from .violation import ViolationError

_FILE: Final = Path("simulated")


def first_known_index(entries: Sequence[LogEntry]) -> int:
    """Index of the first entry whose term is right: the first of the two placeholders of a reset stands for none."""
    return entries[0][1] + (len(entries) > 1 and entries[1][0] == BASE_COMMAND)


@dataclass(slots=True)
class JournalImage:
    """What is on stable storage of one journal."""

    log: ReplayedLog = field(default_factory=ReplayedLog)

    def write(self, group: WriteGroup) -> None:
        """Make a group durable."""
        content = b"".join(group.parts)
        problem = self.log.apply(group.before)
        if problem is not None:
            raise ViolationError("journal", f"a file would begin with {group.before}; right is {problem}")
        for record in decode_records(content, len(content), file=_FILE, offset=0):
            problem = self.log.apply(record)
            if problem is not None:
                raise ViolationError("journal", f"record {type(record).__name__} does not fit; right is {problem}")

    def recovered(self) -> Log:
        """The log with which a process starts from here."""
        return Log(self.log.entries, term=self.log.term, voted_for=self.log.voted_for)

    def has(self, index: int, term: int) -> bool:
        """Whether that entry is durable here, or what it has done already."""
        log = self.log
        if index >= log.next_index:
            return False
        return index < first_known_index(log.entries) or log.entries[index - log.start_index][2] == term


@dataclass(slots=True)
class DiskSpeed:
    """How long writes of one host take."""

    base_s: float
    slow_s: float = 0.0
    """Up to so much is added."""

    def delay(self, random: Random) -> float:
        """Of the next write."""
        return self.base_s * random.uniform(0.3, 2.0) + self.slow_s * random.random()


class Tripwire(Protocol):
    """Told of moments at which a process may be killed."""

    def __call__(self, moment: str, /) -> None:
        """The moment has come."""


class SimulatedWriter:
    """Port `JournalWriter`. One group at a time, durable after a random time, told in a later turn of the loop."""

    def __init__(
        self,
        image: JournalImage,
        *,
        time: VirtualTime,
        loop: ProcessLoop,
        speed: DiskSpeed,
        random: Random,
        tripwire: Tripwire,
    ) -> None:
        self._image = image
        self._time = time
        self._loop = loop
        self._speed = speed
        self._random = random
        self._tripwire = tripwire
        self._under_way: tuple[WriteGroup, Call] | None = None
        self.group_count = 0

    def submit(self, group: WriteGroup, done: Done, *, may_block: bool) -> None:
        """Write `group`, then tell `done`."""
        if self._under_way is not None:
            raise ViolationError("journal", "a group was submitted before the one before it was done")
        self.group_count += 1
        call = self._time.later(self._speed.delay(self._random), self._written, group, done)
        self._under_way = (group, call)

    def close(self) -> None:
        """Nothing is open."""

    def crash(self) -> None:
        """The process dies: what is under way is lost, or was just finished."""
        if self._random.random() < 0.5:
            self.finish()
        elif self._under_way is not None:
            self._under_way[1].cancel()

    def finish(self) -> None:
        """The process has ended in order: what is under way is written."""
        if self._under_way is not None:
            group, call = self._under_way
            call.cancel()
            self._under_way = None
            self._image.write(group)

    def _written(self, group: WriteGroup, done: Callable[[WriteGroup], object]) -> None:
        self._under_way = None
        self._image.write(group)
        self._loop.call_soon(done, group)
        self._tripwire("written")
