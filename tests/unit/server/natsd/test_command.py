"""Covers server/natsd/command.py; the real nats-server judges the text of the file."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.natsd.binary import find
from server.natsd.command import ChildConfig, Routing, arguments, config_text, join, quoted

FULL = ChildConfig(
    host="127.0.0.1",
    port=4333,
    server_name="n1",
    http_host="::1",
    http_port=8222,
    user="u",
    password="p",
    max_payload=65536,
    debug=True,
    trace=True,
    routing=Routing(
        name="orders",
        host="::1",
        port=6222,
        user="ru",
        password="rp",
        routes=("nats://ru:rp@n1:6222", "nats://n2:6222"),
    ),
)


def judged(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What `nats-server -t` says about a configuration."""
    path = folder / "nats.conf"
    path.write_text(text, encoding="utf-8")
    return subprocess.run([find(), "-t", "-c", path], capture_output=True, text=True, check=False, timeout=20)


def test_full_configuration() -> None:
    """Every option has its line; O117: the child writes no time."""
    assert config_text(FULL, "/run/x").splitlines() == [
        'host: "127.0.0.1"',
        "port: 4333",
        "max_pending: 268435456",
        'write_deadline: "60s"',
        "logtime: false",
        'ports_file_dir: "/run/x"',
        'server_name: "n1"',
        'http: "[::1]:8222"',
        "max_payload: 65536",
        "debug: true",
        "trace: true",
        'authorization { user: "u", password: "p" }',
        "cluster {",
        '  name: "orders"',
        '  listen: "[::1]:6222"',
        '  ping_interval: "2s"',
        "  ping_max: 2",
        '  authorization { user: "ru", password: "rp" }',
        '  routes: ["nats://ru:rp@n1:6222", "nats://n2:6222"]',
        "}",
    ]


def test_least_configuration() -> None:
    """What the operator did not ask for is not in the file."""
    lines = config_text(ChildConfig(host="h", port=-1), "/d").splitlines()
    assert {line.partition(":")[0] for line in lines} == {
        "host",
        "port",
        "max_pending",
        "write_deadline",
        "logtime",
        "ports_file_dir",
    }


def test_token_is_the_authorization() -> None:
    """O96."""
    text = config_text(ChildConfig(host="h", port=1, token="t"), "/d")
    assert 'authorization { token: "t" }' in text


def test_monitoring_listens_where_clients_do_unless_told() -> None:
    """O85: monitoring has its own address only when one is given."""
    assert 'http: "h:-1"' in config_text(ChildConfig(host="h", port=1, http_port=-1), "/d")


def test_routes_without_login_and_host() -> None:
    """O103: without a user anybody may connect; no host means all addresses, -1 any port."""
    text = config_text(ChildConfig(host="h", port=1, routing=Routing(name="c", host="", port=-1)), "/d")
    assert "authorization" not in text
    assert '  listen: "0.0.0.0:-1"' in text
    assert "  routes: []" in text


def test_command_line_holds_no_secret() -> None:
    """O115: whoever lists processes sees a file name, and representations of the configuration show no secret."""
    assert arguments("/run/x/nats.conf") == ["-c", "/run/x/nats.conf"]
    routing = Routing(name="c", host="h", port=1, user="u", password="hidden", routes=("nats://u:hidden@r:1",))
    shown = repr(ChildConfig(host="h", port=1, user="u", password="hidden", token="covert", routing=routing))
    assert "hidden" not in shown
    assert "covert" not in shown


ODD = ChildConfig(
    host="0.0.0.0",
    port=-1,
    token='$x"\\',
    routing=Routing(name='a"b.\\ü$x', host="", port=-1, user='$u"', password="\\p}", routes=("nats://u:p%40%24@h:1",)),
)


@pytest.mark.parametrize("config", [FULL, ODD])
def test_real_server_takes_the_file(config: ChildConfig, tmp_path: Path) -> None:
    """The real parser accepts the generated text."""
    done = judged(config_text(config, str(tmp_path)), tmp_path)
    assert done.returncode == 0, done.stderr


def test_real_server_would_complain(tmp_path: Path) -> None:
    """The judge of the test above does refuse an unknown key."""
    assert judged(config_text(FULL, str(tmp_path)) + "streaming {}\n", tmp_path).returncode == 1


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_quoted_text_cannot_leave_its_string(text: str) -> None:
    """Every quote and backslash of the text is escaped, and no control character or line end is left bare."""
    inner = quoted(text)[1:-1]
    assert all(ord(char) >= 0x20 for char in inner)
    position = 0
    while position < len(inner):
        assert inner[position] != '"'
        position += 2 if inner[position] == "\\" else 1
    assert position == len(inner)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("0.0.0.0", "127.0.0.1"), ("", "127.0.0.1"), ("::", "::1"), ("10.1.2.3", "10.1.2.3"), ("localhost", "localhost")],
)
def test_child_is_reached_over_loopback(host: str, expected: str) -> None:
    """O120."""
    assert ChildConfig(host=host, port=1).connect_host == expected


def test_ipv6_address_gets_brackets() -> None:
    """Otherwise its colons and the port's could not be told apart."""
    assert join("::1", 4222) == "[::1]:4222"
    assert ChildConfig(host="h", port=-1).address == "h:-1"
