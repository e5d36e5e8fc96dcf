"""Covers server/cluster/snapshots.py: copies of a real store, made and taken on the loop's thread's behalf."""

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from raft.state_machine import Prepared
from server.cluster.snapshots import DIRECTORY, Snapshots
from server.config.cluster import ClusterOptions
from server.config.model import Options
from server.data import Data, open_data
from store.errors import StoreError

T = TypeVar("T")


def opened(home: Path, node_id: str) -> Data:
    """The data of a clustered node."""
    return open_data(
        Options(
            cluster_id="cid",
            store="FILE",
            dir=str(home / node_id),
            cluster=ClusterOptions(node_id=node_id, log_path=str(home / f"{node_id}-log")),
        ),
        loop=asyncio.get_running_loop(),
        on_durable=lambda _index: None,
        on_fatal=lambda _error: None,
    )


async def ended(start: Callable[[Callable[[T | BaseException], None]], None]) -> T:
    """What `start` tells in the end, on the loop's thread; raises if that is an error."""
    result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    thread = threading.current_thread()

    def done(value: T | BaseException) -> None:
        assert threading.current_thread() is thread
        if isinstance(value, BaseException):
            result.set_exception(value)
        else:
            result.set_result(value)

    start(done)
    return await asyncio.wait_for(result, 20)


@pytest.mark.asyncio
async def test_copy_of_one_store_becomes_another_ones(tmp_path: Path) -> None:
    """O426: made, carried over and installed; both ends are told on the loop's thread; nothing is left."""
    loop = asyncio.get_running_loop()
    ours, theirs = opened(tmp_path, "a"), opened(tmp_path, "b")
    sending, receiving = Snapshots(ours.store, tmp_path / "a", loop), Snapshots(theirs.store, tmp_path / "b", loop)
    snapshot = await ended(sending.ports().create)
    assert (snapshot.index, snapshot.term) == ours.store.last_applied()
    sink = receiving.ports().open_sink()
    sink.write(0, snapshot.read(0, snapshot.size))
    directory = sink.finish()
    assert directory.is_relative_to(tmp_path / "b" / DIRECTORY)
    prepared: Prepared = await ended(partial(receiving.ports().prepare, directory))
    receiving.ports().install(prepared)
    assert theirs.store.last_applied() == (snapshot.index, snapshot.term)
    snapshot.close()
    for one in (sending, receiving):
        one.close()
    for data in (ours, theirs):
        data.close()
    for name in ("a", "b"):
        assert [path for path in (tmp_path / name / DIRECTORY).rglob("*") if path.is_file()] == []


@pytest.mark.asyncio
async def test_what_is_no_copy_is_told(tmp_path: Path) -> None:
    """An error of the thread is a result as well; the next one works."""
    data = opened(tmp_path, "a")
    snapshots = Snapshots(data.store, tmp_path / "a", asyncio.get_running_loop())
    sink = snapshots.ports().open_sink()
    sink.write(0, b"no database at all" * 1000)
    directory = sink.finish()
    with pytest.raises(StoreError):
        await ended(partial(snapshots.ports().prepare, directory))
    (await ended(snapshots.ports().create)).close()
    snapshots.close()
    data.close()


@pytest.mark.asyncio
async def test_start_removes_what_an_earlier_process_left(tmp_path: Path) -> None:
    """A copy that was under way at a crash is of no use."""
    data = opened(tmp_path, "a")
    loop = asyncio.get_running_loop()
    first = Snapshots(data.store, tmp_path / "a", loop)
    first.ports().open_sink().write(0, b"x")
    first.close()
    again = Snapshots(data.store, tmp_path / "a", loop)
    assert [path for path in (tmp_path / "a" / DIRECTORY).rglob("*") if path.is_file()] == []
    again.close()
    data.close()
