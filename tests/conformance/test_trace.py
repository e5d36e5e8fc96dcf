"""Trace and debug lines of the streaming server (O77 to O79, O216 to O219)."""

import re

import pytest

from server.protocol import stan_pb2 as pb
from tests.conformance.steps import Clients, publish_numbered, settle
from tests.support.server_process import ServerProcess


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("options", "is_traced", "is_debugged"), [(["-SV"], True, False), (["-SD"], False, True), (["-SDV"], True, True)]
)
async def test_lines_per_message(options: list[str], is_traced: bool, is_debugged: bool) -> None:
    """O218: one line for each publish, PubAck, delivery, ack and redelivery, with -SV only; service is the same."""
    with ServerProcess(store="MEMORY", options=options) as server:
        async with Clients(server.url) as clients:
            client = await clients.connect("tracer")
            await publish_numbered(client, "c", 5)
            subscription = await client.subscribe("c", start=pb.First, auto_ack=False, ack_wait_s=1)
            await subscription.wait_count(5)
            subscription.ack(1)
            await subscription.wait_count(9)
            await settle(client)
        lines = server.log.splitlines()

    def count(pattern: str) -> int:
        return sum(1 for line in lines if re.search(r"\[TRC\] STREAM: \[Client:tracer\] " + pattern, line))

    assert count(r"Received message from publisher subj=c guid=\S+$") == (5 if is_traced else 0)
    assert count(r"Acking Publisher subj=c guid=\S+$") == (5 if is_traced else 0)
    assert count(r"Delivering msg to subid=\d+, subject=c, seq=\d$") == (5 if is_traced else 0)
    assert count(r"Processing ack for subid=\d+, subject=c, seq=1$") == (1 if is_traced else 0)
    assert (count(r"Redelivering msg to subid=\d+, subject=c, seq=[2-5]$") >= 4) == is_traced
    debug = [line for line in lines if "[DBG] STREAM: " in line]
    assert bool(debug) == is_debugged
    assert any("[Client:tracer] Connected (Inbox=" in line for line in debug) == is_debugged
