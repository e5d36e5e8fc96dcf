"""Decides at start how journal and state machine fit together, before anything is elected or applied.

Rules (the state machine is what was applied, the journal what may still be):
- the journal begins behind the next entry to apply: the state between them is missing. A member of a cluster gets it from
  its leader as a snapshot and keeps its journal; a node without others must not start;
- it ends before the last applied entry, or holds another term there: what it has behind that entry was never committed,
  so it begins anew with that entry as its base;
- else the entries behind the last applied one are replayed as soon as a leader has committed them.
"""

import logging

from raft.errors import RecoveryError
from raft.journal.log import BASE_COMMAND, Log

logger = logging.getLogger(__name__)


def align_journal(log: Log, applied_index: int, applied_term: int, *, can_fetch: bool) -> int:
    """Make `log` continue the state machine's last applied entry.

    The index up to which the state must first be fetched from a leader; 0 if it is complete. Raises RecoveryError when
    it is not and nobody can be asked.
    """
    if len(log) == 0:
        if applied_index > 1:  # entry 1 is the same in every log and is written anew
            _reset(log, applied_index, applied_term, "is empty")
        return 0
    first, last = log[0][1], log[-1][1]
    while first <= last and log[first - log[0][1]][0] == BASE_COMMAND:
        first += 1  # a placeholder has no content to apply
    if applied_index + 1 < first:
        text = (
            f"the journal begins with entry {first}, the store ends with entry {applied_index}: entries between them"
            " are missing"
        )
        if not can_fetch:
            raise RecoveryError(f"{text}; allowed: a store that has at least entry {first - 1}")
        logger.warning("%s and are fetched from the leader", text)
        return max(first - 1, log[0][1])
    if applied_index > last:
        _reset(log, applied_index, applied_term, f"ends with entry {last}")
    elif applied_index >= log[0][1]:
        journal_term = log[applied_index - log[0][1]][2]
        if journal_term != applied_term:
            _reset(log, applied_index, applied_term, f"has term {journal_term} there")
    return 0


def _reset(log: Log, index: int, term: int, why: str) -> None:
    logger.warning("the journal %s and begins anew behind the store last_applied=%d term=%d", why, index, term)
    # The term before the base is unknown and never compared: both placeholders are replaced by a snapshot when sent.
    log.reset(index, term, term)
