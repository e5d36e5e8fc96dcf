"""The one thread that writes: a batch is one synced transaction, then a pause.

Called by the owner's thread: `submit` when `is_idle`, `wait` to block. Everything the thread has to say is an event, taken
by `take_events` on the owner's thread after `wake` was called. After a failure it writes nothing more.
"""

import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from store.constants import WRITE_PAUSE_S
from store.errors import WriteError
from store.lmdb.batch import Batch
from store.lmdb.environment import Environment
from store.lmdb.transaction import write

THREAD_NAME: Final = "store-writer"


class Writer:
    """Owns the writing thread. `failure` is why it ended, once the owner has taken that."""

    def __init__(self, environment: Environment, wake: Callable[[], None]) -> None:
        self.failure: WriteError | None = None
        self._environment = environment
        self._wake = wake
        self._batches: SimpleQueue[Batch | None] = SimpleQueue()
        self._events: deque[Batch | WriteError | None] = deque()
        self._new_event = threading.Condition()
        self._is_busy = False
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        self._thread.start()

    @property
    def is_idle(self) -> bool:
        """True when a batch can be submitted."""
        return not self._is_busy and self.failure is None

    def submit(self, batch: Batch) -> None:
        """Write `batch` next."""
        assert self.is_idle
        self._is_busy = True
        self._batches.put(batch)

    def take_events(self) -> list[Batch]:
        """Batches committed since the last call. Notes a failure, and the end of the pause."""
        committed: list[Batch] = []
        while self._events:
            event = self._events.popleft()
            if isinstance(event, Batch):
                committed.append(event)
            elif event is None:
                self._is_busy = False
            else:
                self.failure = event
        return committed

    def wait(self) -> None:
        """Block until there is an event to take. Skips the pause."""
        self._hurry.set()
        with self._new_event:
            self._new_event.wait_for(lambda: self._events)
        self._hurry.clear()

    def stop(self) -> None:
        """End the thread after the batch it writes."""
        self._hurry.set()
        self._batches.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            try:
                write(self._environment, batch)
            except BaseException as error:  # noqa: BLE001 - whatever it is, the owner ends the process with it
                self._tell(WriteError(self._environment.data_path, error))
                return
            self._tell(batch)
            self._hurry.wait(WRITE_PAUSE_S)
            self._tell(None)

    def _tell(self, event: Batch | WriteError | None) -> None:
        with self._new_event:
            self._events.append(event)
            self._new_event.notify()
        self._wake()
