"""Three unchanged STAN client libraries ride through the end of the leader: Python, Node.js and C.

Environment variable STREAMING_TEST_LEADER_KILLS: how often the leader is killed under load, 2 by default.
"""

import os
import time
from collections.abc import Iterator

import pytest

from tests.support.client_builds import ClientProgram
from tests.support.client_worker import ClientWorker, Event, data_of
from tests.support.history import History, Outcome, check
from tests.support.three_nodes import CLUSTER_ID, ThreeNodes, bad_lines

KILLS = int(os.environ.get("STREAMING_TEST_LEADER_KILLS", "2"))
ACKS_BETWEEN_KILLS = 200
LOAD_MAX = 1_000_000
LOAD_WINDOW = 32
GROUP = "workers"


@pytest.fixture(scope="module")
def nodes() -> Iterator[ThreeNodes]:
    """A cluster for all libraries, with healthy logs at the end."""
    with ThreeNodes(options=("-mc", "0")) as running:
        yield running
        assert len(running.running) == 3
        assert bad_lines(running.nodes.values(), allowed=("no majority confirms this leader",)) == []


def kill_leader(nodes: ThreeNodes) -> None:
    """Kill -9; returns when another node leads, and the killed one is started again."""
    old = nodes.wait_leader()
    old.kill()
    nodes.wait_leader(other_than=old)
    old.spawn()


def unflagged_twice(events: list[Event]) -> list[object]:
    """Sequences that came before, and again without the flag."""
    seen: set[object] = set()
    wrong = []
    for event in events:
        if event["sequence"] in seen and not event["redelivered"]:
            wrong.append(event["sequence"])
        seen.add(event["sequence"])
    return wrong


def test_leader_is_killed_under_load(program: ClientProgram, nodes: ThreeNodes, names: str) -> None:
    """B390, B394, B403: the client does nothing; its load goes on, all acked messages come, doubles are marked."""
    with ClientWorker(program, names) as client:
        client.connect(nodes.url, names, CLUSTER_ID)
        client.subscribe("plain", names, "first")
        client.subscribe("durable", names, "first", durable="d")
        client.send("load", names, "d", LOAD_MAX, LOAD_WINDOW)
        for _ in range(KILLS):
            client.wait_acked(len(client.acked) + ACKS_BETWEEN_KILLS)
            kill_leader(nodes)
        client.wait_acked(len(client.acked) + ACKS_BETWEEN_KILLS)
        client.send("stop")
        client.wait(lambda event: event["event"] == "load_done", "end of the load", timeout_s=60)
        for name in ("plain", "durable"):
            client.wait_until(
                lambda name=name: client.acked <= set(data_of(client.messages(name))),  # type: ignore[misc]
                f"every acked message for {name}",
            )
            assert unflagged_twice(client.messages(name)) == []
        history = history_of(client, names)
        history.invoke("end", names, "end", time.monotonic_ns())
        assert client.publish(names, "end") == ""
        history.returned("end", Outcome.OK, time.monotonic_ns())
        client.subscribe("reader", names, "first")
        client.wait(lambda event: event.get("name") == "reader" and event.get("data") == "end", "last message")
        read = [(int(str(event["sequence"])), str(event["data"])) for event in client.messages("reader")]
        assert [event for event in client.events if event["event"] in ("reconnected", "error", "lost")] == []
        client.call("closed", "close")
    assert check(history, {names: read}) == []


def test_durable_and_group_go_on(program: ClientProgram, nodes: ThreeNodes, names: str) -> None:
    """B390, B392, B394: what two members of a group and a durable hold comes again, flagged; acks reach the new leader."""
    with ClientWorker(program, f"{names}-0") as one, ClientWorker(program, f"{names}-1") as other:
        for number, worker in enumerate((one, other)):
            worker.connect(nodes.url, f"{names}-{number}", CLUSTER_ID)
            worker.subscribe("member", names, "first", group=GROUP, durable="g", ack_wait_s=1, manual=True)
        one.subscribe("durable", names, "first", durable="d", ack_wait_s=1, manual=True)
        for number in range(1, 7):
            assert one.publish(names, f"m{number}") == ""
        one.wait_messages("durable", 6)
        one.wait_messages("member", 3)
        other.wait_messages("member", 3)
        for sequence in (1, 2, 3):
            one.call("acked", "ack", "durable", sequence)
        # A round of redelivery lies a second behind: the acks have been in the log for long.
        one.wait_until(lambda: flagged(one, "durable") >= {"m4", "m5", "m6"}, "redelivery")
        seen = len(one.messages("durable"))
        kill_leader(nodes)
        one.wait_until(lambda: {"m4", "m5", "m6"} <= set(data_of(one.messages("durable")[seen:])), "what is unacked")
        assert not {"m1", "m2", "m3"} & set(data_of(one.messages("durable")[seen:]))
        assert all(event["redelivered"] for event in one.messages("durable")[seen:])
        for sequence in (4, 5, 6):
            one.call("acked", "ack", "durable", sequence)
        for worker in (one, other):
            for sequence in sorted({int(str(event["sequence"])) for event in worker.messages("member")}):
                worker.call("acked", "ack", "member", sequence)
        assert one.publish(names, "last") == ""
        one.wait_until(lambda: "last" in data_of(one.messages("durable")), "new message")
        for worker in (one, other):
            worker.call("closed", "close")


def flagged(worker: ClientWorker, name: str) -> set[object]:
    """Payloads that came as redelivered."""
    return {event["data"] for event in worker.messages(name) if event["redelivered"]}


def history_of(client: ClientWorker, channel: str) -> History:
    """The load's publishes, each by a worker of its own: the library may send concurrent ones in any order."""
    history = History()
    for event in client.events:
        received_ns = int(str(event["received_ns"]))
        unique_id = str(event.get("data"))
        if event["event"] == "invoke":
            history.invoke(unique_id, channel, unique_id, received_ns)
        elif event["event"] == "ack" and event["error"] == "":
            history.returned(unique_id, Outcome.OK, received_ns)
    return history
