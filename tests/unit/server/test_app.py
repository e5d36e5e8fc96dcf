"""How a process ends: status and reason of fatal errors, also of those that come late."""

import asyncio

import pytest

from server import app
from server.app import EXIT_FATAL, Node
from server.config.model import Options
from store.errors import StoreError


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def test_first_fatal_error_is_the_reason(loop, caplog):
    """O196: logged once, status 1; what follows from it is not told again."""
    node = Node(Options(), loop)
    node.fail(StoreError("disk full"))
    node.fail(StoreError("consequence"))
    assert node.ended.result() == EXIT_FATAL
    assert [record.message for record in caplog.records] == ["disk full"]


def test_fatal_error_while_stopping(loop, caplog, monkeypatch):
    """O196: a signal came first, then the last write failed: the reason is logged, and the status says so."""

    async def start(node):
        node.ended.set_result(0)

    async def stop(node):
        node.fail(StoreError("disk full"))

    monkeypatch.setattr(Node, "start", start)
    monkeypatch.setattr(Node, "stop", stop)
    assert loop.run_until_complete(app.run(Options())) == EXIT_FATAL
    assert "disk full" in caplog.text


def test_status_of_an_orderly_end(loop, monkeypatch):
    """O233: the status that the signal asks for."""

    async def start(node):
        node.ended.set_result(0)

    async def stop(node):
        pass

    monkeypatch.setattr(Node, "start", start)
    monkeypatch.setattr(Node, "stop", stop)
    assert loop.run_until_complete(app.run(Options())) == 0
