"""Decides which addresses of NATS routes are usable: where our NATS server takes them, and which ones it makes (O102, O103). Pure.

A NATS server accepts a malformed route and never gets through; here it is refused. Logins are percent-encoded, as in all
URLs; no text shows one.
"""

import re
from typing import Final
from urllib.parse import quote, unquote

from pydantic import SecretStr

from .checks import Frozen, is_utf8
from .option_error import OptionError

LISTEN_OPTION: Final = "--cluster"
ROUTES_OPTION: Final = "--routes"

PORT_RANDOM: Final = -1
"""Asks for any free port. Source: O103."""

_PORT_MAX: Final = 65535
_LISTEN_ALLOWED: Final = f"nats://[user:pass@]host:port with a port from 1 to {_PORT_MAX}, or {PORT_RANDOM} for any"
_ROUTE_ALLOWED: Final = f"nats://[user:pass@]host:port with a port from 1 to {_PORT_MAX}, several separated by commas"

_URL: Final = re.compile(
    r"nats(?:-route)?://(?:(?P<login>[^/?#]*)@)?"
    r"(?:\[(?P<host6>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^\s:/?#@\[\]]*)):(?P<port>-1|[0-9]{1,5})/?"
)
"""The scheme says nothing about encryption: `tls` would promise what does not happen, and is refused."""


class RouteAddress(Frozen):
    """An address with its login, decoded. `port` is -1 for any, where we listen."""

    host: str
    """Without brackets. Empty means all addresses, where we listen."""
    port: int
    user: str = ""
    password: SecretStr = SecretStr("")

    def url(self) -> str:
        """The URL, as a NATS server reads it. It shows the password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        password = self.password.get_secret_value()
        login = f"{quote(self.user, safe='')}:{quote(password, safe='')}@" if self.user else ""
        return f"nats://{login}{host}:{self.port}"


def parse_listen(url: str) -> RouteAddress | None:
    """Where other NATS servers reach ours; None for an empty URL: nowhere. Raises OptionError."""
    if not url:
        return None
    address = _parse(url, LISTEN_OPTION, _LISTEN_ALLOWED)
    if address.port == 0 or address.port > _PORT_MAX:
        raise _refusal(url, LISTEN_OPTION, _LISTEN_ALLOWED)
    return address


def complete_routes(urls: tuple[str, ...]) -> tuple[str, ...]:
    """Full URLs of the NATS servers that ours connects to. Raises OptionError."""
    return tuple(_route(url).url() for url in urls)


def _route(url: str) -> RouteAddress:
    address = _parse(url, ROUTES_OPTION, _ROUTE_ALLOWED)
    if not address.host or not 0 < address.port <= _PORT_MAX:
        raise _refusal(url, ROUTES_OPTION, _ROUTE_ALLOWED)
    return address


def _parse(url: str, option: str, allowed: str) -> RouteAddress:
    match = _URL.fullmatch(url)
    if match is None or not is_utf8(url):
        raise _refusal(url, option, allowed)
    user, password = "", ""
    if match["login"] is not None:
        try:
            user, password = (unquote(part, errors="strict") for part in _split(match["login"]))
        except UnicodeDecodeError:
            raise _refusal(url, option, allowed) from None  # the cause would show the login
        if not user:
            raise _refusal(url, option, allowed)
        if not password:
            raise OptionError("expected cluster password to be set", option=option, value=_shown(url), allowed=allowed)
    return RouteAddress(
        host=match["host6"] or match["host"] or "", port=int(match["port"]), user=user, password=SecretStr(password)
    )


def _split(login: str) -> tuple[str, str]:
    user, _, password = login.partition(":")
    return user, password


def _refusal(url: str, option: str, allowed: str) -> OptionError:
    shown = _shown(url)
    return OptionError(f"option {option} must be {allowed}, got {shown!r}", option=option, value=shown, allowed=allowed)


def _shown(url: str) -> str:
    """The URL without what may be a login."""
    return url.rpartition("@")[2]
