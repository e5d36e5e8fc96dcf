"""Answers requests about members while this node leads: nodes that join, and operators who add or remove (O403, O430-O434)."""

import logging
from collections.abc import Callable
from typing import Final

from google.protobuf.message import DecodeError

from raft.admission import INVALID_ID
from raft.errors import WireError
from raft.membership import Member, check_member, is_incarnation
from raft.node import RaftNode
from server.cluster.cluster_pb2 import JoinRequest, JoinResponse
from server.cluster.connection import RaftConnection
from server.cluster.node_ids import is_node_id
from server.config.units import quote

logger = logging.getLogger(__name__)

JOIN_VERSION: Final = 1
"""Version of the join request."""


class MemberRequests:
    """Open while this node leads."""

    def __init__(self, connection: RaftConnection, node: RaftNode, *, allows_changes: bool) -> None:
        self._connection = connection
        self._node = node
        self._allows_changes = allows_changes
        self._sids: list[int] = []

    def open(self) -> None:
        """Listen."""
        connection, subjects = self._connection, self._connection.subjects
        self._sids.append(connection.listen(subjects.join, self._join))
        if self._allows_changes:
            self._sids.append(connection.listen(subjects.add, self._add))
            self._sids.append(connection.listen(subjects.remove, self._remove))

    def close(self) -> None:
        """Listen no more."""
        for sid in self._sids:
            self._connection.unlisten(sid)
        self._sids.clear()

    def _join(self, payload: bytes, reply: bytes) -> None:
        try:
            request = JoinRequest.FromString(payload)
            member = Member(request.node_id, request.incarnation)
            check_member(member)
            if (
                request.version != JOIN_VERSION
                or not is_incarnation(member.incarnation)
                or not is_node_id(member.node_id)
            ):
                raise WireError(f"version {request.version}, node id {request.node_id!r}")  # noqa: TRY301
        except (DecodeError, WireError) as error:
            # Perhaps a node of the original: clusters of both cannot be mixed (O441).
            logger.warning("a request to join the cluster is not one of ours and is refused: %s", error)
            return

        def done(error: str | None) -> None:
            answer = JoinResponse(error=error or "", leader_id=self._node.member.node_id)
            self._connection.publish(reply, answer.SerializeToString())

        self._node.admit(member, done)

    def _add(self, payload: bytes, reply: bytes) -> None:
        self._change(payload, reply, "adding", self._node.add_node)

    def _remove(self, payload: bytes, reply: bytes) -> None:
        self._change(payload, reply, "removing", self._node.remove_node)

    def _change(
        self, payload: bytes, reply: bytes, verb: str, change: Callable[[str, Callable[[str | None], None]], None]
    ) -> None:
        node_id = payload.decode(errors="replace")

        def done(error: str | None) -> None:
            if error is None:
                self._connection.publish(reply, b"+OK")
                return
            logger.error("Error %s node %s: %s", verb, quote(node_id), error)
            self._connection.publish(reply, f"-ERR {verb} node {quote(node_id)}: {error}".encode())

        if verb == "adding" and not (is_node_id(node_id) and node_id.encode() == payload):
            done(INVALID_ID)
        else:
            change(node_id, done)
