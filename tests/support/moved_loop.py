"""An event loop whose time the test moves: nothing sleeps, callbacks run in the order asyncio would run them."""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

NS = 1_000_000_000

_T = TypeVar("_T")


class MovedLoop(asyncio.AbstractEventLoop):
    """Time is an int of nanoseconds and moves only by `move` and `run_task`. Errors of callbacks are kept in `errors`."""

    def __init__(self, start_ns: int = 1000 * NS) -> None:
        self.now_ns = start_ns
        self.errors: list[dict[str, Any]] = []
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[int, int, asyncio.TimerHandle]] = []
        self._count = 0

    # ---- what the test does

    def run(self) -> None:
        """Run what is ready, and what that makes ready, at the present time."""
        asyncio.events._set_running_loop(self)
        try:
            while True:
                while self._timers and self._timers[0][0] <= self.now_ns:
                    self._ready.append(heapq.heappop(self._timers)[2])
                if not self._ready:
                    return
                for _ in range(len(self._ready)):
                    handle = self._ready.popleft()
                    if not handle.cancelled():
                        handle._run()
        finally:
            asyncio.events._set_running_loop(None)

    def turn(self) -> None:
        """Run what is ready now, but not what that makes ready."""
        ready, self._ready = self._ready, deque()
        for handle in ready:
            if not handle.cancelled():
                handle._run()

    def move(self, seconds: float) -> None:
        """Let time pass; every timer on the way runs at its time."""
        end_ns = self.now_ns + round(seconds * NS)
        self.run()
        while self._timers and self._timers[0][0] <= end_ns:
            self.now_ns = max(self.now_ns, self._timers[0][0])
            self.run()
        self.now_ns = end_ns

    def run_task(self, coroutine: Coroutine[Any, Any, _T], *, within_s: float = 60.0) -> _T:
        """Run `coroutine` to its end, moving time from timer to timer; raises TimeoutError."""
        task: asyncio.Task[_T] = asyncio.Task(coroutine, loop=self)
        end_ns = self.now_ns + round(within_s * NS)
        self.run()
        while not task.done():
            if not self._timers or self._timers[0][0] > end_ns:
                task.cancel()
                self.run()
                raise TimeoutError(f"not done within {within_s} s of moved time")
            self.now_ns = max(self.now_ns, self._timers[0][0])
            self.run()
        return task.result()

    def timers(self) -> list[asyncio.TimerHandle]:
        """Timers that will run."""
        return [timer for _, _, timer in self._timers if not timer.cancelled()]

    # ---- what asyncio and the code under test call

    def time(self) -> float:
        return self.now_ns / NS

    def call_soon(  # type: ignore[override]  # *args of any types
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]  # *args of any types
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self._at_ns(self.now_ns + max(round(delay * NS), 0), callback, args, context)

    def call_at(  # type: ignore[override]  # *args of any types
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self._at_ns(round(when * NS), callback, args, context)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def get_debug(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are skipped when their time comes."""

    def _at_ns(
        self, when_ns: int, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when_ns / NS, callback, args, self, context)
        self._count += 1
        heapq.heappush(self._timers, (when_ns, self._count, timer))
        return timer
