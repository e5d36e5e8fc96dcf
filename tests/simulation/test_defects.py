"""The checks bite: each rule that is switched off is noticed, or there is a reason why it need not be."""

import pytest

from tests.simulation.defects import DEFECTS, planted
from tests.simulation.scenarios import SCENARIOS
from tests.simulation.simulation import quiet_logs, run_seed
from tests.simulation.violation import ViolationError

SEEDS = range(40)
"""Enough for what random faults find at all."""

SCENARIO_SEED = 1
"""Any will do but where a scenario says otherwise."""


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario_ends_well(name: str) -> None:
    """A situation made for one rule is survived with it."""
    with quiet_logs():
        SCENARIOS[name](SCENARIO_SEED + 1)


@pytest.mark.parametrize("name", [name for name, defect in DEFECTS.items() if defect.scenario])
def test_scenario_finds_the_defect(name: str) -> None:
    """The same situation without the rule breaks the invariant that is named."""
    defect = DEFECTS[name]
    with quiet_logs(), planted(name), pytest.raises(ViolationError) as raised:
        SCENARIOS[defect.scenario](SCENARIO_SEED + 1)
    assert raised.value.rule in defect.rules


@pytest.mark.parametrize(
    "name", [name for name, defect in DEFECTS.items() if not defect.scenario and not defect.harmless]
)
def test_random_seeds_find_the_defect(name: str) -> None:
    """One of a few seeds breaks the invariant that is named."""
    with planted(name):
        violations = (run_seed(seed, 3)[0].violation for seed in SEEDS)
        found = next(violation for violation in violations if violation is not None)
    assert found.rule in DEFECTS[name].rules


def test_every_defect_is_found_or_excused() -> None:
    """A defect names what finds it, or why nothing has to; every scenario is of use."""
    for name, defect in DEFECTS.items():
        assert bool(defect.rules) is not bool(defect.harmless), name
        assert not defect.scenario or defect.scenario in SCENARIOS, name
    assert {defect.scenario for defect in DEFECTS.values() if defect.scenario} == set(SCENARIOS)


@pytest.mark.parametrize("name", [name for name, defect in DEFECTS.items() if defect.harmless])
def test_excused_defects_break_nothing(name: str) -> None:
    """What is said to be harmless is, for a few seeds."""
    with planted(name):
        for seed in range(4):
            assert run_seed(seed, 3)[0].violation is None, seed
