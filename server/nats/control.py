"""Reads the control lines of a NATS server and decides what an error of it means. Pure."""

import json
import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from server.errors import ProtocolError

HARMLESS_ERRORS: Final = (
    "permissions violation",
    "invalid subject",
    "invalid publish subject",
    "maximum subscriptions exceeded",
    "slow consumer",
)
"""Beginnings of errors after which the NATS server keeps the connection open (O244). Any other one ends it."""

_QUOTED: Final = re.compile(r'"([^"]*)"')


class Verb(Enum):
    """Kinds of control lines."""

    PING = auto()
    PONG = auto()
    OK = auto()
    INFO = auto()
    ERROR = auto()


@dataclass(frozen=True, slots=True)
class ServerFault:
    """An error of the NATS server. `subject` is empty when it names none."""

    text: str
    subject: str
    is_harmless: bool

    @property
    def kind(self) -> str:
        """The text up to what it quotes, for counting repeats."""
        return self.text.partition('"')[0]


def verb(line: bytes) -> Verb:
    """What `line`, without its CRLF, is. Raises ProtocolError when it is nothing that a NATS server sends."""
    match line.partition(b" ")[0].rstrip():
        case b"PING":
            return Verb.PING
        case b"PONG":
            return Verb.PONG
        case b"+OK":
            return Verb.OK
        case b"INFO":
            return Verb.INFO
        case b"-ERR":
            return Verb.ERROR
        case _:
            raise ProtocolError("unknown line", line=line)


def info(line: bytes) -> dict[str, Any]:
    """The object in `INFO {...}`. Raises ProtocolError when it is none."""
    try:
        found = json.loads(line[len(b"INFO ") :])
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ProtocolError("INFO without an object", line=line)
    return found


def fault(line: bytes) -> ServerFault:
    """The error in `-ERR 'text'`."""
    text = line[len(b"-ERR") :].decode(errors="backslashreplace").strip().strip("'")
    quoted = _QUOTED.search(text)
    return ServerFault(
        text=text,
        subject=quoted[1] if quoted is not None else "",
        is_harmless=text.lower().startswith(HARMLESS_ERRORS),
    )
