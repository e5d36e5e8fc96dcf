"""Decides with which arguments and which configuration the nats-server child runs. Pure.

Everything, secrets above all, is in the generated file (O112, O115); the command line only names that file.
"""

from dataclasses import dataclass, field
from typing import Final

PORT_OFF: Final = 0
PORT_RANDOM: Final = -1

MAX_PENDING_BYTES: Final = 256 * 1024 * 1024
"""What the child holds for one slow client. Its default, 64 MiB, is reached by us when we pause reading."""

WRITE_DEADLINE_S: Final = 60
"""How long the child waits for a client that does not read. Its default, 10 s, would cut us off in a long pause."""

ANY_HOST: Final = "0.0.0.0"  # noqa: S104  what an empty address means
_LOOPBACK: Final = {ANY_HOST: "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # any address -> loopback (O120)


ROUTE_PING_S: Final = 2
"""How often the child asks a silent route for a sign, seconds. Its default, 30 s, outlasts every fail-over: behind a link
that was cut and came back, TCP's growing pauses would decide when nodes hear of one another again."""

ROUTE_PINGS_MAX: Final = 2
"""A route that left so many signs unanswered is made anew."""


@dataclass(frozen=True, slots=True)
class Routing:
    """How the child is one of several NATS servers (O102, O103). `port` is -1 for any; an empty host means all addresses."""

    name: str
    """Of the NATS servers together: they refuse one with another name."""
    host: str
    port: int
    user: str = ""
    """Who others must be to connect; empty = anybody."""
    password: str = field(default="", repr=False)
    routes: tuple[str, ...] = field(default=(), repr=False)
    """URLs of those it connects to, itself among them or not."""


@dataclass(frozen=True, slots=True)
class ChildConfig:
    """What the operator decided about the NATS server. Ports: -1 = random; `http_port` 0 = no monitoring."""

    host: str
    port: int
    server_name: str = ""
    http_host: str = ""
    """Where monitoring listens; empty = `host`."""
    http_port: int = PORT_OFF
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    max_payload: int = 0
    """Largest message, bytes; 0 = the child's default."""
    debug: bool = False
    trace: bool = False
    routing: Routing | None = None

    @property
    def address(self) -> str:
        """`host:port` as the operator gave it, for texts."""
        return join(self.host, self.port)

    @property
    def connect_host(self) -> str:
        """Host under which we reach the child (O120)."""
        return _LOOPBACK.get(self.host, self.host)


def arguments(config_path: str) -> list[str]:
    """The child's arguments, without the program."""
    return ["-c", config_path]


def config_text(config: ChildConfig, ports_file_dir: str) -> str:
    """The configuration file. It holds secrets: mode 0600."""
    lines = [
        f"host: {quoted(config.host)}",
        f"port: {config.port}",
        f"max_pending: {MAX_PENDING_BYTES}",
        f'write_deadline: "{WRITE_DEADLINE_S}s"',
        "logtime: false",
        f"ports_file_dir: {quoted(ports_file_dir)}",
    ]
    if config.server_name:
        lines.append(f"server_name: {quoted(config.server_name)}")
    if config.http_port != PORT_OFF:
        lines.append(f"http: {quoted(join(config.http_host or config.host, config.http_port))}")
    if config.max_payload:
        lines.append(f"max_payload: {config.max_payload}")
    if config.debug:
        lines.append("debug: true")
    if config.trace:
        lines.append("trace: true")
    if config.token:
        lines.append(f"authorization {{ token: {quoted(config.token)} }}")
    elif config.user:
        lines.append(_login(config.user, config.password))
    if config.routing is not None:
        lines += _cluster_lines(config.routing)
    return "\n".join(lines) + "\n"


def _cluster_lines(routing: Routing) -> list[str]:
    return [
        "cluster {",
        f"  name: {quoted(routing.name)}",
        f"  listen: {quoted(join(routing.host or ANY_HOST, routing.port))}",
        f'  ping_interval: "{ROUTE_PING_S}s"',
        f"  ping_max: {ROUTE_PINGS_MAX}",
        *([f"  {_login(routing.user, routing.password)}"] if routing.user else []),
        f"  routes: [{', '.join(map(quoted, routing.routes))}]",
        "}",
    ]


def _login(user: str, password: str) -> str:
    return f"authorization {{ user: {quoted(user)}, password: {quoted(password)} }}"


def quoted(text: str) -> str:
    """`text` as a double-quoted string of the NATS configuration grammar, in which `$` starts no variable."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(f"\\x{ord(char):02X}" if ord(char) < 0x20 else char for char in escaped) + '"'


def join(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
