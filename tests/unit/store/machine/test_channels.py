"""Creation and deletion of channels."""

from store.machine.refusals import UNKNOWN_CHANNEL
from store.machine.state import Refusal
from store.operations import CreateChannel, DeleteChannel
from tests.unit.store.builders import SETUP, UNLIMITED, Machine, messages, subscribe


def test_new_channel_is_empty():
    """B200, B202: sequences will start at 1."""
    machine = Machine()
    assert machine.one(CreateChannel(1, "foo", UNLIMITED)) is None
    channel = machine.state.channels["foo"]
    assert machine.state.channels_by_id[1] is channel
    assert (channel.first_seq, channel.last_seq, channel.count, channel.total_bytes) == (1, 0, 0, 0)


def test_existing_name_and_used_id_are_refused():
    """An id is never used again, also not after deletion: its records may still be on disk."""
    machine = Machine(CreateChannel(2, "foo", UNLIMITED))
    assert machine.one(CreateChannel(3, "foo", UNLIMITED)) == Refusal('channel "foo" exists already')
    assert machine.one(CreateChannel(2, "bar", UNLIMITED)) == Refusal("channel id 2 is not above all earlier ones")
    machine.apply(DeleteChannel(2))
    assert isinstance(machine.one(CreateChannel(2, "foo", UNLIMITED)), Refusal)
    assert isinstance(machine.one(CreateChannel(1, "foo", UNLIMITED)), Refusal)
    assert machine.state.channels == {}


def test_deletion_takes_messages_and_subscriptions():
    """B336: online and offline ones; the name starts anew at 1."""
    machine = Machine(*SETUP)
    machine.apply(subscribe(1), subscribe(2, durable="d"))
    machine.publish(1, messages(1, 5))
    assert machine.one(DeleteChannel(1)) is None
    state = machine.state
    assert state.channels == state.channels_by_id == state.subscriptions == state.durables == {}
    assert state.clients["me"].subscription_ids == {}
    assert state.tail.used_bytes == 0
    assert machine.one(DeleteChannel(1)) is UNKNOWN_CHANNEL
    machine.apply(CreateChannel(2, "foo", UNLIMITED))
    assert machine.publish(2, messages(1, 1)).first_seq == 1
