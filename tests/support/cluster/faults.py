"""The fault classes F1 to F16: what is broken, in steps with a pause after each, drawn from the seed.

A fault is a generator over a scene. What it yields says what it has just done; the round notes that and waits a while. A
fault takes back what it did; what it leaves broken, `Cluster.heal` repairs.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from tests.support.cluster import damage
from tests.support.cluster.call_faults import SYNC_CALLS, WRITE_CALLS
from tests.support.cluster.capabilities import Capability
from tests.support.cluster.leadership import CLUSTER
from tests.support.cluster.link_faults import LinkFaults
from tests.support.cluster.namespaces import CLIENTS
from tests.support.cluster.node import SIGTERM_STATUS, Node
from tests.support.cluster.scene import Scene, named
from tests.support.history import Violation

Steps = Iterator[str]

REQUEST_TIMEOUT_S: Final = 10.0
CLIENTS_TIMEOUT_S: Final = 60.0

CLOCK_JUMPS_S: Final = (-3600, -60, 60, 3600)
SPINNERS_PER_CORE: Final = 2
RESETS: Final = 3
TRANSFER_CUTS: Final = 3


@dataclass(frozen=True, slots=True)
class FaultClass:
    """One row of the fault table."""

    name: str
    title: str
    inject: Callable[[Scene], Steps]
    needs: frozenset[Capability] = frozenset()
    holds_back: bool = True
    """Whether messages of an old leader can arrive behind those of a new one."""
    options: tuple[str, ...] = ()
    """Of the streaming servers, for the whole round."""
    is_clock_faked: bool = False


def kill(scene: Scene) -> Steps:
    """F1: kill -9, and a restart at once or later."""
    victims = scene.some_nodes()
    for node in victims:
        node.kill()
    if scene.chance.random() < 0.5:
        yield f"kill -9 of {named(victims)}"
    for node in victims:
        scene.bring_up(node)
    yield f"{named(victims)} restarted"


def stop_in_order(scene: Scene) -> Steps:
    """F2: a rolling restart; every stop is orderly (O225)."""
    for node in scene.chance.sample(scene.nodes, len(scene.nodes)):
        if not node.server.is_running:
            continue
        status = node.server.stop()
        if status != SIGTERM_STATUS:
            text = f"{node.name} ended with status {status} after SIGTERM; allowed: {SIGTERM_STATUS}"
            scene.violations.append(Violation("O225", CLUSTER, text))
        yield f"{node.name} stopped with status {status}"
        scene.bring_up(node)
        yield f"{node.name} restarted"


def pause(scene: Scene) -> Steps:
    """F3: SIGSTOP of a streaming server, of a nats-server, or of both."""
    node = scene.leader_or_follower()
    processes = scene.chance.choice(([node.server], [node.nats], [node.server, node.nats]))
    for process in processes:
        process.pause()
    yield f"{', '.join(process.name for process in processes)} paused"
    for process in processes:
        process.resume()
    yield f"{node.name} goes on"


def _links(scene: Scene) -> LinkFaults:
    assert scene.cluster.links is not None  # the round asked for Capability.FIREWALL
    return scene.cluster.links


def partition(scene: Scene) -> Steps:
    """F4: one node apart, the leader or a follower, with or without its clients; or two nodes that see only the third."""
    links = _links(scene)
    break_link = scene.chance.choice((links.cut, links.blackhole))
    node = scene.leader_or_follower()
    others = scene.others(node)
    if scene.chance.random() < 0.3:
        others = others[:1]
    elif scene.chance.random() < 0.3:
        others.append(CLIENTS)
    links.isolate(node.name, others, break_link)
    yield f"no link between {node.name} and {', '.join(others)} ({break_link.__name__})"
    links.heal()
    yield "links healed"


def one_way_partition(scene: Scene) -> Steps:
    """F5: a node that is heard and hears nothing, or the other way round."""
    links = _links(scene)
    node = scene.leader_or_follower()
    is_deaf = scene.chance.random() < 0.5
    for other in scene.others(node):
        links.cut_one_way(*((other, node.name) if is_deaf else (node.name, other)))
    yield f"{node.name} {'hears nobody' if is_deaf else 'is heard by nobody'}"
    links.heal()
    yield "links healed"


def bad_links(scene: Scene) -> Steps:
    """F6: loss on all links, or one slow node."""
    links = _links(scene)
    node = scene.leader_or_follower()
    if scene.chance.random() < 0.5:
        probability = scene.chance.choice((0.02, 0.1, 0.3))
        for index, one in enumerate(scene.nodes):
            for other in scene.nodes[index + 1 :]:
                links.lose(one.name, other.name, probability)
        yield f"{probability:.0%} of the packets between nodes are lost"
    else:
        rate = scene.chance.choice((300, 1000, 4000))
        links.slow(node.name, rate)
        yield f"the link of {node.name} takes {rate} kbit/s"
    links.heal()
    yield "links healed"


def reset_connections(scene: Scene) -> Steps:
    """F7: connections between nodes are reset, again and again; sometimes those of the clients."""
    links = _links(scene)
    node = scene.leader_or_follower()
    others = scene.others(node) + ([CLIENTS] if scene.chance.random() < 0.5 else [])
    for _ in range(RESETS):
        links.isolate(node.name, others, links.reset)
        yield f"connections of {node.name} with {', '.join(others)} are reset"
        links.heal()
        yield "links healed"


def kill_nats(scene: Scene) -> Steps:
    """F8: kill -9 of nats-servers, below streaming servers that go on."""
    victims = scene.some_nodes()
    for node in victims:
        node.nats.kill()
    yield f"kill -9 of the nats-servers of {named(victims)}"
    for node in victims:
        if not node.nats.is_running:
            node.start_nats()
    yield f"nats-servers of {named(victims)} restarted"


def power_cut(scene: Scene) -> Steps:
    """F9: nodes lose power together, sometimes again while they recover."""
    victims = scene.some_nodes()
    scene.cluster.power_cut(victims)
    yield f"power cut of {named(victims)}"
    if scene.chance.random() < 0.3:
        for node in victims:
            node.start_nats()
            node.spawn()
        scene.cluster.power_cut(victims)
        yield f"power cut of {named(victims)} during recovery"
    for node in victims:
        scene.bring_up(node)
    yield f"{named(victims)} restarted"


def bad_disk(scene: Scene) -> Steps:
    """F10: a disk that is full, fails, or is slow. A node that ends for it is restarted once it works again."""
    node = scene.leader_or_follower()
    kind = scene.chance.choice(("full", "low", "failing", "slow"))
    if not node.server.is_running:
        return
    if kind in ("full", "low"):
        node.server.expect_end()
        left = 0 if kind == "full" else 128 * 1024 * 1024
        node.disk.fill(left)
        yield f"the disk of {node.name} has {left} bytes left"
        node.disk.free()
    elif kind == "failing":
        node.server.expect_end()
        calls = scene.chance.choice((SYNC_CALLS, WRITE_CALLS))
        node.call_faults.fail(node.server.pid, calls, "EIO", first=scene.chance.choice((1, 2, 20)))
        yield f"{', '.join(calls)} of {node.name} fail with EIO"
        node.call_faults.detach()
    else:
        delay_ms = scene.chance.choice((20, 100, 400))
        node.call_faults.delay(node.server.pid, WRITE_CALLS, delay_ms)
        yield f"writes of {node.name} take {delay_ms} ms longer"
        node.call_faults.detach()
    yield f"the disk of {node.name} works; {scene.bring_up(node)}"


def damage_files(scene: Scene) -> Steps:
    """F11: files of one stopped node are damaged, lost, or older ones; damage may stay hidden until it is read."""
    node = scene.may_lose_files(scene.follower() if scene.chance.random() < 0.7 else scene.leader())
    kind = scene.chance.choice(("file", "file", "file", "directory", "older"))
    if kind == "older":
        yield from _go_back(scene, node)
        return
    node.kill()
    node.is_damaged = True
    if kind == "file":
        done = [damage.damage_one(node.directories, scene.chance) for _ in range(scene.chance.choice((1, 1, 3)))]
    else:
        done = [damage.lose(scene.chance.choice(node.directories))]
    yield f"{node.name} killed, {'; '.join(done)}"
    yield scene.bring_up(node)


def _go_back(scene: Scene, node: Node) -> Steps:
    """One directory, not all of them: a node whose whole disk is an older one cannot know, as little as one that lies."""
    directory = scene.chance.choice(node.directories)
    copy = directory.with_name(f"{directory.name}-copy")
    node.kill()
    damage.keep_copy(directory, copy)
    scene.bring_up(node)
    yield f"{node.name} restarted, with a copy of {directory.name} kept"
    node.kill()
    node.is_damaged = True
    done = damage.put_back(directory, copy)
    yield f"{node.name} killed, {done}"
    yield scene.bring_up(node)


def jump_clocks(scene: Scene) -> Steps:
    """F12: the wall clock of some nodes jumps, and jumps back."""
    victims = scene.some_nodes()
    jump_s = scene.chance.choice(CLOCK_JUMPS_S)
    for node in victims:
        node.set_clock(jump_s)
    yield f"the clock of {named(victims)} is off by {jump_s} s"
    for node in victims:
        node.set_clock(0)
    yield f"the clock of {named(victims)} is right"


def cut_transfer(scene: Scene) -> Steps:
    """F13: an empty follower is refilled over a slow link that is cut again and again."""
    links = _links(scene)
    node = scene.may_lose_files(scene.follower())
    node.kill()
    node.empty()
    links.slow(node.name, 2000)
    scene.bring_up(node)
    for _ in range(TRANSFER_CUTS):
        yield f"{node.name} is empty and has a slow link"
        links.isolate(node.name, scene.others(node), links.cut)
        yield f"{node.name} is cut off"
        links.heal()
        links.slow(node.name, 2000)
    links.heal()
    yield "links healed"


def change_members(scene: Scene) -> Steps:
    """F14: a node is replaced by an empty one; or removed and added again by request (O430, O431); or two swap disks."""
    kind = scene.chance.choice(("empty", "request", "swap"))
    node = scene.may_lose_files(scene.follower())
    if kind == "empty":
        node.kill()
        node.empty()
        yield f"{node.name} killed and emptied"
        yield scene.bring_up(node)
    elif kind == "request":
        _ask(scene, "remove", node)
        yield f"{node.name} removed from the cluster"
        node.kill()
        node.empty()
        scene.bring_up(node)
        _ask(scene, "add", node)  # answered when it is a member, for which it must run
        yield f"{node.name} added again, empty"
    else:
        other = scene.leader()
        if other is node:
            return
        node.kill()
        other.kill()
        node.swap_directories(other)
        yield f"{node.name} and {other.name} killed, their files swapped"
        for one in (node, other):
            scene.bring_up(one)
        yield f"{node.name} and {other.name} restarted"


def _ask(scene: Scene, action: str, node: Node) -> None:
    """An administrator's request; any other answer than +OK is a violation."""
    subject = f"_STAN.raft.{scene.cluster.settings.cluster_id}.node.{action}"
    try:
        answer = scene.call(scene.load.request(subject, node.node_id.encode()), timeout_s=REQUEST_TIMEOUT_S * 4)
    except TimeoutError as error:
        answer = f"no answer: {error}".encode()
    if answer != b"+OK":
        text = f"node.{action} of {node.node_id} was answered {answer.decode(errors='replace')}; allowed: +OK"
        scene.violations.append(Violation("O431", CLUSTER, text))


def trouble_by_clients(scene: Scene) -> Steps:
    """F15: clients that vanish, flood, and reconnect all at once."""
    kind = scene.chance.choice(("crash", "flood", "storm"))
    if kind == "crash":
        scene.call(scene.load.crash_clients(10), timeout_s=CLIENTS_TIMEOUT_S)
        yield "10 clients crashed"
    elif kind == "flood":
        scene.call(scene.load.flood(5000), timeout_s=CLIENTS_TIMEOUT_S)
        yield "5000 messages at once"
    else:
        for _ in range(RESETS):
            scene.call(scene.load.drop_all_connections(), timeout_s=CLIENTS_TIMEOUT_S)
            yield "every client lost its connection"


def starve(scene: Scene) -> Steps:
    """F16: other programs take the processors, each pinned to one."""
    cores = range(os.cpu_count() or 1)
    command = (sys.executable, "-c", "while True: pass")
    spinners = [
        subprocess.Popen(["taskset", "-c", str(core), *command]) for core in cores for _ in range(SPINNERS_PER_CORE)
    ]
    try:
        yield f"{len(spinners)} busy programs"
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()
    yield "the processors are free"


_ROWS: Final = (
    FaultClass("F1", "kill -9", kill, holds_back=False),
    FaultClass("F2", "orderly stop, rolling restart", stop_in_order, holds_back=False),
    FaultClass("F3", "paused processes", pause),
    FaultClass("F4", "partition", partition, frozenset({Capability.FIREWALL})),
    FaultClass("F5", "one-way partition", one_way_partition, frozenset({Capability.FIREWALL})),
    FaultClass("F6", "loss, slow links", bad_links, frozenset({Capability.FIREWALL, Capability.SLOW_LINKS})),
    FaultClass("F7", "connection resets", reset_connections, frozenset({Capability.FIREWALL})),
    FaultClass("F8", "nats-servers killed", kill_nats),
    FaultClass("F9", "power cuts", power_cut, frozenset({Capability.IMAGE_DISKS}), holds_back=False),
    FaultClass(
        "F10", "full, failing, slow disk", bad_disk, frozenset({Capability.IMAGE_DISKS, Capability.CALL_FAULTS})
    ),
    FaultClass("F11", "damaged, lost, older files", damage_files, holds_back=False),
    FaultClass(
        "F12", "clock jumps", jump_clocks, frozenset({Capability.FAKED_CLOCK}), holds_back=False, is_clock_faked=True
    ),
    FaultClass("F13", "cut transfers", cut_transfer, frozenset({Capability.FIREWALL, Capability.SLOW_LINKS})),
    FaultClass("F14", "members replaced", change_members, options=("-cluster_allow_add_remove_node",)),
    FaultClass("F15", "trouble by clients", trouble_by_clients),
    FaultClass("F16", "starved processors", starve, frozenset({Capability.PINNING})),
)

FAULTS: Final[Mapping[str, FaultClass]] = {row.name: row for row in _ROWS}
"""Every class by its name."""
