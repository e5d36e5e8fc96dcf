"""A simulated NATS: it carries payloads between processes, late, and loses them as the faults want it.

By default what one process sends to another arrives in order, if at all; a network that is not FIFO loses, repeats and overtakes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

from .clock import VirtualTime

Receive: TypeAlias = Callable[[bytes], None]
"""Takes a payload in the process it is for."""


@dataclass(slots=True)
class NetworkFaults:
    """How the network behaves now. Probabilities, and seconds."""

    base_s: float = 0.001
    spike: float = 0.0
    """Probability of a delay of up to `spike_s`."""
    spike_s: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    is_fifo: bool = True


class Network:
    """All links. Node ids are subjects: whoever runs under one gets what is sent there."""

    def __init__(self, time: VirtualTime, random: Random, faults: NetworkFaults) -> None:
        self._time = time
        self._random = random
        self.faults = faults
        self._receivers: dict[str, Receive] = {}
        self._cuts: dict[tuple[str, str], int] = {}
        self._slow_s: dict[tuple[str, str], float] = {}
        self._offline: set[str] = set()
        self._epochs: dict[tuple[str, str], int] = {}
        self._last_s: dict[tuple[str, str], float] = {}
        self.sent = self.lost = 0

    # ---- who is there

    def subscribe(self, node_id: str, receive: Receive) -> None:
        """A process runs under that id now."""
        self._receivers[node_id] = receive

    def unsubscribe(self, node_id: str) -> None:
        """It is gone, and what is under way to it and from it with it."""
        self._receivers.pop(node_id, None)

    # ---- faults

    def cut(self, source: str, destination: str) -> Callable[[], None]:
        """Nothing gets from one to the other until what is returned is called."""
        pair = (source, destination)
        self._cuts[pair] = self._cuts.get(pair, 0) + 1

        def end() -> None:
            if self._cuts.get(pair, 0) > 1:
                self._cuts[pair] -= 1
            else:
                self._cuts.pop(pair, None)

        return end

    def slow(self, source: str, destination: str, seconds: float) -> None:
        """What gets from one to the other comes so much later; 0: as usual."""
        self._slow_s[source, destination] = seconds

    def lose(self, first: str, second: str) -> None:
        """Everything under way between two is lost."""
        for pair in ((first, second), (second, first)):
            self._epochs[pair] = self._epochs.get(pair, 0) + 1

    def set_offline(self, node_id: str, others: Sequence[str], *, is_offline: bool) -> None:
        """A node's connection is lost, with all that was under way, or made anew."""
        if is_offline:
            self._offline.add(node_id)
        else:
            self._offline.discard(node_id)
        for other in others:
            self.lose(node_id, other)

    def heal(self) -> None:
        """Everything gets through again."""
        self._cuts.clear()
        self._slow_s.clear()
        self._offline.clear()
        self.faults = NetworkFaults()

    def reaches(self, source: str, destination: str) -> bool:
        """Whether what is sent now has a chance."""
        return (source, destination) not in self._cuts and not {source, destination} & self._offline

    @property
    def is_whole(self) -> bool:
        """Whether nothing is cut."""
        return not self._cuts and not self._offline

    # ---- payloads

    def send(self, source: str, destination: str, data: bytes) -> None:
        """Carry `data`."""
        self.sent += 1
        faults, random = self.faults, self._random
        if not self.reaches(source, destination) or (faults.loss and random.random() < faults.loss):
            self.lost += 1
            return
        self._deliver_later(source, destination, data)
        if faults.duplicate and random.random() < faults.duplicate:
            self._deliver_later(source, destination, data)

    def delay(self) -> float:
        """Of one payload."""
        faults, random = self.faults, self._random
        delay = faults.base_s * random.uniform(0.3, 1.7)
        if faults.spike and random.random() < faults.spike:
            delay += random.random() * faults.spike_s
        return delay

    def _deliver_later(self, source: str, destination: str, data: bytes) -> None:
        pair = (source, destination)
        when = self._time.now + (0.00005 if source == destination else self.delay() + self._slow_s.get(pair, 0.0))
        if self.faults.is_fifo:
            when = max(when, self._last_s.get(pair, 0.0) + 0.000001)
            self._last_s[pair] = when
        self._time.at(when, self._deliver, pair, self._epochs.get(pair, 0), data)

    def _deliver(self, pair: tuple[str, str], epoch: int, data: bytes) -> None:
        receive = self._receivers.get(pair[1])
        if receive is None or epoch != self._epochs.get(pair, 0) or not self.reaches(*pair):
            self.lost += 1
            return
        receive(data)
