"""Three nodes, each with its own NATS server routed to the others: `--cluster`, `--routes`, and docker-compose.yml."""

import asyncio
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.protocol import stan_pb2 as pb
from tests.support.compose_file import read_compose
from tests.support.ports import HOST
from tests.support.raw_client import RawClient, RawSubscription
from tests.support.raw_nats import NoRespondersError
from tests.support.routed_nodes import RoutedNodes
from tests.support.server_process import SIGTERM_STATUS, ServerProcess

NODES = ("node-1", "node-2", "node-3")
LOGIN = "router:p%40ss-w0rd"
DEADLINE_S = 30.0

COMMAND = (
    "-clustered -cluster_node_id {node} -cluster_peers node-1,node-2,node-3 -st FILE -dir /data/store"
    " -cluster_log_path /data/log -cluster nats://{login}@0.0.0.0:6222"
    " -routes nats://{login}@node-1:6222,nats://{login}@node-2:6222,nats://{login}@node-3:6222"
)


def compose_commands() -> dict[str, list[str]]:
    """The command line of each service of docker-compose.yml."""
    services = read_compose(Path(__file__).parents[2] / "docker-compose.yml")["services"]
    assert isinstance(services, dict)
    return {name: shlex.split(str(one["command"])) for name, one in services.items() if isinstance(one, dict)}


@pytest.fixture
def nodes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RoutedNodes]:
    """Three nodes that demand a login of routes; the parameter, if there is one, is another option."""
    more = [request.param] if hasattr(request, "param") else []
    commands = {node: [*COMMAND.format(node=node, login=LOGIN).split(), *more] for node in NODES}
    with RoutedNodes(commands, tmp_path, data="/data") as running:
        yield running


async def connect(server: ServerProcess, client_id: str) -> RawClient:
    """A client at a node's NATS server, as soon as that has heard from the others that somebody leads."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                return await RawClient.connect(server.url, client_id)
            except NoRespondersError:
                continue


async def publish(client: RawClient, data: list[bytes]) -> None:
    """Publish each until it is acknowledged, however often the leader changes meanwhile."""
    for payload in data:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    answer = await client.publish("orders", payload, timeout_s=0.5)
                except TimeoutError:
                    continue
                assert not answer.error
                break


async def received(subscription: RawSubscription, data: list[bytes]) -> None:
    """Wait until all of it has come."""
    await subscription.wait_until(
        lambda: {message.data for message in subscription.received} >= set(data), timeout_s=DEADLINE_S
    )


def child_command_lines(server: ServerProcess) -> list[str]:
    """The command lines of the processes that a server has started."""
    pids = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    return [Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") for pid in pids]


@pytest.mark.asyncio
async def test_nodes_with_their_own_nats_servers_outlive_the_leader(nodes: RoutedNodes) -> None:
    """O102, O103, O414: what is published at one NATS server comes at another, also after the leader dies with its own."""
    leader, term = await asyncio.to_thread(nodes.wait_leader)
    here, there = (server for name, server in nodes.servers.items() if name != leader)
    before, after = ([b"%b %d" % (word, number) for number in range(20)] for word in (b"before", b"after"))
    async with (
        await connect(here, "publisher") as publisher,
        await connect(there, "subscriber") as subscriber,
    ):
        subscription = await subscriber.subscribe("orders", start=pb.First, durable_name="d")
        await publish(publisher, before)
        await received(subscription, before)
        await asyncio.to_thread(nodes.servers[leader].kill)
        await publish(publisher, after)
        await received(subscription, before + after)
        fresh = [message.sequence for message in subscription.received if not message.redelivered]
        assert fresh == sorted(set(fresh))
    successor, term = await asyncio.to_thread(nodes.wait_leader, after_term=term)
    nodes.servers[leader].spawn()
    await asyncio.to_thread(nodes.servers[leader].wait_for_log, "Recovered 1 channel(s)")
    await asyncio.to_thread(nodes.servers[successor].kill)
    await asyncio.to_thread(nodes.wait_leader, after_term=term)
    async with await connect(nodes.servers[leader], "late") as late:
        everything = await late.subscribe("orders", start=pb.First)
        await received(everything, before + after)


@pytest.mark.parametrize("nodes", ["-DV"], indirect=True)
def test_login_of_routes_is_in_no_command_line_and_no_log(nodes: RoutedNodes) -> None:
    """O115: the NATS server gets it in a file, and neither it nor we print it, even when everything is traced."""
    nodes.wait_leader()
    lines = [line for server in nodes.servers.values() for line in child_command_lines(server)]
    assert any("nats-server" in line for line in lines)
    shown = "\n".join([*lines, nodes.log])
    assert "Route connection created" in shown
    for secret in ("p%40ss-w0rd", "p@ss-w0rd"):
        assert secret not in shown


def test_route_without_the_login_is_refused(nodes: RoutedNodes) -> None:
    """O103: who does not know the login does not get in, whatever its cluster id."""
    nodes.wait_leader()
    options = ("-cluster", "nats://127.0.0.1:-1", "-routes", f"nats://{HOST}:{nodes.route_ports['node-1']}")
    stranger = ServerProcess(store="MEMORY", cluster_id="other", options=options)
    try:
        stranger.spawn()
        nodes.servers["node-1"].wait_for_log("authentication error")
    finally:
        stranger.kill()
        stranger.remove()


@pytest.mark.asyncio
async def test_compose_file_makes_a_cluster(tmp_path: Path) -> None:
    """The commands of docker-compose.yml, on other ports and directories, start, form a cluster, serve and stop in order."""
    with RoutedNodes(compose_commands(), tmp_path, data="/data") as nodes:
        await asyncio.to_thread(nodes.wait_leader)
        data = [b"%d" % number for number in range(5)]
        first, *_, last = nodes.servers.values()
        async with (
            await connect(first, "publisher") as publisher,
            await connect(last, "subscriber") as subscriber,
        ):
            subscription = await subscriber.subscribe("orders", start=pb.First)
            await publish(publisher, data)
            await received(subscription, data)
        for name in NODES:
            assert (tmp_path / name / "store").is_dir()
            assert (tmp_path / name / "log").is_dir()
        assert await asyncio.to_thread(nodes.stop) == [SIGTERM_STATUS] * 3
