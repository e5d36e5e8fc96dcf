"""Gives tests of the client libraries a server, each library in turn, and a connected client."""

from collections.abc import Iterator

import pytest

from tests.support.client_builds import PROGRAMS, ClientProgram, ToolMissingError
from tests.support.client_worker import ClientWorker
from tests.support.server_process import ServerProcess


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """One server for all tests that leave it alone."""
    with ServerProcess(store="FILE") as process:
        yield process


@pytest.fixture(params=sorted(PROGRAMS))
def program(request: pytest.FixtureRequest) -> ClientProgram:
    """Each client library in turn; skipped only if its tool is not installed."""
    try:
        return PROGRAMS[request.param]()
    except ToolMissingError as missing:
        pytest.skip(f"client library {request.param}: {missing}")


@pytest.fixture
def names(request: pytest.FixtureRequest) -> str:
    """A word for channels and client ids that no other test of this module uses."""
    return "".join(character if character.isalnum() else "-" for character in request.node.name)


@pytest.fixture
def client(program: ClientProgram, server: ServerProcess, names: str) -> Iterator[ClientWorker]:
    """A connected client of its own for the test."""
    with ClientWorker(program, names) as worker:
        worker.connect(server.url, names)
        yield worker
        worker.call("closed", "close")
