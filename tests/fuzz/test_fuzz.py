"""Whatever clients and the network send, the server answers as specified and goes on serving (B25, B84, B120)."""

from tests.fuzz.targets import run


def test_every_request_is_answered_as_specified() -> None:
    """B25 to B32, B40 to B75, B80 to B105, B110, B111, B120: right answer, right effect, nothing left behind by what was refused."""
    run("requests", examples=250)


def test_cuts_between_reads_mean_nothing() -> None:
    """The bytes of NATS are a stream: where a read ends changes no answer, message or window."""
    run("splits", examples=120)


def test_damaged_bytes_end_the_connection_at_most() -> None:
    """A stream that is not the protocol raises ProtocolError or passes; the server serves on a new connection."""
    run("damage", examples=200)


def test_sequences_of_valid_requests_keep_the_promises() -> None:
    """B126, B127, B230 to B243, B270, B271, B284 to B288, B300 to B316: over any order, cut and pause."""
    run("sessions", examples=350)
