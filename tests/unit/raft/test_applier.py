"""Covers raft/applier.py."""

import pytest

from raft.applier import Applier
from raft.engine import CONFIGURATION, NO_OP, REGULAR
from raft.errors import InvariantError
from raft.journal.log import BASE_COMMAND
from raft.state_machine import CommittedEntry


class RecordingStateMachine:
    def __init__(self, index=0, term=0):
        self.applied = []
        self.at = (index, term)
        self.results = lambda entries: [bytes(entry.data) for entry in entries]

    def last_applied(self):
        return self.at

    def apply(self, entries):
        self.applied += entries
        return self.results(entries)

    def durable_index(self):
        return self.at[0]


def test_entries_are_handed_over_without_their_type_byte_and_uncopied():
    """The state machine sees index, term and a view of the journal's own bytes; a no-op's data is empty."""
    state_machine = RecordingStateMachine(index=4, term=1)
    command = REGULAR + b"payload"
    results = Applier(state_machine).apply([(NO_OP, 5, 2), (command, 6, 2)])
    assert results == [b"", b"payload"]
    assert [(entry.index, entry.term) for entry in state_machine.applied] == [(5, 2), (6, 2)]
    assert state_machine.applied[1].data.obj is command
    assert isinstance(state_machine.applied[0], CommittedEntry)
    assert not any(entry.is_configuration for entry in state_machine.applied)


def test_configurations_are_told_apart():
    """A configuration reaches the state machine as such, since a snapshot must hold it; commands that look alike do not."""
    state_machine = RecordingStateMachine(index=4, term=1)
    Applier(state_machine).apply([(CONFIGURATION + b"abc", 5, 2), (REGULAR + b"abc", 6, 2)])
    assert [(bytes(entry.data), entry.is_configuration) for entry in state_machine.applied] == [
        (b"abc", True),
        (b"abc", False),
    ]


def test_position_follows_what_was_applied():
    """Index and term begin with the state machine's and end with the last entry's."""
    applier = Applier(RecordingStateMachine(index=4, term=1))
    assert (applier.index, applier.term) == (4, 1)
    applier.apply([(REGULAR, 5, 1), (REGULAR, 6, 3)])
    assert (applier.index, applier.term) == (6, 3)


@pytest.mark.parametrize("indexes", [[4], [6], [5, 7], [5, 5]])
def test_gap_or_repetition_reaches_no_state_machine(indexes):
    """Entries apply once and without gap; the whole batch is refused before any of it is applied."""
    state_machine = RecordingStateMachine(index=4, term=1)
    applier = Applier(state_machine)
    with pytest.raises(InvariantError, match="was to be applied after"):
        applier.apply([(REGULAR, index, 1) for index in indexes])
    assert (state_machine.applied, applier.index) == ([], 4)


@pytest.mark.parametrize("type_byte", [BASE_COMMAND, b"\x02", b"\x03"])
def test_placeholder_and_pickled_types_are_never_applied(type_byte):
    """A placeholder has lost its content: applying it as a no-op would drop a committed entry."""
    state_machine = RecordingStateMachine(index=4, term=1)
    with pytest.raises(InvariantError, match=f"entry 6 of type 0x{type_byte.hex()} was to be applied"):
        Applier(state_machine).apply([(REGULAR, 5, 1), (type_byte, 6, 1)])
    assert state_machine.applied == []


def test_error_of_the_state_machine_passes_and_moves_nothing():
    """The position stays before a failed batch."""
    state_machine = RecordingStateMachine(index=4, term=1)

    def broken(entries):
        raise OSError("map is full")

    state_machine.results = broken
    applier = Applier(state_machine)
    with pytest.raises(OSError, match="map is full"):
        applier.apply([(REGULAR, 5, 1)])
    assert applier.index == 4


def test_missing_result_is_an_error():
    """One result for each entry, or nobody knows which proposal a result belongs to."""
    state_machine = RecordingStateMachine(index=4, term=1)
    state_machine.results = lambda entries: []
    with pytest.raises(InvariantError, match="0 results for entries 5 to 5"):
        Applier(state_machine).apply([(REGULAR, 5, 1)])


def test_snapshot_moves_the_position_forward_only():
    """After a snapshot the next entry is the one behind it; a snapshot that brings nothing new is the caller's bug."""
    applier = Applier(RecordingStateMachine(index=4, term=1))
    applier.restored(9, 3)
    assert (applier.index, applier.term) == (9, 3)
    applier.apply([(REGULAR, 10, 3)])
    with pytest.raises(AssertionError):
        applier.restored(10, 3)
