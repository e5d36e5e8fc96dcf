"""Queue groups, durables and redelivery over a restart, with three unchanged STAN client libraries."""

import itertools
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.client_builds import ClientProgram
from tests.support.client_worker import ClientWorker, Event, data_of, publish_all
from tests.support.server_process import ServerProcess

GROUP = "workers"


@pytest.fixture
def others(program: ClientProgram, server: ServerProcess, names: str) -> Iterator[list[ClientWorker]]:
    """Two more clients, each a process of its own."""
    with ExitStack() as stack:
        workers = [stack.enter_context(ClientWorker(program, f"{names}-{number}")) for number in (1, 2)]
        for number, worker in enumerate(workers, 1):
            worker.connect(server.url, f"{names}-{number}")
        yield workers
        for worker in workers:
            if worker.is_running:
                worker.call("closed", "close")


def marks(events: list[Event]) -> list[tuple[object, object]]:
    """Payload and flag of message events."""
    return [(event["data"], event["redelivered"]) for event in events]


def test_members_share_the_messages(client: ClientWorker, others: list[ClientWorker], names: str) -> None:
    """B300, B305: each message goes to one member, in turn; a plain subscription gets all of them in addition."""
    for worker in others:
        worker.subscribe("member", names, "first", group=GROUP)
    client.subscribe("member", names, "first", group=GROUP)
    client.subscribe("plain", names, "first")
    payloads = [f"m{number}" for number in range(1, 13)]
    publish_all(client, names, *payloads)
    members = [*others, client]
    received = [data_of(worker.wait_messages("member", 4)) for worker in members]
    assert data_of(client.wait_messages("plain", 12)) == payloads
    assert sorted(str(data) for data in itertools.chain(*received)) == sorted(payloads)
    assert [len(data) for data in received] == [4, 4, 4]


def test_leaving_member_passes_on_what_it_did_not_ack(
    client: ClientWorker, others: list[ClientWorker], names: str
) -> None:
    """B312: flagged, to the others; what was acked before does not come."""
    stays, leaves = others
    leaves.subscribe("member", names, "first", group=GROUP, manual=True)
    publish_all(client, names, "m1", "m2", "m3")
    leaves.wait_messages("member", 3)
    leaves.call("acked", "ack", "member", 2)
    stays.subscribe("member", names, "first", group=GROUP)
    leaves.call("closed", "close")
    leaves.end()
    assert sorted(map(str, marks(stays.wait_messages("member", 2)))) == ["('m1', True)", "('m3', True)"]
    publish_all(client, names, "m4")
    assert marks(stays.wait_messages("member", 3))[2:] == [("m4", False)]


def test_unacked_message_of_a_group_comes_again(client: ClientWorker, others: list[ClientWorker], names: str) -> None:
    """B309, B310: after the ack wait, to any member, until one of them acks it."""
    for worker in others:
        worker.subscribe("member", names, "first", group=GROUP, ack_wait_s=1, manual=True)
    publish_all(client, names, "m1")

    def received() -> list[Event]:
        return [event for worker in others for event in worker.messages("member")]

    others[0].wait_until(lambda: bool(others[0].messages("member")), "first delivery to the first member")
    others[1].wait_until(lambda: bool(others[1].messages("member")), "redelivery to the other member")
    assert set(marks(received())) == {("m1", False), ("m1", True)}


def test_durable_group_rests_and_is_resumed_by_another_client(
    client: ClientWorker, others: list[ClientWorker], names: str
) -> None:
    """B301, B315, B316: pending first and flagged, then what was stored meanwhile; the start position does not count."""
    first, second = others
    first.subscribe("member", names, "first", durable="d", group=GROUP, manual=True)
    publish_all(client, names, "m1", "m2", "m3")
    first.wait_messages("member", 3)
    first.call("acked", "ack", "member", 1)
    first.call("subscription_closed", "close_subscription", "member")
    publish_all(client, names, "m4")
    second.subscribe("member", names, "new", durable="d", group=GROUP)
    assert marks(second.wait_messages("member", 3)) == [("m2", True), ("m3", True), ("m4", False)]
    second.call("unsubscribed", "unsubscribe", "member")
    second.subscribe("again", names, "first", durable="d", group=GROUP)
    assert data_of(second.wait_messages("again", 4)) == ["m1", "m2", "m3", "m4"]


@pytest.mark.parametrize("end", ["killed", "stopped"])
def test_restart_with_unacked_messages(program: ClientProgram, names: str, end: str) -> None:
    """B360, B361, B363, B366, B368: groups, durables and plain subscriptions go on after a restart, without a word of the client.

    What was pending comes again flagged, what was acked does not, and then what is new.
    """
    with ServerProcess(store="FILE") as server, ClientWorker(program, names) as client:
        client.connect(server.url, names)
        client.subscribe("plain", names, "first", ack_wait_s=1, manual=True)
        client.subscribe("member", names, "first", ack_wait_s=1, group=GROUP, manual=True)
        client.subscribe("resting", names, "first", ack_wait_s=1, durable="d", group="resting", manual=True)
        publish_all(client, names, "m1", "m2", "m3")
        for name in ("plain", "member", "resting"):
            client.wait_messages(name, 3)
            client.call("acked", "ack", name, 2)
        client.call("subscription_closed", "close_subscription", "resting")
        publish_all(client, names, "m4")
        client.wait_messages("plain", 4)
        client.wait_messages("member", 4)
        seen = {name: len(client.messages(name)) for name in ("plain", "member")}
        if end == "killed":
            server.restart()
        else:
            server.stop()
            server.start()
        client.wait(lambda event: event["event"] == "reconnected", "reconnect to NATS")
        for name in seen:
            client.wait_until(
                lambda name=name: {"m1", "m3", "m4"} <= set(data_of(client.messages(name)[seen[name] :])),
                f"pending messages of {name}",
            )
            after = client.messages(name)[seen[name] :]
            assert "m2" not in data_of(after)
            assert all(event["redelivered"] for event in after)
        for number in range(10):  # a library may lose publishes around its reconnect
            if client.publish(names, f"n{number}") == "":
                break
        for name in seen:
            client.wait_until(
                lambda name=name: (f"n{number}", False) in marks(client.messages(name)), f"new message for {name}"
            )
        assert data_of(client.messages("resting")) == ["m1", "m2", "m3"]
        client.subscribe("resumed", names, "new", durable="d", group="resting")
        assert marks(client.wait_messages("resumed", 4))[:3] == [("m1", True), ("m3", True), ("m4", False)]
        client.call("closed", "close")
