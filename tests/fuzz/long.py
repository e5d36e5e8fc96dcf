"""Fuzzes the server with random seeds for a given time: `python -m tests.fuzz.long --minutes 10`.

A failure prints its smallest input and how to repeat it: with the seed, the target and `--rounds 1`.
"""

import argparse
import logging
import secrets
import sys
import time
import traceback

from tests.fuzz.targets import TARGETS, run


def main() -> int:
    """Exit status 1 when a round failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.long", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=0, help="stop after so many; 0 = when the time is up")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32), help="of the first round; then counts up")
    parser.add_argument("--target", choices=sorted(TARGETS), help="default: all in turn")
    parser.add_argument("--examples", type=int, default=0, help="per round; 0 = what suits the target")
    parser.add_argument("--no-shrink", action="store_true", help="report the first failure as it was found")
    arguments = parser.parse_args()
    _log_nothing()
    end_s = time.monotonic() + arguments.minutes * 60
    names = [arguments.target] if arguments.target else list(TARGETS)
    number, rounds = arguments.seed, 0
    while time.monotonic() < end_s and (not arguments.rounds or rounds < arguments.rounds):
        name = names[rounds % len(names)]
        examples = arguments.examples or TARGETS[name].examples
        try:
            run(name, examples=examples, seed_number=number, shrinks=not arguments.no_shrink)
        except Exception:  # noqa: BLE001  whatever it is, it is the result
            traceback.print_exc()
            again = f"--target {name} --seed {number} --rounds 1 --examples {examples}"
            print(f"\nfailed: target {name}, seed {number}; again with: python -m tests.fuzz.long {again}", flush=True)
            return 1
        rounds += 1
        print(f"seed {number}: {name}, {examples} inputs pass", flush=True)
        number += 1
    return 0


def _log_nothing() -> None:
    """Logging stays on, since a logged traceback is a failure, but nothing is shown."""
    logging.getLogger().addHandler(logging.NullHandler())


if __name__ == "__main__":
    sys.exit(main())
