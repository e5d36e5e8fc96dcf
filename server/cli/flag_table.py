"""Lists the options of the command line: those that exist now, and those of the original that are refused by name.

Numbers of the specification: O20-O108; `--cluster_secret_file` is ours. The help text and `docs/reference/options.md` are made from this table.
"""

from typing import Final

from .flags import Flag, Kind

STREAMING: Final = "Streaming Server Options"
STREAMING_CLUSTERING: Final = "Streaming Server Clustering Options"
STREAMING_LOGGING: Final = "Streaming Server Logging Options"
NATS: Final = "Embedded NATS Server Options"
LOGGING: Final = "Logging Options"
AUTHORIZATION: Final = "Authorization Options"
NATS_CLUSTERING: Final = "NATS Clustering Options"
COMMON: Final = "Common Options"

SECTIONS: Final = (
    STREAMING,
    STREAMING_CLUSTERING,
    "Streaming Server File Store Options",
    "Streaming Server SQL Store Options",
    "Streaming Server TLS Options",
    STREAMING_LOGGING,
    NATS,
    LOGGING,
    AUTHORIZATION,
    "TLS Options",
    NATS_CLUSTERING,
    COMMON,
)
"""Headings of the help text in their order. Source: O11."""

HELP_TARGET: Final = "help"
VERSION_TARGET: Final = "version"
CLUSTERED_TARGET: Final = "clustered"
CLUSTER_PREFIX: Final = "cluster."
"""Begins the targets that are fields of `ClusterOptions`."""
CLUSTER_SECRET_FILE_TARGET: Final = CLUSTER_PREFIX + "secret_file"
"""Leads to the field `secret` by way of a file."""
STAN_DEBUG_AND_TRACE_TARGET: Final = "stan_debug_and_trace"
NATS_DEBUG_AND_TRACE_TARGET: Final = "nats_debug_and_trace"


def _flag(section: str, names: str, kind: Kind, target: str, text: tuple[str, str], default: str = "") -> Flag:
    """`text` is placeholder and meaning."""
    return Flag(tuple(names.split()), kind, target, section, text[0], text[1], default)


def _cluster_flag(name: str, kind: Kind, meaning: str, default: str = "") -> Flag:
    """An option of clustering: `--cluster_<name>`, which sets the field `name`."""
    placeholder = _CLUSTER_PLACEHOLDERS.get(kind, kind)
    return _flag(STREAMING_CLUSTERING, f"cluster_{name}", kind, CLUSTER_PREFIX + name, (placeholder, meaning), default)


_CLUSTER_PLACEHOLDERS: Final = {Kind.LIST: "string[,string]"}

_CLUSTERING: Final = (
    _cluster_flag("node_id", Kind.STRING, "ID of this node if none is stored (random if not given)"),
    _cluster_flag("bootstrap", Kind.BOOL, "Form a new cluster of this node alone if there is no state", "false"),
    _cluster_flag("peers", Kind.LIST, "Node IDs of a new cluster; this node's own may be among them"),
    _cluster_flag(
        "log_path",
        Kind.STRING,
        "Directory of the replication log (cluster ID/node ID in the working directory if not given)",
    ),
    _cluster_flag(
        "log_cache_size",
        Kind.INTEGER,
        "No effect: the log entries kept in memory are those that --cluster_trailing_logs asks for",
        "512",
    ),
    _cluster_flag("log_snapshots", Kind.INTEGER, "No effect: snapshots are made on demand and none is kept", "2"),
    _cluster_flag(
        "trailing_logs", Kind.INTEGER, "Log entries kept for followers that are late, beyond what is stored", "10240"
    ),
    _cluster_flag("sync", Kind.BOOL, "Write the replication log to stable storage before acknowledging", "true"),
    _cluster_flag("raft_logging", Kind.BOOL, "Log lines of the replication", "false"),
    _cluster_flag(
        "allow_add_remove_node", Kind.BOOL, "The leader serves NATS requests to add and remove nodes", "false"
    ),
    _cluster_flag("proceed_on_restore_failure", Kind.BOOL, "No effect: an incomplete channel is never served", "false"),
    _cluster_flag("secret_file", Kind.STRING, "File with the secret that the nodes of the cluster share"),
)

SUPPORTED: Final = (
    _flag(STREAMING, "cid cluster_id", Kind.STRING, "cluster_id", ("string", "Cluster ID"), "test-cluster"),
    _flag(STREAMING, "st store", Kind.STRING, "store", ("string", "Store type: MEMORY or FILE"), "MEMORY"),
    _flag(STREAMING, "dir", Kind.STRING, "dir", ("string", "Root directory of the FILE store, created if absent")),
    _flag(
        STREAMING,
        "mc max_channels",
        Kind.INTEGER,
        "max_channels",
        ("int", "Max number of channels (0 for unlimited)"),
        "100",
    ),
    _flag(
        STREAMING,
        "msu max_subs",
        Kind.INTEGER,
        "max_subs",
        ("int", "Max number of subscriptions per channel (0 for unlimited)"),
        "1000",
    ),
    _flag(
        STREAMING,
        "mm max_msgs",
        Kind.INTEGER,
        "max_msgs",
        ("int", "Max number of messages per channel (0 for unlimited)"),
        "1000000",
    ),
    _flag(
        STREAMING,
        "mb max_bytes",
        Kind.SIZE,
        "max_bytes",
        ("size", "Max total size of messages per channel (0 for unlimited)"),
        "1024000000",
    ),
    _flag(
        STREAMING,
        "ma max_age",
        Kind.DURATION,
        "max_age_ns",
        ("duration", "Max age of a message, e.g. 2h45m (0 for unlimited)"),
        "0s",
    ),
    _flag(
        STREAMING,
        "mi max_inactivity",
        Kind.DURATION,
        "max_inactivity_ns",
        ("duration", "A channel with no new message and no subscription this long is deleted (0 for never)"),
        "0s",
    ),
    _flag(
        STREAMING,
        "ns nats_server",
        Kind.LIST,
        "nats_urls",
        ("url[,url]", "Use this external NATS server instead of the embedded one"),
    ),
    _flag(
        STREAMING,
        "hbi hb_interval",
        Kind.DURATION,
        "hb_interval_ns",
        ("duration", "Interval at which the server sends heartbeats to a client"),
        "30s",
    ),
    _flag(
        STREAMING,
        "hbt hb_timeout",
        Kind.DURATION,
        "hb_timeout_ns",
        ("duration", "How long the server waits for a heartbeat response"),
        "10s",
    ),
    _flag(
        STREAMING,
        "hbf hb_fail_count",
        Kind.INTEGER,
        "hb_fail_count",
        ("int", "A client with more failed heartbeats in a row than this is closed"),
        "10",
    ),
    _flag(
        STREAMING,
        "replace_durable",
        Kind.BOOL,
        "replace_durable",
        ("bool", "A new registration of a durable in use replaces it instead of being refused"),
        "false",
    ),
    _flag(
        STREAMING_CLUSTERING,
        "clustered",
        Kind.BOOL,
        CLUSTERED_TARGET,
        ("bool", "Run in a cluster; all options below are ignored without it"),
        "false",
    ),
    *_CLUSTERING,
    _flag(STREAMING_LOGGING, "SD stan_debug", Kind.BOOL, "stan_debug", ("bool", "Streaming debug log lines"), "false"),
    _flag(STREAMING_LOGGING, "SV stan_trace", Kind.BOOL, "stan_trace", ("bool", "Streaming trace log lines"), "false"),
    _flag(STREAMING_LOGGING, "SDV", Kind.BOOL, STAN_DEBUG_AND_TRACE_TARGET, ("bool", "Both of the above")),
    _flag(NATS, "a addr net", Kind.STRING, "host", ("string", "Address to listen on"), "0.0.0.0"),  # noqa: S104
    _flag(NATS, "p port", Kind.INTEGER, "port", ("int", "Port for clients (-1 for a random one)"), "4222"),
    _flag(NATS, "P pid", Kind.STRING, "pid_file", ("string", "File to write the process id to")),
    _flag(
        NATS,
        "m http_port",
        Kind.INTEGER,
        "http_port",
        ("int", "Port for HTTP monitoring (0 for none, -1 for a random one)"),
        "0",
    ),
    _flag(LOGGING, "l log", Kind.STRING, "log_file", ("string", "File to write log lines to instead of stderr")),
    _flag(LOGGING, "T logtime", Kind.BOOL, "logtime", ("bool", "Timestamps in log lines"), "true"),
    _flag(LOGGING, "D debug", Kind.BOOL, "nats_debug", ("bool", "NATS debug log lines"), "false"),
    _flag(LOGGING, "V trace", Kind.BOOL, "nats_trace", ("bool", "NATS trace log lines"), "false"),
    _flag(LOGGING, "DV", Kind.BOOL, NATS_DEBUG_AND_TRACE_TARGET, ("bool", "Both of the above")),
    _flag(
        AUTHORIZATION, "user", Kind.STRING, "user", ("string", "User that the NATS server demands and this server uses")
    ),
    _flag(AUTHORIZATION, "pass", Kind.STRING, "password", ("string", "Password of that user")),
    _flag(
        AUTHORIZATION,
        "auth",
        Kind.STRING,
        "token",
        ("string", "Token that the NATS server demands and this server uses"),
    ),
    _flag(
        NATS_CLUSTERING,
        "routes",
        Kind.LIST,
        "routes",
        ("url[,url]", "NATS servers of other nodes that the embedded one connects to, nats://[user:pass@]host:port"),
    ),
    _flag(
        NATS_CLUSTERING,
        "cluster cluster_listen",
        Kind.STRING,
        "route_listen",
        (
            "url",
            "Where the embedded NATS server takes such connections, nats://[user:pass@]host:port (port -1 for any)",
        ),
    ),
    _flag(COMMON, "h help", Kind.BOOL, HELP_TARGET, ("", "Show this text and exit")),
    _flag(COMMON, "v version", Kind.BOOL, VERSION_TARGET, ("", "Show the version and exit")),
)
"""Options that do what they say, in the order of the help text."""

_REFUSED_NAMES: Final = {
    Kind.BOOL: (
        "encrypt|file_compact_enabled|file_crc|file_sync|file_truncate_bad_eof|sql_no_caching|secure|s syslog|VV|DVV"
        "|tls|tlsverify|help_tls|no_advertise|t|js jetstream"
    ),
    Kind.INTEGER: (
        "file_compact_frag|file_compact_interval|file_crc_poly|file_slice_max_msgs|file_fds_limit"
        "|file_parallel_recovery|sql_max_open_conns|sql_bulk_insert_limit|ms https_port|connect_retries"
        "|log_size_limit|max_traced_msg_len|profile|io_batch_size|io_sleep_time"
    ),
    Kind.STRING: (
        "sc stan_config|ft_group|sl signal|encryption_cipher|encryption_key|file_slice_archive_script|sql_driver"
        "|sql_source|tls_client_key|tls_client_cert|tls_client_cacert|syslog_name|c config|r remote_syslog|tlscert"
        "|tlskey|tlscacert|n name server_name|client_advertise|cluster_name"
        "|cluster_advertise|ports_file_dir|sd store_dir"
    ),
    Kind.SIZE: "file_compact_min_size|file_buffer_size|file_slice_max_bytes|file_read_buffer_size",
    Kind.DURATION: "file_slice_max_age|file_auto_sync",
}
"""Options are separated by `|`, the names of one option by a blank."""

REFUSED: Final = tuple(
    Flag(tuple(names.split()), kind) for kind, options in _REFUSED_NAMES.items() for names in options.split("|")
)
"""Options of the original that this version refuses by name (O30-O108)."""

FLAGS: Final = SUPPORTED + REFUSED
"""Every option that the command line knows."""
