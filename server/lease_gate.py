"""Decides whether a leader may speak: only while it is certain that no other node leads (B401).

The node tells with `hold` and `release`. After a pause of the process something may run before the node has noticed, so
whoever begins a turn asks with `confirm`; a no holds as well, until `release`, or until the node is certain again.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

RECHECK_S: Final = 0.05
"""While nobody but `is_confirmed` said no it is asked again after this time, seconds: the node may not have noticed."""


@dataclass(slots=True)
class LeaseGate:
    """Open while this node may speak. Ends with the leadership."""

    is_confirmed: Callable[[], bool]
    loop: asyncio.AbstractEventLoop
    on_held: Callable[[], None]
    on_released: Callable[[], None]
    is_open: bool = True
    _is_ended: bool = False
    _recheck: asyncio.TimerHandle | None = None
    """Set while held because of `is_confirmed` alone."""

    def confirm(self) -> bool:
        """Whether this turn may speak."""
        if not self.is_open:
            return False
        if self.is_confirmed():
            return True
        self._recheck = self.loop.call_later(RECHECK_S, self._ask_again)
        self._close()
        return False

    def hold(self) -> None:
        """The node is not certain any more, and will tell when it is."""
        self._cancel()
        if self.is_open:
            self._close()

    def release(self) -> None:
        """The node is certain again."""
        self._cancel()
        if not (self.is_open or self._is_ended):
            self.is_open = True
            self.on_released()

    def end(self) -> None:
        """The leadership is over: closed for good, and nobody is told."""
        self._cancel()
        self.is_open = False
        self._is_ended = True

    def _close(self) -> None:
        self.is_open = False
        self.on_held()

    def _ask_again(self) -> None:
        if self.is_confirmed():
            self.release()
        else:
            self._recheck = self.loop.call_later(RECHECK_S, self._ask_again)

    def _cancel(self) -> None:
        if self._recheck is not None:
            self._recheck.cancel()
            self._recheck = None
