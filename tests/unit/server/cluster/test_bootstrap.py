"""Covers server/cluster/bootstrap.py with a real NATS server (O408)."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from server.cluster.bootstrap import SERVER_ID_MAX_BYTES, BootstrapProbe
from server.errors import AnotherBootstrapError
from tests.support.nats_process import NatsProcess
from tests.unit.server.cluster.peers import connected, until


@pytest.mark.asyncio
async def test_two_end_both(nats: NatsProcess, cluster_id: str) -> None:
    """O408: each names the other one, with the exact text, whichever began first; another cluster is left alone."""
    loop = asyncio.get_running_loop()
    errors: dict[str, list[BaseException]] = {}
    async with AsyncExitStack() as stack:
        for server_id, cluster in (("ONE", cluster_id), ("OTHER", f"{cluster_id}-other"), ("TWO", cluster_id)):
            connection = await stack.enter_async_context(connected(nats.url, cluster, server_id))
            told = errors.setdefault(server_id, [])
            probe = BootstrapProbe(connection, server_id, loop, told.append)
            stack.callback(probe.stop)
            probe.start()
        await until(lambda: errors["ONE"] and errors["TWO"])
    assert all(isinstance(error, AnotherBootstrapError) for error in (*errors["ONE"], *errors["TWO"]))
    assert {str(error) for error in errors["ONE"]} == {"Server TWO was also started with -cluster_bootstrap"}
    assert {str(error) for error in errors["TWO"]} == {"Server ONE was also started with -cluster_bootstrap"}
    assert errors["OTHER"] == []


@pytest.mark.asyncio
async def test_what_is_no_server_is_ignored(nats: NatsProcess, cluster_id: str) -> None:
    """The own sign, which comes again every second, and payloads that are no server id end nobody."""
    errors: list[BaseException] = []
    heard: list[bytes] = []
    async with connected(nats.url, cluster_id, "a") as a:
        probe = BootstrapProbe(a, "ME", asyncio.get_running_loop(), errors.append)
        a.listen(a.subjects.bootstrap, lambda payload, _reply: heard.append(payload))
        probe.start()
        foreign = [b"", b"two words", b"\xff\xfe", b"{}", b"-" * (SERVER_ID_MAX_BYTES + 1)]
        for payload in foreign:
            a.publish(a.subjects.bootstrap, payload)
        await until(lambda: heard.count(b"ME") == 2)
        probe.stop()
        probe.stop()
    assert [payload for payload in heard if payload != b"ME"] == foreign
    assert errors == []
