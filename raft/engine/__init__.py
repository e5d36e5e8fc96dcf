"""The only importer of PySyncObj: election, commit rule and append handling behind the typed `Consensus`."""

from .commands import CONFIGURATION, NO_OP, REGULAR
from .consensus import Consensus
from .ports import EnginePorts, RandomSource, Role, Timing

__all__ = [
    "CONFIGURATION",
    "NO_OP",
    "REGULAR",
    "Consensus",
    "EnginePorts",
    "RandomSource",
    "Role",
    "Timing",
]
