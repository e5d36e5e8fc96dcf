"""The lines of a starting server."""

import re
from pathlib import Path

import pytest

from server.cli.banner import (
    READY_LINE,
    RECOVERING_LINE,
    cluster_lines,
    limits_lines,
    opening_lines,
    recovered_line,
    store_lines,
)
from server.config.cluster import ClusterOptions
from server.config.model import Limits, Options
from server.version import VERSION

DEFAULT_TABLE = """\
---------- Store Limits ----------
Channels:                  100 *
--------- Channels Limits --------
  Subscriptions:          1000 *
  Messages     :       1000000 *
  Bytes        :     976.56 MB *
  Age          :     unlimited *
  Inactivity   :     unlimited *
----------------------------------"""

OTHER_TABLE = """\
---------- Store Limits ----------
Channels:            unlimited
--------- Channels Limits --------
  Subscriptions:     unlimited
  Messages     :            10
  Bytes        :         500 B
  Age          :       1h30m0s
  Inactivity   :         100ms
----------------------------------"""

UNLIMITED_BYTES_ROW = "  Bytes        :     unlimited"


def test_opening_lines() -> None:
    """Cluster, version, server id, Python and commit, in this order (O200-O203)."""
    lines = opening_lines("orders", "A" * 22, "not set")
    assert lines[0] == f"Starting nats-streaming-server[orders] version {VERSION}"
    assert lines[1] == f"ServerID: {'A' * 22}"
    assert re.fullmatch(r"Python version: 3\.\d+\.\d+\S*", lines[2])
    assert lines[3:] == ["Git commit: [not set]"]


@pytest.mark.parametrize(
    ("count", "line"),
    [(None, "No recovered state"), (0, "Recovered 0 channel(s)"), (12, "Recovered 12 channel(s)")],
)
def test_recovered_line(count: int | None, line: str) -> None:
    """Nothing kept, or the number of channels (O206)."""
    assert recovered_line(count) == line


def test_fixed_lines() -> None:
    """Lines that operators look for (O206, O211)."""
    assert (RECOVERING_LINE, READY_LINE) == ("Recovering the state...", "Streaming Server is ready")


def test_default_limits_table() -> None:
    """Defaults are marked, character by character (O212)."""
    assert "\n".join(limits_lines(Limits())) == DEFAULT_TABLE


def test_other_limits_table() -> None:
    """Other values are not marked; 0 is unlimited (O212)."""
    limits = Limits(
        max_channels=0,
        max_subs=0,
        max_msgs=10,
        max_bytes=500,
        max_age_ns=5400 * 10**9,
        max_inactivity_ns=100 * 10**6,
    )
    assert "\n".join(limits_lines(limits)) == OTHER_TABLE


def test_unlimited_bytes() -> None:
    """0 bytes prints as unlimited as well (O212)."""
    assert limits_lines(Limits(max_bytes=0))[5] == UNLIMITED_BYTES_ROW


def test_store_lines() -> None:
    """Type, place and limits; the place whenever a directory is set, for any type (O208-O210)."""
    table = limits_lines(Limits())
    assert store_lines(Options()) == ["Message store is MEMORY", *table]
    assert store_lines(Options(dir="d")) == ["Message store is MEMORY", "Store location: d", *table]
    assert store_lines(Options(store="FILE", dir="data"))[:2] == ["Message store is FILE", "Store location: data"]


def test_store_of_a_clustered_node() -> None:
    """O417: another name for the store; nothing else changes."""
    alone = Options(store="FILE", dir="data")
    clustered = Options(store="FILE", dir="data", cluster=ClusterOptions())
    assert store_lines(clustered) == ["Message store is RAFT_FILE", *store_lines(alone)[1:]]


def test_cluster_lines() -> None:
    """O207, O418: node, log path and peers, without this node, from 1 on; whether the log is synced."""
    cluster = ClusterOptions(peers=("b", "a", "c,d"), sync=False)
    assert cluster_lines(cluster, node_id="a", log_path=Path("orders/a")) == [
        "Cluster Node ID : a",
        "Cluster Log Path: orders/a",
        "Cluster sync: false",
        "Cluster known peers:",
        'peer 1: "b"',
        'peer 2: "c,d"',
    ]
    assert cluster_lines(ClusterOptions(peers=("a",)), node_id="a", log_path=Path("/logs")) == [
        "Cluster Node ID : a",
        "Cluster Log Path: /logs",
        "Cluster sync: true",
    ]
