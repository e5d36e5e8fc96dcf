"""Addresses of NATS routes."""

import pytest
from pydantic import SecretStr

from server.config.option_error import OptionError
from server.config.route_urls import RouteAddress, complete_routes, parse_listen


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nats://127.0.0.1:6222", RouteAddress(host="127.0.0.1", port=6222)),
        ("nats://node-1:6222/", RouteAddress(host="node-1", port=6222)),
        ("nats-route://localhost:1", RouteAddress(host="localhost", port=1)),
        ("nats://:6222", RouteAddress(host="", port=6222)),
        ("nats://0.0.0.0:-1", RouteAddress(host="0.0.0.0", port=-1)),
        ("nats://[::1]:65535", RouteAddress(host="::1", port=65535)),
        ("nats://u:p@h:1", RouteAddress(host="h", port=1, user="u", password=SecretStr("p"))),
        ("nats://u%40x:p%3A%2F%24@h:1", RouteAddress(host="h", port=1, user="u@x", password=SecretStr("p:/$"))),
        ("nats://u:p@ss:word@h:1", RouteAddress(host="h", port=1, user="u", password=SecretStr("p@ss:word"))),
    ],
)
def test_listen_address_is_read(url: str, expected: RouteAddress) -> None:
    """Host, port and decoded login; -1 is any port (O103)."""
    assert parse_listen(url) == expected


def test_empty_listen_address_disables() -> None:
    """O103."""
    assert parse_listen("") is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("h:1", "h:1"),
        ("tls://h:1", "tls://h:1"),
        ("nats://h", "nats://h"),
        ("nats://h:0", "nats://h:0"),
        ("nats://h:-2", "nats://h:-2"),
        ("nats://h:65536", "nats://h:65536"),
        ("nats://h:x", "nats://h:x"),
        ("nats://h:1/x", "nats://h:1/x"),
        ("nats://a b:1", "nats://a b:1"),
        ("nats://u:hidden@h:0", "h:0"),
        ("nats://u:hidden@h", "h"),
        ("nats://:hidden@h:1", "h:1"),
        ("nats://u:hidden/@h:1", "h:1"),
        ("nats://u:hidden%ff@h:1", "h:1"),
        ("nats://h\udcff:1", "nats://h\udcff:1"),
    ],
)
def test_unusable_listen_address_is_refused(url: str, shown: str) -> None:
    """The refusal says what is allowed, and shows no login."""
    with pytest.raises(OptionError) as caught:
        parse_listen(url)
    allowed = "nats://[user:pass@]host:port with a port from 1 to 65535, or -1 for any"
    assert str(caught.value) == f"option --cluster must be {allowed}, got {shown!r}"
    assert (caught.value.option, caught.value.value) == ("--cluster", shown)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("url", ["nats://u@h:1", "nats://u:@h:1"])
def test_user_needs_a_password(url: str) -> None:
    """The text of O103; for routes, too."""
    for read in (parse_listen, lambda url: complete_routes((url,))):
        with pytest.raises(OptionError) as caught:
            read(url)
        assert str(caught.value) == "expected cluster password to be set"


def test_routes_are_completed() -> None:
    """One form for the NATS server to read, whatever the scheme and the characters of the login (O102)."""
    urls = ("nats://a:1", "nats-route://[::1]:2", "nats://u:p@b:3/", "nats://u ü:p%40$&@c:4")
    assert complete_routes(urls) == (
        "nats://a:1",
        "nats://[::1]:2",
        "nats://u:p@b:3",
        "nats://u%20%C3%BC:p%40%24%26@c:4",
    )


@pytest.mark.parametrize("url", ["a:1", "nats://:1", "nats://a:-1", "nats://a:0", "nats://u:hidden@a"])
def test_unusable_route_is_refused(url: str) -> None:
    """A route leads to one port of one host; the NATS server would try for ever."""
    with pytest.raises(OptionError) as caught:
        complete_routes(("nats://fine:1", url))
    shown = url.rpartition("@")[2]
    allowed = "nats://[user:pass@]host:port with a port from 1 to 65535, several separated by commas"
    assert str(caught.value) == f"option --routes must be {allowed}, got {shown!r}"


def test_login_is_in_no_representation() -> None:
    """O243 in spirit: what is logged or shown has no password."""
    assert "hidden" not in repr(parse_listen("nats://u:hidden@h:1"))
