"""Queue groups with members whose clients fail heartbeats (B268, B269, B305, B306, B309, B312, B341, B342, B345)."""

import asyncio
from collections.abc import Iterator

import pytest

from server.protocol import stan_pb2 as pb
from tests.conformance.steps import (
    Clients,
    fail_heartbeats,
    join,
    marks,
    publish_numbered,
    settle_all,
    wait_heartbeats,
)
from tests.support.server_process import ServerProcess

LONG_S = 3600
"""An ack wait that no test sees the end of, seconds."""


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A server with quick heartbeats that closes nobody for failing them."""
    options = ("-hbi", "200ms", "-hbt", "200ms", "-hbf", "100000", "-mc", "0")
    with ServerProcess(store="MEMORY", options=options) as process:
        yield process
        assert process.is_running
        assert "Traceback" not in process.log, process.log


@pytest.mark.asyncio
async def test_members_of_silent_clients_come_last(clients: Clients, channel: str) -> None:
    """B305, B306, B342: avoided while another one has room; the mark is the client's, so a later member has it, too."""
    healthy, silent = await clients.connect(), await clients.connect()
    avoided = await join(silent, channel)
    taken = await join(healthy, channel, max_in_flight=4)
    await fail_heartbeats(silent)
    later = await join(silent, channel)
    await publish_numbered(healthy, channel, 6)
    await settle_all(healthy, silent)
    assert taken.sequences == [1, 2, 3, 4]
    assert sorted(avoided.sequences + later.sequences) == [5, 6]


@pytest.mark.asyncio
async def test_silent_client_that_answers_again_is_chosen_again(clients: Clients, channel: str) -> None:
    """B305, B342: one success clears the mark of all its members, and theirs is what they hold less."""
    healthy, moody = await clients.connect(), await clients.connect()
    avoided, taken = await join(moody, channel), await join(healthy, channel)
    await fail_heartbeats(moody)
    await publish_numbered(healthy, channel, 3)
    await settle_all(healthy, moody)
    assert (avoided.sequences, taken.sequences) == ([], [1, 2, 3])
    moody.answers_heartbeats = True
    await wait_heartbeats(moody, 2)
    await publish_numbered(healthy, channel, 3)
    await settle_all(healthy, moody)
    assert (avoided.sequences, taken.sequences) == ([4, 5, 6], [1, 2, 3])


@pytest.mark.asyncio
async def test_first_member_is_taken_when_all_are_silent(clients: Clients, channel: str) -> None:
    """B306, B305: messages do go to clients that may be dead: to the first in the list, which moves to its end."""
    publisher = await clients.connect()
    silent = [await clients.connect() for _ in range(2)]
    members = [await join(client, channel) for client in silent]
    await asyncio.gather(*map(fail_heartbeats, silent))
    await publish_numbered(publisher, channel, 4)
    await settle_all(publisher, *silent)
    assert [member.sequences for member in members] == [[1, 3], [2, 4]]


@pytest.mark.asyncio
async def test_redelivery_in_a_group_does_not_pause(clients: Clients, channel: str) -> None:
    """B269, B309: a plain subscription of a silent client is not bothered, its group is served all the same (B268)."""
    silent, healthy = await clients.connect(), await clients.connect()
    await fail_heartbeats(silent)
    member = await join(silent, channel, ack_wait_s=1)
    plain = await silent.subscribe(channel, start=pb.First, ack_wait_s=1, auto_ack=False)
    await publish_numbered(healthy, channel, 1)
    await member.wait_count(3)
    assert marks(member.received) == [(1, False, 0), (1, True, 1), (1, True, 2)]
    assert marks(plain.received) == [(1, False, 0)]


@pytest.mark.asyncio
async def test_due_message_leaves_a_silent_client(clients: Clients, channel: str) -> None:
    """B309, B305: though the silent one holds nothing else, its message goes to the healthy one that holds more."""
    silent, healthy = await clients.connect(), await clients.connect()
    await fail_heartbeats(silent)
    member = await join(silent, channel, ack_wait_s=1)
    await publish_numbered(healthy, channel, 1)
    await member.wait_count(1)
    other = await join(healthy, channel, ack_wait_s=LONG_S)
    await publish_numbered(healthy, channel, 3, first=2)
    await other.wait_until(lambda: 1 in other.sequences)
    await settle_all(healthy, silent)
    counts = [one.redeliveryCount for one in member.received]
    assert set(member.sequences) == {1}
    assert sorted(marks(other.received)) == [
        (1, True, len(counts)), (2, False, 0), (3, False, 0), (4, False, 0)
    ]  # fmt: skip


@pytest.mark.asyncio
async def test_due_messages_of_silent_clients_go_round(clients: Clients, channel: str) -> None:
    """B306, B309: when all are silent it is the first in the list that gets a due message, and then the next one."""
    publisher = await clients.connect()
    silent = [await clients.connect() for _ in range(2)]
    await asyncio.gather(*map(fail_heartbeats, silent))
    members = [await join(client, channel, ack_wait_s=1) for client in silent]
    await publish_numbered(publisher, channel, 1)
    for member in members:
        await member.wait_until(lambda m=member: any(one.redelivered for one in m.received))  # type: ignore[misc]
    counts = sorted(one.redeliveryCount for member in members for one in member.received)
    assert counts == list(range(len(counts)))


@pytest.mark.asyncio
async def test_pending_of_a_timed_out_client_goes_to_the_others(probing_server: ServerProcess, channel: str) -> None:
    """B312, B341, B345: also when nobody said good-bye."""
    async with Clients(probing_server.url) as clients:
        healthy, vanishing = await clients.connect(), await clients.connect()
        await join(vanishing, channel, ack_wait_s=LONG_S)
        await publish_numbered(healthy, channel, 3)
        other = await join(healthy, channel, ack_wait_s=LONG_S)
        await vanishing.nats.close()
        await other.wait_count(3)
        assert sorted(marks(other.received)) == [(1, True, 1), (2, True, 1), (3, True, 1)]
