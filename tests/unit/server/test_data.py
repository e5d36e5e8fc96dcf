"""What a node keeps: one identity in journal and store, and what is refused instead of guessed."""

import asyncio
import shutil

import pytest

from raft.errors import RaftError
from server.config.model import Options
from server.data import open_data
from server.data_place import JOURNAL_DIRECTORY
from server.errors import DataError
from store.directory import STORE_DIRECTORY
from store.errors import DirectoryInUseError, IdentityError


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def opened(loop, directory=None, cluster_id="test-cluster"):
    options = Options(
        cluster_id=cluster_id, store="FILE" if directory else "MEMORY", dir=str(directory) if directory else ""
    )
    return open_data(options, loop=loop, on_durable=lambda index: None, on_fatal=lambda error: None)


def test_memory_leaves_nothing(loop, tmp_path):
    """MEMORY: no directory, nothing recovered."""
    data = opened(loop)
    assert (data.directory, data.recovered_channels) == (None, None)
    data.close()
    assert list(tmp_path.iterdir()) == []


def test_second_start_has_the_same_identity(loop, tmp_path):
    """O41: the node id is made once; the second start recovers."""
    first = opened(loop, tmp_path / "data")
    assert first.recovered_channels is None
    first.close()
    second = opened(loop, tmp_path / "data")
    assert second.node_id == first.node_id
    assert second.recovered_channels == 0
    second.close()


def test_store_without_its_journal_is_refused(loop, tmp_path):
    """Acknowledged messages may be missing: the operator decides. Nothing is changed by the attempt."""
    opened(loop, tmp_path).close()
    shutil.move(tmp_path / JOURNAL_DIRECTORY, tmp_path / "away")
    with pytest.raises(DataError, match="without its journal"):
        opened(loop, tmp_path)
    assert not (tmp_path / JOURNAL_DIRECTORY).exists()
    shutil.move(tmp_path / "away", tmp_path / JOURNAL_DIRECTORY)
    opened(loop, tmp_path).close()


def test_journal_without_store_is_completed(loop, tmp_path):
    """A crash between making the two: the next start makes the store."""
    first = opened(loop, tmp_path)
    first.close()
    shutil.rmtree(tmp_path / STORE_DIRECTORY)
    second = opened(loop, tmp_path)
    assert second.node_id == first.node_id
    second.close()


def test_other_cluster_is_refused(loop, tmp_path):
    """The directory belongs to a cluster; the right start works afterwards."""
    opened(loop, tmp_path).close()
    with pytest.raises(IdentityError):
        opened(loop, tmp_path, "other")
    opened(loop, tmp_path).close()


def test_store_of_another_journal_is_refused(loop, tmp_path):
    """Journal and store must be made together; after the refusal nothing is left locked."""
    opened(loop, tmp_path / "a").close()
    opened(loop, tmp_path / "b").close()
    shutil.rmtree(tmp_path / "a" / STORE_DIRECTORY)
    shutil.copytree(tmp_path / "b" / STORE_DIRECTORY, tmp_path / "a" / STORE_DIRECTORY)
    for _ in range(2):
        with pytest.raises(IdentityError):
            opened(loop, tmp_path / "a")


def test_directory_in_use_is_refused(loop, tmp_path):
    """One process at a time."""
    data = opened(loop, tmp_path)
    with pytest.raises(DirectoryInUseError):
        opened(loop, tmp_path)
    data.close()


def test_store_is_closed_although_the_journal_fails(loop, tmp_path):
    """A journal that cannot be closed must not keep the store's lock and last transaction."""
    data = opened(loop, tmp_path)
    close = data.writer.close

    class Writer:
        def close(self):
            close()
            raise RaftError("disk")

    data.writer = Writer()
    with pytest.raises(RaftError):
        data.close()
    opened(loop, tmp_path).close()
