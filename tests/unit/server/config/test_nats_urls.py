"""Addresses of external NATS servers."""

import pytest

from server.config.nats_urls import complete
from server.config.option_error import OptionError


@pytest.mark.parametrize(
    ("urls", "expected"),
    [
        ((), ()),
        (("nats://localhost:4222",), ("nats://localhost:4222",)),
        (("tls://localhost:4443",), ("tls://localhost:4443",)),
        (("tcp://localhost:4222",), ("nats://localhost:4222",)),
        (("nats://[::1]:4222",), ("nats://[::1]:4222",)),
        (("nats://u:p@h:1",), ("nats://u:p@h:1",)),
        (("nats://token@h",), ("nats://token@h:4222",)),
        (("u:p@h:1",), ("nats://u:p@h:1",)),
        (("u:p@ss@h:1",), ("nats://u:p@ss@h:1",)),
        (("nats://n1:4222", "tls://n2:4223"), ("nats://n1:4222", "tls://n2:4223")),
        (("n1", "n2:5222", "nats://n3"), ("nats://n1:4222", "nats://n2:5222", "nats://n3:4222")),
    ],
)
def test_urls_are_completed(urls: tuple[str, ...], expected: tuple[str, ...]) -> None:
    """A single plain URL keeps host and port; lists and logins get a missing scheme or port (O240)."""
    assert complete(urls) == expected


@pytest.mark.parametrize(
    ("urls", "reason"),
    [
        (("localhost:4222",), "malformed url: localhost:4222"),
        (("a://b://c:1",), "malformed url: a://b://c:1"),
        (("nats://",), "malformed url: nats://"),
        (("nats://h:x",), "malformed url: nats://h:x"),
        (("nats://h:0",), "malformed url: nats://h:0"),
        (("nats://h:65536",), "malformed url: nats://h:65536"),
        (("nats://localhost",), "address localhost: missing port in address"),
        (("nats://a:1", "nats://b c:2"), "malformed url: nats://b c:2"),
        (("nats://u:secret@b c:2",), "malformed url: b c:2"),
        (("nats://u:secret@h:99999",), "malformed url: h:99999"),
    ],
)
def test_unusable_urls_are_refused_without_credentials(urls: tuple[str, ...], reason: str) -> None:
    """The texts are the original's and never show a password (O240, O243)."""
    with pytest.raises(OptionError) as caught:
        complete(urls)
    assert str(caught.value) == reason
    assert "secret" not in repr(caught.value.__dict__)
