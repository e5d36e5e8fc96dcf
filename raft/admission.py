"""Changes who belongs to the cluster, one member at a time, at the leader. Pure; kept by a leader, dropped with its role.

Rules:
- Who joins first gets the log, without counting; only when it has nearly all of it does the configuration change, so that a
  commit never waits for a newcomer to catch up (Raft dissertation, section 4.2.1).
- A node that comes with another journal than the member of its name replaces it: the old member is removed, then the new one
  added, two changes (an empty disk must not count as the one that acknowledged). Not while the old one is alive.
- A node that is added and not heard within a second takes a place without a voice, which its journal fills when it comes (O430).
- No change leaves the cluster without a majority of members that can be reached now: it could never be committed.
- The next change is proposed when the last one is committed, and none before the leader's own no-op is.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from raft.core import Core
from raft.membership import Configuration, Member

logger = logging.getLogger(__name__)

Done: TypeAlias = Callable[[str | None], None]
"""Called once: None when it is done, else why it is not."""

NEARLY_ENTRIES: Final = 64
"""A newcomer that lacks at most so many entries is added."""

APPEARANCE_S: Final = 1.0
"""How long a node that an operator adds has to be heard, seconds: several hellos."""

LEARNER_SILENCE_S: Final = 60.0
"""A newcomer that was not heard for so long is given up, seconds."""

COMPLAINT_S: Final = 10.0
"""Between two log lines about a node that is refused, seconds; it asks again every second."""

NOT_LEADER: Final = "node is not the leader"
LOST: Final = "leadership lost"
INVALID_ID: Final = "invalid node ID"
NO_MAJORITY: Final = "too few nodes of the cluster could be reached then"
ONLY_NODE: Final = "it is the only node of the cluster"
"""Texts of the original, where it has one. Source: O431."""


@dataclass(slots=True, eq=False)
class _Change:
    """An operator's wish: that the node is in the configuration, or not."""

    node_id: str
    is_wanted: bool
    done: Done
    since_s: float


@dataclass(slots=True)
class Admission:
    """Newcomers and wishes of one leadership."""

    core: Core
    is_up: Callable[[Member], bool]
    is_alive: Callable[[Member], bool]
    """Whether that member was heard lately, even if another process of its node id is heard instead."""
    up_members: Callable[[], list[Member]]
    clock: Callable[[], float]
    has_removed_us: bool = False
    """The configuration without this node is committed."""
    _is_open: bool = False
    _learners: dict[Member, float] = field(default_factory=dict)
    """When each was last up."""
    _changes: list[_Change] = field(default_factory=list)
    _complained_s: dict[str, float] = field(default_factory=dict)

    @property
    def is_busy(self) -> bool:
        """Whether an answer of a member, a node that comes or time may allow the next step."""
        return self._is_open and bool(self._learners or self._changes or self._has_places())

    def _has_places(self) -> bool:
        configuration = self.core.configuration
        return configuration is not None and any(not member.incarnation for member in configuration.members)

    def targets(self) -> list[str]:
        """Nodes that are not in the configuration and get hellos."""
        return [member.node_id for member in self._learners] + [one.node_id for one in self._changes if one.is_wanted]

    def begin(self) -> None:
        """This node leads and serves."""
        self._is_open = True

    def end(self) -> None:
        """Leadership is over."""
        self._is_open = self.has_removed_us = False
        self._learners.clear()
        self._complained_s.clear()
        changes, self._changes = self._changes, []
        for change in changes:
            change.done(LOST)

    def admit(self, member: Member, done: Done) -> None:
        """That journal asks to become a member."""
        configuration = self.core.configuration
        if not self._is_open or configuration is None:
            done(NOT_LEADER)
            return
        known = configuration.find(member.node_id)
        rivals = [one for one in self._learners if one.node_id == member.node_id and one != member]
        if known is not None and known.incarnation and known != member:
            rivals.append(known)
        living = next((one for one in rivals if one == self.core.me or self.is_alive(one)), None)
        if living is not None:
            if self.clock() - self._complained_s.get(member.node_id, -math.inf) >= COMPLAINT_S:
                self._complained_s[member.node_id] = self.clock()
                logger.error(
                    'node "%s" asks to join with another journal, but a node of that id is running: refused',
                    member.node_id,
                )
            done(f'another running node has the id "{member.node_id}"')
            return
        if known != member and member not in self._learners:
            for rival in rivals:
                self._learners.pop(rival, None)
            self._learners[member] = self.clock()
            logger.info('node "%s" joins the cluster', member.node_id)
        done(None)

    def add(self, node_id: str, done: Done) -> None:
        """The operator wants the node in (O430)."""
        if not node_id:
            done(INVALID_ID)
        elif not self._is_open:
            done(NOT_LEADER)
        else:
            self._changes.append(_Change(node_id, is_wanted=True, done=done, since_s=self.clock()))

    def remove(self, node_id: str, done: Done) -> None:
        """The operator wants the node out."""
        configuration = self.core.configuration
        if not self._is_open or configuration is None:
            done(NOT_LEADER)
        elif configuration.node_ids == (node_id,):
            done(ONLY_NODE)
        else:
            for member in [one for one in self._learners if one.node_id == node_id]:
                del self._learners[member]
            self._changes.append(_Change(node_id, is_wanted=False, done=done, since_s=self.clock()))

    def advance(self) -> None:
        """Do what can be done now: propose the next change, tell what is done."""
        configuration = self.core.configuration
        if not self._is_open or configuration is None or not self.core.is_configuration_committed:
            return
        self.has_removed_us = not self.core.is_voter
        self._tell_done(configuration)
        self._welcome(configuration)
        self._forget_silent(configuration)
        self.core.set_learners(self._learners)
        wanted = self._next(configuration)
        if wanted is not None:
            logger.info("configuration proposed members=%s", ", ".join(wanted.node_ids))
            self.core.propose_configuration(wanted)
            self.core.flush()

    def _tell_done(self, configuration: Configuration) -> None:
        done = [one for one in self._changes if (configuration.find(one.node_id) is not None) is one.is_wanted]
        self._changes = [one for one in self._changes if one not in done]
        for change in done:
            logger.info('%s node "%s"', "Added" if change.is_wanted else "Removed", change.node_id)
            change.done(None)

    def _welcome(self, configuration: Configuration) -> None:
        """Nodes that are wanted and have come get the log."""
        wanted = {member.node_id for member in configuration.members if not member.incarnation}
        wanted.update(change.node_id for change in self._changes if change.is_wanted)
        for member in self.up_members():
            if member.node_id in wanted and member not in self._learners:
                self._learners[member] = self.clock()

    def _forget_silent(self, configuration: Configuration) -> None:
        now = self.clock()
        for member in list(self._learners):
            if self.is_up(member):
                self._learners[member] = now
            if member in configuration.members:
                del self._learners[member]
            elif now - self._learners[member] > LEARNER_SILENCE_S:
                logger.warning('node "%s" was to join and is silent: given up', member.node_id)
                del self._learners[member]

    def _next(self, configuration: Configuration) -> Configuration | None:
        """The next configuration, one member away from this one; None when there is nothing to do yet."""
        for change in list(self._changes):
            wanted = self._changed(configuration, change)
            if wanted is None:
                continue
            if self._has_majority(wanted):
                return wanted
            self._changes.remove(change)
            change.done(NO_MAJORITY)
        for member in self._learners:
            progress = None if self.core.sender is None else self.core.sender.find(member)
            lacks = self.core.consensus.last_index - (0 if progress is None else progress.match_index)
            if lacks > NEARLY_ENTRIES or not self.is_up(member):
                continue
            known = configuration.find(member.node_id)
            has_old = known is not None and bool(known.incarnation)
            wanted = configuration.without(member.node_id) if has_old else configuration.with_member(member)
            if self._has_majority(wanted):
                if has_old:
                    logger.info('node "%s" has a new journal: its old one is no member any more', member.node_id)
                else:
                    logger.info('node "%s" has the log and becomes a member', member.node_id)
                return wanted
        return None

    def _changed(self, configuration: Configuration, change: _Change) -> Configuration | None:
        """The configuration that a wish leads to; None while it has to wait."""
        if not change.is_wanted:
            return configuration.without(change.node_id) if len(configuration.members) > 1 else None
        has_come = any(one.node_id == change.node_id for one in self._learners)
        if has_come or self.clock() - change.since_s < APPEARANCE_S:
            return None
        return configuration.with_member(Member(change.node_id, ""))

    def _has_majority(self, configuration: Configuration) -> bool:
        """Whether enough of these members can be reached."""
        reached = sum(member == self.core.me or self.is_up(member) for member in configuration.members)
        return reached >= configuration.majority
