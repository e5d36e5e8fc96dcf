"""Three unchanged STAN client libraries against a real server: Python, Node.js and C."""

import time

import pytest

from tests.support.client_builds import ClientProgram
from tests.support.client_worker import ClientWorker, data_of, publish_all
from tests.support.history import History, Outcome, check
from tests.support.server_process import ServerProcess

ACKS_BEFORE_KILL = 200
ACKS_AFTER_KILL = 200
LOAD_MAX = 200_000
LOAD_WINDOW = 64


def test_what_is_published_is_received_in_order(client: ClientWorker, names: str) -> None:
    """A subscriber gets each acked message once, in order, with sequences from 1 on (B98, B230)."""
    client.subscribe("all", names, "first")
    payloads = [f"payload-{number}" for number in range(20)]
    publish_all(client, names, *payloads)
    received = client.wait_messages("all", len(payloads))
    assert data_of(received) == payloads
    assert [event["sequence"] for event in received] == list(range(1, 21))
    assert not any(event["redelivered"] for event in received)


def test_unsubscribed_gets_nothing_more(client: ClientWorker, names: str) -> None:
    """After the answer to unsubscribe nothing is sent; another subscription goes on (B239, R15)."""
    client.subscribe("ends", names, "first")
    client.subscribe("stays", names, "first")
    publish_all(client, names, "before")
    client.wait_messages("ends", 1)
    client.call("unsubscribed", "unsubscribe", "ends")
    publish_all(client, names, "after")
    assert data_of(client.wait_messages("stays", 2)) == ["before", "after"]
    assert data_of(client.messages("ends")) == ["before"]


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("new", ["later"]),
        ("last", ["m3", "later"]),
        ("first", ["m1", "m2", "m3", "later"]),
        ("sequence:2", ["m2", "m3", "later"]),
        ("sequence:9", ["later"]),
        ("ago:3600", ["m1", "m2", "m3", "later"]),
        ("ago:0", ["later"]),
    ],
    ids=lambda value: value.replace(":", "") if isinstance(value, str) else "",
)
def test_start_position(client: ClientWorker, names: str, start: str, expected: list[str]) -> None:
    """Each start position begins with the right message (B220)."""
    publish_all(client, names, "m1", "m2", "m3")
    client.subscribe("reader", names, start)
    publish_all(client, names, "later")
    assert data_of(client.wait_messages("reader", len(expected))) == expected


def test_unacked_message_comes_again_flagged(client: ClientWorker, names: str) -> None:
    """A message that is not acked within ackWait is sent again as redelivered until it is acked (B260).

    The redeliveries are also the clock for a start position in the middle of the log: after three of them the first
    message is more than two seconds old.
    """
    client.subscribe("manual", names, "first", ack_wait_s=1, manual=True)
    publish_all(client, names, "old")
    received = client.wait_messages("manual", 4)
    assert data_of(received[:4]) == ["old"] * 4
    assert [event["redelivered"] for event in received[:4]] == [False, True, True, True]
    client.call("acked", "ack", "manual", 1)
    publish_all(client, names, "young")
    young = client.wait_messages("manual", len(received) + 2)
    # Two sendings of the second message are one ackWait apart: the first one, now acked, would have come between.
    assert data_of(young[-2:]) == ["young", "young"]
    assert [event["redelivered"] for event in young[-2:]] == [False, True]
    client.subscribe("recent", names, "ago:2")
    assert data_of(client.wait_messages("recent", 1)) == ["young"]


def test_durable_resumes_where_it_was(client: ClientWorker, names: str) -> None:
    """A resumed durable gets its unacked messages flagged, then what was stored meanwhile; acked ones never (B283, B284)."""
    client.subscribe("first", names, "first", durable="work", manual=True)
    publish_all(client, names, "m1", "m2", "m3")
    client.wait_messages("first", 3)
    client.call("acked", "ack", "first", 1)
    client.call("acked", "ack", "first", 2)
    client.call("subscription_closed", "close_subscription", "first")
    publish_all(client, names, "m4", "m5")
    client.subscribe("second", names, "new", durable="work", manual=True)
    received = client.wait_messages("second", 3)
    assert [(event["data"], event["redelivered"]) for event in received] == [
        ("m3", True),
        ("m4", False),
        ("m5", False),
    ]
    client.call("unsubscribed", "unsubscribe", "second")
    client.subscribe("third", names, "first", durable="work")
    assert data_of(client.wait_messages("third", 5)) == ["m1", "m2", "m3", "m4", "m5"]


def test_kill_and_restart_under_load(program: ClientProgram, names: str) -> None:
    """No acked message is lost by kill -9, and a client that stays up goes on without doing anything (B211, B360, R1)."""
    with ServerProcess(store="FILE") as server, ClientWorker(program, names) as client:
        client.connect(server.url, names)
        client.subscribe("survivor", names, "first")
        client.send("load", names, "d", LOAD_MAX, LOAD_WINDOW)
        client.wait_acked(ACKS_BEFORE_KILL)
        server.restart()
        client.wait_acked(len(client.acked) + ACKS_AFTER_KILL)
        client.send("stop")
        client.wait(lambda event: event["event"] == "load_done", "end of the load")
        client.wait_until(
            lambda: client.acked <= set(data_of(client.messages("survivor"))), "every acked message, delivered"
        )
        history = history_of(client, names)
        history.invoke("end", names, "end", time.monotonic_ns())
        assert client.publish(names, "end") == ""
        history.returned("end", Outcome.OK, time.monotonic_ns())
        read = read_channel(program, server, names)
        client.call("closed", "close")
    assert check(history, {names: read}) == []


def history_of(client: ClientWorker, channel: str) -> History:
    """The load's publishes. Each has its own worker name: the library may send concurrent publishes in any order."""
    history = History()
    for event in client.events:
        received_ns = int(str(event["received_ns"]))
        unique_id = str(event.get("data"))
        if event["event"] == "invoke":
            history.invoke(unique_id, channel, unique_id, received_ns)
        elif event["event"] == "ack" and event["error"] == "":
            history.returned(unique_id, Outcome.OK, received_ns)
    return history


def read_channel(program: ClientProgram, server: ServerProcess, channel: str) -> list[tuple[int, str]]:
    """All messages of the channel as a fresh subscriber of the same library gets them; "end" is the last one."""
    with ClientWorker(program, f"reader of {channel}") as reader:
        reader.connect(server.url, f"reader-{channel}")
        reader.subscribe("reader", channel, "first")
        reader.wait(lambda event: event["event"] == "message" and event["data"] == "end", "last message")
        read = [(int(str(event["sequence"])), str(event["data"])) for event in reader.messages("reader")]
        reader.call("closed", "close")
    return read
