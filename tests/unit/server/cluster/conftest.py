"""Gives tests of the cluster's parts a real NATS server."""

from collections.abc import Iterator

import pytest

from tests.support.nats_process import NatsProcess


@pytest.fixture(scope="session")
def nats() -> Iterator[NatsProcess]:
    """One for all tests: each takes a cluster id of its own."""
    with NatsProcess() as process:
        yield process


@pytest.fixture
def cluster_id(request: pytest.FixtureRequest) -> str:
    """One that no other test uses."""
    return "".join(character if character.isalnum() else "-" for character in request.node.name)
