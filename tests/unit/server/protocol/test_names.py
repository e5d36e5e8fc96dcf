"""Names that clients may use."""

import pytest

from server.protocol import names


@pytest.mark.parametrize("name", ["a", "A-b_9", "-", "x" * 1000])
def test_client_ids(name):
    """B60."""
    assert names.is_client_id(name)


@pytest.mark.parametrize("name", ["", "a b", "a.b", "abc\n", "é", "a/b", "٣"])
def test_refused_client_ids(name):
    """B60: a trailing newline or a digit of another script is no valid id."""
    assert not names.is_client_id(name)


@pytest.mark.parametrize("name", ["foo", "foo.bar", "é.ü", "a$b", "x" * 255])
def test_channels(name):
    """B61."""
    assert names.is_channel(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        ".a",
        "a.",
        "a..b",
        "a/b",
        "a*b",
        "a.>",
        ">",
        "a b",
        "a\tb",
        "a\n",
        "a\x00",
        "\x7f",
        "a\x80",
        "a\x9f",
        "a\u00a0b",
        "x" * 256,
        "é" * 128,
    ],
)
def test_refused_channels(name):
    """B61, B62."""
    assert not names.is_channel(name)


@pytest.mark.parametrize("subject", ["_INBOX.abc", "a", "a.b.c", "é"])
def test_inboxes(subject):
    """B41, B85."""
    assert names.is_inbox(subject)


@pytest.mark.parametrize("subject", ["", ".", "a.", ".a", "a..b", "a b", "a.*", "a.>", "a\r\nPUB x 1", "x" * 1025])
def test_refused_inboxes(subject):
    """B41, B85: nothing that could break our NATS connection."""
    assert not names.is_inbox(subject)
