"""The fast state machine: a hash chain over all entries, written behind, copied and installed as snapshots of several chunks.

Every machine of the cluster tells `applied` what it applies, so that equal indexes can be compared over nodes, restarts and
snapshots (R6).
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from random import Random
from typing import Final, NamedTuple, Protocol

import google_crc32c

from raft.snapshot.exchange import SnapshotPorts
from raft.snapshot.server import OpenSnapshot
from raft.state_machine import CommittedEntry, Prepared

from .clock import ProcessLoop, VirtualTime
from .violation import ViolationError

_HEAD: Final = struct.Struct("<QQQI")
_CHAIN_MASK: Final = 2**63 - 1


class State(NamedTuple):
    """What is applied: index and term of the last entry, the chain over all, and the newest configuration."""

    index: int = 0  # type: ignore[assignment]  # hides tuple.index
    term: int = 0
    chain: int = 0
    configuration: bytes = b""


class Applied(Protocol):
    """Told of every entry that a machine applies, with the chain behind it."""

    def __call__(self, entry: CommittedEntry, chain: int, /) -> None:
        """Raises ViolationError when another node has applied something else there."""


@dataclass(slots=True)
class StoreImage:
    """What is on stable storage of one store, and some of what was there before."""

    state: State = field(default_factory=State)
    older: tuple[State, ...] = ()
    entries: list[CommittedEntry] = field(default_factory=list)
    """What led to the state, and perhaps beyond; kept by the layer that replays it."""

    def write(self, state: State) -> None:
        """Make a state durable."""
        self.older = (*self.older[-7:], self.state)
        self.state = state


@dataclass(slots=True)
class Pace:
    """How long the store's work takes, seconds, and how large its copies are, bytes."""

    write_s: float = 0.02
    copy_s: float = 0.05
    snapshot_bytes: int = 600_000
    failure: float = 0.0
    """Probability that a copy cannot be made or used."""
    unusable_s: float = float("-inf")
    """When a copy could not be used last."""


class ChainMachine:
    """Port `StateMachine` and `SnapshotPorts` of one process. `durable` is called with an index once that is written."""

    def __init__(
        self,
        image: StoreImage,
        *,
        time: VirtualTime,
        loop: ProcessLoop,
        random: Random,
        pace: Pace,
        numbers: "count[int]",
        applied: Applied,
        moment: Callable[[str], None],
    ) -> None:
        self.state = image.state
        self._image = image
        self._time = time
        self._loop = loop
        self._random = random
        self._pace = pace
        self._numbers = numbers
        self._applied = applied
        self._moment = moment
        self._is_writing = False
        self._generation = 0
        self._copies: dict[Path, bytes] = {}
        self.installed_count = 0
        self.copied_index: int | None = None
        """Up to which entry the newest copy goes that was made for others: the log keeps what is behind it for a while."""
        self.durable: Callable[[int], None] = lambda index: None

    # ---- StateMachine

    def last_applied(self) -> tuple[int, int]:
        """Index and term of the last applied entry."""
        return self.state.index, self.state.term

    def configuration(self) -> bytes:
        """The newest configuration that was applied."""
        return self.state.configuration

    def apply(self, entries: Sequence[CommittedEntry]) -> Sequence[object]:
        """Extend the chain; the results are the chain behind each entry."""
        index, term, chain, configuration = self.state
        results: list[object] = []
        for entry in entries:
            if entry.index != index + 1:
                raise ViolationError("apply once, in order", f"entry {entry.index} applied behind {index}")
            index, term = entry.index, entry.term
            chain = hash((chain, index, term, google_crc32c.value(bytes(entry.data)))) & _CHAIN_MASK
            if entry.is_configuration:
                configuration = bytes(entry.data)
            self._applied(entry, chain)
            results.append(chain)
        self.state = State(index, term, chain, configuration)
        self._write_behind()
        return results

    def durable_index(self) -> int:
        """Index up to which the image has everything."""
        return self._image.state.index

    def encode(self, state: State) -> bytes:
        """A copy of what is durable."""
        return encode_state(state, self._pace.snapshot_bytes)

    def decode(self, content: bytes) -> "PreparedState":
        """Check a copy."""
        return PreparedState(decode_state(content))

    # ---- writing behind

    def _write_behind(self) -> None:
        if not self._is_writing and self.state.index > self._image.state.index:
            self._is_writing = True
            delay = self._pace.write_s * self._random.uniform(0.2, 3.0)
            self._time.later(delay, self._written, self.state, self._generation)

    def _written(self, state: State, generation: int) -> None:
        if self._loop.is_dead or generation != self._generation:
            return
        self._is_writing = False
        self._image.write(state)
        self._loop.call_soon(self.durable, state.index)
        self._moment("persisted")
        self._write_behind()

    # ---- snapshots

    def ports(self) -> SnapshotPorts:
        """What the node makes snapshots with."""
        return SnapshotPorts(
            create=self._create, open_sink=self._open_sink, prepare=self._prepare, install=self._install
        )

    def _create(self, done: Callable[[OpenSnapshot | BaseException], None]) -> None:
        def make() -> None:
            if self._random.random() < self._pace.failure:
                self._loop.call_soon(done, OSError("no room for a copy"))
            else:
                number = next(self._numbers)
                state = self._image.state
                self.copied_index = state.index
                content = self.encode(state)
                self._loop.call_soon(
                    done, MemorySnapshot(number.to_bytes(16, "little"), state.index, state.term, content)
                )

        self._time.later(self._pace.copy_s * self._random.uniform(0.1, 2.0), make)

    def _open_sink(self) -> "MemorySink":
        return MemorySink(Path(f"copy{next(self._numbers)}"), self._copies)

    def _prepare(self, directory: Path, done: Callable[[Prepared | BaseException], None]) -> None:
        def load() -> None:
            content = self._copies.pop(directory)
            if self._random.random() < self._pace.failure:
                self._pace.unusable_s = self._time.now
                self._loop.call_soon(done, OSError("a copy could not be read"))
            else:
                self._loop.call_soon(done, self.decode(content))

        self._time.later(self._pace.copy_s * self._random.uniform(0.1, 2.0), load)

    def _install(self, prepared: Prepared) -> None:
        assert isinstance(prepared, PreparedState)
        if prepared.index <= self.state.index:
            raise ViolationError("snapshot", f"one up to {prepared.index} installed over {self.state.index}")
        self._generation += 1
        self._is_writing = False
        self.installed_count += 1
        self.state = prepared.state
        self._image.write(prepared.state)
        self._loop.call_soon(self.durable, prepared.index)
        self._moment("installed")


class MemorySnapshot:
    """A copy that is read. Port: `OpenSnapshot`."""

    def __init__(self, snapshot_id: bytes, index: int, term: int, content: bytes) -> None:
        self.snapshot_id, self.index, self.term = snapshot_id, index, term
        self.size = len(content)
        self._content: bytes | None = content

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`."""
        if self._content is None or offset + length > self.size:
            raise ViolationError("snapshot", f"read of {length} bytes at {offset} of a copy that is closed or ends")
        return self._content[offset : offset + length]

    def close(self) -> None:
        """It is not read any more."""
        self._content = None


class MemorySink:
    """A copy that is received. Port: `Sink`."""

    def __init__(self, directory: Path, copies: dict[Path, bytes]) -> None:
        self._directory = directory
        self._copies = copies
        self._pieces: dict[int, bytes] = {}

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Put `data` at `offset`."""
        self._pieces[offset] = bytes(data)

    def finish(self) -> Path:
        """Everything is there."""
        content = b"".join(self._pieces[offset] for offset in sorted(self._pieces))
        self._copies[self._directory] = content
        return self._directory

    def discard(self) -> None:
        """It is not wanted."""
        self._pieces.clear()


@dataclass(slots=True)
class PreparedState:
    """A copy that was checked. Port: `Prepared`."""

    state: State

    @property
    def index(self) -> int:
        """Index of its last entry."""
        return self.state.index

    @property
    def term(self) -> int:
        """Term of its last entry."""
        return self.state.term

    @property
    def configuration(self) -> bytes:
        """The newest configuration in it."""
        return self.state.configuration

    def discard(self) -> None:
        """It is not wanted."""


def encode_state(state: State, size: int) -> bytes:
    """A state as a copy of about `size` bytes."""
    head = _HEAD.pack(state.index, state.term, state.chain, len(state.configuration)) + state.configuration
    return head + _filler(state.chain, size)


def decode_state(content: bytes) -> State:
    """What `encode_state` wrote; raises ViolationError unless every byte is right."""
    index, term, chain, length = _HEAD.unpack_from(content)
    end = _HEAD.size + length
    if content[end:] != _filler(chain, len(content) - end):
        raise ViolationError("snapshot", f"the copy up to entry {index} has wrong bytes")
    return State(index, term, chain, content[_HEAD.size : end])


def _filler(seed: int, size: int) -> bytes:
    piece = (seed & _CHAIN_MASK).to_bytes(8, "little") + b"%d" % size
    return (piece * (size // len(piece) + 1))[:size]


def rolled_back(image: StoreImage, steps: int) -> StoreImage:
    """The store as it was some writes before; empty when it did not live that long."""
    states = (*image.older, image.state)
    state = states[-1 - steps] if steps < len(states) else State()
    return replace(image, state=state, older=())
