# mypy: disable-error-code="type-arg"
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class JoinRequest(_message.Message):
    __slots__ = ("version", "node_id", "incarnation")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    version: int
    node_id: str
    incarnation: str
    def __init__(self, version: _Optional[int] = ..., node_id: _Optional[str] = ..., incarnation: _Optional[str] = ...) -> None: ...

class JoinResponse(_message.Message):
    __slots__ = ("error", "leader_id")
    ERROR_FIELD_NUMBER: _ClassVar[int]
    LEADER_ID_FIELD_NUMBER: _ClassVar[int]
    error: str
    leader_id: str
    def __init__(self, error: _Optional[str] = ..., leader_id: _Optional[str] = ...) -> None: ...
