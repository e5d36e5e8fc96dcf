"""Defects to plant: each switches one rule off, so that it can be shown that the checks would notice.

They replace methods of production classes for the time of a run; production code has no switch.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Final

from raft import outbox
from raft.core import Core
from raft.election import Ballot, Stickiness
from raft.engine.kernel import Kernel
from raft.journal.log import BASE_COMMAND, Log
from raft.link.drops import DropReason
from raft.link.frame import Header
from raft.link.session import Session
from raft.membership import Configuration, Configurations, Member
from raft.messages import Append, AppendResponse, Message, SnapshotOffer, TermNotice
from raft.neighbours import Neighbours
from raft.sender import Progress, Sender

from .disk import JournalImage
from .faults import Faults
from .host import Host

Replacement = tuple[object, str, object]
"""Whose attribute, its name, and what it becomes."""


@dataclass(frozen=True, slots=True)
class Defect:
    """A rule that is switched off, what notices, and why nothing does if that is so."""

    text: str
    replacements: Callable[[], list[Replacement]]
    scenario: str = ""
    """Of `scenarios`; empty: random seeds find it."""
    rules: tuple[str, ...] = ()
    """What a violation may be of."""
    harmless: str = ""
    """Why the other rules make up for it."""


def _truncate_literally(log: Log, position: int) -> None:
    tail = log[position:]
    del log._entries[position:]
    if tail:
        told = log._truncated_index
        log._truncated(tail)
        log._truncated_index = told  # or the core would notice


def _count_undurable(kernel: Kernel) -> int:
    has = sorted(
        [
            *(kernel.match_index(node) for node in kernel._SyncObj__otherNodes),
            *[kernel.last_index()] * kernel._is_member,
        ]
    )
    return has[(len(has) - 1) // 2] if has else 0


def _ignore_term_of_answers(core: Core, member: Member, message: AppendResponse) -> None:
    _append_response(core, member, replace(message, term=core.consensus.term))


def _count_every_vote(ballot: Ballot, voter: Member, term: int, configuration: Configuration | None) -> bool:
    if term != ballot.term or configuration is None or voter not in configuration.members:
        return False
    ballot.voters.add(voter)
    return True


def _count_strangers(ballot: Ballot, voter: Member, term: int, _configuration: Configuration | None) -> bool:
    if term != ballot.term or voter in ballot.voters:
        return False
    ballot.voters.add(voter)
    return True


def _lower_next_index(sender: Sender, member: Member, answer: AppendResponse) -> Progress | None:
    progress = _answered(sender, member, answer)
    if progress is not None and answer.is_success and answer.next_index - 1 <= sender._log[-1][1]:
        progress.next_index = answer.next_index
    return progress


def _install_over_all(core: Core, index: int, term: int, configuration: Configuration | None) -> None:
    core._log.reset(index, term, term)
    core._configurations.truncated(0)
    _installed(core, index, term, configuration)


def _commit_on_offer(core: Core, member: Member, message: SnapshotOffer) -> None:
    if message.term >= core.consensus.term:
        core.consensus.raise_commit(min(message.base_index, core.consensus.last_index))
    _snapshot_offer(core, member, message)


def _send_placeholder(sender: Sender, progress: Progress, now: float, *, is_heartbeat: bool) -> None:
    log = sender._log
    if progress.next_index == log[1][1] and log[1][0] == BASE_COMMAND:
        entries = log[1:3]
        sender._note(progress, now)
        progress.next_index = entries[-1][1] + 1
        sender._send(
            progress.member,
            Append(sender.term, sender._commit_index(), log[0][1], log[0][2], progress.round, entries),
        )
        return
    _send_to(sender, progress, now, is_heartbeat=is_heartbeat)


def _confirm_at_receipt(sender: Sender, member: Member, answer: AppendResponse) -> Progress | None:
    progress = _answered(sender, member, answer)
    if progress is not None:
        progress.confirmed_s = sender._clock()
    return progress


def _ask_nobody_first(core: Core) -> None:
    if not core._may_stand:
        core.consensus.postpone_election()
    else:
        core.consensus.elect()


def _keep_incarnation(_faults: Faults, host: Host) -> None:
    """It stays the same member."""


def _forget_vote(image: JournalImage) -> Log:
    image.log.term = image.log.entries[-1][2] if image.log.entries else 0
    image.log.voted_for = None
    return _recovered(image)


def _drop_notices(core: Core, member: Member, message: Message) -> None:
    if not isinstance(message, TermNotice):
        _receive(core, member, message)


def _apply_nothing_again(kernel: Kernel, applied_index: int) -> None:
    last = kernel.last_index() if applied_index else applied_index
    _start_after(kernel, last)


def _refuse_no_data(session: Session, header: Header, _own_session: int) -> DropReason | None:
    if header.source != session.member:
        return DropReason.NO_HELLO
    session.last_sequence = header.sequence - 1
    return None


def _free_window(sender: Sender, member: Member, answer: AppendResponse) -> Progress | None:
    progress = _answered(sender, member, answer)
    if progress is not None:
        progress.in_flight.clear()
        progress.in_flight_bytes = 0
    return progress


def _keep_asking(core: Core, member: Member, term: int) -> bool:
    voters, asked = core._pre_votes.voters, core._pre_votes.term
    accepts = _accepts_leader(core, member, term)
    core._pre_votes.term, core._pre_votes.voters = asked, voters
    return accepts


_accepts_leader = Core._accepts_leader
_append_response = Core._append_response
_answered = Sender.answered
_installed = Core.installed
_snapshot_offer = Core._snapshot_offer
_send_to = Sender._send_to
_receive = Core.receive
_start_after = Kernel.start_after
_recovered = JournalImage.recovered


_NO_SESSIONS: Final[list[Replacement]] = [(Session, "refusal", _refuse_no_data)]

DEFECTS: Final[dict[str, Defect]] = {
    "literal_truncation": Defect(
        "an append cuts off everything behind its first entry",
        lambda: [(Log, "deleteEntriesFrom", _truncate_literally)],
        "lost_acknowledgement",
        ("leader completeness",),
    ),
    "ungated": Defect(
        "votes and answers leave before the disk has what they say", lambda: [(outbox, "GATED", ())], rules=("R8",)
    ),
    "undurable_leader": Defect(
        "a leader counts itself before its disk has the entry",
        lambda: [(Kernel, "_committable_index", _count_undurable)],
        rules=("commit not durable",),
    ),
    "term_of_answers": Defect(
        "an answer of an earlier term counts",
        lambda: [(Core, "_append_response", _ignore_term_of_answers)],
        "answer_of_an_earlier_term",
        ("commit not durable",),
    ),
    "votes_per_message": Defect(
        "a vote counts as often as it comes, on links that repeat",
        lambda: [
            (Ballot, "admits", _count_every_vote),
            (Kernel, "set_votes", lambda kernel, count: None),
            *_NO_SESSIONS,
        ],
        "repeated_votes",
        ("R7",),
    ),
    "votes_of_strangers": Defect(
        "votes of non-members count",
        lambda: [(Ballot, "admits", _count_strangers)],
        harmless="only members are asked, a vote goes to who asked, links deliver it to that very member, and a candidate's"
        " members do not change while it is one; what wins is counted among the members again",
    ),
    "stock_resend": Defect(
        "a success lowers the next index, and the leader sends again what is under way; appends truncate",
        lambda: [(Sender, "answered", _lower_next_index), (Log, "deleteEntriesFrom", _truncate_literally)],
        rules=("R8", "commit not durable", "leader completeness", "commit index falls", "node failed"),
    ),
    "resend": Defect(
        "a success lowers the next index, and the leader sends again what is under way",
        lambda: [(Sender, "answered", _lower_next_index)],
        harmless="an append that the log has already changes nothing, as it truncates on conflict only: it costs traffic",
    ),
    "snapshot_over_log": Defect(
        "a snapshot replaces a log that goes further",
        lambda: [(Core, "installed", _install_over_all)],
        "snapshot_up_to_the_log",
        ("leader completeness",),
    ),
    "commit_on_offer": Defect(
        "an offer of a snapshot commits what the log happens to have",
        lambda: [(Core, "_snapshot_offer", _commit_on_offer)],
        "offer_over_a_foreign_tail",
        ("R6",),
    ),
    "placeholder_sent": Defect(
        "the base of a reset log is sent as an entry",
        lambda: [(Sender, "_send_to", _send_placeholder)],
        "base_of_a_reset_log",
        ("wire",),
    ),
    "lease_from_receipt": Defect(
        "the lease counts from when an answer came",
        lambda: [(Sender, "answered", _confirm_at_receipt)],
        "late_answers",
        ("R7",),
    ),
    "no_stickiness": Defect(
        "a node helps to elect another leader though one may live",
        lambda: [(Stickiness, "holds", lambda stickiness, now: False)],
        "living_leader",
        ("R7",),
    ),
    "no_pre_vote": Defect(
        "an election begins unasked",
        lambda: [(Core, "_election_due", _ask_nobody_first)],
        "return_of_the_isolated",
        ("F16",),
    ),
    "late_pre_vote": Defect(
        "a node that has asked for pre-votes stands although it hears a leader meanwhile",
        lambda: [(Core, "_accepts_leader", _keep_asking)],
        "late_pre_vote",
        ("R7",),
    ),
    "old_identity": Defect(
        "a node that lost its disk stays the same member",
        lambda: [(Faults, "_begin_anew", _keep_incarnation)],
        "wiped_node",
        ("leader completeness",),
    ),
    "forgotten_vote": Defect(
        "a restart forgets term and vote",
        lambda: [(JournalImage, "recovered", _forget_vote)],
        "restarted_voter",
        ("R7",),
    ),
    "configuration_kept": Defect(
        "a configuration that was cut off with the log still counts",
        lambda: [(Configurations, "truncated", lambda configurations, index: False)],
        "configuration_cut_off",
        ("R19",),
    ),
    "two_changes": Defect(
        "a configuration is proposed while the last one is not committed",
        lambda: [(Core, "is_configuration_committed", property(lambda core: True))],
        "two_removals",
        ("leader completeness",),
    ),
    "gap_ignored": Defect(
        "a gap is not probed",
        lambda: [(Neighbours, "on_gap", lambda neighbours, member: None)],
        harmless="the next heartbeat asks for what was lost, and its answer says that it is missing: it costs a heartbeat",
    ),
    "window_freed": Defect(
        "a sign of life frees the window",
        lambda: [(Sender, "answered", _free_window)],
        "stuck_disk",
        ("R20",),
    ),
    "no_replay": Defect(
        "a store behind its journal is taken as up to date",
        lambda: [(Kernel, "start_after", _apply_nothing_again)],
        rules=("node failed", "apply once, in order"),
    ),
    "no_term_notice": Defect(
        "nobody learns that its term is over",
        lambda: [(Core, "receive", _drop_notices)],
        "unheard_candidate",
        ("R19",),
    ),
    "no_sessions": Defect(
        "the link takes what is late, repeated or of an earlier session",
        lambda: [*_NO_SESSIONS],
        harmless="answers carry term and round, votes count once, appends change nothing twice: late messages are refused or"
        " repeat what is known",
    ),
}


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Production code with the defect of that name."""
    with ExitStack() as stack:
        for owner, attribute, value in DEFECTS[name].replacements():
            stack.callback(setattr, owner, attribute, vars(owner)[attribute])
            setattr(owner, attribute, value)
        yield
