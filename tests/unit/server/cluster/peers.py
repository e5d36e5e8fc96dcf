"""A node of a cluster without clients: its data, its Raft member and everything of server/cluster, as server/app.py builds them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from raft.membership import Member
from raft.node import NodeEvents, RaftNode
from server.cluster.connection import RaftConnection
from server.cluster.node import ClusterNode
from server.cluster.subjects import RaftSubjects
from server.config.cluster import ClusterOptions
from server.config.model import Options
from server.data import Data, open_data
from server.nats.address import Login
from server.nats.dial import Security

DEADLINE_S = 20.0
SECURITY = Security(login=Login(user=None, password="", token=None))


class Peer:
    """One node; use as an async context manager. `fatal` gets what would have ended the process."""

    def __init__(self, url: str, home: Path, node_id: str, cluster_id: str, cluster: ClusterOptions) -> None:
        self.node_id = node_id
        self.fatal: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self.leads = False
        self.changed = asyncio.Event()
        self._url = url
        self._options = Options(
            cluster_id=cluster_id,
            store="FILE",
            dir=str(home / node_id / "data"),
            cluster=cluster.model_copy(update={"node_id": node_id, "log_path": str(home / node_id / "log")}),
        )
        self._data: Data | None = None
        self._cluster: ClusterNode | None = None
        self._raft: RaftNode | None = None

    @property
    def raft(self) -> RaftNode:
        """The member."""
        assert self._raft is not None
        return self._raft

    @property
    def members(self) -> tuple[str, ...]:
        """Whom it knows as members."""
        configuration = self.raft.configuration
        return () if configuration is None else configuration.node_ids

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        options = self._options.cluster
        assert options is not None
        self._data = data = open_data(self._options, loop=loop, on_durable=self._durable, on_fatal=self._failed)
        self._cluster = cluster = ClusterNode(
            options,
            cluster_id=self._options.cluster_id,
            server_id=f"ID{self.node_id}",
            data=data,
            servers=(self._url,),
            security=SECURITY,
            follows_announced=True,
            loop=loop,
            on_fatal=self._failed,
            on_closed=lambda _reason: None,
        )
        await cluster.connect()
        self._raft = RaftNode(
            member=Member(data.node_id, data.incarnation),
            log=data.log,
            writer=data.writer,
            state_machine=data.store,
            events=NodeEvents(
                leading=self._leading, lost=self._lost, fatal=self._failed, link_changed=cluster.link_changed
            ),
            network=cluster.network,
            snapshots=cluster.snapshots,
            timing=options.timing(),
        )
        self._raft.start()
        cluster.start(self._raft)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._cluster is not None
        assert self._data is not None
        await self._cluster.stop()
        await self.raft.close()
        await self._cluster.close()
        self._data.close()
        if self.fatal.done():
            self.fatal.exception()

    def _leading(self, _term: int) -> None:
        assert self._cluster is not None
        self.leads = True
        self._cluster.leading()

    def _lost(self) -> None:
        assert self._cluster is not None
        self.leads = False
        self._cluster.lost()

    def _failed(self, error: BaseException) -> None:
        if not self.fatal.done():
            self.fatal.set_result(error)

    def _durable(self, index: int) -> None:
        if self._raft is not None:
            self._raft.trim(index)


@asynccontextmanager
async def connected(
    url: str,
    cluster_id: str,
    node_id: str = "n",
    *,
    on_payloads: Callable[[list[bytes]], None] = lambda _payloads: None,
    on_restart: Callable[[], None] = lambda: None,
) -> AsyncIterator[RaftConnection]:
    """The connection of a node, whose subscriptions are known to NATS; closed at the end."""
    connection = RaftConnection(
        subjects=RaftSubjects(cluster_id),
        node_id=node_id,
        servers=(url,),
        security=SECURITY,
        follows_announced=True,
        on_payloads=on_payloads,
        on_restart=on_restart,
        on_closed=lambda _reason: None,
    )
    await connection.connect()
    try:
        await barrier(connection)
        yield connection
    finally:
        await connection.close()


async def barrier(connection: RaftConnection) -> None:
    """Return when NATS has handled all that was sent over `connection`."""
    await connection.request(f"nobody.{connection.subjects.cluster_id}", b"", DEADLINE_S)


async def one_turn() -> None:
    """Let the loop do one turn."""
    await asyncio.sleep(0)


async def until(condition: Callable[[], object], step: Callable[[], Awaitable[object]] = one_turn) -> None:
    """Return when `condition` holds; between two looks `step` is awaited. Raises TimeoutError."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await step()
