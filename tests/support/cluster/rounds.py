"""One round: start, load, faults drawn from a seed, healing, draining, and all checks; what failed is kept.

The same seed draws the same faults with the same pauses. Where the nodes are in their work at that moment is not
repeatable, so a failure is kept as well: history, deliveries, timeline, logs and stores.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from server.delivery.watchdog import SILENT_TEXT
from tests.support.cluster import artefacts, capabilities, delivery_check, leadership, offline
from tests.support.cluster.calm import Calm
from tests.support.cluster.client_loop import ClientLoop
from tests.support.cluster.cluster import NODES, Cluster, NoLeaderError
from tests.support.cluster.faults import FAULTS
from tests.support.cluster.leadership import CLUSTER
from tests.support.cluster.load import DRAIN_S, Load, LoadSettings
from tests.support.cluster.node import NodeSettings
from tests.support.cluster.processes import ProcessWaitError
from tests.support.cluster.publishers import UNKNOWN_CLIENT_TEXT
from tests.support.cluster.scene import Scene
from tests.support.history import Outcome, Violation, check

HEAL_BOUND_S: Final = 20.0
"""R19: publishing works again this long after healing."""

CLIENTS_TIMEOUT_S: Final = 90.0
"""Bound of what clients repeat until answered; far beyond R19's, so that it is R19 that is reported."""

SILENCE_S: Final = 1.0
"""Without clients nothing is logged, and a heartbeat (150 ms) brings every follower to the leader's end."""

MEMORY_MAX_BYTES: Final = 512 * 1024 * 1024
OPEN_FILES_MAX: Final = 128
"""R20: bounds of one streaming server under this load. It needs about 60 MiB and 15 files when idle."""

BEFORE_NS: Final = 1_000_000_000
AFTER_NS: Final = 3_000_000_000
"""How far a disturbance reaches: what was under way before it, and what settles after it."""


@dataclass(frozen=True, slots=True)
class RoundSettings:
    """What makes a round; two rounds with equal settings draw the same faults."""

    seed: int
    classes: tuple[str, ...]
    """One fault class, or several that run at the same time."""
    names: tuple[str, ...] = NODES
    quiet_s: float = 2.0
    """Load before the first fault and after the last one."""
    faults_s: float = 20.0
    """A new fault begins until then."""
    hold_s: tuple[float, float] = (0.3, 5.0)
    """Bounds of the pause after each step of a fault."""
    load: LoadSettings = field(default_factory=LoadSettings)

    @property
    def label(self) -> str:
        """The classes as on the command line."""
        return "+".join(self.classes)


@dataclass(slots=True)
class RoundResult:
    """What came of a round. `unavailable` says why it was not run; then everything else is empty."""

    settings: RoundSettings
    unavailable: str = ""
    acked: int = 0
    unknown: int = 0
    faults: int = 0
    kills: int = 0
    terms: int = 0
    seconds: float = 0.0
    violations: list[Violation] = field(default_factory=list)
    folder: Path | None = None


def unavailable(classes: Sequence[str]) -> str:
    """Why these classes cannot be run here; empty when they can."""
    missing = capabilities.missing()
    needs = {need for name in classes for need in FAULTS[name].needs}
    return "; ".join(f"{need} not available: {missing[need]}" for need in sorted(needs) if need in missing)


def run_round(settings: RoundSettings, keep: Path | None = None) -> RoundResult:
    """Runs one round. With `keep`, a failed round leaves a folder below it."""
    reason = unavailable(settings.classes)
    if reason:
        return RoundResult(settings, unavailable=reason)
    return _Round(settings).run(keep)


class _Round:
    """A round under way."""

    def __init__(self, settings: RoundSettings) -> None:
        self._settings = settings
        self._classes = [FAULTS[name] for name in settings.classes]
        self._chance = random.Random(f"{settings.seed} {settings.label}")
        self._result = RoundResult(settings)
        self._timeline: list[tuple[int, str]] = []
        self._disturbed: list[tuple[int, int]] = []
        self._pause = threading.Event()
        self._peaks: Counter[str] = Counter()
        node_settings = NodeSettings(
            clustered=len(settings.names) > 1,
            options=tuple(option for one in self._classes for option in one.options),
            is_clock_faked=any(one.is_clock_faked for one in self._classes),
        )
        self._cluster = Cluster(settings.names, node_settings)
        self._loop = ClientLoop(self._cluster.network.clients_namespace)
        self._load = Load(
            self._cluster.urls, node_settings.cluster_id, f"load {settings.seed} {settings.label}", settings.load
        )
        self._scene = Scene(self._cluster, self._loop, self._load, self._chance)

    def run(self, keep: Path | None) -> RoundResult:
        """Everything, and the removal of everything."""
        result, started = self._result, time.monotonic()
        try:
            self._run_phases()
            result.violations += self._scene.violations
            result.violations += self._check_processes()
            result.acked = self._load.history.count(Outcome.OK)
            result.unknown = len(self._load.history.publishes) - result.acked
            result.kills = self._cluster.kills
            result.terms = len({one.term for one in self._cluster.leaderships()})
            result.seconds = time.monotonic() - started
            if result.violations and keep is not None:
                result.folder = artefacts.keep(keep, self._cluster, self._load, result, self._timeline)
        finally:
            self._loop.close()
            self._cluster.close()
        return result

    def _run_phases(self) -> None:
        """What keeps a phase from its end is a violation, and ends the round."""
        try:
            self._start()
            self._rest(self._settings.quiet_s)
            self._break_things()
            self._rest(self._settings.quiet_s)
            self._finish()
        except NoLeaderError as error:
            self._violate("R19", str(error))
        except ProcessWaitError as error:
            self._violate("R19", str(error))
        except TimeoutError as error:
            self._violate("R19", f"{self._timeline[-1][1]}: clients were not answered: {error!r}")

    def _start(self) -> None:
        self._note("start")
        self._cluster.start()
        self._cluster.leader()
        self._loop.call(self._load.start(), timeout_s=CLIENTS_TIMEOUT_S)
        self._await_service(time.monotonic_ns())

    # ---- faults

    def _break_things(self) -> None:
        end = time.monotonic() + self._settings.faults_s
        while time.monotonic() < end:
            begun_ns = time.monotonic_ns()
            self._result.faults += 1
            for text in self._interleaved():
                self._note(text)
                self._look_at_resources()
                self._rest(self._chance.uniform(*self._settings.hold_s))
            for text in self._cluster.heal():
                self._note(text)
            self._note("healed")
            self._await_service(time.monotonic_ns())
            self._disturbed.append((begun_ns, time.monotonic_ns()))
            self._rest(self._chance.uniform(*self._settings.hold_s))

    def _interleaved(self) -> Iterator[str]:
        """The steps of one fault of each class, in an order drawn from the seed."""
        running = [one.inject(self._scene) for one in self._classes]
        while running:
            steps = self._chance.choice(running)
            try:
                yield next(steps)
            except StopIteration:
                running.remove(steps)

    def _await_service(self, since_ns: int) -> None:
        """R19."""
        try:
            self._loop.call(self._load.wait_acked(since_ns), timeout_s=HEAL_BOUND_S)
        except TimeoutError:
            self._violate("R19", f"no publish is acked {HEAL_BOUND_S} s after {self._timeline[-1][1]!r}")
            self._loop.call(self._load.wait_acked(since_ns), timeout_s=CLIENTS_TIMEOUT_S)
        self._note("publishing works")

    def _look_at_resources(self) -> None:
        """R20: what each server uses at its highest."""
        for name, node in self._cluster.nodes.items():
            for kind, used in (("memory", node.server.memory_bytes()), ("files", node.server.open_files())):
                key = f"{kind} of {name}"
                self._peaks[key] = max(self._peaks[key], used)

    def _rest(self, seconds: float) -> None:
        self._pause.wait(seconds)

    def _note(self, text: str) -> None:
        self._timeline.append((time.monotonic_ns(), text))

    def _violate(self, invariant: str, text: str) -> None:
        self._result.violations.append(Violation(invariant, CLUSTER, text))

    # ---- checks

    def _finish(self) -> None:
        """Quiet, then everything that was promised."""
        load, result = self._load, self._result
        self._note("publishing ends")
        self._loop.call(load.finish_publishing(), timeout_s=CLIENTS_TIMEOUT_S)
        read = self._loop.call(load.read_back(), timeout_s=CLIENTS_TIMEOUT_S * 2)
        last = {channel: max((sequence for sequence, _ in pairs), default=0) for channel, pairs in read.items()}
        self._note("draining")
        self._loop.call(load.drain(last), timeout_s=DRAIN_S + CLIENTS_TIMEOUT_S)
        self._look_at_resources()
        self._loop.call(load.close(), timeout_s=CLIENTS_TIMEOUT_S)
        self._note("drained")
        calm = self._calm()
        holds_back = any(one.holds_back for one in self._classes)
        if holds_back:
            self._forget_order(calm)
        result.violations += check(load.history, read)
        for recording in load.recordings:
            result.violations += delivery_check.check(recording, last[recording.channel], calm, holds_back=holds_back)
        result.violations += self._check_contents(read)
        result.violations += self._check_leaders()
        result.violations += self._compare_stores()

    def _calm(self) -> Calm:
        """Everything that disturbs: faults, changes of the leader whatever their reason, lost connections of clients."""
        changes = [moment for one in self._cluster.leaderships() for moment in (one.start_ns, one.end_ns)]
        spans = [*self._disturbed, *self._load.interruptions, *((moment, moment) for moment in changes)]
        return Calm.except_for(spans, before_ns=BEFORE_NS, after_ns=AFTER_NS)

    def _forget_order(self, calm: Calm) -> None:
        """Makes each publish sent outside calm a connection of its own to the check of R5.

        A broken link breaks connections between nats-servers, and they still read from one that they gave up (seen): what
        it held back arrives behind what took the new one.
        """
        for publish in self._load.history.publishes.values():
            if not calm.covers(publish.invoked_ns, publish.invoked_ns):
                publish.worker = f"{publish.worker} {publish.unique_id}"

    def _check_contents(self, read: dict[str, list[tuple[int, str]]]) -> list[Violation]:
        """R2, R4: every subscriber got at a sequence what the reader got there."""
        found = []
        for recording in self._load.recordings:
            stored = dict(read[recording.channel])
            events = [event for event in recording.events if isinstance(event, delivery_check.Received)]
            wrong = [event for event in events if stored.get(event.sequence) != event.unique_id]
            if wrong:
                text = f"{recording.name} got something else {len(wrong)} times: {wrong[0]}"
                found.append(Violation("R4", recording.channel, text))
        return found

    def _check_leaders(self) -> list[Violation]:
        if not self._cluster.settings.clustered:
            return []
        pauses = {name: node.server.pauses for name, node in self._cluster.nodes.items()}
        return leadership.check(self._cluster.leaderships(), pauses)

    def _compare_stores(self) -> list[Violation]:
        """R6, after all servers were killed: a moment of silence before, so that all have what the last one logged."""
        self._rest(SILENCE_S)
        for node in self._cluster.nodes.values():
            node.server.kill()
        nodes = {
            name: offline.StoppedNode(node.data_directory, node.log_directory, node.is_damaged)
            for name, node in self._cluster.nodes.items()
        }
        try:
            comparison = offline.compare(nodes, self._cluster.directory / "copies")
        except Exception as error:  # noqa: BLE001  whatever opening a damaged store raises
            return [Violation("R6", CLUSTER, f"a stopped node cannot be opened: {error!r}")]
        for text in (*comparison.damage, f"stores compared at index {comparison.index}"):
            self._note(text)
        return comparison.violations

    def _check_processes(self) -> list[Violation]:
        """R19, R20 and what logs must not hold."""
        found = [Violation("R19", CLUSTER, text) for text in self._cluster.unexpected_ends()]
        for key, used in self._peaks.items():
            bound = MEMORY_MAX_BYTES if key.startswith("memory") else OPEN_FILES_MAX
            if used > bound:
                found.append(Violation("R20", CLUSTER, f"{key}: {used}; allowed: {bound}"))
        for name, node in self._cluster.nodes.items():
            bad = [text for text in node.server.texts() if SILENT_TEXT in text or text.startswith("Traceback")]
            if bad:
                found.append(Violation("log", CLUSTER, f"{name} logged {len(bad)} times: {bad[0]}"))
        for text, times in self._load.errors().items():
            if UNKNOWN_CLIENT_TEXT in text:
                found.append(Violation("B390", CLUSTER, f"{times} publishes refused: {text}"))
        return found
