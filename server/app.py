"""Composition root: builds the node, starts its parts in order, stops them in reverse. No rules."""

import asyncio
import gc
import logging
import secrets
from typing import Any, Final

from raft.errors import RaftError
from raft.membership import GENESIS_BYTES, Configuration, Member
from raft.node import NodeEvents, RaftNode
from raft.trailing import TrailingBounds
from server import hot, logs, signals
from server.cli import banner
from server.clock import SystemClock
from server.cluster.giving_way import HAND_OVER_MAX_S, GivingWay
from server.cluster.node import ClusterNode
from server.config.cluster import ClusterOptions
from server.config.model import Options
from server.data import Data, open_data
from server.disk_watch import DiskWatch
from server.errors import NatsUnavailableError, ServerError
from server.expiry.limit_warnings import LimitWarnings
from server.leadership import Leadership, Ports
from server.nats.address import Login
from server.nats.connection import DEFAULT_MAX_PAYLOAD, NatsConnection
from server.nats.dial import Security
from server.natsd import binary
from server.natsd.command import ChildConfig, Routing
from server.natsd.supervisor import Supervisor
from server.outbox import Outbox
from server.tokens import new_token
from server.version import COMMIT
from store.errors import StoreError

logger = logging.getLogger(__name__)

EXIT_FATAL: Final = 1
"""Exit status after a fatal error. Source: O196, O233."""

COLLECTOR_THRESHOLDS: Final = (50_000, 20, 100)
"""Of the garbage collector: what we hold has hardly any cycles, and a full collection takes 0.2 s with 100,000 subscriptions."""

STOP_MAX_S: Final = 10.0
"""Bound of the orderly end of the leadership, seconds: a NATS server or disk that hangs must not keep the process."""

STOP_CLUSTERED_MAX_S: Final = 3.0
"""The same in a cluster, where the other nodes may be stopping, too, and nothing can be committed any more."""


async def run(options: Options) -> int:
    """Serve until a signal or a fatal error; returns the exit status."""
    node = Node(options, asyncio.get_running_loop())
    try:
        await node.start()
        status = await node.ended
    finally:
        await node.stop()
    return EXIT_FATAL if node.is_fatal else status  # what fails while stopping counts as well


class Node:
    """One server process. Parts start in the order of `start` and stop in reverse."""

    def __init__(self, options: Options, loop: asyncio.AbstractEventLoop) -> None:
        self._options = options
        self._loop = loop
        self._clock = SystemClock()
        self.ended: asyncio.Future[int] = loop.create_future()
        """Exit status, set by the first signal or fatal error."""
        self.is_fatal = False
        self._is_stopping = False
        self._begun: asyncio.Future[None] = loop.create_future()
        """The first leadership has begun, or could not; in a cluster, this node takes part."""
        self._core = hot.Core(hot.admit_nothing, hot.handle_nothing, DEFAULT_MAX_PAYLOAD)
        self._leadership: Leadership | None = None
        self._leading: asyncio.Task[None] | None = None
        self._data: Data | None = None
        self._child: Supervisor | None = None
        self._connection: NatsConnection | None = None
        self._outbox: Outbox | None = None
        self._raft: RaftNode | None = None
        self._cluster: ClusterNode | None = None
        self._giving_way: GivingWay | None = None
        self._server_id = new_token()
        self._limit_warnings = LimitWarnings()
        self._disk_watch: DiskWatch | None = None

    async def start(self) -> None:
        """Returns when clients are served, in a cluster when this node takes part (O424), or when the process is to end.

        Raises what keeps it from starting (O255).
        """
        signals.install(self._loop, self._stop_with, logs.reopen)
        for line in banner.opening_lines(self._options.cluster_id, self._server_id, COMMIT):
            logger.info("%s", line)
        urls = await self._start_nats()
        logger.info("%s", banner.RECOVERING_LINE)
        gc.set_threshold(*COLLECTOR_THRESHOLDS)
        self._data = data = open_data(self._options, loop=self._loop, on_durable=self._durable, on_fatal=self._fail_all)
        gc.freeze()  # what was recovered stays
        logger.info("%s", banner.recovered_line(data.recovered_channels))
        for line in (*_cluster_lines(self._options, data), *banner.store_lines(self._options)):
            logger.info("%s", line)
        security = Security(login=_login(self._options))
        self._connection = connection = NatsConnection(
            name=f"_NSS-{self._options.cluster_id}-general",
            servers=urls,
            on_data=self._received,
            on_connected=self._connected,
            on_disconnected=lambda _reason: None,
            on_closed=self._connection_closed,
            on_writable=self._writable,
            security=security,
            follows_announced=self._child is None,
        )
        self._outbox = Outbox(connection.write, self._loop)
        await connection.connect()
        if data.directory is not None:
            self._disk_watch = DiskWatch(str(data.directory), self._loop, self._disk_changed)
            self._disk_watch.start()
        if self._options.cluster is None:
            self._start_alone(data)
            first: list[asyncio.Future[Any]] = [self._begun, self.ended]
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if self._begun.done():
                self._begun.result()
        else:
            await self._start_clustered(data, self._options.cluster, urls, security)

    def _start_alone(self, data: Data) -> None:
        """A cluster of one that nobody else can join."""
        self._raft = raft = self._build_raft(data)
        if raft.is_new:
            raft.form(Configuration.of(secrets.token_bytes(GENESIS_BYTES), [raft.member]))
        else:
            raft.start()

    async def _start_clustered(
        self, data: Data, options: ClusterOptions, urls: tuple[str, ...], security: Security
    ) -> None:
        self._cluster = cluster = ClusterNode(
            options,
            cluster_id=self._options.cluster_id,
            server_id=self._server_id,
            data=data,
            servers=urls,
            security=security,
            follows_announced=self._child is None,
            loop=self._loop,
            on_fatal=self.fail,
            on_closed=self._connection_closed,
        )
        await cluster.connect()
        self._raft = raft = self._build_raft(data, cluster)
        self._giving_way = GivingWay(raft, self._loop, end_leadership=self._end_leadership, on_fatal=self.fail)
        raft.start()
        cluster.start(raft)
        self._begun.set_result(None)  # nobody waits for it to lead: that it cannot is fatal (O424)

    def _build_raft(self, data: Data, cluster: ClusterNode | None = None) -> RaftNode:
        options = self._options.cluster
        return RaftNode(
            member=Member(data.node_id, data.incarnation),
            log=data.log,
            writer=data.writer,
            state_machine=data.store,
            events=NodeEvents(
                leading=self._lead,
                lost=self._lose,
                fatal=self.fail,
                held=self._hold,
                released=self._release,
                removed=lambda: self._stop_with(0),
                link_changed=(lambda: None) if cluster is None else cluster.link_changed,
            ),
            network=None if cluster is None else cluster.network,
            snapshots=None if cluster is None else cluster.snapshots,
            trailing=None if options is None else TrailingBounds(entries_max=options.trailing_logs),
            timing=None if options is None else options.timing(),
        )

    async def stop(self) -> None:
        """End in order (O234); after a fatal error nothing is written any more."""
        self._is_stopping = True
        if not self.is_fatal and self._begun.done() and self._begun.exception() is None:
            logger.info("Shutting down.")  # a fatal error is the last word (O196)
        if self._disk_watch is not None:
            self._disk_watch.stop()
        if self._giving_way is not None:
            await self._giving_way.stop()
        await self._end_leadership()
        await self._stop_raft()
        if self._data is not None:
            self._close_data(self._data)
        if self._connection is not None:
            await self._connection.close()
        if self._child is not None:
            await self._child.stop()

    async def _stop_raft(self) -> None:
        """Hand leadership over, then take no part any more."""
        cluster, raft = self._cluster, self._raft
        if cluster is not None:
            await cluster.stop()
        if raft is not None and not self.is_fatal:
            if cluster is not None:
                await raft.transfer(HAND_OVER_MAX_S)
            await raft.close()
        if cluster is not None:
            await cluster.close()

    def _close_data(self, data: Data) -> None:
        try:
            data.close()
        except (StoreError, RaftError) as error:
            logger.error("data could not be closed in order: %s", error)  # noqa: TRY400  the reason was told
            self.is_fatal = True

    def _fail_all(self, error: BaseException) -> None:
        """Journal or store cannot be written, or they are not what we think: nothing may be acknowledged any more."""
        if self._raft is not None:
            self._raft.fail(error)
        else:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """A fatal error: log the reason, end with status 1 (O196). Nothing acked is lost: the journal has it."""
        if not self.is_fatal:
            logger.critical(
                "%s",
                error,
                exc_info=None if isinstance(error, (OSError, ServerError, StoreError, RaftError)) else error,
            )
        self.is_fatal = True
        self._stop_with(EXIT_FATAL)

    def _stop_with(self, status: int) -> None:
        if not self.ended.done():
            self.ended.set_result(status)

    async def _end_leadership(self) -> None:
        """Finish what is under way for clients, if anything can be finished."""
        if self._leading is not None:
            self._leading.cancel()
            await asyncio.wait([self._leading])
        if self._leadership is not None and not self.is_fatal:
            await self._stop_leadership(self._leadership)

    async def _stop_leadership(self, leadership: Leadership) -> None:
        if self._raft is not None and not self._raft.is_confirmed:
            leadership.end()  # nothing can be committed
            return
        try:
            async with asyncio.timeout(STOP_MAX_S if self._cluster is None else STOP_CLUSTERED_MAX_S):
                await leadership.stop()
        except (TimeoutError, NatsUnavailableError) as error:
            logger.warning("the leadership did not end in order: %r", error)
            leadership.end()

    # ---- NATS

    async def _start_nats(self) -> tuple[str, ...]:
        """The child, unless an external server is given; returns the URLs to connect to."""
        if self._options.nats_urls:
            return self._options.nats_urls
        options = self._options
        config = ChildConfig(
            host=options.host,
            port=options.port,
            http_host=options.host,
            http_port=options.http_port,
            user=options.user,
            password=options.password.get_secret_value(),
            token=options.token.get_secret_value(),
            debug=options.nats_debug,
            trace=options.nats_trace,
            routing=_routing(options),
        )
        self._child = Supervisor(
            config,
            program=binary.find(options.nats_server_binary),
            on_line=logs.log_child_line,
            on_exit=lambda text: logger.error("NATS server: %s", text),
            on_fatal=self.fail,
        )
        await self._child.start()
        return (self._child.url,)

    def _received(self, data: bytes) -> None:
        """One socket read. ProtocolError goes to the connection, which is then made anew."""
        core = self._core
        core.feed(data, self._clock.now_ns())
        assert self._connection is not None
        if core.control:
            lines, core.control = core.control, []
            for line in lines:
                self._connection.on_control(line)
        if self._leadership is None:
            return
        try:
            self._leadership.take_turn()
        except Exception as error:
            logger.exception("serving failed")
            self.fail(error)

    def _connected(self) -> None:
        assert self._connection is not None
        self._core.reset_connection()
        self._core.forget_lines()
        if self._leadership is not None:
            self._leadership.on_connected()

    def _writable(self) -> None:
        if self._leadership is not None:
            self._leadership.on_writable()

    def _connection_closed(self, reason: str) -> None:
        if not self._is_stopping:
            self.fail(NatsUnavailableError(f"connection to NATS is closed for good: {reason}"))

    # ---- Raft and store

    def _lead(self, term: int) -> None:
        """Leadership begins: this node has applied everything committed before it."""
        if self._cluster is not None:
            logger.info("server became leader, performing leader promotion actions term=%d", term)
            self._cluster.leading()
        self._leading = self._loop.create_task(self._begin(term))

    async def _begin(self, term: int) -> None:
        assert self._data is not None
        assert self._connection is not None
        assert self._outbox is not None
        assert self._raft is not None
        raft = self._raft
        try:
            self._leadership = leadership = Leadership(
                Ports(
                    options=self._options,
                    core=self._core,
                    store=self._data.store,
                    connection=self._connection,
                    outbox=self._outbox,
                    loop=self._loop,
                    propose=raft.propose,
                    limit_warnings=self._limit_warnings,
                    is_clustered=self._cluster is not None,
                    is_confirmed=lambda: raft.is_confirmed,
                    wall_ns=self._clock.now_ns,
                    monotonic_ns=self._clock.monotonic_ns,
                    on_fatal=self._fail_all,
                    on_unreadable=self._unreadable,
                    is_disk_low=self._disk_watch is not None and self._disk_watch.is_low,
                )
            )
            await leadership.begin()
        except Exception as error:  # noqa: BLE001  the top of the task: the node ends, with the reason
            if self._begun.done():
                self.fail(error)
            else:
                self._begun.set_exception(error)
            return
        if not self._begun.done():
            self._begun.set_result(None)
        if self._cluster is not None:
            logger.info("finished leader promotion actions term=%d", term)
        logger.info("%s", banner.READY_LINE)

    def _lose(self) -> None:
        """Leadership is over: stop before anything else happens (B396)."""
        if self._cluster is not None:
            logger.info("server lost leadership, performing leader stepdown actions")
            self._cluster.lost()
        if self._leading is not None:
            self._leading.cancel()
        if self._leadership is not None:
            leadership, self._leadership = self._leadership, None
            leadership.end()
        if self._cluster is not None:
            logger.info("finished leader stepdown actions")

    def _hold(self) -> None:
        """No majority confirms this leader: keep silent (B401)."""
        if self._leadership is not None:
            self._leadership.hold()

    def _release(self) -> None:
        """A majority does again."""
        if self._leadership is not None:
            self._leadership.release()

    def _unreadable(self) -> None:
        """A message cannot be read here."""
        if self._giving_way is not None:
            self._giving_way.begin()

    def _durable(self, index: int) -> None:
        """The store has everything up to `index` on disk: the journal may forget it, proposals may go on."""
        if self._raft is not None:
            self._raft.trim(index)
        if self._leadership is not None:
            self._leadership.on_durable()

    def _disk_changed(self, is_low: bool, free: int) -> None:
        if is_low:
            logger.error("disk space is low, publishes are refused: directory=%s free=%d", self._options.dir, free)
        else:
            logger.info(
                "disk space is sufficient, publishes are accepted: directory=%s free=%d", self._options.dir, free
            )
        if self._leadership is not None:
            self._leadership.set_disk_low(is_low=is_low)


def _cluster_lines(options: Options, data: Data) -> list[str]:
    """Who this node is in the cluster, if it is in one (O207)."""
    if options.cluster is None or data.journal_directory is None:
        return []
    return banner.cluster_lines(options.cluster, node_id=data.node_id, log_path=data.journal_directory.parent)


def _login(options: Options) -> Login:
    """Who we are at the NATS server (O94 to O96)."""
    return Login(
        user=options.user or None,
        password=options.password.get_secret_value(),
        token=options.token.get_secret_value() or None,
    )


def _routing(options: Options) -> Routing | None:
    """How our NATS server is joined with those of other nodes; all have the cluster's id as their common name (O103)."""
    listen = options.route_listen
    if listen is None:
        return None
    return Routing(
        name=options.cluster_id,
        host=listen.host,
        port=listen.port,
        user=listen.user,
        password=listen.password.get_secret_value(),
        routes=options.routes,
    )
