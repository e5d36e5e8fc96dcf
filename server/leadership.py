"""What a node does while it leads: built when leadership begins, dropped when it ends, many times in one process.

Begin: write what the log must know first (identity, limits, what may have been sent), rebuild the volatile state from the
store, look for a second server, open the subjects last (B134). End, at any moment: stop listening and timers first (B396),
drop what was to be sent, then refuse what is open (B400, B402). Core, connection, outbox and store live on; `end` leaves
nothing of this leadership in them (B395). Held, while another node may lead: silent, and nothing is read (B401).
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from raft.proposals import Outcome
from server import hot, trace, windows
from server.config.model import Options
from server.delivery.engine import Engine
from server.delivery.stream import Context
from server.delivery.turns import Turns
from server.delivery.watchdog import Watchdog
from server.delivery_port import DeliveryPort
from server.errors import NatsUnavailableError, RequestError
from server.expiry.limit_warnings import LimitWarnings
from server.expiry.sweeper import Sweeper
from server.frontend.channels import Channels
from server.frontend.clients import Clients
from server.frontend.publish import PublishGate
from server.frontend.subscriptions import Subscriptions
from server.lease_gate import LeaseGate
from server.nats.connection import NatsConnection
from server.nats.requests import Requests
from server.outbox import Outbox
from server.proposals.proposer import MESSAGE_MAX_BYTES, AppliedBatch, Proposer
from server.protocol import responses
from server.protocol.stan_pb2 import PubMsg
from server.protocol.subjects import Subjects
from server.sessions.heartbeat import Heartbeats
from server.sessions.prober import Prober
from server.sessions.second_server import refuse_second_server
from server.tokens import new_token
from server.trace import Trace
from store.constants import SEND_AHEAD_MAX
from store.machine.state import Refusal, Result
from store.operations import BeginLeadership, CleanStop, InitCluster, Operation, SetLimits
from store.store import Store

logger = logging.getLogger(__name__)

SECOND_SERVER_PROBE_S: Final = 0.25
"""How long another server with our cluster id has to answer, seconds. Source: B146."""

FILE_MESSAGE_OVERHEAD: Final = 40
"""Bytes that max_bytes counts per message beside its encoding with the FILE store. Source: O511."""


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Ports:
    """What leadership needs of the node around it."""

    options: Options
    core: hot.Core
    store: Store
    connection: NatsConnection
    outbox: Outbox
    loop: asyncio.AbstractEventLoop
    propose: Callable[[Sequence[bytes], Callable[[Outcome], None]], int]
    wall_ns: Callable[[], int]
    monotonic_ns: Callable[[], int]
    on_fatal: Callable[[BaseException], None]
    on_unreadable: Callable[[], None]
    """A message cannot be read: told with every attempt (B238)."""
    is_disk_low: bool = False
    limit_warnings: LimitWarnings = field(default_factory=LimitWarnings)
    """Once per run, whoever leads in between (O215)."""
    is_clustered: bool = False
    """Other nodes have our cluster id, too: no second server is looked for (B146)."""
    is_confirmed: Callable[[], bool] = _always
    """Whether it is certain now that no other node leads (B401). Asked once in every turn of the loop: must be cheap."""


class Leadership:
    """All roles of one leadership, wired. Rules live in the roles."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        options, store, loop = ports.options, ports.store, ports.loop
        self._subjects = Subjects(options.cluster_id, options.discover_prefix)
        self._sids: list[int] = []
        self._handlers: dict[int, Callable[[hot.Message], None]] = {}
        self.is_serving = False
        self._is_over = False
        self._beginning: asyncio.Task[None] | None = None
        """The task that runs `begin`."""
        self._connected = asyncio.Event()
        self._has_room = True
        self._is_reading = True
        self._unspoken: list[bytes] = []
        """Frames that met the hold; they leave when it ends."""
        self._unheard: list[hot.Message] = []
        """Requests that met the hold; they are handled when it ends."""
        leaving: set[str] = set()
        self.lease = LeaseGate(ports.is_confirmed, loop, self._held, self._released)
        self.core = ports.core
        self.core.reset_leadership(self._admit, self._handle)
        newest_ns = max((one.last_timestamp_ns for one in store.state.channels.values()), default=0)
        self.core.last_timestamp_ns = max(self.core.last_timestamp_ns, newest_ns)
        self.requests = Requests(ports.outbox, loop, self.lease.confirm)
        self.proposer = Proposer(
            core=self.core,
            loop=loop,
            propose=ports.propose,
            pending_bytes=lambda: store.pending_bytes,
            take_progress=lambda: self.engine.take_progress(),  # noqa: PLW0108  the engine is built later
            wall_ns=ports.wall_ns,
            on_applied=self._applied,
            on_refused=self._refused,
            on_lost=self.end,
            on_fatal=ports.on_fatal,
            set_reading=self._set_reading,
            confirm=self.lease.confirm,
        )
        self.prober = Prober(
            heartbeats=Heartbeats(options.hb_interval_ns, options.hb_fail_count),
            state=store.state,
            requests=self.requests,
            loop=loop,
            monotonic_ns=ports.monotonic_ns,
            timeout_s=options.hb_timeout_ns / 1e9,
            on_timed_out=lambda client_id: self.clients.timed_out(client_id),  # noqa: PLW0108  built later
            confirm=self.lease.confirm,
        )
        port = DeliveryPort(ports.connection, ports.outbox, self.proposer, self.lease, self.prober.is_failing)
        self.delivery = Context(
            store=store,
            port=port,
            turns=Turns(port, loop, ports.monotonic_ns),
            monotonic_ns=ports.monotonic_ns,
            wall_ns=ports.wall_ns,
            max_payload=ports.connection.max_payload,
            on_unreadable=ports.on_unreadable,
        )
        self.engine = Engine(self.delivery, self.core)
        self.watchdog = Watchdog(self.engine, loop)
        self.channels = Channels(
            state=store.state,
            core=self.core,
            proposer=self.proposer,
            rules=options.limits.rules(),
            max_channels=options.limits.max_channels,
            message_overhead=FILE_MESSAGE_OVERHEAD if options.store == "FILE" else 0,
            on_kept=lambda channel_id: self.sweeper.note_activity(channel_id),  # noqa: PLW0108  built later
            on_deleted=lambda channel_id: self.sweeper.forget(channel_id),  # noqa: PLW0108  built later
            on_removed=self.engine.forget,
        )
        self.gate = PublishGate(
            store.state, self.core, self.channels, self._subjects.publish_prefix, leaving, ports.monotonic_ns
        )
        self.gate.is_disk_low = ports.is_disk_low
        self.subscriptions = Subscriptions(
            store=store,
            state=store.state,
            core=self.core,
            channels=self.channels,
            proposer=self.proposer,
            engine=self.engine,
            outbox=ports.outbox,
            wall_ns=ports.wall_ns,
            replace_durable=options.replace_durable,
            leaving=leaving,
            on_ended=lambda channel_id: self.sweeper.note_activity(channel_id),  # noqa: PLW0108  built later
        )
        self.clients = Clients(
            state=store.state,
            core=self.core,
            proposer=self.proposer,
            outbox=ports.outbox,
            requests=self.requests,
            prober=self.prober,
            subscriptions=self.subscriptions,
            subjects=self._subjects,
            leaving=leaving,
        )
        self.limit_warnings = ports.limit_warnings
        self.sweeper = Sweeper(
            store=store,
            limit_warnings=self.limit_warnings,
            proposer=self.proposer,
            loop=loop,
            wall_ns=ports.wall_ns,
            monotonic_ns=ports.monotonic_ns,
            limits_of=self.channels.limits_of,
            find=self.channels.get,
            delete=self.channels.delete,
            has_subscribers=self.subscriptions.has_online,
            confirm=self.lease.confirm,
        )
        self.trace: Trace | None = None
        if trace.is_enabled():
            self.trace = self.delivery.trace = Trace(store.state.subscriptions)
            self.core.trace(self.trace)
        self._adopt_max_payload()

    # ---- begin and end

    async def begin(self) -> None:
        """Take the role. `end` cancels it wherever it is.

        Raises:
            AnotherServerError: a second server with our cluster id answers (B146).

        """
        self._beginning = asyncio.current_task()
        try:
            await self._begin()
        finally:
            self._beginning = None

    async def _begin(self) -> None:
        self.channels.recover()
        await self._write_preamble()
        self._stop_if_over()
        self.sweeper.recover()
        await self.proposer.drain()  # nobody gets a message that expired while the server was down (B328)
        self._stop_if_over()
        self.engine.recover(
            [one for one in self._ports.store.state.subscriptions.values() if one.is_online], self.channels.by_name
        )
        self._listen(self.requests.subject, self.requests.handle)
        if not self._ports.is_clustered:
            await refuse_second_server(
                self.requests,
                self._ports.outbox,
                cluster_id=self._ports.options.cluster_id,
                connect_subject=self._subjects.connect,
                timeout_s=SECOND_SERVER_PROBE_S,
            )
            self._stop_if_over()
        self._open()
        await self._until_listening()
        self._stop_if_over()
        self.prober.recover()
        self.is_serving = True
        self.engine.resume_all()
        self.watchdog.start()

    def _stop_if_over(self) -> None:
        """The leadership may have ended while `begin` waited, or by what it did: then it must not touch anything any more."""
        if self._is_over:
            raise asyncio.CancelledError

    async def _until_listening(self) -> None:
        """Return when NATS has all our subscriptions, however often the connection is lost until then."""
        while True:
            self._connected.clear()
            try:
                await self._ports.connection.barrier()
            except NatsUnavailableError:
                await self._connected.wait()
            else:
                return

    def end(self) -> None:
        """Drop the role, at once and for good; again, it does nothing. What was proposed is answered when its outcome is told.

        Nothing but refusals leaves from here on, and answers to what was committed.
        """
        if self._is_over:
            return
        self._is_over = True
        self.is_serving = False
        if self._beginning is not None:
            self._beginning.cancel()
        self._stop_listening()
        self.lease.end()
        self.prober.stop_all()
        self.watchdog.stop()
        self.sweeper.stop()
        self.engine.stop_all()
        self.requests.cancel_all()
        self._unheard.clear()
        self._unspoken.clear()
        self._ports.outbox.take()
        self.clients.refuse_probing()
        self.proposer.stop()
        self.core.forget_lines()  # a read that is being parsed still uses them
        self.core.reset_leadership(hot.admit_nothing, hot.handle_nothing)
        self.core.observer = hot.Observer()
        self.core.is_traced = False
        self._adopt_reading()

    async def stop(self) -> None:
        """Orderly stop: take no more requests, commit what is open with the last progress, then end (O234).

        What arrives until NATS has heard that we do not listen any more is served; nothing arrives later.
        """
        self.is_serving = False
        self._stop_listening()
        with suppress(NatsUnavailableError):  # then nothing of what was sent to us can arrive any more
            await self._ports.connection.barrier()
        self.prober.pause()
        self.watchdog.stop()
        self.requests.cancel_all()
        self.clients.refuse_probing()
        self.sweeper.stop()
        await self.proposer.drain()
        for progress in self.engine.stop_all():
            self.proposer.add(progress)
        self.proposer.add(CleanStop())
        await self.proposer.drain()
        if self._is_over:  # while it waited; then nothing of the above did anything
            return
        self.prober.stop_all()
        self.proposer.stop()
        self._ports.outbox.flush()

    # ---- silence

    def hold(self) -> None:
        """It is not certain any more that no other node leads: be silent, and read nothing (B401)."""
        self.lease.hold()

    def release(self) -> None:
        """It is certain again."""
        self.lease.release()

    def _held(self) -> None:
        """From here on delivery finds its port closed, timers that ask are told no, and what was about to leave waits."""
        self._unspoken += self._ports.outbox.take()
        self.proposer.hold()
        self._adopt_reading()

    def _released(self) -> None:
        """Go on with what was kept back, in its order, then with all that waits."""
        self._adopt_reading()
        self.proposer.release()
        self.prober.release()
        self.requests.release()
        self.sweeper.release()
        self._ports.outbox.parts += self._unspoken
        self._unspoken = []
        unheard, self._unheard = self._unheard, []
        for message in unheard:
            self._handle(message)
        self.take_turn()
        if self.is_serving:
            self.engine.resume_all()

    # ---- turns of the loop

    def take_turn(self) -> None:
        """One socket read was parsed and its requests handled: send into the room that acks made, seal, one write."""
        if not self.lease.confirm():
            return
        core = self.core
        if core.replies:
            self._ports.outbox.parts += core.replies
            core.replies = []
        if core.touched:
            self.engine.take_acks(core.touched)
        self.proposer.kick()
        if self.engine.has_progress:
            self.proposer.want_progress()
        self.lease.confirm()  # again: proposing may have taken long, and what was decided before must not leave late
        self._ports.outbox.flush()
        self.proposer.hold_reading()
        self.proposer.note_turn()

    def _handle(self, message: hot.Message) -> None:
        """One request. A bug in its handler ends the request, not the node: it must not be a way to stop us."""
        handler = self._handlers.get(message.sid)
        if handler is None:
            return
        if not self.lease.confirm():
            self._unheard.append(message)
            return
        try:
            handler(message)
        except Exception:
            logger.exception("request failed: subject=%s size=%d", message.subject, len(message.payload))

    def on_connected(self) -> None:
        """NATS is back: what waits is sent."""
        self._connected.set()
        self._adopt_max_payload()
        if self.is_serving:
            self.engine.resume_all()

    def _adopt_max_payload(self) -> None:
        """What NATS allows is accepted from publishers, if it fits into an entry."""
        self.delivery.max_payload = self._ports.connection.max_payload
        self.core.max_payload = min(self._ports.connection.max_payload, MESSAGE_MAX_BYTES)

    def on_writable(self) -> None:
        """The connection's buffer has room again."""
        if self.is_serving:
            self.engine.resume_all()

    def on_durable(self) -> None:
        """LMDB caught up: proposals may go on."""
        self.proposer.kick()

    def set_disk_low(self, *, is_low: bool) -> None:
        """Refuse publishes while the disk is nearly full; acks, deletes and closes go on."""
        if is_low != self.gate.is_disk_low:
            self.gate.is_disk_low = is_low
            self.core.forget_lines()

    # ---- parts of begin

    async def _write_preamble(self) -> None:
        """First entry of a leadership: what every node must know before anything else happens in it."""
        state = self._ports.store.state
        operations: list[Operation] = []
        if not state.cluster_id:
            operations.append(InitCluster(self._ports.options.cluster_id, new_token()))
        operations.append(BeginLeadership(SEND_AHEAD_MAX))
        for channel in state.channels.values():
            limits = self.channels.stored_limits(channel.name)
            if channel.limits != limits:
                operations.append(SetLimits(channel.channel_id, limits))
        applied: asyncio.Future[None] = self._ports.loop.create_future()

        def done(result: Result) -> None:
            if applied.done():
                return  # cancelled: the node stops, or leads no more
            if isinstance(result, Refusal):
                applied.set_exception(RequestError(result.text, field="preamble", value=operations[0]))
            else:
                applied.set_result(None)

        for operation in operations[:-1]:
            self.proposer.add(operation)
        self.proposer.add(operations[-1], done)
        await applied
        self.subscriptions.ack_inbox_prefix = f"_INBOX.{state.ack_inbox_token}"

    def _open(self) -> None:
        """Listen to acks, then to clients (B80, B134)."""
        subjects = self._subjects
        self.core.ack_sid = self._subscribe(f"{self.subscriptions.ack_inbox_prefix}.*")
        self.core.publish_sid = self._subscribe(subjects.publish)
        self._listen(subjects.subscribe, self.subscriptions.subscribe)
        self._listen(subjects.unsubscribe, self.subscriptions.unsubscribe)
        self._listen(subjects.close_subscription, self.subscriptions.close)
        self._listen(subjects.close, self.clients.close)
        self._listen(subjects.ping, self.clients.ping)
        self._listen(subjects.connect, self.clients.connect)
        logger.debug("Discover subject: %s", subjects.connect)
        logger.debug("Publish subject: %s", subjects.publish)
        logger.debug("Subscribe subject: %s", subjects.subscribe)
        logger.debug("Subscription Close subject: %s", subjects.close_subscription)
        logger.debug("Unsubscribe subject: %s", subjects.unsubscribe)
        logger.debug("Close subject: %s", subjects.close)

    def _listen(self, subject: str, handler: Callable[[hot.Message], None]) -> None:
        self._handlers[self._subscribe(subject)] = handler

    def _subscribe(self, subject: str) -> int:
        sid = self._ports.connection.subscribe(subject)
        self._sids.append(sid)
        return sid

    def _stop_listening(self) -> None:
        for sid in self._sids:
            self._ports.connection.unsubscribe(sid)
        self._sids.clear()

    # ---- callbacks between roles

    def _admit(self, message: PubMsg, subject: bytes) -> windows.Channel:
        return self.gate.admit(message, subject)

    def _applied(self, batch: AppliedBatch) -> None:
        """An entry is applied: deliver, then acknowledge (B212), in one write."""
        for channel in batch.channels:
            self.engine.deliver_channel(channel.channel_id)
            self.sweeper.note_messages(channel.channel_id)
            self._warn_of_limits(channel.channel_id)
        if batch.progress:
            self.engine.progress_applied(batch.progress)
        if self.engine.has_progress:
            self.proposer.want_progress()
        if self.trace is not None:
            self.trace.acknowledged(batch.acks)
        self._ports.outbox.parts += batch.acks
        self._ports.outbox.flush()
        self.proposer.hold_reading()

    def _warn_of_limits(self, channel_id: int) -> None:
        record = self._ports.store.state.channels_by_id.get(channel_id)
        warning = self.limit_warnings.appended(record) if record is not None else None
        if warning is not None:
            logger.warning("%s", warning)

    def _refused(self, acks: list[bytes], text: str) -> None:
        """Leadership ended: these publishes were not proposed, or nobody knows whether they are in the log (B400, B402)."""
        outbox = self._ports.outbox
        outbox.parts += responses.refused_pub_acks(acks, text, self._ports.connection.max_payload)
        outbox.flush()

    def _set_reading(self, wanted: bool) -> None:
        self._has_room = wanted
        self._adopt_reading()

    def _adopt_reading(self) -> None:
        """Read from NATS while the open batch has room and this node may speak; who comes after us finds it reading."""
        wanted = self._is_over or (self._has_room and self.lease.is_open)
        if wanted == self._is_reading:
            return
        self._is_reading = wanted
        if wanted:
            self._ports.connection.resume_reading()
        else:
            self._ports.connection.pause_reading()
