"""Turns process signals into events of the running loop (O225-O228).

| signal | effect |
|---|---|
| SIGINT, SIGTERM | the first of them asks for an orderly stop with exit status 0 or 143; later ones change nothing |
| SIGUSR1 | asks for the log file to be reopened |
| SIGHUP | refused with a log line: this version has no reload |
| SIGUSR2 | ignored with a log line; the default action would kill the process |

Handlers stay in place when the loop is closed. `loop.add_signal_handler` would restore the default actions there, and a
second SIGTERM between the end of the loop and the end of the process would then change the exit status.
"""

import asyncio
import logging
import signal
from collections.abc import Callable
from types import FrameType
from typing import Final

logger = logging.getLogger(__name__)

EXIT_INTERRUPTED: Final = 0
"""Exit status after SIGINT. Source: O225."""

EXIT_TERMINATED: Final = 128 + signal.SIGTERM
"""Exit status after SIGTERM: 143. Source: O225."""

_STOPS: Final = {signal.SIGINT: EXIT_INTERRUPTED, signal.SIGTERM: EXIT_TERMINATED}


class _Signals:
    """What a signal does, run on the loop. `on_stop` is called once at most."""

    __slots__ = ("_on_reopen", "_on_stop", "_stopping")

    def __init__(self, on_stop: Callable[[int], None], on_reopen: Callable[[], None]) -> None:
        self._on_stop = on_stop
        self._on_reopen = on_reopen
        self._stopping = False

    def stop(self, number: signal.Signals) -> None:
        if self._stopping:
            logger.info("%s ignored: the server is stopping already", number.name)
            return
        self._stopping = True
        self._on_stop(_STOPS[number])

    def reopen(self, _number: signal.Signals) -> None:
        self._on_reopen()

    def refuse_reload(self, _number: signal.Signals) -> None:
        logger.warning("SIGHUP ignored: reload is not supported by this version")

    def ignore(self, number: signal.Signals) -> None:
        logger.info("%s ignored", number.name)


def install(loop: asyncio.AbstractEventLoop, on_stop: Callable[[int], None], on_reopen: Callable[[], None]) -> None:
    """Install the handlers. Main thread only, with `loop` running or about to run.

    `on_stop` gets the exit status and is called at most once; `on_reopen` is called for each SIGUSR1. Both run as
    callbacks of `loop`, never inside a signal handler.
    """
    signals = _Signals(on_stop, on_reopen)
    effects: dict[signal.Signals, Callable[[signal.Signals], None]] = {
        signal.SIGINT: signals.stop,
        signal.SIGTERM: signals.stop,
        signal.SIGUSR1: signals.reopen,
        signal.SIGUSR2: signals.ignore,
        signal.SIGHUP: signals.refuse_reload,
    }

    def hand_to_loop(number: int, _frame: FrameType | None) -> None:
        received = signal.Signals(number)
        # A closed loop means that the process is about to end: nothing is left that could stop or reopen.
        if not loop.is_closed():
            loop.call_soon_threadsafe(effects[received], received)

    for number in effects:
        signal.signal(number, hand_to_loop)
