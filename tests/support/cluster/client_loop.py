"""Runs the clients of a run: an event loop in a thread of its own, inside the clients' namespace."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Final, TypeVar

from tests.support.cluster.namespaces import enter_namespace

T = TypeVar("T")

END_TIMEOUT_S: Final = 10.0


class ClientLoop:
    """An event loop whose connections start in the given namespace; on the host when it is empty."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._loop = asyncio.new_event_loop()
        self._started: threading.Event = threading.Event()
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="clients", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise self._failure

    def call(self, work: Coroutine[object, object, T], *, timeout_s: float) -> T:
        """Runs a coroutine there and waits for its result; raises what it raises, or TimeoutError after cancelling it."""

        async def bounded() -> T:
            async with asyncio.timeout(timeout_s):
                return await work

        return asyncio.run_coroutine_threadsafe(bounded(), self._loop).result()

    def close(self) -> None:
        """Cancels what is left and ends the thread."""
        asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).result(END_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(END_TIMEOUT_S)
        self._loop.close()

    def _run(self) -> None:
        try:
            if self._namespace:
                enter_namespace(self._namespace)
        except OSError as error:
            self._failure = error
            return
        finally:
            self._started.set()
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
