"""Covers server/nats/address.py."""

import pytest

from server.errors import ConfigError
from server.nats.address import DISCOVERED_MAX, Address, Login, candidates, discovered, parse


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nats://h:4333", Address("h", 4333)),
        ("nats://h", Address("h", 4222)),
        ("tls://h:1", Address("h", 1, is_secure=True)),
        ("nats://[::1]:5", Address("::1", 5)),
        ("nats://u:p@h:1", Address("h", 1, login=Login(user="u", password="p"))),
        ("nats://u:@h:1", Address("h", 1, login=Login(user="u", password=""))),
        ("nats://a%40b:p%2Fq%3A@h:1", Address("h", 1, login=Login(user="a@b", password="p/q:"))),
        ("nats://tok@h:1", Address("h", 1, login=Login(token="tok"))),
    ],
)
def test_url_is_read(url: str, expected: Address) -> None:
    """Scheme, login, host and port are told apart; a user without password is a token."""
    assert parse(url) == expected


@pytest.mark.parametrize(
    "url", ["", "h:1", "http://h:1", "nats://", "nats://:1", "nats://h:0", "nats://h:x", "nats://[1"]
)
def test_unusable_url_is_refused(url: str) -> None:
    """What is no address of a NATS server is the operator's error, with what is allowed."""
    with pytest.raises(ConfigError) as caught:
        parse(url)
    assert caught.value.option == "--nats_server"
    assert "nats://host:port" in caught.value.allowed


def test_refusal_does_not_show_the_login() -> None:
    """O243: credentials are never shown."""
    with pytest.raises(ConfigError) as caught:
        parse("nats://bob:secret@h:99999")
    assert "secret" not in str(caught.value)
    assert "bob" not in str(caught.value)


def test_shown_address_hides_the_login() -> None:
    """O243: `nats://[REDACTED]@host:port`, and no trace of the login in any representation of its secrets."""
    address = parse("nats://bob:secret@[::1]:4222")
    assert address.shown == "nats://[REDACTED]@[::1]:4222"
    assert address.url == "nats://[::1]:4222"
    assert "secret" not in repr(address)
    assert parse("tls://h:1").shown == "tls://h:1"


def test_announced_servers_inherit_login_and_certificate_name() -> None:
    """A server announced by number is reached with the login of its announcer and must have its certificate."""
    source = parse("tls://u:p@nats.example:4222")
    by_number, by_name = discovered(["10.0.0.1:4222", "other.example:4223"], source)
    assert by_number == Address("10.0.0.1", 4222, is_secure=True, login=source.login, tls_name="nats.example")
    assert by_name == Address("other.example", 4223, is_secure=True, login=source.login)
    (second_hand,) = discovered(["10.0.0.2:4222"], by_number)
    assert second_hand.tls_name == "nats.example"


def test_unreadable_announcements_are_left_out_and_their_number_is_bounded() -> None:
    """Another program's announcement neither breaks us nor fills our memory."""
    source = parse("nats://h:1")
    assert discovered(["x:y:z", 7, "", None, "ok:1"], source) == (Address("ok", 1),)
    assert len(discovered([f"h{number}:1" for number in range(1000)], source)) == DISCOVERED_MAX


def test_candidates_are_the_configured_ones_then_new_announced_ones() -> None:
    """A server that is configured and announced is tried once, with what the operator configured."""
    configured = parse("nats://u:p@h:1")
    assert candidates([configured], [parse("nats://h:1"), parse("nats://h:2")]) == [configured, parse("nats://h:2")]
