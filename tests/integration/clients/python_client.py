"""Drives the library asyncio-nats-streaming by commands on standard input; README.md beside this file has the commands.

Runs in a process of its own: the library's generated protobuf code needs PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python,
and both it and asyncio-nats-client 0.11.5 need `loop=` dropped on Python 3.10 and later.
"""

import asyncio
import importlib
import json
import sys
import threading
import time
import types
from collections.abc import Callable
from typing import Any

ACK_TIMEOUT_S = 2
RECONNECT_WAIT_S = 0.1
RECONNECT_ATTEMPTS = 1000
WHOLE_SECOND_MARGIN_S = 0.5
"""The library truncates a start time's distance to whole seconds; half a second keeps rounding out of it."""


def without_loop(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, deaf to the `loop` argument that asyncio no longer has."""

    def call(*args: Any, loop: Any = None, **kwargs: Any) -> Any:
        del loop
        return function(*args, **kwargs)

    return call


def adapt(module: types.ModuleType) -> None:
    """Gives one library module an `asyncio` whose functions ignore `loop`, and leaves the real asyncio alone."""
    own_asyncio = types.ModuleType("asyncio")
    own_asyncio.__dict__.update(asyncio.__dict__)
    for name in ("Queue", "sleep", "wait_for", "open_connection"):
        setattr(own_asyncio, name, without_loop(getattr(asyncio, name)))
    module.asyncio = own_asyncio  # type: ignore[attr-defined]


nats_client = importlib.import_module("nats.aio.client")
stan_client = importlib.import_module("stan.aio.client")
adapt(nats_client)
adapt(stan_client)


def say(event: str, **facts: object) -> None:
    """One line of JSON to the test."""
    sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
    sys.stdout.flush()


class Worker:
    """One connection, its named subscriptions, and at most one running load."""

    def __init__(self) -> None:
        self.nats = nats_client.Client()
        self.stan = stan_client.Client()
        self.subscriptions: dict[str, Any] = {}
        self.unacked: dict[tuple[str, int], Any] = {}
        self.load_task: asyncio.Task[None] | None = None
        self.stopping = False

    async def connect(self, url: str, cluster: str, client_id: str) -> None:
        async def reconnected() -> None:
            say("reconnected")

        async def lost(error: Exception) -> None:
            say("lost", text=str(error))

        await self.nats.connect(
            url,
            loop=asyncio.get_running_loop(),
            reconnect_time_wait=RECONNECT_WAIT_S,
            max_reconnect_attempts=RECONNECT_ATTEMPTS,
            reconnected_cb=reconnected,
        )
        await self.stan.connect(cluster, client_id, nats=self.nats, conn_lost_cb=lost)
        say("connected")

    async def publish(self, channel: str, data: str) -> None:
        say("published", data=data, error=await self.publish_one(channel, data))

    async def publish_one(self, channel: str, data: str) -> str:
        try:
            answer = await self.stan.publish(channel, data.encode(), ack_wait=ACK_TIMEOUT_S)
        except Exception as error:  # noqa: BLE001  the test judges the text
            return f"{type(error).__name__}: {error}"
        return str(answer.error)

    async def load(self, channel: str, prefix: str, count: str, window: str) -> None:
        self.stopping = False
        self.load_task = asyncio.create_task(self.run_load(channel, prefix, int(count), int(window)))

    async def run_load(self, channel: str, prefix: str, count: int, window: int) -> None:
        numbers = iter(range(count))

        async def publisher() -> None:
            for number in numbers:
                data = f"{prefix}{number}"
                say("invoke", data=data)
                say("ack", data=data, error=await self.publish_one(channel, data))
                if self.stopping:
                    return

        await asyncio.gather(*(publisher() for _ in range(window)))
        say("load_done")

    async def stop(self) -> None:
        self.stopping = True

    async def subscribe(
        self,
        name: str,
        channel: str,
        start: str,
        max_in_flight: str,
        ack_wait: str,
        durable: str,
        mode: str,
        group: str,
    ) -> None:
        async def on_message(message: Any) -> None:
            if mode == "manual":
                self.unacked[name, message.sequence] = message
            say(
                "message",
                name=name,
                sequence=message.sequence,
                data=message.data.decode(),
                redelivered=message.proto.redelivered,
            )

        kind, _, value = start.partition(":")
        starts: dict[str, dict[str, Any]] = {
            "new": {"start_at": "new_only"},
            "last": {"start_at": "last_received"},
            "first": {"deliver_all_available": True},
            "sequence": {"start_at": "sequence", "sequence": int(value or 0)},
            "ago": {"start_at": "time", "time": time.time() - int(value or 0) - WHOLE_SECOND_MARGIN_S},
        }
        self.subscriptions[name] = await self.stan.subscribe(
            channel,
            cb=on_message,
            manual_acks=mode == "manual",
            max_inflight=int(max_in_flight),
            ack_wait=int(ack_wait),
            durable_name=None if durable == "-" else durable,
            queue="" if group == "-" else group,
            **starts[kind],
        )
        say("subscribed", name=name)

    async def ack(self, name: str, sequence: str) -> None:
        await self.stan.ack(self.unacked[name, int(sequence)])
        await self.nats.flush()
        say("acked", name=name, sequence=int(sequence))

    async def unsubscribe(self, name: str) -> None:
        await self.subscriptions.pop(name).unsubscribe()
        say("unsubscribed", name=name)

    async def close_subscription(self, name: str) -> None:
        await self.subscriptions.pop(name).close()
        say("subscription_closed", name=name)

    async def close(self) -> None:
        await self.stan.close()
        await self.nats.close()
        say("closed")


async def main() -> None:
    """Runs the commands one after the other; a load goes on beside them."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str] = asyncio.Queue()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line)
        loop.call_soon_threadsafe(lines.put_nowait, "")

    threading.Thread(target=read, daemon=True).start()
    worker = Worker()
    while line := await lines.get():
        command, *arguments = line.split()
        try:
            await getattr(worker, command)(*arguments)
        except Exception as error:  # noqa: BLE001  told to the test, which decides
            say("error", command=command, text=f"{type(error).__name__}: {error}")


asyncio.run(main())
