"""Runs seeds from the command line: `python -m tests.simulation.run --seeds A:B`. One line for each seed that fails, then totals."""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext

from .defects import DEFECTS, planted
from .simulation import Result, Simulation, run_seed
from .store_layer import StoreSimulation

LAYERS: dict[str, type[Simulation]] = {"A": Simulation, "B": StoreSimulation}


def main(arguments: Sequence[str]) -> int:
    """Exit status: 1 if a seed failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.run", description=__doc__)
    parser.add_argument("--seeds", default="0:20", help="first and behind the last one, as in 0:20")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--layer", choices=sorted(LAYERS), default="A", help="B: with the store's state machine")
    parser.add_argument("--calm", action="store_true", help="only slow processors and disks: no leader may change")
    parser.add_argument("--defect", choices=sorted(DEFECTS))
    parser.add_argument("--trace", action="store_true", help="print what happens")
    options = parser.parse_args(arguments)
    first, behind = map(int, options.seeds.split(":"))
    logging.disable(logging.CRITICAL)
    results: list[Result] = []
    begin = time.perf_counter()
    with planted(options.defect) if options.defect else nullcontext():
        for seed in range(first, behind):
            result, simulation = run_seed(
                seed, options.nodes, is_calm=options.calm, is_traced=options.trace, kind=LAYERS[options.layer]
            )
            results.append(result)
            if options.trace:
                print(*simulation.checks.trace or (), sep="\n")
            if result.violation is not None:
                print(f"seed {seed}: {result.violation}")
                print(f"    python -m tests.simulation.run {_replay(options, seed)}", flush=True)
    print(_totals(results, time.perf_counter() - begin))
    return int(any(result.violation is not None for result in results))


def _replay(options: argparse.Namespace, seed: int) -> str:
    words = [f"--seeds {seed}:{seed + 1} --nodes {options.nodes} --layer {options.layer}"]
    words += ["--calm"] * options.calm + [f"--defect {options.defect}"] * (options.defect is not None)
    return " ".join([*words, "--trace"])


def _totals(results: Sequence[Result], seconds: float) -> str:
    failovers = sorted(result.failover_s for result in results if result.failover_s is not None)
    recoveries = sorted(result.recovery_s for result in results if result.recovery_s is not None)
    return (
        f"{len(results)} seeds, {sum(result.violation is not None for result in results)} failed,"
        f" {len(results) / seconds * 60:.0f} a minute;"
        f" {sum(result.entries for result in results)} entries, {sum(result.applied for result in results)} proposals applied,"
        f" {sum(result.elections for result in results)} elections, {sum(result.faults for result in results)} faults,"
        f" {sum(result.crashes for result in results)} crashes, {sum(result.snapshots for result in results)} snapshots\n"
        f"virtual seconds until a new proposal was applied: after a leader's death {_spread(failovers)};"
        f" after healing {_spread(recoveries)}"
    )


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "none"
    return f"p50 {values[len(values) // 2]:.2f}, p99 {values[len(values) * 99 // 100]:.2f}, max {values[-1]:.2f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
