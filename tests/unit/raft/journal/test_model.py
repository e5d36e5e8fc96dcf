"""Random histories of a journal, with crashes in the middle of a write, against a list.

After any crash the journal holds what it held after some prefix of its groups, and never less than the synced ones.
"""

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from raft.journal.frame import FRAME_ALIGNMENT
from raft.journal.log import BASE_COMMAND
from tests.unit.raft.journal.journals import open_small, state

Held = tuple[list[tuple[bytes, int, int]], int, str | None]


class JournalMachine(RuleBasedStateMachine):
    """`entries`, `term` and `vote` are what the log must hold; `synced` is what a crash must leave at least."""

    @initialize()
    def create(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.journal = open_small(self.directory)
        self.entries, self.term, self.vote = [], 0, None
        self.synced: Held = ([], 0, None)
        self.serial = 0

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.journal.files.close()
            shutil.rmtree(self.directory)

    def new_entry(self, index: int, size: int) -> tuple[bytes, int, int]:
        self.serial += 1
        return (f"\0{self.serial}".encode().ljust(size, b"."), index, self.term)

    def next_index(self) -> int:
        return self.entries[-1][1] + 1 if self.entries else 1

    @rule(sizes=st.lists(st.sampled_from([5, 200, 480, 1500, 9000]), min_size=1, max_size=4))
    def add(self, sizes: list[int]) -> None:
        for size in sizes:
            entry = self.new_entry(self.next_index(), size)
            self.entries.append(entry)
            self.journal.log.add(*entry)

    @precondition(lambda self: len(self.entries) > 1)
    @rule(data=st.data())
    def receive(self, data: st.DataObject) -> None:
        """A leader's append: some entries as held, then perhaps some of a newer term."""
        log = self.journal.log
        position = data.draw(st.integers(1, len(self.entries)), label="position")
        repeated = data.draw(st.integers(0, len(self.entries) - position), label="repeated")
        new = data.draw(st.integers(0, 3), label="new")
        kept = position + repeated
        carried = self.entries[position:kept]
        if new:
            self.set_term(self.term + 1, None)
            first = self.entries[kept - 1][1] + 1
            carried = carried + [self.new_entry(first + offset, 50) for offset in range(new)]
            self.entries[kept:] = carried[repeated:]
        log.begin_append()
        if position < len(log):
            log.deleteEntriesFrom(position)
        for entry in carried:
            log.add(*entry)
        log.end_append()

    @precondition(lambda self: len(self.entries) > 1)
    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        position = data.draw(st.integers(1, len(self.entries)))
        del self.entries[position:]
        self.journal.log.deleteEntriesFrom(position)

    @rule(higher=st.integers(0, 2), vote=st.sampled_from([None, "n1", "other-node"]))
    def note_term(self, higher: int, vote: str | None) -> None:
        self.set_term(self.term + higher, vote)

    def set_term(self, term: int, vote: str | None) -> None:
        self.term, self.vote = term, vote
        self.journal.log.setCurrentTerm(term, vote)

    @rule(back=st.integers(0, 20))
    def trim(self, back: int) -> None:
        index = self.next_index() - back
        self.journal.log.trim(index)
        while len(self.entries) > 2 and self.entries[0][1] < index:
            del self.entries[0]

    @rule(ahead=st.integers(-10, 50))
    def reset(self, ahead: int) -> None:
        index = max(1, self.next_index() + ahead)
        self.journal.log.reset(index, self.term, self.term)
        self.entries = [(BASE_COMMAND, index - 1, self.term), (BASE_COMMAND, index, self.term)]

    @rule()
    def write(self) -> None:
        group = self.journal.log.take()
        if group is None:
            return
        held = self.held()
        self.journal.files.write(group)
        self.journal.log.done(group)
        self.journal.files.recycle()
        self.synced = held
        last = self.entries[-1][1] if self.entries else 0
        assert (self.journal.log.durable_index, self.journal.log.synced) == (last, self.journal.log.lsn)

    @rule(recycles=st.booleans())
    def reopen(self, recycles: bool) -> None:
        """End between two groups; what was not taken is gone."""
        if recycles:
            self.journal.files.prepare()
        self.open_and_compare([self.synced])

    @rule(data=st.data())
    def crash_while_writing(self, data: st.DataObject) -> None:
        """End inside a write: of the sectors written some reach the disk, one of them perhaps torn."""
        group = self.journal.log.take()
        if group is None:
            return
        held = self.held()
        before = {file.stat().st_ino: file.read_bytes() for file in self.directory.glob("*.s*")}
        self.journal.files.write(group)
        file, end = self.journal.files.position
        new = file.read_bytes()
        old = before.get(file.stat().st_ino, b"").ljust(len(new), b"\0")
        sectors = sorted({at // FRAME_ALIGNMENT for at in range(end) if new[at] != old[at]})
        order = data.draw(st.permutations(sectors) if len(sectors) < 9 else st.just(sectors), label="order")
        count = data.draw(st.integers(0, len(sectors)), label="whole sectors")
        torn = data.draw(st.integers(0, FRAME_ALIGNMENT), label="bytes of the next one")
        image = bytearray(old)
        for sector, size in [
            *((sector, FRAME_ALIGNMENT) for sector in order[:count]),
            *((s, torn) for s in order[count : count + 1]),
        ]:
            at = sector * FRAME_ALIGNMENT
            image[at : at + size] = new[at : at + size]
        file.write_bytes(image)
        self.open_and_compare([held] if bytes(image) == new else [self.synced])

    def held(self) -> Held:
        return list(self.entries), self.term, self.vote

    def open_and_compare(self, allowed: list[Held]) -> None:
        self.journal.files.close()
        self.journal = open_small(self.directory)
        found = state(self.journal)
        assert found in allowed
        assert self.journal.log.durable_index == (found[0][-1][1] if found[0] else 0)
        self.synced = found
        self.entries, self.term, self.vote = list(found[0]), found[1], found[2]

    @invariant()
    def log_is_the_model(self) -> None:
        if hasattr(self, "journal"):
            assert state(self.journal) == self.held()
            assert self.journal.log.bytes_in_memory == sum(len(entry[0]) + 138 for entry in self.entries)

    @invariant()
    def files_are_bounded(self) -> None:
        if hasattr(self, "journal"):
            assert len(list(self.directory.glob("*.spare"))) <= 3


JournalMachine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
test_random_histories = JournalMachine.TestCase
