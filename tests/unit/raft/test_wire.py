"""Covers raft/wire.py: every message comes back as it was, and nothing else is taken."""

import struct

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft import wire_pb2 as pb
from raft.constants import ENTRY_MAX_BYTES
from raft.errors import WireError
from raft.journal.log import BASE_COMMAND
from raft.messages import (
    Append,
    AppendResponse,
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
from raft.wire import (
    INTEGER_MAX,
    MESSAGE_MAX_BYTES,
    REASON_MAX_BYTES,
    WIRE_FORMAT_VERSION,
    check_integer,
    decode,
    encode,
)

ID = bytes(range(16))
integers = st.integers(0, INTEGER_MAX)
positive = st.integers(1, INTEGER_MAX)
ids = st.sampled_from([b"", ID])


def chunk_of(data: bytes, *, offset: int = 0, size: int | None = None, index: int = 9, term: int = 2) -> SnapshotChunk:
    size = offset + len(data) if size is None else size
    return SnapshotChunk(ID, index, term, size, offset, int(google_crc32c.value(data)), data)


@st.composite
def appends(draw):
    terms = sorted(draw(st.lists(integers, min_size=2, max_size=12)))
    commands = draw(
        st.lists(
            st.builds(bytes.__add__, st.sampled_from([b"\0", b"\1", b"\4"]), st.binary(max_size=40)),
            min_size=len(terms) - 2,
            max_size=len(terms) - 2,
        )
    )
    previous = draw(st.integers(1, INTEGER_MAX - len(commands)))
    entries = [
        (command, previous + 1 + at, term) for at, (command, term) in enumerate(zip(commands, terms[1:-1], strict=True))
    ]
    return Append(terms[-1], draw(integers), previous, terms[0], draw(integers), entries)


@st.composite
def chunks(draw):
    data = draw(st.binary(max_size=200))
    offset = draw(st.integers(0, INTEGER_MAX - len(data)))
    size = draw(st.integers(offset + len(data), INTEGER_MAX))
    return chunk_of(data, offset=offset, size=size, index=draw(positive), term=draw(integers))


answers = st.one_of(
    st.builds(AppendResponse, integers, positive, integers, is_success=st.just(True), is_rejection=st.just(False)),
    st.builds(AppendResponse, integers, positive, integers, is_success=st.just(False), is_rejection=st.just(True)),
    st.builds(AppendResponse, integers, integers, integers, is_success=st.just(False), is_rejection=st.just(False)),
)
offers = (
    st.tuples(integers, integers)
    .map(sorted)
    .flatmap(lambda terms: st.builds(SnapshotOffer, st.just(terms[1]), integers, positive, st.just(terms[0])))
)
messages = st.one_of(
    appends(),
    answers,
    st.builds(VoteRequest, integers, integers, integers, is_forced=st.booleans()),
    st.builds(VoteResponse, integers),
    st.builds(PreVoteRequest, integers, integers, integers),
    st.builds(PreVoteResponse, integers),
    st.builds(TermNotice, integers),
    st.builds(TimeoutNow, integers),
    offers,
    st.builds(SnapshotRequest, ids, integers, integers),
    chunks(),
    st.builds(SnapshotGone, ids, st.text(max_size=REASON_MAX_BYTES // 4)),
)

EXAMPLES = [
    Append(3, 10, 10, 2, 7, [(b"\0first", 11, 2), (b"\1", 12, 3), (b"\4members", 13, 3)]),
    Append(3, 10, 10, 2, 8, []),
    AppendResponse(3, 14, 7, is_success=True, is_rejection=False),
    VoteRequest(4, 13, 3, is_forced=True),
    VoteResponse(4),
    PreVoteRequest(3, 13, 3),
    PreVoteResponse(3),
    TermNotice(4),
    TimeoutNow(4),
    SnapshotOffer(4, 9, 100, 3),
    SnapshotRequest(ID, 4096, 65536),
    chunk_of(b"snapshot data", offset=5, size=100),
    SnapshotGone(ID, "replaced by a newer one"),
]
names = [f"{type(example).__name__} {at}" for at, example in enumerate(EXAMPLES)]


def as_bytes(message) -> bytes:
    return b"".join(encode(message))


def message_of(head: pb.MessageHead, raw: bytes = b"") -> bytes:
    data = head.SerializeToString()
    return struct.pack("<I", len(data)) + data + raw


@given(messages)
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
def test_every_message_comes_back(message):
    """What is encoded decodes to the same value, from bytes and from a view of a buffer."""
    data = as_bytes(message)
    assert decode(data) == message
    assert decode(memoryview(bytearray(data))) == message


def test_the_examples_are_all_kinds():
    """The cases below leave out no kind that the format has."""
    kinds = {pb.MessageHead.FromString(encode(one)[0][4:]).WhichOneof("kind") for one in EXAMPLES}
    assert kinds == {one.name for one in pb.MessageHead.DESCRIPTOR.oneofs_by_name["kind"].fields}


def test_commands_and_data_are_not_copied_out():
    """The parts of an append and of a chunk are the very objects that were given."""
    append, data = EXAMPLES[0], memoryview(b"snapshot data")
    assert all(part is entry[0] for part, entry in zip(encode(append)[1:], append.entries, strict=True))
    assert encode(SnapshotChunk(ID, 9, 2, 100, 0, 1, data))[1] is data


def test_commands_and_data_come_in_as_bytes():
    """What was decoded does not hold on to the buffer it came in."""
    buffer = bytearray(as_bytes(EXAMPLES[0]))
    entries = decode(memoryview(buffer)).entries
    chunk = decode(bytearray(as_bytes(EXAMPLES[11])))
    buffer[:] = bytes(len(buffer))
    assert entries == EXAMPLES[0].entries
    assert {type(command) for command, _, _ in entries} == {type(chunk.data)} == {bytes}


def test_a_large_entry_comes_back():
    """An entry of several megabytes is one command, and fits into a message at its largest allowed size."""
    append = Append(3, 10, 10, 2, 7, [(b"\0" + bytes(4 * 1024 * 1024), 11, 3)])
    assert decode(as_bytes(append)) == append
    assert ENTRY_MAX_BYTES + len(encode(append)[0]) < MESSAGE_MAX_BYTES


def test_a_long_reason_loses_its_end():
    """A reason is cut to what is allowed, and not within a character."""
    gone = decode(as_bytes(SnapshotGone(b"", "é" * REASON_MAX_BYTES)))
    assert gone.reason == "é" * (REASON_MAX_BYTES // 2)
    odd = decode(as_bytes(SnapshotGone(b"", "x" + "é" * REASON_MAX_BYTES)))
    assert odd.reason == "x" + "é" * (REASON_MAX_BYTES // 2 - 1)


@pytest.mark.parametrize(
    "message",
    [
        Append(3, 10, 10, 2, 7, [(b"\0", 12, 3)]),
        Append(3, 10, 10, 2, 7, [(b"\0", 11, 3), (b"\0", 13, 3)]),
        Append(3, 10, 10, 2, 7, [(b"", 11, 3)]),
        AppendResponse(3, 14, 7, is_success=True, is_rejection=True),
        SnapshotRequest(b"short", 0, 1),
        SnapshotGone(b"short", ""),
        SnapshotChunk(b"", 9, 2, 100, 0, 1, b"x"),
        SnapshotChunk(ID, 9, 2, 1, 1, 1, b"x"),
    ],
    ids=["first index", "indexes", "empty command", "both", "id", "id of gone", "id of chunk", "beyond size"],
)
def test_what_no_member_may_send_is_a_bug(message):
    """Messages that would be refused are not sent in the first place."""
    with pytest.raises(AssertionError):
        encode(message)


@pytest.mark.parametrize("value", [-1, 2**64])
def test_numbers_that_do_not_fit_are_a_bug(value):
    """A number that the format cannot hold is not cut off."""
    with pytest.raises(ValueError, match=str(value)):
        encode(VoteResponse(value))


# ---- malformed heads


def head(version: int = WIRE_FORMAT_VERSION, **kind) -> pb.MessageHead:
    return pb.MessageHead(version=version, **kind)


def append(raw: bytes = b"\0a\0bc", **fields) -> bytes:
    """An append of two entries, valid but for what `fields` change."""
    valid = {"term": 5, "commit_index": 9, "previous_index": 9, "previous_term": 3, "round": 1}
    valid |= {"terms": [4, 5], "sizes": [2, 3]}
    return message_of(head(append=pb.Append(**(valid | fields))), raw)


def chunk(raw: bytes = b"data", **fields) -> bytes:
    """A chunk, valid but for what `fields` change."""
    valid = {"snapshot_id": ID, "index": 9, "term": 2, "size": 104, "offset": 100}
    valid |= {"checksum": int(google_crc32c.value(raw))}
    return message_of(head(snapshot_chunk=pb.SnapshotChunk(**(valid | fields))), raw)


def response(**fields) -> bytes:
    return message_of(head(append_response=pb.AppendResponse(**fields)))


def test_the_malformed_cases_start_from_valid_ones():
    """The builders of the cases below give messages that decode."""
    assert decode(append()) == Append(5, 9, 9, 3, 1, [(b"\0a", 10, 4), (b"\0bc", 11, 5)])
    assert decode(chunk()) == chunk_of(b"data", offset=100)
    assert decode(response(term=1, next_index=1, is_success=True)) == AppendResponse(1, 1, 0, True, False)


TOO_LARGE = 2**63
VOTE = pb.VoteResponse(term=1)
MALFORMED = {
    "nothing": (b"", "message of 0 bytes; allowed: at least 4"),
    "half a length": (b"\1\0\0", "message of 3 bytes; allowed: at least 4"),
    "head beyond": (b"\5\0\0\0abcd", "message of 8 bytes, whose head ends at 9; allowed: within the message"),
    "head of gigabytes": (b"\xff\xff\xff\xffabcd", "whose head ends at 4294967299"),
    "no protobuf": (b"\3\0\0\0\xff\xff\xff", "head of 3 bytes cannot be decoded"),
    "no version": (message_of(head(0, vote_response=VOTE)), "format version 0 of a message; allowed: 1"),
    "next version": (message_of(head(2, vote_response=VOTE)), "format version 2 of a message; allowed: 1"),
    "no kind": (message_of(head()), "kind of message is unknown; allowed: append,"),
    "later kind": (b"\5\0\0\0\x08\1\xfa\1\0", "kind of message is unknown"),
    "trailing bytes": (message_of(head(vote_response=VOTE), b"xy"), "raw bytes of vote_response: 2; allowed: 0"),
    "trailing after entries": (append(b"\0a\0bcd"), "raw bytes of an append: 6; allowed: 5, the sum of its sizes"),
    "missing of entries": (append(b"\0a\0b"), "raw bytes of an append: 4; allowed: 5, the sum of its sizes"),
    "trailing after heartbeat": (append(b"x", terms=[], sizes=[]), "raw bytes of an append: 1; allowed: 0"),
    "fewer sizes": (append(b"\0a", sizes=[2]), "sizes of 1 entries; allowed: 2"),
    "more sizes": (append(sizes=[2, 2, 1]), "sizes of 3 entries; allowed: 2"),
    "no terms": (append(terms=[]), "sizes of 2 entries; allowed: 0"),
    "empty command": (append(sizes=[5, 0]), f"size of an entry 0; allowed: 1 to {ENTRY_MAX_BYTES}"),
    "large entry": (append(sizes=[2, ENTRY_MAX_BYTES + 1]), f"size of an entry {ENTRY_MAX_BYTES + 1}; allowed: 1 to"),
    "huge entry": (append(sizes=[2**64 - 1, 6]), f"size of an entry {2**64 - 1}; allowed: 1 to"),
    "type of membership": (append(b"\0a\2bc"), r"command type 2 of entry 11; allowed: \[0, 1, 4\]"),
    "type of version": (append(b"\3a\0bc"), r"command type 3 of entry 10; allowed: \[0, 1, 4\]"),
    "placeholder": (append(b"\0a" + BASE_COMMAND + b"bc"), "command type 127 of entry 11"),
    "falling terms": (append(terms=[5, 4]), "term of an entry 4; allowed: 5 to 5"),
    "term before": (append(terms=[2, 5]), "term of an entry 2; allowed: 3 to 5"),
    "term above": (append(terms=[4, 6]), "term of an entry 6; allowed: 4 to 5"),
    "falling within": (append(b"\0" * 3, terms=[4, 3, 5], sizes=[1] * 3), "term of an entry 3; allowed: 4 to 5"),
    "previous term above": (append(previous_term=6), "previous_term 6; allowed: 0 to 5"),
    "previous index 0": (append(previous_index=0), f"previous_index 0; allowed: 1 to {INTEGER_MAX}"),
    "indexes run over": (append(previous_index=INTEGER_MAX - 1), f"previous_index {INTEGER_MAX - 1}; allowed: 1 to"),
    "append term": (append(term=TOO_LARGE), f"term {TOO_LARGE}; allowed: 0 to {INTEGER_MAX}"),
    "append commit": (append(commit_index=TOO_LARGE), f"commit_index {TOO_LARGE}; allowed"),
    "append previous": (append(previous_index=TOO_LARGE), f"previous_index {TOO_LARGE}; allowed"),
    "append round": (append(round=TOO_LARGE), f"round {TOO_LARGE}; allowed"),
    "both": (response(next_index=2, is_success=True, is_rejection=True), "is_success and is_rejection True; allowed"),
    "success of nothing": (response(next_index=0, is_success=True), "next_index 0; allowed: 1 to"),
    "rejection to nothing": (response(next_index=0, is_rejection=True), "next_index 0; allowed: 1 to"),
    "answer term": (response(term=TOO_LARGE), f"term {TOO_LARGE}; allowed"),
    "answer index": (response(next_index=TOO_LARGE), f"next_index {TOO_LARGE}; allowed"),
    "answer round": (response(round=TOO_LARGE), f"round {TOO_LARGE}; allowed"),
    "chunk id": (chunk(snapshot_id=b""), "snapshot_id of 0 bytes; allowed: 16"),
    "chunk beyond size": (chunk(size=103), "data of 4 bytes at offset 100; allowed: at most 3"),
    "chunk behind size": (chunk(size=99), "offset 100; allowed: 0 to 99"),
    "chunk checksum": (chunk(checksum=1), "checksum 0x00000001 of a chunk; allowed: 0x"),
    "chunk index 0": (chunk(index=0), "index 0; allowed: 1 to"),
    "chunk index": (chunk(index=TOO_LARGE), f"index {TOO_LARGE}; allowed"),
    "chunk term": (chunk(term=TOO_LARGE), f"term {TOO_LARGE}; allowed"),
    "chunk size": (chunk(size=TOO_LARGE), f"size {TOO_LARGE}; allowed"),
}
for kind, field, cls in [
    ("vote_request", "term", pb.VoteRequest),
    ("vote_request", "last_index", pb.VoteRequest),
    ("vote_request", "last_term", pb.VoteRequest),
    ("vote_response", "term", pb.VoteResponse),
    ("pre_vote_request", "term", pb.PreVoteRequest),
    ("pre_vote_request", "last_index", pb.PreVoteRequest),
    ("pre_vote_request", "last_term", pb.PreVoteRequest),
    ("pre_vote_response", "term", pb.PreVoteResponse),
    ("term_notice", "term", pb.TermNotice),
    ("timeout_now", "term", pb.TimeoutNow),
    ("snapshot_offer", "term", pb.SnapshotOffer),
    ("snapshot_offer", "round", pb.SnapshotOffer),
    ("snapshot_offer", "base_index", pb.SnapshotOffer),
    ("snapshot_request", "offset", pb.SnapshotRequest),
    ("snapshot_request", "length", pb.SnapshotRequest),
]:
    data = message_of(head(**{kind: cls(**{field: TOO_LARGE})}))
    MALFORMED[f"{kind} {field}"] = (data, f"{field} {TOO_LARGE}; allowed: . to {INTEGER_MAX}")
for name, data, text in [
    ("request id", head(snapshot_request=pb.SnapshotRequest(snapshot_id=b"x" * 15)), "snapshot_id of 15 bytes; allowed: 0 or 16"),
    ("gone id", head(snapshot_gone=pb.SnapshotGone(snapshot_id=b"x" * 17)), "snapshot_id of 17 bytes; allowed: 0 or 16"),
    ("reason", head(snapshot_gone=pb.SnapshotGone(reason="é" * 513)), "reason of 1026 bytes; allowed: at most 1024"),
    ("offer of nothing", head(snapshot_offer=pb.SnapshotOffer(term=1)), "base_index 0; allowed: 1 to"),
    ("offer above", head(snapshot_offer=pb.SnapshotOffer(term=1, base_index=1, base_term=2)), "base_term 2; allowed: 0 to 1"),
]:  # fmt: skip
    MALFORMED[name] = (message_of(data), text)


@pytest.mark.parametrize(("data", "text"), MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_is_refused(data, text):
    """A message that breaks a rule is refused with field, value and what is allowed, however it is held."""
    for given_as in (data, memoryview(data), bytearray(data)):
        with pytest.raises(WireError, match=text) as caught:
            decode(given_as)
        assert "allowed: " in str(caught.value)


def test_a_reason_that_is_no_text_is_refused():
    """A reason that is not UTF-8 is refused."""
    data = as_bytes(SnapshotGone(ID, "reason")).replace(b"reason", b"\xff" * 6)
    with pytest.raises(WireError, match="cannot be decoded"):
        decode(data)


@pytest.mark.parametrize("low", [0, 3])
def test_bounds_are_inclusive(low):
    """Both ends of a range are allowed, one beyond is not."""
    assert [check_integer("x", value, low, 7) for value in (low, 7)] == [low, 7]
    for value in (low - 1, 8):
        with pytest.raises(WireError, match=f"x {value}; allowed: {low} to 7"):
            check_integer("x", value, low, 7)


# ---- damage


@pytest.mark.parametrize("message", EXAMPLES, ids=names)
def test_no_prefix_is_a_message(message):
    """A message that was cut off anywhere is refused."""
    data = as_bytes(message)
    for end in range(len(data)):
        with pytest.raises(WireError):
            decode(data[:end])


@pytest.mark.parametrize("message", EXAMPLES, ids=names)
def test_nothing_may_follow(message):
    """A message with a byte too many is refused."""
    with pytest.raises(WireError):
        decode(as_bytes(message) + b"\0")


@pytest.mark.parametrize("message", EXAMPLES, ids=names)
def test_flipped_bits_are_refused_or_another_message(message):
    """Whatever bit is flipped, the outcome is WireError or a message that could have been sent: it encodes."""
    data = bytearray(as_bytes(message))
    for at in range(len(data)):
        for bit in range(8):
            data[at] ^= 1 << bit
            try:
                other = decode(bytes(data))
            except WireError:
                pass
            else:
                assert decode(as_bytes(other)) == other
            data[at] ^= 1 << bit


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
def test_random_bytes_raise_nothing_else(data):
    """Random bytes, bare and as a head of matching length, raise WireError or are a message."""
    for candidate in (data, struct.pack("<I", len(data)) + data, struct.pack("<I", len(data) // 2) + data):
        try:
            decode(candidate)
        except WireError:
            continue
