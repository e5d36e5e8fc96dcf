"""Rows about a follower that was away: how fast it catches up, by snapshot and by log, and what the leader holds in memory.

Seconds are from the start of its process until its store has on disk the last entry that the leader's store has. Rates are
compared with that at which the same messages were published, with the follower away.
"""

import time
from typing import Final

from benchmarks.cluster import OPENED_TEXT, ThreeNodes
from benchmarks.cluster_loads import cluster_target
from benchmarks.loads import Load, Row, run_load
from benchmarks.processes import memory

SNAPSHOT_TEXT: Final = "snapshot begins"


def memory_row(nodes: ThreeNodes, count: int, name: str) -> Row:
    """Publishes `count` messages of 128 B; resident memory of each running node before and after."""
    before = {node: memory(pid).resident_bytes for node, pid in nodes.pids().items()}
    published = run_load(cluster_target(nodes), Load(128), "memory", count)
    nodes.settle()
    leader = nodes.leader()
    after = {node: memory(pid) for node, pid in nodes.pids().items()}
    return {
        "row": f"three nodes, memory, {name}",
        "messages": count,
        "messages_per_s": published["messages_per_s"],
        "empty_resident_bytes": before[leader],
        "resident_bytes": after[leader].resident_bytes,
        "anonymous_bytes": after[leader].anonymous_bytes,
        "followers_resident_bytes": [one.resident_bytes for node, one in after.items() if node != leader],
        "followers_anonymous_bytes": [one.anonymous_bytes for node, one in after.items() if node != leader],
        "failed": published["failed"],
    }


def catch_up_row(nodes: ThreeNodes, name: str, published: Row) -> Row:
    """Starts a node that was away while `published` came, and waits until it has all of it."""
    leader = nodes.leader()
    target = nodes.durable_index(leader)
    server = nodes.nodes[name]
    begin = time.monotonic()
    leader_cpu_s, changes = nodes.cpu_s()[leader], nodes.leaderships
    server.spawn()
    server.wait_for_log(OPENED_TEXT)
    opened_s = time.monotonic() - begin
    behind = target - nodes.durable_index(name)
    nodes.wait_caught_up(name, target)
    seconds = time.monotonic() - begin
    own_cpu_s = nodes.cpu_s()[name]
    current = server.log.rpartition(OPENED_TEXT)[2]
    by = "snapshot" if SNAPSHOT_TEXT in current else "log"
    rate = published["messages"] / seconds
    return {
        "row": f"three nodes, catch-up by {by}",
        "messages": published["messages"],
        "entries_behind": behind,
        "seconds_to_catch_up": seconds,
        "seconds_to_open": opened_s,
        "messages_per_s": rate,
        "published_per_s": published["messages_per_s"],
        "catch_up_ratios": [rate / published["messages_per_s"]],
        "without_start_ratios": [published["messages"] / (seconds - opened_s) / published["messages_per_s"]],
        "own_cpu_s": own_cpu_s,
        "leader_cpu_s": nodes.cpu_s()[leader] - leader_cpu_s,
        "leader_changes": nodes.leaderships - changes,
        "snapshot_lines": [line for line in current.splitlines() if "snapshot" in line],
        "failed": 0,
    }


def publish_while_away(nodes: ThreeNodes, name: str, count: int, channel: str) -> Row:
    """Stops a node in order and publishes; the figures of the load."""
    nodes.nodes[name].stop()
    row = run_load(cluster_target(nodes), Load(128), channel, count)
    nodes.settle()
    return row
