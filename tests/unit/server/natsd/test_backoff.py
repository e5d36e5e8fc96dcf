"""Covers server/natsd/backoff.py."""

from server.natsd.backoff import DELAY_MAX_NS, DELAY_MIN_NS, QUICK_FAILURES_MAX, STABLE_NS, Backoff


def test_pauses_grow_to_their_bound_and_end() -> None:
    """Each quick failure doubles the pause up to a bound; after the last one restarting is given up, and stays so."""
    backoff = Backoff()
    delays = [backoff.next_delay_ns(0) for _ in range(QUICK_FAILURES_MAX)]
    assert delays == [min(DELAY_MIN_NS * 2**number, DELAY_MAX_NS) for number in range(QUICK_FAILURES_MAX)]
    assert delays[-1] == DELAY_MAX_NS
    assert backoff.next_delay_ns(0) is None
    assert backoff.next_delay_ns(STABLE_NS - 1) is None


def test_stable_run_begins_a_new_story() -> None:
    """A child that ran long enough is restarted soon, whatever was before."""
    backoff = Backoff(failures=QUICK_FAILURES_MAX)
    assert backoff.next_delay_ns(STABLE_NS) == DELAY_MIN_NS
    assert backoff.next_delay_ns(STABLE_NS - 1) == 2 * DELAY_MIN_NS
