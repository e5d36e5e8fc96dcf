"""Registers clients and ends them (B44, B345). Pure."""

from store.machine import refusals, subscriptions
from store.machine.state import Client, Result, State
from store.operations import CloseClient, ConnectClient


def connect(state: State, operation: ConnectClient) -> Result:
    """Register a client; refused while one of that id is registered."""
    if operation.client_id in state.clients:
        return refusals.DUPLICATE_CLIENT_ID
    client = Client(
        client_id=operation.client_id,
        conn_id=operation.conn_id,
        heartbeat_inbox=operation.heartbeat_inbox,
        protocol=operation.protocol,
        ping_interval_s=operation.ping_interval_s,
        ping_max_out=operation.ping_max_out,
        number=state.next_client_number,
    )
    state.next_client_number += 1
    state.clients[client.client_id] = client
    if client.conn_id:  # clients of protocol 0 have none (B45)
        state.clients_by_conn_id[client.conn_id] = client
    state.changes.clients[client.number] = client
    state.changes.is_cluster_changed = True
    return None


def close(state: State, operation: CloseClient) -> Result:
    """End a client: plain subscriptions go, durables go offline (B345, B350)."""
    client = state.clients.get(operation.client_id)
    if client is None:
        return refusals.UNKNOWN_CLIENT_ID
    for subscription_id in list(client.subscription_ids):
        subscriptions.end(state, state.subscriptions[subscription_id])
    del state.clients[client.client_id]
    if state.clients_by_conn_id.get(client.conn_id) is client:  # a later client may have sent the same (B46)
        del state.clients_by_conn_id[client.conn_id]
    state.changes.clients[client.number] = None
    return None
