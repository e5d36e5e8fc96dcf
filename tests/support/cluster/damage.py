"""Damages the files of a stopped node as disks and people do: a flipped bit, a cut, a zeroed page, lost or older files."""

import os
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

PAGE_BYTES: Final = 4096
TRIES: Final = 200
"""Places looked at until one is found that holds something: files are filled with zeros ahead."""

NOT_CONTENT: Final = ("lock", ".lock", "lock.mdb")
"""Ends of the names of files that hold nothing."""


def files_of(directories: Sequence[Path]) -> list[Path]:
    """Every file with content below these directories, sorted."""
    return sorted(
        file
        for directory in directories
        for file in directory.rglob("*")
        if file.is_file() and file.stat().st_size and not file.name.endswith(NOT_CONTENT)
    )


def flip_bit(file: Path, chance: random.Random) -> str:
    """Flips one bit of a byte that is not zero, if there is one."""
    offset = _place(file, chance)
    bit = chance.randrange(8)
    with file.open("r+b") as opened:
        opened.seek(offset)
        old = opened.read(1)[0]
        opened.seek(offset)
        opened.write(bytes([old ^ (1 << bit)]))
    return f"bit {bit} of byte {offset} of {file.name} flipped"


def cut_off(file: Path, chance: random.Random) -> str:
    """Takes away the file's end, from a place that holds something."""
    size = _place(file, chance)
    os.truncate(file, size)
    return f"{file.name} cut to {size} bytes"


def zero_page(file: Path, chance: random.Random) -> str:
    """Overwrites a page that holds something with zeros."""
    page = _place(file, chance) // PAGE_BYTES
    size = min(PAGE_BYTES, file.stat().st_size - page * PAGE_BYTES)
    with file.open("r+b") as opened:
        opened.seek(page * PAGE_BYTES)
        opened.write(bytes(size))
    return f"page {page} of {file.name} zeroed"


def swap_pages(file: Path, chance: random.Random) -> str:
    """Exchanges two pages that hold something; a file of one page gets a flipped bit instead."""
    pages = sorted({_place(file, chance) // PAGE_BYTES for _ in range(10)})
    whole = [page for page in pages if (page + 1) * PAGE_BYTES <= file.stat().st_size]
    if len(whole) < 2:
        return flip_bit(file, chance)
    one, other = chance.sample(whole, 2)
    with file.open("r+b") as opened:
        contents = {}
        for page in (one, other):
            opened.seek(page * PAGE_BYTES)
            contents[page] = opened.read(PAGE_BYTES)
        for page, source in ((one, other), (other, one)):
            opened.seek(page * PAGE_BYTES)
            opened.write(contents[source])
    return f"pages {one} and {other} of {file.name} swapped"


FILE_DAMAGES: Final[tuple[Callable[[Path, random.Random], str], ...]] = (flip_bit, cut_off, zero_page, swap_pages)


def damage_one(directories: Sequence[Path], chance: random.Random) -> str:
    """Damages one file, each kind of file equally often; says what it did."""
    by_kind: dict[str, list[Path]] = {}
    for file in files_of(directories):
        by_kind.setdefault(file.suffix, []).append(file)
    file = chance.choice(by_kind[chance.choice(sorted(by_kind))])
    return chance.choice(FILE_DAMAGES)(file, chance)


def lose(directory: Path) -> str:
    """The whole directory is gone."""
    shutil.rmtree(directory)
    return f"directory {directory.name} lost"


def keep_copy(directory: Path, copy: Path) -> None:
    """Keeps a copy for `put_back`; the node is stopped."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(directory, copy)


def put_back(directory: Path, copy: Path) -> str:
    """An older copy takes the place of the directory; the node is stopped."""
    shutil.rmtree(directory)
    shutil.move(copy, directory)
    return f"directory {directory.name} replaced by an older copy"


def _place(file: Path, chance: random.Random) -> int:
    """Offset of a byte that is not zero, if one is found soon."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        for _ in range(TRIES):
            offset = chance.randrange(size)
            opened.seek(offset)
            if opened.read(1) != b"\0":
                return offset
    return chance.randrange(size)
