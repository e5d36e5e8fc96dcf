"""Covers raft/proposals.py."""

from raft.engine import NO_OP, REGULAR
from raft.proposals import Applied, Proposals, Unknown


def entry(index, term=1):
    """A log entry without content."""
    return (REGULAR, index, term)


def test_outcomes_are_told_in_log_order_with_their_results():
    """Each waiting proposal hears its own entry's result; entries that nobody waits for are passed over."""
    proposals, heard = Proposals(), []
    proposals.add(3, 1, lambda outcome: heard.append((3, outcome)))
    proposals.add(5, 1, lambda outcome: heard.append((5, outcome)))
    proposals.settle([(NO_OP, 2, 1), entry(3), entry(4)], ["noop", "three", "four"])
    assert heard == [(3, Applied("three"))]
    proposals.settle([entry(5)], ["five"])
    assert heard[1:] == [(5, Applied("five"))]
    assert len(proposals) == 0


def test_slot_taken_by_another_term_is_unknown():
    """The entry at the proposal's index is another leader's: the outcome of the proposed one is not known."""
    proposals, heard = Proposals(), []
    proposals.add(3, 1, heard.append)
    proposals.settle([entry(3, term=2)], ["other"])
    assert heard == [Unknown()]


def test_abandoned_proposals_hear_unknown_once():
    """After the end of leadership every waiting proposal hears `Unknown`, in order, and never anything else."""
    proposals, heard = Proposals(), []
    for index in (3, 4):
        proposals.add(index, 1, lambda outcome, index=index: heard.append((index, outcome)))
    proposals.abandon()
    proposals.abandon()
    proposals.settle([entry(3), entry(4)], ["three", "four"])
    assert heard == [(3, Unknown()), (4, Unknown())]


def test_proposal_added_while_settling_waits_for_its_own_entry():
    """Adding from inside an outcome is legal and does not disturb the rest of the batch."""
    proposals, heard = Proposals(), []
    proposals.add(3, 1, lambda outcome: proposals.add(5, 1, heard.append))
    proposals.add(4, 1, heard.append)
    proposals.settle([entry(3), entry(4)], ["three", "four"])
    assert heard == [Applied("four")]
    proposals.settle([entry(5)], ["five"])
    assert heard == [Applied("four"), Applied("five")]
