"""A snapshot and a sink in memory, and two members: what the tests of snapshot transfer share."""

from pathlib import Path

from raft.membership import Member

LEADER, OTHER = Member("a", "0" * 32), Member("b", "1" * 32)
FOLLOWER = Member("c", "2" * 32)


class MemorySnapshot:
    """A snapshot whose bytes are given. Fails to read when told to."""

    def __init__(self, content=b"0123456789", *, number=1, index=10, term=2):
        self.snapshot_id = number.to_bytes(16)
        self.content, self.index, self.term, self.size = content, index, term, len(content)
        self.is_closed = False
        self.error = None

    def read(self, offset, length):
        assert not self.is_closed
        if self.error is not None:
            raise self.error
        assert 0 <= offset <= offset + length <= self.size
        return self.content[offset : offset + length]

    def close(self):
        assert not self.is_closed
        self.is_closed = True


class MemorySink:
    """Keeps what is written. Fails when told to."""

    def __init__(self, directory=Path("copy")):
        self.content = bytearray()
        self.directory, self.is_finished, self.is_discarded = directory, False, False
        self.write_error = self.finish_error = None

    def write(self, offset, data):
        assert not self.is_finished
        assert not self.is_discarded
        if self.write_error is not None:
            raise self.write_error
        self.content.extend(bytes(max(0, offset + len(data) - len(self.content))))
        self.content[offset : offset + len(data)] = data

    def finish(self):
        if self.finish_error is not None:
            raise self.finish_error
        self.is_finished = True
        return self.directory

    def discard(self):
        assert not self.is_finished
        assert not self.is_discarded
        self.is_discarded = True


class Clock:
    """Seconds, which the test moves."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now
