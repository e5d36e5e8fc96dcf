"""Decides when a node may stand for election, and whom it would help: pre-votes and leader stickiness. Pure.

Rules (Raft dissertation, sections 9.6 and 4.2.3):
- Before a node raises its term it asks whether a majority would vote for it; one that is cut off or lags disturbs nobody.
- Nobody helps to elect another leader within the shortest election timeout of having heard from one, nor within that time
  of its own start, since it may have heard from one before; the leader itself may lift this by handing over.
- A vote or pre-vote counts once per member of the configuration, and only from such.
"""

from dataclasses import dataclass, field

from raft.membership import Configuration, Member


@dataclass(slots=True)
class Ballot:
    """Voices for this node in one term: pre-votes, or votes."""

    term: int = -1
    voters: set[Member] = field(default_factory=set)

    def open(self, term: int, me: Member) -> None:
        """Begin anew, with the own voice."""
        self.term = term
        self.voters = {me}

    def close(self) -> None:
        """Nobody is asked any more."""
        self.term = -1
        self.voters = set()

    def admits(self, voter: Member, term: int, configuration: Configuration | None) -> bool:
        """Count a voice; False when it does not count or was counted already."""
        if term != self.term or voter in self.voters or configuration is None or voter not in configuration.members:
            return False
        self.voters.add(voter)
        return True

    def is_won(self, configuration: Configuration) -> bool:
        """Whether a majority is for us."""
        return len(self.voters.intersection(configuration.members)) >= configuration.majority


@dataclass(slots=True)
class Stickiness:
    """When a leader was last heard."""

    election_min_s: float
    heard_s: float
    """A leader, or the own start."""

    def holds(self, now: float) -> bool:
        """Whether a leader may still be alive."""
        return now - self.heard_s < self.election_min_s


def is_up_to_date(last_term: int, last_index: int, own_term: int, own_index: int) -> bool:
    """Whether a log that ends with these has all that one's own may have committed (Raft paper, section 5.4.1)."""
    return (last_term, last_index) >= (own_term, own_index)
