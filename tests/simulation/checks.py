"""The invariants, checked while the cluster runs. Numbers are those of the specification of reliability.

R1, R2, R5: at the end, from what was proposed and what is in the log (`proposals`).
R6: the same chain at the same index on every node, over restarts and snapshots.
R7: one leader in a term, and never two nodes that serve with a majority's confirmation.
R8: a vote or an acknowledgement that leaves a node asserts nothing that its disk does not have.
Raft: a new leader has all that was committed before its term; what is committed is durable on a majority; nothing committed
is taken back; entries are applied once and in order (`machine`); the commit index never falls.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from raft.engine import Role
from raft.errors import WireError
from raft.link.frame import MAC_BYTES, Frame, FrameKind, decode_frame
from raft.membership import Member
from raft.messages import AppendResponse, Message, VoteRequest, VoteResponse
from raft.sender import APPEND_BYTES, WINDOW_BYTES
from raft.state_machine import CommittedEntry
from raft.trailing import TRAILING_BYTES_MAX
from raft.wire import decode

from .disk import first_known_index
from .host import Process, World
from .proposals import Proposals
from .sizes import HUGE_BYTES, OUTSTANDING_MAX_BYTES
from .violation import ViolationError

SMALL_BYTES: Final = 1024
"""Frames above this size carry neither votes nor acknowledgements, bytes."""

COMPARED_ENTRIES: Final = 50
"""How many committed entries a new leader is checked for, from the last one on."""

STATISTICS_EVERY: Final = 64
"""Calls of a process between two looks at its statistics: they cost more than the rest."""


MEMORY_MAX_BYTES: Final = TRAILING_BYTES_MAX + WINDOW_BYTES + 4 * OUTSTANDING_MAX_BYTES
"""Bound on what a log keeps: its tail, what is under way, and what waits to be committed, applied and written."""


class Canonical(NamedTuple):
    """What was applied first at an index, and the term of who applied it."""

    term: int
    chain: int
    committed_term: int
    proposal: int | None


class Checks:
    """Sees everything. Raises ViolationError."""

    def __init__(self, world: World, proposals: Proposals) -> None:
        self._world = world
        self.proposals = proposals
        self.log: list[Canonical | None] = [None]
        """By index; the first place is not used."""
        self.leaders: dict[tuple[bytes, int], Member] = {}
        self._seen: dict[Process, tuple[Role, int]] = {}
        self._commit: dict[Process, int] = {}
        self._calls = 0
        self.election_count = 0
        self.trace: list[str] | None = None
        self.watch: Callable[[Process, str, Message], None] = lambda process, destination, message: None
        """Told of every small message that leaves, and where it goes to."""

    # ---- Observer

    def note(self, text: str) -> None:
        """A line for the trace."""
        if self.trace is not None:
            self.trace.append(f"{self._world.time.now:11.6f} {text}")

    def failed(self, process: Process, error: BaseException) -> None:
        """No fault of the simulation is one that a node may give up at."""
        if isinstance(error, ViolationError):
            raise error
        raise ViolationError("node failed", f"{process.host.node_id}: {type(error).__name__}: {error}") from error

    def leads(self, process: Process, term: int) -> None:
        """A node serves now."""
        self.after_call(process)
        if process.node.role is not Role.LEADER or process.node.term != term:
            raise ViolationError("R7", f"{process.host.node_id} serves in term {term} without leading it")

    def sends(self, process: Process, data: bytes) -> None:
        """R8: what leaves is on this node's disk."""
        if len(data) > SMALL_BYTES:
            return
        frame = _frame_of(data, is_authenticated=self._world.secret is not None)
        if frame.header.kind is not FrameKind.DATA or frame.header.fragment_count != 1:
            return
        try:
            message = decode(frame.body)
        except WireError as error:
            raise ViolationError("wire", f"{process.host.node_id} sends what cannot be read: {error}") from error
        self.watch(process, frame.header.destination, message)
        image = process.host.journal.log
        if isinstance(message, AppendResponse):
            if message.is_success:
                self._check_acknowledgement(process, message)
        elif isinstance(message, VoteResponse):
            destination = self._key_of(frame.header.destination)
            if image.term < message.term or (image.term == message.term and image.voted_for not in destination):
                raise ViolationError(
                    "R8",
                    f"{process.host.node_id} votes for {frame.header.destination} in term {message.term}, on disk are"
                    f" term {image.term} and vote {image.voted_for}",
                )
        elif isinstance(message, VoteRequest) and (
            image.term < message.term or (image.term == message.term and image.voted_for != process.host.member.key)
        ):
            raise ViolationError("R8", f"{process.host.node_id} stands in term {message.term} before its disk knows")

    def _key_of(self, node_id: str) -> set[str]:
        """The keys that a node has had."""
        return {member.key for member in self._world.journals if member.node_id == node_id}

    def _check_acknowledgement(self, process: Process, message: AppendResponse) -> None:
        last = message.next_index - 1
        image, log = process.host.journal.log, process.log
        if image.term < message.term:
            raise ViolationError(
                "R8", f"{process.host.node_id} acknowledges in term {message.term}, on disk is term {image.term}"
            )
        if image.next_index <= last:
            raise ViolationError(
                "R8",
                f"{process.host.node_id} acknowledges entries up to {last}, its disk ends with {image.next_index - 1}",
            )
        first = log[0][1]
        if last >= image.start_index and first <= last <= log[-1][1] and process.node.term == message.term:
            durable_term = image.entries[last - image.start_index][2]
            if durable_term != log[last - first][2]:
                raise ViolationError(
                    "R8",
                    f"{process.host.node_id} acknowledges entry {last} of term {log[last - first][2]}, on disk it is of"
                    f" term {durable_term}",
                )

    # ---- after every call of a process

    def after_call(self, process: Process) -> None:
        """What can have changed: role and term, who serves, the commit index."""
        node = process.node
        seen = (node.role, node.term)
        if self._seen.get(process) != seen:
            self._seen[process] = seen
            if seen[0] is Role.LEADER:
                self._elected(process, seen[1])
        if node.is_serving and not process.is_stopping and node.is_confirmed:
            for host in self._world.hosts.values():
                other = host.process
                if other is None or other is process or other.is_stopping:
                    continue
                if other.node.is_serving and other.node.is_confirmed:
                    raise ViolationError(
                        "R7",
                        f"{process.host.node_id} in term {node.term} and {host.node_id} in term {other.node.term} both serve",
                    )
        self._calls += 1
        if self._calls % STATISTICS_EVERY == 0:
            self._look(process)

    def _look(self, process: Process) -> None:
        statistics = process.node.statistics()
        before = self._commit.get(process, 0)
        if statistics.commit_index < before:
            raise ViolationError(
                "commit index falls", f"{process.host.node_id}: from {before} to {statistics.commit_index}"
            )
        self._commit[process] = statistics.commit_index
        if statistics.journal_bytes_in_memory > MEMORY_MAX_BYTES:
            raise ViolationError(
                "R20",
                f"{process.host.node_id} keeps {statistics.journal_bytes_in_memory} bytes; allowed: {MEMORY_MAX_BYTES}",
            )
        for peer in statistics.peers:
            if peer.in_flight_bytes > WINDOW_BYTES + HUGE_BYTES + APPEND_BYTES:
                raise ViolationError(
                    "R20", f"{process.host.node_id} has {peer.in_flight_bytes} bytes under way to {peer.node_id}"
                )

    def _elected(self, process: Process, term: int) -> None:
        """One leader in a term (R7), which has everything committed in earlier terms."""
        self.election_count += 1
        self.note(f"{process.host.node_id}: leads term={term}")
        member = process.host.member
        configuration = process.node.configuration
        genesis = b"" if configuration is None else configuration.genesis  # what was formed in vain is another cluster
        other = self.leaders.setdefault((genesis, term), member)
        if other != member:
            raise ViolationError("R7", f"term {term} has two leaders: {other.key} and {member.key}")
        log, checked = process.log, 0
        first, last = log[0][1], log[-1][1]
        for index in range(len(self.log) - 1, first_known_index(log[:2]) - 1, -1):
            known = self.log[index]
            if known is None or known.committed_term >= term:
                continue
            if index > last or log[index - first][2] != known.term:
                found = "nothing" if index > last else f"an entry of term {log[index - first][2]}"
                raise ViolationError(
                    "leader completeness",
                    f"{process.host.node_id} leads term {term} with {found} at {index}; committed in term"
                    f" {known.committed_term}: an entry of term {known.term}",
                )
            checked += 1
            if checked == COMPARED_ENTRIES:
                return

    # ---- what is applied

    def applied(self, process: Process, entry: CommittedEntry, chain: int) -> None:
        """R6; and for the first to apply an entry, if it leads, a durable majority."""
        index = entry.index
        while len(self.log) <= index:
            self.log.append(None)
        known = self.log[index]
        if known is not None:
            if (known.term, known.chain) != (entry.term, chain):
                raise ViolationError(
                    "R6",
                    f"{process.host.node_id} applies an entry of term {entry.term} at {index}, applied before was one of"
                    f" term {known.term}" + (" with the same chain" if known.chain == chain else ""),
                )
            return
        node = process.node
        self.log[index] = Canonical(entry.term, chain, node.term, self.proposals.number_of(entry))
        if node.role is Role.LEADER:
            self._check_majority(process, index, entry.term)

    def _check_majority(self, process: Process, index: int, term: int) -> None:
        configuration = process.node.configuration
        if configuration is None:
            raise ViolationError("Raft", f"{process.host.node_id} leads and knows no members")
        images = self._world.journals
        having = [one for one in configuration.members if one in images and images[one].has(index, term)]
        if len(having) < configuration.majority:
            raise ViolationError(
                "commit not durable",
                f"{process.host.node_id} applies entry {index} of term {term}, which {len(having)} of"
                f" {len(configuration.members)} disks have",
            )

    # ---- at the end

    def check_log(self) -> None:
        """R1, R2, R5: every proposal that ended well is in the log, once, where it was said to be, in real-time order."""
        self.proposals.check([one.proposal if one is not None else None for one in self.log])


def _frame_of(data: bytes, *, is_authenticated: bool) -> Frame:
    return decode_frame(data[:-MAC_BYTES] if is_authenticated else data)
