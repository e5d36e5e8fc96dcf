# mypy: disable-error-code="type-arg"
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Identity(_message.Message):
    __slots__ = ("cluster_id", "node_id", "incarnation")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    node_id: str
    incarnation: str
    def __init__(self, cluster_id: _Optional[str] = ..., node_id: _Optional[str] = ..., incarnation: _Optional[str] = ...) -> None: ...

class Cluster(_message.Message):
    __slots__ = ("cluster_id", "ack_inbox_token", "next_channel_id", "next_subscription_id", "next_client_number", "progress_is_exact", "configuration")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    ACK_INBOX_TOKEN_FIELD_NUMBER: _ClassVar[int]
    NEXT_CHANNEL_ID_FIELD_NUMBER: _ClassVar[int]
    NEXT_SUBSCRIPTION_ID_FIELD_NUMBER: _ClassVar[int]
    NEXT_CLIENT_NUMBER_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_IS_EXACT_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    ack_inbox_token: str
    next_channel_id: int
    next_subscription_id: int
    next_client_number: int
    progress_is_exact: bool
    configuration: bytes
    def __init__(self, cluster_id: _Optional[str] = ..., ack_inbox_token: _Optional[str] = ..., next_channel_id: _Optional[int] = ..., next_subscription_id: _Optional[int] = ..., next_client_number: _Optional[int] = ..., progress_is_exact: _Optional[bool] = ..., configuration: _Optional[bytes] = ...) -> None: ...

class Client(_message.Message):
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

class Subscription(_message.Message):
    __slots__ = ("channel_id", "client_id", "inbox", "ack_inbox", "durable_name", "queue_group", "max_in_flight", "ack_wait_s", "is_online", "suspect_to", "group_id", "slot")
    CHANNEL_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    INBOX_FIELD_NUMBER: _ClassVar[int]
    ACK_INBOX_FIELD_NUMBER: _ClassVar[int]
    DURABLE_NAME_FIELD_NUMBER: _ClassVar[int]
    QUEUE_GROUP_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    ACK_WAIT_S_FIELD_NUMBER: _ClassVar[int]
    IS_ONLINE_FIELD_NUMBER: _ClassVar[int]
    SUSPECT_TO_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    channel_id: int
    client_id: str
    inbox: str
    ack_inbox: str
    durable_name: str
    queue_group: str
    max_in_flight: int
    ack_wait_s: int
    is_online: bool
    suspect_to: int
    group_id: int
    slot: int
    def __init__(self, channel_id: _Optional[int] = ..., client_id: _Optional[str] = ..., inbox: _Optional[str] = ..., ack_inbox: _Optional[str] = ..., durable_name: _Optional[str] = ..., queue_group: _Optional[str] = ..., max_in_flight: _Optional[int] = ..., ack_wait_s: _Optional[int] = ..., is_online: _Optional[bool] = ..., suspect_to: _Optional[int] = ..., group_id: _Optional[int] = ..., slot: _Optional[int] = ...) -> None: ...

class Group(_message.Message):
    __slots__ = ("channel_id", "durable_name", "name", "suspect_to")
    CHANNEL_ID_FIELD_NUMBER: _ClassVar[int]
    DURABLE_NAME_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SUSPECT_TO_FIELD_NUMBER: _ClassVar[int]
    channel_id: int
    durable_name: str
    name: str
    suspect_to: int
    def __init__(self, channel_id: _Optional[int] = ..., durable_name: _Optional[str] = ..., name: _Optional[str] = ..., suspect_to: _Optional[int] = ...) -> None: ...
