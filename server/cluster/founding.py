"""Gets a node that was never part of a cluster into one: with peers, alone, or by asking a leader (O402, O403)."""

import asyncio
import logging
import secrets
from collections.abc import Sequence
from typing import Final

from google.protobuf.message import DecodeError

from raft.formation import Decision, Form, Join, Mixed, Wait, decide, peers_digest
from raft.membership import GENESIS_BYTES, Configuration
from raft.node import RaftNode
from server.cluster.cluster_pb2 import JoinRequest, JoinResponse
from server.cluster.connection import RaftConnection
from server.cluster.members import JOIN_VERSION
from server.errors import JoinError

logger = logging.getLogger(__name__)

JOIN_TRIES: Final = 5
JOIN_INTERVAL_S: Final = 1.0
"""How often, and how many seconds apart, a leader is asked. Source: O403."""

ACCEPTED_WAIT_S: Final = 5.0
"""A leader that has accepted us, and has not made us a member yet, is asked again after this time, seconds: it may lead
no more. Asking again changes nothing for one that still does."""

PATIENCE_S: Final = 3.0
"""How long peers may be missing before the log says so, seconds: nodes that start together need no line about it."""


class Founding:
    """One node's way into its cluster. `changed` is to be called when another node came, went or said something new."""

    def __init__(self, node: RaftNode, connection: RaftConnection) -> None:
        self._node = node
        self._connection = connection
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._is_heard = False
        """The last time this node asked, somebody listened, whether that one has answered or not."""

    def changed(self) -> None:
        """Look again."""
        self._changed.set()

    async def run(self, *, peers: Sequence[str], bootstrap: bool, has_joined: bool = True) -> None:
        """Return when this node is a member, or never will be by itself, since it was one and was removed.

        `has_joined`: it was a member once. One that was killed while it caught up was none: it asks again.

        Raises:
            JoinError: nobody has accepted it, and it has no other way (O403).

        """
        node = self._node
        if node.is_new and peers:
            await self._found(peers)
        elif node.is_new and bootstrap:
            # Members listen though they do not lead: while one is silent a cluster exists, which elects a leader perhaps.
            while (leader_id := await self._ask()) is None and self._is_heard and node.is_new:
                logger.info(
                    "a cluster exists and has no leader yet: this node waits for one in spite of --cluster_bootstrap"
                )
            if leader_id is None and node.is_new:
                self._form(Configuration.of(_genesis(), [node.member]))
            else:
                logger.warning("a cluster exists already: this node joins it in spite of --cluster_bootstrap")
        elif node.is_new:
            await self._join()
        elif has_joined and node.configuration is not None and not self.is_member:
            logger.warning(
                "this node is no member of its cluster, which has %s: add it with a request, or start it with empty"
                " directories to have it join",
                ", ".join(node.configuration.node_ids),
            )
            return
        # Whoever asks learns that there is a cluster; only a leader answers.
        self._connection.listen(self._connection.subjects.join, lambda _payload, _reply: None)
        while not self.is_member:  # accepted: entries or a snapshot are on their way
            await self._wait(ACCEPTED_WAIT_S)
            if not self.is_member:
                await self._ask()
        node.listen_to(())

    @property
    def is_member(self) -> bool:
        """Whether this node belongs to the cluster, as far as it knows."""
        configuration = self._node.configuration
        return configuration is not None and self._node.member in configuration.members

    async def _found(self, peers: Sequence[str]) -> None:
        node = self._node
        node.listen_to(peers, peers_digest(node.member.node_id, peers))
        told: Decision | None = None
        patient_until = self._loop.time() + PATIENCE_S
        while node.is_new:
            self._changed.clear()
            decision = decide(node.member, peers, node.infos())
            if isinstance(decision, Form):
                self._form(Configuration.of(_genesis(), decision.members))
                return
            if isinstance(decision, Join) and await self._ask() is not None:
                return
            if decision != told and (not isinstance(decision, Wait) or self._loop.time() >= patient_until):
                told = decision
                _report(decision)
            await self._wait(JOIN_INTERVAL_S)

    def _form(self, configuration: Configuration) -> None:
        logger.info("a new cluster is formed of %s", ", ".join(configuration.node_ids))
        self._node.form(configuration)

    async def _join(self) -> None:
        """Ask until a leader has accepted us. Raises JoinError when none does."""
        for _ in range(JOIN_TRIES):
            if await self._ask() is not None:
                return
        raise JoinError(self._connection.subjects.cluster_id)

    async def _ask(self) -> str | None:
        """Ask once, for JOIN_INTERVAL_S; the id of the leader that has accepted us."""
        member = self._node.member
        request = JoinRequest(version=JOIN_VERSION, node_id=member.node_id, incarnation=member.incarnation)
        loop = self._loop
        until = loop.time() + JOIN_INTERVAL_S
        leader_id = None
        self._is_heard = False
        while leader_id is None and (left := until - loop.time()) > 0:
            is_nobody = asyncio.Event()
            answer = await self._connection.request(
                self._connection.subjects.join, request.SerializeToString(), left, on_nobody=is_nobody.set
            )
            self._is_heard |= not is_nobody.is_set()
            leader_id = _accepted(answer)
            if leader_id is None:
                pause_s = JOIN_INTERVAL_S if answer is not None else JOIN_INTERVAL_S / 4
                await asyncio.sleep(max(0.0, min(pause_s, until - loop.time())))
        if leader_id is not None:
            self._node.listen_to((leader_id,))
        return leader_id

    async def _wait(self, timeout_s: float) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return


def _report(decision: Decision) -> None:
    """Tell the operator why there is no cluster yet."""
    match decision:
        case Join():
            logger.info('node "%s" belongs to a cluster, whose leader does not accept this node yet', decision.witness)
        case Mixed():
            logger.error(
                'node "%s" was started with other --cluster_peers than this node: no cluster is formed',
                decision.node_id,
            )
        case Wait() if decision.missing:
            logger.info(
                "a new cluster is formed when all peers were seen once; missing: %s", ", ".join(decision.missing)
            )


def _accepted(answer: bytes | None) -> str | None:
    """The leader's id in its answer; None when there is none, or it has refused."""
    if answer is None:
        return None
    try:
        response = JoinResponse.FromString(answer)
    except DecodeError:
        logger.warning("an answer to the request to join is not one of ours: size=%d", len(answer))
        return None
    if response.error:
        logger.warning("the cluster does not accept this node: %s", response.error)
        return None
    return response.leader_id


def _genesis() -> bytes:
    return secrets.token_bytes(GENESIS_BYTES)
