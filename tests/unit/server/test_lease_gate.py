"""When a leader may speak."""

import pytest

from server.lease_gate import RECHECK_S, LeaseGate
from tests.support.moved_loop import MovedLoop


class Gate:
    def __init__(self):
        self.loop = MovedLoop()
        self.is_confirmed = True
        self.events = []
        self.gate = LeaseGate(
            lambda: self.is_confirmed,
            self.loop,
            lambda: self.events.append("held"),
            lambda: self.events.append("released"),
        )


@pytest.fixture
def gate():
    return Gate()


def test_hold_and_release_are_told_once(gate):
    """B401: each change is told once, however often the node says so."""
    for call in ("release", "hold", "hold", "release", "release", "hold"):
        getattr(gate.gate, call)()
    assert gate.events == ["held", "released", "held"]
    assert not gate.gate.confirm()
    assert gate.loop.timers() == []


def test_a_no_holds_before_the_node_has_noticed(gate):
    """B401: after a pause of the process a turn may begin before the node's timer; from its no on everything is held."""
    assert gate.gate.confirm()
    gate.is_confirmed = False
    assert not gate.gate.confirm()
    assert not gate.gate.is_open
    gate.is_confirmed = True
    assert not gate.gate.confirm()  # not before the release
    gate.gate.release()
    assert gate.gate.confirm()
    assert gate.events == ["held", "released"]
    assert gate.loop.timers() == []


def test_node_that_never_noticed(gate):
    """B401: the majority confirmed it before the node saw that it had not: nobody will call `release`."""
    gate.is_confirmed = False
    gate.gate.confirm()
    gate.loop.move(3.5 * RECHECK_S)
    assert gate.events == ["held"]
    gate.is_confirmed = True
    gate.loop.move(RECHECK_S)
    assert gate.events == ["held", "released"]
    assert gate.loop.timers() == []


def test_hold_of_the_node_lasts_until_its_release(gate):
    """B401: once the node has said so, only the node ends it."""
    gate.is_confirmed = False
    gate.gate.confirm()
    gate.gate.hold()
    gate.is_confirmed = True
    gate.loop.move(10)
    assert gate.events == ["held"]
    gate.gate.release()
    assert gate.events == ["held", "released"]


@pytest.mark.parametrize("state", ["open", "held", "doubted"])
def test_end_is_for_good(gate, state):
    """B395: no timer stays, nobody is told, nothing opens it again."""
    if state == "held":
        gate.gate.hold()
    if state == "doubted":
        gate.is_confirmed = False
        gate.gate.confirm()
    told = list(gate.events)
    gate.gate.end()
    gate.is_confirmed = True
    for call in ("release", "hold", "confirm", "release"):
        getattr(gate.gate, call)()
    gate.loop.move(10)
    assert not gate.gate.is_open
    assert gate.events == told
    assert gate.loop.timers() == []
