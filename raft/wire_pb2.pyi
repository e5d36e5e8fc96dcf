# mypy: disable-error-code="type-arg"
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Member(_message.Message):
    __slots__ = ("node_id", "incarnation")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    incarnation: str
    def __init__(self, node_id: _Optional[str] = ..., incarnation: _Optional[str] = ...) -> None: ...

class Configuration(_message.Message):
    __slots__ = ("genesis", "members")
    GENESIS_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    genesis: bytes
    members: _containers.RepeatedCompositeFieldContainer[Member]
    def __init__(self, genesis: _Optional[bytes] = ..., members: _Optional[_Iterable[_Union[Member, _Mapping]]] = ...) -> None: ...

class MessageHead(_message.Message):
    __slots__ = ("version", "append", "append_response", "vote_request", "vote_response", "pre_vote_request", "pre_vote_response", "term_notice", "timeout_now", "snapshot_offer", "snapshot_request", "snapshot_chunk", "snapshot_gone")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    APPEND_FIELD_NUMBER: _ClassVar[int]
    APPEND_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    VOTE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    VOTE_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    PRE_VOTE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    PRE_VOTE_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    TERM_NOTICE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_NOW_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_OFFER_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_REQUEST_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_CHUNK_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_GONE_FIELD_NUMBER: _ClassVar[int]
    version: int
    append: Append
    append_response: AppendResponse
    vote_request: VoteRequest
    vote_response: VoteResponse
    pre_vote_request: PreVoteRequest
    pre_vote_response: PreVoteResponse
    term_notice: TermNotice
    timeout_now: TimeoutNow
    snapshot_offer: SnapshotOffer
    snapshot_request: SnapshotRequest
    snapshot_chunk: SnapshotChunk
    snapshot_gone: SnapshotGone
    def __init__(self, version: _Optional[int] = ..., append: _Optional[_Union[Append, _Mapping]] = ..., append_response: _Optional[_Union[AppendResponse, _Mapping]] = ..., vote_request: _Optional[_Union[VoteRequest, _Mapping]] = ..., vote_response: _Optional[_Union[VoteResponse, _Mapping]] = ..., pre_vote_request: _Optional[_Union[PreVoteRequest, _Mapping]] = ..., pre_vote_response: _Optional[_Union[PreVoteResponse, _Mapping]] = ..., term_notice: _Optional[_Union[TermNotice, _Mapping]] = ..., timeout_now: _Optional[_Union[TimeoutNow, _Mapping]] = ..., snapshot_offer: _Optional[_Union[SnapshotOffer, _Mapping]] = ..., snapshot_request: _Optional[_Union[SnapshotRequest, _Mapping]] = ..., snapshot_chunk: _Optional[_Union[SnapshotChunk, _Mapping]] = ..., snapshot_gone: _Optional[_Union[SnapshotGone, _Mapping]] = ...) -> None: ...

class Append(_message.Message):
    __slots__ = ("term", "commit_index", "previous_index", "previous_term", "round", "terms", "sizes")
    TERM_FIELD_NUMBER: _ClassVar[int]
    COMMIT_INDEX_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_INDEX_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_TERM_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    SIZES_FIELD_NUMBER: _ClassVar[int]
    term: int
    commit_index: int
    previous_index: int
    previous_term: int
    round: int
    terms: _containers.RepeatedScalarFieldContainer[int]
    sizes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, term: _Optional[int] = ..., commit_index: _Optional[int] = ..., previous_index: _Optional[int] = ..., previous_term: _Optional[int] = ..., round: _Optional[int] = ..., terms: _Optional[_Iterable[int]] = ..., sizes: _Optional[_Iterable[int]] = ...) -> None: ...

class AppendResponse(_message.Message):
    __slots__ = ("term", "next_index", "round", "is_success", "is_rejection")
    TERM_FIELD_NUMBER: _ClassVar[int]
    NEXT_INDEX_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    IS_SUCCESS_FIELD_NUMBER: _ClassVar[int]
    IS_REJECTION_FIELD_NUMBER: _ClassVar[int]
    term: int
    next_index: int
    round: int
    is_success: bool
    is_rejection: bool
    def __init__(self, term: _Optional[int] = ..., next_index: _Optional[int] = ..., round: _Optional[int] = ..., is_success: _Optional[bool] = ..., is_rejection: _Optional[bool] = ...) -> None: ...

class VoteRequest(_message.Message):
    __slots__ = ("term", "last_index", "last_term", "is_forced")
    TERM_FIELD_NUMBER: _ClassVar[int]
    LAST_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_TERM_FIELD_NUMBER: _ClassVar[int]
    IS_FORCED_FIELD_NUMBER: _ClassVar[int]
    term: int
    last_index: int
    last_term: int
    is_forced: bool
    def __init__(self, term: _Optional[int] = ..., last_index: _Optional[int] = ..., last_term: _Optional[int] = ..., is_forced: _Optional[bool] = ...) -> None: ...

class VoteResponse(_message.Message):
    __slots__ = ("term",)
    TERM_FIELD_NUMBER: _ClassVar[int]
    term: int
    def __init__(self, term: _Optional[int] = ...) -> None: ...

class PreVoteRequest(_message.Message):
    __slots__ = ("term", "last_index", "last_term")
    TERM_FIELD_NUMBER: _ClassVar[int]
    LAST_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_TERM_FIELD_NUMBER: _ClassVar[int]
    term: int
    last_index: int
    last_term: int
    def __init__(self, term: _Optional[int] = ..., last_index: _Optional[int] = ..., last_term: _Optional[int] = ...) -> None: ...

class PreVoteResponse(_message.Message):
    __slots__ = ("term",)
    TERM_FIELD_NUMBER: _ClassVar[int]
    term: int
    def __init__(self, term: _Optional[int] = ...) -> None: ...

class TermNotice(_message.Message):
    __slots__ = ("term",)
    TERM_FIELD_NUMBER: _ClassVar[int]
    term: int
    def __init__(self, term: _Optional[int] = ...) -> None: ...

class TimeoutNow(_message.Message):
    __slots__ = ("term",)
    TERM_FIELD_NUMBER: _ClassVar[int]
    term: int
    def __init__(self, term: _Optional[int] = ...) -> None: ...

class SnapshotOffer(_message.Message):
    __slots__ = ("term", "round", "base_index", "base_term")
    TERM_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    BASE_INDEX_FIELD_NUMBER: _ClassVar[int]
    BASE_TERM_FIELD_NUMBER: _ClassVar[int]
    term: int
    round: int
    base_index: int
    base_term: int
    def __init__(self, term: _Optional[int] = ..., round: _Optional[int] = ..., base_index: _Optional[int] = ..., base_term: _Optional[int] = ...) -> None: ...

class SnapshotRequest(_message.Message):
    __slots__ = ("snapshot_id", "offset", "length")
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    snapshot_id: bytes
    offset: int
    length: int
    def __init__(self, snapshot_id: _Optional[bytes] = ..., offset: _Optional[int] = ..., length: _Optional[int] = ...) -> None: ...

class SnapshotChunk(_message.Message):
    __slots__ = ("snapshot_id", "index", "term", "size", "offset", "checksum")
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    snapshot_id: bytes
    index: int
    term: int
    size: int
    offset: int
    checksum: int
    def __init__(self, snapshot_id: _Optional[bytes] = ..., index: _Optional[int] = ..., term: _Optional[int] = ..., size: _Optional[int] = ..., offset: _Optional[int] = ..., checksum: _Optional[int] = ...) -> None: ...

class SnapshotGone(_message.Message):
    __slots__ = ("snapshot_id", "reason")
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    snapshot_id: bytes
    reason: str
    def __init__(self, snapshot_id: _Optional[bytes] = ..., reason: _Optional[str] = ...) -> None: ...

class FrameHeader(_message.Message):
    __slots__ = ("version", "kind", "source_node_id", "source_incarnation", "source_session", "destination_node_id", "destination_session", "sequence", "fragment_number", "fragment_count", "body_size", "checksum")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SOURCE_NODE_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_INCARNATION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_SESSION_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_NODE_ID_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_SESSION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FRAGMENT_NUMBER_FIELD_NUMBER: _ClassVar[int]
    FRAGMENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    BODY_SIZE_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    version: int
    kind: int
    source_node_id: str
    source_incarnation: str
    source_session: int
    destination_node_id: str
    destination_session: int
    sequence: int
    fragment_number: int
    fragment_count: int
    body_size: int
    checksum: int
    def __init__(self, version: _Optional[int] = ..., kind: _Optional[int] = ..., source_node_id: _Optional[str] = ..., source_incarnation: _Optional[str] = ..., source_session: _Optional[int] = ..., destination_node_id: _Optional[str] = ..., destination_session: _Optional[int] = ..., sequence: _Optional[int] = ..., fragment_number: _Optional[int] = ..., fragment_count: _Optional[int] = ..., body_size: _Optional[int] = ..., checksum: _Optional[int] = ...) -> None: ...

class NodeInfo(_message.Message):
    __slots__ = ("genesis", "is_fresh", "peers_digest", "release")
    GENESIS_FIELD_NUMBER: _ClassVar[int]
    IS_FRESH_FIELD_NUMBER: _ClassVar[int]
    PEERS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    genesis: bytes
    is_fresh: bool
    peers_digest: int
    release: str
    def __init__(self, genesis: _Optional[bytes] = ..., is_fresh: _Optional[bool] = ..., peers_digest: _Optional[int] = ..., release: _Optional[str] = ...) -> None: ...
