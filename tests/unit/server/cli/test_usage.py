"""The texts of help and version."""

import re

from server.cli.flag_table import REFUSED, SUPPORTED
from server.cli.usage import usage_text, version_line
from server.version import VERSION

HEADINGS = [
    "Streaming Server Options:",
    "Streaming Server Clustering Options:",
    "Streaming Server Logging Options:",
    "Embedded NATS Server Options:",
    "Logging Options:",
    "Authorization Options:",
    "NATS Clustering Options:",
    "Common Options:",
]


def test_help_begins_as_documented() -> None:
    """An empty line, then the usage line (O11)."""
    assert usage_text().splitlines()[:2] == ["", "Usage: nats-streaming-server [options]"]


def test_headings_are_in_order() -> None:
    """Headings of O11 that have options, in their order."""
    assert [line for line in usage_text().splitlines() if re.fullmatch(r"\S.* Options:", line)] == HEADINGS


def test_each_option_has_a_line() -> None:
    """Short form, long form, type, description with default, in columns (O11)."""
    lines = usage_text().splitlines()
    assert "    -cid, --cluster_id <string>         Cluster ID (default: test-cluster)" in lines
    assert "    -SD,  --stan_debug=<bool>           Streaming debug log lines (default: false)" in lines
    assert "          --user <string>               User that the NATS server demands and this server uses" in lines
    assert "    -DV=<bool>                          Both of the above" in lines
    assert len([line for line in lines if line.startswith("    ")]) == len(SUPPORTED)
    for flag in SUPPORTED:
        assert sum(flag.meaning in line and flag.dashed(flag.names[-1]) in line for line in lines) == 1


def test_long_names_widen_their_section_only() -> None:
    """A description never touches a name, and stands in one column below its heading (O11)."""
    lines = usage_text().splitlines()
    long, short = "--cluster_proceed_on_restore_failure=<bool>", "--clustered=<bool>"
    assert f"          {long} No effect: an incomplete channel is never served (default: false)" in lines
    column = next(line.index("Run in a cluster") for line in lines if short in line)
    assert column == next(line.index("No effect") for line in lines if long in line)


def test_refused_options_are_not_offered() -> None:
    """Help lists only what exists."""
    words = set(re.findall(r"(?<!\S)--?(\w+)", usage_text()))
    assert words & {name for flag in REFUSED for name in flag.names} == set()


def test_version_line() -> None:
    """One line with our version and that of the NATS server (O12)."""
    assert version_line("v2.11.0") == f"nats-streaming-server version {VERSION}, nats-server: v2.11.0"
