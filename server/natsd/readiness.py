"""Finds out on which ports the child listens and whether it accepts clients (O111)."""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

POLL_S: Final = 0.02
"""Pause between two looks for the ports file, seconds. The child needs about 40 ms to write it."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the child listens; `http` is 0 without monitoring."""

    client: int
    http: int = 0


def parse_ports(text: str) -> Ports | None:
    """The content of the ports file: `{"nats": ["nats://host:port", ...], "monitoring": [...]}`.

    None while the file is not complete: the child does not write it in one step.
    """
    try:
        urls = json.loads(text)
        client = urlsplit(urls["nats"][0]).port
        http = urlsplit(urls["monitoring"][0]).port if urls.get("monitoring") else 0
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return Ports(client, http or 0) if client else None


async def wait_ready(directory: Path, pid: int, connect_host: str) -> Ports:
    """Return when the child `pid` has written its ports file into `directory` and greets a client. No deadline here."""
    while True:
        ports = _find(directory, pid)
        if ports is not None and await _greets(connect_host, ports.client):
            return ports
        await asyncio.sleep(POLL_S)


def _find(directory: Path, pid: int) -> Ports | None:
    for path in directory.glob(f"*_{pid}.ports"):
        with suppress(OSError):
            return parse_ports(path.read_text())
    return None


async def _greets(host: str, port: int) -> bool:
    """Whether a NATS server sends its INFO. The login happens later, with the real connection."""
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    try:
        return (await reader.read(5)).startswith(b"INFO")
    except OSError:
        return False
    finally:
        writer.close()
