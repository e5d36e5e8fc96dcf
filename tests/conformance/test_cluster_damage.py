"""A leader whose disk has damaged a message: another node has it, and leads (B238)."""

import asyncio
from pathlib import Path

import pytest

from server.protocol import stan_pb2 as pb
from tests.conformance.cluster_steps import leader_of, make_lead
from tests.conformance.steps import Clients, publish_numbered
from tests.support.server_process import SIGTERM_STATUS
from tests.support.three_nodes import ThreeNodes

PAYLOAD = b"this one is damaged on one disk"


@pytest.mark.asyncio
async def test_leader_that_cannot_read_a_message_lets_another_one_lead() -> None:
    """B238: subscribers get it, and what follows, from another node; the one with the damage goes on as a follower."""
    with ThreeNodes() as nodes:
        async with Clients(nodes.url) as clients:
            client = await clients.connect(cluster_id=nodes.cluster_id)
            await publish_numbered(client, "kept", 3)
            assert (await client.publish("kept", PAYLOAD)).error == ""
            await publish_numbered(client, "kept", 3, first=5)
            damaged = (await asyncio.to_thread(nodes.followers))[0]
            assert await asyncio.to_thread(damaged.stop) == SIGTERM_STATUS
            assert damage(damaged.directory) >= 1
            damaged.spawn()
            await asyncio.to_thread(damaged.wait_for, "Store location")
            await make_lead(nodes, client, damaged, b"taken")
            term = damaged.leads_in
            subscription = await client.subscribe("kept", durable_name="d", start=pb.First)
            await subscription.wait_count(7)
            assert [message.data for message in subscription.received] == [b"1", b"2", b"3", PAYLOAD, b"5", b"6", b"7"]
            assert await leader_of(nodes) is not damaged
            await asyncio.to_thread(damaged.wait_for, "Error looking up message kept:")
            await asyncio.to_thread(damaged.wait_for, "another node is to lead, as this one cannot read a message")
            await publish_numbered(client, "kept", 3, first=8)
            await subscription.wait_count(10)
            assert damaged.is_running
            assert (await leader_of(nodes)).leads_in > term


def damage(directory: Path) -> int:
    """Turn a bit of the payload wherever a stopped node's store has it; how often that is."""
    (file,) = directory.rglob("data.mdb")
    data = bytearray(file.read_bytes())
    found = 0
    at = data.find(PAYLOAD)
    while at >= 0:
        data[at] ^= 1
        found += 1
        at = data.find(PAYLOAD, at)
    file.write_bytes(data)
    return found
