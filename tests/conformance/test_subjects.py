"""Which subjects the server listens to, and when it opens them (B11, B12, B14, B17, B19, B134)."""

import asyncio
import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conformance.steps import Clients, new_name, settle
from tests.support.leader_harness import CLUSTER_ID, leading
from tests.support.raw_nats import NoRespondersError
from tests.support.server_process import ServerProcess

CLIENT_SUBJECTS = (
    "_STAN.discover.{0}",
    "_STAN.discover.{0}.pings",
    "_STAN.pub.{0}.>",
    "_STAN.sub.{0}",
    "_STAN.unsub.{0}",
    "_STAN.subclose.{0}",
    "_STAN.close.{0}",
)


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A server with an unusual cluster id, whose NATS server tells who listens to what."""
    with ServerProcess(store="MEMORY", cluster_id="Other_1", monitoring=True) as process:
        yield process


def listened_to(server: ServerProcess) -> list[dict[str, Any]]:
    """NATS subscriptions of the server's connection."""
    with urllib.request.urlopen(f"{server.monitoring_url}/connz?subs=detail", timeout=10) as answer:
        connections = json.load(answer)["connections"]
    lists = [connection.get("subscriptions_list_detail", []) for connection in connections]
    (found,) = [one for one in lists if any(item["subject"] == "_STAN.pub.Other_1.>" for item in one)]
    return list(found)


@pytest.mark.asyncio
async def test_subjects_of_the_server(server: ServerProcess, clients: Clients) -> None:
    """B11, B12, B14, B17: those of the cluster id, without a queue group, and one inbox pattern for all acks."""
    client = await clients.connect(cluster_id="Other_1")
    subscriptions = [await client.subscribe(new_name("channel")) for _ in range(20)]
    (prefix,) = {subscription.ack_inbox.rpartition(".")[0] for subscription in subscriptions}
    found = await asyncio.to_thread(listened_to, server)
    subjects = [item["subject"] for item in found]
    expected = {subject.format("Other_1") for subject in CLIENT_SUBJECTS}
    assert {subject for subject in subjects if subject.startswith("_STAN.")} == expected
    inboxes = [subject for subject in subjects if not subject.startswith("_STAN.")]
    assert f"{prefix}.*" in inboxes
    assert all(subject.startswith("_INBOX.") for subject in inboxes)
    assert len(set(subjects)) == len(subjects) < 20
    assert [item for item in found if item.get("qgroup")] == []


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "subject",
    [
        "_STAN.discover.test-cluster", "_STAN.discover.other_1", "_STAN.pub.test-cluster.c", "_STAN.sub",
        "_STAN.discover.Other_1.more", "_STAN.raft.Other_1.node.vote", "_STAN.snap.Other_1.node",
        "_STAN.ft.Other_1", "_STAN.part.Other_1", "_STAN.ack.Other_1",
    ],
)  # fmt: skip
async def test_other_subjects_are_not_served(clients: Clients, subject: str) -> None:
    """B11, B19: neither those of other cluster ids nor those between servers."""
    nats = await clients.nats()
    with pytest.raises(NoRespondersError):
        await nats.request(subject, b"")


@pytest.mark.asyncio
@pytest.mark.parametrize("reply", ["_STAN.acks.token", "_INBOX.a.b.c", "reply", "some.where.else"])
async def test_puback_goes_to_the_reply_subject(clients: Clients, channel: str, reply: str) -> None:
    """B15: the subject is the client's choice, and another one may be named with each publish."""
    client = await clients.connect(cluster_id="Other_1")
    answers: list[bytes] = []
    client.nats.subscribe(reply, lambda message: answers.append(message.data))
    message = client.publish_message(channel, b"x", guid="g")
    client.nats.publish(f"_STAN.pub.Other_1.{channel}", message.SerializeToString(), reply=reply)
    await settle(client)
    assert answers == [b"\x0a\x01g"]


def test_client_subjects_open_last() -> None:
    """B134: not before the leadership's first entry and the look for a second server; ack inboxes first, connect last."""
    with leading() as leader:
        me = leader.client()
        me.subscribe("foo", "in")
        leader.crash()
        open_before: list[list[str]] = []

        def note() -> None:
            open_before.append([one for one in leader.nats.subjects.values() if one.startswith("_STAN.")])

        def commit() -> None:
            note()
            leader.log.apply_next()

        leader.log.is_applying_at_once = False
        leader.loop.call_later(1, commit)
        leader.loop.call_later(1.1, note)  # the second server has 250 ms to answer (B146)
        leader.restart()
        assert open_before == [[], []]
        opened = list(leader.nats.subjects.values())
        first = min(opened.index(subject.format(CLUSTER_ID)) for subject in CLIENT_SUBJECTS)
        assert opened.index(f"_INBOX.{leader.store.state.ack_inbox_token}.*") < first
        assert opened[-1] == f"_STAN.discover.{CLUSTER_ID}"
