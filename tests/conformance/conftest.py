"""Gives every conformance test a running server, clients of its own and names nobody else uses."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.conformance.steps import Clients, new_name
from tests.support.nats_process import NatsProcess
from tests.support.raw_client import RawClient
from tests.support.server_process import ServerProcess


def run_server(process: ServerProcess) -> Iterator[ServerProcess]:
    """Runs one server for several tests; at the end it must still live, have logged no traceback, and stop in order."""
    with process:
        yield process
        assert process.is_running, process.log
        assert "Traceback" not in process.log, process.log
        assert process.stop() == 143


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    """One server with a FILE store and no limit on channels, for all tests that do not restart it."""
    yield from run_server(ServerProcess(options=("-mc", "0")))


@pytest.fixture(scope="session")
def replacing_server() -> Iterator[ServerProcess]:
    """A server with --replace_durable (B292)."""
    yield from run_server(ServerProcess(options=("--replace_durable",)))


@pytest.fixture(scope="session")
def limited_server() -> Iterator[ServerProcess]:
    """A server that keeps five messages per channel and three subscriptions per channel."""
    yield from run_server(ServerProcess(options=("-mm", "5", "-msu", "3", "-mc", "0")))


@pytest.fixture(scope="session")
def aging_server() -> Iterator[ServerProcess]:
    """A server that keeps messages for one second (B328)."""
    yield from run_server(ServerProcess(options=("-ma", "1s", "-mc", "0")))


@pytest.fixture(scope="session")
def probing_server() -> Iterator[ServerProcess]:
    """A server with quick heartbeats and two failures allowed (B341)."""
    yield from run_server(ServerProcess(options=("-hbi", "500ms", "-hbt", "500ms", "-hbf", "2", "-mc", "0")))


@pytest.fixture(scope="session")
def nats_process() -> Iterator[NatsProcess]:
    """A NATS server that outlives the streaming servers that use it with option -ns."""
    with NatsProcess() as process:
        yield process


@pytest_asyncio.fixture
async def clients(server: ServerProcess) -> AsyncIterator[Clients]:
    """Connects clients to the common server."""
    async with Clients(server.url) as connected:
        yield connected


@pytest_asyncio.fixture
async def client(clients: Clients) -> RawClient:
    """One client of the common server."""
    return await clients.connect()


@pytest.fixture
def channel() -> str:
    """A channel that no other test uses."""
    return new_name("channel")
