"""The writing thread: one batch, an event, a pause; and its end after a failure."""

import threading

import lmdb
import pytest

from store.errors import WriteError
from store.lmdb import writer as writer_module
from store.lmdb.batch import collect
from store.lmdb.environment import Identity, open_environment
from store.lmdb.load import load
from store.lmdb.writer import Writer
from tests.unit.store.builders import SETUP, Machine, messages

DEADLINE_S = 20
LONG_PAUSE_S = 3600
NOTHING_S = 0.1
"""How long to look that nothing happens."""


@pytest.fixture
def environment(tmp_path):
    environment = open_environment(tmp_path, Identity("c", "n", "i"), is_synced=False)
    yield environment
    environment.close()


def batch(index):
    return collect(Machine(*SETUP).state, index, 1)


@pytest.mark.timeout(60)
def test_pause_is_kept_unless_somebody_waits(environment, monkeypatch):
    """After a transaction the writer is not idle until the pause is over; waiting cuts it short, that once."""
    monkeypatch.setattr(writer_module, "WRITE_PAUSE_S", LONG_PAUSE_S)
    woken = threading.Semaphore(0)
    writer = Writer(environment, woken.release)
    for index in (1, 2):
        assert writer.is_idle
        writer.submit(batch(index))
        assert not writer.is_idle
        assert woken.acquire(timeout=DEADLINE_S)
        assert [one.index for one in writer.take_events()] == [index]
        assert not woken.acquire(timeout=NOTHING_S)
        assert not writer.is_idle
        writer.wait()
        assert writer.take_events() == []
        assert woken.acquire(timeout=DEADLINE_S)
    assert writer.is_idle
    writer.submit(batch(3))
    writer.stop()
    assert load(environment)[1] == 3


def test_failure_ends_the_thread(tmp_path, monkeypatch):
    """It is told as an event with the file and the reason, and nothing more can be submitted."""
    monkeypatch.setattr("store.lmdb.environment.LMDB_MAP_BYTES", 1 << 20)
    environment = open_environment(tmp_path, Identity("c", "n", "i"), is_synced=False)
    writer = Writer(environment, lambda: None)
    machine = Machine(*SETUP)
    machine.publish(1, messages(1, 1, size=2 << 20))
    writer.submit(collect(machine.state, 1, 1))
    writer.wait()
    assert writer.take_events() == []
    assert isinstance(writer.failure, WriteError)
    assert isinstance(writer.failure.reason, lmdb.MapFullError)
    assert writer.failure.path == str(tmp_path / "data.mdb")
    assert not writer.is_idle
    writer.stop()
    environment.close()
