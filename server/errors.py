"""Classes the errors of the server by who must act.

    ServerError
    ├── ConfigError              the operator gave a value that cannot be used
    ├── RequestError             a client asked for something we refuse
    ├── ProtocolError            the NATS server sent bytes we cannot read: the connection is made anew
    ├── UnavailableError         try again later
    │   └── NatsUnavailableError     no NATS server to be reached
    ├── SelfCheckError           an installed library is not the one we were proven with
    ├── AnotherServerError       a second server has our cluster id
    ├── AnotherBootstrapError    a second node was told to begin the cluster
    ├── JoinError                nobody has accepted this node as a member
    ├── DataError                the data directory cannot be used as it is
    ├── InvariantError           a bug of ours: the node stops
    └── ChildError               the nats-server we run for the operator
        ├── ChildNotFoundError       its program is missing
        └── ChildStartError          it did not get ready

Facts are in attributes, prose is in `str()`.
"""

from collections.abc import Sequence
from typing import Final

LINE_SHOWN_MAX: Final = 128
"""Bytes of an unreadable line that are shown: it comes from outside and may be as long as a read."""


class ServerError(Exception):
    """Root of everything the server raises on purpose."""


class ConfigError(ServerError):
    """The operator must change `option`: `value` is not among what is `allowed`."""

    def __init__(self, option: str, value: object, allowed: str) -> None:
        super().__init__(f"option {option} cannot be {value!r}, allowed: {allowed}")
        self.option, self.value, self.allowed = option, value, allowed


class RequestError(ServerError):
    """The client asked for something we refuse. `wire_text` is sent verbatim: clients compare it (B120)."""

    def __init__(self, wire_text: str, *, field: str, value: object) -> None:
        super().__init__(f"{wire_text} ({field}={value!r})")
        self.wire_text, self.field, self.value = wire_text, field, value


class ProtocolError(ServerError):
    """The NATS server sent `line`, which is no line of the protocol. Only its beginning is kept."""

    def __init__(self, reason: str, *, line: bytes) -> None:
        self.reason, self.line = reason, bytes(line[:LINE_SHOWN_MAX])
        more = "..." if len(line) > LINE_SHOWN_MAX else ""
        super().__init__(f"unreadable NATS protocol: {reason}: {self.line!r}{more}")


class UnavailableError(ServerError):
    """What is needed is not there at the moment; the same may work later."""


class NatsUnavailableError(UnavailableError):
    """No NATS server is connected. `reasons` are the failures of the servers tried, without credentials."""

    def __init__(self, text: str, *, reasons: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.reasons = tuple(reasons)


class SelfCheckError(ServerError):
    """An installed library differs from the release we were proven with; the text names release and difference."""


class ChildError(ServerError):
    """The nats-server that we run as a child process failed."""


class ChildNotFoundError(ChildError):
    """There is no nats-server program in any of `places`."""

    def __init__(self, places: Sequence[str]) -> None:
        super().__init__(f"nats-server program not found, looked at: {'; '.join(places)}")
        self.places = tuple(places)


class ChildStartError(ChildError):
    """The child did not get ready. `output` are its last lines; they were relayed as they came (O116)."""

    def __init__(self, text: str, *, host: str, port: int, output: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.host, self.port, self.output = host, port, tuple(output)


class AnotherServerError(ServerError):
    """Another server with our cluster id answers on the same NATS servers (B146)."""

    def __init__(self, *, cluster_id: str) -> None:
        super().__init__(f'discovered another streaming server with cluster ID "{cluster_id}"')
        self.cluster_id = cluster_id


class AnotherBootstrapError(ServerError):
    """A second node of the cluster was started with --cluster_bootstrap (O408)."""

    def __init__(self, server_id: str) -> None:
        super().__init__(f"Server {server_id} was also started with -cluster_bootstrap")
        self.server_id = server_id


class JoinError(ServerError):
    """No leader of the cluster has accepted this node (O403)."""

    def __init__(self, cluster_id: str) -> None:
        super().__init__(f"failed to join Raft group {cluster_id}")
        self.cluster_id = cluster_id


class DataError(ServerError):
    """The operator must act on the data directory; the text names it and what is allowed."""


class InvariantError(ServerError):
    """A bug of ours: stopped is better than wrong."""
