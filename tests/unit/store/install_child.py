"""Applies the beginning of a log, installs a copy of a later state of it, applies the rest, and prints what it has done.

usage: python -m tests.unit.store.install_child <data directory> <directory of the copy> <seed> <entries>
"""

import os
import sys
from pathlib import Path

from store.directory import DataDirectory
from store.errors import StoreError
from store.store import open_store
from tests.unit.store.builders import Host
from tests.unit.store.crash_child import FATAL_STATUS, log

FOLLOWER = {"cluster_id": "test-cluster", "node_id": "b", "incarnation": "ff00"}
BEGINNING = 12
"""Entries applied before the copy is installed."""


def main(directory: Path, copy: Path, seed: int, count: int) -> None:
    """Do it."""

    def stop(error: BaseException) -> None:
        print(f"fatal {error}", flush=True)
        os._exit(FATAL_STATUS)

    host = Host()
    store = open_store(
        DataDirectory(directory),
        post=host.posted.put,
        on_durable=lambda index: print(f"durable {index}", flush=True),
        on_fatal=stop,
        **FOLLOWER,
    )
    entries = log(seed, count)
    store.apply(entries[:BEGINNING])
    host.run_until(lambda: store.durable_index() >= BEGINNING)
    store.apply(entries[BEGINNING : BEGINNING + 1])  # is not waited for
    try:
        prepared = store.prepare(copy)
        print(f"prepared {prepared.index}", flush=True)
        store.install(prepared)
    except StoreError as error:
        stop(error)
    host.run_until(lambda: store.durable_index() >= prepared.index)
    print(f"installed {prepared.index}", flush=True)
    store.apply(entries[prepared.index :])
    host.run_until(lambda: store.durable_index() >= len(entries))
    store.close()
    print("closed", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
