"""Builds the lines a starting server logs (O200-O203, O206-O212). Pure."""

import platform
from pathlib import Path
from typing import Final

from server.config.cluster import ClusterOptions
from server.config.model import Limits, Options
from server.config.units import format_duration, friendly_bytes, quote
from server.version import VERSION

RECOVERING_LINE: Final = "Recovering the state..."
"""Before the store is read. Source: O206."""

READY_LINE: Final = "Streaming Server is ready"
"""When clients can be served. Source: O211."""

_VALUE_WIDTH: Final = 13
_STORE_TITLE: Final = "---------- Store Limits ----------"
_CHANNELS_TITLE: Final = "--------- Channels Limits --------"
_CHANNELS_LABEL: Final = "Channels:" + " " * 8


def opening_lines(cluster_id: str, server_id: str, commit: str) -> list[str]:
    """The first lines of the log (O200-O203). `server_id` is 22 letters and digits, new at every start."""
    return [
        f"Starting nats-streaming-server[{cluster_id}] version {VERSION}",
        f"ServerID: {server_id}",
        f"Python version: {platform.python_version()}",
        f"Git commit: [{commit}]",
    ]


def recovered_line(channel_count: int | None) -> str:
    """What was found in the store; None when it was new or is never kept (O206)."""
    return "No recovered state" if channel_count is None else f"Recovered {channel_count} channel(s)"


def cluster_lines(cluster: ClusterOptions, *, node_id: str, log_path: Path) -> list[str]:
    """Who this node is in the cluster (O207), and whether it syncs (O418). `log_path` is the one in use."""
    peers = [f"peer {number}: {quote(peer)}" for number, peer in enumerate(cluster.peers_of(node_id), 1)]
    return [
        f"Cluster Node ID : {node_id}",
        f"Cluster Log Path: {log_path}",
        f"Cluster sync: {str(cluster.sync).lower()}",
        *(["Cluster known peers:", *peers] if peers else []),
    ]


def store_lines(options: Options) -> list[str]:
    """Type and place of the store (O208, O209, O417), then its limits (O210)."""
    place = [f"Store location: {options.dir}"] if options.dir else []
    kind = options.store if options.cluster is None else f"RAFT_{options.store}"
    return [f"Message store is {kind}", *place, *limits_lines(options.limits)]


def limits_lines(limits: Limits) -> list[str]:
    """The table of limits (O212). ` *` marks a value equal to the built-in default, even if it was given."""
    default = Limits()
    rows = (
        ("  Subscriptions: ", _count(limits.max_subs), limits.max_subs == default.max_subs),
        ("  Messages     : ", _count(limits.max_msgs), limits.max_msgs == default.max_msgs),
        (
            "  Bytes        : ",
            friendly_bytes(limits.max_bytes) if limits.max_bytes else "unlimited",
            limits.max_bytes == default.max_bytes,
        ),
        ("  Age          : ", _age(limits.max_age_ns), limits.max_age_ns == default.max_age_ns),
        (
            "  Inactivity   : ",
            _age(limits.max_inactivity_ns),
            limits.max_inactivity_ns == default.max_inactivity_ns,
        ),
    )
    return [
        _STORE_TITLE,
        _row(_CHANNELS_LABEL, _count(limits.max_channels), is_default=limits.max_channels == default.max_channels),
        _CHANNELS_TITLE,
        *(_row(label, value, is_default=is_default) for label, value, is_default in rows),
        "-" * len(_STORE_TITLE),
    ]


def _row(label: str, value: str, *, is_default: bool) -> str:
    return f"{label}{value:>{_VALUE_WIDTH}}{' *' if is_default else ''}"


def _count(value: int) -> str:
    return str(value) if value else "unlimited"


def _age(value_ns: int) -> str:
    return format_duration(value_ns) if value_ns else "unlimited"
