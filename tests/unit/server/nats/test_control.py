"""Covers server/nats/control.py."""

import pytest

from server.errors import ProtocolError
from server.nats import control
from server.nats.control import ServerFault, Verb


@pytest.mark.parametrize(
    ("line", "verb"),
    [
        (b"PING", Verb.PING),
        (b"PONG", Verb.PONG),
        (b"PONG ", Verb.PONG),
        (b"+OK", Verb.OK),
        (b'INFO {"a":1}', Verb.INFO),
        (b"-ERR 'x'", Verb.ERROR),
    ],
)
def test_line_is_recognised(line: bytes, verb: Verb) -> None:
    """Every line that a NATS server sends, besides messages."""
    assert control.verb(line) is verb


@pytest.mark.parametrize("line", [b"", b" ", b"PIN", b"PINGS", b"ping", b"HTTP/1.1 400 Bad Request", b"MSG a 1 2"])
def test_unknown_line_is_a_protocol_error(line: bytes) -> None:
    """An unknown line is never waited out: the error carries it."""
    with pytest.raises(ProtocolError) as caught:
        control.verb(line)
    assert caught.value.line == line


def test_long_line_is_shown_cut() -> None:
    """The error of a long line shows its beginning only."""
    with pytest.raises(ProtocolError) as caught:
        control.verb(b"x" * 100_000)
    assert len(str(caught.value)) < 300
    assert "..." in str(caught.value)


def test_info_is_an_object() -> None:
    """INFO carries a JSON object."""
    assert control.info(b'INFO {"max_payload": 5} ') == {"max_payload": 5}


@pytest.mark.parametrize("line", [b"INFO", b"INFO {", b"INFO []", b"INFO \xff", b"INFO 1"])
def test_info_without_object_is_a_protocol_error(line: bytes) -> None:
    """Anything else behind INFO is refused."""
    with pytest.raises(ProtocolError, match="INFO without an object"):
        control.info(line)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (
            b"-ERR 'Permissions Violation for Publish to \"a.b\"'",
            ServerFault('Permissions Violation for Publish to "a.b"', "a.b", is_harmless=True),
        ),
        (b"-ERR 'Slow Consumer'", ServerFault("Slow Consumer", "", is_harmless=True)),
        (b"-ERR 'Maximum Payload Violation'", ServerFault("Maximum Payload Violation", "", is_harmless=False)),
        (b"-ERR 'Stale Connection'", ServerFault("Stale Connection", "", is_harmless=False)),
        (b"-ERR 'Authorization Violation'", ServerFault("Authorization Violation", "", is_harmless=False)),
        (b"-ERR", ServerFault("", "", is_harmless=False)),
        (b"-ERR '\xff'", ServerFault("\\xff", "", is_harmless=False)),
    ],
)
def test_error_is_harmless_or_ends_the_connection(line: bytes, fault: ServerFault) -> None:
    """O244: permission errors leave the connection open; what is not known to be harmless ends it."""
    assert control.fault(line) == fault


def test_kind_of_error_does_not_depend_on_the_subject() -> None:
    """Repeats are counted per kind: a subject chosen by a client must not fill the log."""
    first = control.fault(b"-ERR 'Permissions Violation for Publish to \"a\"'")
    second = control.fault(b"-ERR 'Permissions Violation for Publish to \"b\"'")
    assert first.kind == second.kind
