"""Registration and end of clients."""

from store.machine.refusals import DUPLICATE_CLIENT_ID, UNKNOWN_CLIENT_ID
from store.operations import CloseClient, ConnectClient
from tests.unit.store.builders import SETUP, Machine, connect, subscribe


def test_client_is_registered_with_all_it_sent():
    """B44."""
    machine = Machine()
    assert machine.one(ConnectClient("me", b"id", "hb", 1, 5, 3)) is None
    client = machine.state.clients["me"]
    assert (client.conn_id, client.heartbeat_inbox, client.protocol) == (b"id", "hb", 1)
    assert (client.ping_interval_s, client.ping_max_out) == (5, 3)
    assert machine.state.clients_by_conn_id[b"id"] is client


def test_registered_id_is_refused():
    """B40.3: the registered client stays as it is."""
    machine = Machine(connect("me"))
    assert machine.one(connect("me", b"other")) is DUPLICATE_CLIENT_ID
    assert machine.state.clients["me"].conn_id == b"me"
    assert b"other" not in machine.state.clients_by_conn_id


def test_unknown_client_cannot_be_closed():
    """Closing twice is refused."""
    machine = Machine(connect("me"))
    assert machine.one(CloseClient("me")) is None
    assert machine.one(CloseClient("me")) is UNKNOWN_CLIENT_ID
    assert machine.state.clients == machine.state.clients_by_conn_id == {}


def test_later_client_of_a_conn_id_is_found_and_forgotten_only_with_itself():
    """B46: the lookup keeps the later one, and forgets the id only if it still points to the leaving client."""
    machine = Machine(connect("a", b"same"), connect("b", b"same"))
    machine.apply(CloseClient("a"))
    assert machine.state.clients_by_conn_id[b"same"].client_id == "b"
    machine.apply(CloseClient("b"))
    assert machine.state.clients_by_conn_id == {}


def test_clients_without_conn_id_are_not_found_by_it():
    """B45: clients of protocol 0 send none."""
    machine = Machine(ConnectClient("old", b"", "hb", 0, 0, 0))
    assert machine.state.clients_by_conn_id == {}
    assert machine.one(CloseClient("old")) is None


def test_end_of_a_client_removes_plain_and_keeps_durable_subscriptions():
    """B345, B350: closed, not unsubscribed; those of others stay."""
    machine = Machine(*SETUP, connect("you"))
    machine.apply(subscribe(1), subscribe(2, durable="d"), subscribe(3, client_id="you"))
    assert machine.one(CloseClient("me")) is None
    state = machine.state
    assert sorted(state.subscriptions) == [2, 3]
    assert not state.subscriptions[2].is_online
    assert state.subscriptions[3].is_online
    assert list(state.channels["foo"].subscription_ids) == [2, 3]


def test_client_number_grows():
    """A client that comes back has a new number."""
    machine = Machine(connect("a"), connect("b"), CloseClient("a"), connect("a"))
    assert {client.client_id: client.number for client in machine.state.clients.values()} == {"b": 2, "a": 3}
