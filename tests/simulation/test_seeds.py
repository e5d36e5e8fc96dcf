"""Random seeds: a cluster under faults keeps every promise, and comes back when they end."""

import pytest

from tests.simulation.simulation import Simulation, run_seed
from tests.simulation.store_layer import StoreSimulation

GROUPS = [
    # nodes, first seed, behind the last one
    (3, 0, 40),
    (3, 40, 80),
    (3, 80, 110),
    (5, 0, 20),
    (1, 0, 30),
    # found defects: a log that outgrew its bounds over a restart, frames that were taken for repeated ones
    (3, 1305, 1306),
    (3, 12055, 12056),
]


def run(seeds: range, node_count: int, kind: type[Simulation] = Simulation, *, is_calm: bool = False) -> None:
    """Run `seeds`; a failure names the command that shows it."""
    layer = "B" if kind is StoreSimulation else "A"
    calm = " --calm" * is_calm
    for seed in seeds:
        result, _ = run_seed(seed, node_count, kind=kind, is_calm=is_calm)
        assert result.violation is None, (
            f"{result.violation}\n    python -m tests.simulation.run --seeds {seed}:{seed + 1} --nodes {node_count}"
            f" --layer {layer}{calm} --trace"
        )
        assert result.applied > 0


@pytest.mark.parametrize(("node_count", "first", "behind"), GROUPS)
def test_no_seed_breaks_an_invariant(node_count: int, first: int, behind: int) -> None:
    """R1, R2, R5 to R8, R19 and R20 hold under crashes, partitions, slow disks, lost disks and changes of the members."""
    run(range(first, behind), node_count)


def test_the_store_is_the_same_on_all_nodes() -> None:
    """R6 with the store's own state machine: equal digests at equal indexes, over restarts and snapshots."""
    run(range(20), 3, StoreSimulation)


def test_slow_processors_and_disks_change_no_leader() -> None:
    """F16: stalls of up to 300 ms, one after the other, on any node, cost no leader its role."""
    run(range(20), 3, is_calm=True)


def test_seeds_explore() -> None:
    """The fixed seeds elect, crash, lose disks, fetch snapshots and change members: they are worth running."""
    results = [run_seed(seed, 3)[0] for seed in range(8)]
    assert sum(result.elections for result in results) > 20
    assert sum(result.crashes for result in results) > 20
    assert sum(result.snapshots for result in results) > 3
    assert all(result.failover_s is not None for result in results)
