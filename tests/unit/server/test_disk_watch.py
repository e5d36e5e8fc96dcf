"""When publishes are refused for lack of disk space."""

import pytest

from server import disk_watch
from server.disk_watch import DISK_LOW_BYTES, DISK_OK_BYTES, ROUND_S, DiskWatch, free_bytes
from tests.support.moved_loop import MovedLoop


def made(directory="."):
    loop, told = MovedLoop(), []
    return DiskWatch(directory, loop, lambda is_low, free: told.append((is_low, free))), loop, told


def test_each_crossing_is_told_once():
    """Low below the low mark, sufficient again from the higher one: no alternating in between."""
    watch, _, told = made()
    for free in (
        DISK_OK_BYTES,
        DISK_LOW_BYTES,
        DISK_LOW_BYTES - 1,
        0,
        DISK_OK_BYTES - 1,
        DISK_OK_BYTES,
        DISK_LOW_BYTES,
    ):
        watch.look(free)
    assert told == [(True, DISK_LOW_BYTES - 1), (False, DISK_OK_BYTES)]


def test_looks_at_once_and_every_round(monkeypatch):
    """The first look comes with the start; stop ends them."""
    free = [0]
    monkeypatch.setattr(disk_watch, "free_bytes", lambda _directory: free[0])
    watch, loop, told = made()
    watch.start()
    assert told == [(True, 0)]
    free[0] = DISK_OK_BYTES
    loop.move(ROUND_S * 1.5)
    assert told[1:] == [(False, DISK_OK_BYTES)]
    watch.stop()
    free[0] = 0
    loop.move(ROUND_S * 3)
    assert len(told) == 2
    assert loop.timers() == []


def test_look_that_fails_is_not_the_last(monkeypatch):
    """A file system that cannot be asked for a moment is asked again: else a full disk would go unnoticed later."""
    answers = [DISK_OK_BYTES, OSError("stale handle"), 0]

    def ask(_directory):
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(disk_watch, "free_bytes", ask)
    watch, loop, told = made()
    watch.start()
    loop.move(ROUND_S * 2.5)
    watch.stop()
    assert told == [(True, 0)]


def test_free_bytes(tmp_path):
    """A real file system tells a number."""
    assert free_bytes(str(tmp_path)) > 0
    with pytest.raises(FileNotFoundError):
        free_bytes(str(tmp_path / "missing"))
