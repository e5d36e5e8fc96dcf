"""The same seed does the same in every process, whatever the hash seed."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
from tests.simulation.simulation import run_seed
from tests.simulation.store_layer import StoreSimulation
for seed in (3, 8):
    print(run_seed(seed, 3)[0].digest, run_seed(seed, 3, kind=StoreSimulation)[0].digest)
"""


def digests(hash_seed: int) -> str:
    """What a process with that hash seed prints."""
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, check=True, capture_output=True, text=True, timeout=120
    ).stdout


def test_equal_seeds_give_equal_event_lists() -> None:
    """Two processes with different hash seeds agree on the digest of everything that ran."""
    first = digests(1)
    assert first == digests(2)
    assert len(set(first.split())) == 4


@pytest.mark.parametrize("arguments", [["--seeds", "3:5"], ["--seeds", "0:1", "--nodes", "1", "--layer", "B"]])
def test_command_line_counts(arguments: list[str]) -> None:
    """`python -m tests.simulation.run` prints totals, and ends with 0 when no seed failed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation.run", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert ", 0 failed," in done.stdout


def test_command_line_names_the_replay() -> None:
    """A seed that fails is printed with what was broken and the command to see it again."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation.run", "--seeds", "0:1", "--defect", "ungated"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout.startswith("seed 0: R8: ")
    assert "--seeds 0:1 --nodes 3 --layer A --defect ungated --trace" in done.stdout
