"""Rows about three nodes under load: CPU of leader and followers, latency of a sync publish, and whether a leader stays.

One node and three run at the same time on one NATS server and get the same load in turn, the order changing from pair to
pair: ratios come from one run. CPU is up to the moment all are quiet again, clients not included.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from benchmarks.cluster import CLUSTER_ID, ThreeNodes
from benchmarks.loads import WINDOW, Load, Row, Target, run_load
from benchmarks.processes import Generator, settle
from tests.support.server_process import ServerProcess

LOADS: Final = {
    f"{'publish+deliver+ack' if subscribers else 'publish+ack'} {publishers}+{subscribers} {size} B": Load(
        size, publishers=publishers, subscribers=subscribers
    )
    for size in (128, 1024)
    for publishers, subscribers in ((1, 0), (4, 0), (1, 1))
}

STEADY_COUNT: Final = 1_000_000
"""Messages of 128 B stored before anything is measured: from then on the journal writes over files that it used before,
instead of into new ones, which costs the kernel three times as much."""

CHANNEL_INACTIVITY_S: Final = 1
"""After so many seconds without use a channel is deleted, so that the stores' files grow no more than the journals'. In a virtual
machine, memory that it has not used before, or has given back, costs eight times the CPU per byte written (measured), and
a growing file is written to such memory."""

SPINNERS: Final = 2

ONE_NODE_FIGURES: Final = ("messages_per_s", "our_us_per_message", "nats_us_per_message")


def cluster_target(nodes: ThreeNodes) -> Target:
    """The leader as the target of loads."""
    return Target(nodes.nats, nodes.nodes[nodes.leader()].pid, CLUSTER_ID)


def run_on_three(nodes: ThreeNodes, load: Load, channel: str, count: int) -> Row:
    """One load; the row has the leader's figures as a single server's, and those of the followers and of all three."""
    leader, leaderships = nodes.leader(), nodes.leaderships
    before = nodes.cpu_s()
    row = run_load(cluster_target(nodes), load, channel, count)
    nodes.settle()
    used = {name: after - before[name] for name, after in nodes.cpu_s().items()}
    followers = [used[name] for name in used if name != leader]
    total_s = sum(used.values())
    row |= {
        "followers_us_per_message": [one / row["messages"] * 1e6 for one in followers],
        "all_us_per_message": total_s / row["messages"] * 1e6,
        "all_cores": total_s / row["seconds"],
        "messages_per_cpu_s": row["messages"] / total_s,
        "follower_to_leader_cpu": statistics.fmean(followers) / used[leader],
        "leader_changes": nodes.leaderships - leaderships,
    }
    return row


def load_row(name: str, load: Load, one: ServerProcess, nodes: ThreeNodes, *, count: int, pairs: int, tag: str) -> Row:
    """Medians over the pairs, and the ratios of each pair."""
    ones: list[Row] = []
    threes: list[Row] = []
    for number in range(pairs):
        for is_three in (False, True) if number % 2 == 0 else (True, False):
            time.sleep(CHANNEL_INACTIVITY_S)  # the last channel is deleted before anything is measured
            nodes.settle()
            settle(one.pid)
            channel = f"{tag}.{number}"
            if is_three:
                threes.append(run_on_three(nodes, load, f"{channel}.three", count))
            else:
                target = Target(nodes.nats, one.pid, one.cluster_id)
                ones.append(run_load(target, load, f"{channel}.one", count))
    row: Row = {"row": f"three nodes, {name}", "size": load.size, "publishers": load.publishers, "pairs": pairs}
    for figure in (
        *("messages_per_s", "our_us_per_message", "nats_us_per_message", "all_us_per_message", "all_cores"),
        *("messages_per_cpu_s", "follower_to_leader_cpu", "generator_cores"),
    ):
        row[figure] = statistics.median(run[figure] for run in threes)
    for figure in (*ONE_NODE_FIGURES, "messages_per_cpu_s"):
        row[f"one_{figure}"] = statistics.median(run[figure] for run in ones)
    for number in (0, 1):
        row[f"follower{number + 1}_us_per_message"] = statistics.median(
            sorted(run["followers_us_per_message"])[number] for run in threes
        )
    for key, figure in (
        ("rate_ratios", "messages_per_s"),
        ("cpu_ratios", "our_us_per_message"),
        ("nats_ratios", "nats_us_per_message"),
    ):
        row[key] = [three[figure] / single[figure] for single, three in zip(ones, threes, strict=True)]
    row["follower_ratios"] = [run["follower_to_leader_cpu"] for run in threes]
    row["all_per_cpu_s"] = [run["messages_per_cpu_s"] for run in threes]
    row["leader_changes"] = sum(run["leader_changes"] for run in threes)
    row["redelivered"] = sum(run["redelivered"] for run in [*ones, *threes])
    row["errors"] = [run["errors"] for run in [*ones, *threes] if run["errors"]]
    row["failed"] = sum(run["failed"] for run in [*ones, *threes])
    return row


def sync_row(one: ServerProcess, nodes: ThreeNodes, *, size: int, count: int, tag: str) -> Row:
    """One client with one publish outstanding, at one node and at three."""
    results = {}
    for name, target in (("one", Target(nodes.nats, one.pid, one.cluster_id)), ("three", cluster_target(nodes))):
        generator = Generator(
            "sync",
            port=target.nats.port,
            cluster=target.cluster_id,
            channel=tag,
            client=f"{tag}-{name}",
            count=count,
            size=size,
        )
        generator.go()
        results[name] = generator.result()
    single, three = results["one"], results["three"]
    return {
        "row": f"three nodes, sync publish {size} B",
        "messages": count,
        "messages_per_s": three["per_second"],
        **{key: three[key] for key in ("p50_us", "p90_us", "p99_us", "max_us", "errors")},
        **{f"one_{key}": single[key] for key in ("per_second", "p50_us", "p99_us")},
        "rate_ratios": [three["per_second"] / single["per_second"]],
        "failed": int(single["status"] != 0) + int(three["status"] != 0),
    }


@contextmanager
def spinners(number: int) -> Iterator[None]:
    """As many processes that do nothing but use CPU."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def stability_row(nodes: ThreeNodes, *, seconds: float, count: int) -> Row:
    """Leader changes while publishers follow one another and other programs keep all cores busy."""
    target, leaderships = cluster_target(nodes), nodes.leaderships
    before = nodes.cpu_s()
    results: list[Row] = []
    held_before = sum(node.log.count("no majority confirms") for node in nodes.nodes.values())
    with spinners(SPINNERS):
        begin = time.monotonic()
        while time.monotonic() - begin < seconds:
            generator = Generator(
                "pub",
                port=target.nats.port,
                cluster=target.cluster_id,
                channel="stable",
                client=f"stable-{len(results)}",
                count=count,
                size=128,
                window=WINDOW,
            )
            generator.go()
            results.append(generator.result())
        elapsed = time.monotonic() - begin
        used = {name: (after - before[name]) / elapsed for name, after in nodes.cpu_s().items()}
    held = sum(node.log.count("no majority confirms") for node in nodes.nodes.values()) - held_before
    return {
        "row": f"three nodes, {SPINNERS} busy processes beside",
        "seconds": elapsed,
        "messages": count * len(results),
        "messages_per_s": count * len(results) / elapsed,
        "leader_changes": nodes.leaderships - leaderships,
        "times_held": held,
        "cores": used,
        "failed": sum(result["status"] != 0 for result in results),
    }
