"""Stores of stopped nodes are compared at one index, in copies, and a difference is found (R6)."""

import asyncio
import shutil
from pathlib import Path

import pytest

from raft.errors import CorruptionError
from tests.support.cluster.offline import MissingDataError, StoppedNode, compare, read_entries
from tests.support.raw_client import RawClient
from tests.support.server_process import ServerProcess

COUNT = 50
EARLY_OFFSET = 64
"""Of a byte in the first frame of a journal."""


def fill(directory: Path, text: bytes = b"x", *, is_killed: bool) -> StoppedNode:
    """A standalone server's data after some publishes and an orderly stop, or a kill."""

    async def publish(url: str) -> None:
        async with await RawClient.connect(url, "client") as client:
            for number in range(COUNT):
                await client.publish("channel", text + str(number).encode())

    with ServerProcess(store="FILE", directory=directory) as server:
        asyncio.run(publish(server.url))
        if is_killed:
            server.kill()
    return StoppedNode(directory, directory)


def content(directory: Path) -> dict[str, bytes]:
    """Every file but LMDB's lock."""
    return {
        str(file.relative_to(directory)): file.read_bytes()
        for file in directory.rglob("*")
        if file.is_file() and file.name != "lock.mdb"
    }


def test_journal_tells_what_the_store_lacks(tmp_path: Path) -> None:
    """A killed server and its copy compare equal though the copy's store is behind; nothing of either is changed."""
    node = fill(tmp_path / "one", is_killed=True)
    before = content(node.data_directory)
    comparison = compare({"a": node, "b": node}, tmp_path / "copies")
    assert comparison.violations == []
    assert comparison.index > 1
    assert content(node.data_directory) == before


def test_different_contents_are_found(tmp_path: Path) -> None:
    """R6: same index, another content."""
    nodes = {
        "a": fill(tmp_path / "a", b"x", is_killed=False),
        "b": fill(tmp_path / "b", b"y", is_killed=False),
    }
    assert {violation.invariant for violation in compare(nodes, tmp_path / "copies").violations} == {"R6"}


def test_node_that_is_behind_for_good_is_found(tmp_path: Path) -> None:
    """R6: a journal that does not lead to the index the others have applied."""
    nodes = {"a": fill(tmp_path / "a", is_killed=False)}
    with ServerProcess(store="FILE", directory=tmp_path / "b"):
        pass
    nodes["b"] = StoppedNode(tmp_path / "b", tmp_path / "b")
    (violation,) = compare(nodes, tmp_path / "copies").violations
    assert "b ends at" in violation.text


def test_missing_store_is_an_error(tmp_path: Path) -> None:
    """A stopped node without a store is not taken for an empty one."""
    with pytest.raises(MissingDataError, match="no store"):
        compare({"a": StoppedNode(tmp_path, tmp_path)}, tmp_path / "copies")


def test_damaged_journal_is_an_error(tmp_path: Path) -> None:
    """Damage ahead of the journal's last frame is not read as its end."""
    node = fill(tmp_path / "a", is_killed=False)
    (segment,) = tmp_path.rglob("*.segment")
    data = bytearray(segment.read_bytes())
    data[EARLY_OFFSET] ^= 1
    segment.write_bytes(data)
    with pytest.raises(CorruptionError):
        read_entries(node.log_directory)
    with pytest.raises(CorruptionError):
        compare({"a": node}, tmp_path / "copies")


def test_damage_that_is_known_of_is_found_not_compared(tmp_path: Path) -> None:
    """F11: a checksum finds it, so it would not have been served; the other nodes are compared."""
    node = fill(tmp_path / "a", is_killed=False)
    damaged = tmp_path / "b"
    shutil.copytree(node.data_directory, damaged)
    (segment,) = damaged.rglob("*.segment")
    data = bytearray(segment.read_bytes())
    data[EARLY_OFFSET] ^= 1
    segment.write_bytes(data)
    nodes = {"a": node, "b": StoppedNode(damaged, damaged, is_damaged=True)}
    comparison = compare(nodes, tmp_path / "copies")
    assert comparison.violations == []
    (text,) = comparison.damage
    assert text.startswith("b: ")
