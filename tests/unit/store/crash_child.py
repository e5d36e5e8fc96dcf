"""Applies a log that its seed determines and prints what became durable. Ends with 3 and the reason on a fatal error.

usage: python -m tests.unit.store.crash_child <directory> <seed> <entries>
"""

import os
import sys
from pathlib import Path
from random import Random

from store.directory import DataDirectory
from store.store import open_store
from tests.unit.store.builders import IDENTITY, Host, LogEntry
from tests.unit.store.random_log import RandomLog

FATAL_STATUS = 3
STEP = 5
"""Entries applied before the child waits for a transaction."""


def log(seed: int, count: int) -> list[LogEntry]:
    """The log of a seed."""
    return RandomLog(Random(seed), message_max_bytes=2000).extend(count)


def main(directory: Path, seed: int, count: int) -> None:
    """Apply it."""

    def stop(error: BaseException) -> None:
        print(f"fatal {error}", flush=True)
        os._exit(FATAL_STATUS)

    host = Host()
    store = open_store(
        DataDirectory(directory),
        post=host.posted.put,
        on_durable=lambda index: print(f"durable {index}", flush=True),
        on_fatal=stop,
        **IDENTITY,
    )
    print(f"opened {store.last_applied()[0]}", flush=True)
    entries = log(seed, count)[store.last_applied()[0] :]
    for position in range(0, len(entries), STEP):
        group = entries[position : position + STEP]
        store.apply(group)
        host.run_until(lambda last=group[-1].index: store.durable_index() >= last)
    store.close()
    print("closed", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
