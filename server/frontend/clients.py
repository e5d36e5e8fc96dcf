"""Connect, close and ping requests (B40 to B77, B105), and the end of a client in general (B345)."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from google.protobuf.message import DecodeError

from server import hot
from server.frontend.subscriptions import Subscriptions
from server.nats.requests import Requests
from server.outbox import Outbox
from server.proposals.proposer import Proposer
from server.protocol import names, responses
from server.protocol.stan_pb2 import (
    CloseRequest,
    CloseResponse,
    ConnectRequest,
    ConnectResponse,
    Ping,
    PingResponse,
)
from server.protocol.subjects import Subjects
from server.sessions.prober import Prober
from store.machine.state import Client, Refusal, Result, State
from store.operations import CloseClient, ConnectClient

logger = logging.getLogger(__name__)

DUPLICATE_PROBE_S: Final = 0.5
"""How long the old owner of a client id has to answer, seconds. Source: B50."""

SERVER_PROTOCOL: Final = 1
"""Protocol version in every ConnectResponse. Source: B21."""


@dataclass(slots=True)
class Clients:
    """Who is connecting and leaving; the registered ones are in the store."""

    state: State
    core: hot.Core
    proposer: Proposer
    outbox: Outbox
    requests: Requests
    prober: Prober
    subscriptions: Subscriptions
    subjects: Subjects
    leaving: set[str]
    connecting: set[str] = field(default_factory=set)
    _probing: dict[str, bytes] = field(default_factory=dict)
    """Reply subjects of those of them that wait for the old owner's answer, by client id."""

    def connect(self, message: hot.Message) -> None:
        """Checks of B40, then registration; a client id in use is probed first (B50)."""
        reply = message.reply
        try:
            request = ConnectRequest.FromString(message.payload)
        except DecodeError:
            self._refuse_connect(reply, responses.INVALID_CONNECT)
            return
        client_id = request.clientID
        if not request.heartbeatInbox or not names.is_inbox(request.heartbeatInbox):
            self._refuse_connect(reply, responses.INVALID_CONNECT)
        elif not names.is_client_id(client_id):
            self._refuse_connect(reply, responses.INVALID_CLIENT_ID)
        elif client_id in self.connecting:
            self._refuse_connect(reply, responses.DUPLICATE_CLIENT_ID)
        else:
            self.connecting.add(client_id)
            client = self.state.clients.get(client_id)
            if client is None or client_id in self.leaving:
                self._register(request, reply)
            else:
                self._probing[client_id] = reply
                self.requests.send(
                    client.heartbeat_inbox,
                    b"",
                    DUPLICATE_PROBE_S,
                    lambda answer: self._probed(client, request, reply, is_answered=answer is not None),
                )

    def close(self, message: hot.Message) -> None:
        """Close request (B105): the client is named by its id only (B55)."""
        reply = message.reply
        try:
            client_id = CloseRequest.FromString(message.payload).clientID
        except DecodeError:
            self._answer_close(reply, responses.INVALID_CLOSE)
            return
        if client_id not in self.state.clients or client_id in self.leaving:
            self._answer_close(reply, responses.UNKNOWN_CLIENT_ID)
            return
        self.end(
            client_id, lambda result: self._answer_close(reply, result.text if isinstance(result, Refusal) else "")
        )

    def ping(self, message: hot.Message) -> None:
        """Ping (B70 to B75): a look-up, answered at once."""
        try:
            conn_id = Ping.FromString(message.payload).connID
        except DecodeError:
            return
        if not conn_id:
            return
        client = self.state.clients_by_conn_id.get(conn_id)
        if client is None or client.client_id in self.leaving:
            error = PingResponse(error=responses.CLIENT_REPLACED)
            self.outbox.send(message.reply, error.SerializeToString())
            return
        self.outbox.send(message.reply, b"")
        self.prober.hasten(client.client_id)

    def end(self, client_id: str, done: Callable[[Result], None]) -> None:
        """Close request, timeout or replacement: unregister first, then close all subscriptions (B345)."""
        client = self.state.clients[client_id]
        self.leaving.add(client_id)
        self.core.forget_lines()
        self.prober.stop(client_id)
        stopped = self.subscriptions.stop_all_of(client)

        def applied(result: Result) -> None:
            self.leaving.discard(client_id)
            self.subscriptions.forget_stopped(stopped)
            if not isinstance(result, Refusal):
                logger.debug("[Client:%s] Closed (Inbox=%s)", client_id, client.heartbeat_inbox)
            done(result)

        self.proposer.add(CloseClient(client_id), applied)

    def refuse_probing(self) -> None:
        """Leadership ends, and so do the probes: the connects that wait for them are not proposed (B400)."""
        for reply in self._probing.values():
            self._refuse_connect(reply, responses.NOT_LEADER)
        self._probing.clear()

    def timed_out(self, client_id: str) -> None:
        """The client failed too many heartbeats in a row (B341)."""
        if client_id in self.leaving or client_id not in self.state.clients:
            return
        logger.error("[Client:%s] Timed out on heartbeats", client_id)
        self.end(client_id, lambda _result: None)

    def _probed(self, old: Client, request: ConnectRequest, reply: bytes, *, is_answered: bool) -> None:
        """The old owner answered, or not within the time (B50)."""
        del self._probing[old.client_id]
        if is_answered:
            self.connecting.discard(request.clientID)
            logger.debug("[Client:%s] Connect failed; already connected", request.clientID)
            self._refuse_connect(reply, responses.DUPLICATE_CLIENT_ID)
            return
        if self.state.clients.get(old.client_id) is old and old.client_id not in self.leaving:
            logger.debug("[Client:%s] Replaced old client (Inbox=%s)", old.client_id, old.heartbeat_inbox)
            self.end(old.client_id, lambda _result: None)
        self._register(request, reply)

    def _register(self, request: ConnectRequest, reply: bytes) -> None:
        operation = ConnectClient(
            client_id=request.clientID,
            conn_id=request.connID,
            heartbeat_inbox=request.heartbeatInbox,
            protocol=request.protocol,
            ping_interval_s=request.pingInterval,
            ping_max_out=request.pingMaxOut,
        )
        self.proposer.add(operation, lambda result: self._registered(request, reply, result))

    def _registered(self, request: ConnectRequest, reply: bytes, result: Result) -> None:
        """The client is in the store: answer (B42, B43)."""
        self.connecting.discard(request.clientID)
        self.core.forget_lines()
        if isinstance(result, Refusal):
            self._refuse_connect(reply, result.text)
            return
        if request.clientID in self.state.clients:  # else closed by a later operation of the same entry
            self.prober.start(request.clientID)
        logger.debug("[Client:%s] Connected (Inbox=%s)", request.clientID, request.heartbeatInbox)
        subjects = self.subjects
        response = ConnectResponse(
            pubPrefix=subjects.publish_prefix,
            subRequests=subjects.subscribe,
            unsubRequests=subjects.unsubscribe,
            closeRequests=subjects.close,
            subCloseRequests=subjects.close_subscription,
            protocol=SERVER_PROTOCOL,
        )
        if request.protocol >= 1:
            response.pingRequests = subjects.ping
            response.pingInterval = request.pingInterval
            response.pingMaxOut = request.pingMaxOut
        self.outbox.send(reply, response.SerializeToString())

    def _refuse_connect(self, reply: bytes, text: str) -> None:
        self.outbox.send(reply, ConnectResponse(error=text).SerializeToString())

    def _answer_close(self, reply: bytes, text: str) -> None:
        self.outbox.send(reply, CloseResponse(error=text).SerializeToString())
