"""Reads the addresses of NATS servers and decides which login goes to which server. Pure.

A login in a URL belongs to that server and to the servers it announces; without one the configured login is used
(O245). What is shown never holds a login (O243).
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import unquote, urlsplit

from server.errors import ConfigError

DEFAULT_PORT: Final = 4222
"""Port of a NATS server whose URL names none. Source: O83."""

DISCOVERED_MAX: Final = 64
"""Announced servers that are remembered; further ones of the same announcement are ignored."""

_OPTION: Final = "--nats_server"
_ALLOWED: Final = "nats://host:port or tls://host:port"


@dataclass(frozen=True, slots=True)
class Login:
    """Who we are: a user with password, or a token, or nobody."""

    user: str | None = None
    password: str = field(default="", repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Address:
    """One NATS server. `tls_name` is the name its certificate must have, when that is not `host`."""

    host: str
    port: int
    is_secure: bool = False
    login: Login | None = None
    tls_name: str | None = None

    @property
    def url(self) -> str:
        """The URL without login."""
        return f"{self._scheme}://{self._netloc}"

    @property
    def shown(self) -> str:
        """The URL for logs (O243)."""
        return f"{self._scheme}://{'[REDACTED]@' if self.login else ''}{self._netloc}"

    @property
    def _scheme(self) -> str:
        return "tls" if self.is_secure else "nats"

    @property
    def _netloc(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(url: str) -> Address:
    """The address in `url`: `nats` or `tls` as scheme, login percent-encoded; a user without password is a token.

    Raises ConfigError, whose text does not show the login.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
        parts = urlsplit("")
    if parts.scheme not in ("nats", "tls") or not host or port == 0:
        raise ConfigError(option=_OPTION, value=url.rpartition("@")[2], allowed=_ALLOWED)
    login = None
    if parts.username is not None and parts.password is not None:
        login = Login(user=unquote(parts.username), password=unquote(parts.password))
    elif parts.username is not None:
        login = Login(token=unquote(parts.username))
    return Address(host=host, port=port or DEFAULT_PORT, is_secure=parts.scheme == "tls", login=login)


def discovered(announced: Iterable[object], source: Address) -> tuple[Address, ...]:
    """The servers that `source` announced (`connect_urls` of INFO), reached with the login of `source`.

    Unreadable ones are left out: they are another program's business. A server announced by number must have the
    certificate of `source`.
    """
    found = []
    for netloc in announced:
        if not isinstance(netloc, str):
            continue
        try:
            address = parse(f"{'tls' if source.is_secure else 'nats'}://{netloc}")
        except ConfigError:
            continue
        tls_name = (source.tls_name or source.host) if _is_ip(address.host) else None
        found.append(replace(address, login=source.login, tls_name=tls_name))
        if len(found) == DISCOVERED_MAX:
            break
    return tuple(found)


def candidates(configured: Iterable[Address], announced: Iterable[Address]) -> list[Address]:
    """Configured servers, then announced ones that are not among them."""
    known: dict[tuple[str, int], Address] = {}
    for address in (*configured, *announced):
        known.setdefault((address.host, address.port), address)
    return list(known.values())


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
