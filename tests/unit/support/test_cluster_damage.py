"""Every kind of damage changes the file it names, and chance alone decides which."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cluster.damage import (
    FILE_DAMAGES,
    damage_one,
    files_of,
    keep_copy,
    lose,
    put_back,
)

CONTENT = b"".join(bytes([1 + number % 250]) * 100 for number in range(200))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory as a node's."""
    made = tmp_path / "log"
    made.mkdir()
    (made / "1.segment").write_bytes(CONTENT + bytes(50_000))
    (made / "lock").write_bytes(b"x")
    (made / "empty").touch()
    return made


@pytest.mark.parametrize("damage", FILE_DAMAGES, ids=lambda one: one.__name__)
@pytest.mark.parametrize("seed", range(5))
def test_damage_changes_what_counts(directory: Path, damage: Callable[[Path, random.Random], str], seed: int) -> None:
    """F11: the part that holds something is not the same afterwards, and the text names the file."""
    file = directory / "1.segment"
    text = damage(file, random.Random(seed))
    assert file.read_bytes()[: len(CONTENT)] != CONTENT
    assert "1.segment" in text


def test_same_seed_does_the_same_damage(directory: Path) -> None:
    """A round can be repeated."""
    file = directory / "1.segment"
    before = file.read_bytes()
    first = damage_one([directory], random.Random(3)), file.read_bytes()
    file.write_bytes(before)
    assert (damage_one([directory], random.Random(3)), file.read_bytes()) == first


def test_only_files_with_content_are_damaged(directory: Path) -> None:
    """A lock file or an empty one would be damage without effect."""
    assert files_of([directory]) == [directory / "1.segment"]


def test_older_copy_takes_the_place(directory: Path, tmp_path: Path) -> None:
    """F11: what was written after the copy is gone; a lost directory is gone."""
    keep_copy(directory, tmp_path / "copy")
    (directory / "later").write_bytes(b"x")
    put_back(directory, tmp_path / "copy")
    assert not (directory / "later").exists()
    assert (directory / "1.segment").exists()
    lose(directory)
    assert not directory.exists()
