"""Runs one client program of tests/integration/clients and turns its lines into events a test can wait for."""

import json
import os
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import IO, Self

from tests.support.client_builds import ClientProgram

EVENT_TIMEOUT_S = 30.0
END_TIMEOUT_S = 10.0

Event = dict[str, object]


class ClientEventError(Exception):
    """The awaited event did not come; the text has the last events and what the program printed to its error stream."""


class ClientWorker:
    """One client process.

    `events` are in the order the program printed them; `received_ns` in each is when we read it. `acked` has the data of
    a load's acked publishes.
    """

    def __init__(self, program: ClientProgram, label: str) -> None:
        self.label = label
        self.events: list[Event] = []
        self.acked: set[str] = set()
        self._messages: defaultdict[str, list[Event]] = defaultdict(list)
        self._changed = threading.Condition()
        self._errors: list[str] = []
        self._ended = False
        self._process = subprocess.Popen(
            program.command,
            env={**os.environ, **program.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read_events, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._read_errors, args=(self._process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    def send(self, *words: object) -> None:
        """Sends one command without waiting for its event."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(str(word) for word in words) + "\n")
        self._process.stdin.flush()

    def call(self, expected: str, *words: object) -> Event:
        """Sends one command and returns its event; raises ClientEventError if an `error` comes instead."""
        start = len(self.events)
        self.send(*words)
        return self.wait(lambda event: event["event"] == expected, f"{expected!r} after {words!r}", start=start)

    def connect(self, url: str, client_id: str, cluster_id: str = "test-cluster") -> None:
        """Connects the program's client."""
        self.call("connected", "connect", url, cluster_id, client_id)

    def publish(self, channel: str, data: str) -> str:
        """Publishes and waits; the error text, empty when acked."""
        return str(self.call("published", "publish", channel, data)["error"])

    def subscribe(
        self,
        name: str,
        channel: str,
        start: str = "new",
        *,
        max_in_flight: int = 1024,
        ack_wait_s: int = 30,
        durable: str = "-",
        group: str = "-",
        manual: bool = False,
    ) -> None:
        """Subscribes under a name that later commands and message events use."""
        mode = "manual" if manual else "auto"
        self.call("subscribed", "subscribe", name, channel, start, max_in_flight, ack_wait_s, durable, mode, group)

    def messages(self, name: str) -> list[Event]:
        """The messages that subscription got so far."""
        with self._changed:
            return list(self._messages[name])

    def wait_messages(self, name: str, count: int) -> list[Event]:
        """All messages of a subscription when there are at least `count` of them."""
        self.wait_until(lambda: len(self._messages[name]) >= count, f"{count} messages for {name!r}")
        return self.messages(name)

    def wait_acked(self, count: int) -> None:
        """Returns when `count` publishes of loads were acked in total."""
        self.wait_until(lambda: len(self.acked) >= count, f"{count} acked publishes")

    def wait(
        self, wanted: Callable[[Event], bool], what: str, *, start: int = 0, timeout_s: float = EVENT_TIMEOUT_S
    ) -> Event:
        """The first event from number `start` on that is wanted; an `error` event before it raises."""
        found: list[Event] = []
        position = start

        def look() -> bool:
            nonlocal position
            while position < len(self.events):
                event = self.events[position]
                position += 1
                if wanted(event):
                    found.append(event)
                    return True
                if event["event"] == "error":
                    raise ClientEventError(f"{self.label}: {event['command']} failed: {event['text']}")
            return False

        self.wait_until(look, what, timeout_s=timeout_s)
        return found[0]

    def wait_until(self, condition: Callable[[], bool], what: str, *, timeout_s: float = EVENT_TIMEOUT_S) -> None:
        """Returns when `condition` holds; it is looked at after each event."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not condition():
                remaining_s = deadline - time.monotonic()
                if self._ended or remaining_s <= 0:
                    reason = "the program ended" if self._ended else f"not within {timeout_s} s"
                    last = "\n".join(json.dumps(event) for event in self.events[-10:])
                    errors = "\n".join(self._errors)
                    raise ClientEventError(f"{self.label}: no {what}: {reason}\n{last}\n{errors}")
                self._changed.wait(remaining_s)

    def end(self) -> None:
        """Closes the program's input and waits; kills it if it stays."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            with suppress(BrokenPipeError):  # it ended before: whoever waited for its events was told
                self._process.stdin.close()
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(END_TIMEOUT_S)
        for reader in self._readers:
            reader.join(END_TIMEOUT_S)

    def _read_events(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                event = json.loads(line)
                event["received_ns"] = time.monotonic_ns()
                with self._changed:
                    self.events.append(event)
                    if event["event"] == "message":
                        self._messages[event["name"]].append(event)
                    elif event["event"] == "ack" and event["error"] == "":
                        self.acked.add(event["data"])
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _read_errors(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                with self._changed:
                    self._errors.append(line.rstrip("\n"))


def data_of(events: list[Event]) -> list[object]:
    """The payloads of message events."""
    return [event["data"] for event in events]


def publish_all(client: ClientWorker, channel: str, *payloads: str) -> None:
    """Publishes one after the other; each must be acked."""
    for payload in payloads:
        assert client.publish(channel, payload) == ""
