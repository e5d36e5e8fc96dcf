"""The records in a journal frame, as bytes and as values. Pure.

A record is a kind byte and the fields of that kind, little-endian; an entry's command follows its fields uncopied.
Records change the log one after the other:

    Entry     appends one entry
    Truncate  drops the entries from an index on: they conflicted with those of a newer leader
    Vote      the current term, and for whom this node voted in it
    Reset     drops all entries and begins anew behind a snapshot, with two placeholders as base
    Trim      entries below an index are no longer needed
    State     what all records before have led to; the first record of every segment, and only there
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from raft.constants import ENTRY_MAX_BYTES, NODE_ID_MAX_BYTES
from raft.errors import CorruptionError

_ENTRY: Final = struct.Struct("<BQQI")
_TRUNCATE: Final = struct.Struct("<BQ")
_VOTE: Final = struct.Struct("<BQH")
_RESET: Final = struct.Struct("<BQQQ")
_TRIM: Final = struct.Struct("<BQ")
_STATE: Final = struct.Struct("<BQQQH")

_KIND_ENTRY: Final = 1
_KIND_TRUNCATE: Final = 2
_KIND_VOTE: Final = 3
_KIND_RESET: Final = 4
_KIND_TRIM: Final = 5
_KIND_STATE: Final = 6

_NO_VOTE: Final = 0xFFFF
"""Length of the voted-for id when there is none."""
assert NODE_ID_MAX_BYTES < _NO_VOTE


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the log; `command` begins with its type byte."""

    index: int
    term: int
    command: bytes


@dataclass(frozen=True, slots=True)
class Truncate:
    """Entries from `index` on are gone."""

    index: int


@dataclass(frozen=True, slots=True)
class Vote:
    """The current term and for whom this node voted in it."""

    term: int
    voted_for: str | None


@dataclass(frozen=True, slots=True)
class Reset:
    """The log is empty but for placeholders of the entries `index` - 1 and `index`."""

    index: int
    term: int
    previous_term: int


@dataclass(frozen=True, slots=True)
class Trim:
    """Entries below `index` are no longer needed."""

    index: int


@dataclass(frozen=True, slots=True)
class State:
    """What a log has come to: its term and vote, the first entry it needs and the index of the next to be appended."""

    term: int
    voted_for: str | None
    first_index: int
    next_index: int


Record: TypeAlias = Entry | Truncate | Vote | Reset | Trim | State


def encode_entry_header(command: bytes, index: int, term: int) -> bytes:
    """What goes before `command`. The hottest function of the journal: once per log entry."""
    return _ENTRY.pack(_KIND_ENTRY, index, term, len(command))


def encode_truncate(index: int) -> bytes:
    """A Truncate record."""
    return _TRUNCATE.pack(_KIND_TRUNCATE, index)


def encode_vote(term: int, voted_for: str | None) -> bytes:
    """A Vote record."""
    length, name = _encode_name(voted_for)
    return _VOTE.pack(_KIND_VOTE, term, length) + name


def encode_reset(index: int, term: int, previous_term: int) -> bytes:
    """A Reset record."""
    return _RESET.pack(_KIND_RESET, index, term, previous_term)


def encode_trim(index: int) -> bytes:
    """A Trim record."""
    return _TRIM.pack(_KIND_TRIM, index)


def encode_state(state: State) -> bytes:
    """A State record."""
    length, name = _encode_name(state.voted_for)
    return _STATE.pack(_KIND_STATE, state.term, state.first_index, state.next_index, length) + name


def decode_records(content: bytes, end: int, *, file: Path, offset: int) -> Iterator[Record]:
    """Yield the records in the first `end` bytes of a checked frame's content, which begins at `offset` in `file`.

    Raises CorruptionError for anything that no release of this format version writes.
    """
    at = 0
    while at < end:
        kind = content[at]
        fields = _FIELDS.get(kind)
        if fields is None:
            raise CorruptionError(file, offset + at, expected="a record kind of 1 to 6", found=str(kind))
        body = at + fields.size
        if body > end:
            raise _cut_short(file, offset + at, fields.size, end - at)
        values = fields.unpack_from(content, at)[1:]
        length = _length_behind(kind, values)
        if length > _LENGTH_MAX[kind]:
            raise CorruptionError(file, offset + at, expected=f"at most {_LENGTH_MAX[kind]} bytes", found=str(length))
        if body + length > end:
            raise _cut_short(file, offset + at, fields.size + length, end - at)
        yield _record(kind, values, content[body : body + length], file=file, offset=offset + at)
        at = body + length


_FIELDS: Final = {
    _KIND_ENTRY: _ENTRY,
    _KIND_TRUNCATE: _TRUNCATE,
    _KIND_VOTE: _VOTE,
    _KIND_RESET: _RESET,
    _KIND_TRIM: _TRIM,
    _KIND_STATE: _STATE,
}
_LENGTH_MAX: Final = dict.fromkeys(_FIELDS, 0) | {
    _KIND_ENTRY: ENTRY_MAX_BYTES,
    _KIND_VOTE: NODE_ID_MAX_BYTES,
    _KIND_STATE: NODE_ID_MAX_BYTES,
}
"""Most bytes behind the fields of each kind."""


def _length_behind(kind: int, values: tuple[int, ...]) -> int:
    """Bytes of command or name behind the fields: the last field says it."""
    if kind == _KIND_ENTRY:
        return values[-1]
    if kind in (_KIND_VOTE, _KIND_STATE):
        return 0 if values[-1] == _NO_VOTE else values[-1]
    return 0


def _record(kind: int, values: tuple[int, ...], tail: bytes, *, file: Path, offset: int) -> Record:
    match kind:
        case 1:
            return Entry(values[0], values[1], tail)
        case 2:
            return Truncate(values[0])
        case 3:
            return Vote(values[0], _decode_name(values[1], tail, file, offset))
        case 4:
            return Reset(*values)
        case 5:
            return Trim(values[0])
        case _:
            term, first_index, next_index, length = values
            return State(term, _decode_name(length, tail, file, offset), first_index, next_index)


def _encode_name(name: str | None) -> tuple[int, bytes]:
    if name is None:
        return _NO_VOTE, b""
    encoded = name.encode()
    if len(encoded) > NODE_ID_MAX_BYTES:
        raise ValueError(f"node id of {len(encoded)} bytes: allowed: at most {NODE_ID_MAX_BYTES}")
    return len(encoded), encoded


def _decode_name(length: int, encoded: bytes, file: Path, offset: int) -> str | None:
    if length == _NO_VOTE:
        return None
    try:
        return encoded.decode()
    except UnicodeDecodeError as error:
        raise CorruptionError(file, offset, expected="a node id in UTF-8", found=repr(encoded)) from error


def _cut_short(file: Path, offset: int, expected: int, found: int) -> CorruptionError:
    return CorruptionError(file, offset, expected=f"a record of {expected} bytes", found=f"{found} bytes")
