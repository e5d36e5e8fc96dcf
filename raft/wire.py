"""Messages between members to bytes and back. Pure.

`u32 little-endian length of the head | head | raw bytes`. The head is protobuf (wire.proto) with the format version; raw are
the commands of an append's entries one after the other, or the data of a snapshot chunk, which are never copied on the way
out. What comes in is checked to the last byte: an append that decodes breaks no rule that the log relies on, except where
the log has to be asked.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias, assert_never

import google_crc32c
from google.protobuf.message import DecodeError

from raft import wire_pb2 as pb
from raft.constants import ENTRY_MAX_BYTES
from raft.engine.commands import CONFIGURATION, NO_OP, REGULAR
from raft.errors import WireError
from raft.journal.log import LogEntry
from raft.messages import (
    SNAPSHOT_ID_BYTES,
    Append,
    AppendResponse,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    SnapshotChunk,
    SnapshotGone,
    SnapshotOffer,
    SnapshotRequest,
    TermNotice,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)

WIRE_FORMAT_VERSION: Final = 1
"""Format of a message. Any other is refused."""

MESSAGE_MAX_BYTES: Final = ENTRY_MAX_BYTES + 1024 * 1024
"""Largest encoded message, bytes: one entry of the largest size, small ones before it, and the head."""

INTEGER_MAX: Final = 2**63 - 1
"""Largest term, index, size or other number in a message: what a signed 64-bit integer holds."""

REASON_MAX_BYTES: Final = 1024
"""Longest reason in a message, bytes of UTF-8."""

_LENGTH: Final = struct.Struct("<I")
_SNAPSHOT_ID_SIZES: Final = (0, SNAPSHOT_ID_BYTES)
_COMMAND_TYPES: Final = frozenset({REGULAR[0], NO_OP[0], CONFIGURATION[0]})

_Raw: TypeAlias = bytes | memoryview


def encode(message: Message) -> list[bytes | memoryview]:
    """`message` as parts to be written one after the other; commands and data are referred to, not copied.

    A reason that is too long loses its end.
    """
    head = pb.MessageHead(version=WIRE_FORMAT_VERSION)
    raw: Sequence[bytes | memoryview] = ()
    match message:
        case Append():
            raw = _write_append(head.append, message)
        case AppendResponse():
            _write_append_response(head.append_response, message)
        case SnapshotChunk():
            raw = _write_chunk(head.snapshot_chunk, message)
        case SnapshotOffer() | SnapshotRequest() | SnapshotGone():
            _write_snapshot(head, message)
        case _:
            _write_election(head, message)
    data = head.SerializeToString()
    return [_LENGTH.pack(len(data)) + data, *raw]


def decode(data: bytes | memoryview) -> Message:
    """The message that `encode` wrote, with copies of its commands or data.

    Raises WireError naming the field, its value and what is allowed.
    """
    head, start = _read_head(data)
    kind = head.WhichOneof("kind")
    if kind == "append":
        return _read_append(head.append, data, start)
    if kind == "snapshot_chunk":
        return _read_chunk(head.snapshot_chunk, data, start)
    if kind is None:
        raise WireError(f"kind of message is unknown; allowed: append, snapshot_chunk, {', '.join(_READERS)}")
    if len(data) != start:
        raise WireError(f"raw bytes of {kind}: {len(data) - start}; allowed: 0")
    return _READERS[kind](head)


def check_integer(field: str, value: int, low: int = 0, high: int = INTEGER_MAX) -> int:
    """`value`, if it is between `low` and `high`, both inclusive. Raises WireError."""
    if not low <= value <= high:
        raise WireError(f"{field} {value}; allowed: {low} to {high}")
    return value


def _read_head(data: _Raw) -> tuple[pb.MessageHead, int]:
    """The head, and where the raw bytes begin."""
    if len(data) < _LENGTH.size:
        raise WireError(f"message of {len(data)} bytes; allowed: at least {_LENGTH.size}")
    end = _LENGTH.size + _LENGTH.unpack_from(data)[0]
    if end > len(data):
        raise WireError(f"message of {len(data)} bytes, whose head ends at {end}; allowed: within the message")
    try:
        head = pb.MessageHead.FromString(bytes(data[_LENGTH.size : end]))
    except DecodeError as error:
        raise WireError(f"head of {end - _LENGTH.size} bytes cannot be decoded: {error}; allowed: protobuf") from error
    if head.version != WIRE_FORMAT_VERSION:
        raise WireError(f"format version {head.version} of a message; allowed: {WIRE_FORMAT_VERSION}")
    return head, end


# ---- appends


def _write_append(target: pb.Append, message: Append) -> list[bytes]:
    entries = message.entries
    if entries:
        assert entries[0][1] == message.previous_index + 1
        assert entries[-1][1] == message.previous_index + len(entries)
    target.term = message.term
    target.commit_index = message.commit_index
    target.previous_index = message.previous_index
    target.previous_term = message.previous_term
    target.round = message.round
    commands = [command for command, _, _ in entries]
    assert all(commands)
    target.terms.extend([term for _, _, term in entries])
    target.sizes.extend(map(len, commands))
    return commands


def _read_append(head: pb.Append, data: _Raw, start: int) -> Append:
    term = check_integer("term", head.term)
    previous_index = check_integer("previous_index", head.previous_index, 1)
    previous_term = check_integer("previous_term", head.previous_term, 0, term)
    terms, sizes = list(head.terms), list(head.sizes)
    _check_terms(terms, previous_term, term)
    if len(sizes) != len(terms):
        raise WireError(f"sizes of {len(sizes)} entries; allowed: {len(terms)}, as there are terms")
    if sizes and (min(sizes) < 1 or max(sizes) > ENTRY_MAX_BYTES):
        wrong = next(size for size in sizes if not 1 <= size <= ENTRY_MAX_BYTES)
        raise WireError(f"size of an entry {wrong}; allowed: 1 to {ENTRY_MAX_BYTES}")
    if sum(sizes) != len(data) - start:
        raise WireError(f"raw bytes of an append: {len(data) - start}; allowed: {sum(sizes)}, the sum of its sizes")
    check_integer("previous_index", previous_index, 1, INTEGER_MAX - len(sizes))
    entries: list[LogEntry] = []
    index = previous_index
    for size, entry_term in zip(sizes, terms, strict=True):
        index += 1
        end = start + size
        command = bytes(data[start:end])
        if command[0] not in _COMMAND_TYPES:
            raise WireError(f"command type {command[0]} of entry {index}; allowed: {sorted(_COMMAND_TYPES)}")
        entries.append((command, index, entry_term))
        start = end
    return Append(
        term=term,
        commit_index=check_integer("commit_index", head.commit_index),
        previous_index=previous_index,
        previous_term=previous_term,
        round=check_integer("round", head.round),
        entries=entries,
    )


def _check_terms(terms: list[int], previous: int, last: int) -> None:
    """Raise WireError unless `terms` never fall, beginning from `previous` and ending at most at `last`."""
    if terms and (terms[0] < previous or terms[-1] > last or terms != sorted(terms)):
        for term in terms:
            check_integer("term of an entry", term, previous, last)
            previous = term


def _write_append_response(target: pb.AppendResponse, message: AppendResponse) -> None:
    assert not (message.is_success and message.is_rejection)
    target.term = message.term
    target.next_index = message.next_index
    target.round = message.round
    target.is_success = message.is_success
    target.is_rejection = message.is_rejection


def _read_append_response(message: pb.MessageHead) -> AppendResponse:
    head = message.append_response
    if head.is_success and head.is_rejection:
        raise WireError("is_success and is_rejection True; allowed: one of them")
    return AppendResponse(
        check_integer("term", head.term),
        check_integer("next_index", head.next_index, 1 if head.is_success or head.is_rejection else 0),
        check_integer("round", head.round),
        is_success=head.is_success,
        is_rejection=head.is_rejection,
    )


# ---- elections


def _write_election(
    head: pb.MessageHead,
    message: VoteRequest | VoteResponse | PreVoteRequest | PreVoteResponse | TermNotice | TimeoutNow,
) -> None:
    match message:
        case VoteRequest(term, last_index, last_term, is_forced):
            vote = pb.VoteRequest(term=term, last_index=last_index, last_term=last_term, is_forced=is_forced)
            head.vote_request.CopyFrom(vote)
        case VoteResponse(term):
            head.vote_response.CopyFrom(pb.VoteResponse(term=term))
        case PreVoteRequest(term, last_index, last_term):
            head.pre_vote_request.CopyFrom(pb.PreVoteRequest(term=term, last_index=last_index, last_term=last_term))
        case PreVoteResponse(term):
            head.pre_vote_response.CopyFrom(pb.PreVoteResponse(term=term))
        case TermNotice(term):
            head.term_notice.CopyFrom(pb.TermNotice(term=term))
        case TimeoutNow(term):
            head.timeout_now.CopyFrom(pb.TimeoutNow(term=term))
        case _:
            assert_never(message)


def _read_vote_request(message: pb.MessageHead) -> VoteRequest:
    head = message.vote_request
    return VoteRequest(
        check_integer("term", head.term),
        check_integer("last_index", head.last_index),
        check_integer("last_term", head.last_term),
        is_forced=head.is_forced,
    )


def _read_vote_response(message: pb.MessageHead) -> VoteResponse:
    return VoteResponse(check_integer("term", message.vote_response.term))


def _read_pre_vote_request(message: pb.MessageHead) -> PreVoteRequest:
    head = message.pre_vote_request
    return PreVoteRequest(
        check_integer("term", head.term),
        check_integer("last_index", head.last_index),
        check_integer("last_term", head.last_term),
    )


def _read_pre_vote_response(message: pb.MessageHead) -> PreVoteResponse:
    return PreVoteResponse(check_integer("term", message.pre_vote_response.term))


def _read_term_notice(message: pb.MessageHead) -> TermNotice:
    return TermNotice(check_integer("term", message.term_notice.term))


def _read_timeout_now(message: pb.MessageHead) -> TimeoutNow:
    return TimeoutNow(check_integer("term", message.timeout_now.term))


# ---- snapshots


def _write_snapshot(head: pb.MessageHead, message: SnapshotOffer | SnapshotRequest | SnapshotGone) -> None:
    match message:
        case SnapshotOffer(term, number, base_index, base_term):
            offer = pb.SnapshotOffer(term=term, round=number, base_index=base_index, base_term=base_term)
            head.snapshot_offer.CopyFrom(offer)
        case SnapshotRequest(snapshot_id, offset, length):
            assert len(snapshot_id) in _SNAPSHOT_ID_SIZES
            head.snapshot_request.CopyFrom(pb.SnapshotRequest(snapshot_id=snapshot_id, offset=offset, length=length))
        case SnapshotGone(snapshot_id, reason):
            assert len(snapshot_id) in _SNAPSHOT_ID_SIZES
            text = reason.encode()[:REASON_MAX_BYTES].decode(errors="ignore")
            head.snapshot_gone.CopyFrom(pb.SnapshotGone(snapshot_id=snapshot_id, reason=text))
        case _:
            assert_never(message)


def _read_offer(message: pb.MessageHead) -> SnapshotOffer:
    head = message.snapshot_offer
    term = check_integer("term", head.term)
    return SnapshotOffer(
        term,
        check_integer("round", head.round),
        check_integer("base_index", head.base_index, 1),
        check_integer("base_term", head.base_term, 0, term),
    )


def _read_request(message: pb.MessageHead) -> SnapshotRequest:
    head = message.snapshot_request
    return SnapshotRequest(
        _check_snapshot_id(head.snapshot_id),
        check_integer("offset", head.offset),
        check_integer("length", head.length),
    )


def _write_chunk(target: pb.SnapshotChunk, message: SnapshotChunk) -> tuple[bytes | memoryview]:
    assert len(message.snapshot_id) == SNAPSHOT_ID_BYTES
    assert message.offset + len(message.data) <= message.size
    target.snapshot_id = message.snapshot_id
    target.index = message.index
    target.term = message.term
    target.size = message.size
    target.offset = message.offset
    target.checksum = message.checksum
    return (message.data,)


def _read_chunk(head: pb.SnapshotChunk, data: _Raw, start: int) -> SnapshotChunk:
    if len(head.snapshot_id) != SNAPSHOT_ID_BYTES:
        raise WireError(f"snapshot_id of {len(head.snapshot_id)} bytes; allowed: {SNAPSHOT_ID_BYTES}")
    size = check_integer("size", head.size)
    offset = check_integer("offset", head.offset, 0, size)
    content = bytes(data[start:])
    if offset + len(content) > size:
        raise WireError(f"data of {len(content)} bytes at offset {offset}; allowed: at most {size - offset}")
    checksum = int(google_crc32c.value(content))
    if checksum != head.checksum:
        raise WireError(f"checksum {head.checksum:#010x} of a chunk; allowed: {checksum:#010x}, that of its data")
    return SnapshotChunk(
        snapshot_id=head.snapshot_id,
        index=check_integer("index", head.index, 1),
        term=check_integer("term", head.term),
        size=size,
        offset=offset,
        checksum=checksum,
        data=content,
    )


def _read_gone(message: pb.MessageHead) -> SnapshotGone:
    head = message.snapshot_gone
    reason_bytes = len(head.reason.encode())
    if reason_bytes > REASON_MAX_BYTES:
        raise WireError(f"reason of {reason_bytes} bytes; allowed: at most {REASON_MAX_BYTES}")
    return SnapshotGone(_check_snapshot_id(head.snapshot_id), head.reason)


def _check_snapshot_id(snapshot_id: bytes) -> bytes:
    if len(snapshot_id) not in _SNAPSHOT_ID_SIZES:
        raise WireError(f"snapshot_id of {len(snapshot_id)} bytes; allowed: 0 or {SNAPSHOT_ID_BYTES}")
    return snapshot_id


_READERS: Final[dict[str, Callable[[pb.MessageHead], Message]]] = {
    "append_response": _read_append_response,
    "vote_request": _read_vote_request,
    "vote_response": _read_vote_response,
    "pre_vote_request": _read_pre_vote_request,
    "pre_vote_response": _read_pre_vote_response,
    "term_notice": _read_term_notice,
    "timeout_now": _read_timeout_now,
    "snapshot_offer": _read_offer,
    "snapshot_request": _read_request,
    "snapshot_gone": _read_gone,
}
"""By kind in the head: what reads a message without raw bytes."""
