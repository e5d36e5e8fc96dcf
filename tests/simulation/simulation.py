"""One seed: a cluster with its profile, faults for a while, then healing, one failover, and the end, where all must agree.

After healing a new proposal must be applied within RECOVERY_S, after the death of a healthy cluster's leader within
FAILOVER_S, and all nodes must be equal within CONVERGENCE_S (R19). What the nodes keep is bounded (R20).
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Final, TypeVar

from raft.engine.kernel import APPLY_ENTRIES_MAX
from raft.membership import Member
from raft.snapshot.exchange import UNUSABLE_RETRY_S
from raft.trailing import TrailingBounds

from . import payload
from .checks import Checks
from .clock import ProcessLoop, VirtualTime
from .disk import JournalImage
from .faults import Faults
from .host import Host, Observer, Process, incarnation_of
from .machine import ChainMachine, Pace
from .network import Network, NetworkFaults
from .profile import Profile, calm, draw
from .proposals import Proposals
from .violation import ViolationError
from .workload import Workload

FORMATION_S: Final = 10.0
RECOVERY_S: Final = 10.0
FAILOVER_S: Final = 5.0
CONVERGENCE_S: Final = 40.0
MEMBERS_S: Final = 3.0
"""How often the operator looks whether all wanted nodes are members once everything works."""


M = TypeVar("M", bound=ChainMachine)


@dataclass(frozen=True, slots=True)
class Result:
    """What a seed did. Times in virtual seconds."""

    seed: int
    digest: int
    violation: ViolationError | None
    entries: int
    applied: int
    elections: int
    crashes: int
    snapshots: int
    faults: int
    failover_s: float | None
    recovery_s: float | None
    virtual_s: float


class Simulation:
    """The world of one seed. Also the `World` that its parts know."""

    def __init__(self, seed: int, profile: Profile, *, is_traced: bool = False) -> None:
        self.seed = seed
        self.profile = profile
        self.random = Random(seed)
        self.time = VirtualTime()
        self.network = Network(self.time, self.random, NetworkFaults())
        self.numbers = count(1)
        self.hosts: dict[str, Host] = {}
        self.journals: dict[Member, JournalImage] = {}
        self.trailing = TrailingBounds(entries_max=profile.trailing_entries)
        self.secret = b"secret of the cluster" if profile.has_secret else None
        self.payload_max_bytes = profile.payload_max_bytes
        self.pace = Pace(snapshot_bytes=profile.snapshot_bytes, failure=profile.snapshot_failure)
        self.proposals = self.make_proposals()
        self.checks = Checks(self, self.proposals)
        self.observer: Observer = self.checks
        if is_traced:
            self.checks.trace = []
        self.faults = Faults(self, profile, self.start)
        self.workload = self.make_workload()
        self.time.after = self._after
        self._processes: dict[ProcessLoop, Process] = {}
        self.installed: list[ChainMachine] = []
        self._is_restored = False
        self._since = 0.0
        self.recovery_s: float | None = None
        self.failover_s: float | None = None
        self.began_s = self.time.now

    # ---- what another layer makes otherwise

    def make_proposals(self) -> Proposals:
        """The record of proposals."""
        return Proposals(payload.number_of)

    def make_workload(self) -> Workload:
        """The writers."""
        return Workload(self, self.profile, self.proposals)

    def make_machine(self, process: Process) -> ChainMachine:
        """The state machine of a process."""
        return self.machine_of(ChainMachine, process)

    def machine_of(self, kind: type[M], process: Process) -> M:
        """A machine of that kind."""
        machine = kind(
            process.host.store,
            time=self.time,
            loop=process.loop,
            random=self.random,
            pace=self.pace,
            numbers=self.numbers,
            applied=lambda entry, chain: self.checks.applied(process, entry, chain),
            moment=process.moment,
        )
        self.installed.append(machine)
        return machine

    # ---- the run

    def run(self) -> None:
        """All of it. Raises ViolationError."""
        profile = self.profile
        ids = [f"n{number + 1}" for number in range(profile.node_count)]
        for number, node_id in enumerate(ids):
            peers: tuple[str, ...] = tuple(ids)
            if profile.is_grown:
                peers = (node_id,) if number == 0 else ()
            host = Host(node_id, number + 1, peers, incarnation_of(self.random))
            host.speed.base_s = self.random.choice((0.0003, 0.001, 0.004))
            self.hosts[node_id] = host
            self.journals[host.member] = host.journal
            self.time.later(self.random.uniform(0.0, 1.0), self._first_start, host)
        self.workload.begin()
        if profile.is_calm:
            self._await(self.is_converged, FORMATION_S, "R19", "no cluster was formed")
            self._calm_run()
        else:
            self._rough_run()

    def _rough_run(self) -> None:
        self.faults.begin()
        self.time.run_until(lambda: False, self.time.now + self.profile.fault_s)
        self.checks.note("-- heal")
        self.faults.heal()
        self.pace.failure = 0.0
        self.workload.is_steady = True
        pause = max(0.0, self.pace.unusable_s + UNUSABLE_RETRY_S - self.time.now)  # a member may wait so long
        self._await_new(RECOVERY_S + pause, "after healing")
        self.recovery_s = self._since
        self.time.later(MEMBERS_S, self._restore_members)
        self._await(self.is_whole, CONVERGENCE_S, "R19", "after healing not all nodes are members and alike")
        self._is_restored = True
        self._fail_over()
        self.workload.stop()
        self._await(self.is_converged, CONVERGENCE_S, "R19", "in the end not all nodes are alike")
        self._check_end()

    def _calm_run(self) -> None:
        self.faults.begin()
        terms = self._terms()
        self.time.run_until(lambda: False, self.time.now + self.profile.fault_s)
        self.faults.heal()
        after = self._terms()
        if after != terms:
            raise ViolationError("F16", f"the term changed from {terms} to {after} though nobody failed")
        self.workload.stop()
        self._await(self.is_converged, CONVERGENCE_S, "R19", "in the end not all nodes are alike")
        self._check_end()

    def _fail_over(self) -> None:
        """The leader of a healthy cluster dies."""
        leader = self.leader()
        if leader is None or len(self.hosts) == 1:
            return
        host = leader.host
        self.checks.note(f"-- failover: kill {host.node_id}")
        leader.kill()
        host.is_wanted = False  # nobody starts it meanwhile
        self._await_new(FAILOVER_S, f"after the leader {host.node_id} died")
        self.failover_s = self._since
        host.is_wanted = True
        self.start(host)

    def _await_new(self, within_s: float, when: str) -> None:
        """Wait for the end of a proposal made from now on."""
        begin, known = self.time.now, len(self.proposals.all)

        def is_new() -> bool:
            proposals = self.proposals
            return proposals.applied_s > begin and any(one.applied_s is not None for one in proposals.all[known:])

        self._await(is_new, within_s, "R19", f"{when} no new proposal was applied")

    def _await(self, is_over: Callable[[], bool], within_s: float, rule: str, text: str) -> None:
        begin = self.time.now
        if not self.time.run_until(is_over, begin + within_s):
            raise ViolationError(rule, f"{text} within {within_s} s: {self._state_of_all()}")
        self._since = self.time.now - begin

    def _state_of_all(self) -> str:
        lines = []
        for host in self.hosts.values():
            process = host.process
            if process is None:
                lines.append(f"{host.node_id} is down")
                continue
            one = process.node.statistics()
            lines.append(
                f"{host.node_id} {one.role.name} term={one.term} members={','.join(one.members)} applied={one.last_applied}"
                f" commit={one.commit_index} last={one.last_index} leader={one.leader_id}"
            )
        return "; ".join(lines)

    # ---- processes

    def start(self, host: Host) -> None:
        """Begin a process on a host, unless one runs."""
        if host.is_alive:
            return
        process = Process(self, host)
        self._processes[process.loop] = process
        process.note("starts")

    def _first_start(self, host: Host) -> None:
        if not host.is_alive and host.start_count == 0:
            self.start(host)

    def _after(self, loop: ProcessLoop) -> None:
        if not loop.is_dead:
            self.checks.after_call(self._processes[loop])

    def _running(self) -> list[Host]:
        return [host for host in self.hosts.values() if host.process is not None]

    def _terms(self) -> set[int]:
        return {host.process.node.term for host in self.hosts.values() if host.process is not None}

    def leader(self) -> Process | None:
        """The node that serves, in the latest term."""
        leading = [
            host.process for host in self._running() if host.process is not None and host.process.takes_proposals
        ]
        return max(leading, key=lambda one: one.node.term, default=None)

    # ---- the end

    def _restore_members(self) -> None:
        """The operator adds again what was removed, and looks whether that was done."""
        if self._is_restored:
            return
        leader = self.leader()
        if leader is not None and leader.node.configuration is not None:
            for host in self.hosts.values():
                is_there = leader.node.configuration.find(host.node_id) is not None
                if not host.is_wanted or not is_there:
                    host.is_wanted = True
                    self.faults.add_again(leader, host)
        self.time.later(MEMBERS_S, self._restore_members)

    def is_whole(self) -> bool:
        """Every host runs and is a member, and all have applied about the same."""
        if not all(
            host.process is not None and host.is_wanted and not host.process.is_stopping for host in self.hosts.values()
        ):
            return False
        leader = self.leader()
        if leader is None or leader.node.configuration is None:
            return False
        members = {host.member for host in self.hosts.values()}
        return all(
            host.process is not None
            and host.process.node.configuration is not None
            and set(host.process.node.configuration.members) == members
            and host.process.node.last_applied >= leader.node.last_applied - 10
            and host.store.state.index >= host.lacks_to
            for host in self.hosts.values()
        )

    def is_converged(self) -> bool:
        """Everybody has applied everything, durably."""
        leader = self.leader()
        if leader is None or not self.is_whole():
            return False
        last = leader.log[-1][1]
        return all(
            host.store.state.index == last and host.journal.log.next_index == last + 1 for host in self.hosts.values()
        )

    def _check_end(self) -> None:
        self.checks.check_log()
        states = {host.store.state.chain for host in self.hosts.values()}
        if len(states) != 1:
            raise ViolationError("R6", "stores differ in the end")
        for host in self._running():
            process = host.process
            assert process is not None
            kept = len(process.log)
            allowed = process.entries_at_start + self.profile.trailing_entries + APPLY_ENTRIES_MAX
            if process.machine.copied_index is not None:
                allowed += process.log[-1][1] - process.machine.copied_index
            if kept > allowed:
                raise ViolationError("R20", f"{host.node_id} keeps {kept} entries in memory; allowed: {allowed}")

    @property
    def snapshot_count(self) -> int:
        """Snapshots that were installed."""
        return sum(machine.installed_count for machine in self.installed)


def profile_of(seed: int, node_count: int, *, is_calm: bool = False) -> Profile:
    """What a seed draws."""
    random = Random(f"{seed}/{node_count}")
    return calm(random, node_count) if is_calm else draw(random, node_count)


def run_seed(
    seed: int,
    node_count: int,
    *,
    is_calm: bool = False,
    is_traced: bool = False,
    kind: "type[Simulation] | None" = None,
) -> tuple[Result, Simulation]:
    """Run a seed to its end or its first violation."""
    profile = profile_of(seed, node_count, is_calm=is_calm)
    simulation = (kind or Simulation)(seed, profile, is_traced=is_traced)
    violation = None
    with quiet_logs():
        try:
            simulation.run()
        except ViolationError as error:
            violation = error
    checks = simulation.checks
    return (
        Result(
            seed=seed,
            digest=simulation.time.digest,
            violation=violation,
            entries=len(checks.log) - 1,
            applied=simulation.proposals.applied_count,
            elections=checks.election_count,
            crashes=simulation.faults.crash_count,
            snapshots=simulation.snapshot_count,
            faults=simulation.faults.fault_count,
            failover_s=simulation.failover_s,
            recovery_s=simulation.recovery_s,
            virtual_s=simulation.time.now - simulation.began_s,
        ),
        simulation,
    )


@contextmanager
def quiet_logs() -> Iterator[None]:
    """What the nodes log is of no interest: faults are many."""
    logger = logging.getLogger("raft")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
