"""Queue groups over a restart of the server, killed or in order (B271, B316, B317, B360-B368, B394)."""

from collections.abc import Iterator

import pytest

from server.protocol import stan_pb2 as pb
from tests.conformance.steps import Clients, marks, publish_numbered, settle
from tests.support.nats_process import NatsProcess
from tests.support.raw_client import RawClient, RawSubscription
from tests.support.server_process import ServerProcess

BOTH_ENDS = pytest.mark.parametrize("end", ["kill", "stop"])
CLUSTER = "queue-restart"


@pytest.fixture(scope="module")
def server(nats_process: NatsProcess) -> Iterator[ServerProcess]:
    """A server with a FILE store that the tests of this module restart."""
    with ServerProcess(nats_url=nats_process.url, cluster_id=CLUSTER, options=("-mc", "0")) as process:
        yield process
        assert process.is_running
        assert "Traceback" not in process.log, process.log


async def join(client: RawClient, channel: str, **options: object) -> RawSubscription:
    """A member that acks nothing by itself."""
    options = {"auto_ack": False, "start": pb.First, **options}
    member = await client.subscribe(channel, queue_group="g", **options)  # type: ignore[arg-type]
    assert member.error == ""
    return member


async def restart(server: ServerProcess, end: str, client: RawClient) -> None:
    """Ends the server and starts it on the same directory; what it sent before has arrived then."""
    if end == "kill":
        server.kill()
    else:
        assert server.stop() == 143
    await client.nats.flush()
    server.start()


@BOTH_ENDS
@pytest.mark.asyncio
async def test_pending_comes_again(clients: Clients, server: ServerProcess, channel: str, end: str) -> None:
    """B361, B363, B366: whatever is not acked, flagged; what is acked never; then what is new."""
    client = await clients.connect(cluster_id=CLUSTER)
    members = [await join(client, channel, ack_wait_s=1) for _ in range(2)]
    await publish_numbered(client, channel, 8)
    await settle(client)
    members[0].ack(3)
    members[1].ack(2)
    resting = await join(client, f"{channel}.other")
    assert (await client.close_subscription(resting)).error == ""  # its entry carries the acks
    positions = [len(member.received) for member in members]

    def after() -> list[pb.MsgProto]:
        return [
            message for member, start in zip(members, positions, strict=True) for message in member.received[start:]
        ]

    await restart(server, end, client)
    for member in members:
        await member.wait_until(lambda: {message.sequence for message in after()} >= {1, 4, 5, 6, 7, 8})
    assert all(message.redelivered and message.sequence not in (2, 3) for message in after())
    await publish_numbered(client, channel, 2)
    await settle(client)
    assert {(9, False, 0), (10, False, 0)} <= set(marks(after()))


@BOTH_ENDS
@pytest.mark.asyncio
async def test_resting_group_rests_on(clients: Clients, server: ServerProcess, channel: str, end: str) -> None:
    """B368, B317, B316: nothing is sent to it; who joins gets what was pending, then what came meanwhile."""
    client = await clients.connect(cluster_id=CLUSTER)
    first, second = [await join(client, channel, durable_name="d", ack_wait_s=1) for _ in range(2)]
    await publish_numbered(client, channel, 4)
    await settle(client)
    first.ack(1)
    assert (await client.close_subscription(first)).error == ""
    assert (await client.close_subscription(second)).error == ""
    counts = len(first.received), len(second.received)
    await restart(server, end, client)
    await publish_numbered(client, channel, 1, first=5)
    await settle(client)
    assert (len(first.received), len(second.received)) == counts
    joined = await join(client, channel, durable_name="d")
    await settle(client)
    assert marks(joined.received) == [(2, True, 1), (3, True, 1), (4, True, 1), (5, False, 0)]


@pytest.mark.asyncio
async def test_killed_in_the_middle_of_a_flow(clients: Clients, server: ServerProcess, channel: str) -> None:
    """B394, B420: every message arrives, and whatever comes twice is flagged, however often the server is killed."""
    client = await clients.connect(cluster_id=CLUSTER)
    members = [
        await client.subscribe(channel, queue_group="g", start=pb.First, auto_ack=number != 0, ack_wait_s=1)
        for number in range(3)
    ]
    count = 0
    for _ in range(4):
        await publish_numbered(client, channel, 120, first=count + 1)
        count += 120
        server.kill()
        await client.nats.flush()
        server.start()
    wanted = set(range(1, count + 1))
    for member in members:
        await member.wait_until(
            lambda: {sequence for other in members for sequence in other.sequences} == wanted, timeout_s=20
        )
    unmarked = [one.sequence for member in members for one in member.received if not one.redelivered]
    assert len(unmarked) == len(set(unmarked))
