"""Queue groups, which this version does not serve."""

import pytest

from tests.conformance.steps import publish_numbered, settle
from tests.support.raw_client import RawClient

UNSUPPORTED = "stan: queue groups are not supported by this version"


@pytest.mark.asyncio
async def test_queue_group_is_refused_with_a_clear_error(client: RawClient, channel: str) -> None:
    """A request with a queue group, durable or not, is refused in words and leaves nothing behind."""
    members = [
        await client.subscribe(channel, queue_group="g"),
        await client.subscribe(channel, queue_group="g", durable_name="d"),
    ]
    assert [member.error for member in members] == [UNSUPPORTED, UNSUPPORTED]
    await publish_numbered(client, channel, 1)
    await settle(client)
    assert [member.received for member in members] == [[], []]
