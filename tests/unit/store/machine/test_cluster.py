"""The cluster's identity, and when progress counts as exact."""

import pytest

from store.machine.apply import apply_no_op
from store.machine.state import Refusal
from store.operations import CleanStop, InitCluster
from tests.unit.store.builders import Machine, connect


def test_identity_is_set_once():
    """The first InitCluster counts; the same again does nothing, another one is refused."""
    machine = Machine()
    assert machine.one(InitCluster("c", "t")) is None
    assert machine.one(InitCluster("c", "t")) is None
    assert machine.one(InitCluster("c", "other")) == Refusal('cluster is initialized as "c" already')
    assert machine.one(InitCluster("other", "t")) == Refusal('cluster is initialized as "c" already')
    assert (machine.state.cluster_id, machine.state.ack_inbox_token) == ("c", "t")


@pytest.mark.parametrize("operation", [InitCluster("", "t"), InitCluster("c", "")])
def test_identity_is_not_empty(operation):
    """Half an identity is refused."""
    machine = Machine()
    assert isinstance(machine.one(operation), Refusal)
    assert (machine.state.cluster_id, machine.state.ack_inbox_token) == ("", "")


def test_clean_stop_makes_progress_exact_until_anything_follows():
    """Progress is exact after an entry that ends with CleanStop, and not after any later operation."""
    machine = Machine()
    assert not machine.state.progress_is_exact
    machine.apply(connect("a"), CleanStop())
    assert machine.state.progress_is_exact
    machine.apply(connect("a"))  # refused, but a leader was at work
    assert not machine.state.progress_is_exact
    machine.apply(CleanStop(), connect("b"))
    assert not machine.state.progress_is_exact
    machine.apply(CleanStop())
    machine.apply()
    assert not machine.state.progress_is_exact


def test_only_one_leader_may_rely_on_a_clean_stop():
    """The first leader may have sent before its first entry: the second one must not trust the mark (B394)."""
    machine = Machine()
    apply_no_op(machine.state)
    machine.apply(CleanStop())
    apply_no_op(machine.state)
    assert machine.state.progress_is_exact
    apply_no_op(machine.state)
    assert not machine.state.progress_is_exact
    machine.apply(CleanStop())
    apply_no_op(machine.state)
    assert machine.state.progress_is_exact
