"""Everything that a server has only in a cluster, put together: connection, snapshots, founding, requests about members."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from raft.neighbours import Network
from raft.node import RaftNode
from raft.snapshot.exchange import SnapshotPorts
from server.clock import now_ns
from server.cluster.bootstrap import BootstrapProbe
from server.cluster.connection import RaftConnection
from server.cluster.founding import Founding
from server.cluster.members import MemberRequests
from server.cluster.snapshots import Snapshots
from server.cluster.subjects import RaftSubjects
from server.config.cluster import ClusterOptions
from server.data import Data
from server.nats.dial import Security

logger = logging.getLogger(__name__)


class ClusterNode:
    """Built before the Raft node, which it then surrounds: `network` and `snapshots` go into that, `start` follows."""

    def __init__(  # noqa: PLR0913  # the composition root names what it passes
        self,
        options: ClusterOptions,
        *,
        cluster_id: str,
        server_id: str,
        data: Data,
        servers: tuple[str, ...],
        security: Security,
        follows_announced: bool,
        loop: asyncio.AbstractEventLoop,
        on_fatal: Callable[[BaseException], None],
        on_closed: Callable[[str], None],
    ) -> None:
        assert data.directory is not None
        self._options = options
        self._data = data
        self._loop = loop
        self._on_fatal = on_fatal
        self._node: RaftNode | None = None
        self._founding: Founding | None = None
        self._task: asyncio.Task[None] | None = None
        self._members: MemberRequests | None = None
        self._last_session = 0
        self._snapshots = Snapshots(data.store, data.directory, loop)
        self._connection = RaftConnection(
            subjects=RaftSubjects(cluster_id),
            node_id=data.node_id,
            servers=servers,
            security=security,
            follows_announced=follows_announced,
            on_payloads=self._received,
            on_restart=self._restarted,
            on_closed=on_closed,
        )
        self._probe = BootstrapProbe(self._connection, server_id, loop, on_fatal)
        secret = options.secret.get_secret_value()
        self.network = Network(
            cluster_id=cluster_id,
            secret=secret.encode() if secret else None,
            carrier=self._connection,
            new_session=self._new_session,
            flush=self._connection.flush,
        )

    @property
    def snapshots(self) -> SnapshotPorts:
        """How the Raft node makes and gets copies of the store."""
        return self._snapshots.ports()

    async def connect(self) -> None:
        """Connect; raises NatsUnavailableError."""
        await self._connection.connect()

    def start(self, node: RaftNode) -> None:
        """`node` has just been started: get it into its cluster."""
        self._node = node
        self._members = MemberRequests(self._connection, node, allows_changes=self._options.allow_add_remove_node)
        if self._options.bootstrap and not self._options.peers:
            self._probe.start()
        self._founding = Founding(node, self._connection)
        self._task = self._loop.create_task(self._found(self._founding))

    def leading(self) -> None:
        """This node leads: it answers requests about members."""
        if self._members is not None:
            self._members.open()

    def lost(self) -> None:
        """It leads no more."""
        if self._members is not None:
            self._members.close()

    def link_changed(self) -> None:
        """Another node came, went or said something new."""
        if self._founding is not None:
            self._founding.changed()

    async def stop(self) -> None:
        """End what runs beside Raft."""
        self._probe.stop()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def close(self) -> None:
        """Raft is closed: end the connection, and wait for copies of the store that are under way."""
        await self._connection.close()
        self._snapshots.close()

    async def _found(self, founding: Founding) -> None:
        assert self._node is not None
        try:
            await founding.run(
                peers=self._options.peers, bootstrap=self._options.bootstrap, has_joined=self._data.has_joined
            )
            if founding.is_member:
                self._data.note_joined()
        except Exception as error:  # noqa: BLE001  the top of the task: the node ends, with the reason
            self._on_fatal(error)

    def _received(self, payloads: list[bytes]) -> None:
        if self._node is not None:
            self._node.receive(payloads)

    def _restarted(self) -> None:
        if self._node is not None:
            self._node.link_restarted()

    def _new_session(self) -> int:
        self._last_session = max(self._last_session + 1, now_ns())
        return self._last_session
