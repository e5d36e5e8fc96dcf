# mypy: disable-error-code="type-arg"
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Limits(_message.Message):
    __slots__ = ("max_msgs", "max_bytes", "message_overhead")
    MAX_MSGS_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_OVERHEAD_FIELD_NUMBER: _ClassVar[int]
    max_msgs: int
    max_bytes: int
    message_overhead: int
    def __init__(self, max_msgs: _Optional[int] = ..., max_bytes: _Optional[int] = ..., message_overhead: _Optional[int] = ...) -> None: ...

class InitCluster(_message.Message):
    __slots__ = ("cluster_id", "ack_inbox_token")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    ACK_INBOX_TOKEN_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    ack_inbox_token: str
    def __init__(self, cluster_id: _Optional[str] = ..., ack_inbox_token: _Optional[str] = ...) -> None: ...

class CreateChannel(_message.Message):
    __slots__ = ("channel_id", "name", "limits")
    CHANNEL_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    channel_id: int
    name: str
    limits: Limits
    def __init__(self, channel_id: _Optional[int] = ..., name: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ...) -> None: ...

class SetLimits(_message.Message):
    __slots__ = ("channel_id", "limits")
    CHANNEL_ID_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    channel_id: int
    limits: Limits
    def __init__(self, channel_id: _Optional[int] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ...) -> None: ...

class DeleteChannel(_message.Message):
    __slots__ = ("channel_id",)
    CHANNEL_ID_FIELD_NUMBER: _ClassVar[int]
    channel_id: int
    def __init__(self, channel_id: _Optional[int] = ...) -> None: ...

class Append(_message.Message):
    __slots__ = ("channel_id", "first_seq", "count", "size", "last_timestamp_ns")
    CHANNEL_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQ_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    LAST_TIMESTAMP_NS_FIELD_NUMBER: _ClassVar[int]
    channel_id: int
    first_seq: int
    count: int
    size: int
    last_timestamp_ns: int
    def __init__(self, channel_id: _Optional[int] = ..., first_seq: _Optional[int] = ..., count: _Optional[int] = ..., size: _Optional[int] = ..., last_timestamp_ns: _Optional[int] = ...) -> None: ...

class Expire(_message.Message):
    __slots__ = ("channel_id", "first_seq")
    CHANNEL_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQ_FIELD_NUMBER: _ClassVar[int]
    channel_id: int
    first_seq: int
    def __init__(self, channel_id: _Optional[int] = ..., first_seq: _Optional[int] = ...) -> None: ...

class ConnectClient(_message.Message):
    __slots__ = ("client_id", "conn_id", "heartbeat_inbox", "protocol", "ping_interval_s", "ping_max_out")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    CONN_ID_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INBOX_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    PING_INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    PING_MAX_OUT_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    conn_id: bytes
    heartbeat_inbox: str
    protocol: int
    ping_interval_s: int
    ping_max_out: int
    def __init__(self, client_id: _Optional[str] = ..., conn_id: _Optional[bytes] = ..., heartbeat_inbox: _Optional[str] = ..., protocol: _Optional[int] = ..., ping_interval_s: _Optional[int] = ..., ping_max_out: _Optional[int] = ...) -> None: ...

class CloseClient(_message.Message):
    __slots__ = ("client_id",)
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    def __init__(self, client_id: _Optional[str] = ...) -> None: ...

class Subscribe(_message.Message):
    __slots__ = ("subscription_id", "channel_id", "client_id", "inbox", "ack_inbox", "durable_name", "queue_group", "max_in_flight", "ack_wait_s", "last_sent")
    SUBSCRIPTION_ID_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    INBOX_FIELD_NUMBER: _ClassVar[int]
    ACK_INBOX_FIELD_NUMBER: _ClassVar[int]
    DURABLE_NAME_FIELD_NUMBER: _ClassVar[int]
    QUEUE_GROUP_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    ACK_WAIT_S_FIELD_NUMBER: _ClassVar[int]
    LAST_SENT_FIELD_NUMBER: _ClassVar[int]
    subscription_id: int
    channel_id: int
    client_id: str
    inbox: str
    ack_inbox: str
    durable_name: str
    queue_group: str
    max_in_flight: int
    ack_wait_s: int
    last_sent: int
    def __init__(self, subscription_id: _Optional[int] = ..., channel_id: _Optional[int] = ..., client_id: _Optional[str] = ..., inbox: _Optional[str] = ..., ack_inbox: _Optional[str] = ..., durable_name: _Optional[str] = ..., queue_group: _Optional[str] = ..., max_in_flight: _Optional[int] = ..., ack_wait_s: _Optional[int] = ..., last_sent: _Optional[int] = ...) -> None: ...

class CloseSubscription(_message.Message):
    __slots__ = ("subscription_id",)
    SUBSCRIPTION_ID_FIELD_NUMBER: _ClassVar[int]
    subscription_id: int
    def __init__(self, subscription_id: _Optional[int] = ...) -> None: ...

class Unsubscribe(_message.Message):
    __slots__ = ("subscription_id",)
    SUBSCRIPTION_ID_FIELD_NUMBER: _ClassVar[int]
    subscription_id: int
    def __init__(self, subscription_id: _Optional[int] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("subscription_id", "last_sent", "floor", "acked")
    SUBSCRIPTION_ID_FIELD_NUMBER: _ClassVar[int]
    LAST_SENT_FIELD_NUMBER: _ClassVar[int]
    FLOOR_FIELD_NUMBER: _ClassVar[int]
    ACKED_FIELD_NUMBER: _ClassVar[int]
    subscription_id: int
    last_sent: int
    floor: int
    acked: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, subscription_id: _Optional[int] = ..., last_sent: _Optional[int] = ..., floor: _Optional[int] = ..., acked: _Optional[_Iterable[int]] = ...) -> None: ...

class GroupProgress(_message.Message):
    __slots__ = ("group_id", "last_sent", "floor", "acked", "moved", "first", "sent")
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    LAST_SENT_FIELD_NUMBER: _ClassVar[int]
    FLOOR_FIELD_NUMBER: _ClassVar[int]
    ACKED_FIELD_NUMBER: _ClassVar[int]
    MOVED_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SENT_FIELD_NUMBER: _ClassVar[int]
    group_id: int
    last_sent: int
    floor: int
    acked: _containers.RepeatedScalarFieldContainer[int]
    moved: _containers.RepeatedScalarFieldContainer[int]
    first: int
    sent: bytes
    def __init__(self, group_id: _Optional[int] = ..., last_sent: _Optional[int] = ..., floor: _Optional[int] = ..., acked: _Optional[_Iterable[int]] = ..., moved: _Optional[_Iterable[int]] = ..., first: _Optional[int] = ..., sent: _Optional[bytes] = ...) -> None: ...

class CleanStop(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BeginLeadership(_message.Message):
    __slots__ = ("send_ahead",)
    SEND_AHEAD_FIELD_NUMBER: _ClassVar[int]
    send_ahead: int
    def __init__(self, send_ahead: _Optional[int] = ...) -> None: ...

class Operation(_message.Message):
    __slots__ = ("init_cluster", "create_channel", "set_limits", "delete_channel", "append", "expire", "connect_client", "close_client", "subscribe", "close_subscription", "unsubscribe", "progress", "clean_stop", "begin_leadership", "group_progress")
    INIT_CLUSTER_FIELD_NUMBER: _ClassVar[int]
    CREATE_CHANNEL_FIELD_NUMBER: _ClassVar[int]
    SET_LIMITS_FIELD_NUMBER: _ClassVar[int]
    DELETE_CHANNEL_FIELD_NUMBER: _ClassVar[int]
    APPEND_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_FIELD_NUMBER: _ClassVar[int]
    CONNECT_CLIENT_FIELD_NUMBER: _ClassVar[int]
    CLOSE_CLIENT_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBE_FIELD_NUMBER: _ClassVar[int]
    CLOSE_SUBSCRIPTION_FIELD_NUMBER: _ClassVar[int]
    UNSUBSCRIBE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    CLEAN_STOP_FIELD_NUMBER: _ClassVar[int]
    BEGIN_LEADERSHIP_FIELD_NUMBER: _ClassVar[int]
    GROUP_PROGRESS_FIELD_NUMBER: _ClassVar[int]
    init_cluster: InitCluster
    create_channel: CreateChannel
    set_limits: SetLimits
    delete_channel: DeleteChannel
    append: Append
    expire: Expire
    connect_client: ConnectClient
    close_client: CloseClient
    subscribe: Subscribe
    close_subscription: CloseSubscription
    unsubscribe: Unsubscribe
    progress: Progress
    clean_stop: CleanStop
    begin_leadership: BeginLeadership
    group_progress: GroupProgress
    def __init__(self, init_cluster: _Optional[_Union[InitCluster, _Mapping]] = ..., create_channel: _Optional[_Union[CreateChannel, _Mapping]] = ..., set_limits: _Optional[_Union[SetLimits, _Mapping]] = ..., delete_channel: _Optional[_Union[DeleteChannel, _Mapping]] = ..., append: _Optional[_Union[Append, _Mapping]] = ..., expire: _Optional[_Union[Expire, _Mapping]] = ..., connect_client: _Optional[_Union[ConnectClient, _Mapping]] = ..., close_client: _Optional[_Union[CloseClient, _Mapping]] = ..., subscribe: _Optional[_Union[Subscribe, _Mapping]] = ..., close_subscription: _Optional[_Union[CloseSubscription, _Mapping]] = ..., unsubscribe: _Optional[_Union[Unsubscribe, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., clean_stop: _Optional[_Union[CleanStop, _Mapping]] = ..., begin_leadership: _Optional[_Union[BeginLeadership, _Mapping]] = ..., group_progress: _Optional[_Union[GroupProgress, _Mapping]] = ...) -> None: ...

class Envelope(_message.Message):
    __slots__ = ("version", "time_ns", "operations")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    version: int
    time_ns: int
    operations: _containers.RepeatedCompositeFieldContainer[Operation]
    def __init__(self, version: _Optional[int] = ..., time_ns: _Optional[int] = ..., operations: _Optional[_Iterable[_Union[Operation, _Mapping]]] = ...) -> None: ...
