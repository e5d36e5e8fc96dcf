"""Decides which addresses of external NATS servers are usable and completes them (O240). Pure.

A single plain URL must have a scheme and a port, as in the original. A list, or a URL with credentials, is taken as it
is; a missing scheme or port is completed as NATS clients do. Only `tls` survives as a scheme besides `nats`.
"""

import re
from typing import Final

from .option_error import OptionError

DEFAULT_PORT: Final = 4222
"""Port of a NATS server. Source: O83."""

_OPTION: Final = "--nats_server"
_ALLOWED: Final = "nats://host:port or tls://host:port, several separated by commas"
_AUTHORITY = re.compile(
    r"(?:(?P<login>[^/?#]*)@)?(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^\s:/?#@\[\]]+)(?::(?P<port>[0-9]{1,5}))?/?"
)
_PORT_MAX: Final = 65535


def complete(urls: tuple[str, ...]) -> tuple[str, ...]:
    """Full URLs, `scheme://[login@]host:port`. Raises OptionError; its texts never show credentials."""
    if len(urls) == 1 and "@" not in urls[0]:
        return (_single(urls[0]),)
    return tuple(_listed(url) for url in urls)


def _single(url: str) -> str:
    scheme, separator, address = url.partition("://")
    if not separator or "://" in address:
        raise _refusal(f"malformed url: {url}", url)
    match = _AUTHORITY.fullmatch(address)
    if match is None:
        raise _refusal(f"malformed url: {url}", url)
    if match["port"] is None:
        raise _refusal(f"address {address}: missing port in address", url)
    return _build(scheme, match, url)


def _listed(url: str) -> str:
    scheme, separator, address = url.rpartition("://")
    match = _AUTHORITY.fullmatch(address)
    if match is None:
        shown = url.rpartition("@")[2]
        raise _refusal(f"malformed url: {shown}", shown)
    return _build(scheme if separator else "nats", match, url.rpartition("@")[2])


def _build(scheme: str, match: re.Match[str], shown: str) -> str:
    port = int(match["port"] or DEFAULT_PORT)
    if not 0 < port <= _PORT_MAX:
        raise _refusal(f"malformed url: {shown}", shown)
    login = f"{match['login']}@" if match["login"] is not None else ""
    return f"{'tls' if scheme == 'tls' else 'nats'}://{login}{match['host']}:{port}"


def _refusal(text: str, url: str) -> OptionError:
    return OptionError(text, option=_OPTION, value=url, allowed=_ALLOWED)
