"""Finds another server with our cluster id by asking, as a client would, whether somebody answers for it (B146)."""

import asyncio
import logging

from google.protobuf.message import DecodeError

from server.errors import AnotherServerError
from server.nats.requests import Requests
from server.outbox import Outbox
from server.protocol import names
from server.protocol.stan_pb2 import CloseRequest, ConnectRequest, ConnectResponse

logger = logging.getLogger(__name__)


async def refuse_second_server(
    requests: Requests, outbox: Outbox, *, cluster_id: str, connect_subject: str, timeout_s: float
) -> None:
    """Return when nobody answered within `timeout_s`.

    Raises:
        AnotherServerError: somebody did.

    """
    answered: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

    def note(answer: bytes | None) -> None:
        if not answered.done():  # else nobody waits any more
            answered.set_result(answer)

    request = ConnectRequest(clientID=cluster_id, heartbeatInbox=f"{requests.inbox_prefix}.probe")
    requests.send(connect_subject, request.SerializeToString(), timeout_s, note)
    answer = await answered
    if answer is None:
        logger.debug("Did not detect another server instance")
        return
    try:
        response = ConnectResponse.FromString(answer)
    except DecodeError:
        return
    if names.is_inbox(response.closeRequests):  # else it is no subject, and would break our own connection
        outbox.send(response.closeRequests, CloseRequest(clientID=cluster_id).SerializeToString())
        outbox.flush()
    raise AnotherServerError(cluster_id=cluster_id)
