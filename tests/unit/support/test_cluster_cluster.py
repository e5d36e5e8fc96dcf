"""A cluster of one standalone server starts, dies, loses power and heals; nothing of it stays behind."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.protocol import stan_pb2 as pb
from tests.support.cluster import capabilities
from tests.support.cluster.capabilities import Capability
from tests.support.cluster.client_loop import ClientLoop
from tests.support.cluster.cluster import Cluster, NoLeaderError
from tests.support.cluster.namespaces import NAMESPACE_DIRECTORY
from tests.support.cluster.node import SIGTERM_STATUS, NodeSettings
from tests.support.raw_client import RawClient

needs_images = pytest.mark.skipif(
    Capability.IMAGE_DISKS in capabilities.missing(), reason=f"{capabilities.missing().get(Capability.IMAGE_DISKS)}"
)
needs_clock = pytest.mark.skipif(
    Capability.FAKED_CLOCK in capabilities.missing(), reason=f"{capabilities.missing().get(Capability.FAKED_CLOCK)}"
)
TIMEOUT_S = 30.0


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Started."""
    with Cluster(["a"]) as made:
        yield made


@pytest.fixture
def loop(cluster: Cluster) -> Iterator[ClientLoop]:
    """Where the cluster's clients run."""
    made = ClientLoop(cluster.network.clients_namespace)
    yield made
    made.close()


async def publish(url: str, client_id: str, count: int) -> None:
    """Publishes and awaits the acks; the client then vanishes."""
    client = await RawClient.connect(url, client_id)
    await asyncio.gather(*(client.publish("kept", str(number).encode()) for number in range(count)))
    await client.nats.close()


async def read(url: str, client_id: str, count: int) -> list[bytes]:
    """The first messages."""
    client = await RawClient.connect(url, client_id)
    subscription = await client.subscribe("kept", start=pb.First)
    messages = await subscription.take(count)
    await client.nats.close()
    return [message.data for message in messages]


def test_killed_server_is_the_leader_again_after_healing(cluster: Cluster, loop: ClientLoop) -> None:
    """F1: acked messages survive; the death is counted and is no unexpected one."""
    node = cluster.leader()
    loop.call(publish(cluster.urls[0], "one", 20), timeout_s=TIMEOUT_S)
    node.kill()
    assert cluster.find_leader() is None
    cluster.heal()
    assert cluster.leader() is node
    assert len(loop.call(read(cluster.urls[0], "two", 20), timeout_s=TIMEOUT_S)) == 20
    assert (cluster.kills, cluster.unexpected_ends()) == (1, [])
    assert node.server.stop() == SIGTERM_STATUS


@needs_images
def test_power_cut_keeps_what_was_acked(cluster: Cluster, loop: ClientLoop) -> None:
    """F9, R8: an ack says that the message was synced."""
    cluster.leader()
    loop.call(publish(cluster.urls[0], "one", 50), timeout_s=TIMEOUT_S)
    cluster.power_cut(list(cluster.nodes.values()))
    cluster.heal()
    cluster.leader()
    assert len(loop.call(read(cluster.urls[0], "two", 50), timeout_s=TIMEOUT_S)) == 50
    assert cluster.unexpected_ends() == []


def test_server_that_ends_by_itself_is_told(cluster: Cluster) -> None:
    """R19: nobody killed it, no fault explains it."""
    node = cluster.leader()
    subprocess.run(["kill", "-KILL", str(node.server.pid)], check=True)
    assert node.server.wait_ended(TIMEOUT_S)
    (text,) = cluster.unexpected_ends()
    assert text.startswith("server-a ended by itself with status -9")


def test_damaged_node_that_does_not_start_is_replaced(cluster: Cluster) -> None:
    """F11: what an operator would do, and it is told."""
    node = cluster.leader()
    node.kill()
    for file in node.data_directory.rglob("*.segment"):
        file.unlink()
    node.is_damaged = True
    assert cluster.heal() == ["a did not start with damaged files and was replaced by an empty node"]
    assert cluster.leader() is node
    assert cluster.unexpected_ends() == []


def test_no_leader_is_an_error_with_the_logs(cluster: Cluster) -> None:
    """Waiting for a leader ends at its deadline."""
    cluster.leader().kill()
    with pytest.raises(NoLeaderError, match=r"no leader within 0.1 s\n--- a"):
        cluster.leader(0.1)


@needs_clock
def test_wall_clock_of_the_servers_jumps() -> None:
    """F12: the stamps of the log jump by an hour while time goes on."""
    with Cluster(["a"], NodeSettings(clustered=False, is_clock_faked=True)) as cluster:
        node = cluster.leader()
        hour_before = node.server.current_lines()[-1].text.split()[2][:2]
        node.set_clock(3600)
        node.server.stop()
        assert any(line.text.split()[2][:2] != hour_before for line in node.server.current_lines()[-5:])


def test_closed_cluster_leaves_nothing() -> None:
    """No process, no directory, no mount, no namespace."""
    cluster = Cluster(["a"])
    cluster.start()
    node = cluster.leader()
    pids = [node.server.pid, node.nats.pid]
    cluster.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert not cluster.directory.exists()
    assert str(cluster.directory) not in Path("/proc/self/mounts").read_text()
    left = NAMESPACE_DIRECTORY.iterdir() if NAMESPACE_DIRECTORY.exists() else ()
    assert node.place.namespace not in {entry.name for entry in left}
