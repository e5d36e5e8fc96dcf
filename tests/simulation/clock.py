"""Virtual time: one queue of calls for the whole cluster, and for each process the part of an event loop that a node needs.

Calls at the same time run in the order they were made. A process that is paused gets its calls late, in the same order; one
that was killed never gets them. The digest sums up everything that ran, so that two runs can be compared.
"""

import asyncio
import contextvars
from asyncio import events
from collections.abc import Callable, Coroutine
from heapq import heappop, heappush
from typing import Final, cast

START_S: Final = 1000.0
"""Time at which a simulation begins, seconds."""

TURN_S: Final = 0.00001
"""What a turn of a process's loop takes, seconds: between two of them the process may be killed."""

_DIGEST_MASK: Final = 2**64 - 1


class Call:
    """A call to be made; that of nobody if `loop` is None."""

    __slots__ = ("args", "callback", "context", "loop")

    def __init__(
        self,
        loop: "ProcessLoop | None",
        callback: Callable[..., object],
        args: tuple[object, ...],
        context: contextvars.Context | None = None,
    ) -> None:
        self.loop = loop
        self.callback: Callable[..., object] | None = callback
        self.args = args
        self.context = context

    def cancel(self) -> None:
        """Do not make it."""
        self.callback = None


class VirtualTime:
    """The clock of the cluster. `after` is told of every call that was made for a process."""

    def __init__(self) -> None:
        self.now = START_S
        self.digest = 0
        self.steps = 0
        self.after: Callable[[ProcessLoop], None] = lambda loop: None
        self._queue: list[tuple[float, int, Call]] = []
        self._count = 0

    def at(self, when: float, callback: Callable[..., object], *args: object) -> Call:
        """Make a call of the world's own at `when`."""
        return self.put(when, Call(None, callback, args))

    def later(self, delay_s: float, callback: Callable[..., object], *args: object) -> Call:
        """The same, `delay_s` from now."""
        return self.put(self.now + delay_s, Call(None, callback, args))

    def put(self, when: float, call: Call) -> Call:
        """Queue `call`."""
        self._count += 1
        heappush(self._queue, (when, self._count, call))
        return call

    def note(self, *facts: float) -> None:
        """Let the digest cover `facts`: numbers only, whose hash is the same in every process."""
        self.digest = hash((self.digest, *facts)) & _DIGEST_MASK

    def run_until(self, is_over: Callable[[], bool], end: float) -> bool:
        """Make calls in order of time until `is_over`, which is asked after each; False when `end` comes first."""
        while not is_over():
            if not self._queue or self._queue[0][0] > end:
                self.now = max(self.now, end)
                return False
            self._step()
        return True

    def _step(self) -> None:
        when, _, call = heappop(self._queue)
        callback, loop = call.callback, call.loop
        if callback is None:
            return
        self.now = max(self.now, when)
        if loop is None:
            callback(*call.args)
            return
        if loop.is_dead:
            return
        if loop.resume_at > self.now:
            self.put(loop.resume_at + (loop.timers_late_s if call.context is None and not call.args else 0.0), call)
            return
        self.steps += 1
        self.note(self.now, loop.number)
        if call.context is None:
            callback(*call.args)
        else:
            events._set_running_loop(cast("asyncio.AbstractEventLoop", loop))
            try:
                call.context.run(callback, *call.args)
            finally:
                events._set_running_loop(None)
        self.after(loop)


class ProcessLoop:
    """The loop of one process. Port: `Scheduler`; enough of an event loop for tasks, events and timeouts, too."""

    def __init__(self, time: VirtualTime, number: int) -> None:
        self.number = number
        self.is_dead = False
        self.resume_at = 0.0
        self.timers_late_s = 0.0
        """How much later than what else waited timers ring once the process goes on."""
        self._time = time
        self._coroutines: list[Coroutine[object, object, object]] = []

    def time(self) -> float:
        """Monotonic seconds."""
        return self._time.now

    def call_soon(
        self, callback: Callable[..., object], *args: object, context: contextvars.Context | None = None
    ) -> Call:
        """Call in the next turn."""
        return self._time.put(self._time.now + TURN_S, Call(self, callback, args, context))

    def call_at(
        self, when: float, callback: Callable[..., object], *args: object, context: contextvars.Context | None = None
    ) -> Call:
        """Call at `when`, or now if that is over."""
        return self._time.put(max(when, self._time.now), Call(self, callback, args, context))

    def call_later(self, delay_s: float, callback: Callable[..., object], *args: object) -> Call:
        """Call `delay_s` from now."""
        return self.call_at(self._time.now + delay_s, callback, *args)

    def pause(self, seconds: float, *, timers_late_s: float = 0.0) -> None:
        """Stop the process for `seconds`, as SIGSTOP does."""
        self.resume_at = max(self.resume_at, self._time.now + seconds)
        self.timers_late_s = timers_late_s

    def run(self, coroutine: Coroutine[object, object, object]) -> "asyncio.Task[object]":
        """Begin a coroutine in this process."""
        self._coroutines.append(coroutine)
        return asyncio.Task(coroutine, loop=cast("asyncio.AbstractEventLoop", self))

    def kill(self) -> None:
        """Nothing of this process runs any more."""
        self.is_dead = True
        for coroutine in self._coroutines:
            coroutine.close()

    # What tasks and futures ask their loop for.

    def create_future(self) -> "asyncio.Future[object]":
        """A future of this loop."""
        return asyncio.Future(loop=cast("asyncio.AbstractEventLoop", self))

    def get_debug(self) -> bool:
        """No."""
        return False

    def call_exception_handler(self, context: dict[str, object]) -> None:
        """A task was dropped with its process, or its coroutine raised: the second is a fault of the simulation."""
        if not self.is_dead and "exception" in context:
            raise AssertionError(str(context))
