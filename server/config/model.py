"""Holds the options of a server and checks them (O20-O33, O40, O82-O96, O102, O103).

An `Options` object that exists is valid. Times are nanoseconds, sizes bytes, 0 means unlimited where the option says so.
The texts of refusals are the original's where it had one.
"""

from collections.abc import Mapping
from typing import Final, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from server.protocol.subjects import DEFAULT_DISCOVER_PREFIX

from .channel_limits import PATTERN_ALLOWED, ChannelLimits, EffectiveLimits, LimitRules, is_literal, is_pattern
from .checks import Frozen, check_count, check_positive_duration, check_subject, is_utf8
from .cluster import ClusterOptions, check_cluster_id
from .nats_urls import DEFAULT_PORT, complete
from .option_error import OptionError
from .route_urls import LISTEN_OPTION, ROUTES_OPTION, RouteAddress, complete_routes, parse_listen
from .units import SECOND_NS, format_duration, quote

StoreType = Literal["FILE", "MEMORY"]

DEFAULT_HOST: Final = "0.0.0.0"  # noqa: S104  the documented default
"""Listens on all addresses. Source: O82."""

PORT_RANDOM: Final = -1
"""Asks for any free port. Source: O83, O85."""

_PORT_MAX: Final = 65535
_CHANNELS: Final = "store_limits.channels"


class Limits(Frozen):
    """Limits of the store (O23-O28, O174-O177, O500). 0 = unlimited. All but the first are limits of each channel."""

    max_channels: int = 100
    max_subs: int = 1000
    max_msgs: int = 1_000_000
    max_bytes: int = 1_024_000_000
    max_age_ns: int = 0
    max_inactivity_ns: int = 0
    channels: Mapping[str, ChannelLimits] = Field(default_factory=dict)
    """Other limits for channels, by name or by pattern with wildcards (O176)."""

    def rules(self) -> LimitRules:
        """Which limits each channel has."""
        everywhere = EffectiveLimits(
            self.max_subs, self.max_msgs, self.max_bytes, self.max_age_ns, self.max_inactivity_ns
        )
        return LimitRules(everywhere, self.channels)

    @field_validator("channels", mode="after")
    @classmethod
    def _channel_names(cls, channels: Mapping[str, ChannelLimits]) -> Mapping[str, ChannelLimits]:
        for name in channels:
            if not is_pattern(name):
                raise OptionError(
                    f"invalid channel name {quote(name)}", option=_CHANNELS, value=name, allowed=PATTERN_ALLOWED
                )
        return channels

    @model_validator(mode="after")
    def _not_negative(self) -> Self:
        checks = (
            ("max_channels", "max channels", self.max_channels, str(self.max_channels)),
            ("max_subs", "max subscriptions", self.max_subs, str(self.max_subs)),
            ("max_msgs", "max messages", self.max_msgs, str(self.max_msgs)),
            ("max_bytes", "max bytes", self.max_bytes, str(self.max_bytes)),
            ("max_age", "max age", self.max_age_ns, format_duration(self.max_age_ns)),
            ("max_inactivity", "max inactivity", self.max_inactivity_ns, format_duration(self.max_inactivity_ns)),
        )
        for name, label, value, shown in checks:
            if value < 0:
                raise OptionError(
                    f"{label} limit cannot be negative ({shown})", option=f"--{name}", value=shown, allowed="0 or more"
                )
        return self

    @model_validator(mode="after")
    def _channels_fit(self) -> Self:
        """The operator's own channels must all be possible; patterns do not count (O472, O507)."""
        count = sum(map(is_literal, self.channels))
        if self.max_channels and count > self.max_channels:
            raise OptionError(
                f"too many channels defined ({count}). The max channels limit is set to {self.max_channels}",
                option=_CHANNELS,
                value=count,
                allowed=f"at most {self.max_channels} names without wildcards",
            )
        return self


class Options(Frozen):
    """Everything an operator decided, defaults filled in.

    Construction raises OptionError (a ConfigError) when a value cannot be used.
    """

    cluster_id: str = "test-cluster"
    discover_prefix: str = DEFAULT_DISCOVER_PREFIX
    """Subject of connect requests, less the cluster id (B11, O155)."""
    store: StoreType = "MEMORY"
    dir: str = ""
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    nats_urls: tuple[str, ...] = Field(default=(), repr=False)
    """External NATS servers, complete URLs with credentials if given; empty = our own child."""
    http_port: int = 0
    """Monitoring port of the child; 0 = off, -1 = random."""
    route_listen: RouteAddress | None = None
    """Where the child takes routes of other NATS servers; None = it stands alone."""
    routes: tuple[str, ...] = Field(default=(), repr=False)
    """NATS servers that the child connects to, complete URLs with logins if given."""
    limits: Limits = Limits()
    hb_interval_ns: int = 30 * SECOND_NS
    hb_timeout_ns: int = 10 * SECOND_NS
    hb_fail_count: int = 10
    stan_debug: bool = False
    stan_trace: bool = False
    nats_debug: bool = False
    nats_trace: bool = False
    log_file: str = ""
    logtime: bool = True
    pid_file: str = ""
    user: str = ""
    password: SecretStr = SecretStr("")
    token: SecretStr = SecretStr("")
    replace_durable: bool = False
    nats_server_binary: str | None = None
    cluster: ClusterOptions | None = None
    """Only with a FILE store; None = standalone (O40, O400)."""

    @field_validator("store", mode="before")
    @classmethod
    def _known_store(cls, value: object) -> object:
        store = value.upper() if isinstance(value, str) else value
        if store in ("FILE", "MEMORY"):
            return store
        is_planned = store == "SQL"
        text = "store type SQL is not supported by this version" if is_planned else f"unsupported store type: {store}"
        raise OptionError(text, option="--store", value=value, allowed="MEMORY or FILE")

    @field_validator("nats_urls", mode="after")
    @classmethod
    def _complete_urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        return complete(urls)

    @field_validator("route_listen", mode="before")
    @classmethod
    def _parsed_listen(cls, value: object) -> object:
        return parse_listen(value) if isinstance(value, str) else value

    @field_validator("routes", mode="after")
    @classmethod
    def _complete_routes(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        return complete_routes(urls)

    @field_validator("host", mode="after")
    @classmethod
    def _default_host(cls, host: str) -> str:
        return host or DEFAULT_HOST  # the NATS server reads an empty address as not set

    @field_validator("port", mode="after")
    @classmethod
    def _default_port(cls, port: int) -> int:
        return port or DEFAULT_PORT  # the NATS server reads 0 as not set

    @model_validator(mode="after")
    def _usable(self) -> Self:
        check_subject(self.cluster_id, "cluster ID", "--cluster_id")
        check_subject(self.discover_prefix, "discover prefix", "discover_prefix")
        if self.cluster is not None:
            self._check_clustered()
        if self.store == "FILE" and not self.dir:
            raise OptionError(
                "for FILE stores, root directory must be specified", option="--dir", value="", allowed="a directory"
            )
        _check_port("--port", self.port)
        _check_port("--http_port", self.http_port)
        if self.http_port and self.nats_urls:
            raise OptionError(
                "option --http_port cannot be combined with --nats_server in this version: "
                "monitoring is served by the embedded NATS server only",
                option="--http_port",
                value=self.http_port,
                allowed="0 with --nats_server",
            )
        if self.routes and self.route_listen is None:
            raise OptionError(
                "solicited routes require cluster capabilities, e.g. --cluster",
                option=ROUTES_OPTION,
                value=f"{len(self.routes)} given",
                allowed=f"together with {LISTEN_OPTION}",
            )
        self._check_texts()
        check_positive_duration("--hb_interval", self.hb_interval_ns)
        check_positive_duration("--hb_timeout", self.hb_timeout_ns)
        check_count("--hb_fail_count", self.hb_fail_count, 0)
        self._check_login()
        return self

    def _check_clustered(self) -> None:
        if self.store == "MEMORY":
            raise OptionError(
                "stan: clustering mode not supported with MEMORY store type",
                option="--store",
                value=self.store,
                allowed="FILE with --clustered",
            )
        check_cluster_id(self.cluster_id)

    def _check_texts(self) -> None:
        """What is handed to NATS must be text: bytes of the command line that are not UTF-8 could not be sent."""
        texts = (
            ("--addr", self.host),
            ("--nats_server", ",".join(self.nats_urls)),
            ("--user", self.user),
            ("--pass", self.password.get_secret_value()),
            ("--auth", self.token.get_secret_value()),
        )
        for option, text in texts:
            if not is_utf8(text):
                raise OptionError(
                    f"option {option} must be valid UTF-8", option=option, value="[REDACTED]", allowed="valid UTF-8"
                )

    def _check_login(self) -> None:
        if self.password.get_secret_value() and not self.user:
            raise OptionError(
                "option --pass has no effect without --user", option="--pass", value="[REDACTED]", allowed="with --user"
            )
        if self.user and self.token.get_secret_value():
            raise OptionError(
                "option --auth cannot be combined with --user: a NATS server demands either a token or a user",
                option="--auth",
                value="[REDACTED]",
                allowed="without --user",
            )


def _check_port(option: str, port: int) -> None:
    if not PORT_RANDOM <= port <= _PORT_MAX:
        allowed = f"{PORT_RANDOM} (random) to {_PORT_MAX}"
        raise OptionError(f"option {option} must be {allowed}, got {port}", option=option, value=port, allowed=allowed)
