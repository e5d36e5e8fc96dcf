"""The only importer of PySyncObj: election, commit rule and append handling behind the typed `Consensus`."""

from .commands import NO_OP, REGULAR
from .consensus import Consensus
from .ports import EnginePorts, Message, RandomSource, Role, Timing

__all__ = [
    "NO_OP",
    "REGULAR",
    "Consensus",
    "EnginePorts",
    "Message",
    "RandomSource",
    "Role",
    "Timing",
]
