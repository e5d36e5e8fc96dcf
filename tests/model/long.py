"""Runs the model test with random seeds: `python -m tests.model.long --minutes 10`, or `--steps 20000`.

A failure prints its minimal trace and the seed; `--seed N --rounds 1` runs that round again.
"""

import argparse
import logging
import secrets
import sys
import time
import traceback

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import invariant, run_state_machine_as_test

from tests.model.machine import DeliveryMachine

EXAMPLES_PER_ROUND = 200


def main() -> int:
    """Exit status 1 when a round failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.model.long", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=0, help="stop after so many; 0 = when the time is up")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32), help="of the first round; then counts up")
    parser.add_argument("--examples", type=int, default=EXAMPLES_PER_ROUND, help="per round")
    parser.add_argument("--steps", type=int, default=0, help="stop after at least so many in total, whatever the time")
    parser.add_argument("--example-steps", type=int, default=60, help="most steps of an example")
    parser.add_argument("--no-shrink", action="store_true", help="report the first failure as it was found")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    phases = (Phase.generate,) if arguments.no_shrink else (Phase.generate, Phase.shrink)
    profile = settings(
        max_examples=arguments.examples,
        stateful_step_count=arguments.example_steps,
        phases=phases,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    end_s = time.monotonic() + arguments.minutes * 60
    number, rounds = arguments.seed, 0
    done = 0

    class Counted(DeliveryMachine):
        @invariant()
        def count(self) -> None:
            nonlocal done
            done += 1

    while (done < arguments.steps or (not arguments.steps and time.monotonic() < end_s)) and (
        not arguments.rounds or rounds < arguments.rounds
    ):
        machine = seed(number)(type(f"DeliveryMachine{number}", (Counted,), {}))
        try:
            run_state_machine_as_test(machine, settings=profile)
        except Exception:  # noqa: BLE001  whatever it is, it is the result
            traceback.print_exc()
            again = (
                f"--seed {number} --rounds 1 --examples {arguments.examples} --example-steps {arguments.example_steps}"
            )
            print(f"\nfailed; again with: python -m tests.model.long {again}", flush=True)
            return 1
        rounds += 1
        print(f"seed {number}: {arguments.examples} examples agree, {done} steps so far", flush=True)
        number += 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
