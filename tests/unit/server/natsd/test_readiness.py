"""Covers server/natsd/readiness.py; the real child is in test_supervisor.py."""

import asyncio
import json
from pathlib import Path

import pytest

from server.natsd.readiness import Ports, parse_ports, wait_ready
from tests.support.ports import HOST


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ('{"nats": ["nats://127.0.0.1:38505"], "monitoring": ["http://127.0.0.1:43673"]}', Ports(38505, 43673)),
        ('{"nats": ["nats://[::1]:38505", "nats://10.0.0.1:38505"]}', Ports(38505)),
        ('{"nats": ["tls://h:1"], "monitoring": []}', Ports(1)),
    ],
)
def test_ports_file(text: str, ports: Ports) -> None:
    """O111: real ports, also when random ones were asked for."""
    assert parse_ports(text) == ports


@pytest.mark.parametrize(
    "text", ["", '{"nats": ["nats://127.0', "{}", "[]", "1", '{"nats": []}', '{"nats": ["nats://h"]}', '{"nats": [7]}']
)
def test_incomplete_ports_file_is_not_yet_there(text: str) -> None:
    """The child does not write the file in one step: what cannot be used is looked at again."""
    assert parse_ports(text) is None


@pytest.mark.asyncio
async def test_ready_only_when_the_right_child_greets(tmp_path: Path) -> None:
    """A file of another process is ignored; whoever listens must say INFO."""
    greeting = asyncio.Event()
    refused = asyncio.Event()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"INFO {}\r\n" if greeting.is_set() else b"nonsense")
        refused.set()
        writer.close()

    async with await asyncio.start_server(serve, HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        (tmp_path / "nats-server_8.ports").write_text(json.dumps({"nats": ["nats://h:1"]}))
        waiting = asyncio.create_task(wait_ready(tmp_path, 7, HOST))
        (tmp_path / "nats-server_7.ports").write_text(json.dumps({"nats": [f"nats://{HOST}:{port}"]}))
        await asyncio.wait_for(refused.wait(), 10)
        assert not waiting.done()
        greeting.set()
        assert await asyncio.wait_for(waiting, 10) == Ports(port)
