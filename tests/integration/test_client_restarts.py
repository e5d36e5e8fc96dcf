"""Durables and queue groups over the end of the server and of clients, with three unchanged STAN client libraries."""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.support.client_builds import ClientProgram
from tests.support.client_worker import EVENT_TIMEOUT_S, ClientEventError, ClientWorker, Event, data_of, publish_all
from tests.support.server_process import SIGTERM_STATUS, ServerProcess

GROUP = "workers"
LOOK_S = 0.3
"""How long one process is watched before the next one, when any of several may get the awaited event."""

BOTH_ENDS = pytest.mark.parametrize("end", ["killed", "stopped"])


@contextmanager
def processes(program: ClientProgram, url: str, names: str, count: int) -> Iterator[list[ClientWorker]]:
    """Clients `<names>-0` and so on, connected, each a process of its own."""
    with ExitStack() as stack:
        workers = [stack.enter_context(ClientWorker(program, f"{names}-{number}")) for number in range(count)]
        for number, worker in enumerate(workers):
            worker.connect(url, f"{names}-{number}")
        yield workers


def restart(server: ServerProcess, end: str, workers: list[ClientWorker]) -> None:
    """The server, and its NATS server with it, goes and comes back; every client has reconnected by itself."""
    if end == "killed":
        server.restart()
    else:
        assert server.stop() == SIGTERM_STATUS
        server.start()
    for worker in workers:
        worker.wait(lambda event: event["event"] == "reconnected", "reconnect to NATS")


def publish_new(client: ClientWorker, channel: str) -> str:
    """Publishes until one is acked, since a library may lose publishes around its reconnect; the payload of that one."""
    for number in itertools.count():
        assert number < 10, "no publish was acked after the restart"
        if client.publish(channel, f"new{number}") == "":
            break
    return f"new{number}"


def marks(events: list[Event]) -> list[tuple[object, object]]:
    """Payload and flag of message events."""
    return [(event["data"], event["redelivered"]) for event in events]


def of_all(workers: list[ClientWorker], name: str) -> list[Event]:
    """What the subscriptions of that name got in all processes."""
    return [event for worker in workers for event in worker.messages(name)]


def wait_any(workers: list[ClientWorker], condition: Callable[[], bool], what: str) -> None:
    """Returns when `condition` holds, whichever process gets the event that makes it true."""
    deadline = time.monotonic() + EVENT_TIMEOUT_S
    for worker in itertools.cycle(workers):
        try:
            worker.wait_until(condition, what, timeout_s=LOOK_S)
        except ClientEventError:
            if time.monotonic() > deadline:
                raise
        else:
            return


@BOTH_ENDS
def test_durables_with_pending_messages(program: ClientProgram, names: str, end: str) -> None:
    """B291, B360, B363, B368, B284: an open durable goes on by itself, a closed one rests until it is resumed.

    Each has m2 and m4 unacked or unsent: these come, flagged if they had been sent; what was acked before never comes.
    """
    with ServerProcess(store="FILE") as server, ClientWorker(program, names) as client:
        client.connect(server.url, names)
        client.subscribe("open", names, "first", durable="open", ack_wait_s=1, manual=True)
        client.subscribe("closed", names, "first", durable="closed", ack_wait_s=1, manual=True)
        publish_all(client, names, "m1", "m2", "m3")
        for name in ("open", "closed"):
            client.wait_messages(name, 3)
            for sequence in (1, 3):
                client.call("acked", "ack", name, sequence)
        client.call("subscription_closed", "close_subscription", "closed")
        publish_all(client, names, "m4")
        # Two rounds of redelivery lie a second apart: the acks have been in the log for long.
        client.wait_until(lambda: marks(client.messages("open")).count(("m2", True)) >= 2, "two redeliveries")
        seen = {name: len(client.messages(name)) for name in ("open", "closed")}
        restart(server, end, [client])
        client.wait_until(
            lambda: {"m2", "m4"} <= set(data_of(client.messages("open")[seen["open"] :])), "pending messages"
        )
        assert set(marks(client.messages("open")[seen["open"] :])) == {("m2", True), ("m4", True)}
        for sequence in (2, 4):
            client.call("acked", "ack", "open", sequence)
        new = publish_new(client, names)
        client.wait_until(lambda: (new, False) in marks(client.messages("open")), "new message")
        assert len(client.messages("closed")) == seen["closed"]
        client.subscribe("resumed", names, "new", durable="closed", ack_wait_s=30, manual=True)
        client.wait_until(lambda: (new, False) in marks(client.messages("resumed")), "new message of the resumed one")
        resumed = marks(client.messages("resumed"))
        assert resumed[:2] == [("m2", True), ("m4", False)]
        assert not {"m1", "m3"} & {data for data, _ in resumed}
        client.call("closed", "close")


@BOTH_ENDS
def test_group_of_three_processes(program: ClientProgram, names: str, end: str) -> None:
    """B300, B360, B361, B363: what the members hold comes again, all of it and flagged, until acked; new messages once.

    Each process reconnects by itself and does nothing else.
    """
    with ServerProcess(store="FILE") as server, processes(program, server.url, names, 3) as workers:
        for worker in workers:
            worker.subscribe("member", names, "first", group=GROUP, ack_wait_s=1, manual=True)
        old = [f"m{number}" for number in range(1, 7)]
        publish_all(workers[0], names, *old)
        wait_any(workers, lambda: set(data_of(of_all(workers, "member"))) == set(old), "all messages")
        seen = [len(worker.messages("member")) for worker in workers]

        def after() -> list[Event]:
            return [
                event
                for worker, count in zip(workers, seen, strict=True)
                for event in worker.messages("member")[count:]
            ]

        restart(server, end, workers)
        wait_any(workers, lambda: set(data_of(after())) == set(old), "all messages again")
        assert all(event["redelivered"] for event in after())
        for worker in workers:
            for sequence in {event["sequence"] for event in worker.messages("member")}:
                worker.call("acked", "ack", "member", sequence)
        last = publish_new(workers[0], names)
        fresh = [f"n{number}" for number in range(9)]
        publish_all(workers[0], names, *fresh)
        wait_any(workers, lambda: {last, *fresh} <= set(data_of(after())), "new messages")
        first_sent = Counter(data for data, is_again in marks(of_all(workers, "member")) if not is_again)
        assert all(first_sent[data] == 1 for data in (*old, last, *fresh))
        for worker in workers:
            worker.call("closed", "close")


def test_crashed_member_is_replaced_by_the_others(program: ClientProgram, names: str) -> None:
    """B312, B341, B345: its process ends without a word; once it is timed out the others get what it held, flagged.

    The ack wait is so long that nothing comes for another reason.
    """
    options = ("-hbi", "500ms", "-hbt", "500ms", "-hbf", "1")
    with (
        ServerProcess(store="FILE", options=options) as server,
        processes(program, server.url, names, 3) as (crashes, *others),
    ):
        for worker in (crashes, *others):
            worker.subscribe("member", names, "first", group=GROUP, ack_wait_s=600, manual=True)
        publish_all(others[0], names, *(f"m{number}" for number in range(1, 10)))
        held = data_of(crashes.wait_messages("member", 3))
        for worker in others:
            worker.wait_messages("member", 3)
        crashes.call("acked", "ack", "member", crashes.messages("member")[0]["sequence"])
        crashes.end()
        wait_any(others, lambda: len(of_all(others, "member")) == 8, "what the crashed member held")
        again = [event["data"] for event in of_all(others, "member") if event["redelivered"]]
        assert sorted(map(str, again)) == sorted(map(str, held[1:]))
        for worker in others:
            worker.call("closed", "close")


def test_crashed_client_comes_back(program: ClientProgram, names: str, server: ServerProcess) -> None:
    """B50, B51, B283, B284: a new process with the same client id takes over at once, and resumes its durable."""
    with ClientWorker(program, f"{names} before") as before:
        before.connect(server.url, names)
        before.subscribe("work", names, "first", durable="d", ack_wait_s=600, manual=True)
        publish_all(before, names, "m1", "m2", "m3")
        before.wait_messages("work", 3)
        before.call("acked", "ack", "work", 2)
        publish_all(before, names, "m4")  # behind the ack on the same connection
    with ClientWorker(program, f"{names} after") as after:
        after.connect(server.url, names)
        after.subscribe("work", names, "new", durable="d", manual=True)
        publish_all(after, names, "m5")
        after.wait_until(lambda: (("m5", False)) in marks(after.messages("work")), "new message")
        assert marks(after.messages("work")) == [("m1", True), ("m3", True), ("m4", True), ("m5", False)]
        after.call("closed", "close")
