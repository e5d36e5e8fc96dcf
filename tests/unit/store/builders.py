"""Builds messages, blocks, log entries and stores for the tests of the store."""

import queue
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from server.protocol.stan_pb2 import MsgProto
from store import block, entry
from store.directory import DataDirectory
from store.machine.apply import apply_entry
from store.machine.state import Result, State
from store.operations import Append, ConnectClient, CreateChannel, InitCluster, Limits, Operation, Subscribe
from store.store import Store, open_store

UNLIMITED = Limits(0, 0, 0)
START_NS = 1_700_000_000_000_000_000
DEADLINE_S = 20.0

IDENTITY = {"cluster_id": "test-cluster", "node_id": "a", "incarnation": "0011223344556677"}


class LogEntry(NamedTuple):
    """A committed entry."""

    index: int
    term: int
    data: memoryview
    is_configuration: bool = False


def message(seq: int, *, timestamp_ns: int = START_NS, data: bytes = b"payload") -> bytes:
    """An encoded MsgProto on channel foo."""
    return MsgProto(sequence=seq, subject="foo", data=data, timestamp=timestamp_ns).SerializeToString()


def messages(first: int, count: int, *, size: int = 7, step_ns: int = 1) -> list[bytes]:
    """Messages `first` to `first + count - 1`; message n has timestamp START_NS + n * step_ns."""
    return [
        message(seq, timestamp_ns=START_NS + seq * step_ns, data=bytes([seq % 251]) * size)
        for seq in range(first, first + count)
    ]


def append(channel_id: int, first: int, content: Sequence[bytes]) -> tuple[Append, bytes]:
    """The operation and block of `content`."""
    data = block.encode(content)
    return Append(channel_id, first, len(content), len(data), START_NS + first + len(content) - 1), data


def log_entry(index: int, operations: Iterable[Operation], blocks: Sequence[bytes] = (), *, term: int = 1) -> LogEntry:
    """A committed entry with `operations`."""
    return LogEntry(index, term, memoryview(b"".join(entry.encode(list(operations), list(blocks), START_NS))))


def no_op(index: int, *, term: int = 1) -> LogEntry:
    """The entry a leader begins with."""
    return LogEntry(index, term, memoryview(b""))


def configuration(index: int, content: bytes, *, term: int = 1) -> LogEntry:
    """An entry that says who the members are."""
    return LogEntry(index, term, memoryview(content), is_configuration=True)


def connect(client_id: str, conn_id: bytes = b"") -> ConnectClient:
    """A client's registration."""
    return ConnectClient(client_id, conn_id or client_id.encode(), f"hb.{client_id}", 1, 5, 3)


def subscribe(
    subscription_id: int,
    *,
    channel_id: int = 1,
    client_id: str = "me",
    durable: str = "",
    last_sent: int = 0,
    inbox: str = "inbox",
    queue_group: str = "",
) -> Subscribe:
    """A subscription."""
    return Subscribe(
        subscription_id=subscription_id,
        channel_id=channel_id,
        client_id=client_id,
        inbox=inbox,
        ack_inbox=f"ack.{subscription_id}.{inbox}",
        durable_name=durable,
        queue_group=queue_group,
        max_in_flight=10,
        ack_wait_s=30,
        last_sent=last_sent,
    )


SETUP: tuple[Operation, ...] = (
    InitCluster("test-cluster", "token"),
    CreateChannel(1, "foo", UNLIMITED),
    connect("me"),
)


class NoReader:
    """A durable form without blocks: reading from it is a fault of the test's subject."""

    def block_at(self, channel_id: int, seq: int) -> tuple[int, bytes]:
        raise AssertionError(f"read of channel {channel_id}, sequence {seq}")


class Machine:
    """The state machine alone, its blocks all in memory."""

    def __init__(self, *operations: Operation) -> None:
        self.state = State()
        self.index = 0
        self.results = self.apply(*operations) if operations else []

    def apply(self, *operations: Operation, blocks: Sequence[bytes] = ()) -> list[Result]:
        """Apply one entry; all its results."""
        self.index += 1
        data = log_entry(self.index, operations, blocks).data
        return apply_entry(self.state, entry.decode(data), self.index, NoReader())

    def one(self, operation: Operation) -> Result:
        """Apply one operation as an entry; its result."""
        (result,) = self.apply(operation)
        return result

    def publish(self, channel_id: int, content: Sequence[bytes]) -> Result:
        """Append a block to a channel, at its end."""
        operation, data = append(channel_id, self.state.channels_by_id[channel_id].last_seq + 1, content)
        (result,) = self.apply(operation, blocks=[data])
        return result


class Host:
    """Stands for the event loop: runs what the store posts when told to."""

    def __init__(self) -> None:
        self.posted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.durable: list[int] = []
        self.fatal: list[BaseException] = []

    def run_ready(self) -> None:
        """Run what was posted so far."""
        while not self.posted.empty():
            self.posted.get()()

    def run_until(self, condition: Callable[[], bool]) -> None:
        """Run what is posted until `condition` holds; raises queue.Empty at the deadline."""
        while not condition():
            self.posted.get(timeout=DEADLINE_S)()

    def open(self, directory: Path | None, **options: object) -> Store:
        """Open a store whose completions come here; a FILE store unless `directory` is None."""
        locked = DataDirectory(directory) if directory else None
        arguments = {**IDENTITY, **options}
        try:
            return open_store(
                locked,
                post=self.posted.put,
                on_durable=self.durable.append,
                on_fatal=self.fatal.append,
                **arguments,
            )
        except BaseException:
            if locked is not None:
                locked.unlock()
            raise


@contextmanager
def opened(directory: Path | None, **options: object):
    """A store and its host; closed at the end."""
    host = Host()
    store = host.open(directory, **options)
    try:
        yield store, host
    finally:
        store.close()


def fill(store: Store, count: int, *, per_block: int = 10, size: int = 7, channel_id: int = 1) -> None:
    """Append `count` messages to a channel, one entry for each block."""
    channel = store.state.channels_by_id[channel_id]
    left = count
    while left:
        number = min(per_block, left)
        operation, data = append(channel_id, channel.last_seq + 1, messages(channel.last_seq + 1, number, size=size))
        store.apply([log_entry(store.last_applied()[0] + 1, [operation], [data])])
        left -= number
