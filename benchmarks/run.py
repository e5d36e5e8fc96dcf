"""Runs the benchmark: JSON lines on standard output, a table on standard error.

    python benchmarks/run.py [--store FILE|MEMORY] [--dir PATH] [--repeat N] [--quick] [--only GROUP,...] [--against DIR]
    python benchmarks/run.py --only cluster,failover,catchup,stability [--kills N] [--stops N] [--messages N]

Starts a NATS server of its own, our server on it (option -ns, so that each process is accounted by itself) and the
trivial responder. Absolute figures belong to one machine at one time; the ratios to the responder, to the other side of a
comparison, and CPU per message are what may be compared. Exit status 1 if a generator got an error, a wrong answer or none.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import catchup, cluster_loads, crowds, failover, workloads
from benchmarks.cluster import NODE_NAMES, ThreeNodes
from benchmarks.comparison import Side, compare
from benchmarks.crowds import Scale
from benchmarks.loads import Load, Row, Target, run_load
from benchmarks.processes import Responder, build, settle
from benchmarks.report import header, table
from benchmarks.workloads import OUR_CLUSTER, YARDSTICK_CLUSTER
from tests.support.nats_process import NatsProcess
from tests.support.server_process import ServerProcess

NATS_CONFIGURATION = 'max_pending: 512MB\nwrite_deadline: "30s"\n'
"""Four publishers with full windows of 1 KiB are more than the default max_pending of 64 MB: it would cut us off."""

BASE_CLUSTER = "base"
UNLIMITED = ("-mc", "0", "-msu", "0")
"""Options for as many channels and subscriptions as a row makes."""

GROUP_MEMBERS = 10
FANOUT_SUBSCRIBERS = 4
FANOUT_SUBSCRIPTIONS = 25
CHANNELS = 1000


class Benchmark:
    """One run: its options, its NATS server, and the rows so far."""

    def __init__(self, options: argparse.Namespace, nats: NatsProcess) -> None:
        self.options = options
        self.nats = nats
        self.rows: list[Row] = []

    @contextmanager
    def server(
        self, cluster_id: str = OUR_CLUSTER, *, options: Sequence[str] = (), checkout: Path | None = None
    ) -> Iterator[ServerProcess]:
        """A new server with an empty directory below --dir; of the code in `checkout`, or of this one."""
        environment = {**os.environ, "PYTHONPATH": str(checkout)} if checkout is not None else None
        with tempfile.TemporaryDirectory(prefix="benchmark-", dir=self.options.dir) as directory:
            server = ServerProcess(
                store=self.options.store,
                directory=Path(directory) / "data",
                nats_url=self.nats.url,
                cluster_id=cluster_id,
                options=options,
                command=server_command(checkout),
                environment=environment,
            )
            with server:
                yield server

    @contextmanager
    def warm_server(
        self, cluster_id: str = OUR_CLUSTER, *, options: Sequence[str] = (), checkout: Path | None = None
    ) -> Iterator[ServerProcess]:
        """A server that has stored some messages already."""
        with self.server(cluster_id, options=options, checkout=checkout) as server:
            workloads.fill(self.nats, "warmup", 20_000, cluster_id=cluster_id)
            settle(server.pid)
            yield server

    @contextmanager
    def two_servers(
        self, options: Sequence[str] = UNLIMITED, *, checkout: Path | None = None
    ) -> Iterator[tuple[ServerProcess, ServerProcess]]:
        """The one to compare with (of the code in `checkout`), and the other."""
        with (
            self.warm_server(BASE_CLUSTER, options=options, checkout=checkout) as base,
            self.warm_server(options=options) as other,
        ):
            yield base, other

    def target(self, server: ServerProcess) -> Target:
        """The server as a target of loads."""
        return Target(self.nats, server.pid, server.cluster_id)

    def scaled(self, count: int) -> int:
        """`count`, or a tenth of it with --quick."""
        return count // 10 if self.options.quick else count

    @property
    def scale(self) -> Scale:
        """Of the loads in comparisons."""
        return Scale(20_000, 1, watch_s=1.0) if self.options.quick else Scale(200_000, 5)

    def add(self, repeat: int, row: Row) -> None:
        """Prints one row as a line of JSON and keeps it for the table."""
        row = {"kind": "row", "store": self.options.store, "repeat": repeat, **row}
        self.rows.append(row)
        print(json.dumps(row), flush=True)
        print(f"  {row['row']} #{repeat}", file=sys.stderr, flush=True)

    # ---- groups of rows

    def throughput(self, number: int) -> None:
        """Publishers and subscribers, against the trivial responder."""
        with self.warm_server() as server, self.responder() as yardstick:
            for index, (name, load) in enumerate(workloads.THROUGHPUT.items()):
                count = self.scaled(400_000 if load.size < 1024 else 200_000)
                row = workloads.throughput(self.target(server), yardstick, name, count, f"row{index}")
                self.add(number, row)

    def sync(self, number: int) -> None:
        """Latency with one publish outstanding."""
        with self.warm_server() as server, self.responder() as yardstick:
            for size in (128, 1024):
                count = 500 if self.options.quick else 3000
                self.add(number, workloads.sync_publish(self.target(server), yardstick, size, count, f"sync{size}"))

    def memory(self, number: int) -> None:
        """Resident memory by stored and by unacked messages."""
        stored, unacked = (100_000, 20_000) if self.options.quick else (1_000_000, 100_000)
        with self.server() as server:
            self.add(number, workloads.stored_memory(server, self.nats, stored))
        growth = []
        for acked in (False, True):
            with self.server() as server:
                growth.append(workloads.delivered_memory(server, self.nats, unacked, acked=acked))
        self.add(number, workloads.unacked_row(unacked, growth[0], growth[1]))

    def restart(self, number: int) -> None:
        """Time to the first PubAck after a restart."""
        count = self.scaled(1_000_000)
        with self.server() as server:
            workloads.fill(self.nats, "memory", count)
            for orderly in (False, True):
                self.add(number, workloads.restart_row(server, count, orderly=orderly))

    def groups(self, number: int) -> None:
        """A queue group against a plain subscription."""
        with self.warm_server() as server:
            target = self.target(server)
            for members in (1, GROUP_MEMBERS):
                load = Load(128, subscribers=1, subscriptions=members, group="workers")
                row = compare(
                    f"group, {members} members",
                    Side("plain", target, Load(128, subscribers=1)),
                    Side("group", target, load),
                    count=self.scale.count,
                    pairs=self.scale.pairs,
                    tag=f"group{members}",
                )
                self.add(number, row)

    def fanout(self, number: int) -> None:
        """Many subscriptions of one channel."""
        load = Load(128, subscribers=FANOUT_SUBSCRIBERS, subscriptions=FANOUT_SUBSCRIPTIONS)
        with self.warm_server() as server:
            row = run_load(self.target(server), load, "fanout", self.scaled(20_000))
            self.add(number, {"row": f"fan-out to {load.copies}", **row})

    def channels(self, number: int) -> None:
        """Publishing to many channels in turn, against one channel."""
        with self.warm_server(options=UNLIMITED) as server:
            target = self.target(server)
            workloads.fill(self.nats, "many", CHANNELS, channels=CHANNELS)
            row = compare(
                f"publish+ack to {CHANNELS} channels",
                Side("one", target, Load(128), "single"),
                Side("many", target, Load(128, channels=CHANNELS), "many"),
                count=self.scale.count,
                pairs=self.scale.pairs,
                tag="channels",
            )
            self.add(number, row)

    def subscriptions(self, number: int) -> None:
        """Idle subscriptions."""
        self.idle_things(number, ("subscriptions",))

    def idle(self, number: int) -> None:
        """Idle clients and idle channels."""
        self.idle_things(number, ("clients", "channels"))

    def idle_things(self, number: int, kinds: Sequence[str]) -> None:
        """Each kind by tens; how idle the server is, is watched with the most of them."""
        counts = (100, 1000) if self.options.quick else (100, 1000, 10_000)
        for kind in kinds:
            for count in counts:
                watch_s = self.scale.watch_s if count == counts[-1] else 0.0
                with self.two_servers() as (empty, crowded):
                    row = crowds.idle_row(kind, count, self.nats, empty, crowded, replace(self.scale, watch_s=watch_s))
                    self.add(number, row)

    def durables(self, number: int) -> None:
        """Offline durables."""
        count, clients = (5_000, 50) if self.options.quick else (100_000, 1000)
        with self.two_servers() as (empty, crowded):
            for row in crowds.durable_rows(count, clients, self.nats, empty, crowded, self.scale):
                self.add(number, row)

    def against(self, number: int) -> None:
        """The throughput rows on this server and on that of another checkout."""
        with self.two_servers((), checkout=self.options.against) as (old, new):
            for index, (name, load) in enumerate(workloads.THROUGHPUT.items()):
                row = compare(
                    f"new/old, {name}",
                    Side("old", self.target(old), load),
                    Side("new", self.target(new), load),
                    count=self.scale.count if load.size < 1024 else self.scale.count // 2,
                    pairs=self.scale.pairs,
                    tag=f"against{index}",
                )
                self.add(number, row)

    # ---- three nodes

    @contextmanager
    def three_nodes(self, options: Sequence[str] = ()) -> Iterator[ThreeNodes]:
        """Three new nodes with empty directories below --dir; the cluster has stored some messages already."""
        with tempfile.TemporaryDirectory(prefix="benchmark-", dir=self.options.dir) as directory:
            nodes = ThreeNodes(self.nats, Path(directory), options=options)
            with nodes:
                workloads.fill(self.nats, "warmup", 20_000, cluster_id=nodes.cluster_id)
                nodes.settle()
                yield nodes

    def cluster(self, number: int) -> None:
        """Throughput and latency of three nodes, against one."""
        count, pairs = (20_000, 1) if self.options.quick else (300_000, 3)
        limits = ("-mi", f"{cluster_loads.CHANNEL_INACTIVITY_S}s")
        with self.warm_server(options=limits) as one, self.three_nodes(limits) as nodes:
            for cluster_id in (one.cluster_id, nodes.cluster_id):
                workloads.fill(self.nats, "steady", self.scaled(cluster_loads.STEADY_COUNT), cluster_id=cluster_id)
            for index, (name, load) in enumerate(cluster_loads.LOADS.items()):
                scaled = count if load.size < 1024 else count // 2
                row = cluster_loads.load_row(name, load, one, nodes, count=scaled, pairs=pairs, tag=f"load{index}")
                self.add(number, row)
            self.add(number, cluster_loads.sync_row(one, nodes, size=128, count=self.scaled(5000), tag="sync"))

    def failover(self, number: int) -> None:
        """Time without PubAck after the end of the leader."""
        with self.three_nodes() as nodes:
            self.add(number, failover.failover_row(nodes, signal.SIGKILL, self.options.kills))
            self.add(number, failover.failover_row(nodes, signal.SIGTERM, self.options.stops))

    def catchup(self, number: int) -> None:
        """Memory of a leader, and how fast a follower catches up."""
        count = self.scaled(self.options.messages)
        with self.three_nodes() as nodes:
            self.add(number, catchup.memory_row(nodes, count, "all alive"))
        with self.three_nodes() as nodes:
            away = nodes.followers()[0]
            nodes.nodes[away].stop()
            row = catchup.memory_row(nodes, count, f"one of {len(NODE_NAMES)} dead")
            self.add(number, row)
            self.add(number, catchup.catch_up_row(nodes, away, row))
            published = catchup.publish_while_away(nodes, away, count // 5, "short")
            self.add(number, catchup.catch_up_row(nodes, away, published))

    def stability(self, number: int) -> None:
        """Whether the leader stays while all cores are busy."""
        seconds = 5.0 if self.options.quick else 60.0
        with self.three_nodes() as nodes:
            row = cluster_loads.stability_row(nodes, seconds=seconds, count=self.scaled(200_000))
            self.add(number, row)

    @contextmanager
    def responder(self) -> Iterator[Target]:
        """The trivial responder as a target of loads."""
        responder = Responder(self.nats.port, YARDSTICK_CLUSTER)
        try:
            yield Target(self.nats, None, YARDSTICK_CLUSTER)
        finally:
            responder.stop()


GROUPS: Mapping[str, Callable[[Benchmark, int], None]] = {
    "throughput": Benchmark.throughput,
    "sync": Benchmark.sync,
    "memory": Benchmark.memory,
    "restart": Benchmark.restart,
    "groups": Benchmark.groups,
    "fanout": Benchmark.fanout,
    "channels": Benchmark.channels,
    "subscriptions": Benchmark.subscriptions,
    "idle": Benchmark.idle,
    "durables": Benchmark.durables,
    "cluster": Benchmark.cluster,
    "failover": Benchmark.failover,
    "catchup": Benchmark.catchup,
    "stability": Benchmark.stability,
}
THREE_NODES = ("cluster", "failover", "catchup", "stability")
"""Groups that run only when asked for."""

NEED_FILES = ("restart", "durables", *THREE_NODES)
"""Groups that restart a server on its directory, or need one on disk."""


def server_command(checkout: Path | None) -> list[str]:
    """How to start the server: -P keeps the current directory, which is this checkout, out of the other one's path."""
    return [sys.executable, *(["-P"] if checkout is not None else []), "-m", "server"]


def check_checkout(directory: Path) -> None:
    """Raises ValueError unless the server would be run from `directory`."""
    command = [sys.executable, "-P", "-c", "import server; print(server.__file__)"]
    environment = {**os.environ, "PYTHONPATH": str(directory)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode or not Path(done.stdout.strip()).is_relative_to(directory):
        raise ValueError(f"--against: {directory} has no server package: {done.stdout}{done.stderr}")


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
    parser.add_argument(
        "--only",
        help=f"groups of rows, out of {','.join(GROUPS)}; default: all but {','.join(THREE_NODES)}, or with --against none",
    )
    parser.add_argument("--kills", type=int, default=30, help="failover: how often the leader is killed")
    parser.add_argument("--stops", type=int, default=15, help="failover: how often the leader is stopped in order")
    parser.add_argument("--messages", type=int, default=1_000_000, help="catchup: published while a follower is away")
    parser.add_argument(
        "--against", type=Path, help="another checkout: the throughput rows on its server and on this one in turn"
    )
    options = parser.parse_args(arguments)
    if options.only is not None:
        options.only = options.only.split(",")
    else:
        left_out = (*_left_out(options.store), *THREE_NODES)
        options.only = [] if options.against else [one for one in GROUPS if one not in left_out]
    unknown = sorted(set(options.only) - set(GROUPS))
    if unknown:
        parser.error(f"--only: {unknown} unknown, allowed are {','.join(GROUPS)}")
    impossible = sorted(set(options.only) & set(_left_out(options.store)))
    if impossible:
        parser.error(f"--only: {impossible} need --store FILE")
    for name in ("repeat", "kills", "stops", "messages"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: at least 1, not {getattr(options, name)}")
    if options.against is not None:
        options.against = options.against.resolve()
        try:
            check_checkout(options.against)
        except ValueError as error:
            parser.error(str(error))
    return options


def _left_out(store: str) -> tuple[str, ...]:
    return () if store == "FILE" else NEED_FILES


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs all; the exit status."""
    options = parse(arguments)
    build()
    print(json.dumps(header(options)), flush=True)
    with NatsProcess(configuration=NATS_CONFIGURATION) as nats:
        benchmark = Benchmark(options, nats)
        for number in range(1, options.repeat + 1):
            for name in options.only:
                GROUPS[name](benchmark, number)
            if options.against is not None:
                benchmark.against(number)
    print(table(benchmark.rows), file=sys.stderr)
    return 1 if any(row["failed"] for row in benchmark.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
