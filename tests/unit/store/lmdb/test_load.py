"""Rebuilding the state: equal to what was written, and references that do not fit are damage."""

import pytest

from store.errors import CorruptionError
from store.lmdb import layout
from store.lmdb.batch import collect
from store.lmdb.environment import Identity, open_environment
from store.lmdb.load import load
from store.lmdb.transaction import write
from store.operations import CloseSubscription, Expire, Progress
from tests.support.store_digest import digest_state
from tests.unit.store.builders import SETUP, Machine, connect, messages, subscribe


@pytest.fixture
def machine():
    machine = Machine(*SETUP, connect("a", b"same"), connect("b", b"same"))
    machine.publish(1, messages(1, 10))
    machine.apply(subscribe(1), subscribe(2, durable="d"), subscribe(3, durable="off"), subscribe(4, client_id="b"))
    machine.apply(Progress(2, 9, 3, ((5, 6), (8, 8))), Progress(3, 10, 10, ()), CloseSubscription(3), Expire(1, 4))
    return machine


@pytest.fixture
def environment(machine, tmp_path):
    environment = open_environment(tmp_path, Identity("c", "n", "i"), is_synced=False)
    write(environment, collect(machine.state, 77, 5))
    yield environment
    environment.close()


def test_state_comes_back(machine, environment):
    """Everything replicated, all lookups, index and term."""
    state, index, term = load(environment)
    assert (index, term) == (77, 5)
    assert digest_state(state) == digest_state(machine.state)
    assert state.clients_by_conn_id.keys() == machine.state.clients_by_conn_id.keys()
    assert state.clients_by_conn_id[b"same"].client_id == "b"  # the later one (B46)
    assert {key: one.subscription_id for key, one in state.durables.items()} == {
        ("me", 1, "d"): 2,
        ("me", 1, "off"): 3,
    }
    assert state.channels["foo"] is state.channels_by_id[1]
    assert list(state.clients["me"].subscription_ids) == [1, 2]
    assert list(state.channels["foo"].subscription_ids) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("name", "number", "text"),
    [
        (layout.PROGRESS, 1, "expected the progress of subscription 1, found none"),
        (layout.SUBSCRIPTIONS, 1, r"expected a subscription for each progress, found none for \[1\]"),
        (layout.CHANNELS, 1, "expected the channel 1 of subscription 1, found none"),
        (layout.CLIENTS, 3, "expected the client b of subscription 4, found none"),
    ],
)
def test_missing_record_is_damage(environment, name, number, text):
    """A record that another one needs."""
    with environment.handle.begin(write=True) as transaction:
        assert transaction.delete(layout.ID_KEY.pack(number), db=environment.databases[name])
    with pytest.raises(CorruptionError, match=rf"data\.mdb is damaged: {text}"):
        load(environment)


@pytest.mark.parametrize("name", [layout.CHANNELS, layout.CLIENTS, layout.SUBSCRIPTIONS, layout.PROGRESS])
def test_damaged_record_names_the_file(environment, name):
    """O534: any flipped bit of any record."""
    key, database = layout.ID_KEY.pack(1), environment.databases[name]
    with environment.handle.begin(write=True) as transaction:
        record = transaction.get(key, db=database)
        transaction.put(key, record[:-1] + bytes([record[-1] ^ 0x40]), db=database)
    with pytest.raises(CorruptionError, match=r"data\.mdb is damaged: expected checksum"):
        load(environment)


def test_record_under_another_key_is_damage(environment):
    """The checksum covers the key."""
    database = environment.databases[layout.CHANNELS]
    with environment.handle.begin(write=True) as transaction:
        record = transaction.get(layout.ID_KEY.pack(1), db=database)
        transaction.put(layout.ID_KEY.pack(2), record, db=database)
    with pytest.raises(CorruptionError, match="under key 0000000000000002"):
        load(environment)
