"""Entries as a whole: one result for each operation, refusals that change nothing."""

import pytest

from store.machine.state import Refusal
from store.operations import (
    CleanStop,
    CloseClient,
    CloseSubscription,
    CreateChannel,
    DeleteChannel,
    Expire,
    InitCluster,
    Limits,
    Progress,
    SetLimits,
    Unsubscribe,
)
from tests.support.store_digest import digest_state
from tests.unit.store.builders import SETUP, UNLIMITED, Machine, append, connect, messages, subscribe


def test_every_operation_has_its_result_in_its_place():
    """Results come in the order of the operations, refused ones between the others."""
    machine = Machine(*SETUP)
    first, first_block = append(1, 1, messages(1, 2))
    wrong, wrong_block = append(1, 9, messages(9, 1))
    results = machine.apply(
        first,
        connect("me"),
        Expire(1, 2),
        wrong,
        subscribe(1, last_sent=2),
        Progress(1, 2, 2, ()),
        SetLimits(1, Limits(5, 0, 0)),
        CloseSubscription(1),
        Unsubscribe(1),
        DeleteChannel(1),
        CloseClient("me"),
        CleanStop(),
        blocks=[first_block, wrong_block],
    )
    assert [type(result).__name__ for result in results] == [
        "Block",
        "Refusal",
        "NoneType",
        "Refusal",
        "NoneType",
        "NoneType",
        "NoneType",
        "NoneType",
        "Refusal",
        "NoneType",
        "NoneType",
        "NoneType",
    ]


@pytest.mark.parametrize(
    "operation",
    [
        InitCluster("other", "token"),
        CreateChannel(9, "foo", UNLIMITED),
        CreateChannel(1, "bar", UNLIMITED),
        SetLimits(9, Limits(1, 1, 1)),
        DeleteChannel(9),
        Expire(1, 12),
        connect("me", b"other"),
        CloseClient("nobody"),
        subscribe(9, channel_id=9),
        CloseSubscription(9),
        Unsubscribe(9),
        Progress(9, 1, 1, ()),
        Progress(1, 1, 2, ()),
    ],
)
def test_refused_operation_changes_nothing(operation):
    """A refusal is a result, and nothing is to be written for it but that it was applied."""
    machine = Machine(*SETUP, subscribe(1))
    machine.publish(1, messages(1, 10))
    before = digest_state(machine.state), repr(machine.state.changes)
    assert isinstance(machine.one(operation), Refusal)
    assert (digest_state(machine.state), repr(machine.state.changes)) == before


def test_empty_entry_has_no_results():
    """An entry without operations is possible."""
    assert Machine(*SETUP).apply() == []
