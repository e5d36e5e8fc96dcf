"""Decides whether the installed PySyncObj is the one the engine was proven with.

The engine overrides and reads private names, so any other release may silently run stock behaviour that loses data.
Run at every start; a new release is allowed only after the cluster simulation has passed with it.
"""

import dis
from collections.abc import Iterable
from types import FunctionType, ModuleType
from typing import Final

from raft.errors import SelfCheckError

ALLOWED_VERSION: Final = "0.3.17"

MODULE_NAMES: Final = ("SyncObj", "createJournal", "monotonicTime", "random", "PIPE_NOTIFIER_ENABLED", "VERSION")
"""Globals of `pysyncobj.syncobj` that are replaced or used."""

OVERRIDDEN_METHODS: Final = (
    "_SyncObj__applyLogEntries",
    "_SyncObj__connectedToAnyone",
    "_SyncObj__getCurrentLogIndex",
    "_SyncObj__onBecomeLeader",
    "_SyncObj__sendAppendEntries",
    "_SyncObj__tryLogCompaction",
    "_applyCommand",
    "_checkCommandsToApply",
)
"""Methods replaced in the subclass. A renamed one would leave the stock behaviour in place."""

CALLED_METHODS: Final = ("_SyncObj__generateRaftTimeout", "_SyncObj__getEntries", "_SyncObj__setState", "doTick")
"""Methods the engine calls or relies on being called."""

ASSIGNED_ATTRIBUTES: Final = (
    "_SyncObj__lastResponseTime",
    "_SyncObj__newAppendEntriesTime",
    "_SyncObj__noopIDx",
    "_SyncObj__otherNodes",
    "_SyncObj__raftCommitIndex",
    "_SyncObj__raftCurrentTerm",
    "_SyncObj__raftElectionDeadline",
    "_SyncObj__raftLastApplied",
    "_SyncObj__raftLeader",
    "_SyncObj__raftLog",
    "_SyncObj__raftMatchIndex",
    "_SyncObj__raftState",
    "_SyncObj__serializer",
    "_SyncObj__transferInProgress",
    "_SyncObj__votesCount",
    "_poller",
)
"""Attributes that `SyncObj.__init__` must set, because the engine reads or replaces them."""


def check(module: ModuleType) -> None:
    """Raise SelfCheckError unless `module` (`pysyncobj.syncobj`) has the allowed version and all names."""
    version = getattr(module, "VERSION", None)
    if version != ALLOWED_VERSION:
        raise SelfCheckError(f"pysyncobj {version} is installed; allowed: exactly {ALLOWED_VERSION}")
    missing = _absent(MODULE_NAMES, vars(module))
    if "SyncObj" not in missing:
        methods = vars(module.SyncObj)
        missing += _absent(OVERRIDDEN_METHODS + CALLED_METHODS, methods)
        missing += _absent(ASSIGNED_ATTRIBUTES, _attributes_set_by(methods["__init__"]))
    if missing:
        raise SelfCheckError(
            f"pysyncobj {version} lacks {', '.join(missing)}; allowed: an unmodified pysyncobj {ALLOWED_VERSION}"
        )


def _absent(names: Iterable[str], present: Iterable[str]) -> list[str]:
    known = frozenset(present)
    return [name for name in names if name not in known]


def _attributes_set_by(function: FunctionType) -> set[str]:
    return {str(step.argval) for step in dis.get_instructions(function) if step.opname == "STORE_ATTR"}
