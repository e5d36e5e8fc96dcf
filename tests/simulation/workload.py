"""Writers: bursts of proposals at whoever serves, pipelined, of all sizes; bounded as the server bounds them."""

from random import Random

from raft.errors import NotLeaderError
from raft.proposals import Applied, Outcome

from . import payload
from .host import Process, World
from .profile import Profile
from .proposals import Proposals
from .sizes import BIG_BYTES, HUGE_BYTES, OUTSTANDING_MAX, OUTSTANDING_MAX_BYTES
from .violation import ViolationError


class Workload:
    """Makes proposals until `stop`."""

    def __init__(self, world: World, profile: Profile, proposals: Proposals) -> None:
        self._world = world
        self._profile = profile
        self._proposals = proposals
        self._random: Random = world.random
        self._is_over = False
        self.is_steady = False
        """No pauses between bursts any more."""
        self._waiting: dict[Process, int] = {}
        self._waiting_bytes: dict[Process, int] = {}

    def begin(self) -> None:
        """From now on."""
        self._next()

    def stop(self) -> None:
        """No more."""
        self._is_over = True

    def _next(self) -> None:
        delay = self._random.expovariate(1 / self._profile.burst_interval_s)
        if not self.is_steady and self._random.random() < self._profile.quiet:
            delay += self._random.uniform(0.5, 3.0)
        self._world.time.later(delay, self._burst)

    def _burst(self) -> None:
        if self._is_over:
            return
        count = self._random.choice((1, 1, 2, 3, 10))
        running = [host.process for host in self._world.hosts.values() if host.process is not None]
        for process in running:
            if process.node.is_serving or self._random.random() < 0.01:
                process.loop.call_soon(self._propose, process, count)
        self._next()

    def _propose(self, process: Process, count: int) -> None:
        for _ in range(count):
            if self._has_room(process):
                self.propose(process, self._size())

    def _has_room(self, process: Process) -> bool:
        return (
            self._waiting.get(process, 0) < OUTSTANDING_MAX
            and self._waiting_bytes.get(process, 0) < OUTSTANDING_MAX_BYTES
        )

    def _size(self) -> int:
        drawn = self._random.random()
        if drawn < self._profile.huge:
            return HUGE_BYTES
        if drawn < self._profile.huge + self._profile.big:
            return self._random.randint(1000, BIG_BYTES)
        return self._random.choice((10, 20, 150, 2000))

    def propose(self, process: Process, size: int) -> None:
        """One proposal at that node, and now and then another one from inside its end."""
        node, time = process.node, self._world.time
        parts = payload.parts(len(self._proposals.all), size)
        proposal = self._proposals.new(time.now, parts)
        serves = process.takes_proposals

        def done(outcome: Outcome) -> None:
            self._waiting[process] -= 1
            self._waiting_bytes[process] -= size
            if isinstance(outcome, Applied):
                if proposal.index is None:
                    raise ViolationError("R18", f"proposal {proposal.number} ended before it was made")
                self._proposals.applied(proposal, time.now)
                if self._random.random() < 0.05 and node.is_serving and not self._is_over:
                    self.propose(process, 20)

        try:
            proposal.index = node.propose(parts, done)
        except NotLeaderError:
            if serves:
                raise ViolationError("R18", f"{process.host.node_id} serves and takes no proposal") from None
            return
        self._waiting[process] = self._waiting.get(process, 0) + 1
        self._waiting_bytes[process] = self._waiting_bytes.get(process, 0) + size
