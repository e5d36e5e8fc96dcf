"""The checker finds each kind of broken promise, and nothing in a correct run."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.history import History, Outcome, check, compare_readers

CHANNEL = "orders"


def history_of(*publishes: tuple[str, int, int | None, Outcome], worker: str = "") -> History:
    """(id, invoked, returned, outcome) each; every publish by a worker of its own unless one is named."""
    history = History()
    for unique_id, invoked_ns, returned_ns, outcome in publishes:
        history.invoke(worker or unique_id, CHANNEL, unique_id, invoked_ns)
        if returned_ns is not None:
            history.returned(unique_id, outcome, returned_ns)
    return history


def invariants(history: History, *pairs: tuple[int, str]) -> list[str]:
    """The ids of what is broken when a reader got `pairs`."""
    return [violation.invariant for violation in check(history, {CHANNEL: pairs})]


ONE_AFTER_THE_OTHER = (("a", 0, 1, Outcome.OK), ("b", 2, 3, Outcome.OK), ("c", 4, 5, Outcome.OK))


def test_correct_run_has_no_violation() -> None:
    """All acked messages, in order, without gap; a redelivered one changes nothing."""
    assert invariants(history_of(*ONE_AFTER_THE_OTHER), (1, "a"), (2, "b"), (3, "c"), (2, "b")) == []


def test_unknown_outcome_may_be_stored_or_not() -> None:
    """A timeout is neither success nor failure (B214, B402)."""
    history = history_of(("a", 0, 1, Outcome.OK), ("b", 2, None, Outcome.UNKNOWN), ("c", 2, None, Outcome.UNKNOWN))
    assert invariants(history, (1, "a"), (2, "c")) == []


def test_refused_message_may_be_stored() -> None:
    """An error answer does not prove that the message was not stored (B214)."""
    assert invariants(history_of(("a", 0, 1, Outcome.ERROR)), (1, "a")) == []


def test_lost_acked_message_is_found() -> None:
    """R1: an acked message that nobody can read is lost."""
    violations = check(history_of(*ONE_AFTER_THE_OTHER), {CHANNEL: [(1, "a"), (2, "c")]})
    assert [violation.invariant for violation in violations] == ["R1"]
    assert violations[0].text == "1 acked messages are lost: b"


def test_channel_that_was_never_read_is_lost() -> None:
    """R1: a channel without any reader's result counts as empty."""
    assert [violation.invariant for violation in check(history_of(*ONE_AFTER_THE_OTHER), {})] == ["R1"]


def test_message_nobody_published_is_found() -> None:
    """R2: nothing appears that was not published to this channel."""
    assert invariants(history_of(("a", 0, 1, Outcome.OK)), (1, "a"), (2, "x")) == ["R2"]


def test_message_of_another_channel_is_foreign() -> None:
    """R2: a message published to another channel does not belong here, and is lost there."""
    violations = check(history_of(("a", 0, 1, Outcome.OK)), {CHANNEL: [], "other": [(1, "a")]})
    assert sorted((violation.invariant, violation.channel) for violation in violations) == [
        ("R1", CHANNEL),
        ("R2", "other"),
    ]


def test_message_stored_twice_is_found() -> None:
    """R2: one publish is stored once."""
    assert invariants(history_of(("a", 0, 1, Outcome.OK)), (1, "a"), (2, "a")) == ["R2"]


@pytest.mark.parametrize("pairs", [[(2, "a"), (3, "b"), (4, "c")], [(1, "a"), (2, "b"), (4, "c")]])
def test_gap_is_found(pairs: list[tuple[int, str]]) -> None:
    """R3: sequences start at 1 and have no gap."""
    assert invariants(history_of(*ONE_AFTER_THE_OTHER), *pairs) == ["R3"]


def test_two_contents_of_one_sequence_are_found() -> None:
    """R4: a sequence means one message."""
    history = history_of(("a", 0, 1, Outcome.OK), ("b", 0, None, Outcome.UNKNOWN))
    assert "R4" in invariants(history, (1, "a"), (1, "b"))


def test_readers_that_differ_are_found() -> None:
    """R4: all readers see the same message at a sequence."""
    assert compare_readers(CHANNEL, [[(1, "a"), (2, "b")], [(2, "b"), (3, "c")]]) == []
    violations = compare_readers(CHANNEL, [[(1, "a"), (2, "b")], [(2, "c")]])
    assert [(violation.invariant, violation.text) for violation in violations] == [
        ("R4", "1 sequences differ between readers: 2")
    ]


def test_message_before_one_that_was_acked_earlier_is_found() -> None:
    """R5: what was acked before another was sent has the lower sequence."""
    assert invariants(history_of(("a", 0, 1, Outcome.OK), ("b", 2, 3, Outcome.OK)), (1, "b"), (2, "a")) == ["R5"]


def test_concurrent_messages_may_have_any_order() -> None:
    """R5 says nothing about publishes whose times overlap."""
    assert invariants(history_of(("a", 0, 3, Outcome.OK), ("b", 2, 4, Outcome.OK)), (1, "b"), (2, "a")) == []


def test_swapped_messages_of_one_worker_are_found() -> None:
    """R5: one connection's publishes keep their order, also while all are outstanding."""
    history = history_of(("a", 0, 9, Outcome.OK), ("b", 1, 9, Outcome.OK), worker="w")
    assert invariants(history, (1, "b"), (2, "a")) == ["R5"]


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=8), st.randoms())
def test_sorted_check_agrees_with_all_pairs(times: list[tuple[int, int]], chance: object) -> None:
    """R5 by sorting finds a violation exactly when a look at all pairs does."""
    publishes = [(f"m{i}", start, start + length, Outcome.OK) for i, (start, length) in enumerate(times)]
    order = [publish[0] for publish in publishes]
    chance.shuffle(order)  # type: ignore[attr-defined]
    by_id = {publish[0]: publish for publish in publishes}
    expected = any(by_id[later][2] < by_id[earlier][1] for i, earlier in enumerate(order) for later in order[i + 1 :])
    assert (invariants(history_of(*publishes), *enumerate(order, 1)) == ["R5"]) is expected


def test_one_id_cannot_be_used_twice() -> None:
    """Two publishes with one id could not be told apart when read."""
    history = history_of(("a", 0, 1, Outcome.OK))
    with pytest.raises(AssertionError, match="'a' is used twice"):
        history.invoke("w", CHANNEL, "a", 5)
