"""The targets: what is drawn, and the check it goes through."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz import protocol, requests, sessions


@dataclass(frozen=True)
class Target:
    """One property."""

    inputs: st.SearchStrategy[Any]
    check: Callable[[Any], None]
    examples: int
    """Inputs of one round of the long run, some ten seconds."""


TARGETS: Final = {
    "requests": Target(requests.inputs, requests.check, 500),
    "splits": Target(protocol.split_inputs, protocol.check_splits, 300),
    "damage": Target(protocol.damage_inputs, protocol.check_damage, 500),
    "sessions": Target(sessions.inputs, sessions.check, 300),
}


def run(name: str, *, examples: int, seed_number: int | None = None, shrinks: bool = True) -> None:
    """Check so many inputs of a target; without a seed always the same ones. Raises what the first bad one raises."""
    target = TARGETS[name]
    profile = settings(
        max_examples=examples,
        derandomize=seed_number is None,
        phases=(Phase.generate, Phase.shrink) if shrinks else (Phase.generate,),
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )

    def check(drawn: Any) -> None:
        target.check(drawn)

    test = profile(given(target.inputs)(check))
    if seed_number is not None:
        test = seed(seed_number)(test)
    test()
